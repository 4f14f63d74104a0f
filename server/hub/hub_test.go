package hub

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("the log is away")

// fakeLog is a log in memory. Its tail breaks, once, in front of the sequence breakAt. It is away until back is closed, if that is set.
type fakeLog struct {
	mu      sync.Mutex
	last    uint64
	moved   chan struct{}
	breakAt uint64
	reads   int
	back    chan struct{}
}

func newFakeLog() *fakeLog { return &fakeLog{moved: make(chan struct{})} }

func (l *fakeLog) append(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last += n
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *fakeLog) Ready(ctx context.Context) error {
	l.mu.Lock()
	back := l.back
	l.mu.Unlock()
	if back == nil {
		return nil
	}
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *fakeLog) Last(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back != nil {
		select {
		case <-l.back:
		default:
			return 0, errAway
		}
	}
	return l.last, nil
}

func (l *fakeLog) Read(_ context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		l.mu.Lock()
		last := l.last
		l.reads++
		l.mu.Unlock()
		for s := from; s <= last && yield(Entry{Sequence: s}, nil); s++ {
		}
	}
}

func (l *fakeLog) Tail(ctx context.Context, after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			l.mu.Lock()
			last, moved := l.last, l.moved
			l.mu.Unlock()
			for after < last {
				if after+1 == l.breakAt {
					l.breakAt = 0
					yield(Entry{}, errors.New("connection lost"))
					return
				}
				after++
				if !yield(Entry{Sequence: after}, nil) {
					return
				}
			}
			select {
			case <-moved:
			case <-ctx.Done():
				yield(Entry{}, ctx.Err())
				return
			}
		}
	}
}

func TestTheBellWakesEveryReaderAndNoneMissesAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		h := New(log, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })

		const entries = 100
		var readers sync.WaitGroup
		for range 20 {
			readers.Go(func() {
				for position := uint64(0); position < entries; {
					if err := h.Wait(ctx, position); err != nil {
						t.Error(err)
						return
					}
					for entry, err := range h.Read(ctx, position) {
						if err != nil || entry.Sequence != position+1 {
							t.Errorf("read %d, %v behind %d", entry.Sequence, err, position)
							return
						}
						position = entry.Sequence
					}
				}
			})
		}
		for range entries {
			log.append(1)
			time.Sleep(time.Millisecond)
		}
		readers.Wait()
		cancel()
		running.Wait()
	})
}

func TestReadersNearTheEndDoNotTouchTheLogAndThoseFurtherBackReadIt(t *testing.T) {
	log := newFakeLog()
	log.last = 2 // before the hub came
	h := New(log, slog.New(slog.DiscardHandler))
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := func(after uint64) (sequences []uint64) {
		for entry, err := range h.Read(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			sequences = append(sequences, entry.Sequence)
		}
		return sequences
	}
	half := make([]byte, maxRecentBytes/2)
	for s := uint64(3); s <= 6; s++ {
		log.append(1)
		h.advance(Entry{Sequence: s, Data: half})
	}
	for _, c := range []struct {
		after uint64
		want  []uint64
		log   int
	}{
		{6, nil, 0},
		{5, []uint64{6}, 0},
		{4, []uint64{5, 6}, 0},
		{3, []uint64{4, 5, 6}, 1}, // 4 has made room for the newer ones
		{0, []uint64{1, 2, 3, 4, 5, 6}, 1},
	} {
		before := log.reads
		if got := read(c.after); !slices.Equal(got, c.want) || log.reads-before != c.log {
			t.Errorf("behind %d: read %v with %d reads of the log, want %v with %d", c.after, got, log.reads-before, c.want, c.log)
		}
	}
	h.advance(Entry{Sequence: 9}) // 7 and 8 were removed before the tail saw them
	log.last = 9
	if before := log.reads; len(read(6)) == 0 || log.reads == before {
		t.Error("a reader behind a hole was not sent to the log")
	}
}

func TestABrokenTailIsFollowedAgainFromWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.breakAt = 3
		h := New(log, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		log.append(5)
		if err := h.Wait(ctx, 4); err != nil {
			t.Fatal(err)
		}
		cancel()
		running.Wait()
	})
}

func TestClosingWakesThoseWhoWaitAndRefusesThoseWhoCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(newFakeLog(), slog.New(slog.DiscardHandler))
		woken := make(chan error, 1)
		go func() { woken <- h.Wait(context.Background(), 7) }()
		synctest.Wait()
		h.Close()
		h.Close() // twice is as good as once
		if err := <-woken; !errors.Is(err, ErrClosed) {
			t.Errorf("woken with %v", err)
		}
		if err := h.Wait(context.Background(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("wait after close = %v", err)
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(newFakeLog(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Wait(ctx, 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait = %v", err)
		}
	})
}

func TestAHubOfALogThatIsAwayStartsWhenItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.last, log.back = 100, make(chan struct{})
		h := New(log, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		synctest.Wait()
		if err := h.Start(ctx); !errors.Is(err, errAway) {
			t.Errorf("start = %v", err)
		}
		woken := make(chan error, 1)
		go func() { woken <- h.Wait(ctx, 99) }()
		synctest.Wait()
		close(log.back)
		if err := <-woken; err != nil || h.Last() != 100 {
			t.Errorf("woken with %v, the end is %d", err, h.Last())
		}
		log.append(5)
		if err := h.Wait(ctx, 104); err != nil {
			t.Error(err)
		}
		var read []uint64
		for entry, err := range h.Read(ctx, 98) {
			if err != nil {
				t.Fatal(err)
			}
			read = append(read, entry.Sequence)
		}
		if want := []uint64{99, 100, 101, 102, 103, 104, 105}; !slices.Equal(read, want) {
			t.Errorf("read %v, want %v", read, want)
		}
		cancel()
		running.Wait()
	})
}

// A reader that finds the log before Run does must not make Run miss what comes in between.
func TestWhoeverFindsTheEndOfTheLogFirstNothingIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.last = 3
		h := New(log, slog.New(slog.DiscardHandler))
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		log.append(2)
		if err := h.Start(t.Context()); err != nil || h.Last() != 3 {
			t.Fatalf("a second start = %v, the end is %d", err, h.Last())
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		if err := h.Wait(ctx, 4); err != nil {
			t.Error(err)
		}
		if n := h.recent.count(); n != 2 {
			t.Errorf("the tail brought %d entries, want 2", n)
		}
		cancel()
		running.Wait()
	})
}

// racedLog is a log that grows, and whose end another finds, while its last sequence is on its way.
type racedLog struct {
	*fakeLog
	meanwhile func()
}

func (l *racedLog) Last(ctx context.Context) (uint64, error) {
	if meanwhile := l.meanwhile; meanwhile != nil {
		l.meanwhile = nil
		meanwhile()
	}
	return l.fakeLog.Last(ctx)
}

func TestOfTwoWhoFindTheEndOfTheLogAtOnceTheFirstCounts(t *testing.T) {
	log := &racedLog{fakeLog: newFakeLog()}
	log.last = 3
	h := New(log, slog.New(slog.DiscardHandler))
	log.meanwhile = func() {
		if err := h.Start(t.Context()); err != nil {
			t.Error(err)
		}
		log.append(2)
	}
	if err := h.Start(t.Context()); err != nil || h.Last() != 3 {
		t.Errorf("start = %v, the end is %d: 4 and 5 would be missed", err, h.Last())
	}
}
