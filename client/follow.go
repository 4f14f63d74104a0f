package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// defaultCheckpointInterval is the server's own default, sent in so many words because the watch for silence depends on it.
	defaultCheckpointInterval = 5 * time.Second
	// silentIntervals is how many checkpoints may be missing before a stream counts as dead: one may be late, two are a stall.
	silentIntervals = 3
	// minSilence is the shortest silence that counts: below it a slow network or a busy machine would be taken for a dead one.
	minSilence = time.Second
	// minFirstResponse is the least time allowed for connecting and the first response: names, TCP and TLS come before it.
	minFirstResponse = 15 * time.Second
	// defaultMinBackoff is the first pause after a break: short, for most breaks are a restart behind a load balancer.
	defaultMinBackoff = 100 * time.Millisecond
	// defaultMaxBackoff is the longest pause: a server that is back is found within it.
	defaultMaxBackoff = 10 * time.Second
)

var (
	errSilent = errors.New("stream is silent: no response for three checkpoint intervals")
	errEnded  = errors.New("stream was ended by the server")
)

// FollowOptions says what to follow and from where. The zero value follows every event from now on.
type FollowOptions struct {
	// Filter is a CEL expression over `event`; only events for which it is true are yielded. If empty, all are.
	Filter string

	// Cursor starts behind the event or [Position] that it was taken from. At most one of Cursor, StartTime and From is set.
	Cursor string
	// StartTime starts at the first event received at that time or later.
	StartTime time.Time
	// From starts at an end of the log. If unspecified, at the latest: only what comes from now on.
	From eventrelayv1.StartFrom

	// View says which parts of an event are sent. If unspecified, all.
	View eventrelayv1.EventView
	// CheckpointInterval is how often the server says how far it is while it has no events to send. If 0, 5 s; at least 100 ms. A stream without any response for
	// three intervals (a second at least) is replaced.
	CheckpointInterval time.Duration
	// MaxEvents bounds the events of one response. If 0, MaxBytes alone does.
	MaxEvents int32
	// MaxBytes bounds the size of one response. If 0, 1 MiB. A response must arrive within three checkpoint intervals: lower it, or raise the interval, on a line
	// so slow that it would not.
	MaxBytes int32

	// OnProgress is called for every response, checkpoints included, once all of its events have been yielded: everything up to the position is done with. It
	// runs on the goroutine of the loop, and nothing is received meanwhile.
	OnProgress func(Position)
	// OnBreak is called whenever a stream has ended and another will be tried: with the reason, which is an [ExpiredError] where RestartAtEarliest steps over a
	// gap. It runs on the goroutine of the loop.
	OnBreak func(error)
	// RestartAtEarliest goes on with the first event that is still kept when the cursor has expired, instead of ending: for readers to whom the events in
	// between do not matter. OnBreak tells of each such gap.
	RestartAtEarliest bool

	// MinBackoff and MaxBackoff bound the pause before the next attempt. It doubles with each attempt that gets nowhere and is drawn at random from its upper half.
	// If 0, 100 ms and 10 s.
	MinBackoff, MaxBackoff time.Duration
}

// Position is a place in the log up to which everything that matches has been yielded.
type Position struct {
	// Cursor is where to come back to: FollowOptions.Cursor of a later Follow.
	Cursor string
	// Backlog is how many events of the log lay behind the cursor when the server sent the response, matching or not; 0 when all is read.
	Backlog uint64
	// Time is when the response arrived.
	Time time.Time
}

// Follow yields events in the order of the log, past ones first where it starts in the past, and then as they come, for as long as ctx lives.
//
// A stream that breaks or falls silent is replaced after a pause. The next one starts behind the last event whose turn of the loop is over, so within one Follow
// every event is yielded once and none that matches is left out; a start at the latest event stays where it was when the server first answered. A slow loop
// loses nothing and is never cut off: the server sends no more than it takes.
//
// The sequence ends without an error when ctx is done, even in the middle of a response, and when the loop is left. It ends with a last pair (nil, error) when
// trying again would not help: the request is refused (INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND, UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED), the
// cursor has expired ([ExpiredError]), or the client is closed ([ErrClosed]). The error wraps the status; [Reason] gives its reason.
//
// Each range over the sequence is a Follow of its own from the start that the options name. No goroutine outlives it.
func (c *Client) Follow(ctx context.Context, o FollowOptions) iter.Seq2[*eventrelayv1.Event, error] {
	return func(yield func(*eventrelayv1.Event, error) bool) {
		f := follower{client: c, options: o, yield: yield}
		if err := f.run(ctx); err != nil {
			yield(nil, fmt.Errorf("follow events of %s: %w", c.target, err))
		}
	}
}

// follower is one range over a Follow. It belongs to the goroutine of the loop.
type follower struct {
	client  *Client
	options FollowOptions
	yield   func(*eventrelayv1.Event, error) bool

	request *eventrelayv1.SubscribeRequest // its start moves as events are yielded
	silence time.Duration                  // what counts as silence
	pause   time.Duration                  // before the next attempt
}

// run tries stream after stream. It returns nil when the loop was left or ctx is done, else what ends the sequence.
func (f *follower) run(ctx context.Context) error {
	if err := f.prepare(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		err := f.stream(ctx)
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // a caller who has left wants no error
		}
		if err := f.mend(err); err != nil {
			return err
		}
		// The upper half only: full jitter would let an attempt follow at once.
		pause := f.pause/2 + rand.N(f.pause/2+1)
		f.client.log.Warn("stream of events broke", "target", f.client.target, "cursor", f.request.GetCursor(), "retry_in", pause, "err", err)
		if f.options.OnBreak != nil {
			f.options.OnBreak(err)
		}
		f.pause = min(2*f.pause, f.options.MaxBackoff)
		if err := f.wait(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// prepare checks the options, sets their defaults and makes the first request of them.
func (f *follower) prepare() error {
	o := &f.options
	starts := 0
	request := &eventrelayv1.SubscribeRequest{Filter: o.Filter, View: o.View, MaxEvents: o.MaxEvents, MaxBytes: o.MaxBytes}
	if o.From != eventrelayv1.StartFrom_START_FROM_UNSPECIFIED {
		request.Start = &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: o.From}
		starts++
	}
	if !o.StartTime.IsZero() {
		request.Start = &eventrelayv1.SubscribeRequest_StartTime{StartTime: timestamppb.New(o.StartTime)}
		starts++
	}
	if o.Cursor != "" {
		request.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: o.Cursor}
		starts++
	}
	switch {
	case starts > 1:
		return status.Error(codes.InvalidArgument, "more than one of Cursor, StartTime and From is set")
	case !utf8.ValidString(o.Filter), !utf8.ValidString(o.Cursor):
		// gRPC would call it an internal fault, and that is tried again for ever.
		return status.Error(codes.InvalidArgument, "filter or cursor is not UTF-8")
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = defaultCheckpointInterval
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = defaultMinBackoff
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = defaultMaxBackoff
	}
	o.MaxBackoff = max(o.MaxBackoff, o.MinBackoff)
	request.CheckpointInterval = durationpb.New(o.CheckpointInterval)
	f.request, f.silence, f.pause = request, max(silentIntervals*o.CheckpointInterval, minSilence), o.MinBackoff
	return nil
}

// stream follows one stream to its end. It returns nil when the loop was left, and otherwise why the stream ended; the request then starts where it stopped.
func (f *follower) stream(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	// The watch runs only while a response is awaited: a slow loop is no silence.
	watch := time.AfterFunc(max(f.silence, minFirstResponse), func() { cancel(errSilent) })
	defer watch.Stop()

	stream, err := f.client.events.Subscribe(ctx, f.request)
	if err != nil {
		return f.ended(ctx, err)
	}
	for first := true; ; first = false {
		response, err := stream.Recv()
		watch.Stop()
		if err != nil {
			return f.ended(ctx, err)
		}
		// The greeting alone proves nothing: a server that fails behind it each time must not be asked at full pace.
		if !first || len(response.GetEvents()) > 0 {
			f.pause = f.options.MinBackoff
		}
		if left, err := f.deliver(parent, response); left || err != nil {
			return err
		}
		watch.Reset(f.silence)
	}
}

// deliver yields the events of a response and moves the start of the next request along. It reports whether the loop was left, and the error of ctx when that is
// done before all are yielded.
func (f *follower) deliver(ctx context.Context, response *eventrelayv1.SubscribeResponse) (left bool, err error) {
	arrived := time.Now()
	for _, event := range response.GetEvents() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if !f.yield(event, nil) {
			return true, nil
		}
		f.moveTo(event.GetCursor())
	}
	f.moveTo(response.GetCursor())
	if f.options.OnProgress != nil {
		f.options.OnProgress(Position{Cursor: response.GetCursor(), Backlog: response.GetBacklog(), Time: arrived})
	}
	return false, nil
}

// moveTo makes the next stream start behind a cursor.
func (f *follower) moveTo(cursor string) {
	if cursor != "" {
		f.request.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: cursor}
	}
}

// ended says why a stream ended, where gRPC's own words do not.
func (f *follower) ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return errSilent
	case errors.Is(err, io.EOF):
		return errEnded
	default:
		return typed(err)
	}
}

// mend prepares another attempt after a stream ended with err, or returns what ends the sequence.
func (f *follower) mend(err error) error {
	select {
	case <-f.client.closed:
		return ErrClosed
	default:
	}
	var expired *ExpiredError
	switch {
	case errors.As(err, &expired) && f.options.RestartAtEarliest:
		f.request.Start = &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}
		f.moveTo(expired.EarliestCursor)
		return nil
	case final(err):
		return err
	default:
		return nil
	}
}

// wait lets the pause pass. It returns early with nil when ctx is done, which run looks at next, and with ErrClosed when the client is closed.
func (f *follower) wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return nil
	case <-f.client.closed:
		return ErrClosed
	}
}
