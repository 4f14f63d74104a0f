package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"eventrelay/server/eventlog"
	"eventrelay/server/eventlog/natstest"
	"eventrelay/server/hub"
	"eventrelay/server/index"
	"eventrelay/server/journal"
	"eventrelay/server/translate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// words is a translation that tests can read: every word of the body is an event, and its own id.
func words(n translate.Notification) (events []translate.Event) {
	for word := range strings.FieldsSeq(string(n.Body)) {
		if word == "panic" {
			panic("a body that translation cannot survive")
		}
		events = append(events, translate.Event{ID: word, Type: "test.word", OrderingKey: word, Data: []byte(word)})
	}
	return events
}

// rig is a real journal and a real log with an ingest between them that can be stopped and started.
type rig struct {
	t       *testing.T
	dir     string
	journal *journal.Journal
	log     *eventlog.Log
	// to and from are what the ingest sees of the two, for tests that want faults in between.
	to   Log
	from Journal
	// bell tells the index when others append, if set.
	bell index.Bell
	// count, if set, is told what each step did.
	count func(source string, events, duplicates int)
	// translate is words unless a test says otherwise.
	translate func(translate.Notification) []translate.Event
	// eager has no rest between steps, for tests with a short window of the log.
	eager bool

	ingest *Ingest
	stop   func()
}

func newRig(t *testing.T, options eventlog.Options) *rig {
	r := &rig{t: t, dir: t.TempDir()}
	var err error
	if r.journal, err = journal.Open(filepath.Join(r.dir, "journal"), journal.Options{}); err != nil {
		t.Fatal(err)
	}
	options.Dir = filepath.Join(r.dir, "log")
	if r.log, err = eventlog.Open(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	r.to, r.from = r.log, r.journal
	t.Cleanup(func() {
		r.halt()
		r.journal.Close()
		r.log.Close()
	})
	return r
}

// start starts an ingest that knows nothing of the one before.
func (r *rig) start() {
	ids, err := index.Open(r.log, r.bell, index.Options{Dir: filepath.Join(r.dir, "index")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.ingest = New(r.from, r.to, ids, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	r.ingest.translate = words
	if r.eager {
		r.ingest.Eager()
	}
	if r.translate != nil {
		r.ingest.translate = r.translate
	}
	if r.count != nil {
		r.ingest.Count(r.count)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.ingest.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	running.Go(func() { ids.Run(ctx) })
	r.stop = func() {
		cancel()
		running.Wait()
		if err := ids.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) halt() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

func (r *rig) receive(bodies ...string) {
	r.t.Helper()
	for _, body := range bodies {
		if _, err := r.journal.Append(r.t.Context(), journal.Record{Source: "shop", ReceivedAt: time.Now(), Body: []byte(body)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// drained waits until everything received is in the log, and returns what is there in its order.
func (r *rig) drained() (stored []string) {
	r.t.Helper()
	eventually(r.t, "the lag is 0", func() bool { return r.ingest.Lag() == 0 && r.ingest.done.Load() == r.journal.Last() })
	for e, err := range r.log.Read(r.t.Context(), 1) {
		if err != nil {
			r.t.Fatal(err)
		}
		stored = append(stored, string(e.Data))
	}
	return stored
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

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

func numbered(prefix string, n int) (words []string) {
	for i := range n {
		words = append(words, fmt.Sprintf("%s%d", prefix, i))
	}
	return words
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

func TestEventsAndCopiesAreCountedBySource(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	counted := map[string][2]int{}
	r.count = func(source string, events, duplicates int) {
		c := counted[source]
		counted[source] = [2]int{c[0] + events, c[1] + duplicates}
	}
	receive := func(source, body string) {
		t.Helper()
		if _, err := r.journal.Append(t.Context(), journal.Record{Source: source, ReceivedAt: time.Now(), Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	receive("shop", "a b")
	receive("agency", "c")
	receive("shop", "b d")
	r.start()
	r.drained()
	receive("agency", "c c e")
	receive("shop", "a")
	r.drained()
	r.halt()
	if want := (map[string][2]int{"shop": {3, 2}, "agency": {2, 2}}); !maps.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
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

// untrimmed is a journal whose trims are lost, as a power cut may lose the newest.
type untrimmed struct{ *journal.Journal }

func (untrimmed) Trim(uint64) error { return nil }

func TestCopiesAreToldAfterAStopLongerThanTheLogsWindow(t *testing.T) {
	r := newRig(t, eventlog.Options{DuplicateWindow: 100 * time.Millisecond})
	r.from, r.eager = untrimmed{r.journal}, true
	r.start()
	r.receive("a b", "c", "b a", "a") // the last two leave nothing in the log that a position could be read from
	if got := r.drained(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("stored %v", got)
	}
	r.halt()
	// Another relay shares the log; when it can store a copy of its own, the window has passed.
	eventually(t, "the window has passed", func() bool {
		appended, err := r.log.Append(t.Context(), []eventlog.Record{{ID: "probe", Source: "other", Type: "probe", Origin: eventlog.Origin{Journal: "other", Record: 1}, Data: []byte("probe")}})
		if err != nil {
			t.Fatal(err)
		}
		state, err := r.log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return appended.Stored == 1 && state.Last >= 5
	})
	r.receive("d")
	r.start()
	got := slices.DeleteFunc(r.drained(), func(word string) bool { return word == "probe" })
	if !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("stored %v: a copy was taken for a new event, or an event was lost", got)
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

func TestCopiesThatReachTwoRelaysAtOnceAreOneEvent(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start()
	var relays []*rig
	duplicates := 0
	var counting sync.Mutex // guards duplicates
	for range 2 {
		r := newRig(t, eventlog.Options{URL: nats.URL()})
		following, stop := context.WithCancel(context.Background())
		bell := hub.New(tail{r.log}, slog.New(slog.DiscardHandler))
		r.bell = bell
		r.count = func(_ string, _, copies int) {
			counting.Lock()
			duplicates += copies
			counting.Unlock()
		}
		r.start()
		var running sync.WaitGroup
		running.Go(func() { bell.Run(following) })
		t.Cleanup(func() { stop(); running.Wait() })
		relays = append(relays, r)
	}
	const rounds = 40
	for n := range rounds {
		var posting sync.WaitGroup
		for _, r := range relays {
			posting.Go(func() { r.receive(fmt.Sprintf("a%d b%d", n, n), fmt.Sprintf("b%d c%d", n, n)) })
		}
		posting.Wait()
	}
	relays[0].drained()
	stored := relays[1].drained()
	slices.Sort(stored)
	if unique := slices.Compact(slices.Clone(stored)); len(stored) != 3*rounds || len(unique) != 3*rounds {
		t.Errorf("%d events, %d of them different, want %d", len(stored), len(unique), 3*rounds)
	}
	for _, r := range relays {
		r.halt()
	}
	if duplicates != 5*rounds {
		t.Errorf("%d copies counted, want %d", duplicates, 5*rounds)
	}
}

// tail lets a hub follow a log.
type tail struct{ *eventlog.Log }

func (l tail) Last(ctx context.Context) (uint64, error) {
	state, err := l.State(ctx)
	return state.Last, err
}

func (l tail) Read(ctx context.Context, from uint64) iter.Seq2[hub.Entry, error] {
	return entries(l.Log.Read(ctx, from))
}

func (l tail) Tail(ctx context.Context, after uint64) iter.Seq2[hub.Entry, error] {
	return entries(l.Log.Tail(ctx, after))
}

func entries(from iter.Seq2[eventlog.Entry, error]) iter.Seq2[hub.Entry, error] {
	return func(yield func(hub.Entry, error) bool) {
		for entry, err := range from {
			if !yield(hub.Entry{Sequence: entry.Sequence, Data: entry.Data}, err) {
				return
			}
		}
	}
}

// A copy may come by another relay, long after the log's own window.
func TestACopyByAnotherRelayIsToldAfterTheLogsWindow(t *testing.T) {
	r := newRig(t, eventlog.Options{DuplicateWindow: 100 * time.Millisecond})
	r.start()
	r.receive("a")
	r.drained()
	probe := func(id string) bool {
		appended, err := r.log.Append(t.Context(), []eventlog.Record{{ID: id, Source: "other", Type: "probe", Origin: eventlog.Origin{Journal: "other", Record: 1}, Data: []byte(id)}})
		if err != nil {
			t.Fatal(err)
		}
		return appended.Stored == 1
	}
	probe("b") // the other relay stores b
	r.halt()
	probe("first")
	eventually(t, "the window has passed", func() bool { return probe("first") })
	r.receive("b a", "c")
	r.start()
	got := slices.DeleteFunc(r.drained(), func(word string) bool { return word == "first" })
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("stored %v", got)
	}
}
