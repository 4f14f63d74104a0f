package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"eventrelay/server/eventlog"
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

func numbered(prefix string, n int) (words []string) {
	for i := range n {
		words = append(words, fmt.Sprintf("%s%d", prefix, i))
	}
	return words
}
