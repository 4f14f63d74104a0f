package subscription

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// ErrClosed is returned to streams when the server goes down.
var ErrClosed = errors.New("the server is going down: come back, to this relay or another")

// Window is what one stream was handed and has not settled. It bounds that: an event leaves the window when it is acknowledged or given back, by whatever connection and relay,
// when its deadline passes, and when a seek gives it up. It belongs to the one goroutine that pulls.
type Window struct {
	store               *Store
	name, uid           string
	tally               *tally
	maxEvents, maxBytes int

	mu    sync.Mutex // guards what follows
	held  map[place]holding
	bytes int
	// next is when the first deadline passes, at the earliest.
	next time.Time
	// freed has a token when something has left the window, or the subscription is not there any more.
	freed chan struct{}
}

// place is where an event of a subscription lies: in the log, or among the replays.
type place struct {
	replayed bool
	sequence uint64
}

// holding is an event in a window.
type holding struct {
	bytes int
	until time.Time
}

func (a ackID) place() place { return place{a.replayed, a.sequence} }

// Open returns a window on a subscription, for a stream that wants at most so many events and bytes outstanding; a single event may exceed the bytes. It must be closed. The error
// wraps ErrNotFound or eventlog.ErrUnavailable.
func (s *Store) Open(ctx context.Context, name string, maxEvents, maxBytes int) (*Window, error) {
	sub, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	w := &Window{
		store: s, name: name, uid: sub.UID, tally: sub.tally, maxEvents: maxEvents, maxBytes: maxBytes, held: map[place]holding{}, freed: make(chan struct{}, 1),
	}
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	w.tally.windows[w] = struct{}{}
	return w, nil
}

// Close ends the window. What is in it stays outstanding until its deadline: whoever was handed it may still be at work, and acknowledge by another connection.
func (w *Window) Close() {
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	delete(w.tally.windows, w)
}

// Pull is Store.Pull of what the window has room for. While it has none, it waits for some. The error may also wrap ErrClosed; a subscription that was made anew under the
// name is another one, and ErrNotFound.
func (w *Window) Pull(ctx context.Context, want Demand) ([]*eventrelayv1.Event, error) {
	deadline := time.Now().Add(want.Wait)
	for {
		events, bytes, next := w.room(time.Now())
		want.Wait = time.Until(deadline)
		switch {
		case w.store.isClosed():
			return nil, ErrClosed
		case events > 0 && bytes > 0:
			want.Max, want.MaxBytes = min(want.Max, events), min(want.MaxBytes, bytes)
			got, err := w.store.pull(ctx, w.name, want, w)
			if err == nil && len(got) == 0 && w.store.isClosed() {
				err = ErrClosed
			}
			return got, err
		case want.Wait <= 0:
			return nil, nil
		}
		if err := w.wait(ctx, min(want.Wait, time.Until(next))); err != nil {
			return nil, err
		}
	}
}

// wait returns when something has left the window, or may have.
func (w *Window) wait(ctx context.Context, long time.Duration) error {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-w.freed:
	case <-timer.C:
	case <-w.store.closing:
	case <-ctx.Done():
		return ctx.Err()
	}
	sub, err := w.store.find(ctx, w.name)
	if err != nil {
		return err
	}
	return w.same(sub)
}

// same refuses a subscription that is not the one the window was opened on.
func (w *Window) same(sub *Subscription) error {
	if sub.UID != w.uid {
		return &StateError{Name: w.name, Err: ErrNotFound}
	}
	return nil
}

// room tells how many events and bytes the window has room for, and when the next deadline in it passes, at the earliest.
func (w *Window) room(now time.Time) (events, bytes int, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) > 0 && !now.Before(w.next) {
		w.next = time.Time{}
		for at, h := range w.held {
			switch {
			case !now.Before(h.until):
				w.drop(at)
			case w.next.IsZero() || h.until.Before(w.next):
				w.next = h.until
			}
		}
	}
	return w.maxEvents - len(w.held), w.maxBytes - w.bytes, w.next
}

// drop takes an event out. The caller holds mu.
func (w *Window) drop(at place) {
	w.bytes -= w.held[at].bytes
	delete(w.held, at)
}

// hold puts events into the window that it is about to be handed.
func (w *Window) hold(ids []ackID, sizes []int, deadline time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := time.Now().Add(deadline)
	if len(w.held) == 0 {
		w.next = until
	}
	for i, id := range ids {
		w.drop(id.place()) // a redelivery takes the place of the delivery before
		w.held[id.place()] = holding{sizes[i], until}
		w.bytes += sizes[i]
	}
}

// word is what relays of one log tell each other, so that the windows of one know what was settled by way of another. One that gets lost costs a stream some room until a deadline.
type word struct {
	// From is the relay that says it.
	From string `json:"from"`
	UID  string `json:"uid"`
	// Events and Replays are the sequences.
	Events  []uint64 `json:"events,omitempty"`
	Replays []uint64 `json:"replays,omitempty"`
	// Extended is the deadline that they were given anew; 0 says that they are settled or given back.
	Extended time.Duration `json:"extended,omitempty"`
}

// wordTopic is what relays tell each other by.
const wordTopic = "subscriptions.settled"

// tellSettled has the windows of all relays know that deliveries are settled or given back, or have their deadline begin anew.
func (s *Store) tellSettled(sub *Subscription, ids []ackID, extended time.Duration) {
	if len(ids) == 0 {
		return
	}
	w := word{From: s.relay, UID: sub.UID, Extended: extended}
	for _, id := range ids {
		if id.replayed {
			w.Replays = append(w.Replays, id.sequence)
		} else {
			w.Events = append(w.Events, id.sequence)
		}
	}
	sub.tally.hear(w)
	s.log.Announce(wordTopic, w)
}

// listen hears what other relays tell, until ctx ends.
func (s *Store) listen(ctx context.Context) {
	err := eventlog.Announcements(ctx, s.log, wordTopic, func(w word) {
		if t := s.tallies.known(w.UID); t != nil && w.From != s.relay {
			t.hear(w)
		}
	})
	if err != nil && !errors.Is(err, eventlog.ErrClosed) {
		s.logger.Warn("what other relays settle is not heard any more: streams count it until its deadline", "error", err)
	}
}

// hear takes what was settled out of all windows of the subscription, or keeps it there for longer.
func (t *tally) hear(said word) {
	t.mu.Lock()
	defer t.mu.Unlock()
	until := time.Now().Add(said.Extended)
	for w := range t.windows {
		w.mu.Lock()
		for i, sequence := range append(said.Events, said.Replays...) {
			at := place{i >= len(said.Events), sequence}
			h, ok := w.held[at]
			switch {
			case !ok:
			case said.Extended > 0:
				w.held[at] = holding{h.bytes, until}
			default:
				w.drop(at)
			}
		}
		w.mu.Unlock()
		w.signal()
	}
}

// signal wakes a Pull that waits for room.
func (w *Window) signal() {
	select {
	case w.freed <- struct{}{}:
	default: // it has not seen the last one yet
	}
}

// empty takes everything out of all windows of the subscription: it was given up, or the subscription is not there any more.
func (t *tally) empty() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.windows {
		w.mu.Lock()
		clear(w.held)
		w.bytes = 0
		w.mu.Unlock()
		w.signal()
	}
}

// Progress is how far a subscription is.
type Progress struct {
	// Settled is a sequence of the log up to which everything is settled, replayed dead letters apart.
	Settled uint64
	// Backlog counts what waits and what is outstanding.
	Backlog uint64
	// Lost is what retention took, or nil.
	Lost *eventrelayv1.LostEvents
}

// Progress tells how far the subscription of the window is. It asks the log, for each consumer once. The error wraps ErrNotFound or eventlog.ErrUnavailable.
func (w *Window) Progress(ctx context.Context) (Progress, error) {
	s := w.store
	sub, err := s.find(ctx, w.name)
	if err == nil {
		err = w.same(sub)
	}
	if err != nil {
		return Progress{}, err
	}
	log, err := s.log.State(ctx)
	if err != nil {
		return Progress{}, err
	}
	to := Progress{Settled: log.Last}
	for _, p := range append([]part{sub.replay}, sub.parts...) {
		is, err := p.State(ctx)
		switch {
		case errors.Is(err, eventlog.ErrNoConsumer) && p.Consumer == sub.replay.Consumer:
			continue
		case errors.Is(err, eventlog.ErrNoConsumer): // it is made at the first pull
			to.Settled = min(to.Settled, max(p.options.From, 1)-1)
			continue
		case err != nil:
			return Progress{}, fmt.Errorf("read how %s stands: %w", w.name, err)
		}
		to.Backlog += is.Waiting + is.Outstanding
		if p.Consumer != sub.replay.Consumer && is.Waiting+is.Outstanding > 0 {
			to.Settled = min(to.Settled, max(is.Settled, max(p.options.From, 1)-1))
		}
	}
	to.Lost, err = s.Lost(ctx, w.name)
	return to, err
}
