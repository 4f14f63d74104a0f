package ingest

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"eventrelay/server/eventlog"
	"eventrelay/server/eventlog/natstest"
	"eventrelay/server/hub"
	"eventrelay/server/journal"
)

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
