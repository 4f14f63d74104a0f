package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"time"
)

// A generation's file is a header and then blocks, each added with one write and never changed:
//
//	header: magic, keyed hash of the log's identity, checksum
//	block:  checksum, number of entries, first and last sequence covered, time of the newest event (Unix nanoseconds), then per entry fingerprint and sequence from the first
//
// Numbers are little-endian. A block says by itself which sequences it covers, so what is missing or damaged is a gap between those of the others, wherever it is.
const (
	magic      = "ERINDEX1"
	headerLen  = 20
	blockLen   = 36
	entryLen   = 12
	maxEntries = 1 << 16 // in a block
)

// errDamaged says that a file does not go on as it must.
var errDamaged = errors.New("damaged")

// errForeign says that a file belongs to another log, or was written under another key.
var errForeign = errors.New("of another log")

var checksums = crc32.MakeTable(crc32.Castagnoli)

// block is what a part of the log holds: the ids of all events from one sequence through another.
type block struct {
	from, through uint64
	newest        time.Time
	entries       []entry
}

// extend takes a block along that follows at once, or returns false.
func (b *block) extend(next block) bool {
	if next.from != b.through+1 || len(b.entries)+len(next.entries) > maxEntries || next.through-b.from > math.MaxUint32 {
		return false
	}
	b.through, b.entries = next.through, append(b.entries, next.entries...)
	if next.newest.After(b.newest) {
		b.newest = next.newest
	}
	return true
}

// header returns the beginning of a file.
func header(check uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(magic), check)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, checksums))
}

// encode returns a block as it is written. It holds at most maxEntries, none beyond 32 bits from its first sequence.
func (b *block) encode() []byte {
	out := make([]byte, 4, blockLen+len(b.entries)*entryLen)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(b.entries)))
	out = binary.LittleEndian.AppendUint64(out, b.from)
	out = binary.LittleEndian.AppendUint64(out, b.through)
	out = binary.LittleEndian.AppendUint64(out, uint64(b.newest.UnixNano()))
	for _, e := range b.entries {
		out = binary.LittleEndian.AppendUint64(out, e.mark)
		out = binary.LittleEndian.AppendUint32(out, uint32(e.sequence-b.from))
	}
	binary.LittleEndian.PutUint32(out, crc32.Checksum(out[4:], checksums))
	return out
}

// readBlocks calls visit with each block of a file and the place where it ends, until visit returns false or there are no more. It returns how much of the file is good,
// and errForeign, errDamaged (an end in the middle of a block is one) or an error of the disk if that is not all of it.
func readBlocks(r io.Reader, check uint64, visit func(b block, end int64) bool) (good int64, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, short(err)
	}
	switch want := header(check); {
	case string(head[:len(magic)]) != magic, crc32.Checksum(head[:headerLen-4], checksums) != binary.LittleEndian.Uint32(head[headerLen-4:]):
		return 0, errDamaged
	case string(head) != string(want):
		return 0, errForeign
	}
	good = headerLen
	buffer := make([]byte, blockLen+maxEntries*entryLen)
	for {
		_, err := io.ReadFull(in, buffer[:blockLen])
		if errors.Is(err, io.EOF) {
			return good, nil
		}
		if err != nil {
			return good, short(err)
		}
		n := binary.LittleEndian.Uint64(buffer[4:])
		if n > maxEntries {
			return good, errDamaged
		}
		raw := buffer[:blockLen+int(n)*entryLen]
		if _, err := io.ReadFull(in, raw[blockLen:]); err != nil {
			return good, short(err)
		}
		b, ok := decode(raw)
		if !ok {
			return good, errDamaged
		}
		good += int64(len(raw))
		if !visit(b, good) {
			return good, nil
		}
	}
}

// decode reads a block, and reports whether it is one.
func decode(raw []byte) (block, bool) {
	if crc32.Checksum(raw[4:], checksums) != binary.LittleEndian.Uint32(raw) {
		return block{}, false
	}
	b := block{
		from: binary.LittleEndian.Uint64(raw[12:]), through: binary.LittleEndian.Uint64(raw[20:]),
		newest: time.Unix(0, int64(binary.LittleEndian.Uint64(raw[28:]))),
	}
	if b.from == 0 || b.through < b.from {
		return block{}, false
	}
	for raw = raw[blockLen:]; len(raw) > 0; raw = raw[entryLen:] {
		delta := uint64(binary.LittleEndian.Uint32(raw[8:]))
		if delta > b.through-b.from {
			return block{}, false
		}
		b.entries = append(b.entries, entry{mark: binary.LittleEndian.Uint64(raw), sequence: b.from + delta})
	}
	return b, true
}

// short tells the end of a file apart from a disk that cannot be read.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errDamaged
	}
	return err
}

// file is the file of a generation. It is made with the first block, and written by one goroutine at a time.
type file struct {
	path string
	f    *os.File
	size int64 // what of it is good
	// mute is set when nothing can be added any more: what is missing is read from the log again at the next start.
	mute bool
}

// write adds a block. It need not be durable when write returns: what a crash takes away is read from the log again.
func (f *file) write(check uint64, b *block) error {
	if f.mute {
		return nil
	}
	err := f.open(check)
	if err == nil {
		raw := b.encode()
		if _, err = f.f.WriteAt(raw, f.size); err == nil {
			f.size += int64(len(raw))
			return nil
		}
		// A part of the block may be there. If it cannot be taken away, the next one would stand behind damage.
		if e := f.f.Truncate(f.size); e != nil {
			f.mute = true
		}
	}
	return fmt.Errorf("write %s: %w", f.path, err)
}

func (f *file) open(check uint64) error {
	if f.f != nil {
		return nil
	}
	opened, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if f.size == 0 {
		head := header(check)
		if _, err := opened.WriteAt(head, 0); err != nil {
			return errors.Join(err, opened.Close())
		}
		f.size = int64(len(head))
	}
	f.f = opened
	return nil
}

// close makes the file durable and lets go of it.
func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	err := errors.Join(f.f.Sync(), f.f.Close())
	f.f = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}

// cut takes away what stands behind the first `size` bytes, durably, so that it is never believed later.
func cut(path string, size int64) error {
	if size <= headerLen {
		return os.Remove(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove closes the file, if it was ever made, and deletes it.
func (f *file) remove() error {
	f.mute = true
	if f.f != nil {
		_ = f.f.Close() // nothing of it is wanted any more
		f.f = nil
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", f.path, err)
	}
	return nil
}
