package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft-wal/types"
)

// tornTail builds the state before a batch of four was written and the one after.
func tornTail(t *testing.T) (before, after *built) {
	dir := filepath.Join(memoryDir(t), "j")
	before = build(t, dir, 34, 3)
	after = build(t, dir, 0, 4)
	if before.tail != after.tail || len(before.segments) < 3 || len(before.survey.places) < 5 {
		t.Fatalf("the torn batch is not in one tail with the records before it: %v %v", before.segments, after.segments)
	}
	return before, after
}

func TestTornBatchCostsNoAcknowledgedRecord(t *testing.T) {
	before, after := tornTail(t)
	begin, end := before.survey.cleanEnd, after.survey.cleanEnd
	tail := after.folder[after.tail]
	t.Run("cut, zeros behind", func(t *testing.T) {
		eachByte(t, begin, end, func(t *testing.T, dir string, off int64) {
			b := bytes.Clone(tail)
			clear(b[off:])
			checkDamaged(t, dir, before.with(before.tail, b), before.last(), none)
		})
	})
	t.Run("cut, file ends", func(t *testing.T) {
		eachByte(t, begin, end, func(t *testing.T, dir string, off int64) {
			checkDamaged(t, dir, before.with(before.tail, tail[:off]), before.last(), none)
		})
	})
	t.Run("flipped", func(t *testing.T) {
		eachByte(t, begin, end, func(t *testing.T, dir string, off int64) {
			checkDamaged(t, dir, before.with(before.tail, flipped(tail, off, 0x11)), before.last(), none)
		})
	})
}

func TestPowerCutThatKeepsAnyPartsOfAWriteCostsNoAcknowledgedRecord(t *testing.T) {
	before, after := tornTail(t)
	begin, end := before.survey.cleanEnd, after.survey.cleanEnd
	const block = 32 // stands for a sector; the batch is small
	rnd := rand.New(rand.NewPCG(1, 2))
	dir := filepath.Join(memoryDir(t), "j")
	for range 150 {
		tail := bytes.Clone(after.folder[after.tail])
		for off := begin - begin%block; off < end; off += block {
			if rnd.IntN(2) == 0 { // this block never reached the disk
				clear(tail[max(off, begin):min(off+block, end)])
			}
		}
		checkDamaged(t, dir, before.with(before.tail, tail), before.last(), none)
	}
}

func TestTornBatchIsDroppedSilently(t *testing.T) {
	before, after := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	tail := bytes.Clone(after.folder[after.tail])
	clear(tail[before.survey.cleanEnd+50:])
	before.with(before.tail, tail).write(t, dir)
	var logged bytes.Buffer
	o := small()
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	j := mustOpen(t, dir, o)
	if int(j.Last()) != before.last() || logged.Len() > 0 {
		t.Fatalf("last %d, logged %s", j.Last(), &logged)
	}
	checkSamples(t, j, 1, before.last())
}

func TestRemainsOfATornBatchNeverComeBackLater(t *testing.T) {
	before, after := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	// The head of the batch is gone, as when its first sector was not written. With the
	// mark at what was acknowledged before, the records behind are kept.
	tail := bytes.Clone(after.folder[after.tail])
	clear(tail[before.survey.cleanEnd : before.survey.cleanEnd+8])
	before.with(before.tail, tail).write(t, dir)
	j := mustOpen(t, dir, small())
	j.Close()
	// Now all of its records are damaged, but not zero.
	for _, p := range after.survey.places {
		if int(p.index) > before.last() {
			tail[p.off+9] ^= 0xff
		}
	}
	before.with(before.tail, tail).write(t, dir)
	j = mustOpen(t, dir, small())
	if int(j.Last()) != before.last() {
		t.Fatalf("last is %d", j.Last())
	}
	b, err := os.ReadFile(filepath.Join(dir, before.tail))
	if err != nil {
		t.Fatal(err)
	}
	if rest := b[before.survey.cleanEnd:]; len(bytes.Trim(rest, "\x00")) > 0 {
		t.Fatal("bytes of the torn batch are left where new records go")
	}
}

func TestFlippedBitInTheTailCostsTheRecordItHits(t *testing.T) {
	_, b := tornTail(t)
	tail := b.folder[b.tail]
	for name, marks := range map[string][]byte{"marks known": b.folder[marksFile], "marks lost": nil} {
		t.Run(name, func(t *testing.T) {
			eachByte(t, 0, b.survey.cleanEnd, func(t *testing.T, dir string, off int64) {
				if marks == nil && off%5 > 0 {
					return
				}
				f := b.with(b.tail, flipped(tail, off, 0x10)).with(marksFile, marks)
				hit := b.hit(off)
				acked := b.last()
				if marks == nil && hit == acked {
					acked-- // nothing tells the last from a torn one
				}
				damaged := checkDamaged(t, dir, f, acked, func(n int) bool { return n == hit })
				if hit > 0 && hit <= acked && !damaged[uint64(hit)] {
					t.Fatalf("record %d was hit and is not told", hit)
				}
			})
		})
	}
}

func TestCutInsideAcknowledgedRecordsCostsNoneBeforeIt(t *testing.T) {
	_, b := tornTail(t)
	tail := b.folder[b.tail]
	eachByte(t, 0, b.survey.cleanEnd, func(t *testing.T, dir string, off int64) {
		whole := int(b.segments[len(b.segments)-1].BaseIndex) - 1
		for _, p := range b.survey.places {
			if p.off+p.len <= off {
				whole = int(p.index)
			}
		}
		behind := func(n int) bool { return n > whole }
		checkDamaged(t, dir, b.with(b.tail, tail[:off]), b.last(), behind)
		if off%4 > 0 {
			return
		}
		zeroed := bytes.Clone(tail)
		clear(zeroed[off:])
		checkDamaged(t, dir, b.with(b.tail, zeroed), b.last(), behind)
		// Without the marks the end is unknown, so the identity changes.
		f := b.with(b.tail, tail[:off]).with(marksFile, nil)
		checkDamaged(t, dir, f, whole, none)
	})
}

func TestABodyThatLooksLikeARecordIsNotTakenForOne(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "j")
	j := mustOpen(t, dir, small())
	appendSamples(t, j, 1, 2)
	// The sender does not know this journal's key.
	forged := Record{Source: "forged", Body: []byte("forged")}
	envelope := keyedSum(0).encode(nil, &forged)
	keyedSum(0).stamp(envelope, 3)
	body := bytes.Repeat(envelope, 8)
	for shift := range 8 {
		if _, err := j.Append(context.Background(), Record{Body: body[shift*len(envelope)/8:]}); err != nil {
			t.Fatal(err)
		}
	}
	si := j.meta.segments()[0]
	mustClose(t, j)
	f := readFolder(t, dir)
	tail := f[segmentFile(si)]
	c, err := survey(newImage(readerAt(tail), int64(len(tail))), si, j.sum)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.places[2:] {
		tail[p.off] ^= 1
	}
	f.write(t, dir)
	j = mustOpen(t, dir, small())
	good, damaged := contentsOf(t, j, 1)
	if len(good) != 2 || len(damaged) != 8 {
		t.Fatalf("good %v, damaged %v", good, damaged)
	}
}

func TestDamageOfWhatIsTrimmedDoesNotSetTheSequenceBack(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "j")
	b := build(t, dir, 10, 0)
	j := mustOpen(t, dir, small())
	if err := j.Trim(10); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	readFolder(t, dir).with(b.tail, b.folder[b.tail][:100]).write(t, dir)
	for range 2 {
		j = mustOpen(t, dir, small())
		if j.First() != 11 || j.Last() != 10 {
			t.Fatalf("records %d to %d", j.First(), j.Last())
		}
		mustClose(t, j)
	}
	j = mustOpen(t, dir, small())
	appendSamples(t, j, 11, 12)
	checkSamples(t, j, 1, 0)
}

func TestLostMarksChangeTheIdentity(t *testing.T) {
	_, b := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	b.write(t, dir)
	id := mustClose(t, mustOpen(t, dir, small()))
	b.with(marksFile, nil).write(t, dir)
	renewed := mustClose(t, mustOpen(t, dir, small()))
	if renewed == id {
		t.Fatal("an index may be given twice under one identity")
	}
	if again := mustClose(t, mustOpen(t, dir, small())); again != renewed {
		t.Fatal("the identity changes without a cause")
	}
	marks := bytes.Clone(b.folder[marksFile])
	marks[0] ^= 1 // one slot; the other still holds
	b.with(marksFile, marks).write(t, dir)
	if got := mustClose(t, mustOpen(t, dir, small())); got != id {
		t.Fatal("half of the marks is damaged and the identity changed")
	}
}

func TestDamagedFullSegmentCostsTheRecordItHits(t *testing.T) {
	_, b := tornTail(t)
	si := b.segments[1]
	name := segmentFile(si)
	full := b.folder[name]
	c, err := survey(newImage(readerAt(full), int64(len(full))), si, b.sum)
	if err != nil || c.clean != si.MaxIndex {
		t.Fatal(c, err)
	}
	hit := func(from, to int64) func(int) bool {
		return func(n int) bool {
			for _, p := range c.places {
				if int(p.index) == n {
					return p.off < to && from < p.off+p.len
				}
			}
			return false
		}
	}
	t.Run("flipped", func(t *testing.T) {
		eachByte(t, 0, int64(len(full))/4, func(t *testing.T, dir string, quarter int64) {
			off := 4*quarter + quarter%4
			checkDamaged(t, dir, b.with(name, flipped(full, off, 0x08)), b.last(), hit(off, off+1))
		})
	})
	t.Run("cut", func(t *testing.T) {
		eachByte(t, 0, int64(len(full))/16, func(t *testing.T, dir string, sixteenth int64) {
			off := 16*sixteenth + sixteenth%16
			checkDamaged(t, dir, b.with(name, full[:off]), b.last(), hit(off, int64(len(full))))
		})
	})
}

func TestDamageWhileOpenIsToldNotReturned(t *testing.T) {
	_, b := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	b.write(t, dir)
	j := mustOpen(t, dir, small())
	p := b.survey.places[1]
	name := filepath.Join(dir, b.tail)
	// The frame's length and the next record's body change under the open journal.
	tail := flipped(b.folder[b.tail], p.off-4, 0x40)
	if err := os.WriteFile(name, flipped(tail, b.survey.places[2].off+40, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	good, damaged := contentsOf(t, j, 1)
	if len(damaged) != 1 || !damaged[b.survey.places[2].index] {
		t.Fatalf("damaged: %v", damaged)
	}
	if !isSample(good[p.index], int(p.index)) {
		t.Fatal("a whole record behind a damaged frame is not returned")
	}
	if n := j.Usage().Damaged; n != 1 {
		t.Fatalf("%d counted", n)
	}
}

func TestLostRecordsAreLoggedAndTheFileIsKept(t *testing.T) {
	_, b := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	p := b.survey.places[2]
	b.with(b.tail, flipped(b.folder[b.tail], p.off+40, 1)).write(t, dir)
	var logged bytes.Buffer
	o := small()
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	mustOpen(t, dir, o)
	if !strings.Contains(logged.String(), "level=ERROR") || !strings.Contains(logged.String(), b.tail+damagedSuffix) {
		t.Fatalf("logged: %s", &logged)
	}
	if _, err := os.Stat(filepath.Join(dir, b.tail+damagedSuffix)); err != nil {
		t.Fatal(err)
	}
}

func TestMissingFilesAreNamedAndNeverReplacedByNothing(t *testing.T) {
	_, b := tornTail(t)
	dir := filepath.Join(memoryDir(t), "j")
	broken := flipped(b.folder[metaFile], 30, 1)
	both := func(b1, b2 []byte) folder { return b.with(metaFile, b1).with(metaCopy, b2) }
	full := segmentFile(b.segments[0])
	for name, c := range map[string]struct {
		folder
		names string
	}{
		"tail":                 {b.with(b.tail, nil), b.tail},
		"full segment":         {b.with(full, nil), full},
		"meta missing":         {both(nil, nil), metaFile},
		"meta damaged":         {both(broken, broken), metaFile},
		"meta empty":           {both([]byte{}, nil), metaFile},
		"strange segment":      {b.with("x.wal", []byte("x")), "x.wal"},
		"segment of later":     {b.with("00000000000000000900-00000000000000ff.wal", []byte("x")), "0ff.wal"},
		"marks of another age": {b.with(marksFile, marksAt(b, 1<<40)), marksFile},
	} {
		t.Run(name, func(t *testing.T) {
			c.write(t, dir)
			for range 2 {
				j, err := Open(dir, small())
				if err == nil {
					j.Close()
					t.Fatal("opened")
				}
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.names) {
					t.Fatal(err)
				}
			}
			for name := range c.folder {
				if strings.HasSuffix(name, segmentSuffix) {
					if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
						t.Fatal("a refused Open deleted", err)
					}
				}
			}
		})
	}
}

func TestDamagedMetaIsReadFromItsCopy(t *testing.T) {
	_, b := tornTail(t)
	eachByte(t, 0, int64(len(b.folder[metaFile])), func(t *testing.T, dir string, off int64) {
		if off%8 > 1 {
			return
		}
		checkDamaged(t, dir, b.with(metaFile, flipped(b.folder[metaFile], off, 2)), b.last(), none)
		checkDamaged(t, dir, b.with(metaCopy, b.folder[metaCopy][:off]), b.last(), none)
	})
}

func TestProcessThatDiesAtAnyStepOfARotationGoesOn(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "j")
	b := build(t, dir, 60, 0)
	// Before the meta knew of the last full segment: its file is sealed, the next
	// one is not made yet.
	sealed := b.segments[len(b.segments)-2]
	m := metaWith(t, b, func(segs []types.SegmentInfo) []types.SegmentInfo {
		segs = segs[:len(segs)-1]
		segs[len(segs)-1] = types.SegmentInfo{
			ID: sealed.ID, BaseIndex: sealed.BaseIndex, MinIndex: sealed.MinIndex,
			Codec: sealed.Codec, CreateTime: sealed.CreateTime, SizeLimit: sealed.SizeLimit,
		}
		return segs
	})
	marks := marksAt(b, sealed.MaxIndex)
	f := b.with(b.tail, nil).with(metaFile, m).with(metaCopy, m).with(marksFile, marks)
	checkDamaged(t, dir, f, int(sealed.MaxIndex), none)
	// After the meta was written: only the file of the tail is missing, or empty.
	f = b.with(b.tail, nil).with(marksFile, marks)
	checkDamaged(t, dir, f, int(sealed.MaxIndex), none)
	checkDamaged(t, dir, f.with(b.tail, []byte{}), int(sealed.MaxIndex), none)
}

var fuzzBase = sync.OnceValue(func() *built {
	dir, err := os.MkdirTemp("", "journal-fuzz-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	return build(&testing.B{}, filepath.Join(dir, "j"), 46, 4)
})

// FuzzOpenDamaged changes any files of a journal in any way. Open may refuse, but nothing
// panics, and no record comes back that was not appended.
func FuzzOpenDamaged(f *testing.F) {
	b := fuzzBase()
	names := []string{b.tail, segmentFile(b.segments[0]), segmentFile(b.segments[1]), marksFile, metaFile}
	// Seven bytes a change: file, kind, offset (3), value, length.
	f.Add([]byte{0, 0, 0, 0, 40, 1, 1})
	f.Add([]byte{0, 1, 0, 1, 0, 0, 0})
	f.Add([]byte{0, 2, 0, 0, 200, 64, 100})
	f.Add([]byte{1, 2, 0, 2, 0, 7, 100, 3, 0, 0, 0, 3, 1, 1})
	f.Add([]byte{2, 3, 0, 0, 64, 16, 200, 0, 3, 0, 0, 96, 4, 255})
	f.Add([]byte{4, 0, 0, 0, 80, 1, 2})
	f.Fuzz(func(t *testing.T, changes []byte) {
		folder := b.folder
		for ; len(changes) >= 7 && len(changes) < 7*20; changes = changes[7:] {
			name := names[int(changes[0])%len(names)]
			file := bytes.Clone(folder[name])
			if len(file) == 0 {
				continue
			}
			off := int(binary.BigEndian.Uint32(append([]byte{0}, changes[2:5]...))) % len(file)
			run := file[off:min(len(file), off+int(changes[6]))]
			switch changes[1] % 4 {
			case 0: // flip
				for i := range run {
					run[i] ^= changes[5]
				}
			case 1: // cut
				file = file[:off]
			case 2: // fill
				for i := range run {
					run[i] = changes[5]
				}
			case 3: // move bytes of the same file here
				copy(run, file[int(changes[5])*8%len(file):])
			}
			folder = folder.with(name, file)
		}
		dir := filepath.Join(memoryDir(t), "j")
		folder.write(t, dir)
		j, err := Open(dir, small())
		if err != nil {
			return
		}
		defer j.Close()
		good, _ := contentsOf(t, j, 1)
		for index, r := range good {
			if !isSample(r, int(index)) || int(index) > b.last() {
				t.Fatalf("record %d was never appended: %+v", index, r)
			}
		}
		if _, err := j.Append(context.Background(), Record{Body: []byte("on")}); err != nil {
			t.Fatal(err)
		}
	})
}
