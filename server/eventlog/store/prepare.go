package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	// cleanFile says that the server has stopped in order, so that its index of the blocks can be believed.
	cleanFile = "clean-stop"
	// indexFile is a stream's own summary of its blocks.
	indexFile = "index.db"
)

// prepare makes the folder fit for a start. An index that is newer than the blocks would make the last sequence jump ahead
// of what is stored, and after an unclean stop it may well be; then it goes, and the server reads the blocks instead.
func (f Folder) prepare(log *slog.Logger, damaged bool, since time.Time) error {
	dir := string(f)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("prepare store: %w", err)
	}
	// The mark goes before anything is written, or a crash in between would look like a clean stop.
	switch err := os.Remove(filepath.Join(dir, cleanFile)); {
	case err == nil:
		if err := syncPath(dir); err != nil {
			return fmt.Errorf("prepare store: %w", err)
		}
		if !damaged {
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("prepare store: %w", err)
	}
	if damaged {
		folders, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*", "msgs"))
		if err != nil {
			return fmt.Errorf("prepare store: %w", err)
		}
		for _, folder := range folders {
			if err := rewriteBlocks(folder, since); err != nil {
				return fmt.Errorf("prepare store: %w", err)
			}
		}
	}
	indexes, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*", "msgs", indexFile))
	if err != nil {
		return fmt.Errorf("prepare store: %w", err)
	}
	for _, name := range indexes {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("prepare store: %w", err)
		}
		log.Info("event log was not stopped cleanly, its state is rebuilt from the blocks", "removed", name)
		if err := syncPath(filepath.Dir(name)); err != nil {
			return fmt.Errorf("prepare store: %w", err)
		}
	}
	return nil
}

// MarkClean records a stop in order, once all that the server left is on disk. It is called when the server is down.
func (f Folder) MarkClean() error {
	if err := syncAll(f.streams()); err != nil {
		return fmt.Errorf("mark clean stop: %w", err)
	}
	mark, err := os.OpenFile(filepath.Join(string(f), cleanFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("mark clean stop: %w", err)
	}
	if err := errors.Join(mark.Sync(), mark.Close(), syncPath(string(f))); err != nil {
		return fmt.Errorf("mark clean stop: %w", err)
	}
	return nil
}

// rewriteBlocks writes anew and syncs each block that changed since the last acknowledgement. After a failed sync the kernel
// holds pages that are not on disk and believes that they are: a reader would see events that a power cut takes away, and
// would let go of the only other copy.
func rewriteBlocks(dir string, since time.Time) error {
	blocks, err := filepath.Glob(filepath.Join(dir, "*"+blockSuffix))
	if err != nil {
		return err
	}
	const slack = time.Minute // file times are coarse, and clocks are set
	for _, name := range blocks {
		fi, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || fi.ModTime().Before(since.Add(-slack)) {
			continue
		}
		if err := rewrite(name); err != nil {
			return fmt.Errorf("rewrite %s: %w", name, err)
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	return syncPath(dir)
}

func rewrite(name string) error {
	src, err := os.Open(name)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	tmp := name + ".rewritten"
	dst, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, name)
}
