package rpc

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	durable "eventrelay/server/subscription"
)

const (
	// defaultOutstanding and defaultOutstandingBytes are what a stream of a durable subscription may have outstanding unless the client says otherwise; nobody has more events
	// than maxOutstanding, which is what a subscription has.
	defaultOutstanding      = 1000
	defaultOutstandingBytes = 64 << 20
	maxOutstanding          = 20_000
	// maxPulled is how many events are asked for at a time: more gain nothing.
	maxPulled = 1000
	// lossInterval is how often a busy stream looks for what retention took, and idleInterval how often one that is idle does, whatever its checkpoints.
	lossInterval = time.Second
	idleInterval = 5 * time.Second
)

// consume streams the events of a durable subscription: it pulls what is due, as much as the client may have outstanding, sends it, and starts over.
func (s *EventService) consume(req *eventrelayv1.SubscribeRequest, stream grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	ctx, name := stream.Context(), req.GetSubscription()
	if s.durable == nil {
		return &notFoundError{reason: eventrelayv1.ErrorReason_ERROR_REASON_SUBSCRIPTION_NOT_FOUND, key: "subscription", name: name}
	}
	leave, err := s.open.enter(ctx, s.limits.MaxPerCaller)
	if err != nil {
		return err
	}
	defer leave()
	events := min(cmp.Or(int(req.GetMaxOutstanding()), defaultOutstanding), maxOutstanding)
	window, err := s.durable.Open(ctx, name, events, int(cmp.Or(req.GetMaxOutstandingBytes(), defaultOutstandingBytes)))
	if err != nil {
		return err
	}
	defer window.Close()
	s.meters.subscribers.Inc()
	defer s.meters.subscribers.Dec()
	c := &consumer{
		service: s, stream: stream, window: window, name: name, view: req.GetView(), interval: defaultCheckpointInterval, end: s.limits.end(),
		maxEvents: min(cmp.Or(int(req.GetMaxEvents()), maxPulled), maxPulled), maxBytes: cmp.Or(int(req.GetMaxBytes()), defaultMaxBytes),
	}
	if d := req.GetCheckpointInterval(); d != nil {
		c.interval = d.AsDuration()
	}
	return c.run(ctx)
}

// consumer is one stream of a durable subscription. It belongs to one goroutine.
type consumer struct {
	service *EventService
	stream  grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]
	window  *durable.Window
	name    string
	view    eventrelayv1.EventView
	// interval is how long the stream is silent at most, end when it ends; zero for never.
	interval            time.Duration
	end                 time.Time
	maxEvents, maxBytes int

	// sent is when the last response was sent, looked when it was last seen to that nothing is lost.
	sent, looked time.Time
	// at is how far the subscription was when that was last measured.
	at       durable.Progress
	measured time.Time
}

// run serves the stream until the client goes, the server goes down, the stream's time is over, the subscription is deleted, or retention overtakes it.
func (c *consumer) run(ctx context.Context) error {
	if err := c.checkpoint(ctx); err != nil {
		return err
	}
	for {
		if !c.end.IsZero() && time.Now().After(c.end) {
			return errStreamAge
		}
		events, err := c.window.Pull(ctx, durable.Demand{Max: c.maxEvents, MaxBytes: c.maxBytes, Wait: c.patience()})
		switch {
		case err != nil:
			return err
		case len(events) > 0:
			err = c.send(events)
		case time.Since(c.sent) >= c.interval:
			err = c.checkpoint(ctx)
		}
		switch {
		case err != nil || time.Since(c.looked) < lossInterval:
		case time.Since(c.measured) >= c.interval:
			err = c.look(ctx) // a stream that is never silent says how far it is all the same
		default:
			err = c.intact(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// patience is how long to wait for events: until the stream must be heard of again, or ends, or it must be seen to that nothing is lost.
func (c *consumer) patience() time.Duration {
	until := c.sent.Add(c.interval)
	if !c.end.IsZero() && c.end.Before(until) {
		until = c.end
	}
	return min(max(0, time.Until(until)), idleInterval)
}

// checkpoint says how far the subscription is.
func (c *consumer) checkpoint(ctx context.Context) error {
	if err := c.look(ctx); err != nil {
		return err
	}
	return c.send(nil)
}

// intact sees to it that retention has not overtaken the subscription: one call to the log, where look is one for each consumer.
func (c *consumer) intact(ctx context.Context) error {
	lost, err := c.service.durable.Lost(ctx, c.name)
	if err == nil && lost != nil {
		err = &lostError{c.name, lost}
	}
	c.looked = time.Now()
	return err
}

// look sees to how far the subscription is, and that retention has not overtaken it.
func (c *consumer) look(ctx context.Context) error {
	at, err := c.window.Progress(ctx)
	if err != nil {
		return err
	}
	if at.Lost != nil {
		return &lostError{c.name, at.Lost}
	}
	c.at, c.looked, c.measured = at, time.Now(), time.Now()
	return nil
}

// send delivers events, in as many responses as it takes and at least one. Those that cannot be sent are given back.
func (c *consumer) send(events []*eventrelayv1.Event) error {
	logID := c.service.log.ID()
	for _, event := range events {
		present(event, proto.Size(event), logID, c.view)
	}
	for {
		n, size := 0, tailBytes
		for n < len(events) {
			if size += respEventBytes(events[n]); n > 0 && size > c.maxBytes {
				break
			}
			n++
		}
		err := c.stream.Send(&eventrelayv1.SubscribeResponse{Events: events[:n], Cursor: cursor(logID, c.at.Settled), Backlog: c.at.Backlog})
		if err != nil {
			c.service.durable.Return(c.name, events)
			return err
		}
		c.service.meters.delivered.Add(float64(n))
		c.sent = time.Now()
		if events = events[n:]; len(events) == 0 {
			return nil
		}
	}
}

// respEventBytes is what an event takes of a response.
func respEventBytes(event *eventrelayv1.Event) int {
	return len(eventsTag) + protowire.SizeBytes(proto.Size(event))
}
