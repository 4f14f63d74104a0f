package subscription

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"eventrelay/server/eventlog"
)

// lookAtMost is how often a pull looks for what retention took.
const lookAtMost = time.Second

// overtaken notes what retention took before it was given to a subscription. It looks at most once in a while, unless now.
func (s *Store) overtaken(ctx context.Context, sub *Subscription, now bool) error {
	last := sub.tally.looked.Load()
	if !now && time.Since(time.Unix(0, last)) < lookAtMost {
		return nil
	}
	sub.tally.looked.Store(time.Now().UnixNano())
	log, err := s.log.State(ctx)
	if err != nil {
		return err
	}
	narrow := len(sub.parts[0].options.Subjects) > 0
	if narrow && !sub.tally.informed() {
		n, _, err := s.notesOf(ctx, sub.UID)
		if err != nil {
			return err
		}
		sub.tally.inform(n.Next)
	}
	for _, p := range sub.parts {
		is, err := p.State(ctx)
		if errors.Is(err, eventlog.ErrNoConsumer) {
			continue
		}
		if err != nil {
			return err
		}
		given := max(is.Given, p.options.From-min(p.options.From, 1))
		next := given + 1
		if len(p.options.Subjects) > 0 {
			// What lies behind the last one given may never have been for this consumer, so what is lost is what was known to wait.
			known := sub.tally.nextOf(p.Name())
			e, err := s.log.First(ctx, next, p.options.Subjects)
			if err != nil && !errors.Is(err, eventlog.ErrNotFound) {
				return err
			}
			sub.tally.setNext(p.Name(), e.Sequence)
			if known < next { // it was given since, or none was known
				continue
			}
			next = known
		}
		sub.tally.setGiven(p.Name(), given)
		if log.First > next {
			if err := s.lose(ctx, sub, next, log.First-1); err != nil {
				return err
			}
		}
	}
	if !narrow || !now {
		return nil
	}
	next, news := sub.tally.toNote(sub.parts)
	if !news {
		return nil
	}
	return s.note(ctx, sub.UID, func(n *notes) bool {
		n.Next = next
		return true
	})
}

// noteGiven notes how far a consumer has come, and what retention took just before it was given: a gap in what was never given before, where the log does not reach back to.
func (s *Store) noteGiven(ctx context.Context, sub *Subscription, p part, deliveries []eventlog.Delivery) error {
	if len(p.options.Subjects) > 0 {
		return nil // gaps are the rule
	}
	var first, last uint64
	for _, d := range deliveries {
		if d.Attempt == 1 {
			if first == 0 {
				first = d.Sequence
			}
			last = d.Sequence
		}
	}
	known := sub.tally.givenOf(p.Name())
	if last > known {
		sub.tally.setGiven(p.Name(), last)
	}
	if known == 0 || first <= known+1 {
		return nil
	}
	log, err := s.log.State(ctx)
	if err != nil || log.First <= known+1 {
		return err
	}
	return s.lose(ctx, sub, known+1, min(log.First, first)-1)
}

func (t *tally) givenOf(consumer string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.given[consumer]
}

func (t *tally) setGiven(consumer string, sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.given[consumer] = sequence
}

func (t *tally) nextOf(consumer string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next[consumer]
}

// informed tells whether what was noted before the start is known.
func (t *tally) informed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.noted != nil
}

// inform takes in what was noted before the start, where nothing newer is known.
func (t *tally) inform(noted map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for consumer, sequence := range noted {
		if _, known := t.next[consumer]; !known {
			t.next[consumer] = sequence
		}
	}
	t.noted = map[string]uint64{}
	maps.Copy(t.noted, noted)
}

// toNote returns what waits for consumers, where anything does, and whether that is news.
func (t *tally) toNote(parts []part) (next map[string]uint64, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = map[string]uint64{}
	for _, p := range parts {
		if t.next[p.Name()] > 0 {
			next[p.Name()] = t.next[p.Name()]
		}
	}
	if maps.Equal(next, t.noted) {
		return nil, false
	}
	t.noted = maps.Clone(next)
	return next, true
}

func (t *tally) setNext(consumer string, sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next[consumer] = sequence
}

// lose notes a range as lost. Noted twice, by whatever relay, it counts once.
func (s *Store) lose(ctx context.Context, sub *Subscription, first, last uint64) error {
	var noted loss
	err := s.note(ctx, sub.UID, func(n *notes) bool {
		noted = loss{First: first, Last: last, Time: time.Now().UTC()}
		if is := n.Lost; is != nil {
			if is.First <= first && is.Last >= last {
				noted = loss{}
				return false
			}
			noted.First, noted.Last, noted.Time = min(first, is.First), max(last, is.Last), is.Time
		}
		n.Lost = &noted
		return true
	})
	if err == nil && noted.Last > 0 {
		s.logger.Error("retention has removed events before a subscription had them acknowledged; a seek settles it",
			"subscription", sub.name(), "first_sequence", noted.First, "last_sequence", noted.Last)
	}
	return err
}

// lost notes what retention took after it was given to a consumer.
func (s *Store) lost(ctx context.Context, consumer string, sequence uint64) {
	s.mu.Lock()
	var of *Subscription
	for _, sub := range s.known {
		if strings.HasPrefix(consumer, fmt.Sprintf("sub-%s-%d", sub.UID, sub.Generation)) {
			of = sub
		}
	}
	s.mu.Unlock()
	if of == nil {
		return
	}
	if err := s.lose(ctx, of, sequence, sequence); err != nil && ctx.Err() == nil {
		s.logger.Error("retention has removed an event that was outstanding, and that could not be noted", "subscription", of.name(), "sequence", sequence, "error", err)
	}
}
