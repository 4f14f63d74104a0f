package journal

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// memoryDir is a folder where an fsync costs nothing, where the machine has one: these tests
// open thousands of journals.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "journal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// folder is the files of a closed journal, in memory.
type folder map[string][]byte

func readFolder(t testing.TB, dir string) folder {
	t.Helper()
	f := folder{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if f[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// with is f but for one file; nil removes it.
func (f folder) with(name string, b []byte) folder {
	g := folder{}
	maps.Copy(g, f)
	if g[name] = b; b == nil {
		delete(g, name)
	}
	return g
}

func (f folder) write(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A built journal is what a test damages: full segments, and a tail with batches of one
// record and of several.
type built struct {
	folder
	segments []types.SegmentInfo
	tail     string // the file's name
	survey   contents
	sum      keyedSum
}

func (b *built) last() int { return int(b.survey.clean) }

// build appends records to a journal in dir: alone of them one by one, then together
// in one batch.
func build(t testing.TB, dir string, alone, together int) *built {
	t.Helper()
	disk, o := newSickDisk(), small()
	o.vfs = disk
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	first := int(j.Last()) + 1
	appendSamples(t, j, first, first+alone-1)
	if together > 0 {
		appendTogether(t, j, first+alone, first+alone+together-1)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b := &built{folder: readFolder(t, dir), segments: j.meta.segments(), sum: j.sum}
	tail := b.segments[len(b.segments)-1]
	b.tail = segmentFile(tail)
	bytes := b.folder[b.tail]
	if b.survey, err = survey(newImage(readerAt(bytes), int64(len(bytes))), tail, j.sum); err != nil {
		t.Fatal(err)
	}
	if int(b.survey.clean) != first+alone+together-1 || b.survey.dirtyEnd != b.survey.cleanEnd {
		t.Fatalf("survey of a sound tail: %+v", b.survey)
	}
	return b
}

// appendTogether has the records from to to written as one batch.
func appendTogether(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	j.mu.Lock()
	b := &batch{done: make(chan struct{})}
	for n := from; n <= to; n++ {
		r := sample(n)
		buf := j.sum.encode(nil, &r)
		size := frameLen(int64(len(buf)))
		b.entries = append(b.entries, entry{envelope: &buf, size: size})
		b.bytes += size
		j.reserved += size
	}
	j.queue = append(j.queue, b)
	j.work.Signal()
	j.mu.Unlock()
	if <-b.done; b.err != nil {
		t.Fatal(b.err)
	}
}

type readerAt []byte

func (r readerAt) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(r).ReadAt(b, off)
}

func segmentFile(si types.SegmentInfo) string {
	return segment.FileName(si)
}

// checkDamaged opens the folder and requires that no record is there altered, that the
// first acked are there but for those that may be missing, and that the journal goes on.
// It returns the damaged ones.
func checkDamaged(t testing.TB, dir string, f folder, acked int, missing func(n int) bool) map[uint64]bool {
	t.Helper()
	f.write(t, dir)
	j, err := Open(dir, small())
	if err != nil {
		t.Fatal(err)
	}
	good, damaged := contentsOf(t, j, 1)
	for index, r := range good {
		if !isSample(r, int(index)) {
			t.Fatalf("record %d is not what was appended: %+v", index, r)
		}
	}
	for n := 1; n <= acked; n++ {
		_, ok := good[uint64(n)]
		if !ok && !missing(n) {
			t.Fatalf("record %d is lost (damaged: %v, last %d)", n, damaged, j.Last())
		}
		if !ok && !damaged[uint64(n)] {
			t.Fatalf("record %d is neither there nor told as damaged (last %d)", n, j.Last())
		}
	}
	last := int(j.Last())
	appendSamples(t, j, last+1, last+2)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	segments := j.meta.segments()

	if j, err = Open(dir, small()); err != nil {
		t.Fatal("the second time:", err)
	}
	defer j.Close()
	again, damagedAgain := contentsOf(t, j, 1)
	if len(again) != len(good)+2 || len(damagedAgain) != len(damaged) || int(j.Last()) != last+2 {
		t.Fatalf("opened again, there are %d good and %d damaged records up to %d; before %d, %d, %d",
			len(again), len(damagedAgain), j.Last(), len(good)+2, len(damaged), last+2)
	}
	if now := j.meta.segments(); len(now) != len(segments) && len(now) != len(segments)+1 {
		t.Fatalf("opened again, the segments are %v; before %v", now, segments)
	}
	return damaged
}

func none(int) bool { return false }

// eachByte calls f for each offset in [from, to), every byteStride-th at least, in four
// parallel lanes, each with a folder of its own.
func eachByte(t *testing.T, from, to int64, f func(t *testing.T, dir string, off int64)) {
	const lanes = 4 * byteStride
	t.Run("each", func(t *testing.T) {
		for lane := range int64(lanes) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(memoryDir(t), "j")
				for off := from + lane; off < to; off += lanes {
					f(t, dir, off)
					if t.Failed() {
						t.Fatalf("at byte %d", off)
					}
				}
			})
		}
	})
}

func flipped(b []byte, off int64, bits byte) []byte {
	b = bytes.Clone(b)
	b[off] ^= bits
	return b
}

// hit tells which record's envelope lies at off, 0 if none.
func (b *built) hit(off int64) int {
	for _, p := range b.survey.places {
		if p.off <= off && off < p.off+p.len {
			return int(p.index)
		}
	}
	return 0
}

func mustClose(t testing.TB, j *Journal) (id string) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return j.ID()
}

func marksAt(b *built, acked uint64) []byte {
	s := binary.LittleEndian.AppendUint64(nil, acked)
	s = binary.LittleEndian.AppendUint64(s, 0)
	return binary.LittleEndian.AppendUint32(s, b.sum.of(s))
}

// metaWith is the meta of b with other segments.
func metaWith(t testing.TB, b *built, change func([]types.SegmentInfo) []types.SegmentInfo) []byte {
	t.Helper()
	dir := memoryDir(t)
	if err := os.WriteFile(filepath.Join(dir, metaFile), b.folder[metaFile], 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := openMeta(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.doc.State.NextSegmentID--
	if err := m.replace(change(m.segments())); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
