//go:build linux || darwin || freebsd

package journal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// lookAfter is how old a look at the disk may be. A second of writing at the
// disk's full speed stays well below the default reserve.
const lookAfter = time.Second

// disk knows how much space is free without asking the file system every time.
type disk struct {
	dir   string
	look  func(dir string) (int64, error)
	every int64 // bytes taken after which to look again

	mu     sync.Mutex // guards what follows
	looked time.Time
	taken  int64
	bytes  int64
	err    error
}

// free tells the free bytes for unprivileged users, and notes that size more are
// about to be taken.
func (d *disk) free(size int64) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken += size
	if d.taken > d.every || time.Since(d.looked) > lookAfter {
		d.bytes, d.err = d.look(d.dir)
		d.looked, d.taken = time.Now(), 0
	}
	return d.bytes, d.err
}

func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // their types differ from system to system
}

// makeDir makes dir durable with its name, for its owner alone: bodies are
// personal data.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
