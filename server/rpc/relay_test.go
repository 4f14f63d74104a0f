package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
	"eventrelay/server/auth"
	"eventrelay/server/connection"
	"eventrelay/server/drift"
	"eventrelay/server/eventlog"
	"eventrelay/server/hub"
	"eventrelay/server/index"
	"eventrelay/server/source"
)

// began is when the first event of a test was received; event n was received n seconds later.
var began = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// relay is the real log, hub and gRPC server in memory.
type relay struct {
	t   *testing.T
	log *eventlog.Log
	hub *hub.Hub
	// counted is the list of drift.
	counted *drift.Drift
	service *EventService
	events  eventrelayv1.EventServiceClient
	schema  eventrelayv1.SchemaServiceClient
	n       int
	// late is by how much what is appended was received before its turn.
	late time.Duration
}

func newRelay(t *testing.T, options eventlog.Options) *relay {
	t.Helper()
	r := newSilentRelay(t, options)
	following, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.hub.Run(following) })
	running.Go(func() { r.counted.Run(following) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return r
}

// newSilentRelay is a relay whose hub does not run yet.
func newSilentRelay(t *testing.T, options eventlog.Options) *relay {
	t.Helper()
	options.Dir = t.TempDir()
	log, err := eventlog.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	bell := hub.New(HubLog(log), quiet)
	ids, err := index.Open(log, bell, index.Options{Dir: filepath.Join(options.Dir, "index")})
	if err != nil {
		t.Fatal(err)
	}
	if err := ids.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	counted := drift.New(bell, log.ID, filepath.Join(options.Dir, "drift.json"), prometheus.NewRegistry(), quiet)
	service := NewEventService(log, ids, bell, prometheus.NewRegistry(), quiet)
	server, err := NewServer(Services{
		Events:  service,
		Sources: NewSourceService(fakeSources{}, connection.Providers{}),
		Schema:  NewSchemaService(counted, log),
		Health:  health.NewServer(),
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
	var running sync.WaitGroup
	running.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		conn.Close()
		bell.Close()
		server.Stop()
		running.Wait()
		if err := errors.Join(ids.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	return &relay{t: t, log: log, hub: bell, counted: counted, service: service, events: eventrelayv1.NewEventServiceClient(conn), schema: eventrelayv1.NewSchemaServiceClient(conn)}
}

// fakeSources can be read only.
type fakeSources struct{ Sources }

func (fakeSources) Get(name string) (*eventrelayv1.Source, error) {
	if name != "sources/shop" {
		return nil, &source.StateError{Name: name, Err: source.ErrNotFound}
	}
	return &eventrelayv1.Source{Name: name}, nil
}

func (fakeSources) List() ([]*eventrelayv1.Source, error) {
	return []*eventrelayv1.Source{{Name: "sources/a"}, {Name: "sources/b"}, {Name: "sources/c"}}, nil
}

// id is the id of the nth event.
func id(n int) string {
	return strings.Repeat("a", 16) + strings.Map(func(r rune) rune { return 'b' + r - '0' }, fmt.Sprintf("%010d", n))
}

// append appends texts as events, in one step.
func (r *relay) append(texts ...string) {
	r.t.Helper()
	var records []eventlog.Record
	for _, text := range texts {
		r.n++
		received := began.Add(time.Duration(r.n)*time.Second - r.late)
		event := &eventrelayv1.Event{
			Id: id(r.n), Type: "meta.whatsapp_business_account.messages.message", ReceivedAt: timestamppb.New(received),
			Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{Text: &whatsappv1.Text{Body: new(text[:min(len(text), 100)])}}},
			Raw:     []byte(text),
		}
		data, err := proto.Marshal(event)
		if err != nil {
			r.t.Fatal(err)
		}
		records = append(records, eventlog.Record{
			ID: event.GetId(), Source: "shop", Type: event.GetType(), OrderingKey: "k", Time: received,
			Origin: eventlog.Origin{Journal: "j", Record: uint64(r.n)}, Data: data,
		})
	}
	if _, err := r.log.Append(r.t.Context(), records); err != nil {
		r.t.Fatal(err)
	}
}

// numbers makes the texts of events from..to.
func numbers(from, to int) (texts []string) {
	for n := from; n <= to; n++ {
		texts = append(texts, strconv.Itoa(n))
	}
	return texts
}

// subscription is a stream that is being read.
type subscription struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[eventrelayv1.SubscribeResponse]
	cancel context.CancelFunc
	// last is the newest response.
	last *eventrelayv1.SubscribeResponse
}

func (r *relay) subscribe(req *eventrelayv1.SubscribeRequest) *subscription {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	r.t.Cleanup(cancel)
	stream, err := r.events.Subscribe(ctx, req)
	if err != nil {
		r.t.Fatal(err)
	}
	return &subscription{t: r.t, stream: stream, cancel: cancel}
}

func (s *subscription) next() *eventrelayv1.SubscribeResponse {
	s.t.Helper()
	resp, err := s.stream.Recv()
	if err != nil {
		s.t.Fatalf("stream ended: %v", err)
	}
	s.last = resp
	return resp
}

// read reads until n events have come.
func (s *subscription) read(n int) (events []*eventrelayv1.Event) {
	s.t.Helper()
	for len(events) < n {
		events = append(events, s.next().GetEvents()...)
	}
	return events
}

// failure is the error that the stream ends with.
func (s *subscription) failure() error {
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			return err
		}
		s.last = resp
	}
}

func bodies(events []*eventrelayv1.Event) (texts []string) {
	for _, e := range events {
		texts = append(texts, e.GetMessage().GetText().GetBody())
	}
	return texts
}

// wantReason checks code and reason of an error, and returns the metadata of its ErrorInfo.
func wantReason(t *testing.T, err error, code codes.Code, reason string) map[string]string {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("error %v, want code %v", err, code)
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetReason() != reason || info.GetDomain() != "eventrelay" {
				t.Errorf("reason %s of %s, want %s of eventrelay", info.GetReason(), info.GetDomain(), reason)
			}
			return info.GetMetadata()
		}
	}
	t.Errorf("error %v has no ErrorInfo, want reason %s", err, reason)
	return nil
}

var earliest = &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}
