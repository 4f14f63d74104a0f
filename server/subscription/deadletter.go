package subscription

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// maxLettersBytes is where a page of dead letters ends early.
const maxLettersBytes = 2 << 20

// DeadLetters returns at most n dead letters behind a place among them, oldest first, and the place to go on behind, which is 0 when there are no more. The error wraps ErrNotFound or
// eventlog.ErrUnavailable.
func (s *Store) DeadLetters(ctx context.Context, name string, after uint64, n int) (list []*eventrelayv1.DeadLetter, next uint64, err error) {
	sub, err := s.find(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	bytes := 0
	for {
		kept, err := s.shelf.Next(ctx, letters(sub.UID), after)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			return list, 0, nil
		case err != nil:
			return nil, 0, err
		case len(list) == n, len(list) > 0 && bytes+len(kept.Data) > maxLettersBytes:
			return list, after, nil
		}
		dead := &eventrelayv1.DeadLetter{}
		if err := proto.Unmarshal(kept.Data, dead); err != nil {
			return nil, 0, fmt.Errorf("decode a dead letter of %s: %w", name, err)
		}
		list = append(list, dead)
		bytes += len(kept.Data)
		after = kept.Sequence
	}
}

// Replay has dead letters delivered once more, with attempts counted anew: those of the ids, or all that there are. It returns how many. The error wraps ErrNotFound, ErrDeadLetter or
// eventlog.ErrUnavailable; with eventlog.ErrUnavailable some may have been replayed.
func (s *Store) Replay(ctx context.Context, name string, ids []string) (uint64, error) {
	return s.each(ctx, name, ids, func(sub *Subscription, dead *eventrelayv1.DeadLetter, place uint64) error {
		sequence := dead.GetEvent().GetSequence()
		dead.Event.Sequence = 0
		data, err := proto.Marshal(dead.GetEvent())
		if err != nil {
			return fmt.Errorf("encode event %d: %w", sequence, err)
		}
		// First it is among the replays, then no dead letter: what is between the two after a crash is both, and never neither.
		if err := s.shelf.Put(ctx, replay(sub.UID, sequence), data); err != nil {
			return err
		}
		return s.takeAway(ctx, place)
	})
}

// Purge deletes dead letters for good: those of the ids, or all that there are. It returns as Replay does.
func (s *Store) Purge(ctx context.Context, name string, ids []string) (uint64, error) {
	return s.each(ctx, name, ids, func(_ *Subscription, _ *eventrelayv1.DeadLetter, place uint64) error { return s.takeAway(ctx, place) })
}

// takeAway removes a dead letter. One that somebody else has removed is no error.
func (s *Store) takeAway(ctx context.Context, place uint64) error {
	if err := s.shelf.Remove(ctx, place); err != nil && !errors.Is(err, eventlog.ErrNotFound) {
		return err
	}
	return nil
}

// each does something with dead letters: those of the ids, or all that are there at the moment of the call.
func (s *Store) each(ctx context.Context, name string, ids []string, do func(sub *Subscription, dead *eventrelayv1.DeadLetter, place uint64) error) (n uint64, err error) {
	sub, err := s.fetch(ctx, name)
	if err != nil {
		return 0, err
	}
	defer sub.tally.ring()
	var found []eventlog.Kept
	for _, id := range ids {
		sequence, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return 0, &StateError{Name: name, ID: id, Err: ErrDeadLetter}
		}
		kept, err := s.shelf.Next(ctx, letter(sub.UID, sequence), 0)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			return 0, &StateError{Name: name, ID: id, Err: ErrDeadLetter}
		case err != nil:
			return 0, err
		}
		kept.Data = nil // read again when its turn comes: a thousand large ones need not be held at once
		found = append(found, kept)
	}
	step := func(kept eventlog.Kept) error {
		dead := &eventrelayv1.DeadLetter{}
		if err := proto.Unmarshal(kept.Data, dead); err != nil {
			return fmt.Errorf("decode a dead letter of %s: %w", name, err)
		}
		n++
		return do(sub, dead, kept.Sequence)
	}
	for _, kept := range found {
		again, err := s.shelf.Next(ctx, kept.Subject, kept.Sequence-1)
		if errors.Is(err, eventlog.ErrNotFound) {
			continue // it was named twice, or somebody else was faster
		}
		if err == nil {
			err = step(again)
		}
		if err != nil {
			return n, err
		}
	}
	if len(ids) > 0 {
		return n, nil
	}
	total, err := s.shelf.Count(ctx, letters(sub.UID))
	if err != nil {
		return 0, err
	}
	for after := uint64(0); n < total; {
		kept, err := s.shelf.Next(ctx, letters(sub.UID), after)
		if errors.Is(err, eventlog.ErrNotFound) {
			break
		}
		if err == nil {
			after = kept.Sequence
			err = step(kept)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
