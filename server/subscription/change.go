package subscription

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
)

// Create stores a new subscription under an id, which begins at a sequence, and returns it as Get does. When it returns without an error the subscription is durable, and what
// is stored from then on belongs to it. The error is an *InvalidError or a *filter.InvalidError, or wraps ErrExists or eventlog.ErrUnavailable.
func (s *Store) Create(ctx context.Context, id string, spec *eventrelayv1.Subscription, from uint64) (*eventrelayv1.Subscription, error) {
	spec = proto.CloneOf(spec)
	if spec == nil {
		spec = &eventrelayv1.Subscription{}
	}
	clearOutput(spec)
	spec.Name = namePrefix + id
	spec.CreateTime = timestamppb.Now()
	spec.UpdateTime = spec.GetCreateTime()
	if err := check(spec); err != nil {
		return nil, err
	}
	var uid [uidSize / 2]byte
	_, _ = rand.Read(uid[:]) // never fails
	sub := &Subscription{id: id, spec: spec, record: record{UID: hex.EncodeToString(uid[:]), Generation: 1, From: from}}
	data, err := sub.encode()
	if err != nil {
		return nil, err
	}
	revision, err := s.bucket.Create(ctx, id, data)
	switch {
	case errors.Is(err, eventlog.ErrKeyExists):
		return nil, &StateError{Name: spec.GetName(), Err: ErrExists}
	case err != nil:
		return nil, fmt.Errorf("create %s: %w", spec.GetName(), err)
	}
	if sub, err = s.learn(eventlog.Value{Key: id, Data: data, Revision: revision}); err != nil {
		return nil, err
	}
	// Its place is in the record, so that consumers that could not be made now are made at the first pull and miss nothing.
	if err := s.ensure(ctx, sub); err != nil {
		s.logger.Warn("the consumers of a subscription are made when it is first pulled from", "subscription", spec.GetName(), "error", err)
	}
	s.logger.Info("a subscription was created", "subscription", spec.GetName())
	return s.show(ctx, sub)
}

// Update changes the fields of a subscription that the paths name, or those that are set where there are none, and returns it as Get does. spec has the name, the new values and,
// where the change is to be made from a certain state only, the etag. The error is an *InvalidError or a *filter.InvalidError, or wraps ErrNotFound, ErrStale or
// eventlog.ErrUnavailable.
func (s *Store) Update(ctx context.Context, spec *eventrelayv1.Subscription, paths []string) (*eventrelayv1.Subscription, error) {
	sub, err := s.change(ctx, spec.GetName(), spec.GetEtag(), func(to *Subscription) error {
		changed, err := merge(to.spec, spec, paths)
		if err != nil || !changed {
			return err
		}
		to.spec.UpdateTime = timestamppb.Now()
		return check(to.spec)
	})
	if err != nil {
		return nil, err
	}
	if err := s.ensure(ctx, sub); err != nil {
		return nil, err
	}
	s.logger.Info("a subscription was changed", "subscription", sub.name())
	return s.show(ctx, sub)
}

// Seek has a subscription go on at a sequence, with everything from there on delivered anew, and returns it as Get does. What was given out before is given up, and what was lost
// is settled. The error wraps ErrNotFound or eventlog.ErrUnavailable.
func (s *Store) Seek(ctx context.Context, name string, from uint64) (*eventrelayv1.Subscription, error) {
	var old []part
	sub, err := s.change(ctx, name, "", func(to *Subscription) error {
		old = to.parts
		to.Generation++
		to.From = from
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.ensure(ctx, sub); err != nil {
		return nil, err
	}
	if err := s.note(ctx, sub.UID, func(n *notes) bool { n.Lost = nil; return true }); err != nil {
		return nil, err
	}
	s.removeConsumers(ctx, name, old)
	sub.tally.ring()
	s.logger.Info("a subscription was sent elsewhere", "subscription", name, "sequence", from)
	return s.show(ctx, sub)
}

// Delete removes a subscription with its dead letters, if an etag is given only while it is the subscription's. The error wraps ErrNotFound, ErrStale or eventlog.ErrUnavailable.
func (s *Store) Delete(ctx context.Context, name, tag string) error {
	for range maxTries {
		sub, err := s.fetch(ctx, name)
		if err != nil {
			return err
		}
		if err := sub.matches(tag); err != nil {
			return err
		}
		err = s.bucket.Delete(ctx, sub.id, sub.revision)
		switch {
		case errors.Is(err, eventlog.ErrRevision):
			continue
		case err != nil:
			return fmt.Errorf("delete %s: %w", name, err)
		}
		s.forget(sub.id, sub.revision)
		s.removeConsumers(ctx, name, append(sub.parts, sub.replay))
		for _, subject := range []string{letters(sub.UID), replays(sub.UID), reasons(sub.UID)} {
			if err := s.shelf.Clear(ctx, subject); err != nil {
				s.logger.Warn("what a deleted subscription had laid aside stays until its time has passed", "subscription", name, "error", err)
			}
		}
		if err := s.dropNotes(ctx, sub.UID); err != nil {
			s.logger.Warn("what was noted of a deleted subscription stays", "subscription", name, "error", err)
		}
		s.logger.Info("a subscription was deleted", "subscription", name)
		return nil
	}
	return &StateError{Name: name, Err: ErrStale}
}

// removeConsumers lets the log forget consumers that nobody will ask any more. One that stays costs a little memory there, and touches nothing.
func (s *Store) removeConsumers(ctx context.Context, name string, parts []part) {
	for _, p := range parts {
		if err := p.Remove(ctx); err != nil {
			s.logger.Warn("a consumer that is not needed any more stays in the log", "subscription", name, "consumer", p.Name(), "error", err)
		}
	}
}

// change reads a subscription from the bucket, has a copy changed, and writes it back if nobody else has changed it in between. Without an etag it then tries again.
func (s *Store) change(ctx context.Context, name, tag string, edit func(to *Subscription) error) (*Subscription, error) {
	for range maxTries {
		is, err := s.fetch(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := is.matches(tag); err != nil {
			return nil, err
		}
		to := *is
		to.spec = proto.CloneOf(is.spec)
		if err := edit(&to); err != nil {
			return nil, err
		}
		data, err := to.encode()
		if err != nil {
			return nil, err
		}
		revision, err := s.bucket.Update(ctx, is.id, data, is.revision)
		switch {
		case err == nil:
			return s.learn(eventlog.Value{Key: is.id, Data: data, Revision: revision})
		case !errors.Is(err, eventlog.ErrRevision):
			return nil, fmt.Errorf("update %s: %w", name, err)
		}
	}
	return nil, &StateError{Name: name, Err: ErrStale}
}

// matches refuses an etag that is not the subscription's.
func (sub *Subscription) matches(tag string) error {
	if tag != "" && tag != sub.etag() {
		return &StateError{Name: sub.name(), Etag: sub.etag(), Err: ErrStale}
	}
	return nil
}

// etag is a word for the state of a subscription.
func (sub *Subscription) etag() string {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, sub.revision), sub.UID...))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// InvalidError says what is wrong with a subscription, or with a request to change one.
type InvalidError struct{ Violations []Violation }

// Violation is one thing that is wrong: the path of a field, and what is asked for.
type Violation struct{ Field, Description string }

// Error has all that is wrong.
func (e *InvalidError) Error() string {
	texts := make([]string, 0, len(e.Violations))
	for _, v := range e.Violations {
		texts = append(texts, v.Field+": "+v.Description)
	}
	return "invalid subscription: " + strings.Join(texts, "; ")
}

// check holds a subscription to the rules of its proto, and its filter to the language.
func check(spec *eventrelayv1.Subscription) error {
	var problems []Violation
	err := protovalidate.Validate(spec)
	if wrong, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		for _, v := range wrong.Violations {
			problems = append(problems, Violation{protovalidate.FieldPathString(v.Proto.GetField()), v.Proto.GetMessage()})
		}
	} else if err != nil {
		return fmt.Errorf("check %s: %w", spec.GetName(), err)
	}
	if spec.GetMaxRetryDelay() != nil && spec.GetMinRetryDelay().AsDuration() > spec.GetMaxRetryDelay().AsDuration() {
		problems = append(problems, Violation{"max_retry_delay", "it must not be shorter than min_retry_delay"})
	}
	if len(problems) > 0 {
		return &InvalidError{problems}
	}
	_, err = filter.Compile(spec.GetFilter())
	return err
}
