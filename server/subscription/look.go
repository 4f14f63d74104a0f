package subscription

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

const (
	// noteActivity is how exactly other relays are told when a subscription was last active.
	noteActivity = time.Minute
)

// notes are what is known of a subscription beside its record, and changes by itself. They are stored state.
type notes struct {
	Lost *loss `json:"lost,omitempty"`
	// Active is when somebody last asked or settled.
	Active time.Time `json:"active,omitzero"`
	// Next is the first event that waited for each consumer of a part of the log at the last look, so that a relay that was away, or another, knows whether it is still there.
	Next map[string]uint64 `json:"next,omitempty"`
}

// loss is the range that retention took.
type loss struct {
	First uint64    `json:"first"`
	Last  uint64    `json:"last"`
	Time  time.Time `json:"time"`
}

// notesOf returns what is noted of a subscription.
func (s *Store) notesOf(ctx context.Context, uid string) (n notes, revision uint64, err error) {
	v, err := s.states.Get(ctx, uid)
	if errors.Is(err, eventlog.ErrKeyNotFound) {
		return notes{}, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(v.Data, &n)
	}
	return n, v.Revision, err
}

// note changes what is noted of a subscription. edit returns false if nothing is to be changed.
func (s *Store) note(ctx context.Context, uid string, edit func(*notes) bool) error {
	for range maxTries {
		n, revision, err := s.notesOf(ctx, uid)
		if err != nil {
			return err
		}
		if !edit(&n) {
			return nil
		}
		data, err := json.Marshal(n)
		if err != nil {
			return err
		}
		if revision == 0 {
			_, err = s.states.Create(ctx, uid, data)
		} else {
			_, err = s.states.Update(ctx, uid, data, revision)
		}
		if !errors.Is(err, eventlog.ErrKeyExists) && !errors.Is(err, eventlog.ErrRevision) {
			return err
		}
	}
	return fmt.Errorf("%w: others change the notes of the subscription all the time", eventlog.ErrUnavailable)
}

// dropNotes forgets what is noted of a subscription.
func (s *Store) dropNotes(ctx context.Context, uid string) error {
	v, err := s.states.Get(ctx, uid)
	if err == nil {
		err = s.states.Delete(ctx, uid, v.Revision)
	}
	if errors.Is(err, eventlog.ErrKeyNotFound) || errors.Is(err, eventlog.ErrRevision) {
		return nil
	}
	return err
}

// Get returns the subscription of a name with how it stands now. The error wraps ErrNotFound or eventlog.ErrUnavailable.
func (s *Store) Get(ctx context.Context, name string) (*eventrelayv1.Subscription, error) {
	sub, err := s.fetch(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.show(ctx, sub)
}

// List returns all subscriptions behind a name, at most n, by name, as Get does.
func (s *Store) List(ctx context.Context, after string, n int) (list []*eventrelayv1.Subscription, more bool, err error) {
	all, err := s.all(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, sub := range all {
		if sub.name() <= after {
			continue
		}
		if len(list) == n {
			return list, true, nil
		}
		shown, err := s.show(ctx, sub)
		if err != nil {
			return nil, false, err
		}
		list = append(list, shown)
	}
	return list, false, nil
}

// Lost returns what retention took of a subscription before it was settled, or nil.
func (s *Store) Lost(ctx context.Context, name string) (*eventrelayv1.LostEvents, error) {
	sub, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	n, _, err := s.notesOf(ctx, sub.UID)
	return n.Lost.message(), err
}

func (l *loss) message() *eventrelayv1.LostEvents {
	if l == nil {
		return nil
	}
	return &eventrelayv1.LostEvents{FirstSequence: l.First, LastSequence: l.Last, Count: l.Last - l.First + 1, DetectTime: timestamppb.New(l.Time)}
}

// show returns what the API shows of a subscription.
func (s *Store) show(ctx context.Context, sub *Subscription) (*eventrelayv1.Subscription, error) {
	if err := s.overtaken(ctx, sub, true); err != nil {
		return nil, err
	}
	st, err := s.stand(ctx, sub)
	if err != nil {
		return nil, fmt.Errorf("read how %s stands: %w", sub.name(), err)
	}
	out := proto.CloneOf(sub.spec)
	out.Etag = sub.etag()
	sub.fill(out)
	out.Backlog, out.Outstanding, out.DeadLetterCount = st.waiting+st.outstanding, st.outstanding, st.deadLetters
	if !st.oldest.IsZero() {
		out.OldestUnackedTime = timestamppb.New(st.oldest)
	}
	active := st.notes.Active
	if here := time.Unix(0, sub.tally.active.Load()); here.After(active) && sub.tally.active.Load() > 0 {
		active = here
	}
	if !active.IsZero() {
		out.LastActivityTime = timestamppb.New(active)
	}
	out.LostEvents = st.notes.Lost.message()
	out.Stats = sub.tally.stats(s.tallies.since)
	switch {
	case out.GetLostEvents() != nil:
		out.State = eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_EVENTS_LOST
	case out.GetPaused():
		out.State = eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_PAUSED
	case sub.tally.isStalled() && out.GetBacklog() > 0:
		out.State = eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_STALLED
	default:
		out.State = eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE
	}
	return out, nil
}

// stand is how a subscription stands.
type stand struct {
	waiting, outstanding, deadLetters uint64
	// settled changes with what is settled.
	settled uint64
	oldest  time.Time
	notes   notes
}

func (s *Store) stand(ctx context.Context, sub *Subscription) (st stand, err error) {
	for _, p := range sub.parts {
		is, err := p.State(ctx)
		if errors.Is(err, eventlog.ErrNoConsumer) { // it is made when it is first pulled from
			if err = p.Ensure(ctx, p.options); err == nil {
				is, err = p.State(ctx)
			}
		}
		if err != nil {
			return st, err
		}
		st.waiting += is.Waiting
		st.outstanding += is.Outstanding
		st.settled += is.Given - min(is.Given, is.Outstanding)
		if is.Waiting+is.Outstanding == 0 {
			continue
		}
		// Everything up to what is settled is done, so the first behind it is the oldest that is not.
		e, err := s.log.First(ctx, max(is.Settled+1, p.options.From), p.options.Subjects)
		if err != nil && !errors.Is(err, eventlog.ErrNotFound) {
			return st, err
		}
		if err == nil && (st.oldest.IsZero() || e.Time.Before(st.oldest)) {
			st.oldest = e.Time
		}
	}
	is, err := sub.replay.State(ctx)
	switch {
	case errors.Is(err, eventlog.ErrNoConsumer):
	case err != nil:
		return st, err
	case is.Waiting+is.Outstanding > 0:
		st.waiting += is.Waiting
		st.outstanding += is.Outstanding
		if kept, err := s.shelf.Next(ctx, replays(sub.UID), is.Settled); err == nil {
			event := &eventrelayv1.Event{}
			if at := event.GetReceivedAt; proto.Unmarshal(kept.Data, event) == nil && at() != nil && (st.oldest.IsZero() || at().AsTime().Before(st.oldest)) {
				st.oldest = at().AsTime()
			}
		}
	}
	st.settled += is.Given - min(is.Given, is.Outstanding)
	if st.deadLetters, err = s.shelf.Count(ctx, letters(sub.UID)); err != nil {
		return st, err
	}
	st.notes, _, err = s.notesOf(ctx, sub.UID)
	return st, err
}

// look looks after all subscriptions from time to time, until ctx ends.
func (s *Store) look(ctx context.Context) {
	tick := time.NewTicker(s.o.Look)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !s.log.Up() {
			continue
		}
		list, err := s.all(ctx)
		if err != nil {
			s.logger.Debug("the subscriptions cannot be looked after at the moment", "error", err)
			continue
		}
		for _, sub := range list {
			if err := s.lookAt(ctx, sub); err != nil && ctx.Err() == nil {
				s.logger.Debug("a subscription cannot be looked after at the moment", "subscription", sub.name(), "error", err)
			}
		}
	}
}

// lookAt looks after one subscription.
func (s *Store) lookAt(ctx context.Context, sub *Subscription) error {
	if err := s.overtaken(ctx, sub, true); err != nil {
		return err
	}
	st, err := s.stand(ctx, sub)
	if err != nil {
		return err
	}
	backlog := st.waiting + st.outstanding
	stalled, news := sub.tally.progress(st.settled, backlog > 0 && !sub.spec.GetPaused(), s.o.StallAfter)
	if news && stalled {
		s.logger.Warn("a subscription has a backlog and makes no progress", "subscription", sub.name(), "backlog", backlog, "outstanding", st.outstanding, "since", s.o.StallAfter)
	} else if news {
		s.logger.Info("a subscription makes progress again", "subscription", sub.name(), "backlog", backlog)
	}
	s.meter(sub, st, stalled)
	return s.expire(ctx, sub, st.notes.Active)
}

// meter shows how a subscription stands.
func (s *Store) meter(sub *Subscription, st stand, stalled bool) {
	name, age, lost, still := sub.name(), 0.0, 0.0, 0.0
	if !st.oldest.IsZero() {
		age = max(0, time.Since(st.oldest).Seconds())
	}
	if l := st.notes.Lost; l != nil {
		lost = float64(l.Last - l.First + 1)
	}
	if stalled {
		still = 1
	}
	s.meters.backlog.WithLabelValues(name).Set(float64(st.waiting + st.outstanding))
	s.meters.outstanding.WithLabelValues(name).Set(float64(st.outstanding))
	s.meters.deadLetters.WithLabelValues(name).Set(float64(st.deadLetters))
	s.meters.oldest.WithLabelValues(name).Set(age)
	s.meters.lost.WithLabelValues(name).Set(lost)
	s.meters.stalled.WithLabelValues(name).Set(still)
}

// expire notes for other relays when a subscription was last active here, and deletes one that nobody has used for as long as it says.
func (s *Store) expire(ctx context.Context, sub *Subscription, noted time.Time) error {
	active := sub.tally.active.Load()
	here := time.Unix(0, active)
	if active > 0 && here.Sub(noted) >= noteActivity {
		if err := s.note(ctx, sub.UID, func(n *notes) bool {
			n.Active = here.UTC()
			return true
		}); err != nil {
			return err
		}
		noted = here
	}
	limit := sub.spec.GetExpireAfter().AsDuration()
	if limit == 0 {
		return nil
	}
	last := sub.spec.GetUpdateTime().AsTime()
	for _, t := range []time.Time{noted, here} {
		if t.After(last) {
			last = t
		}
	}
	if time.Since(last) < limit {
		return nil
	}
	s.logger.Warn("a subscription that nobody has used is deleted, as it says", "subscription", sub.name(), "last_active", last)
	return s.Delete(ctx, sub.name(), sub.etag())
}

// fill shows what an unset field means.
func (sub *Subscription) fill(out *eventrelayv1.Subscription) {
	out.AckDeadline = durationpb.New(sub.deadline())
	out.MinRetryDelay = durationpb.New(sub.minDelay())
	out.MaxRetryDelay = durationpb.New(sub.maxDelay())
	out.MaxDeliveryAttempts = int32(sub.attempts())
	if out.GetOrdering() == eventrelayv1.Ordering_ORDERING_UNSPECIFIED {
		out.Ordering = eventrelayv1.Ordering_ORDERING_NONE
	}
}
