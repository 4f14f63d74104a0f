package hub

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// bytesLog is a log in memory whose entries say who they are: a sequence, filling, and a check sum. It frames them, and keeps every thirteenth out of its frame.
type bytesLog struct {
	mu      sync.Mutex
	entries []Entry
}

// entry makes the entry of a sequence.
func entry(sequence uint64) Entry {
	random := rand.New(rand.NewPCG(sequence, 1))
	data := binary.BigEndian.AppendUint64(nil, sequence)
	data = append(data, bytes.Repeat([]byte{byte(sequence)}, random.IntN(700))...)
	return Entry{Sequence: sequence, Data: binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))}
}

// whole reports whether the data is that of a sequence.
func whole(sequence uint64, data []byte) bool {
	n := len(data) - 4
	return n >= 8 && binary.BigEndian.Uint64(data) == sequence && binary.BigEndian.Uint32(data[n:]) == crc32.ChecksumIEEE(data[:n])
}

func (*bytesLog) Frame(dst []byte, e Entry) ([]byte, int) {
	if e.Sequence%13 == 0 {
		return append(dst, "apart"...), -1
	}
	dst = append(dst, "<<"...)
	return append(append(dst, e.Data...), ">>"...), len(dst)
}

func (*bytesLog) Ready(context.Context) error { return nil }

func (l *bytesLog) Last(context.Context) (uint64, error) { return 0, nil }

func (l *bytesLog) Read(_ context.Context, from uint64) iter.Seq2[Entry, error] {
	l.mu.Lock()
	entries := l.entries
	l.mu.Unlock()
	return func(yield func(Entry, error) bool) {
		for _, e := range entries[min(from-1, uint64(len(entries))):] {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (*bytesLog) Tail(context.Context, uint64) iter.Seq2[Entry, error] {
	return func(func(Entry, error) bool) {}
}

func (l *bytesLog) append(h *Hub) {
	l.mu.Lock()
	e := entry(uint64(len(l.entries) + 1))
	l.entries = append(l.entries, e)
	l.mu.Unlock()
	e.Data = bytes.Clone(e.Data)
	h.advance(e)
}

// tiny is a hub with room for a dozen entries.
func tiny(log Log) *Hub {
	h := New(log, slog.New(slog.DiscardHandler))
	h.recent.max, h.recent.chunkBytes = 4<<10, 1<<10
	h.started = true
	return h
}

// Readers join the ring, fall out of it and join it again while entries come in; whatever they were given is held until the end and looked at again.
func TestReadersOfATinyRingSeeEveryEntryOnceAndWhatTheyHoldStaysAsItIs(t *testing.T) {
	log := &bytesLog{}
	h := tiny(log)
	const total = 5000
	var readers sync.WaitGroup
	for i := range 6 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 2))
			type held struct {
				run  Run
				sums []uint32
			}
			var all []held
			fromRing, fromLog := 0, 0
			position := uint64(0)
			take := func(run Run) {
				if run.First() != position+1 {
					t.Errorf("reader %d: a run begins at %d behind %d", i, run.First(), position)
				}
				n := held{run: run}
				for k := range run.Len() {
					e := run.Entry(k)
					if position++; e.Sequence != position || !whole(position, e.Data) {
						t.Errorf("reader %d: entry %d at %d with %d bytes", i, e.Sequence, position, len(e.Data))
					}
					n.sums = append(n.sums, crc32.ChecksumIEEE(run.Frames(k, k+1)))
				}
				if random.IntN(20) == 0 {
					all = append(all, n)
				}
			}
			for position < total && !t.Failed() {
				if h.Wait(t.Context(), position) != nil {
					return
				}
				if run, _ := h.Recent(position); run.Len() > 0 {
					take(run)
					fromRing++
					continue
				}
				for run, err := range h.ReadRuns(t.Context(), position) {
					if err != nil {
						t.Error(err)
						return
					}
					take(run)
					fromLog++
					if random.IntN(4) == 0 {
						break
					}
				}
			}
			for _, n := range all {
				for k := range n.run.Len() {
					if crc32.ChecksumIEEE(n.run.Frames(k, k+1)) != n.sums[k] || !whole(n.run.First()+uint64(k), n.run.Entry(k).Data) {
						t.Errorf("reader %d: entry %d changed while it was held", i, n.run.First()+uint64(k))
						return
					}
				}
			}
			if i == 0 && (fromRing == 0 || fromLog == 0) {
				t.Logf("%d runs of the ring, %d of the log", fromRing, fromLog)
			}
		})
	}
	for range total {
		log.append(h)
	}
	readers.Wait()
}

func TestFramesLieOneBehindTheOther(t *testing.T) {
	log := &bytesLog{}
	h := tiny(log)
	for range 12 {
		log.append(h)
	}
	_, last := h.Recent(0)
	after := last - 1
	for run, _ := h.Recent(after); run.Len() > 0 && after > 0; run, _ = h.Recent(after) {
		after--
	}
	run, _ := h.Recent(after + 1)
	var want []byte
	for k := range run.Len() {
		want = append(want, run.Frames(k, k+1)...)
	}
	if got := run.Frames(0, run.Len()); !bytes.Equal(got, want) || run.Size(0, run.Len()) != len(want) || run.Len() < 2 {
		t.Errorf("%d entries in %d bytes, said to be %d; want %d", run.Len(), len(got), run.Size(0, run.Len()), len(want))
	}
	framed, _ := log.Frame(nil, run.Entry(0))
	if !bytes.Equal(run.Frames(0, 1), framed) {
		t.Errorf("frame %q", run.Frames(0, 1))
	}
}

func TestTheRingIsBoundedByBytesWhateverTheSizeOfEntries(t *testing.T) {
	log := &bytesLog{}
	h := tiny(log)
	largest := 0
	for sequence := range uint64(3000) {
		e := entry(sequence + 1)
		if sequence%100 == 99 {
			e.Data = make([]byte, 3<<10) // has a chunk of its own
		}
		h.advance(e)
		held := 0
		for _, c := range h.recent.chunks {
			held += cap(c.frames) + c.apart
		}
		if held != h.recent.bytes {
			t.Fatalf("%d bytes are held, %d counted", held, h.recent.bytes)
		}
		largest = max(largest, held)
	}
	if largest > h.recent.max {
		t.Errorf("%d bytes are held, want at most %d", largest, h.recent.max)
	}
}

func TestNotesAreSharedByAllWhoReadTheSame(t *testing.T) {
	log := &bytesLog{}
	h := tiny(log)
	log.append(h)
	first, _ := h.Recent(0)
	log.append(h)
	again, _ := h.Recent(0)
	made := 0
	for _, run := range []Run{first, again} {
		if got := run.Notes().Value(func() any { made++; return made }); got != 1 {
			t.Errorf("value %v", got)
		}
	}
	if behind, _ := h.Recent(1); behind.Notes() == first.Notes() {
		if all, more := behind.Whole(); more != 1 || all.First() != 1 || all.Len() != 2 {
			t.Errorf("the whole begins at %d with %d entries, %d more", all.First(), all.Len(), more)
		}
	} else {
		t.Error("two small entries do not share a chunk")
	}
}

// The bell may wait for what follows at once, but not for what does not follow after all.
func TestTheBellRingsWhenWhatWasToFollowDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &promising{come: make(chan struct{})}
		h := New(log, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		woken := make(chan error, 1)
		go func() { woken <- h.Wait(ctx, 0) }()
		synctest.Wait()
		close(log.come)
		synctest.Wait()
		select {
		case err := <-woken:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("nobody was woken")
		}
		cancel()
		running.Wait()
	})
}

// promising is a log whose tail breaks behind an entry that was to be followed by another.
type promising struct {
	bytesLog

	come chan struct{}
}

func (l *promising) Tail(ctx context.Context, after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if after == 0 {
			<-l.come
			yield(Entry{Sequence: 1, More: true}, nil)
			return
		}
		<-ctx.Done()
	}
}
