package index

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"eventrelay/server/eventlog"
)

func TestEveryEventThatIsVisibleIsFound(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive(numbered("a", 50)...)
	r.others("theirs") // of which the index has not been told
	fresh, _, err := r.index.Claim(t.Context(), r.records("under way"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Append(t.Context(), fresh); err != nil { // a reader has it before the step is over
		t.Fatal(err)
	}
	for n, id := range append(numbered("a", 50), "theirs", "under way") {
		e, ok, err := r.index.Find(t.Context(), id)
		if err != nil || !ok || e.ID != id || string(e.Data) != id || e.Sequence != uint64(n+1) {
			t.Errorf("%s: found %v %+v, %v", id, ok, e, err)
		}
	}
	if _, ok, err := r.index.Find(t.Context(), "nothing"); ok || err != nil {
		t.Errorf("found what never was: %v, %v", ok, err)
	}
}

func TestTwoIDsWithOneFingerprintAreBothTakenAndFound(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive("a")
	// As if the fingerprint of b were that of a.
	r.index.mu.Lock()
	r.index.add(block{from: 1, through: 1, entries: []entry{{r.index.mark("b"), 1}}})
	r.index.mu.Unlock()
	if copies := r.receive("b"); len(copies) > 0 {
		t.Fatal("an event is lost to another with its fingerprint")
	}
	if got := testutil.ToFloat64(r.index.meters.refuted); got != 1 {
		t.Errorf("%v refuted, want 1", got)
	}
	r.wantKnown("a", "b")
	if e, ok, err := r.index.Find(t.Context(), "b"); !ok || err != nil || e.ID != "b" {
		t.Errorf("found %v %+v, %v", ok, e, err)
	}
}

func TestSequencesAreRightWhoeverAppendsInBetween(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	bell := make(bells)
	var err error
	if r.index, err = Open(r.log, bell, Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if err := r.index.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running, appending sync.WaitGroup
	running.Go(func() { r.index.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			select {
			case bell <- struct{}{}:
			case <-ctx.Done():
			}
		}
	})
	appending.Go(func() {
		for n := range 60 {
			var theirs []eventlog.Record
			for _, id := range numbered(fmt.Sprintf("o%d.", n), 1+n%15) {
				theirs = append(theirs, eventlog.Record{ID: id, Type: "test", Source: "shop", Data: []byte(id)})
			}
			if _, err := r.log.Append(t.Context(), theirs); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range 60 {
		r.receive(numbered(fmt.Sprintf("a%d.", n), 1+(n*7)%23)...)
	}
	appending.Wait()
	cancel()
	running.Wait()
	if err := r.index.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for e, err := range r.log.ReadHeaders(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if got := r.index.find(r.index.mark(e.ID)); !slices.Equal(got, []uint64{e.Sequence}) {
			t.Errorf("%s lies at %d, the index says %v", e.ID, e.Sequence, got)
		}
		n++
	}
	if events, _, _ := r.index.usage(); events != n {
		t.Errorf("%d events of %d", events, n)
	}
}

// The index may have read the begin of a step back before its end was stored, and others may have appended in between.
func TestAStepThatWasReadBackInPartLiesWhereItLies(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	fresh, _, err := r.index.Claim(t.Context(), r.records("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Append(t.Context(), fresh[:1]); err != nil {
		t.Fatal(err)
	}
	if err := r.index.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.others("o")
	done, err := r.log.Append(t.Context(), fresh[1:])
	if err != nil {
		t.Fatal(err)
	}
	r.index.Stored(fresh, eventlog.Appended{Stored: 2, Last: done.Last})
	if err := r.index.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, id := range []string{"a", "o", "b"} {
		if got := r.index.find(r.index.mark(id)); !slices.Equal(got, []uint64{uint64(n + 1)}) {
			t.Errorf("%s lies at %v, want %d", id, got, n+1)
		}
	}
}

// While the log is read, a step may end and tell what is being read.
func TestWhatAStepToldIsNotTakenFromTheLogOnceMore(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive("a", "b")
	entries := []entry{{r.index.mark("a"), 1}, {r.index.mark("b"), 2}, {r.index.mark("c"), 3}}
	r.index.advance(block{from: 1, through: 1, entries: slices.Clone(entries[:1])})
	r.index.advance(block{from: 2, through: 3, entries: slices.Clone(entries[1:])})
	for n, id := range []string{"a", "b", "c"} {
		if got := r.index.find(r.index.mark(id)); !slices.Equal(got, []uint64{uint64(n + 1)}) {
			t.Errorf("%s lies at %v, want %d", id, got, n+1)
		}
	}
}
