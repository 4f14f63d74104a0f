package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestBlocksAreSyncedFromTheLastOneOn(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := NewBlocks(dir)
	for _, step := range []struct {
		name   string
		newest uint64
	}{{"9.blk", 9}, {"index.db", 9}, {"10.blk", 10}, {"12.blk", 12}} {
		write(step.name)
		if err := s.Sync(); err != nil || s.newest != step.newest {
			t.Errorf("with %s the newest block is %d, %v", step.name, s.newest, err)
		}
	}
	// Retention takes blocks away.
	if err := os.Remove(filepath.Join(dir, "9.blk")); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	// The folder is at rest, so only the block itself is looked at.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Sync(); err != nil {
			t.Error(err)
		}
	}
	if !s.seen.Equal(old) {
		t.Errorf("the folder was seen at %v, it is of %v", s.seen, old)
	}
	if err := (&Blocks{dir: filepath.Join(dir, "none")}).Sync(); err == nil {
		t.Error("a folder that is not there is synced")
	}
}

// After a failed sync what the kernel shows and what the disk holds may differ, so the file is written anew.
func TestBlocksThatMayNotBeOnDiskAreWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	old, fresh, trap := filepath.Join(dir, "1.blk"), filepath.Join(dir, "2.blk"), filepath.Join(dir, "3.blk")
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(old, long, long), os.Symlink("/dev/full", trap)); err != nil {
		t.Fatal(err)
	}
	before := map[string]os.FileInfo{}
	for _, name := range []string{old, fresh} {
		before[name], _ = os.Stat(name)
	}
	if err := rewriteBlocks(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{old, fresh} {
		b, err := os.ReadFile(name)
		if err != nil || string(b) != name {
			t.Errorf("%s holds %q (%v)", name, b, err)
		}
		after, err := os.Stat(name)
		if err != nil || os.SameFile(before[name], after) != (name == old) {
			t.Errorf("%s: same file is %v (%v)", name, os.SameFile(before[name], after), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.rewritten")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
