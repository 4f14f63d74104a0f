package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
	"eventrelay/server/hub"
	durable "eventrelay/server/subscription"
)

const (
	// maxEventBytes is the size above which an event is sent without `raw`: stock clients accept messages of 4 MiB, and the response around it needs room.
	maxEventBytes = 3 << 20
	// rawChunkBytes is the size of one part of GetEventRaw.
	rawChunkBytes = 1 << 20
	// maxPageBytes is where a page of ListEvents ends early.
	maxPageBytes = 2 << 20
	// maxSearch is how long ListEvents looks for events before it returns what it has.
	maxSearch = time.Second
	// maxLateness is how much later than others an event may be stored that was received before them, by another relay, for a range of times to find it.
	maxLateness = 10 * time.Minute
	// listWindow is how many entries ListEvents reads at a time when it goes backwards.
	listWindow = 256
)

// EventService serves eventrelay.v1.EventService.
type EventService struct {
	eventrelayv1.UnimplementedEventServiceServer
	log    *eventlog.Log
	index  Index
	hub    *hub.Hub
	logger *slog.Logger
	meters *meters
	framer framer
	// filters are those of the open streams, and decoded what they last looked into.
	filters filter.Set
	decoded decodings
	limits  Limits
	open    admission
	// durable has the durable subscriptions; nil without any.
	durable *durable.Store
}

// Index finds events by their ids.
type Index interface {
	// Find returns the entry with that id, and false if there is none as far back as the index goes.
	Find(ctx context.Context, id string) (eventlog.Entry, bool, error)
}

// NewEventService returns the service over the log, the index of its events and the hub that follows it.
func NewEventService(log *eventlog.Log, ids Index, bell *hub.Hub, metrics Registerer, logger *slog.Logger) *EventService {
	return &EventService{log: log, index: ids, hub: bell, logger: logger, meters: newMeters(metrics), framer: framer{&cursors{logID: log.ID}}}
}

// Limit sets the limits of streams. It must be called before the first one.
func (s *EventService) Limit(limits Limits) { s.limits = limits }

// Durable has streams of durable subscriptions come from a store. It must be called before the first one; without it no subscription is found.
func (s *EventService) Durable(store *durable.Store) { s.durable = store }

// decode makes the event that clients see of one that the log holds.
func (s *EventService) decode(sequence uint64, data []byte, view eventrelayv1.EventView) (*eventrelayv1.Event, error) {
	event := &eventrelayv1.Event{}
	if err := proto.Unmarshal(data, event); err != nil {
		return nil, fmt.Errorf("decode event %d of the log: %w", sequence, err)
	}
	event.Sequence = sequence
	present(event, len(data), s.log.ID(), view)
	return event, nil
}

// present completes an event of some size for those who see it, and leaves out what they do not want and what would not fit.
func present(event *eventrelayv1.Event, size int, logID string, view eventrelayv1.EventView) {
	event.Cursor = cursor(logID, event.GetSequence())
	switch view {
	case eventrelayv1.EventView_EVENT_VIEW_TYPED:
		event.Raw = nil
	case eventrelayv1.EventView_EVENT_VIEW_RAW:
		event.Payload = nil
	}
	if size > maxEventBytes && len(event.GetRaw()) > 0 {
		event.Raw, event.RawOmitted = nil, true
	}
}

// matches reports whether the filter wants an event. One on which it fails is not wanted, and counted.
func (s *EventService) matches(f *filter.Filter, event *eventrelayv1.Event) bool {
	wanted, err := f.Match(event)
	if err != nil {
		s.meters.filterErrors.Inc()
		return false
	}
	return wanted
}

// GetEvent returns one event, or EVENT_NOT_INDEXED.
func (s *EventService) GetEvent(ctx context.Context, req *eventrelayv1.GetEventRequest) (*eventrelayv1.Event, error) {
	entry, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return s.decode(entry.Sequence, entry.Data, req.GetView())
}

// GetEventRaw streams the JSON of one event in parts.
func (s *EventService) GetEventRaw(req *eventrelayv1.GetEventRawRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	entry, err := s.find(stream.Context(), req.GetId())
	if err != nil {
		return err
	}
	event := &eventrelayv1.Event{}
	if err := proto.Unmarshal(entry.Data, event); err != nil {
		return fmt.Errorf("decode event %d of the log: %w", entry.Sequence, err)
	}
	for raw := event.GetRaw(); len(raw) > 0; {
		part := raw[:min(len(raw), rawChunkBytes)]
		if err := stream.Send(&httpbody.HttpBody{ContentType: "application/json", Data: part}); err != nil {
			return err
		}
		raw = raw[len(part):]
	}
	return nil
}

// find returns the entry of an event id.
func (s *EventService) find(ctx context.Context, id string) (eventlog.Entry, error) {
	entry, ok, err := s.index.Find(ctx, id)
	if err != nil {
		return eventlog.Entry{}, fmt.Errorf("find event %s: %w", id, err)
	}
	if !ok {
		return eventlog.Entry{}, &notFoundError{reason: eventrelayv1.ErrorReason_ERROR_REASON_EVENT_NOT_INDEXED, key: "id", name: id, hint: ": it never was, or it is older than the index reaches, or no longer kept"}
	}
	return entry, nil
}

// ListEvents returns a page of events.
func (s *EventService) ListEvents(ctx context.Context, req *eventrelayv1.ListEventsRequest) (*eventrelayv1.ListEventsResponse, error) {
	wanted, err := filter.Compile(req.GetFilter())
	if err != nil {
		return nil, err
	}
	state, err := s.log.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state of the log: %w", err)
	}
	times := newTimeRange(req)
	first, last, err := times.sequences(ctx, s.log, state)
	if err != nil {
		return nil, err
	}
	descending := req.GetOrderBy() == "sequence desc"
	order := "asc"
	position := first - 1 // ascending: everything up to here is done
	if descending {
		order = "desc"
		position = last + 1 // descending: everything from here on is done
	}
	scope := listScope(req.GetFilter(), order, times.start.String(), times.end.String())
	if req.GetPageToken() != "" {
		t, err := decodeToken(pageToken, s.log.ID(), req.GetPageToken())
		switch {
		case errors.Is(err, errCursorMalformed), err == nil && t.scope != scope:
			return nil, errPageTokenInvalid
		case err != nil:
			return nil, err
		}
		position = t.sequence
	}
	p := &page{service: s, filter: wanted, times: times, view: req.GetView(), room: pageSize(req.GetPageSize()), until: time.Now().Add(maxSearch), position: position}
	if descending {
		err = p.backward(ctx, first)
	} else {
		err = p.forward(ctx, last)
	}
	if err != nil {
		return nil, err
	}
	resp := &eventrelayv1.ListEventsResponse{Events: p.events}
	if p.more {
		resp.NextPageToken = token{kind: pageToken, sequence: p.position, scope: scope}.encode(s.log.ID())
	}
	return resp, nil
}

// timeRange is from when to before when events were received; a zero time is no bound.
type timeRange struct{ start, end time.Time }

func newTimeRange(req *eventrelayv1.ListEventsRequest) (r timeRange) {
	if req.GetStartTime() != nil {
		r.start = req.GetStartTime().AsTime()
	}
	if req.GetEndTime() != nil {
		r.end = req.GetEndTime().AsTime()
	}
	return r
}

func (r timeRange) contains(t time.Time) bool {
	return !t.Before(r.start) && (r.end.IsZero() || t.Before(r.end))
}

// sequences returns between which sequences of the log the range lies; it holds none if last < first.
func (r timeRange) sequences(ctx context.Context, log *eventlog.Log, state eventlog.State) (first, last uint64, err error) {
	first, last = state.First, state.Last
	if !r.start.IsZero() {
		at, err := log.SequenceAt(ctx, r.start)
		if err != nil {
			return 0, 0, fmt.Errorf("find start_time in the log: %w", err)
		}
		first = max(first, at)
	}
	if !r.end.IsZero() {
		at, err := log.SequenceAt(ctx, r.end.Add(maxLateness))
		if err != nil {
			return 0, 0, fmt.Errorf("find end_time in the log: %w", err)
		}
		last = min(last, at-1)
	}
	return first, last, nil
}

// page is a page of events in the making. It reads the log itself, not by way of the hub: what was acknowledged before the call is listed, whether the bell has rung for
// it or not.
type page struct {
	service *EventService
	filter  *filter.Filter
	times   timeRange
	view    eventrelayv1.EventView
	// room is how many events the page takes at most.
	room  int
	until time.Time
	bytes int

	events []*eventrelayv1.Event
	// position is how far the page has come, in its direction.
	position uint64
	// more is set when the page ended before the list did.
	more bool
}

// add takes an entry if the filter wants it. It returns false, and leaves the position where it was, when the page is full.
func (p *page) add(entry eventlog.Entry) (bool, error) {
	if len(p.events) == p.room || p.bytes >= maxPageBytes || time.Now().After(p.until) {
		p.more = true
		return false, nil
	}
	if !p.times.contains(entry.Time) {
		p.position = entry.Sequence
		return true, nil
	}
	event, err := p.service.decode(entry.Sequence, entry.Data, eventrelayv1.EventView_EVENT_VIEW_FULL)
	if err != nil {
		return false, err
	}
	if p.service.matches(p.filter, event) {
		if p.view > eventrelayv1.EventView_EVENT_VIEW_FULL {
			if event, err = p.service.decode(entry.Sequence, entry.Data, p.view); err != nil {
				return false, err
			}
		}
		size := proto.Size(event)
		if len(p.events) > 0 && p.bytes+size > maxPageBytes {
			p.more = true
			return false, nil
		}
		p.events = append(p.events, event)
		p.bytes += size
	}
	p.position = entry.Sequence
	return true, nil
}

// forward fills the page from the position up to `last`.
func (p *page) forward(ctx context.Context, last uint64) error {
	for entry, err := range p.service.log.Read(ctx, p.position+1) {
		if err != nil {
			return fmt.Errorf("read the log behind %d: %w", p.position, err)
		}
		if entry.Sequence > last {
			return nil
		}
		if ok, err := p.add(entry); !ok {
			return err
		}
	}
	return nil
}

// backward fills the page from the position down to `first`, window by window.
func (p *page) backward(ctx context.Context, first uint64) error {
	for p.position > first {
		from := first
		if p.position > first+listWindow {
			from = p.position - listWindow
		}
		var window []eventlog.Entry
		for entry, err := range p.service.log.Read(ctx, from) {
			if err != nil {
				return fmt.Errorf("read the log from %d: %w", from, err)
			}
			if entry.Sequence >= p.position {
				break
			}
			window = append(window, entry)
		}
		for _, w := range slices.Backward(window) {
			if ok, err := p.add(w); !ok {
				return err
			}
		}
		p.position = from
	}
	return nil
}
