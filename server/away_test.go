package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog/natstest"
)

// receive posts n messages, numbered from first on, and wants each accepted.
func (r *relay) receive(name string, first, n int) {
	r.t.Helper()
	for i := first; i < first+n; i++ {
		if code := r.post("dev", text(fmt.Sprintf("wamid.%s.%d", name, i), "hello")); code != http.StatusOK {
			r.t.Fatalf("message %d of %s is answered %d", i, name, code)
		}
	}
}

// wantMessages checks that of a name the messages 1 to n are there, each once and in order.
func wantMessages(t *testing.T, events []*eventrelayv1.Event, name string, n int) {
	t.Helper()
	var got, want []string
	for _, e := range events {
		if id := e.GetMessage().GetId(); strings.HasPrefix(id, "wamid."+name+".") {
			got = append(got, id)
		}
	}
	for i := 1; i <= n; i++ {
		want = append(want, fmt.Sprintf("wamid.%s.%d", name, i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("of %s there is %v, want 1 to %d", name, got, n)
	}
}

// wantLogAway checks what callers and operators see while the log is away.
func (r *relay) wantLogAway() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = stream.Recv()
	s := status.Convert(err)
	if s.Code() != codes.Unavailable || len(s.Details()) == 0 {
		r.t.Fatalf("subscribe gave %v", err)
	}
	if info, ok := s.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != "LOG_UNAVAILABLE" {
		r.t.Errorf("subscribe gave %v", s.Details())
	}
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/v1/events":                            {503, "LOG_UNAVAILABLE"},
		"/v1/events/aaaaaaaaaaaaaaaaaaaaaaaaaa": {503, "LOG_UNAVAILABLE"},
		"/readyz":                               {200, "ok"}, // webhooks are accepted
		"/metrics":                              {200, "\neventrelay_log_up 0\n"},
	} {
		if code, body := r.get(path); code != want.code || !strings.Contains(body, want.text) {
			r.t.Errorf("%s: %d without %q: %.300s", path, code, want.text, body)
		}
	}
}

// wantSources checks whether a list of all sources can be had.
func (r *relay) wantSources(known bool) {
	r.t.Helper()
	code, body := r.get("/v1/sources")
	if known && (code != 200 || !strings.Contains(body, "/webhooks/dev")) || !known && (code != 503 || !strings.Contains(body, "LOG_UNAVAILABLE")) {
		r.t.Errorf("/v1/sources, known %t: %d %.300s", known, code, body)
	}
}

// metric waits until a line of the metrics reads so.
func (r *relay) metric(line string) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		_, metrics := r.get("/metrics")
		if strings.Contains(metrics, "\n"+line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the metrics never say %q", line)
		}
	}
}

// stopped stops the server, and does not believe that it takes its --shutdown-timeout.
func (r *relay) stopped() {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		r.stop()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		r.t.Fatal("the shutdown waits for the log")
	}
}

func TestWebhooksAreAcceptedWhileTheLogIsAwayAndArriveWhenItIsBack(t *testing.T) {
	nats, dir := natstest.NewServer(t), t.TempDir()
	r := serve(t, dir, "--nats-url", nats.URL(), "--shutdown-timeout", "10m")
	r.receive("a", 1, 20) // a source of the file is known, whatever the log has
	r.wantLogAway()
	r.wantSources(false) // which others there are, nobody has told yet
	r.metric("eventrelay_ingest_lag_records 20")
	nats.Start()
	wantMessages(t, r.all(), "a", 20)
	r.metric("eventrelay_log_up 1")
	r.must("POST", "/v1/sources?source_id=shop", fmt.Sprintf(`{"provider":"PROVIDER_META","app_secrets":[%q],"verify_token":"a token of our own"}`, devSecret))

	nats.Stop() // while it is idle
	r.metric("eventrelay_log_up 0")
	r.receive("a", 21, 20)
	r.stopped() // a stop and a start within the outage
	r = serve(t, dir, "--nats-url", nats.URL())
	r.wantLogAway()
	r.wantSources(true)
	r.metric("eventrelay_ingest_lag_records 20")
	r.receive("a", 41, 20)
	if code := r.post("shop", text("wamid.shop", "to a source that was created by a call")); code != 200 {
		t.Errorf("a created source answers %d while the log is away", code)
	}
	nats.Start()
	events := r.all()
	if last := events[len(events)-1]; last.GetSource() != "sources/shop" {
		t.Errorf("the last event is of %s, want sources/shop", last.GetSource())
	}
	wantMessages(t, events[:len(events)-1], "a", 60)
	if len(events) != 61 {
		t.Errorf("%d events of 61 messages", len(events))
	}
}

func TestARelayKilledWhileTheLogIsAwayLosesNothing(t *testing.T) {
	nats, dir := natstest.NewServer(t), t.TempDir()
	nats.Start()
	more := []string{"--nats-url", nats.URL(), "--duplicate-window", "100ms"}
	r := spawn(t, dir, more...)
	r.receive("a", 1, 20)
	wantMessages(t, r.all(), "a", 20)
	nats.Stop()
	for round := range 3 {
		r.receive("a", 21+10*round, 10)
		r.kill()
		r = spawn(t, dir, more...)
	}
	nats.Start()
	wantMessages(t, r.all(), "a", 50)
}

// The stream stays open over an outage and goes on where it was.
func TestTheLogMayGoAndComeBackInTheMiddleOfTheTraffic(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start()
	r := serve(t, t.TempDir(), "--nats-url", nats.URL())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	const total = 300
	var posting sync.WaitGroup
	halfway := make(chan struct{})
	posting.Go(func() {
		for i := 1; i <= total; i++ {
			if code := r.post("dev", text(fmt.Sprintf("wamid.a.%d", i), "hello")); code != http.StatusOK {
				t.Errorf("message %d is answered %d", i, code)
			}
			if i == total/3 {
				close(halfway)
			}
		}
	})
	<-halfway
	nats.Stop()
	r.metric("eventrelay_log_up 0")
	nats.Start()
	posting.Wait()
	var seen []*eventrelayv1.Event
	for len(seen) < total {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d events: %v", len(seen), err)
		}
		seen = append(seen, resp.GetEvents()...)
	}
	wantMessages(t, seen, "a", total)
	events := r.all()
	wantMessages(t, events, "a", total)
	if len(events) != total || len(seen) != total {
		t.Errorf("%d events stored, %d streamed", len(events), len(seen))
	}
}

func TestAStalledLogDelaysNoWebhookAndNoStart(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start()
	proxy := natstest.NewProxy(t, nats.Address())
	dir := t.TempDir()
	r := serve(t, dir, "--nats-url", proxy.URL(), "--shutdown-timeout", "4s")
	r.receive("a", 1, 10)
	wantMessages(t, r.all(), "a", 10)
	proxy.Stall()
	r.receive("a", 11, 10)
	r.stop() // within its time, and in order
	r = serve(t, dir, "--nats-url", proxy.URL())
	r.receive("a", 21, 10)
	r.wantLogAway()
	proxy.Resume()
	events := r.all()
	wantMessages(t, events, "a", 30)
	if len(events) != 30 {
		t.Errorf("%d events of 30 messages", len(events))
	}
}

func TestTwoRelaysShareOneLogAcrossItsOutage(t *testing.T) {
	nats := natstest.NewServer(t)
	shared := []string{"--nats-url", nats.URL(), "--secrets-key-file", filepath.Join(t.TempDir(), "secrets.keys")}
	a, b := serve(t, t.TempDir(), shared...), serve(t, t.TempDir(), shared...)
	both := func(first, n int) {
		var posting sync.WaitGroup
		posting.Go(func() { a.receive("a", first, n) })
		posting.Go(func() { b.receive("b", first, n) })
		posting.Wait()
	}
	both(1, 50)
	nats.Start()
	both(51, 50)
	nats.Stop()
	both(101, 50)
	nats.Start()
	both(151, 50)
	a.drained()
	b.drained()
	for _, r := range []*relay{a, b} {
		events := r.all()
		wantMessages(t, events, "a", 200)
		wantMessages(t, events, "b", 200)
		if len(events) != 400 {
			t.Errorf("%d events of 400 messages", len(events))
		}
	}
}

func TestALogThatCannotWorkStopsTheStart(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start(func(o *natstest.Options) { o.MaxPayload = 1 << 20 })
	var said strings.Builder
	if code := start(t.Context(), args(t.TempDir(), "--nats-url", nats.URL()), &said, &said); code != exitFailure || !strings.Contains(said.String(), "max_payload is 1048576") {
		t.Errorf("exit code %d:\n%s", code, &said)
	}
}
