package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The embedded server syncs nothing of what it writes: it would do so for each message, or twice for each batch, which takes longer than all the rest. What has to be on disk is
// synced here, once for all that was written since.

// syncPath syncs a file, or a folder: the names in it.
func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// Sync syncs all that the server keeps.
func (f Folder) Sync() error { return f.SyncTree(f.streams()) }

// SyncTree syncs what lies in a folder below, and the folders from the parent down to it, so that what was just made there is found again.
func (f Folder) SyncTree(leaf string) error {
	root := string(f)
	rel, err := filepath.Rel(root, leaf)
	if err != nil {
		return fmt.Errorf("sync folders: %w", err)
	}
	if err := syncAll(leaf); err != nil {
		return err
	}
	dir := filepath.Dir(filepath.Clean(root))
	if err := syncPath(dir); err != nil && !errors.Is(err, fs.ErrPermission) { // the parent need not be ours
		return err
	}
	dir = root
	if err := syncPath(dir); err != nil {
		return err
	}
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		dir = filepath.Join(dir, part)
		if err := syncPath(dir); err != nil {
			return err
		}
	}
	return nil
}

// SyncMessages syncs what a stream holds.
func (f Folder) SyncMessages(stream string) error { return syncAll(f.Messages(stream)) }

// syncAll syncs every file and folder from a folder down. What goes away meanwhile needs none.
func syncAll(root string) error {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case e.IsDir(), e.Type().IsRegular():
			err = syncPath(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

// Blocks syncs the blocks of a stream, as far as they were written to since it did so last. It is not for use by two goroutines at once, and its zero value has nothing to sync.
type Blocks struct {
	dir    string
	newest uint64    // the number of the block that was written to last
	seen   time.Time // the folder's time at the last sync, if it was old enough to tell a later change
}

// NewBlocks is of the stream whose blocks lie in a folder.
func NewBlocks(dir string) Blocks { return Blocks{dir: dir} }

// Sync returns when all that was written is on disk. After an error nobody knows what is.
func (s *Blocks) Sync() error {
	if s.dir == "" {
		return nil
	}
	// The time is taken before the sync, so that a change during it is seen next time.
	fi, err := os.Stat(s.dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if t := fi.ModTime(); t.Equal(s.seen) {
		return syncPath(s.block(s.newest))
	}
	blocks, err := blocksIn(s.dir)
	if err != nil {
		return err
	}
	before := s.newest
	for _, number := range blocks {
		if number < before {
			continue
		}
		if err := syncPath(s.block(number)); err != nil && !errors.Is(err, fs.ErrNotExist) { // retention may have taken it
			return err
		}
		s.newest = max(s.newest, number)
	}
	if err := syncPath(s.dir); err != nil {
		return err
	}
	// A file time ticks in milliseconds. Two changes within one tick look the same, so a fresh time proves nothing yet.
	const tick = 100 * time.Millisecond
	if t := fi.ModTime(); time.Since(t) > tick {
		s.seen = t
	}
	return nil
}

func (s *Blocks) block(number uint64) string {
	return filepath.Join(s.dir, strconv.FormatUint(number, 10)+blockSuffix)
}

// blockSuffix ends the name of a block, which is a number.
const blockSuffix = ".blk"

// blocksIn returns the numbers of the blocks in a folder, in no order.
func blocksIn(dir string) ([]uint64, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("sync folder: %w", err)
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("sync folder: %w", err)
	}
	var blocks []uint64
	for _, name := range names {
		if number, isBlock := strings.CutSuffix(name, blockSuffix); isBlock {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				blocks = append(blocks, n)
			}
		}
	}
	return blocks, nil
}
