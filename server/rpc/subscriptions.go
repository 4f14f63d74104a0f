package rpc

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	durable "eventrelay/server/subscription"
)

const (
	// pullWait is how long a pull waits for the first event: long enough that a loop of pulls is no busy loop, short enough for every proxy in between.
	pullWait = 5 * time.Second
	// maxPullBytes is where a pull ends early.
	maxPullBytes = 2 << 20
)

// SubscriptionService serves eventrelay.v1.SubscriptionService.
type SubscriptionService struct {
	eventrelayv1.UnimplementedSubscriptionServiceServer
	log   *eventlog.Log
	store *durable.Store
}

// NewSubscriptionService returns the service over the log and the subscriptions to it.
func NewSubscriptionService(log *eventlog.Log, store *durable.Store) *SubscriptionService {
	return &SubscriptionService{log: log, store: store}
}

// GetSubscription returns one subscription, or SUBSCRIPTION_NOT_FOUND.
func (s *SubscriptionService) GetSubscription(ctx context.Context, req *eventrelayv1.GetSubscriptionRequest) (*eventrelayv1.Subscription, error) {
	return s.store.Get(ctx, req.GetName())
}

// ListSubscriptions returns a page of subscriptions by name. The token of a page is the name that the page before ended with.
func (s *SubscriptionService) ListSubscriptions(ctx context.Context, req *eventrelayv1.ListSubscriptionsRequest) (*eventrelayv1.ListSubscriptionsResponse, error) {
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil {
		return nil, errPageTokenInvalid
	}
	list, more, err := s.store.List(ctx, string(after), pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &eventrelayv1.ListSubscriptionsResponse{Subscriptions: list}
	if more {
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(list[len(list)-1].GetName()))
	}
	return resp, nil
}

// CreateSubscription stores a new subscription and returns it.
func (s *SubscriptionService) CreateSubscription(ctx context.Context, req *eventrelayv1.CreateSubscriptionRequest) (*eventrelayv1.Subscription, error) {
	spec := req.GetSubscription()
	state, err := s.log.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state of the log: %w", err)
	}
	from := state.Last + 1
	switch start := spec.GetStart().(type) {
	case *eventrelayv1.Subscription_Cursor:
		from, err = s.behind(start.Cursor, state)
	case *eventrelayv1.Subscription_StartTime:
		if err = start.StartTime.CheckValid(); err != nil {
			return nil, &durable.InvalidError{Violations: []durable.Violation{{Field: "start_time", Description: "it is no time"}}}
		}
		from, err = s.log.SequenceAt(ctx, start.StartTime.AsTime())
	case *eventrelayv1.Subscription_StartFrom:
		if start.StartFrom == eventrelayv1.StartFrom_START_FROM_EARLIEST {
			from = state.First
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find the start of the subscription: %w", err)
	}
	return s.store.Create(ctx, req.GetSubscriptionId(), spec, from)
}

// behind is the sequence behind a cursor of this log.
func (s *SubscriptionService) behind(text string, state eventlog.State) (uint64, error) {
	t, err := decodeToken(cursorToken, s.log.ID(), text)
	switch {
	case err != nil:
		return 0, err
	case t.sequence > state.Last: // this log never came that far
		return 0, errCursorForeign
	case t.sequence+1 < state.First:
		return 0, &expiredError{earliest: cursor(s.log.ID(), state.First-1)}
	}
	return t.sequence + 1, nil
}

// UpdateSubscription changes fields of a subscription and returns it.
func (s *SubscriptionService) UpdateSubscription(ctx context.Context, req *eventrelayv1.UpdateSubscriptionRequest) (*eventrelayv1.Subscription, error) {
	if req.GetSubscription().GetName() == "" {
		return nil, &durable.InvalidError{Violations: []durable.Violation{{Field: "subscription.name", Description: "it must be subscriptions/{id}"}}}
	}
	return s.store.Update(ctx, req.GetSubscription(), req.GetUpdateMask().GetPaths())
}

// DeleteSubscription removes a subscription.
func (s *SubscriptionService) DeleteSubscription(ctx context.Context, req *eventrelayv1.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.store.Delete(ctx, req.GetName(), req.GetEtag())
}

// Pull returns events that are due.
func (s *SubscriptionService) Pull(ctx context.Context, req *eventrelayv1.PullRequest) (*eventrelayv1.PullResponse, error) {
	wait := pullWait
	if deadline, ok := ctx.Deadline(); ok { // an answer without events is better than none
		wait = min(wait, max(0, time.Until(deadline)*3/4))
	}
	events, err := s.store.Pull(ctx, req.GetName(), durable.Demand{Max: pageSize(req.GetMaxEvents()), MaxBytes: maxPullBytes, Wait: wait})
	if err != nil {
		return nil, err
	}
	lost, err := s.store.Lost(ctx, req.GetName())
	if err != nil {
		s.store.Return(req.GetName(), events)
		return nil, err
	}
	for _, event := range events {
		present(event, proto.Size(event), s.log.ID(), eventrelayv1.EventView_EVENT_VIEW_FULL)
	}
	return &eventrelayv1.PullResponse{Events: events, LostEvents: lost}, nil
}

// Acknowledge settles events.
func (s *SubscriptionService) Acknowledge(ctx context.Context, req *eventrelayv1.AcknowledgeRequest) (*eventrelayv1.AcknowledgeResponse, error) {
	unknown, stale, err := s.store.Acknowledge(ctx, req.GetName(), req.GetAckIds())
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.AcknowledgeResponse{UnknownAckIds: unknown, StaleAckIds: stale}, nil
}

// ModifyAckDeadline extends deadlines, or gives events back.
func (s *SubscriptionService) ModifyAckDeadline(ctx context.Context, req *eventrelayv1.ModifyAckDeadlineRequest) (*eventrelayv1.ModifyAckDeadlineResponse, error) {
	var (
		unknown, stale []string
		err            error
	)
	if req.GetAckDeadline().AsDuration() == 0 {
		unknown, stale, err = s.store.GiveBack(ctx, req.GetName(), req.GetAckIds(), req.GetReason())
	} else {
		unknown, stale, err = s.store.Extend(ctx, req.GetName(), req.GetAckIds())
	}
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ModifyAckDeadlineResponse{UnknownAckIds: unknown, StaleAckIds: stale}, nil
}

// Seek sends a subscription to another place of the log and returns it.
func (s *SubscriptionService) Seek(ctx context.Context, req *eventrelayv1.SeekRequest) (*eventrelayv1.Subscription, error) {
	state, err := s.log.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state of the log: %w", err)
	}
	var from uint64
	if at := req.GetTime(); at != nil {
		from, err = s.log.SequenceAt(ctx, at.AsTime())
	} else {
		from, err = s.behind(req.GetCursor(), state)
	}
	if err != nil {
		return nil, fmt.Errorf("find where to seek: %w", err)
	}
	return s.store.Seek(ctx, req.GetName(), from)
}

// ListDeadLetters returns a page of dead letters. The token of a page is the place that the page before ended at.
func (s *SubscriptionService) ListDeadLetters(ctx context.Context, req *eventrelayv1.ListDeadLettersRequest) (*eventrelayv1.ListDeadLettersResponse, error) {
	var after uint64
	if text := req.GetPageToken(); text != "" {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(b) != 8 {
			return nil, errPageTokenInvalid
		}
		after = binary.BigEndian.Uint64(b)
	}
	list, next, err := s.store.DeadLetters(ctx, req.GetName(), after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &eventrelayv1.ListDeadLettersResponse{DeadLetters: list}
	for _, dead := range list {
		present(dead.GetEvent(), proto.Size(dead.GetEvent()), s.log.ID(), eventrelayv1.EventView_EVENT_VIEW_FULL)
	}
	if next > 0 {
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, next))
	}
	return resp, nil
}

// ReplayDeadLetters has dead letters delivered once more.
func (s *SubscriptionService) ReplayDeadLetters(ctx context.Context, req *eventrelayv1.ReplayDeadLettersRequest) (*eventrelayv1.ReplayDeadLettersResponse, error) {
	n, err := s.store.Replay(ctx, req.GetName(), req.GetIds())
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ReplayDeadLettersResponse{Replayed: n}, nil
}

// PurgeDeadLetters deletes dead letters for good.
func (s *SubscriptionService) PurgeDeadLetters(ctx context.Context, req *eventrelayv1.PurgeDeadLettersRequest) (*eventrelayv1.PurgeDeadLettersResponse, error) {
	n, err := s.store.Purge(ctx, req.GetName(), req.GetIds())
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.PurgeDeadLettersResponse{Purged: n}, nil
}
