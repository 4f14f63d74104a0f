package subscription

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// Acknowledge settles deliveries for good, by whatever relay they were made; one that is settled already stays so. It returns the ids that are none of the subscription and those
// that a seek has given up, for which nothing was done. If all are unknown, the error wraps ErrAckID. It may wrap ErrNotFound or eventlog.ErrUnavailable; then some may have been
// settled, and it is safe to repeat.
func (s *Store) Acknowledge(ctx context.Context, name string, ids []string) (unknown, stale []string, err error) {
	sub, sorted, err := s.sort(ctx, name, ids)
	if err != nil {
		return nil, nil, err
	}
	settlements := make([]eventlog.Settlement, 0, len(sorted.ours))
	for _, id := range sorted.ours {
		settlements = append(settlements, eventlog.Settlement{Receipt: id.receipt, Verdict: eventlog.Done})
	}
	done, err := s.settle(ctx, sub, &sorted, settlements)
	sub.tally.acknowledged.Add(uint64(done))
	s.meters.acknowledged.WithLabelValues(sub.name()).Add(float64(done))
	if err == nil {
		sub.tally.forgetAttempts(sorted.ours)
		s.tellSettled(sub, sorted.ours, 0)
	}
	return sorted.unknown, sorted.stale, err
}

// Extend has the deadlines of deliveries begin anew. It returns as Acknowledge does.
func (s *Store) Extend(ctx context.Context, name string, ids []string) (unknown, stale []string, err error) {
	sub, sorted, err := s.sort(ctx, name, ids)
	if err != nil {
		return nil, nil, err
	}
	settlements := make([]eventlog.Settlement, 0, len(sorted.ours))
	for _, id := range sorted.ours {
		settlements = append(settlements, eventlog.Settlement{Receipt: id.receipt, Verdict: eventlog.More})
	}
	if _, err = s.settle(ctx, sub, &sorted, settlements); err == nil {
		s.tellSettled(sub, sorted.ours, sub.deadline())
	}
	return sorted.unknown, sorted.stale, err
}

// GiveBack has events delivered again, after the delay of their attempt, or makes them dead letters if it was the last one. The reason, if there is one, is kept. It returns as
// Acknowledge does; stale are also those that this relay has delivered again since.
func (s *Store) GiveBack(ctx context.Context, name string, ids []string, why string) (unknown, stale []string, err error) {
	sub, sorted, err := s.sort(ctx, name, ids)
	if err != nil {
		return nil, nil, err
	}
	sorted.outdate(sub)
	settlements := make([]eventlog.Settlement, 0, len(sorted.ours))
	var last, ours []ackID
	var texts []string
	for i, id := range sorted.ours {
		if id.attempt >= sub.attempts() {
			last = append(last, id)
			continue
		}
		if why != "" {
			if err := s.remember(ctx, id, why); err != nil {
				return nil, nil, err
			}
		}
		ours, texts = append(ours, id), append(texts, sorted.texts[i])
		settlements = append(settlements, eventlog.Settlement{Receipt: id.receipt, Verdict: eventlog.Back, Delay: sub.minDelay()})
	}
	all := sorted.ours
	sorted.ours, sorted.texts = ours, texts
	if _, err := s.settle(ctx, sub, &sorted, settlements); err != nil {
		return nil, nil, err
	}
	for _, id := range last {
		if err := s.buryLast(ctx, sub, id, why); err != nil {
			return nil, nil, err
		}
	}
	s.tellSettled(sub, all, 0)
	return sorted.unknown, sorted.stale, nil
}

// sorted is what ids turned out to be.
type sorted struct {
	ours           []ackID
	texts          []string // of ours
	unknown, stale []string
}

// outdate moves to the stale ones those whose event was given to somebody else since: who lost it must not take it from them, nor use up its attempts.
func (s *sorted) outdate(sub *Subscription) {
	ours, texts := s.ours, s.texts
	s.ours, s.texts = nil, nil
	for i, id := range ours {
		if sub.tally.outdated(id) {
			s.stale = append(s.stale, texts[i])
		} else {
			s.ours, s.texts = append(s.ours, id), append(s.texts, texts[i])
		}
	}
}

// sort tells ids of a subscription, as it is now, from others.
func (s *Store) sort(ctx context.Context, name string, texts []string) (*Subscription, sorted, error) {
	sub, err := s.find(ctx, name)
	if err != nil {
		return nil, sorted{}, err
	}
	key, err := s.ackKey(ctx)
	if err != nil {
		return nil, sorted{}, err
	}
	var (
		found   sorted
		fields  []string
		ids     []ackID
		refetch bool
	)
	for i, text := range texts {
		id, err := decodeAckID(key, text)
		if err != nil {
			found.unknown = append(found.unknown, text)
			fields = append(fields, "ack_ids["+strconv.Itoa(i)+"]")
			ids = append(ids, ackID{})
			continue
		}
		ids = append(ids, id)
		// Another relay may have created it anew, or sent it elsewhere, before the watch has said so here.
		refetch = refetch || id.uid != sub.UID || id.generation > sub.Generation
	}
	if refetch {
		if sub, err = s.fetch(ctx, name); err != nil {
			return nil, sorted{}, err
		}
	}
	for i, id := range ids {
		switch {
		case id.receipt == "": // unknown
		case id.uid != sub.UID:
			found.unknown = append(found.unknown, texts[i])
			fields = append(fields, "ack_ids["+strconv.Itoa(i)+"]")
		case id.generation != sub.Generation && !id.replayed:
			found.stale = append(found.stale, texts[i])
		default:
			found.ours = append(found.ours, id)
			found.texts = append(found.texts, texts[i])
		}
	}
	if len(found.unknown) == len(texts) && len(texts) > 0 {
		return nil, sorted{}, &StateError{Name: name, Fields: fields, Err: ErrAckID}
	}
	sub.tally.touch()
	return sub, found, nil
}

// settle tells the log, and moves to the stale ones what the log does not know any more. It returns how many were settled.
func (s *Store) settle(ctx context.Context, sub *Subscription, ids *sorted, settlements []eventlog.Settlement) (done int, err error) {
	if len(settlements) == 0 {
		return 0, nil
	}
	gone, err := s.log.Settle(ctx, settlements)
	if err != nil {
		return 0, fmt.Errorf("settle events of %s: %w", sub.name(), err)
	}
	for i := range gone {
		if gone[i] && i < len(ids.texts) {
			ids.stale = append(ids.stale, ids.texts[i])
			continue
		}
		done++
	}
	sub.tally.ring()
	return done, nil
}

// failure is why an event was given back. It is stored state.
type failure struct {
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
	Attempt int       `json:"attempt"`
}

// remember keeps a reason for the dead letter that an event may become.
func (s *Store) remember(ctx context.Context, id ackID, why string) error {
	data, err := json.Marshal(failure{Reason: why, Time: time.Now().UTC(), Attempt: id.attempt})
	if err != nil {
		return err
	}
	return s.shelf.Put(ctx, reason(id.uid, id.sequence), data)
}

// recall returns the last reason that an event was given back for, if there was any.
func (s *Store) recall(ctx context.Context, id ackID) (failure, error) {
	var f failure
	kept, err := s.shelf.Next(ctx, reason(id.uid, id.sequence), 0)
	switch {
	case errors.Is(err, eventlog.ErrNotFound):
		return f, nil
	case err != nil:
		return f, err
	}
	return f, json.Unmarshal(kept.Data, &f)
}

// buryLast makes a dead letter of an event that was given back after its last attempt, unless it is settled already.
func (s *Store) buryLast(ctx context.Context, sub *Subscription, id ackID, why string) error {
	data, err := s.outstanding(ctx, sub, id)
	switch {
	case errors.Is(err, eventlog.ErrNotFound):
		return nil // it was settled, or retention took it, which is told as a loss
	case err != nil:
		return err
	}
	return s.bury(ctx, sub, id, data, why)
}

// outstanding returns the stored event of a delivery that is not known to be settled, or eventlog.ErrNotFound.
func (s *Store) outstanding(ctx context.Context, sub *Subscription, id ackID) ([]byte, error) {
	if id.replayed {
		kept, err := s.shelf.Next(ctx, replay(sub.UID, id.sequence), 0)
		return kept.Data, err
	}
	for _, p := range sub.parts {
		if !strings.Contains(id.receipt, "."+p.Name()+".") {
			continue
		}
		st, err := p.State(ctx)
		if err != nil {
			return nil, err
		}
		if st.Settled >= id.sequence {
			return nil, eventlog.ErrNotFound
		}
	}
	entry, err := s.log.Get(ctx, id.sequence)
	return entry.Data, err
}

// bury makes a dead letter of an event, and settles it only when the dead letter is durable. Done twice it is one dead letter still, for each event has one place among them.
func (s *Store) bury(ctx context.Context, sub *Subscription, id ackID, data []byte, why string) error {
	event := &eventrelayv1.Event{}
	if err := proto.Unmarshal(data, event); err != nil {
		return fmt.Errorf("decode event %d of the log: %w", id.sequence, err)
	}
	event.Sequence = id.sequence
	dead := &eventrelayv1.DeadLetter{
		Id: strconv.FormatUint(id.sequence, 10), Event: event, DeliveryAttempts: int32(id.attempt), LastError: why, DeadLetterTime: timestamppb.Now(),
	}
	if !id.delivered.IsZero() {
		dead.LastDeliveryTime = timestamppb.New(id.delivered)
	}
	if why != "" {
		dead.LastErrorTime = dead.GetDeadLetterTime()
	} else {
		f, err := s.recall(ctx, id)
		if err != nil {
			return err
		}
		if f.Reason != "" {
			dead.LastError, dead.LastErrorTime = f.Reason, timestamppb.New(f.Time)
		}
	}
	text, err := proto.Marshal(dead)
	if err != nil {
		return fmt.Errorf("encode a dead letter of %s: %w", sub.name(), err)
	}
	if err := s.shelf.Put(ctx, letter(sub.UID, id.sequence), text); err != nil {
		return err
	}
	if _, err := s.log.Settle(ctx, []eventlog.Settlement{{Receipt: id.receipt, Verdict: eventlog.Done}}); err != nil {
		return fmt.Errorf("settle event %d of %s, which is a dead letter: %w", id.sequence, sub.name(), err)
	}
	if err := s.shelf.Clear(ctx, reason(sub.UID, id.sequence)); err != nil {
		return err
	}
	sub.tally.deadLettered.Add(1)
	s.meters.deadLettered.WithLabelValues(sub.name()).Inc()
	sub.tally.ring()
	s.logger.Warn("an event became a dead letter", "subscription", sub.name(), "sequence", id.sequence, "attempts", id.attempt)
	return nil
}
