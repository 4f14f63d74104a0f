package ingest

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventrelay/server/eventlog"
	"eventrelay/server/journal"
	"eventrelay/server/translate"
)

// metronome is a journal into which a record comes each interval, on the clock of the test.
type metronome struct {
	began    time.Time
	interval time.Duration
}

func (m metronome) ID() string        { return "metronome" }
func (m metronome) First() uint64     { return 1 }
func (m metronome) Last() uint64      { return uint64(time.Since(m.began) / m.interval) }
func (m metronome) Trim(uint64) error { return nil }

func (m metronome) at(index uint64) time.Time {
	return m.began.Add(time.Duration(index) * m.interval)
}

func (m metronome) Read(_ context.Context, from uint64) iter.Seq2[journal.Record, error] {
	return func(yield func(journal.Record, error) bool) {
		for last := m.Last(); from <= last; from++ {
			if !yield(journal.Record{Index: from, Source: "shop", ReceivedAt: m.at(from)}, nil) {
				return
			}
		}
	}
}

func (m metronome) Wait(ctx context.Context, after uint64) error {
	sleep(ctx, time.Until(m.at(after+1)))
	return ctx.Err()
}

// slowLog takes a while for a step, and keeps how long each event was on its way.
type slowLog struct {
	step time.Duration

	mu   sync.Mutex // guards late
	late []time.Duration
}

func (l *slowLog) Ready(context.Context) error { return nil }

func (l *slowLog) Position(context.Context, string) (eventlog.Origin, bool, error) {
	return eventlog.Origin{}, false, nil
}

func (l *slowLog) Append(_ context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	time.Sleep(l.step)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, record := range records {
		l.late = append(l.late, time.Since(record.Time))
	}
	return eventlog.Appended{Stored: len(records)}, nil
}

// knowsNothing is an index for which every event is new.
type knowsNothing struct{}

func (knowsNothing) Settle(context.Context) error { return nil }
func (knowsNothing) Claim(_ context.Context, records []eventlog.Record) (fresh, copies []eventlog.Record, err error) {
	return records, nil, nil
}
func (knowsNothing) Stored([]eventlog.Record, eventlog.Appended) {}

// In a busy time an event waits for the step under way, for one rest and for its own step, and not for another rest.
func TestAnEventWaitsForOneRestAtMost(t *testing.T) {
	for _, rate := range []int{100, 1000, 4000} {
		synctest.Test(t, func(t *testing.T) {
			const step = 2 * time.Millisecond
			to := &slowLog{step: step}
			from := metronome{began: time.Now(), interval: time.Second / time.Duration(rate)}
			i := New(from, to, knowsNothing{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			i.translate = func(translate.Notification) []translate.Event { return []translate.Event{{ID: "x"}} }
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := i.Run(ctx); err != nil {
				t.Fatal(err)
			}
			most := 2*step + rest(step, float64(rate)*1.1, 0, 0) + from.interval
			if n := len(to.late); n < 4*rate {
				t.Errorf("%d events in 5 s, of %d a second", n, rate)
			}
			for _, late := range to.late {
				if late > most {
					t.Fatalf("at %d a second an event was %v on its way, want %v at most", rate, late, most)
				}
			}
		})
	}
}
