package rpc

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/eventlog/natstest"
	durable "eventrelay/server/subscription"
)

// consuming is a stream of a durable subscription as its client sees it.
type consuming struct {
	d      *desk
	stream eventrelayv1.EventService_SubscribeClient
	end    context.CancelFunc
	got    chan *eventrelayv1.SubscribeResponse
	err    chan error
}

// consume opens a stream, whose checkpoints come quickly.
func (d *desk) consume(name string, tune func(*eventrelayv1.SubscribeRequest)) *consuming {
	d.t.Helper()
	req := &eventrelayv1.SubscribeRequest{Subscription: "subscriptions/" + name, CheckpointInterval: durationpb.New(100 * time.Millisecond)}
	if tune != nil {
		tune(req)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	stream, err := d.read.Subscribe(ctx, req)
	if err != nil {
		d.t.Fatal(err)
	}
	c := &consuming{d: d, stream: stream, end: cancel, got: make(chan *eventrelayv1.SubscribeResponse), err: make(chan error, 1)}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				c.err <- err
				return
			}
			select {
			case c.got <- resp:
			case <-ctx.Done():
			}
		}
	}()
	d.t.Cleanup(cancel)
	return c
}

// next returns the next response.
func (c *consuming) next() *eventrelayv1.SubscribeResponse {
	c.d.t.Helper()
	select {
	case resp := <-c.got:
		return resp
	case err := <-c.err:
		c.d.t.Fatalf("the stream ended: %v", err)
	case <-time.After(20 * time.Second):
		c.d.t.Fatal("the stream says nothing")
	}
	return nil
}

// take receives until it has n events.
func (c *consuming) take(n int) (events []*eventrelayv1.Event) {
	c.d.t.Helper()
	for end := time.Now().Add(20 * time.Second); len(events) < n; {
		if time.Now().After(end) {
			c.d.t.Fatalf("of %d events only %v came", n, objects(events))
		}
		events = append(events, c.next().GetEvents()...)
	}
	if len(events) > n {
		c.d.t.Fatalf("%v came, want %d events", objects(events), n)
	}
	return events
}

// quiet receives a few checkpoints, and no events.
func (c *consuming) quiet() *eventrelayv1.SubscribeResponse {
	c.d.t.Helper()
	var last *eventrelayv1.SubscribeResponse
	for range 4 {
		if last = c.next(); len(last.GetEvents()) > 0 {
			c.d.t.Fatalf("%v came", objects(last.GetEvents()))
		}
	}
	return last
}

// ended returns what the stream ended with.
func (c *consuming) ended() error {
	c.d.t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case <-c.got:
		case err := <-c.err:
			return err
		case <-deadline:
			c.d.t.Fatal("the stream does not end")
		}
	}
}

// reasonOf is the reason that an error states.
func reasonOf(err error) (string, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

func TestAStreamOfADurableSubscriptionSharesItsEventsAndSaysHowFarItIs(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	one := d.consume("billing", nil)
	if first := one.next(); len(first.GetEvents()) > 0 || first.GetCursor() != cursor(d.log.ID(), 0) || first.GetBacklog() != 0 {
		t.Fatalf("it begins with %v", first)
	}
	two := d.consume("billing", nil)
	two.next()
	d.event("meta.page.feed", "a", 6)
	seen := map[string]bool{}
	var events []*eventrelayv1.Event
	for len(events) < 6 {
		select {
		case resp := <-one.got:
			events = append(events, resp.GetEvents()...)
		case resp := <-two.got:
			events = append(events, resp.GetEvents()...)
		case <-time.After(20 * time.Second):
			t.Fatalf("only %v came", objects(events))
		}
	}
	for _, e := range events {
		if seen[e.GetObject()] || e.GetDeliveryAttempt() != 1 || e.GetAckId() == "" || e.GetCursor() != cursor(d.log.ID(), e.GetSequence()) {
			t.Fatalf("there came %v", e)
		}
		seen[e.GetObject()] = true
	}
	// A checkpoint is never ahead of what is acknowledged.
	for _, e := range events {
		if e.GetSequence() < 6 && e.GetSequence() != 4 {
			d.ack("billing", e)
		}
	}
	until(t, "a checkpoint tells of the acknowledgements", func() bool {
		at := one.next()
		return at.GetCursor() == cursor(d.log.ID(), 3) && at.GetBacklog() == 2
	})
	for _, e := range events {
		if e.GetSequence() == 6 || e.GetSequence() == 4 {
			d.ack("billing", e)
		}
	}
	until(t, "a checkpoint tells of the end", func() bool { at := two.next(); return at.GetCursor() == cursor(d.log.ID(), 6) && at.GetBacklog() == 0 })
}

func TestAStreamHasNoMoreOutstandingThanItsClientAllows(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	d.event("meta.page.feed", "a", 20)
	c := d.consume("billing", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = 3 })
	held := c.take(3)
	c.quiet()
	d.ack("billing", held[0]) // by another connection
	held = append(held[1:], c.take(1)...)
	c.quiet()
	d.nack("billing", "not now", held[0])
	if again := c.take(1); again[0].GetObject() != held[0].GetObject() && again[0].GetDeliveryAttempt() != 1 {
		t.Fatalf("there came %v", again)
	}
	c.quiet()

	d.create("large", fromEarliest())
	bytes := d.consume("large", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstandingBytes = 1 })
	held = bytes.take(1) // a single one may exceed it
	bytes.quiet()
	d.ack("large", held...)
	bytes.take(1)
	bytes.quiet()
}

func TestWhatAnotherRelaySettlesMakesRoomOnAStream(t *testing.T) {
	server := natstest.NewServer(t)
	server.Start()
	options := eventlog.Options{URL: server.URL()}
	one, two := openDesk(t, options, nil), openDesk(t, options, nil)
	one.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(10 * time.Minute)})
	one.event("meta.page.feed", "a", 3)
	c := one.consume("billing", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = 1 })
	for range 3 {
		events := c.take(1)
		c.quiet()
		two.ack("billing", events...)
	}
	if at := one.get("billing"); at.GetBacklog() != 0 {
		t.Fatalf("it stands at %v", at)
	}
}

func TestADeadlineThatPassesMakesRoomAndAnExtensionKeepsIt(t *testing.T) {
	d := newDesk(t)
	d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(time.Second), MaxDeliveryAttempts: 100})
	d.event("meta.page.feed", "a", 2)
	c := d.consume("billing", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = 1 })
	first := c.take(1)
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		if resp := c.next(); len(resp.GetEvents()) > 0 {
			t.Fatalf("%v came beside an event whose deadline is extended", objects(resp.GetEvents()))
		}
		if _, err := d.subs.ModifyAckDeadline(t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{
			Name: "subscriptions/billing", AckIds: ackIDs(first), AckDeadline: durationpb.New(time.Second),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if next := c.take(1); next[0].GetObject() == first[0].GetObject() && next[0].GetDeliveryAttempt() != 2 {
		t.Fatalf("there came %v", next)
	}
}

func TestWhatAStreamHeldWhenItEndedComesAgainAfterItsDeadlineOrIsAcknowledgedAllTheSame(t *testing.T) {
	d := newDesk(t)
	d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(time.Second)})
	d.event("meta.page.feed", "a", 2)
	c := d.consume("billing", nil)
	held := c.take(2)
	c.end()
	d.ack("billing", held[0]) // whoever lost the stream may still be at work
	again := d.take("billing", 1)
	if wantObjects(t, again, held[1].GetObject()); again[0].GetDeliveryAttempt() != 2 {
		t.Fatalf("there came %v", again)
	}
}

func TestAStreamEndsWhenItsSubscriptionIsDeletedEvenWithoutRoom(t *testing.T) {
	d := newDesk(t)
	for _, outstanding := range []int32{1, 100} {
		name := "s" + strconv.Itoa(int(outstanding))
		d.create(name, nil)
		d.event("meta.page.feed", "a", 2)
		c := d.consume(name, func(r *eventrelayv1.SubscribeRequest) {
			r.MaxOutstanding, r.CheckpointInterval = outstanding, durationpb.New(time.Minute)
		})
		c.take(min(int(outstanding), 2))
		if _, err := d.subs.DeleteSubscription(t.Context(), &eventrelayv1.DeleteSubscriptionRequest{Name: "subscriptions/" + name}); err != nil {
			t.Fatal(err)
		}
		d.create(name, nil) // another one of the same name is not what the stream is of
		err := c.ended()
		if reason, metadata := reasonOf(err); status.Code(err) != codes.NotFound || reason != "SUBSCRIPTION_NOT_FOUND" || metadata["subscription"] != "subscriptions/"+name {
			t.Errorf("with %d outstanding it ended with %v", outstanding, err)
		}
	}
	err := d.consume("nobody", nil).ended()
	if reason, _ := reasonOf(err); status.Code(err) != codes.NotFound || reason != "SUBSCRIPTION_NOT_FOUND" {
		t.Errorf("a stream of nothing ends with %v", err)
	}
}

func TestAStreamOfADurableSubscriptionEndsWithTheServer(t *testing.T) {
	d := newDesk(t)
	d.create("idle", nil)
	d.event("meta.page.feed", "a", 2)
	slow := func(r *eventrelayv1.SubscribeRequest) { r.CheckpointInterval = durationpb.New(time.Minute) }
	full := d.consume("idle", func(r *eventrelayv1.SubscribeRequest) { slow(r); r.MaxOutstanding = 2 })
	full.take(2)
	idle := d.consume("idle", slow)
	idle.next()
	began := time.Now()
	d.store.Close()
	for _, c := range []*consuming{full, idle, d.consume("idle", nil)} {
		err := c.ended()
		if reason, _ := reasonOf(err); status.Code(err) != codes.Unavailable || reason != "SHUTTING_DOWN" {
			t.Errorf("it ended with %v", err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("they took %s to end", took)
	}
}

func TestAStreamTellsWhatRetentionTookUntilASeek(t *testing.T) {
	d := openDesk(t, eventlog.Options{Dir: t.TempDir(), MaxEvents: 10}, func(o *durable.Options) { o.Look = 20 * time.Millisecond })
	d.create("slow", nil)
	c := d.consume("slow", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = 1 })
	d.event("meta.page.feed", "a", 5)
	c.take(1)
	for range 6 {
		d.event("meta.page.feed", "a", 5)
	}
	for _, c := range []*consuming{c, d.consume("slow", nil)} {
		err := c.ended()
		reason, metadata := reasonOf(err)
		if status.Code(err) != codes.OutOfRange || reason != "EVENTS_LOST" || metadata["subscription"] != "subscriptions/slow" || metadata["first_sequence"] != "1" || metadata["count"] != metadata["last_sequence"] {
			t.Fatalf("it ended with %v, %v", err, metadata)
		}
	}
	if _, err := d.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/slow", Target: &eventrelayv1.SeekRequest_Time{Time: timestamppb.New(began)}}); err != nil {
		t.Fatal(err)
	}
	d.consume("slow", nil).take(10)
}

func TestASeekEmptiesTheWindowOfAStream(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	d.event("meta.page.feed", "a", 3)
	c := d.consume("billing", func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = 3 })
	c.take(3)
	if _, err := d.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/billing", Target: &eventrelayv1.SeekRequest_Time{Time: timestamppb.New(began)}}); err != nil {
		t.Fatal(err)
	}
	for _, e := range c.take(3) {
		if e.GetDeliveryAttempt() != 1 {
			t.Errorf("after a seek there came %v", e)
		}
	}
}

func TestAStreamOfADurableSubscriptionKeepsViewAndSize(t *testing.T) {
	d := newDesk(t)
	d.create("billing", fromEarliest())
	d.event("meta.page.feed", "a", 50)
	c := d.consume("billing", func(r *eventrelayv1.SubscribeRequest) {
		r.View, r.MaxBytes, r.MaxEvents = eventrelayv1.EventView_EVENT_VIEW_TYPED, 1000, 40
	})
	for seen := 0; seen < 50; {
		resp := c.next()
		if n := len(resp.GetEvents()); n > 4 {
			t.Fatalf("a response of %d events", n)
		}
		for _, e := range resp.GetEvents() {
			if e.GetRaw() != nil {
				t.Fatalf("it came with raw: %v", e)
			}
			seen++
		}
	}
}

func TestServerSentEventsOfADurableSubscriptionComeBackWithTheirLastID(t *testing.T) {
	d := newDesk(t)
	d.create("billing", fromEarliest())
	d.event("meta.page.feed", "a", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.rest.URL+"/v1/events:subscribe?subscription=subscriptions/billing", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", cursor(d.log.ID(), 0)) // which EventSource shows by itself
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told strings.Builder
	for chunk := make([]byte, 4096); !strings.Contains(told.String(), `"ack_id"`); {
		n, err := resp.Body.Read(chunk)
		told.Write(chunk[:n])
		if err != nil {
			t.Fatalf("%s: %v: %s", resp.Status, err, told.String())
		}
	}
}
