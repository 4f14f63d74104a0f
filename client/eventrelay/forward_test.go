package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// endpoint keeps what is posted to it and answers by a function, or with 200.
type endpoint struct {
	answer func(n int, w http.ResponseWriter)

	mu     sync.Mutex // guards the rest
	bodies []string
	heads  []http.Header
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.bodies, e.heads = append(e.bodies, string(body)), append(e.heads, r.Header)
	n := len(e.bodies)
	e.mu.Unlock()
	if e.answer != nil {
		e.answer(n, w)
	}
}

func (e *endpoint) serve(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	return server.URL
}

// changes gives events as `forward` gets them: without a payload.
func changes(count int) []*eventrelayv1.Event {
	var all []*eventrelayv1.Event
	for n := 1; n <= count; n++ {
		all = append(all, &eventrelayv1.Event{
			Id: fmt.Sprint("id", n), Cursor: fmt.Sprint("c", n), Sequence: uint64(n), Type: "meta.page.feed", Object: "page", Field: "feed", EntryId: "77",
			Provider: eventrelayv1.Provider_PROVIDER_META, Raw: fmt.Appendf(nil, `{"field": "feed",  "value": {"n": %d}}`, n),
		})
	}
	return all
}

// forwards runs the command over these events and ends it behind the last.
func forwards(t *testing.T, events []*eventrelayv1.Event, args ...string) (*relay, result) {
	t.Helper()
	r := &relay{script: sends(events...)}
	return r, eventrelay(t, append([]string{"forward", "--server", r.serve(t), "--count", strconv.Itoa(len(events))}, args...)...)
}

func TestForwardPostsWhatTheProviderWouldSigned(t *testing.T) {
	partner := &eventrelayv1.Event{
		Id: "p", Cursor: "c4", Type: "dialog360.channel_live", Field: "channel_live", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER, Raw: []byte(`{"event": "channel_live", "data": {}}`),
	}
	e := &endpoint{}
	r, got := forwards(t, append(changes(3), partner), "--to", e.serve(t), "--secret", "@"+file(t, "hush\n"), "--header", "X-Tenant: one")
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	want := []string{
		`{"object":"page","entry":[{"id":"77","changes":[{"field": "feed",  "value": {"n": 1}}]}]}`,
		`{"object":"page","entry":[{"id":"77","changes":[{"field": "feed",  "value": {"n": 2}}]}]}`,
		`{"object":"page","entry":[{"id":"77","changes":[{"field": "feed",  "value": {"n": 3}}]}]}`,
		`{"event": "channel_live", "data": {}}`,
	}
	if !slices.Equal(e.bodies, want) {
		t.Errorf("posted %s", strings.Join(e.bodies, "\n"))
	}
	for i, head := range e.heads {
		mac := hmac.New(sha256.New, []byte("hush"))
		mac.Write([]byte(e.bodies[i]))
		name, signature := "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil))
		if i == 3 {
			name, signature = "X-360dialog-Signature", hex.EncodeToString(mac.Sum(nil))
		}
		if head.Get(name) != signature || head.Get("Content-Type") != "application/json" || head.Get("X-Tenant") != "one" {
			t.Errorf("posted with %v", head)
		}
	}
	if view := r.request(t).GetView(); view != eventrelayv1.EventView_EVENT_VIEW_RAW {
		t.Errorf("asked for %v", view)
	}
}

func TestForwardPostsInOrderUntilEachIsAccepted(t *testing.T) {
	e := &endpoint{answer: func(n int, w http.ResponseWriter) {
		switch n {
		case 2:
			w.WriteHeader(http.StatusBadGateway)
		case 3:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}}
	_, got := forwards(t, changes(3), "--to", e.serve(t), "--secret", "hush")
	var order []string
	for _, body := range e.bodies {
		_, n, _ := strings.Cut(body, `"n": `)
		order = append(order, n[:1])
	}
	if got.code != exitDone || strings.Join(order, "") != "12223" {
		t.Errorf("exit %d, posted %v: %s", got.code, order, got.err)
	}
	if strings.Count(got.err, "does not take") != 1 || strings.Count(got.err, "takes events again") != 1 {
		t.Errorf("told %s", got.err)
	}
}

func TestForwardEndsAtARefusalUnlessItIsToBeSkipped(t *testing.T) {
	refuses := func(n int, w http.ResponseWriter) {
		if n == 2 {
			http.Error(w, "no such field", http.StatusUnprocessableEntity)
		}
	}
	place := filepath.Join(t.TempDir(), "cursor")
	e := &endpoint{answer: refuses}
	_, got := forwards(t, changes(3), "--to", e.serve(t), "--secret", "hush", "--cursor-file", place)
	if got.code != exitFailure || !strings.Contains(got.err, "refused event id2: 422 Unprocessable Entity: no such field") || len(e.bodies) != 2 {
		t.Errorf("exit %d after %d posts: %s", got.code, len(e.bodies), got.err)
	}
	if kept := must(os.ReadFile(place)); string(kept) != "c1\n" {
		t.Errorf("kept %q", kept)
	}
	e = &endpoint{answer: refuses}
	_, got = forwards(t, changes(3), "--to", e.serve(t), "--secret", "hush", "--skip-refused")
	if got.code != exitDone || len(e.bodies) != 3 || !strings.Contains(got.err, "event id2, which is left out") {
		t.Errorf("exit %d after %d posts: %s", got.code, len(e.bodies), got.err)
	}
	// A redirect is an answer: following it would turn the post into a get.
	e = &endpoint{answer: func(_ int, w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }}
	if _, got = forwards(t, changes(1), "--to", e.serve(t), "--secret", "hush"); got.code != exitFailure || len(e.bodies) != 1 {
		t.Errorf("redirected: exit %d after %d posts", got.code, len(e.bodies))
	}
}

func TestAnswersThatPassAreToldFromRefusals(t *testing.T) {
	for code, refused := range map[int]bool{301: true, 400: true, 401: true, 404: true, 410: true, 422: true, 408: false, 425: false, 429: false, 500: false, 503: false, 504: false} {
		err := judge(&http.Response{StatusCode: code}, nil)
		if _, is := errors.AsType[*refusedError](err); err == nil || is != refused {
			t.Errorf("%d: %v", code, err)
		}
	}
	if err := judge(&http.Response{StatusCode: 204}, nil); err != nil {
		t.Errorf("204: %v", err)
	}
}

func TestForwardGoesOnWhereTheLastRunEnded(t *testing.T) {
	place := filepath.Join(t.TempDir(), "cursor")
	e := &endpoint{}
	to := e.serve(t)
	r, got := forwards(t, changes(2), "--to", to, "--secret", "hush", "--cursor-file", place, "--from", "earliest")
	if got.code != exitDone || r.request(t).GetStartFrom() != eventrelayv1.StartFrom_START_FROM_EARLIEST {
		t.Fatalf("exit %d, asked for %v: %s", got.code, r.request(t), got.err)
	}
	r, got = forwards(t, changes(3)[2:], "--to", to, "--secret", "hush", "--cursor-file", place, "--from", "earliest")
	if got.code != exitDone || r.request(t).GetCursor() != "c2" || len(e.bodies) != 3 {
		t.Errorf("exit %d, went on from %v with %d posts: %s", got.code, r.request(t), len(e.bodies), got.err)
	}
	// What a filter leaves out is behind as well: a response without events moves the place.
	r = &relay{script: sends()}
	if got := eventrelay(t, "forward", "--server", r.serve(t), "--no-follow", "--to", to, "--secret", "hush", "--cursor-file", place); got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	if kept := must(os.ReadFile(place)); string(kept) != "c0\n" {
		t.Errorf("kept %q", kept)
	}
}

func TestForwardFetchesWhatIsTooLargeToCome(t *testing.T) {
	large := changes(1)[0]
	raw := large.GetRaw()
	large.Raw, large.RawOmitted = nil, true
	e := &endpoint{}
	d := &delivery{sender: http.DefaultClient, to: e.serve(t), secret: "hush"}
	for _, c := range []struct {
		desk *desk
		fine bool
	}{
		{&desk{raw: [][]byte{raw[:7], raw[7:]}}, true},
		{&desk{torn: refusal(codes.NotFound, "gone", "eventrelay", "EVENT_NOT_INDEXED", nil)}, false},
	} {
		connected, err := (&connection{Server: c.desk.serve(t)}).dial()
		if err != nil {
			t.Fatal(err)
		}
		d.events = connected.Events()
		if err := d.deliver(t.Context(), large); (err == nil) != c.fine {
			t.Errorf("delivered with %v", err)
		}
		connected.Close()
	}
	if len(e.bodies) != 1 || !strings.Contains(e.bodies[0], string(raw)) {
		t.Errorf("posted %v", e.bodies)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestABodyHasTheEnvelopeThatTheEventTells(t *testing.T) {
	envelope, err := structpb.NewStruct(map[string]any{"time": 1750000000123, "hop_context": []any{"a"}, "messaging": "no list"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		event *eventrelayv1.Event
		raw   string
		want  string
	}{
		"a change": {
			&eventrelayv1.Event{Type: "meta.page.feed", Object: "page", Field: "feed", EntryId: "1", OccurredAt: &timestamppb.Timestamp{Seconds: 5}},
			`{"field":"feed"}`, `{"object":"page","entry":[{"id":"1","time":5,"changes":[{"field":"feed"}]}]}`,
		},
		"a message of a conversation, in milliseconds": {
			&eventrelayv1.Event{Type: "meta.page.messaging.message", Object: "page", Field: "messaging", EntryId: "1", OccurredAt: &timestamppb.Timestamp{Seconds: 5, Nanos: 7e6}},
			`{"message":{}}`, `{"object":"page","entry":[{"id":"1","time":5007,"messaging":[{"message":{}}]}]}`,
		},
		"standby with another time and more": {
			&eventrelayv1.Event{
				Type: "meta.page.standby.message", Object: "page", Field: "standby", EntryId: "1", OccurredAt: &timestamppb.Timestamp{Seconds: 5},
				Context: &eventrelayv1.EventContext{Envelope: envelope, Uid: new("9")},
			},
			`{"message":{}}`, `{"object":"page","entry":[{"id":"1","time":1750000000123,"uid":"9","hop_context":["a"],"standby":[{"message":{}}]}]}`,
		},
		"WhatsApp's field standby": {
			&eventrelayv1.Event{Type: "meta.whatsapp_business_account.standby", Object: "whatsapp_business_account", Field: "standby", EntryId: "1"},
			`{"field":"standby","value":{}}`, `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"standby","value":{}}]}]}`,
		},
		"a flat entry": {
			&eventrelayv1.Event{Type: "meta.user.photos", Object: "user", Field: "photos", EntryId: "1"},
			`{"id":"1","field":"photos","value":2}`, `{"object":"user","entry":[{"id":"1","field":"photos","value":2}]}`,
		},
		"a changed field": {
			&eventrelayv1.Event{Type: "meta.user.photos", Object: "user", Field: "photos", EntryId: "1"},
			`{"uid":"1","changed_fields":["photos"]}`, `{"object":"user","entry":[{"uid":"1","changed_fields":["photos"]}]}`,
		},
		"an entry that is none": {&eventrelayv1.Event{Type: "meta.user.unknown", Object: "user"}, `7`, `{"object":"user","entry":[7]}`},
		"an envelope without events": {
			&eventrelayv1.Event{Type: "meta.user.unknown", Object: "user"}, `{"object":"user","entry":[]}`, `{"object":"user","entry":[]}`,
		},
		"Threads": {
			&eventrelayv1.Event{Type: "meta.threads.replies", Object: "threads", Field: "replies", EntryId: "1"}, `{"values":{"field":"replies"}}`, `{"values":{"field":"replies"}}`,
		},
		"nobody knows what": {&eventrelayv1.Event{Type: "unknown"}, `[1, 2]`, `[1, 2]`},
	} {
		got := string(bodyOf(c.event, []byte(c.raw)))
		if got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWrongForwardsNameTheFlagAndTheFix(t *testing.T) {
	empty := file(t, "\n")
	words := file(t, "two words\n")
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{}, exitUsage, []string{"--to"}},
		{[]string{"--to", "ftp://here"}, exitUsage, []string{"--to", "https://"}},
		{[]string{"--to", "http://user:hush-hush@service.example/"}, exitUsage, []string{"--to", "--allow-http"}},
		{[]string{"--to", "http://127.0.0.1:1"}, exitUsage, []string{"--secret", "--header"}},
		{[]string{"--to", "http://127.0.0.1:1", "--secret", "@" + empty}, exitUsage, []string{"--secret"}},
		{[]string{"--to", "http://127.0.0.1:1", "--header", "hush-hush"}, exitUsage, []string{"--header", "Name: value"}},
		{[]string{"--to", "http://127.0.0.1:1", "--secret", "s", "--since", "5m", "--from", "earliest"}, exitUsage, []string{"--since", "--from"}},
		{[]string{"--to", "http://127.0.0.1:1", "--secret", "s", "--cursor-file", empty}, exitFailure, []string{"--cursor-file", "remove it"}},
		{[]string{"--to", "http://127.0.0.1:1", "--secret", "s", "--cursor-file", words}, exitFailure, []string{"--cursor-file", "remove it"}},
	} {
		got := eventrelay(t, append([]string{"forward"}, c.args...)...)
		if got.code != c.code || strings.Contains(got.err, "hush-hush") {
			t.Errorf("%v: exit %d: %s", c.args, got.code, got.err)
		}
		for _, word := range c.says {
			if !strings.Contains(got.err, word) {
				t.Errorf("%v: %q is not in: %s", c.args, word, got.err)
			}
		}
	}
	place, err := openPlace(filepath.Join(t.TempDir(), "cursor"))
	if err != nil {
		t.Fatal(err)
	}
	defer place.close()
	if got := eventrelay(t, "forward", "--to", "http://127.0.0.1:1", "--secret", "s", "--cursor-file", place.path); got.code != exitFailure || !strings.Contains(got.err, "another forward") {
		t.Errorf("two by one file: exit %d: %s", got.code, got.err)
	}
}
