package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// The engine's format of a segment, as far as it takes to check one: a file header,
// then frames of 8 bytes and a payload, padded to a multiple of 8. A batch ends with a
// commit frame, which holds the CRC-32C of all bytes since the one before. A full
// segment ends with an index frame, the offset of each entry, before its last commit.
const (
	fileHeaderLen = 32
	fileMagic     = 0x58eb6b0d
	frameHead     = 8
	frameEntry    = 1
	frameIndex    = 2
	frameCommit   = 3

	segmentSuffix = ".wal"
	// minFrame is the least that a record takes in a segment.
	minFrame = frameHead + headLen
)

// frameLen is what an envelope of n bytes takes in a segment.
func frameLen(n int64) int64 { return frameHead + (n+7)&^7 }

func fileHeader(info types.SegmentInfo) []byte {
	b := binary.LittleEndian.AppendUint64(nil, fileMagic)
	b = binary.LittleEndian.AppendUint64(b, info.BaseIndex)
	b = binary.LittleEndian.AppendUint64(b, info.ID)
	return binary.LittleEndian.AppendUint64(b, info.Codec)
}

func newFiler(dir string, vfs types.VFS) *segment.Filer { return segment.NewFiler(dir, vfs) }

func parseSegmentName(name string) (base, id uint64, err error) {
	if n, err := fmt.Sscanf(name, "%020d-%016x"+segmentSuffix, &base, &id); err != nil || n != 2 {
		return 0, 0, fmt.Errorf("%w: file %s is not named like a segment", ErrDamaged, name)
	}
	return base, id, nil
}

func segmentNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), segmentSuffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// segments hands the engine its files, and takes note of what fails behind the
// caller's back: the next segment is made, and old ones are deleted, in the background.
type segments struct {
	*segment.Filer
	log *slog.Logger

	mu   sync.Mutex // guards fail
	fail func(error)
}

func (s *segments) onError(fail func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// Create implements types.SegmentFiler.
func (s *segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID // the engine names its own codec, whichever it was given
	w, err := s.Filer.Create(info)
	if err != nil {
		err = fmt.Errorf("create segment %s: %w", segment.FileName(info), err)
		s.mu.Lock()
		fail := s.fail
		s.mu.Unlock()
		if fail != nil {
			fail(err)
		}
	}
	return w, err
}

// Delete implements types.SegmentFiler. An old segment that stays costs disk and nothing
// else; the next Open deletes it.
func (s *segments) Delete(base, id uint64) error {
	err := s.Filer.Delete(base, id)
	if err != nil {
		s.log.Warn("trimmed segment of the journal is not deleted", "base", base, "id", id, "error", err)
	}
	return nil
}

// imageWindow is how much of a segment is in memory while it is checked.
const imageWindow = 256 << 10

// An image is a segment file read through a window. A read error sticks, and the rest
// of the file then looks cut off.
type image struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	off  int64 // of buf in the file
	err  error
}

func newImage(r io.ReaderAt, size int64) *image {
	return &image{r: r, size: size, buf: make([]byte, 0, min(size, imageWindow))}
}

// at returns n bytes at off, valid until the next call; nil when the file does not have
// them. n is at most imageWindow.
func (m *image) at(off, n int64) []byte {
	if m.err != nil || off < 0 || n > m.size-off {
		return nil
	}
	if off < m.off || off+n > m.off+int64(len(m.buf)) {
		m.off = off
		m.buf = m.buf[:min(imageWindow, m.size-off)]
		if got, err := m.r.ReadAt(m.buf, off); got < len(m.buf) {
			m.err, m.buf = err, m.buf[:0]
			return nil
		}
	}
	return m.buf[off-m.off:][:n]
}

// crc continues crc over n bytes at off; false when the file does not have them.
func (m *image) crc(crc uint32, off, n int64) (uint32, bool) {
	for n > 0 {
		b := m.at(off, min(n, imageWindow/4))
		if b == nil {
			return 0, false
		}
		crc = crc32.Update(crc, castagnoli, b)
		off += int64(len(b))
		n -= int64(len(b))
	}
	return crc, true
}

// envelope tells the head of the whole and undamaged envelope at off; false when
// there is none.
func (m *image) envelope(sum keyedSum, off int64) (head, bool) {
	h, ok := sum.head(m.at(off, headLen))
	if !ok {
		return head{}, false
	}
	crc, ok := m.crc(uint32(sum), off+headLen, int64(h.length))
	return h, ok && crc == h.sum
}

// A place is where a whole envelope lies.
type place struct {
	index uint64
	off   int64
	len   int64
	lost  bool // the envelope says that the record was lost earlier
}

func placeOrder(p place, index uint64) int { return cmp.Compare(p.index, index) }

// contents is what a survey of a segment found.
type contents struct {
	places []place // of whole envelopes, by rising index; what is damaged is left out

	// Up to record clean, at cleanEnd, each byte is as it was written: header,
	// frames, envelopes and commits.
	clean    uint64
	cleanEnd int64
	// indexStart is where the index begins if the clean part is a full segment, else 0.
	indexStart int64
	// dirtyEnd is the end of the last byte behind cleanEnd that is not zero, or cleanEnd.
	dirtyEnd int64
}

// last is the index of the last whole record, or the one before the segment.
func (c *contents) last() uint64 {
	if n := len(c.places); n > 0 {
		return max(c.clean, c.places[n-1].index)
	}
	return c.clean
}

// survey reads a segment from end to end: frame by frame as far as all is well, and
// from there on for envelopes wherever they lie.
func survey(m *image, info types.SegmentInfo, sum keyedSum) (contents, error) {
	c := contents{clean: info.BaseIndex - 1}
	if bytes.Equal(m.at(0, fileHeaderLen), fileHeader(info)) {
		c.walk(m, info.BaseIndex, sum)
	}
	c.search(m, sum)
	if m.err != nil {
		return contents{}, fmt.Errorf("read segment %s: %w", segment.FileName(info), m.err)
	}
	return c, nil
}

// walk follows the frames and stops at the first that is not as the engine writes it.
func (c *contents) walk(m *image, next uint64, sum keyedSum) {
	var batch []place
	var batchStart, indexStart int64
	entries := int64(0)
	for off := int64(fileHeaderLen); ; {
		fh := m.at(off, frameHead)
		if fh == nil || fh[1]|fh[2]|fh[3] != 0 {
			return
		}
		typ, n := fh[0], int64(binary.LittleEndian.Uint32(fh[4:]))
		switch typ {
		case frameEntry:
			h, ok := m.envelope(sum, off+frameHead)
			if !ok || h.index != next || headLen+int64(h.length) != n {
				return
			}
			batch = append(batch, place{next, off + frameHead, n, h.kind == kindLost})
			next++
			entries++
			off += frameLen(n)
		case frameIndex:
			if n != 4*entries {
				return
			}
			indexStart = off + frameHead
			off += frameLen(n)
		case frameCommit:
			if crc, ok := m.crc(0, batchStart, off-batchStart); !ok || crc != uint32(n) {
				return
			}
			off += frameHead
			batchStart = off
			c.places = append(c.places, batch...)
			batch = batch[:0]
			c.clean, c.cleanEnd, c.indexStart = next-1, off, indexStart
			if indexStart > 0 {
				return
			}
		default:
			return
		}
	}
}

// search looks for whole envelopes behind the clean part, at every place where a frame
// can begin.
func (c *contents) search(m *image, sum keyedSum) {
	last, lastEnd := c.clean, max(c.cleanEnd, fileHeaderLen)
	c.dirtyEnd = c.cleanEnd
	for off := c.cleanEnd; off < m.size; {
		b := m.at(off, min(frameHead, m.size-off))
		if b == nil {
			return
		}
		if isZero(b) {
			off += frameHead
			continue
		}
		c.dirtyEnd = off + int64(len(b))
		h, ok := head{}, false
		if len(b) == frameHead && binary.LittleEndian.Uint32(b) == magic {
			h, ok = m.envelope(sum, off)
		}
		// Each record that is missing in between took room of its own: an index
		// beyond what fits is none of this place.
		room := uint64(max(0, off-frameHead-lastEnd)) / minFrame
		if !ok || h.index <= last || h.index-last-1 > room {
			off += frameHead
			continue
		}
		n := headLen + int64(h.length)
		c.places = append(c.places, place{h.index, off, n, h.kind == kindLost})
		last = h.index
		off += (n + 7) &^ 7
		lastEnd = off
		c.dirtyEnd = min(off, m.size)
	}
}

func isZero(b []byte) bool {
	if len(b) == frameHead {
		return binary.LittleEndian.Uint64(b) == 0
	}
	return len(bytes.Trim(b, "\x00")) == 0
}
