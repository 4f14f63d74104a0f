package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// A repair puts the segments in order before the engine opens them.
//
// The engine trusts its disk: it ends the tail at the first frame header that it cannot
// read, drops the last batch when its checksum does not match, does not check anything
// else, and leaves what lies behind. It also cannot go on from a tail that
// was filled but not yet entered as full when the process died. So the repair reads
// the tail itself, decides what of it holds, and leaves the engine nothing to decide:
//
//   - All is well up to the last record that must or can be there: what lies behind
//     is overwritten with zeros, lest it be taken for records later.
//   - The tail is full: it is entered as such, and a new tail behind it.
//   - Something in between is damaged: the whole records are copied into new
//     segments, each lost one is represented by an empty envelope, and the
//     meta names the new segments instead. If a record was lost the old file is kept
//     beside them, with the suffix .damaged.
//
// Of a full segment it checks header, length and index, so that all its
// records can be found; the records are checked when they are read. One that does not
// pass is treated as above.
//
// Each step can be cut off by a crash at any point and is done again by the next Open.
type repair struct {
	dir          string
	vfs          types.VFS
	filer        *segment.Filer
	meta         *meta
	sum          keyedSum
	log          *slog.Logger
	acked        uint64 // records up to here were acknowledged
	trimmed      uint64 // records up to here are done with
	segmentBytes int
	count        func(index uint64, bytes int64) // told of each record that waits, in order

	// changed says that the list of segments is not the one of the meta any more.
	changed bool
}

// damagedSuffix marks a segment that is kept because records of it were lost.
const damagedSuffix = ".damaged"

// run returns the index of the last record, which the next one follows.
func (r *repair) run() (last uint64, err error) {
	if err := r.meta.checkSegments(); err != nil {
		return 0, err
	}
	var out []types.SegmentInfo
	for _, si := range r.meta.segments() {
		if si.SealTime.IsZero() {
			out, last, err = r.tail(out, si)
		} else {
			out, err = r.full(out, si)
			last = si.MaxIndex
		}
		if err != nil {
			return 0, err
		}
	}
	if len(out) == 0 && !r.changed {
		return 0, nil // a new journal
	}
	if len(out) == 0 || !out[len(out)-1].SealTime.IsZero() {
		id, err := r.meta.takeIDs(1)
		if err != nil {
			return 0, err
		}
		// The engine makes the file of a tail that it does not find.
		out = append(out, r.info(id, last+1, r.segmentBytes))
		r.changed = true
	}
	if r.changed {
		return last, r.meta.replace(out)
	}
	return last, nil
}

func (r *repair) info(id, base uint64, limit int) types.SegmentInfo {
	return types.SegmentInfo{
		ID: id, BaseIndex: base, MinIndex: base, SizeLimit: uint32(limit),
		Codec: codecID, CreateTime: time.Now(),
	}
}

// opened is a segment file with its size.
type opened struct {
	types.WritableFile
	size int64
	path string
}

// open opens a segment. One that must exist and does not is an error: nothing is lost
// by waiting until it is found.
func (r *repair) open(si types.SegmentInfo) (*opened, error) {
	name := segment.FileName(si)
	path := filepath.Join(r.dir, name)
	f, err := r.vfs.OpenWriter(r.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: segment %s is missing: restore it, or move the folder away to start with an empty journal: %w",
			ErrDamaged, path, err)
	}
	if err != nil {
		return nil, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return &opened{f, stat.Size(), path}, nil
}

// tail repairs the segment that was written to last.
func (r *repair) tail(out []types.SegmentInfo, si types.SegmentInfo) ([]types.SegmentInfo, uint64, error) {
	// What was acknowledged must be there, and the sequence never goes back below it.
	floor := max(r.acked, r.trimmed, si.MinIndex-1)
	f, err := r.open(si)
	if errors.Is(err, fs.ErrNotExist) && floor < si.BaseIndex {
		return append(out, si), si.BaseIndex - 1, nil // not made yet when the process died
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	c, err := survey(newImage(f, f.size), si, r.sum)
	if err != nil {
		return nil, 0, err
	}
	last := max(floor, c.last())
	if last > c.clean {
		if fit := uint64(si.SizeLimit)/minFrame + maxEnvelope/minFrame; last-si.BaseIndex > fit {
			return nil, 0, fmt.Errorf("%w: %s says that record %d was acknowledged, the last segment %s begins at record %d and cannot hold as many: restore the segments that belong to it, or move the folder away to start with an empty journal",
				ErrDamaged, filepath.Join(r.dir, marksFile), last, f.path, si.BaseIndex)
		}
		out, err = r.rebuild(out, si, f, c.places, last)
		return out, last, err
	}
	if c.dirtyEnd > c.cleanEnd {
		if err := wipe(f, c.cleanEnd, c.dirtyEnd); err != nil {
			return nil, 0, fmt.Errorf("wipe the torn end of %s: %w", f.path, err)
		}
	}
	if c.indexStart > 0 {
		si.MaxIndex, si.IndexStart, si.SealTime = c.clean, uint64(c.indexStart), time.Now()
		r.changed = true
	}
	for _, p := range c.places {
		r.counted(p.index, frameLen(p.len))
	}
	return append(out, si), last, nil
}

func (r *repair) counted(index uint64, bytes int64) {
	if index > r.trimmed {
		r.count(index, bytes)
	}
}

// wipe writes zeros. What it overwrites was never acknowledged.
func wipe(f types.WritableFile, from, to int64) error {
	zeros := make([]byte, imageWindow)
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return f.Sync()
}

// full checks that the records of a full segment can be found.
func (r *repair) full(out []types.SegmentInfo, si types.SegmentInfo) ([]types.SegmentInfo, error) {
	f, err := r.open(si)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	offsets, err := readIndex(newImage(f, f.size), si)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	if offsets != nil {
		for i, off := range offsets {
			end := si.IndexStart - frameHead
			if i+1 < len(offsets) {
				end = uint64(offsets[i+1])
			}
			if index := si.BaseIndex + uint64(i); index >= si.MinIndex {
				r.counted(index, int64(end)-int64(off))
			}
		}
		return append(out, si), nil
	}
	c, err := survey(newImage(f, f.size), si, r.sum)
	if err != nil {
		return nil, err
	}
	return r.rebuild(out, si, f, c.places, si.MaxIndex)
}

// readIndex returns the offsets of a full segment's entries, nil when its header
// or index is damaged.
func readIndex(m *image, si types.SegmentInfo) ([]uint32, error) {
	ok := bytes.Equal(m.at(0, fileHeaderLen), fileHeader(si))
	n := si.MaxIndex - si.BaseIndex + 1
	end := int64(si.IndexStart) - frameHead
	fh := m.at(end, frameHead)
	if !ok || fh == nil || n > uint64(m.size)/minFrame ||
		!bytes.Equal(fh, binary.LittleEndian.AppendUint32([]byte{frameIndex, 0, 0, 0}, uint32(4*n))) {
		return nil, m.err
	}
	offsets := make([]uint32, 0, n)
	least := uint32(fileHeaderLen)
	for i := range int64(n) {
		b := m.at(int64(si.IndexStart)+4*i, 4)
		if b == nil {
			return nil, m.err
		}
		off := binary.LittleEndian.Uint32(b)
		if off < least || off%frameHead != 0 || int64(off)+minFrame > end {
			return nil, nil
		}
		offsets = append(offsets, off)
		least = off + minFrame
	}
	return offsets, nil
}

// rebuildBytes is how much one segment of a rebuild holds: each is written in
// one piece, from memory.
const rebuildBytes = 4 << 20

// rebuild copies the whole records of a segment into new ones, from the first that is not
// done with through last.
func (r *repair) rebuild(out []types.SegmentInfo, si types.SegmentInfo, f *opened, places []place, last uint64) ([]types.SegmentInfo, error) {
	r.changed = true
	from := max(si.BaseIndex, si.MinIndex, r.trimmed+1)
	if from > last {
		return out, nil
	}
	ids, err := r.meta.takeIDs(last - from + 1)
	if err != nil {
		return nil, err
	}
	var lost []uint64
	var group []types.LogEntry
	var bytes int64
	flush := func() error {
		ns, err := r.writeFull(ids, group)
		ids++
		out, group, bytes = append(out, ns), nil, 0
		return err
	}
	at, _ := slices.BinarySearchFunc(places, from, placeOrder)
	for index := from; index <= last; index++ {
		data := r.sum.lost(index)
		if at < len(places) && places[at].index == index {
			data = make([]byte, places[at].len)
			if _, err := f.ReadAt(data, places[at].off); err != nil {
				return nil, fmt.Errorf("read %s: %w", f.path, err)
			}
			at++
		} else {
			lost = append(lost, index)
		}
		r.counted(index, frameLen(int64(len(data))))
		group = append(group, types.LogEntry{Index: index, Data: data})
		if bytes += int64(len(data)); bytes >= rebuildBytes {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if len(group) > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return out, r.keep(f.path, lost)
}

// writeFull writes entries as one full segment. The limit of a byte has the engine seal it
// with the first append.
func (r *repair) writeFull(id uint64, entries []types.LogEntry) (types.SegmentInfo, error) {
	si := r.info(id, entries[0].Index, 1)
	w, err := r.filer.Create(si)
	if err != nil {
		return si, fmt.Errorf("rebuild segment: %w", err)
	}
	err = w.Append(entries)
	sealed, indexStart, sealErr := w.Sealed()
	if err := errors.Join(err, sealErr, w.Close()); err != nil {
		return si, fmt.Errorf("rebuild segment %s: %w", segment.FileName(si), err)
	}
	if !sealed {
		return si, fmt.Errorf("rebuild segment %s: it is not sealed", segment.FileName(si))
	}
	si.MaxIndex, si.IndexStart, si.SealTime = entries[len(entries)-1].Index, indexStart, time.Now()
	return si, nil
}

// keep saves the damaged file from being deleted, and reports what is lost of it. With
// nothing lost, all that it held is in the new segments.
func (r *repair) keep(path string, lost []uint64) error {
	if len(lost) == 0 {
		r.log.Info("segment of the journal is repaired, no record is lost", "segment", path)
		return nil
	}
	kept := path + damagedSuffix
	if err := os.Link(path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep damaged segment: %w", err)
	}
	r.log.Error("acknowledged records of the journal are damaged",
		"records", len(lost), "first", lost[0], "last", lost[len(lost)-1], "kept", kept)
	return nil
}
