package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"eventrelay/server/eventlog"
	"eventrelay/server/journal"
)

func TestEveryItemAppearsOnceInTheOrderOfTheJournal(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive("before", "the start")
	r.start()
	want := []string{"before", "the", "start"}
	for n := range 200 {
		r.receive(fmt.Sprintf("a%d b%d", n, n), fmt.Sprintf("b%d a%d c%d", n, n, n)) // the second delivers the first again, batched differently
		want = append(want, fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n), fmt.Sprintf("c%d", n))
	}
	many := numbered("m", 2500) // more than a step takes
	r.receive(strings.Join(many, " "))
	if got := r.drained(); !slices.Equal(got, append(want, many...)) {
		t.Errorf("stored %d events, want %d: %.300v", len(got), len(want)+len(many), got)
	}
	if got := testutil.ToFloat64(r.ingest.meters.duplicates); got != 400 {
		t.Errorf("%v duplicates counted, want 400", got)
	}
}

func TestARestartGoesOnWhereTheLogEnds(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	var want []string
	for n := range 20 {
		batch := numbered(fmt.Sprintf("r%d.", n), 50)
		want = append(want, batch...)
		r.receive(strings.Join(batch, " "))
		r.start()
		if n%3 == 0 { // stopped wherever it happens to be
			eventually(t, "something moved", func() bool { return r.ingest.done.Load() > 0 })
		}
		r.halt()
	}
	r.start()
	if got := r.drained(); !slices.Equal(got, want) {
		t.Errorf("stored %d events, want %d", len(got), len(want))
	}
}

// brokenLog fails at some appends: before anything is stored, after a part of it, or after all of it, when only the answer is lost.
type brokenLog struct {
	*eventlog.Log
	calls int
}

func (l *brokenLog) Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	l.calls++
	stored := 0
	switch l.calls % 4 {
	case 0:
		return l.Log.Append(ctx, records)
	case 1:
	case 2:
		stored = len(records) * 2 / 5 // in the middle of a record
	case 3:
		stored = len(records)
	}
	if stored > 0 {
		if _, err := l.Log.Append(ctx, records[:stored]); err != nil {
			return eventlog.Appended{}, err
		}
	}
	return eventlog.Appended{}, errors.New("broken on purpose")
}

func TestAFailedStepIsTriedAgainWithoutLossOrDouble(t *testing.T) {
	// The log's own window is as short as can be, so that it is the position that tells what was stored.
	r := newRig(t, eventlog.Options{DuplicateWindow: 100 * time.Millisecond})
	r.to = &brokenLog{Log: r.log}
	r.start()
	var want []string
	for n := range 6 {
		batch := numbered(fmt.Sprintf("r%d.", n), 10)
		want = append(want, batch...)
		r.receive(strings.Join(batch, " "))
	}
	if got := r.drained(); !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if testutil.ToFloat64(r.ingest.meters.failures) == 0 {
		t.Error("no failure was counted: the test does not test what it says")
	}
}

func TestABodyThatTranslationCannotSurviveIsStoredWholeAndHoldsUpNothing(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.start()
	r.receive("one", "panic now", "two")
	got := r.drained()
	if len(got) != 3 || got[0] != "one" || got[2] != "two" || !strings.Contains(got[1], "panic now") {
		t.Errorf("stored %q, want the body between its neighbours", got)
	}
	if n := testutil.ToFloat64(r.ingest.meters.panics); n != 1 {
		t.Errorf("%v panics counted, want 1", n)
	}
}

// damagedJournal cannot read one of its records.
type damagedJournal struct {
	*journal.Journal
	index uint64
}

func (j damagedJournal) Read(ctx context.Context, from uint64) iter.Seq2[journal.Record, error] {
	return func(yield func(journal.Record, error) bool) {
		for record, err := range j.Journal.Read(ctx, from) {
			if err == nil && record.Index == j.index {
				record, err = journal.Record{Index: j.index}, fmt.Errorf("record %d: %w", j.index, journal.ErrDamaged)
			}
			if !yield(record, err) {
				return
			}
		}
	}
}

func TestADamagedRecordCostsNoOther(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.from = damagedJournal{r.journal, 2}
	r.start()
	r.receive("one", "two", "three")
	if got := r.drained(); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("stored %v", got)
	}
	if n := testutil.ToFloat64(r.ingest.meters.damaged); n != 1 {
		t.Errorf("%v damaged records counted, want 1", n)
	}
}

func TestAWipedJournalBeginsAnewBesideItsOldEvents(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.start()
	r.receive("old")
	r.drained()
	r.halt()
	if err := r.journal.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.journal, err = journal.Open(filepath.Join(r.dir, "another"), journal.Options{}); err != nil {
		t.Fatal(err)
	}
	r.from = r.journal
	r.start()
	r.receive("new", "newer")
	if got := r.drained(); !slices.Equal(got, []string{"old", "new", "newer"}) {
		t.Errorf("stored %v", got)
	}
}

// awayLog is a log that is away until back is closed. It counts who asks it in vain.
type awayLog struct {
	*eventlog.Log
	back    chan struct{}
	waiting chan struct{} // closed when somebody waits
	once    sync.Once
	vain    atomic.Int64
}

func (l *awayLog) Ready(ctx context.Context) error {
	l.once.Do(func() { close(l.waiting) })
	select {
	case <-l.back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *awayLog) asked() error {
	select {
	case <-l.back:
		return nil
	default:
		l.vain.Add(1)
		return eventlog.ErrUnavailable
	}
}

func (l *awayLog) Position(ctx context.Context, id string) (eventlog.Origin, bool, error) {
	if err := l.asked(); err != nil {
		return eventlog.Origin{}, false, err
	}
	return l.Log.Position(ctx, id)
}

func (l *awayLog) Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	if err := l.asked(); err != nil {
		return eventlog.Appended{}, err
	}
	return l.Log.Append(ctx, records)
}

func TestALogThatIsAwayIsWaitedForAndNotAskedInVain(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.start()
	r.receive("one", "two", "three")
	r.drained()
	r.halt()
	r.receive("four", "five")
	away := &awayLog{Log: r.log, back: make(chan struct{}), waiting: make(chan struct{})}
	r.to = away
	r.start()
	<-away.waiting
	r.receive("six")
	if lag := r.ingest.Lag(); lag != 3 {
		t.Errorf("the lag is %d: three notifications wait", lag)
	}
	if n := away.vain.Load(); n > 0 {
		t.Errorf("asked %d times in vain", n)
	}
	close(away.back)
	if got, want := r.drained(), []string{"one", "two", "three", "four", "five", "six"}; !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

func TestAShutdownDoesNotWaitForALogThatIsAway(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	away := &awayLog{Log: r.log, back: make(chan struct{}), waiting: make(chan struct{})}
	r.to = away
	r.receive("one")
	r.start()
	<-away.waiting
	r.halt() // or this test never ends
}

func TestAFailureThatLastsIsToldOnceAMinuteAndWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		logger := slog.New(slog.NewTextHandler(&said, nil))
		var failed trouble
		for range 36 { // three minutes
			failed.tell(logger, errors.New("no space left"), maxRetryDelay)
			time.Sleep(maxRetryDelay)
		}
		failed.over(logger)
		failed.over(logger)
		if warned, over := strings.Count(said.String(), "level=WARN"), strings.Count(said.String(), "succeed again"); warned != 3 || over != 1 {
			t.Errorf("%d warnings, %d all-clears:\n%s", warned, over, &said)
		}
		failed.tell(logger, errors.New("no space left"), maxRetryDelay)
		if warned := strings.Count(said.String(), "level=WARN"); warned != 4 {
			t.Errorf("the next failure is not told: %d warnings", warned)
		}
	})
}
