package journal

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
)

const (
	marksFile = "marks"
	// A slot lies in a sector of its own, so that a torn write of one leaves the other.
	slotStride = 512
	slotLen    = 20
)

// marks tells the next Open what records alone cannot: up to where they were
// acknowledged, so that one missing at the end is missed; and up to where they are
// trimmed. Both only grow, so of two valid slots the higher values hold.
//
// It is written after each fsync of records and not synced itself, except at Close: it
// is a lower bound, exact after a killed process, and costs microseconds.
type marks struct {
	f   *os.File
	sum keyedSum

	mu      sync.Mutex // guards what follows and the file
	acked   uint64
	trimmed uint64
	slot    int64
}

// openMarks opens the marks of the journal in dir; known is false when they are not
// there or damaged.
func openMarks(dir string, sum keyedSum) (m *marks, known bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, marksFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	m = &marks{f: f, sum: sum}
	for slot := range int64(2) {
		var b [slotLen]byte
		if n, _ := f.ReadAt(b[:], slot*slotStride); n < slotLen {
			continue
		}
		if binary.LittleEndian.Uint32(b[16:]) != sum.of(b[:16]) {
			continue
		}
		known = true
		m.acked = max(m.acked, binary.LittleEndian.Uint64(b[0:]))
		m.trimmed = max(m.trimmed, binary.LittleEndian.Uint64(b[8:]))
	}
	return m, known, nil
}

// reset makes both slots valid and durable.
func (m *marks) reset() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range 2 {
		if err := m.write(); err != nil {
			return err
		}
	}
	return m.f.Sync()
}

func (m *marks) get() (acked, trimmed uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked, m.trimmed
}

func (m *marks) acknowledge(through uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked = through
	return m.write()
}

func (m *marks) trim(through uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trimmed = through
	return m.write()
}

// write fills the older slot. mu must be held.
func (m *marks) write() error {
	var b [slotLen]byte
	binary.LittleEndian.PutUint64(b[0:], m.acked)
	binary.LittleEndian.PutUint64(b[8:], m.trimmed)
	binary.LittleEndian.PutUint32(b[16:], m.sum.of(b[:16]))
	_, err := m.f.WriteAt(b[:], m.slot*slotStride)
	m.slot = 1 - m.slot
	return err
}

func (m *marks) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.f.Sync(), m.f.Close())
}
