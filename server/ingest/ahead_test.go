package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"eventrelay/server/eventlog"
	"eventrelay/server/journal"
	"eventrelay/server/translate"
)

// stalledLog takes steps in, and finishes none until it goes on.
type stalledLog struct {
	*eventlog.Log
	begun  chan struct{} // closed when the first step begins
	goesOn chan struct{}
	once   sync.Once
	steps  atomic.Int64
}

func newStalledLog(l *eventlog.Log) *stalledLog {
	return &stalledLog{Log: l, begun: make(chan struct{}), goesOn: make(chan struct{})}
}

func (l *stalledLog) Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	l.steps.Add(1)
	l.once.Do(func() { close(l.begun) })
	select {
	case <-l.goesOn:
	case <-ctx.Done():
		return eventlog.Appended{}, ctx.Err()
	}
	return l.Log.Append(ctx, records)
}

func TestTheNextStepIsTranslatedWhileTheLastIsBeingMadeDurable(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	stalled := newStalledLog(r.log)
	r.to = stalled
	var translated atomic.Int64
	r.translate = func(n translate.Notification) []translate.Event { translated.Add(1); return words(n) }
	r.start()
	r.receive("first")
	<-stalled.begun
	want := []string{"first"}
	for n := range 50 {
		r.receive(fmt.Sprintf("w%d", n))
		want = append(want, fmt.Sprintf("w%d", n))
	}
	eventually(t, "all 50 are translated", func() bool { return translated.Load() == 51 })
	if n := stalled.steps.Load(); n != 1 {
		t.Errorf("%d steps are in flight, want one", n)
	}
	close(stalled.goesOn)
	if got := r.drained(); !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if n := stalled.steps.Load(); n != 2 {
		t.Errorf("%d steps, want one for the first and one for all that waited", n)
	}
}

func TestWhatIsTranslatedAheadOfAStalledLogIsBounded(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	stalled := newStalledLog(r.log)
	r.to = stalled
	const body = 3 << 20
	var translated atomic.Int64
	reached := make(chan struct{}, 100)
	r.translate = func(n translate.Notification) []translate.Event {
		translated.Add(1)
		reached <- struct{}{}
		return []translate.Event{{ID: fmt.Sprintf("%.4s", n.Body), Type: "t", Data: n.Body}}
	}
	for n := range 12 {
		r.receive(fmt.Sprintf("%04d", n) + strings.Repeat("x", body))
	}
	r.start()
	<-stalled.begun
	const bound = maxAheadBytes/body + 1 // the last one waits for room
	for range bound {
		<-reached
	}
	select {
	case <-reached:
		t.Errorf("%d bodies of 3 MB are translated, at most %d may be", translated.Load(), bound)
	case <-time.After(100 * time.Millisecond): // nothing comes: that it never will cannot be waited for
	}
	close(stalled.goesOn)
	if got := r.drained(); len(got) != 12 {
		t.Errorf("%d stored, want 12", len(got))
	}
}

func TestWhatWasTranslatedAheadIsReadAgainAfterAFailure(t *testing.T) {
	r := newRig(t, eventlog.Options{DuplicateWindow: 100 * time.Millisecond})
	failing := &failingLog{Log: r.log, begun: make(chan struct{}), fails: make(chan struct{})}
	r.to = failing
	var translated atomic.Int64
	r.translate = func(n translate.Notification) []translate.Event { translated.Add(1); return words(n) }
	r.start()
	r.receive("a")
	<-failing.begun
	r.receive("b", "c")
	eventually(t, "all are translated", func() bool { return translated.Load() == 3 })
	close(failing.fails)
	if got := r.drained(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("stored %v", got)
	}
	if n := translated.Load(); n != 6 {
		t.Errorf("translated %d times, want 6: after the failure all three again, for the position alone does not say that the first has no more items", n)
	}
}

// failingLog stores its first step and says that it failed.
type failingLog struct {
	*eventlog.Log
	begun, fails chan struct{}
	once         sync.Once
}

func (l *failingLog) Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	var err error
	l.once.Do(func() {
		close(l.begun)
		<-l.fails
		if _, err = l.Log.Append(ctx, records); err == nil {
			err = errors.New("broken on purpose")
		}
	})
	if err != nil {
		return eventlog.Appended{}, err
	}
	return l.Log.Append(ctx, records)
}

func TestWhoWaitsForARecordIsWokenWhenTheLogHasIt(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	stalled := newStalledLog(r.log)
	r.to = stalled
	r.start()
	index, err := r.journal.Append(t.Context(), journal.Record{Source: "shop", ReceivedAt: time.Now(), Body: []byte("a b")})
	if err != nil {
		t.Fatal(err)
	}
	<-stalled.begun
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.ingest.Await(canceled, index); !errors.Is(err, context.Canceled) {
		t.Errorf("while the log is stalled Await gave %v", err)
	}
	patient, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	woken := make(chan error)
	for range 10 {
		go func() { woken <- r.ingest.Await(patient, index) }()
	}
	close(stalled.goesOn)
	for range 10 {
		if err := <-woken; err != nil {
			t.Error(err)
		}
	}
	if state, err := r.log.State(t.Context()); err != nil || state.Events != 2 {
		t.Errorf("the log holds %+v, %v", state, err)
	}
}

// The rate counts from look to look, so what a rest or a slow step leaves waiting does not look like a busy time of its own.
func TestTheRateIsOfWhatCameSinceTheLastLook(t *testing.T) {
	began := time.Now()
	p := pace{at: began, last: 7}
	for _, c := range []struct {
		what string
		at   time.Duration // since the beginning
		last uint64
		want float64
	}{
		{"five in ten milliseconds", 10 * time.Millisecond, 12, 500},
		{"two hundred in a second, most of it a rest", 1010 * time.Millisecond, 212, 200},
		{"a burst after it", 1020 * time.Millisecond, 252, 4000},
		{"none", 1021 * time.Millisecond, 252, 0},
		{"one after a while", 1121 * time.Millisecond, 253, 10},
		{"one more on a clock that stands still", 1121 * time.Millisecond, 254, 1e6},
	} {
		if got := p.rate(began.Add(c.at), c.last); math.Abs(got-c.want) > 1e-6*c.want {
			t.Errorf("%s: %v a second, want %v", c.what, got, c.want)
		}
	}
}

func TestTheLoopRestsOnlyWhileMuchComesAndNotForLong(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		what    string
		step    time.Duration
		rate    float64
		waiting uint64
		oldest  time.Duration
		want    time.Duration
	}{
		{"much comes", 2 * ms, heavyRate, 2, 0, 2 * restFactor * ms},
		{"much comes, if not during the step", 2 * ms, heavyRate, 0, 0, 2 * restFactor * ms},
		{"much comes, and the step was short", ms / 4, heavyRate, 2, 0, minRest},
		{"some come, and the step was slow", 100 * ms, heavyRate / 10, 100, 0, maxRest / 10},
		{"few come, and a slow step has left them waiting", 20 * ms, busyRate - 1, 10, 0, 0},
		{"a long step", 300 * ms, heavyRate, 1000, 0, maxRest},
		{"notifications are getting old", 20 * ms, heavyRate, 1000, maxHeld - ms, ms},
		{"notifications are old", 20 * ms, heavyRate, 1000, 2 * maxHeld, 0},
		{"more waits than a step holds", 10 * ms, heavyRate, 1001, 0, 2 * 10 * restFactor * ms},
		{"a long step, and more waits", 300 * ms, heavyRate, 1001, 0, 2 * maxRest},
		{"the clock was set back", 300 * ms, heavyRate, 1000, -time.Hour, maxRest},
	} {
		if got := rest(c.step, c.rate, c.waiting, c.oldest); got != c.want {
			t.Errorf("%s: rests %v, want %v", c.what, got, c.want)
		}
	}
}

// What came during a rest is stored right after it, together, and what was ready before the rest does not go ahead of it alone.
func TestAStepAfterARestTakesAllThatHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead()
		put := func(index uint64, bytes int) {
			record := translated{bytes: bytes}
			record.Index = index
			if err := a.put(t.Context(), record); err != nil {
				t.Error(err)
			}
		}
		taken := func(through uint64) <-chan []uint64 {
			c := make(chan []uint64, 1)
			go func() {
				records, err := a.take(t.Context(), through)
				if err != nil {
					t.Error(err)
				}
				var indexes []uint64
				for _, record := range records {
					indexes = append(indexes, record.Index)
				}
				c <- indexes
			}()
			return c
		}
		waits := func(c <-chan []uint64, what string) {
			t.Helper()
			synctest.Wait()
			select {
			case got := <-c:
				t.Errorf("%s: took %v at once", what, got)
			default:
			}
		}
		put(1, 1)
		c := taken(3)
		waits(c, "one of three is ready")
		put(2, 1)
		waits(c, "two of three are ready")
		put(3, 1)
		if got := <-c; !slices.Equal(got, []uint64{1, 2, 3}) {
			t.Errorf("took %v, want all three", got)
		}

		put(4, maxStepBytes)
		if got := <-taken(9); !slices.Equal(got, []uint64{4}) {
			t.Errorf("took %v, want the one that fills a step", got)
		}
		a.release([]translated{{bytes: maxStepBytes + 3}})

		put(5, maxStepBytes-1)
		go put(6, 2*maxStepBytes)
		if got := <-taken(9); !slices.Equal(got, []uint64{5}) {
			t.Errorf("took %v, want the one behind which there is no room", got)
		}
		a.release([]translated{{bytes: maxStepBytes - 1}})
		if got := <-taken(6); !slices.Equal(got, []uint64{6}) {
			t.Errorf("took %v, want the one that had waited for room", got)
		}
		a.release([]translated{{bytes: 2 * maxStepBytes}})

		thousand := translated{events: make([]translate.Event, maxStepEvents)}
		thousand.Index = 7
		if err := a.put(t.Context(), thousand); err != nil {
			t.Error(err)
		}
		if got := <-taken(9); !slices.Equal(got, []uint64{7}) {
			t.Errorf("took %v, want the one whose events fill a step", got)
		}

		put(8, 1)
		c = taken(9)
		waits(c, "one of two is ready")
		a.mu.Lock()
		a.err = journal.ErrClosed
		a.mu.Unlock()
		token(a.filled)
		if got := <-c; !slices.Equal(got, []uint64{8}) {
			t.Errorf("took %v, want what is ready when nothing will follow it", got)
		}
		if records, err := a.take(t.Context(), 9); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("then took %v, %v, want why nothing follows", records, err)
		}
	})
}
