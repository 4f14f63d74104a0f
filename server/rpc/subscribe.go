package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
	"eventrelay/server/hub"
)

const (
	// defaultCheckpointInterval is how long a stream is silent at most, unless the client says otherwise.
	defaultCheckpointInterval = 5 * time.Second
	// defaultMaxBytes is the size of a response unless the client says otherwise.
	defaultMaxBytes = 1 << 20
	// minPingInterval, pingAfter and pingTimeout are the keepalive of connections: honest clients ping every 10 s or less often; a peer that is silent is pinged
	// after 30 s and given up 20 s later.
	minPingInterval = 5 * time.Second
	pingAfter       = 30 * time.Second
	pingTimeout     = 20 * time.Second
)

// Subscribe streams events: it reads the log to its end, sends what it found, waits for the bell, and starts over. A slow client finds more at each turn; nothing waits
// for it.
func (s *EventService) Subscribe(req *eventrelayv1.SubscribeRequest, stream grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	if req.GetSubscription() != "" {
		return &notFoundError{reason: eventrelayv1.ErrorReason_ERROR_REASON_SUBSCRIPTION_NOT_FOUND, key: "subscription", name: req.GetSubscription()}
	}
	wanted, err := filter.Compile(req.GetFilter())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	position, err := s.start(ctx, req)
	if err != nil {
		return err
	}
	s.meters.subscribers.Inc()
	defer s.meters.subscribers.Dec()

	r := &reader{
		service: s, stream: stream, filter: wanted, view: req.GetView(), position: position,
		exact:     req.GetCursor() != "",
		interval:  defaultCheckpointInterval,
		maxEvents: int(req.GetMaxEvents()), maxBytes: int(req.GetMaxBytes()),
	}
	if d := req.GetCheckpointInterval(); d != nil {
		r.interval = d.AsDuration()
	}
	if r.maxBytes == 0 {
		r.maxBytes = defaultMaxBytes
	}
	return r.run(ctx)
}

// start finds the sequence behind which a stream begins.
func (s *EventService) start(ctx context.Context, req *eventrelayv1.SubscribeRequest) (uint64, error) {
	if err := s.hub.Start(ctx); err != nil {
		return 0, fmt.Errorf("find the end of the log: %w", err)
	}
	state, err := s.log.State(ctx)
	if err != nil {
		return 0, fmt.Errorf("read state of the log: %w", err)
	}
	switch start := req.GetStart().(type) {
	case *eventrelayv1.SubscribeRequest_Cursor:
		t, err := decodeToken(cursorToken, s.log.ID(), start.Cursor)
		switch {
		case err != nil:
			return 0, err
		case t.sequence > state.Last: // this log never came that far
			return 0, errCursorForeign
		case t.sequence+1 < state.First:
			return 0, s.expired(state)
		}
		return t.sequence, nil
	case *eventrelayv1.SubscribeRequest_StartTime:
		sequence, err := s.log.SequenceAt(ctx, start.StartTime.AsTime())
		if err != nil {
			return 0, fmt.Errorf("find the start time in the log: %w", err)
		}
		return sequence - 1, nil
	case *eventrelayv1.SubscribeRequest_StartFrom:
		if start.StartFrom == eventrelayv1.StartFrom_START_FROM_EARLIEST {
			return state.First - 1, nil
		}
	}
	return state.Last, nil
}

// expired is the error for a position that lies before the first event kept.
func (s *EventService) expired(state eventlog.State) error {
	return &expiredError{earliest: cursor(s.log.ID(), state.First-1)}
}

// reader is one stream: a position in the log that moves past every event, wanted or not.
type reader struct {
	service *EventService
	stream  grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]
	filter  *filter.Filter
	view    eventrelayv1.EventView
	// interval is how long the stream is silent at most.
	interval            time.Duration
	maxEvents, maxBytes int

	// position is the sequence up to which everything has been served or is in batch.
	position uint64
	// exact is whether the next event must be the next sequence: always, but for the first event of a stream that starts at the earliest one or at a time, which
	// retention may overtake before it is read.
	exact bool
	// batch holds the events of the next response, size their bytes.
	batch []*eventrelayv1.Event
	size  int
	// sent is when the last response was sent.
	sent time.Time
}

// run serves the stream until the client goes, the server goes down, or retention overtakes the reader.
func (r *reader) run(ctx context.Context) error {
	if err := r.send(); err != nil {
		return err
	}
	for {
		visible := r.service.hub.Last()
		if err := r.drain(ctx); err != nil {
			return err
		}
		if r.position < visible && !r.service.hub.Closed() { // what was visible could not be read: removed meanwhile
			if err := r.checkKept(ctx); err != nil {
				return err
			}
			return fmt.Errorf("the log ends at %d, but was visible up to %d: %w", r.position, visible, eventlog.ErrUnavailable)
		}
		if err := r.wait(ctx); err != nil {
			return err
		}
	}
}

// drain reads the log to its end and sends what is wanted.
func (r *reader) drain(ctx context.Context) error {
	for entry, err := range r.service.hub.Read(ctx, r.position) {
		if err != nil {
			return fmt.Errorf("read the log behind %d: %w", r.position, err)
		}
		if entry.Sequence != r.position+1 && r.exact {
			if err := r.checkKept(ctx); err != nil {
				return err
			}
		}
		r.exact = true
		if err := r.take(entry); err != nil {
			return err
		}
		if r.service.hub.Closed() {
			break // the rest is for the next connection
		}
	}
	if len(r.batch) > 0 {
		return r.send()
	}
	return nil
}

// take moves past an entry, which goes into the batch if it is wanted. A response is sent before it when that makes the batch too large, and after it when the batch is
// full or the stream has been silent for long enough.
func (r *reader) take(entry hub.Entry) error {
	event, err := r.service.decode(entry.Sequence, entry.Data, eventrelayv1.EventView_EVENT_VIEW_FULL)
	if err != nil {
		return err
	}
	if r.service.matches(r.filter, event) {
		if r.view > eventrelayv1.EventView_EVENT_VIEW_FULL {
			if event, err = r.service.decode(entry.Sequence, entry.Data, r.view); err != nil {
				return err
			}
		}
		size := proto.Size(event)
		if len(r.batch) > 0 && r.size+size > r.maxBytes {
			if err := r.send(); err != nil {
				return err
			}
		}
		r.batch = append(r.batch, event)
		r.size += size
	}
	r.position = entry.Sequence
	if r.size >= r.maxBytes || len(r.batch) == r.maxEvents && r.maxEvents > 0 || time.Since(r.sent) >= r.interval {
		return r.send()
	}
	return nil
}

// send sends the batch, or a checkpoint if it is empty.
func (r *reader) send() error {
	last := r.service.hub.Last()
	resp := &eventrelayv1.SubscribeResponse{Events: r.batch, Cursor: cursor(r.service.log.ID(), r.position)}
	if last > r.position {
		resp.Backlog = last - r.position
	}
	if err := r.stream.Send(resp); err != nil {
		return err
	}
	r.service.meters.delivered.Add(float64(len(r.batch)))
	r.batch, r.size, r.sent = nil, 0, time.Now()
	return nil
}

// wait returns when there is something behind the position, and sends checkpoints until then.
func (r *reader) wait(ctx context.Context) error {
	for {
		until, cancel := context.WithDeadline(ctx, r.sent.Add(r.interval))
		err := r.service.hub.Wait(until, r.position)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, hub.ErrClosed):
			// The last word is where to go on from.
			if sendErr := r.send(); sendErr != nil {
				return sendErr
			}
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := r.send(); err != nil {
			return err
		}
	}
}

// checkKept returns an error if events behind the position have been removed.
func (r *reader) checkKept(ctx context.Context) error {
	state, err := r.service.log.State(ctx)
	if err != nil {
		return fmt.Errorf("read state of the log: %w", err)
	}
	if state.First > r.position+1 {
		return r.service.expired(state)
	}
	return nil
}
