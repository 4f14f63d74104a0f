package eventlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// cleanFile says that the server has stopped in order, so that its index of the blocks can be believed.
	cleanFile = "clean-stop"
	// markFile holds the highest acknowledged sequence.
	markFile = "acknowledged"
	// indexFile is the stream's own summary of its blocks.
	indexFile = "index.db"
)

// streamDir is where the embedded server keeps the stream, and messageDir its blocks.
func streamDir(dir string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", streamName)
}
func messageDir(dir string) string { return filepath.Join(streamDir(dir), "msgs") }

// prepareStore makes the store fit for a start. An index that is newer than the blocks would make the last sequence jump ahead
// of what is stored, and after an unclean stop it may well be; then it goes, and the server reads the blocks instead.
func prepareStore(dir string, log *slog.Logger, damaged bool, since time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("prepare store: %w", err)
	}
	// The mark goes before anything is written, or a crash in between would look like a clean stop.
	switch err := os.Remove(filepath.Join(dir, cleanFile)); {
	case err == nil:
		if err := syncDir(dir); err != nil {
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
		if err := syncDir(filepath.Dir(name)); err != nil {
			return fmt.Errorf("prepare store: %w", err)
		}
	}
	return nil
}

// markClean records a stop in order, once all that the server left is on disk. It is called when the server is down.
func markClean(dir string) error {
	if err := syncAll(filepath.Join(dir, "jetstream")); err != nil {
		return fmt.Errorf("mark clean stop: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, cleanFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("mark clean stop: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(dir)); err != nil {
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
	return syncDir(dir)
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

// mark keeps the highest acknowledged sequence in a file beside the store, as a lower bound of what must be found at the next
// start. It is not synced at each step: a process that dies leaves it exact, a power cut may leave it behind, never ahead.
type mark struct {
	f    *os.File
	last atomic.Int64 // when it was written last, Unix nanoseconds
}

const markFormat = "%-32s %020d\n"

func openMark(dir string) (*mark, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	m := &mark{f: f}
	m.last.Store(time.Now().UnixNano())
	return m, nil
}

// read returns the sequence acknowledged under the log's id; 0 if the file says nothing about that log.
func (m *mark) read(id string) uint64 {
	var (
		b    [64]byte
		name string
		seq  uint64
	)
	n, _ := m.f.ReadAt(b[:], 0) // a short file is no mark
	if _, err := fmt.Sscanf(string(b[:n]), "%s %d\n", &name, &seq); err != nil || name != id {
		return 0
	}
	return seq
}

func (m *mark) write(id string, seq uint64) error {
	if m == nil {
		return nil
	}
	m.last.Store(time.Now().UnixNano())
	if _, err := m.f.WriteAt(fmt.Appendf(nil, markFormat, id, seq), 0); err != nil {
		return fmt.Errorf("record acknowledged sequence: %w", err)
	}
	return nil
}

// time is when the last acknowledgement was recorded, or the mark opened.
func (m *mark) time() time.Time {
	if m == nil {
		return time.Time{}
	}
	return time.Unix(0, m.last.Load())
}

func (m *mark) close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
