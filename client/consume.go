package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// defaultDrain is how long handlers may go on once a Consume is to end.
	defaultDrain = 30 * time.Second
	// defaultMaxExtension is longer than any work that still makes progress.
	defaultMaxExtension = time.Hour
	// leaseParts is how often within an ack deadline it is extended: one extension may be late, and the next still in time.
	leaseParts = 3
	// minDeadline is the shortest ack deadline that a subscription may have.
	minDeadline = time.Second
	// maxReason is the longest reason that a server takes, in characters.
	maxReason = 4096
	// settleTimeout is how long one call may take that settles events. What it was for is tried again, which is safe.
	settleTimeout = 10 * time.Second
	// maxAckIDs is how many events one call settles.
	maxAckIDs = 1000
)

// Handler works on one event. When it returns nil the event is acknowledged. When it returns an error the event is given back with the error's text as the reason, and delivered
// again, or made a dead letter after its last attempt. Its context lives until it returns: it is cancelled only when a Consume that is to end has waited for it for as long as
// DrainTimeout says. A handler may meet an event twice, even when it returned nil before: what it does must bear that.
type Handler func(ctx context.Context, event *eventrelayv1.Event) error

// ConsumeOptions says how to consume. The zero value handles one event at a time.
type ConsumeOptions struct {
	// Concurrency is how many handlers run at once. If 0, 1.
	Concurrency int
	// MaxOutstanding is how many events may be here and not acknowledged, those that wait for a handler among them; for a while after a broken stream up to twice as many. If 0,
	// Concurrency: nothing waits here that another consumer could work on. More hides the way to the server where handlers are quick; should this program die, each of them has
	// had an attempt.
	MaxOutstanding int32
	// MaxOutstandingBytes bounds their size; a single event may exceed it. If 0, 64 MiB.
	MaxOutstandingBytes int64
	// View says which parts of an event are sent. If unspecified, all.
	View eventrelayv1.EventView
	// MaxExtension is for how long the deadline of an event is extended: a handler that hangs for longer does not keep it from others. If 0, an hour.
	MaxExtension time.Duration
	// DrainTimeout is how long handlers may go on once the context is done, until theirs is cancelled. If 0, 30 s.
	DrainTimeout time.Duration
	// CheckpointInterval is as of [FollowOptions].
	CheckpointInterval time.Duration
	// OnBreak is called whenever a stream has ended and another will be tried, with the reason. Handlers run meanwhile.
	OnBreak func(error)
	// MinBackoff and MaxBackoff are as of [FollowOptions].
	MinBackoff, MaxBackoff time.Duration
}

// Consume hands the events of a durable subscription, `subscriptions/{id}`, to a handler until ctx is done, any number of consumers of the subscription sharing them. While an
// event waits or its handler runs, its deadline is extended. A stream that breaks is replaced after a pause, and handlers go on meanwhile.
//
// When ctx is done no further handler is started, those that run finish, their acknowledgements are sent, what waited is given back, and Consume returns nil. It returns an error,
// after the same, when trying again would not help: the subscription is not there or not any more, retention took events before they were acknowledged ([LostError]), the call is
// refused, or the client is closed ([ErrClosed]). No goroutine outlives it.
func (c *Client) Consume(ctx context.Context, subscription string, handler Handler, o ConsumeOptions) error {
	if o.Concurrency <= 0 {
		o.Concurrency = 1
	}
	if o.MaxOutstanding <= 0 {
		o.MaxOutstanding = int32(o.Concurrency)
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = defaultDrain
	}
	if o.MaxExtension <= 0 {
		o.MaxExtension = defaultMaxExtension
	}
	if o.CheckpointInterval <= 0 {
		o.CheckpointInterval = defaultCheckpointInterval
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = defaultMinBackoff
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = defaultMaxBackoff
	}
	o.MaxBackoff = max(o.MaxBackoff, o.MinBackoff)
	w := &consumer{client: c, name: subscription, handler: handler, o: o, leases: map[uint64]*lease{}, came: make(chan struct{}, 1), done: make(chan struct{}, 1)}
	w.silence = max(silentIntervals*o.CheckpointInterval, minSilence)
	if err := w.run(ctx); err != nil {
		return fmt.Errorf("consume %s of %s: %w", subscription, c.target, err)
	}
	return nil
}

// consumer is one Consume.
type consumer struct {
	client  *Client
	name    string
	handler Handler
	o       ConsumeOptions
	silence time.Duration // what counts as silence

	mu       sync.Mutex // guards what follows
	deadline time.Duration
	leases   map[uint64]*lease // by sequence: what is here and not settled
	waiting  []*lease          // for a handler, in the order in which they came
	finished []*lease          // to be acknowledged
	// came and done have a token when waiting, or finished, has got something.
	came, done chan struct{}
}

// lease is an event that is here.
type lease struct {
	event *eventrelayv1.Event
	ackID string // of its latest delivery
	since time.Time
}

// run does everything until ctx is done or nothing more can be done, and then drains.
func (w *consumer) run(parent context.Context) error {
	// What settles events, and what handlers do, outlives the caller's context, but not the client.
	working, cancelWork := context.WithCancel(context.WithoutCancel(parent))
	defer cancelWork()
	ctx, stop := context.WithCancel(parent)
	defer stop()
	var handlers, settlers sync.WaitGroup
	settling, stopSettling := context.WithCancel(working)
	defer stopSettling()
	settlers.Go(func() { w.extend(settling) })
	settlers.Go(func() { w.acknowledge(settling, working) })
	for range w.o.Concurrency {
		handlers.Go(func() { w.work(ctx, working) })
	}
	err := w.receive(ctx)
	stop()
	w.giveUp(working)
	timeout := time.AfterFunc(w.o.DrainTimeout, cancelWork)
	defer timeout.Stop()
	handlers.Wait()
	stopSettling() // which sends what is left first
	settlers.Wait()
	return err
}

// receive tries stream after stream. It returns nil when ctx is done, else what makes another attempt useless.
func (w *consumer) receive(ctx context.Context) error {
	pause := w.o.MinBackoff
	for ctx.Err() == nil {
		lived, err := w.stream(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a caller who has left wants no error
		}
		if w.client.isClosed() {
			return ErrClosed
		}
		if final(err) {
			return err
		}
		if lived {
			pause = w.o.MinBackoff
		}
		wait := pause/2 + rand.N(pause/2+1) // the upper half only, as Follow does
		w.client.log.Warn("stream of a durable subscription broke", "target", w.client.target, "subscription", w.name, "retry_in", wait, "err", err)
		if w.o.OnBreak != nil {
			w.o.OnBreak(err)
		}
		pause = min(2*pause, w.o.MaxBackoff)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-w.client.closed:
		}
		timer.Stop()
	}
	return nil
}

// stream receives one stream to its end, and tells whether it had more than its greeting.
func (w *consumer) stream(parent context.Context) (lived bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	watch := time.AfterFunc(max(w.silence, minFirstResponse), func() { cancel(errSilent) })
	defer watch.Stop()
	ended := func(err error) error {
		if errors.Is(context.Cause(ctx), errSilent) {
			return errSilent
		}
		return typed(err)
	}
	// How long its deadline is may have been changed meanwhile.
	is, err := w.client.subscriptions.GetSubscription(ctx, &eventrelayv1.GetSubscriptionRequest{Name: w.name})
	if err != nil {
		return false, ended(err)
	}
	w.mu.Lock()
	w.deadline = max(is.GetAckDeadline().AsDuration(), minDeadline)
	w.mu.Unlock()
	stream, err := w.client.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{
		Subscription: w.name, View: w.o.View, CheckpointInterval: durationpb.New(w.o.CheckpointInterval),
		MaxOutstanding: w.o.MaxOutstanding, MaxOutstandingBytes: w.o.MaxOutstandingBytes,
	})
	if err != nil {
		return false, ended(err)
	}
	for first := true; ; first = false {
		response, err := stream.Recv()
		if err != nil {
			return lived, ended(err)
		}
		lived = lived || !first || len(response.GetEvents()) > 0
		w.take(response.GetEvents())
		watch.Reset(w.silence)
	}
}

// take notes what came. An event that is here already, because its deadline passed all the same, is not handled twice at once: what is done with it holds for its new delivery.
func (w *consumer) take(events []*eventrelayv1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range events {
		if is := w.leases[event.GetSequence()]; is != nil {
			is.ackID = event.GetAckId()
			continue
		}
		l := &lease{event, event.GetAckId(), time.Now()}
		w.leases[event.GetSequence()] = l
		w.waiting = append(w.waiting, l)
	}
	signal(w.came)
}

// signal leaves a token, if there is none.
func signal(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// next returns the next event to handle, or nil if there is none. Another worker is woken if there are more.
func (w *consumer) next(ctx context.Context) *lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 || ctx.Err() != nil {
		return nil
	}
	l := w.waiting[0]
	w.waiting = w.waiting[1:]
	if len(w.waiting) > 0 {
		signal(w.came)
	}
	return l
}

// work handles events, one at a time, until ctx is done.
func (w *consumer) work(ctx, working context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.came:
		}
		for l := w.next(ctx); l != nil; l = w.next(ctx) {
			if err := w.handler(working, l.event); err != nil {
				w.giveBack(working, l, err.Error())
				continue
			}
			w.mu.Lock()
			w.finished = append(w.finished, l)
			w.mu.Unlock()
			signal(w.done)
		}
	}
}

// giveUp gives back what waits, so that another consumer has it at once. Nothing comes any more.
func (w *consumer) giveUp(ctx context.Context) {
	w.mu.Lock()
	waiting := w.waiting
	w.waiting = nil
	w.mu.Unlock()
	for _, l := range waiting {
		w.giveBack(ctx, l, "the consumer was shut down before it came to this event")
	}
}

// giveBack gives an event back. Where that fails, its deadline does it.
func (w *consumer) giveBack(ctx context.Context, l *lease, why string) {
	w.mu.Lock()
	delete(w.leases, l.event.GetSequence()) // first: what comes of it is a new lease
	id := l.ackID
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, err := w.client.subscriptions.ModifyAckDeadline(ctx, &eventrelayv1.ModifyAckDeadlineRequest{
		Name: w.name, AckIds: []string{id}, AckDeadline: durationpb.New(0), Reason: reasonText(why),
	})
	if err != nil {
		w.client.log.Warn("an event that could not be given back comes again after its deadline", "subscription", w.name, "event", l.event.GetId(), "err", err)
	}
}

// reasonText is a text as a server takes it.
func reasonText(why string) string {
	why = strings.ToValidUTF8(why, "\ufffd")
	if utf8.RuneCountInString(why) > maxReason {
		why = string([]rune(why)[:maxReason-1]) + "…"
	}
	return why
}

// acknowledge sends acknowledgements, all that wait in one call, until ctx is done and none is left, or nothing can be sent any more because working is done.
func (w *consumer) acknowledge(ctx, working context.Context) {
	for {
		select {
		case <-ctx.Done():
			// Handlers have ended: what is here now is all. What a drain that took too long leaves gets one more chance.
			bounded, cancel := context.WithTimeout(context.WithoutCancel(working), settleTimeout)
			defer cancel()
			w.flush(bounded)
			return
		case <-w.done:
			w.flush(working)
		}
	}
}

// flush acknowledges what is finished. While the server is away it tries again: what comes late settles the event all the same.
func (w *consumer) flush(ctx context.Context) {
	for pause := w.o.MinBackoff; ; {
		w.mu.Lock()
		part := w.finished[:min(len(w.finished), maxAckIDs)]
		ids := make([]string, 0, len(part))
		for _, l := range part {
			ids = append(ids, l.ackID)
		}
		w.mu.Unlock()
		if len(part) == 0 {
			return
		}
		err := w.settle(ctx, ids)
		if err != nil && !final(err) && ctx.Err() == nil && !w.client.isClosed() {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			case <-w.client.closed:
			}
			timer.Stop()
			pause = min(2*pause, w.o.MaxBackoff)
			continue
		}
		if err != nil {
			w.client.log.Warn("events that could not be acknowledged come again after their deadline", "subscription", w.name, "events", len(ids), "err", err)
		}
		pause = w.o.MinBackoff
		w.mu.Lock()
		for _, l := range part {
			delete(w.leases, l.event.GetSequence())
		}
		w.finished = w.finished[len(part):]
		w.mu.Unlock()
	}
}

// settle makes one call.
func (w *consumer) settle(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, err := w.client.subscriptions.Acknowledge(ctx, &eventrelayv1.AcknowledgeRequest{Name: w.name, AckIds: ids})
	return err
}

// extend has the deadlines of what is here begin anew, until ctx is done.
func (w *consumer) extend(ctx context.Context) {
	for {
		w.mu.Lock()
		pause := max(w.deadline, minDeadline) / leaseParts
		w.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		w.mu.Lock()
		ids := make([]string, 0, len(w.leases))
		for _, l := range w.leases {
			if time.Since(l.since) < w.o.MaxExtension {
				ids = append(ids, l.ackID)
			}
		}
		w.mu.Unlock()
		for len(ids) > 0 {
			part := ids[:min(len(ids), maxAckIDs)]
			ids = ids[len(part):]
			bounded, cancel := context.WithTimeout(ctx, settleTimeout)
			_, err := w.client.subscriptions.ModifyAckDeadline(bounded, &eventrelayv1.ModifyAckDeadlineRequest{Name: w.name, AckIds: part, AckDeadline: durationpb.New(w.extension())})
			cancel()
			if err != nil && ctx.Err() == nil && status.Code(err) != codes.Unavailable {
				w.client.log.Warn("deadlines could not be extended", "subscription", w.name, "events", len(part), "err", err)
			}
		}
	}
}

// extension is the deadline that is asked for.
func (w *consumer) extension() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.deadline, minDeadline)
}
