package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
)

const (
	// defaultCheckpointInterval is how long a stream is silent at most, unless the client says otherwise.
	defaultCheckpointInterval = 5 * time.Second
	// defaultMaxBytes is the size of a response unless the client says otherwise: less than the 1 MiB that is promised to be the most. Larger ones are not cheaper to send, a
	// client sees nothing of one before it has all of it, and two of them wait in memory for a client that stopped reading.
	defaultMaxBytes = 256 << 10
	// maxPinned bounds the memory that one response keeps from being freed while it is on its way, unless the client asks for larger ones.
	maxPinned = 1 << 20
	// tailBytes is what a response takes beside its events, at most: the cursor and the backlog.
	tailBytes = 2 + tokenText + 1 + binary.MaxVarintLen64
	// minPingInterval, pingAfter and pingTimeout are the keepalive of connections: honest clients ping every 10 s or less often; a peer that is silent is pinged
	// after 30 s and given up 20 s later.
	minPingInterval = 5 * time.Second
	pingAfter       = 30 * time.Second
	pingTimeout     = 20 * time.Second
)

// Subscribe streams events: it reads on to the end of the log, sends what it found, waits for the bell, and starts over. A slow client finds more at each turn; nothing waits
// for it.
func (s *EventService) Subscribe(req *eventrelayv1.SubscribeRequest, stream grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	if req.GetSubscription() != "" {
		return s.consume(req, stream)
	}
	ctx := stream.Context()
	leave, err := s.open.enter(ctx, s.limits.MaxPerCaller)
	if err != nil {
		return err
	}
	defer leave()
	wanted, err := s.filters.Acquire(req.GetFilter())
	if err != nil {
		return err
	}
	defer s.filters.Release(wanted)
	position, err := s.start(ctx, req)
	if err != nil {
		return err
	}
	s.meters.subscribers.Inc()
	defer s.meters.subscribers.Dec()
	return s.newReader(req, stream, wanted, position).run(ctx)
}

// newReader returns the reader that a request asks for.
func (s *EventService) newReader(req *eventrelayv1.SubscribeRequest, stream grpc.ServerStream, wanted *filter.Shared, position uint64) *reader {
	r := &reader{
		service: s, stream: stream, filter: wanted, view: req.GetView(), position: position,
		exact:     req.GetCursor() != "",
		interval:  defaultCheckpointInterval,
		end:       s.limits.end(),
		maxEvents: int(req.GetMaxEvents()), maxBytes: int(req.GetMaxBytes()),
	}
	if d := req.GetCheckpointInterval(); d != nil {
		r.interval = d.AsDuration()
	}
	if r.maxBytes == 0 {
		r.maxBytes = defaultMaxBytes
	}
	if r.maxEvents == 0 {
		r.maxEvents = math.MaxInt
	}
	return r
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
