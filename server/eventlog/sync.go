package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The embedded server syncs nothing of what it writes: it would do so for each message, or twice for each batch, which takes longer than all the rest. What has to be on disk is
// synced here, once for all that was written since.

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// syncTree syncs the folders from root's parent down to leaf and what lies in leaf, so that what was just made there is found again.
func syncTree(root, leaf string) error {
	rel, err := filepath.Rel(root, leaf)
	if err != nil {
		return fmt.Errorf("sync folders: %w", err)
	}
	if err := syncAll(leaf); err != nil {
		return err
	}
	dir := filepath.Dir(filepath.Clean(root))
	if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrPermission) { // the parent need not be ours
		return err
	}
	dir = root
	if err := syncDir(dir); err != nil {
		return err
	}
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		dir = filepath.Join(dir, part)
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// errNotSynced says that what was found of a log could not be synced. A second attempt proves nothing: the kernel reports an error once, and believes from then on that what it
// holds is on disk. So the blocks have to be written anew first.
var errNotSynced = errors.New("what the event log holds cannot be synced")

// syncStore syncs all that the embedded server keeps in a folder.
func syncStore(dir string) error { return syncTree(dir, filepath.Join(dir, "jetstream")) }

// syncAll syncs every file and folder from a folder down. What goes away meanwhile needs none.
func syncAll(root string) error {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case e.IsDir():
			err = syncDir(path)
		case e.Type().IsRegular():
			err = syncFile(path)
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

// disk is how much of an embedded log is on disk. Its zero value is of a log that has not begun.
type disk struct {
	blocks blockSync // used by the one Append that runs
	latest latest

	mu      sync.Mutex // guards what follows
	through uint64     // the highest sequence that is
	moved   chan struct{}
	failed  error // why a sync has failed
}

// begin is called when everything through a sequence is on disk.
func (d *disk) begin(dir string, through uint64) {
	d.blocks = blockSync{dir: dir}
	d.raise(through)
}

// end is the highest sequence that is on disk.
func (d *disk) end() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.through
}

// sync makes durable what was written, which ends at a sequence, and lets it be shown: records, from another sequence on, as latest.add has it.
func (d *disk) sync(through, first uint64, records []Record) error {
	if err := d.blocks.sync(); err != nil {
		d.fail(err)
		return err
	}
	if through > d.end() {
		d.latest.add(first, records)
	}
	d.raise(through)
	return nil
}

func (d *disk) raise(through uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through = max(d.through, through)
	if d.moved != nil {
		close(d.moved)
	}
	d.moved = make(chan struct{})
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
}

// damage is why a sync has failed.
func (d *disk) damage() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// wait returns nil once a sequence is on disk, or an error when a context ends: the caller's, or the one that lasts as long as the link.
func (d *disk) wait(ctx, alive context.Context, sequence uint64) error {
	for {
		d.mu.Lock()
		there, moved := sequence <= d.through, d.moved
		d.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-alive.Done():
			return fmt.Errorf("%w: it is opened again", ErrUnavailable)
		}
	}
}

// blockSync syncs the blocks of a stream, as far as they were written to since it did so last. Not for use by two goroutines at once.
type blockSync struct {
	dir    string    // "" has nothing to sync
	newest uint64    // the number of the block that was written to last
	seen   time.Time // the folder's time at the last sync, if it was old enough to tell a later change
}

func (s *blockSync) sync() error {
	if s.dir == "" {
		return nil
	}
	// The time is taken before the sync, so that a change during it is seen next time.
	fi, err := os.Stat(s.dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if t := fi.ModTime(); t.Equal(s.seen) {
		return syncFile(s.block(s.newest))
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
		if err := syncFile(s.block(number)); err != nil && !errors.Is(err, fs.ErrNotExist) { // retention may have taken it
			return err
		}
		s.newest = max(s.newest, number)
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	// A file time ticks in milliseconds. Two changes within one tick look the same, so a fresh time proves nothing yet.
	const tick = 100 * time.Millisecond
	if t := fi.ModTime(); time.Since(t) > tick {
		s.seen = t
	}
	return nil
}

func (s *blockSync) block(number uint64) string {
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
