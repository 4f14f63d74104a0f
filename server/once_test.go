package main

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// messages returns the ids of the messages of events.
func messages(events []*eventrelayv1.Event) (ids []string) {
	for _, e := range events {
		ids = append(ids, e.GetMessage().GetId())
	}
	return ids
}

// accept posts bodies and wants each answered 200.
func (r *relay) accept(bodies ...[]byte) {
	r.t.Helper()
	for _, body := range bodies {
		if code := r.post("dev", body); code != http.StatusOK {
			r.t.Fatalf("answered %d", code)
		}
	}
	r.drained()
}

// The log's own window is as short as it can be, so that the index alone tells.
func TestAnItemIsOneEventHoweverAndWheneverItIsDeliveredAgain(t *testing.T) {
	dir := t.TempDir()
	start := func() *relay { return spawn(t, dir, "--duplicate-window", "100ms") }
	r := start()
	one, two, three := text("wamid.1", "hello"), text("wamid.2", "two"), text("wamid.3", "three")
	r.accept(one, two)
	copies := 0
	again := func(bodies ...[]byte) {
		t.Helper()
		copies += len(bodies)
		r.accept(bodies...)
		if got := messages(r.all()); !slices.Equal(got, []string{"wamid.1", "wamid.2"}) {
			t.Fatalf("stored %v", got)
		}
	}
	again(one)
	again(bytes.Replace(one, []byte("hello"), []byte(`h\u0065llo`), 1))                                                              // escaped differently
	again(bytes.Replace(two, []byte(`"from":"4915550002222","id":"wamid.2"`), []byte(`"id": "wamid.2", "from":"4915550002222"`), 1)) // in another order
	r.accept([]byte("[" + string(two) + "," + string(one) + "]"))                                                                    // batched differently
	copies += 2
	again(two)
	if _, shown := r.get("/v1/sources/dev"); !strings.Contains(strings.ReplaceAll(shown, " ", ""), fmt.Sprintf(`"duplicate_events":"%d"`, copies)) {
		t.Errorf("%d copies came, the source says %s", copies, shown)
	}
	r.stop()
	r = start()
	again(one, two)
	r.kill()
	r = start()
	again(two, one)
	r.accept(three)
	if got := messages(r.all()); !slices.Equal(got, []string{"wamid.1", "wamid.2", "wamid.3"}) {
		t.Errorf("stored %v", got)
	}
	r.metric("eventrelay_index_events 3")
}

func TestABodyThatIsDeliveredTwiceAtOneInstantIsOneEvent(t *testing.T) {
	r := serve(t, t.TempDir(), "--duplicate-window", "100ms")
	var want []string
	for n := range 30 {
		id := fmt.Sprint("wamid.", n)
		want = append(want, id)
		var posting sync.WaitGroup
		for range 2 {
			posting.Go(func() {
				if code := r.post("dev", text(id, "at once")); code != http.StatusOK {
					t.Errorf("answered %d", code)
				}
			})
		}
		posting.Wait()
	}
	if got := messages(r.all()); !slices.Equal(got, want) {
		t.Errorf("stored %v, want each of %d once", got, len(want))
	}
}

func TestACopyIsToldAndNoLongerFoundWhenRetentionHasRemovedItsEvent(t *testing.T) {
	dir := t.TempDir()
	start := func() *relay { return spawn(t, dir, "--duplicate-window", "100ms", "--retention-events", "2") }
	r := start()
	r.accept(text("wamid.1", "one"))
	id := r.all()[0].GetId()
	if code, body := r.get("/v1/events/" + id); code != http.StatusOK || !strings.Contains(body, "wamid.1") {
		t.Errorf("an event that is kept: %d %s", code, body)
	}
	r.accept(text("wamid.2", "two"), text("wamid.3", "three"))
	toldAndNotFound := func() {
		t.Helper()
		r.accept(text("wamid.1", "one"))
		if got := messages(r.all()); !slices.Equal(got, []string{"wamid.2", "wamid.3"}) {
			t.Errorf("stored %v", got)
		}
		if code, body := r.get("/v1/events/" + id); code != http.StatusNotFound || !strings.Contains(body, "EVENT_NOT_INDEXED") {
			t.Errorf("an event that is no longer kept: %d %s", code, body)
		}
	}
	toldAndNotFound()
	r.stop()
	r = start()
	toldAndNotFound()
}
