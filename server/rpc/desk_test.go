package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/auth"
	"eventrelay/server/eventlog"
	"eventrelay/server/gateway"
	"eventrelay/server/hub"
	durable "eventrelay/server/subscription"
)

// desk is a relay with durable subscriptions: the real log, store, gRPC server and REST gateway in memory.
type desk struct {
	t     *testing.T
	log   *eventlog.Log
	store *durable.Store
	subs  eventrelayv1.SubscriptionServiceClient
	read  eventrelayv1.EventServiceClient
	rest  *httptest.Server
	n     int
	stop  func()
}

// openDesk starts a relay on a log. It is stopped by stop, or when the test ends.
func openDesk(t *testing.T, options eventlog.Options, tune func(*durable.Options)) *desk {
	t.Helper()
	log, err := eventlog.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	o := durable.Options{Log: log, Metrics: prometheus.NewRegistry(), Look: time.Second}
	if tune != nil {
		tune(&o)
	}
	store := durable.New(o)
	bell := hub.New(HubLog(log), quiet)
	events := NewEventService(log, nil, bell, prometheus.NewRegistry(), quiet)
	events.Durable(store)
	server, err := NewServer(Services{
		Events: events, Subscriptions: NewSubscriptionService(log, store), Health: health.NewServer(),
	}, auth.NewGuard(nil, nil, quiet), quiet)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	conn, err := grpc.NewClient("passthrough:///relay",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := gateway.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	rest := httptest.NewServer(handler)
	following, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { server.Serve(listener) })
	running.Go(func() {
		if err := store.Run(following); err != nil {
			t.Error(err)
		}
	})
	stop := sync.OnceFunc(func() {
		rest.Close()
		conn.Close()
		server.Stop()
		cancel()
		running.Wait()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &desk{t: t, log: log, store: store, subs: eventrelayv1.NewSubscriptionServiceClient(conn), read: eventrelayv1.NewEventServiceClient(conn), rest: rest, stop: stop}
}

func newDesk(t *testing.T) *desk { return openDesk(t, eventlog.Options{Dir: t.TempDir()}, nil) }

// event appends events of a type and a key, in one step; their object is their number.
func (d *desk) event(kind, key string, n int) {
	d.t.Helper()
	var records []eventlog.Record
	for range n {
		d.n++
		received := began.Add(time.Duration(d.n) * time.Second)
		event := &eventrelayv1.Event{Id: id(d.n), Source: "sources/shop", Type: kind, OrderingKey: key, Object: strconv.Itoa(d.n), ReceivedAt: timestamppb.New(received), Raw: []byte(`{}`)}
		data, err := proto.Marshal(event)
		if err != nil {
			d.t.Fatal(err)
		}
		records = append(records, eventlog.Record{ID: event.GetId(), Source: "shop", Type: kind, OrderingKey: key, Time: received, Data: data})
	}
	if _, err := d.log.Append(d.t.Context(), records); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) create(id string, spec *eventrelayv1.Subscription) *eventrelayv1.Subscription {
	d.t.Helper()
	sub, err := d.subs.CreateSubscription(d.t.Context(), &eventrelayv1.CreateSubscriptionRequest{SubscriptionId: id, Subscription: spec})
	if err != nil {
		d.t.Fatal(err)
	}
	return sub
}

// fromEarliest is a subscription to all that there is.
func fromEarliest() *eventrelayv1.Subscription {
	return &eventrelayv1.Subscription{Start: &eventrelayv1.Subscription_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}}
}

func (d *desk) get(name string) *eventrelayv1.Subscription {
	d.t.Helper()
	sub, err := d.subs.GetSubscription(d.t.Context(), &eventrelayv1.GetSubscriptionRequest{Name: "subscriptions/" + name})
	if err != nil {
		d.t.Fatal(err)
	}
	return sub
}

// pull pulls once.
func (d *desk) pull(name string, n int) []*eventrelayv1.Event {
	d.t.Helper()
	resp, err := d.subs.Pull(d.t.Context(), &eventrelayv1.PullRequest{Name: "subscriptions/" + name, MaxEvents: int32(n)})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetEvents()
}

// take pulls until it has n events.
func (d *desk) take(name string, n int) (events []*eventrelayv1.Event) {
	d.t.Helper()
	for tries := 0; len(events) < n; tries++ {
		if tries > 100 {
			d.t.Fatalf("of %d events %d came", n, len(events))
		}
		events = append(events, d.pull(name, n-len(events))...)
	}
	return events
}

// none pulls for a short time and wants an answer without events. On a machine that is too busy to answer in time it asks again, with more time.
func (d *desk) none(name string) {
	d.t.Helper()
	pull := func(patience time.Duration) (*eventrelayv1.PullResponse, error) {
		ctx, cancel := context.WithTimeout(d.t.Context(), patience)
		defer cancel()
		return d.subs.Pull(ctx, &eventrelayv1.PullRequest{Name: "subscriptions/" + name})
	}
	patience := 500 * time.Millisecond
	resp, err := pull(patience)
	for status.Code(err) == codes.DeadlineExceeded && patience < 10*time.Second {
		patience *= 2
		resp, err = pull(patience)
	}
	if err != nil || len(resp.GetEvents()) > 0 {
		d.t.Fatalf("nothing is due, but a pull gave %v, %v", objects(resp.GetEvents()), err)
	}
}

func ackIDs(events []*eventrelayv1.Event) (list []string) {
	for _, e := range events {
		list = append(list, e.GetAckId())
	}
	return list
}

func objects(events []*eventrelayv1.Event) (list []string) {
	for _, e := range events {
		list = append(list, e.GetObject())
	}
	return list
}

func (d *desk) ack(name string, events ...*eventrelayv1.Event) {
	d.t.Helper()
	resp, err := d.subs.Acknowledge(d.t.Context(), &eventrelayv1.AcknowledgeRequest{Name: "subscriptions/" + name, AckIds: ackIDs(events)})
	if err != nil || len(resp.GetUnknownAckIds())+len(resp.GetStaleAckIds()) > 0 {
		d.t.Fatalf("Acknowledge = %v, %v", resp, err)
	}
}

func (d *desk) nack(name, why string, events ...*eventrelayv1.Event) {
	d.t.Helper()
	resp, err := d.subs.ModifyAckDeadline(d.t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{
		Name: "subscriptions/" + name, AckIds: ackIDs(events), AckDeadline: durationpb.New(0), Reason: why,
	})
	if err != nil || len(resp.GetUnknownAckIds())+len(resp.GetStaleAckIds()) > 0 {
		d.t.Fatalf("ModifyAckDeadline = %v, %v", resp, err)
	}
}

func (d *desk) deadLetters(name string) []*eventrelayv1.DeadLetter {
	d.t.Helper()
	resp, err := d.subs.ListDeadLetters(d.t.Context(), &eventrelayv1.ListDeadLettersRequest{Name: "subscriptions/" + name})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetDeadLetters()
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it never came to be that " + what)
		}
		time.Sleep(5 * time.Millisecond) // between two looks at a condition
	}
}

func wantObjects(t *testing.T, events []*eventrelayv1.Event, want ...string) {
	t.Helper()
	got := objects(events)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("events %v came, want %v", got, want)
	}
}

// call makes a REST call and decodes its answer.
func (d *desk) call(method, path string, body any) (int, map[string]any) {
	d.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.rest.URL+path, bytes.NewReader(text))
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(data, &answer); err != nil {
		d.t.Fatalf("%s %s answered %q", method, path, data)
	}
	return resp.StatusCode, answer
}
