package subscription

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

const (
	// gather is how long a pull that has events goes on looking for more, where most of what there is does not match.
	gather = 50 * time.Millisecond

	// slice is how long the log is waited for at a time; replayed dead letters are looked for in between.
	slice = 500 * time.Millisecond

	// shortRest and longRest are between two looks at whether there may be something for an ordered subscription that had nothing to give. Its partitions are asked when there
	// may be, and every quiet at the least: what is due again because a deadline or a rest has passed shows in nothing else.
	shortRest = 10 * time.Millisecond
	longRest  = 160 * time.Millisecond
	quiet     = time.Second

	// linger is how long a partition is asked, most of which have their one event outstanding, or none.
	linger = 5 * time.Millisecond

	// giveBackTime bounds the giving back of what nobody waits for any more.
	giveBackTime = 2 * time.Second
)

// Demand is how much a pull wants.
type Demand struct {
	// Max is the most events.
	Max int
	// MaxBytes is the size of all events as they are stored; a single one may exceed it.
	MaxBytes int
	// Wait is how long to wait for the first.
	Wait time.Duration
}

// Pull returns events that are due, each with its sequence, its ack_id and the number of the attempt; the caller has delivered them, or gives them back by Return. It waits for
// the first, and returns none when nothing came, or when ctx ends. The error wraps ErrNotFound or eventlog.ErrUnavailable; with one nothing is delivered.
func (s *Store) Pull(ctx context.Context, name string, want Demand) ([]*eventrelayv1.Event, error) {
	return s.pull(ctx, name, want, nil)
}

// pull is Pull, into a window if there is one.
func (s *Store) pull(ctx context.Context, name string, want Demand, into *Window) ([]*eventrelayv1.Event, error) {
	sub, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if into != nil {
		if err := into.same(sub); err != nil {
			return nil, err
		}
	}
	key, err := s.ackKey(ctx)
	if err != nil {
		return nil, err
	}
	p := &pull{store: s, sub: sub, into: into, key: key, want: want, began: time.Now(), rest: shortRest, passed: map[string]bool{}}
	sub.tally.touch()
	err = p.run(ctx)
	p.sub.tally.touch()
	if err == nil && len(p.events) > 0 && ctx.Err() != nil {
		err = context.Cause(ctx) // whoever asked has gone
	}
	if err != nil {
		s.Return(p.sub.name(), p.events)
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("pull from %s: %w", name, err)
	}
	p.sub.tally.noteAttempts(p.ids)
	if into != nil {
		into.hold(p.ids, p.sizes, p.sub.deadline())
	}
	p.count()
	return p.events, nil
}

// Return gives back events that could not be delivered after all. Their attempts count.
func (s *Store) Return(name string, events []*eventrelayv1.Event) {
	if len(events) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTime)
	defer cancel()
	ids := make([]string, 0, len(events))
	for _, e := range events {
		ids = append(ids, e.GetAckId())
	}
	if _, _, err := s.GiveBack(ctx, name, ids, ""); err != nil {
		s.logger.Debug("events that could not be delivered are due at their deadline", "subscription", name, "events", len(events), "error", err)
	}
}

// pull is one call of Pull.
type pull struct {
	store *Store
	sub   *Subscription
	into  *Window
	key   []byte
	want  Demand
	began time.Time
	rest  time.Duration

	events []*eventrelayv1.Event
	ids    []ackID // of the events
	sizes  []int   // of the events, as they are stored
	bytes  int
	// full is set when the next event would not fit.
	full bool
	// passed are the consumers whose last event was not wanted: another may wait right behind it.
	passed map[string]bool
	// last is where the log ended, as of the last look.
	last uint64
	// tries counts how often the consumers were not there.
	tries int
}

func (p *pull) room() int { return p.want.Max - len(p.events) }

// run goes round the consumers until it has something, or the time is up.
func (p *pull) run(ctx context.Context) error {
	deadline := p.began.Add(p.want.Wait)
	if p.sub.ordered() {
		if _, err := p.grown(ctx); err != nil { // before the first round, so that what comes after it shows
			return err
		}
	}
	for {
		bell := p.sub.tally.rung()
		moved := false
		if !p.sub.spec.GetPaused() && p.room() > 0 {
			if err := p.store.overtaken(ctx, p.sub, false); err != nil {
				return err
			}
			var err error
			if moved, err = p.round(ctx); err != nil {
				return err
			}
		}
		left, over := time.Until(deadline), ended(ctx)
		switch {
		case p.full || p.room() == 0 || over: // that nobody asks any more is told by the caller
			return nil
		case len(p.events) > 0 && (!moved || time.Since(p.began) > gather):
			return nil
		case left <= 0 || p.store.isClosed():
			return nil
		case moved:
			p.rest = shortRest
			continue
		}
		if err := p.wait(ctx, bell, left); err != nil {
			return err
		}
		if p.sub.ordered() && !time.Now().Before(deadline) {
			return nil // the next pull begins with all partitions; one more round would make this one late
		}
	}
}

// ended tells whether nobody waits for the answer any more.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// wait returns when something may be due.
func (p *pull) wait(ctx context.Context, bell <-chan struct{}, left time.Duration) error {
	if !p.sub.ordered() && !p.sub.spec.GetPaused() {
		_, err := p.fetch(ctx, p.sub.parts, []eventlog.Demand{{Consumer: p.sub.parts[0].Consumer, Max: 1, Wait: min(left, slice)}})
		return err
	}
	for until := time.Now().Add(min(left, quiet)); time.Now().Before(until); {
		timer := time.NewTimer(min(time.Until(until), p.rest))
		p.rest = min(2*p.rest, longRest)
		select {
		case <-bell:
			until = time.Time{}
		case <-timer.C:
		case <-p.store.closing:
			until = time.Time{}
		case <-ctx.Done():
			until = time.Time{} // which the caller looks at itself
		}
		timer.Stop()
		if more, err := p.grown(ctx); err != nil || more {
			break // what is wrong shows in the next round
		}
	}
	if p.sub.spec.GetPaused() {
		sub, err := p.store.find(ctx, p.sub.name())
		if err != nil {
			return err
		}
		p.sub = sub
	}
	return nil
}

// grown tells whether the log is longer than it was at the last call. One call to the log, where a round is one for each partition.
func (p *pull) grown(ctx context.Context) (bool, error) {
	state, err := p.store.log.State(ctx)
	if err != nil {
		return false, err
	}
	more := state.Last > p.last
	p.last = state.Last
	return more, nil
}

// round asks every consumer once for what it has, replayed dead letters first. moved says that there was something, wanted or not.
func (p *pull) round(ctx context.Context) (moved bool, err error) {
	if moved, err = p.fetch(ctx, []part{p.sub.replay}, []eventlog.Demand{p.demand(p.sub.replay, p.room(), p.want.MaxBytes-p.bytes)}); err != nil {
		return moved, err
	}
	parts := p.sub.parts
	order := rand.Perm(len(parts)) // so that no partition is always the last
	for len(order) > 0 && p.room() > 0 && !p.full && ctx.Err() == nil {
		n := min(len(order), p.room())
		size := max(1, (p.want.MaxBytes-p.bytes)/n)
		group, demands := make([]part, 0, n), make([]eventlog.Demand, 0, n)
		for _, i := range order[:n] {
			group = append(group, parts[i])
			demands = append(demands, p.demand(parts[i], p.room(), size))
		}
		asked := order[:n]
		order = slices.Clone(order[n:])
		p.passed = map[string]bool{}
		some, err := p.fetch(ctx, group, demands)
		if moved = moved || some; err != nil {
			return moved, err
		}
		for _, i := range asked {
			if p.sub.ordered() && i < len(p.sub.parts) && p.passed[p.sub.parts[i].Name()] {
				order = append(order, i)
			}
		}
		if len(p.events) > 0 && time.Since(p.began) > gather {
			break
		}
	}
	return moved, nil
}

func (p *pull) demand(of part, room, size int) eventlog.Demand {
	demand := eventlog.Demand{Consumer: of.Consumer, Max: room, MaxBytes: max(1, size)}
	if of.options.MaxOutstanding == 1 {
		demand.Max, demand.Linger = 1, linger
	}
	return demand
}

// fetch asks consumers and takes what they give. An event that alone is larger than what there is room for is taken if there is nothing else.
func (p *pull) fetch(ctx context.Context, group []part, demands []eventlog.Demand) (moved bool, err error) {
	got, err := p.store.log.Fetch(ctx, demands)
	moved = len(got.Deliveries) > 0
	for _, part := range group {
		if e := p.store.noteGiven(context.WithoutCancel(ctx), p.sub, part, got.Deliveries); e != nil && err == nil {
			err = e
		}
	}
	if e := p.take(ctx, demands, got.Deliveries); e != nil && err == nil {
		err = e
	}
	over := ended(ctx)
	switch {
	case over:
		return moved, nil // what came of it is the caller's to give back
	case err != nil:
		return moved, err
	case len(got.Gone) > 0:
		return moved, p.renew(ctx)
	case len(got.TooLarge) > 0 && len(p.events) > 0:
		p.full = true
		return moved, nil
	case len(got.TooLarge) > 0:
		one := demands[got.TooLarge[0]]
		one.Max, one.MaxBytes = 1, 0
		alone, err := p.fetch(ctx, group, []eventlog.Demand{one})
		return moved || alone, err
	}
	return moved, nil
}

// renew goes on with the subscription as it is now: consumers that are not there were removed by a seek or a deletion, or never made.
func (p *pull) renew(ctx context.Context) error {
	if p.tries++; p.tries > maxTries {
		return fmt.Errorf("%w: its consumers do not come up", eventlog.ErrUnavailable)
	}
	sub, err := p.store.fetch(ctx, p.sub.name())
	if err != nil {
		return err
	}
	if sub.Generation != p.sub.Generation || sub.UID != p.sub.UID {
		p.events, p.ids, p.sizes, p.bytes, p.full = nil, nil, nil, 0, false // of before, and given up
	}
	if p.into != nil {
		if err := p.into.same(sub); err != nil {
			return err
		}
	}
	p.sub = sub
	return p.store.ensure(ctx, sub)
}

// take sorts what was given: what is wanted is delivered, what was tried too often becomes a dead letter, the rest is settled.
func (p *pull) take(ctx context.Context, demands []eventlog.Demand, deliveries []eventlog.Delivery) error {
	var unwanted []string
	for _, d := range deliveries {
		wanted, err := p.one(ctx, d)
		if err != nil {
			return err
		}
		if !wanted {
			unwanted = append(unwanted, d.Receipt)
			p.passed[demands[d.Consumer].Consumer.Name()] = true
		}
	}
	if len(unwanted) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if !p.sub.ordered() {
		return p.store.log.Dismiss(ctx, unwanted) // what gets lost comes again, and is unwanted again
	}
	// The next one of a partition is there when this one is settled, so that is waited for.
	settlements := make([]eventlog.Settlement, 0, len(unwanted))
	for _, receipt := range unwanted {
		settlements = append(settlements, eventlog.Settlement{Receipt: receipt, Verdict: eventlog.Done})
	}
	_, err := p.store.log.Settle(ctx, settlements)
	return err
}

// one delivers an event if it is wanted.
func (p *pull) one(ctx context.Context, d eventlog.Delivery) (wanted bool, err error) {
	sequence, replayed := d.Sequence, false
	if kept, ok := strings.CutPrefix(d.Subject, "replay."+p.sub.UID+"."); ok {
		replayed = true
		if sequence, err = strconv.ParseUint(kept, 10, 64); err != nil {
			return false, fmt.Errorf("subject %q of a replay: %w", d.Subject, err)
		}
	}
	id := ackID{
		uid: p.sub.UID, generation: p.sub.Generation, replayed: replayed, sequence: sequence, attempt: d.Attempt, delivered: time.Now(), receipt: d.Receipt,
	}
	if d.Attempt > p.sub.attempts() {
		// The deadline of its last attempt has passed in silence.
		id.attempt, id.delivered = d.Attempt-1, time.Time{}
		return true, p.store.bury(context.WithoutCancel(ctx), p.sub, id, d.Data, "")
	}
	event := &eventrelayv1.Event{}
	if err := proto.Unmarshal(d.Data, event); err != nil {
		return false, fmt.Errorf("decode event %d of the log: %w", sequence, err)
	}
	if !replayed {
		match, err := p.sub.filter.Match(event)
		if err != nil {
			p.sub.tally.filterErrors.Add(1)
			p.store.meters.filterErrors.WithLabelValues(p.sub.name()).Inc()
		}
		if !match {
			return false, nil
		}
	}
	event.Sequence, event.AckId, event.DeliveryAttempt = sequence, id.encode(p.key), int32(d.Attempt)
	p.events, p.ids, p.sizes = append(p.events, event), append(p.ids, id), append(p.sizes, len(d.Data))
	p.bytes += len(d.Data)
	p.full = p.full || p.bytes >= p.want.MaxBytes
	return true, nil
}

// count counts what was delivered.
func (p *pull) count() {
	again := 0
	for _, e := range p.events {
		if e.GetDeliveryAttempt() > 1 {
			again++
		}
	}
	p.sub.tally.deliveries.Add(uint64(len(p.events)))
	p.sub.tally.redeliveries.Add(uint64(again))
	p.store.meters.deliveries.WithLabelValues(p.sub.name()).Add(float64(len(p.events)))
	p.store.meters.redeliveries.WithLabelValues(p.sub.name()).Add(float64(again))
}
