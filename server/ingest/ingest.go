// Package ingest carries notifications from the journal into the log: one loop, in order, one step at a time.
//
// A step appends the events of what waits in the journal in one go; the next begins when that is durable. Nothing else is in flight, so order, failure and recovery are
// plain: every event in the log carries the place in the journal it came from, and after a failure or a restart the loop goes on behind the last one that the log has. A
// record leaves the journal when the log has all its events.
//
// What the next steps will append is translated meanwhile, ahead of them, by one goroutine and within a bound of bytes. It is in memory only: a failure drops it.
//
// Where much comes, the loop rests between steps, for a moment that is bounded, so that the answers to providers come first. The step after a rest takes all that came in it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/journal"
	"eventrelay/server/translate"
)

const (
	// maxStepEvents and maxStepBytes bound a step, and with it what is in memory: the log takes that much in one atomic batch. A single record may exceed them.
	maxStepEvents = 1000
	maxStepBytes  = 8 << 20
	// minRetryDelay and maxRetryDelay bound the back-off after a failed step.
	minRetryDelay = 100 * time.Millisecond
	maxRetryDelay = 5 * time.Second
	// warnEvery is how often a step that goes on failing is logged aloud.
	warnEvery = time.Minute
)

// Journal is where notifications wait.
type Journal interface {
	ID() string
	First() uint64
	Last() uint64
	Read(ctx context.Context, from uint64) iter.Seq2[journal.Record, error]
	Wait(ctx context.Context, after uint64) error
	Trim(through uint64) error
}

// Log is where events go.
type Log interface {
	// Ready returns nil when the log can be reached, and waits until then.
	Ready(ctx context.Context) error
	Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error)
	Position(ctx context.Context, journalID string) (eventlog.Origin, bool, error)
}

// Index knows the ids of events.
type Index interface {
	// Settle returns when the index knows what the log holds, and takes back what was claimed and not stored.
	Settle(ctx context.Context) error
	// Claim divides the records of a step into those that are new and those that are copies; what the log has from their own place in the journal is neither.
	Claim(ctx context.Context, records []eventlog.Record) (fresh, copies []eventlog.Record, err error)
	// Stored says that records which were claimed are in the log.
	Stored(records []eventlog.Record, done eventlog.Appended)
}

// Ingest is the loop. Run may be called once.
type Ingest struct {
	journal   Journal
	log       Log
	index     Index
	logger    *slog.Logger
	translate func(translate.Notification) []translate.Event
	meters    *meters
	count     func(source string, events, duplicates int)

	// eager says that somebody waits for the log, so that there is no rest between steps.
	eager bool

	// done is the last record whose events are all in the log. Written by the loop only.
	done atomic.Uint64
	mu   sync.Mutex // guards bell
	bell chan struct{}

	// next is the place to go on from: the first item of the first record that is not done. Used by the loop only.
	next place
}

// place is an item of a record.
type place struct {
	record uint64
	item   int
}

// New returns an ingest from the journal to the log, of what the index does not know. Metrics go to the registerer.
func New(from Journal, to Log, known Index, registerer prometheus.Registerer, logger *slog.Logger) *Ingest {
	i := &Ingest{journal: from, log: to, index: known, logger: logger, translate: translate.Translate, count: func(string, int, int) {}, bell: make(chan struct{})}
	// What was trimmed is in the log. Where the log stands beyond that is known when it has been asked.
	i.done.Store(from.First() - 1)
	i.meters = newMeters(registerer, i.Lag)
	return i
}

// Count has a function told, after each step, how many events of each source are new in the log and how many were known. It is called before Run.
func (i *Ingest) Count(count func(source string, events, duplicates int)) { i.count = count }

// Eager has each step begin as soon as the one before is durable, for answers that wait for the log. It is called before Run.
func (i *Ingest) Eager() { i.eager = true }

// Await returns nil once the log has all events of a record of the journal, else the context's error. It may be called by any number of goroutines.
func (i *Ingest) Await(ctx context.Context, record uint64) error {
	for {
		i.mu.Lock()
		bell := i.bell
		i.mu.Unlock()
		if i.done.Load() >= record {
			return nil
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish says that the log has everything through a record, and wakes who waits for it.
func (i *Ingest) finish(through uint64) {
	i.done.Store(through)
	i.mu.Lock()
	close(i.bell)
	i.bell = make(chan struct{})
	i.mu.Unlock()
}

// Lag returns how many acknowledged notifications are not in the log yet; of those that were left from before, until the log has been reached, how many may not be.
func (i *Ingest) Lag() uint64 {
	last, done := i.journal.Last(), i.done.Load()
	if last < done {
		return 0
	}
	return last - done
}

// Run carries notifications over until ctx ends or the journal is closed. A step that fails is tried again from where the log says it is, when the log can be reached and
// for as long as it takes; only a log that was replaced by another ends the loop with an error, for then everything has to be opened anew.
func (i *Ingest) Run(ctx context.Context) error {
	delay := minRetryDelay
	var failed trouble
	for ctx.Err() == nil {
		err := i.log.Ready(ctx) // does not wait in vain: while the log is away there is nothing to be done
		if err == nil {
			err = i.recover(ctx)
		}
		if err == nil {
			err = i.steps(ctx, func() {
				delay = minRetryDelay
				failed.over(i.logger)
			})
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, journal.ErrClosed):
			return nil //nolint:nilerr // that is the end that was asked for
		case errors.Is(err, eventlog.ErrReplaced):
			return err
		}
		i.meters.failures.Inc()
		failed.tell(i.logger, err, delay)
		sleep(ctx, delay)
		delay = min(2*delay, maxRetryDelay)
	}
	return nil
}

// steps takes one step after the other until one fails, and calls succeeded after each that does not. What was translated ahead is dropped then.
func (i *Ingest) steps(ctx context.Context, succeeded func()) error {
	ctx, cancel := context.WithCancel(ctx)
	a := newAhead()
	from := i.next.record
	var translating sync.WaitGroup
	translating.Go(func() { i.translateAhead(ctx, a, from) })
	defer translating.Wait()
	defer cancel()
	p := pace{at: time.Now(), last: i.journal.Last()}
	var rested uint64 // the last that had come when a rest ended: the next step takes all of it, not only what was translated before the rest
	for {
		records, err := a.take(ctx, rested)
		if err != nil {
			return err
		}
		if err := i.log.Ready(ctx); err != nil {
			return err
		}
		begun := time.Now()
		if err := i.step(ctx, records); err != nil {
			return err
		}
		a.release(records)
		succeeded()
		now := time.Now()
		rate := p.rate(now, i.journal.Last())
		if d := rest(now.Sub(begun), rate, i.Lag(), now.Sub(records[len(records)-1].ReceivedAt)); d > 0 && !i.eager {
			a.rest(ctx, d, i.journal.Last)
			rested = i.journal.Last()
		}
	}
}

// trouble is a row of failed steps. It is logged aloud when it begins, from time to time, and when it is over; every step of it is logged at debug.
type trouble struct {
	steps int
	since time.Time
	told  time.Time
}

func (t *trouble) tell(logger *slog.Logger, err error, delay time.Duration) {
	level := slog.LevelDebug
	now := time.Now()
	if t.steps++; t.steps == 1 {
		t.since = now
	}
	if t.steps == 1 || now.Sub(t.told) >= warnEvery {
		t.told = now
		level = slog.LevelWarn
	}
	logger.Log(context.Background(), level, "step into the log failed, trying again", "error", err, "in", delay, "failures", t.steps)
}

func (t *trouble) over(logger *slog.Logger) {
	if t.steps > 0 {
		logger.Info("steps into the log succeed again", "failures", t.steps, "after", time.Since(t.since).Round(time.Millisecond))
		*t = trouble{}
	}
}

// recover reads from the log where to go on, and has the index know what is in front of that.
func (i *Ingest) recover(ctx context.Context) error {
	if err := i.index.Settle(ctx); err != nil {
		return fmt.Errorf("read the known ids: %w", err)
	}
	id := i.journal.ID()
	origin, found, err := i.log.Position(ctx, id)
	if err != nil {
		return fmt.Errorf("read the position from the log: %w", err)
	}
	i.next = place{record: 1}
	if found {
		i.next = place{record: origin.Record, item: origin.Item + 1}
	}
	if last := i.journal.Last(); i.next.record > last+1 {
		i.logger.Error("the log has events of records that the journal no longer has: the journal was damaged or put back",
			"log_has_record", i.next.record-1, "journal_ends_at", last)
		i.next = place{record: last + 1}
	}
	i.finish(i.next.record - 1)
	if first := i.journal.First(); first > i.next.record {
		// Records before the first were trimmed, so the log had all their events: those in between were copies, or retention has removed them since.
		i.next = place{record: first}
		i.finish(first - 1)
	}
	return nil
}

// step takes records, which begin where the last step ended, into the log.
func (i *Ingest) step(ctx context.Context, records []translated) error {
	next, most := i.next, 0
	for n := range records {
		most += len(records[n].events)
	}
	events := make([]eventlog.Record, 0, most)
	for n := range records {
		record := &records[n]
		if record.damage != nil {
			// The journal has told which; what it held cannot be had back, and the others must not wait for it.
			i.meters.damaged.Inc()
			i.logger.Error("record of the journal is damaged, its notification is lost", "record", record.Index, "error", record.damage)
		}
		for item := next.item; item < len(record.events); item++ {
			made := &record.events[item]
			events = append(events, eventlog.Record{
				ID: made.ID, Source: record.Source, Type: made.Type, OrderingKey: made.OrderingKey, Time: record.ReceivedAt,
				Origin: eventlog.Origin{Journal: i.journal.ID(), Record: record.Index, Item: item}, Data: made.Data,
			})
		}
		next = place{record: record.Index + 1}
	}
	events, known, err := i.index.Claim(ctx, events)
	if err != nil {
		return fmt.Errorf("look up the events of records %d to %d: %w", i.next.record, next.record-1, err)
	}
	var appended eventlog.Appended
	if len(events) > 0 {
		if appended, err = i.log.Append(ctx, events); err != nil {
			return fmt.Errorf("append the events of records %d to %d: %w", i.next.record, next.record-1, err)
		}
		i.index.Stored(events, appended)
	}
	i.meters.appended.Add(float64(appended.Stored))
	i.meters.duplicates.Add(float64(len(known) + appended.Duplicates))
	i.tell(events, appended.Copies, known)
	i.next = next
	i.finish(next.record - 1)
	if err := i.journal.Trim(next.record - 1); err != nil {
		// The log has the events; records that stay cost room only, and the next trim takes them along.
		i.meters.failures.Inc()
		i.logger.Warn("trim of the journal failed", "through", next.record-1, "error", err)
	}
	return nil
}

// tell counts what a step did, by source. copied are the ids of those events that the log had; known are those that were not even sent to it.
func (i *Ingest) tell(events []eventlog.Record, copied []string, known []eventlog.Record) {
	sources, stored, copies := make(map[string]string, len(copied)), map[string]int{}, map[string]int{}
	for n := range known {
		copies[known[n].Source]++
	}
	for _, id := range copied {
		sources[id] = ""
	}
	for n := range events {
		stored[events[n].Source]++
		if _, ok := sources[events[n].ID]; ok {
			sources[events[n].ID] = events[n].Source
		}
	}
	for _, id := range copied {
		stored[sources[id]]--
		copies[sources[id]]++
	}
	for source, n := range stored {
		i.count(source, n, copies[source])
		delete(copies, source)
	}
	for source, n := range copies {
		i.count(source, 0, n)
	}
}

// events translates a record. What the translation cannot survive is stored whole, as one unknown event, so that nothing behind it has to wait.
func (i *Ingest) events(record journal.Record) (events []translate.Event) {
	n := translate.Notification{Source: record.Source, Provider: eventrelayv1.Provider(record.Provider), ReceivedAt: record.ReceivedAt, Body: record.Body}
	defer func() {
		if p := recover(); p != nil {
			i.meters.panics.Inc()
			i.logger.Error("translation panicked, the notification is stored as one unknown event", "source", record.Source, "record", record.Index, "panic", p, "stack", string(debug.Stack()))
			events = []translate.Event{translate.Unknown(n)}
		}
	}()
	return i.translate(n)
}
