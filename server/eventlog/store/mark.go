package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// markFile holds the highest acknowledged sequence.
const markFile = "acknowledged"

// Mark keeps the highest acknowledged sequence in a file beside the streams, as a lower bound of what must be found at the next
// start. It is not synced at each step: a process that dies leaves it exact, a power cut may leave it behind, never ahead.
type Mark struct {
	f    *os.File
	last atomic.Int64 // when it was written last, Unix nanoseconds
}

const markFormat = "%-32s %020d\n"

// OpenMark opens the mark, and makes it if there is none.
func (f Folder) OpenMark() (*Mark, error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(string(f), markFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	m := &Mark{f: file}
	m.last.Store(time.Now().UnixNano())
	return m, nil
}

// Read returns the sequence acknowledged under the log's id; 0 if the file says nothing about that log.
func (m *Mark) Read(id string) uint64 {
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

// Write records that what ends at a sequence is acknowledged.
func (m *Mark) Write(id string, seq uint64) error {
	m.last.Store(time.Now().UnixNano())
	if _, err := m.f.WriteAt(fmt.Appendf(nil, markFormat, id, seq), 0); err != nil {
		return fmt.Errorf("record acknowledged sequence: %w", err)
	}
	return nil
}

// Time is when the last acknowledgement was recorded, or the mark opened.
func (m *Mark) Time() time.Time {
	return time.Unix(0, m.last.Load())
}

// Close syncs and closes the file.
func (m *Mark) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
