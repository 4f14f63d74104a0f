package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// shop is a server with one durable subscription: what is due is handed out, and what is not settled in time is due again.
type shop struct {
	eventrelayv1.UnimplementedEventServiceServer
	eventrelayv1.UnimplementedSubscriptionServiceServer

	deadline time.Duration
	// refuse answers a stream; breakAfter cuts each stream after so many events; ackFails refuses so many acknowledgements.
	refuse     error
	breakAfter int
	ackFails   int

	mu      sync.Mutex // guards what follows
	events  []*shopEvent
	reasons []string
	acks    []uint64
	streams int
}

// shopEvent is an event that is due when due has passed, unless it is acknowledged.
type shopEvent struct {
	attempts  int32
	due       time.Time
	settled   bool
	delivered int // by which stream
}

func newShop(n int) *shop {
	s := &shop{deadline: 30 * time.Second}
	for range n {
		s.events = append(s.events, &shopEvent{})
	}
	return s
}

func (s *shop) GetSubscription(context.Context, *eventrelayv1.GetSubscriptionRequest) (*eventrelayv1.Subscription, error) {
	return &eventrelayv1.Subscription{Name: "subscriptions/billing", AckDeadline: durationpb.New(s.deadline)}, nil
}

// due hands out what a stream has room for.
func (s *shop) due(stream, room int) (list []*eventrelayv1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, e := range s.events {
		if !e.settled && e.delivered == stream && e.due.After(now) {
			room--
		}
	}
	for i, e := range s.events {
		if room <= 0 {
			break
		}
		if e.settled || e.due.After(now) {
			continue
		}
		e.attempts++
		e.due, e.delivered = now.Add(s.deadline), stream
		room--
		list = append(list, &eventrelayv1.Event{
			Id: fmt.Sprintf("event%d", i+1), Sequence: uint64(i + 1), AckId: fmt.Sprintf("%d.%d", i+1, e.attempts), DeliveryAttempt: e.attempts,
		})
	}
	return list
}

func (s *shop) Subscribe(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	if s.refuse != nil {
		return s.refuse
	}
	s.mu.Lock()
	s.streams++
	stream := s.streams
	s.mu.Unlock()
	if err := out.Send(&eventrelayv1.SubscribeResponse{Cursor: "c"}); err != nil {
		return err
	}
	sent := 0
	for {
		events := s.due(stream, int(request.GetMaxOutstanding()))
		if len(events) > 0 {
			if err := out.Send(&eventrelayv1.SubscribeResponse{Events: events}); err != nil {
				return err
			}
		}
		if sent += len(events); s.breakAfter > 0 && sent >= s.breakAfter {
			return status.Error(codes.Unavailable, "cut")
		}
		select {
		case <-out.Context().Done():
			return out.Context().Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// at finds the event of an ack_id.
func (s *shop) at(id string) (*shopEvent, uint64) {
	var n, attempt int
	fmt.Sscanf(id, "%d.%d", &n, &attempt)
	return s.events[n-1], uint64(n)
}

func (s *shop) Acknowledge(_ context.Context, r *eventrelayv1.AcknowledgeRequest) (*eventrelayv1.AcknowledgeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ackFails > 0 {
		s.ackFails--
		return nil, status.Error(codes.Unavailable, "away")
	}
	for _, id := range r.GetAckIds() {
		e, n := s.at(id)
		e.settled = true
		s.acks = append(s.acks, n)
	}
	return &eventrelayv1.AcknowledgeResponse{}, nil
}

func (s *shop) ModifyAckDeadline(_ context.Context, r *eventrelayv1.ModifyAckDeadlineRequest) (*eventrelayv1.ModifyAckDeadlineResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range r.GetAckIds() {
		e, _ := s.at(id)
		if e.due = time.Now().Add(s.deadline); r.GetAckDeadline().AsDuration() == 0 {
			e.due = time.Time{}
			s.reasons = append(s.reasons, r.GetReason())
		}
	}
	return &eventrelayv1.ModifyAckDeadlineResponse{}, nil
}

func (s *shop) acknowledged() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.acks))
}

// dial serves the shop in memory.
func (s *shop) dial(t *testing.T) *client.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	eventrelayv1.RegisterEventServiceServer(server, s)
	eventrelayv1.RegisterSubscriptionServiceServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	c, err := client.Dial("passthrough:///localhost", client.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		server.Stop()
		<-done
	})
	return c
}

// upTo is the numbers from 1 to n.
func upTo(n int) (list []uint64) {
	for i := range n {
		list = append(list, uint64(i+1))
	}
	return list
}

// consumeAll consumes until as many events are acknowledged as the shop has.
func consumeAll(t *testing.T, s *shop, handler client.Handler, o client.ConsumeOptions) {
	t.Helper()
	ctx, cancel := context.WithCancel(patience(t))
	ended := make(chan error, 1)
	c := s.dial(t)
	go func() { ended <- c.Consume(ctx, "subscriptions/billing", handler, o) }()
	for len(s.acknowledged()) < len(s.events) {
		select {
		case err := <-ended:
			t.Fatalf("it ended with %v, %d events are acknowledged", err, len(s.acknowledged()))
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestConsumeAcknowledgesEachEventThatIsHandled(t *testing.T) {
	s := newShop(200)
	var mu sync.Mutex
	running, most := 0, 0
	handled := map[uint64]int{}
	consumeAll(t, s, func(_ context.Context, e *eventrelayv1.Event) error {
		mu.Lock()
		running++
		most = max(most, running)
		handled[e.GetSequence()]++
		mu.Unlock()
		time.Sleep(time.Millisecond) // work, so that handlers run at once
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	}, client.ConsumeOptions{Concurrency: 8})
	if !slices.Equal(s.acknowledged(), upTo(200)) || len(handled) != 200 {
		t.Errorf("acknowledged %v", s.acknowledged())
	}
	if most > 8 || most < 2 {
		t.Errorf("%d handlers ran at once, want up to 8", most)
	}
}

func TestConsumeGivesBackWithTheErrorsTextWhatAHandlerFailsOn(t *testing.T) {
	s := newShop(3)
	consumeAll(t, s, func(_ context.Context, e *eventrelayv1.Event) error {
		if e.GetSequence() == 2 && e.GetDeliveryAttempt() == 1 {
			return errors.New("the till is closed\xff" + strings.Repeat("ä", 5000))
		}
		return nil
	}, client.ConsumeOptions{})
	if len(s.reasons) != 1 || !strings.HasPrefix(s.reasons[0], "the till is closed\ufffdää") || len([]rune(s.reasons[0])) != 4096 {
		t.Errorf("reasons %.100q", s.reasons)
	}
}

func TestConsumeExtendsTheDeadlineOfWhatIsHere(t *testing.T) {
	s := newShop(3)
	s.deadline = time.Second
	consumeAll(t, s, func(context.Context, *eventrelayv1.Event) error {
		time.Sleep(1500 * time.Millisecond) // longer than the deadline; the others wait for longer still
		return nil
	}, client.ConsumeOptions{MaxOutstanding: 3})
	for i, e := range s.events {
		if e.attempts != 1 {
			t.Errorf("event %d was delivered %d times while it was here", i+1, e.attempts)
		}
	}
}

func TestConsumeDoesNotHoldAnEventForEver(t *testing.T) {
	s := newShop(1)
	s.deadline = time.Second
	ctx, cancel := context.WithCancel(patience(t))
	hang := make(chan struct{})
	one, two := make(chan error, 1), make(chan error, 1)
	began := make(chan struct{})
	a, b := s.dial(t), s.dial(t)
	go func() {
		one <- a.Consume(ctx, "subscriptions/billing", func(context.Context, *eventrelayv1.Event) error {
			began <- struct{}{}
			<-hang
			return nil
		}, client.ConsumeOptions{MaxExtension: time.Nanosecond})
	}()
	<-began
	got := make(chan *eventrelayv1.Event, 1)
	go func() {
		two <- b.Consume(ctx, "subscriptions/billing", func(_ context.Context, e *eventrelayv1.Event) error {
			got <- e
			return nil
		}, client.ConsumeOptions{})
	}()
	// Either consumer may be offered it; the first one is still at it, so the second has it in the end, or the same handler's work holds for both deliveries.
	select {
	case e := <-got:
		if e.GetDeliveryAttempt() < 2 {
			t.Errorf("it came with attempt %d", e.GetDeliveryAttempt())
		}
	case <-ctx.Done():
		t.Error("nobody else had the event")
	}
	close(hang)
	cancel()
	if err := errors.Join(<-one, <-two); err != nil {
		t.Error(err)
	}
}

func TestConsumeGoesOnWhenStreamsBreakAndAcknowledgementsFail(t *testing.T) {
	s := newShop(60)
	s.breakAfter, s.ackFails = 7, 5
	breaks := 0
	consumeAll(t, s, func(context.Context, *eventrelayv1.Event) error { return nil }, client.ConsumeOptions{
		Concurrency: 4, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, OnBreak: func(error) { breaks++ },
	})
	if breaks < 3 || !slices.Equal(slices.Compact(s.acknowledged()), upTo(60)) {
		t.Errorf("after %d breaks %v are acknowledged", breaks, s.acknowledged())
	}
}

func TestConsumeFinishesWhatRunsAndGivesBackTheRestWhenItIsToEnd(t *testing.T) {
	s := newShop(10)
	ctx, cancel := context.WithCancel(patience(t))
	running, finish := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	c := s.dial(t)
	handled := 0
	go func() {
		ended <- c.Consume(ctx, "subscriptions/billing", func(ctx context.Context, _ *eventrelayv1.Event) error {
			handled++
			running <- struct{}{}
			<-finish
			return ctx.Err()
		}, client.ConsumeOptions{MaxOutstanding: 5})
	}()
	<-running
	for held := 0; held < 5; { // all that it may have is here
		s.mu.Lock()
		held = 0
		for _, e := range s.events {
			held += int(e.attempts)
		}
		s.mu.Unlock()
	}
	cancel()
	for given := 0; given < 4; {
		s.mu.Lock()
		given = len(s.reasons)
		s.mu.Unlock()
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended with %v while a handler ran", err)
	default:
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := s.acknowledged(); len(got) != 1 || handled != 1 {
		t.Errorf("%d were handled and %v acknowledged, want the one that ran", handled, got)
	}
}

func TestConsumeCancelsHandlersThatDoNotEnd(t *testing.T) {
	s := newShop(1)
	ctx, cancel := context.WithCancel(patience(t))
	c := s.dial(t)
	err := c.Consume(ctx, "subscriptions/billing", func(ctx context.Context, _ *eventrelayv1.Event) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}, client.ConsumeOptions{DrainTimeout: 10 * time.Millisecond})
	if err != nil || len(s.acknowledged()) > 0 {
		t.Errorf("it ended with %v, acknowledged %v", err, s.acknowledged())
	}
}

func TestConsumeEndsWhereTryingAgainWouldNotHelp(t *testing.T) {
	s := newShop(0)
	handler := func(context.Context, *eventrelayv1.Event) error { return nil }
	s.refuse = refusal(codes.OutOfRange, "EVENTS_LOST", map[string]string{"first_sequence": "3", "last_sequence": "9"})
	err := s.dial(t).Consume(patience(t), "subscriptions/billing", handler, client.ConsumeOptions{})
	var lost *client.LostError
	if !errors.As(err, &lost) || lost.First != 3 || lost.Last != 9 || !errors.Is(err, client.ErrEventsLost) || client.Reason(err) != "EVENTS_LOST" {
		t.Errorf("it ended with %v", err)
	}
	s.refuse = refusal(codes.NotFound, "SUBSCRIPTION_NOT_FOUND", nil)
	if err := s.dial(t).Consume(patience(t), "subscriptions/billing", handler, client.ConsumeOptions{}); client.Reason(err) != "SUBSCRIPTION_NOT_FOUND" {
		t.Errorf("it ended with %v", err)
	}
	s.refuse = nil
	c := s.dial(t)
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	if err := c.Consume(patience(t), "subscriptions/billing", handler, client.ConsumeOptions{}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("it ended with %v", err)
	}
}
