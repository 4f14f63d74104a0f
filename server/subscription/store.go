package subscription

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventrelay/server/eventlog"
)

// Options are what New needs. Log and Metrics are required.
type Options struct {
	Log     *eventlog.Log
	Metrics prometheus.Registerer
	// KeepDeadLetters is how long dead letters are kept; 0 is for ever.
	KeepDeadLetters time.Duration
	// StallAfter is how long a backlog may be without progress before it is told; 0 means 10 minutes.
	StallAfter time.Duration
	// Look is how often every subscription is looked at; 0 means 5 seconds.
	Look time.Duration
	// Logger gets what no caller is told. nil discards.
	Logger *slog.Logger
}

const (
	defaultStallAfter = 10 * time.Minute
	defaultLook       = 5 * time.Second

	// keyName is where the key of the ack_ids lies in the bucket. No subscription has an id like that.
	keyName = "_key"
	keySize = 32

	// maxTries bounds how often a change without an etag is tried while others change the same subscription, and how often a pull looks for consumers that went away.
	maxTries = 10
)

// Store has all subscriptions of a log. It is safe for concurrent use.
type Store struct {
	o       Options
	log     *eventlog.Log
	logger  *slog.Logger
	bucket  *eventlog.Bucket // records
	states  *eventlog.Bucket // what is noted beside them, by UID
	shelf   *eventlog.Shelf  // dead letters, replays, and the reasons for which events were given back
	tallies *tallies
	meters  *meters
	// relay tells this relay from others that share the log.
	relay string
	// closing is closed by Close.
	closing chan struct{}
	close   func()

	mu    sync.Mutex // guards what follows
	known map[string]*Subscription
	key   []byte
}

// New returns the store. Nothing is read before it is asked for.
func New(o Options) *Store {
	if o.StallAfter == 0 {
		o.StallAfter = defaultStallAfter
	}
	if o.Look == 0 {
		o.Look = defaultLook
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		relay: rand.Text(), closing: make(chan struct{}),
		o: o, log: o.Log, logger: o.Logger, bucket: o.Log.Bucket("subscriptions"), states: o.Log.Bucket("subscription-states"),
		shelf: o.Log.Shelf("SUBSCRIPTIONS", o.KeepDeadLetters), tallies: newTallies(), meters: newMeters(o.Metrics), known: map[string]*Subscription{},
	}
	s.close = sync.OnceFunc(func() { close(s.closing) })
	return s
}

// Close has pulls that wait answer with what they have, those that come wait for nothing, and windows end with ErrClosed: the server goes down, and another relay has the rest.
func (s *Store) Close() { s.close() }

func (s *Store) isClosed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// Run follows the subscriptions, those that other relays change among them, and looks after each from time to time: it notes what is lost, tells what stalls, deletes what has
// expired, and keeps the metrics. It ends with ctx or when the log is closed; both are no error. It returns an error when the log was replaced.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { s.look(ctx) })
	running.Go(func() { s.listen(ctx) })
	running.Go(func() {
		if err := s.log.Losses(ctx, func(consumer string, seq uint64) { s.lost(ctx, consumer, seq) }); err != nil && !errors.Is(err, eventlog.ErrClosed) {
			s.logger.Warn("what retention takes of outstanding events is not told any more", "error", err)
		}
	})
	for c, err := range s.bucket.Watch(ctx) {
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, eventlog.ErrClosed)):
			return nil
		case err != nil:
			return fmt.Errorf("follow the subscriptions: %w", err)
		case c.Kind == eventlog.ChangeRestart:
			s.mu.Lock()
			clear(s.known) // what is still there follows; until then it is asked for
			s.mu.Unlock()
		case c.Kind == eventlog.ChangePut && c.Value.Key != keyName:
			if _, err := s.learn(c.Value); err != nil {
				s.logger.Error("the record of a subscription cannot be used", "error", err)
			}
		case c.Kind == eventlog.ChangeDelete:
			s.forget(c.Value.Key, c.Value.Revision)
		}
	}
	return nil
}

// learn takes a value of the bucket for what is known, unless something newer is, and returns what is known then.
func (s *Store) learn(v eventlog.Value) (*Subscription, error) {
	s.mu.Lock()
	is := s.known[v.Key]
	s.mu.Unlock()
	if is != nil && is.revision >= v.Revision {
		return is, nil
	}
	sub, err := s.parse(v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.known[v.Key]; is != nil && is.revision >= v.Revision {
		return is, nil
	}
	if is := s.known[v.Key]; is != nil && (is.UID != sub.UID || is.Generation != sub.Generation) {
		is.tally.empty() // what streams were handed was given up
	}
	s.known[v.Key] = sub
	sub.tally.ring() // it may not be paused any more
	return sub, nil
}

// forget drops what was deleted with a revision.
func (s *Store) forget(id string, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.known[id]; is != nil && is.revision <= revision {
		delete(s.known, id)
		is.tally.ring()
		is.tally.empty()
		s.tallies.drop(is.UID)
		s.meters.drop(is.name())
	}
}

// find returns a subscription as it is known, and asks the bucket for one that is not.
func (s *Store) find(ctx context.Context, name string) (*Subscription, error) {
	s.mu.Lock()
	is := s.known[strings.TrimPrefix(name, namePrefix)]
	s.mu.Unlock()
	if is != nil {
		return is, nil
	}
	return s.fetch(ctx, name)
}

// fetch returns a subscription as the bucket has it now.
func (s *Store) fetch(ctx context.Context, name string) (*Subscription, error) {
	id := strings.TrimPrefix(name, namePrefix)
	v, err := s.bucket.Get(ctx, id)
	switch {
	case errors.Is(err, eventlog.ErrKeyNotFound):
		s.mu.Lock()
		is := s.known[id]
		s.mu.Unlock()
		if is != nil {
			s.forget(id, is.revision)
		}
		return nil, &StateError{Name: name, Err: ErrNotFound}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return s.learn(v)
}

// all returns the subscriptions by name, as the bucket has them.
func (s *Store) all(ctx context.Context) ([]*Subscription, error) {
	values, err := s.bucket.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the subscriptions: %w", err)
	}
	found := map[string]*Subscription{}
	for _, v := range values {
		if v.Key == keyName {
			continue
		}
		sub, err := s.learn(v)
		if err != nil {
			s.logger.Error("the record of a subscription cannot be used", "error", err)
			continue
		}
		found[v.Key] = sub
	}
	list := make([]*Subscription, 0, len(found))
	for _, id := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[id])
	}
	return list, nil
}

// ackKey is the key of the ack_ids, which all relays of the log share. The first one makes it.
func (s *Store) ackKey(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	key := s.key
	s.mu.Unlock()
	if key != nil {
		return key, nil
	}
	v, err := s.bucket.Get(ctx, keyName)
	if errors.Is(err, eventlog.ErrKeyNotFound) {
		fresh := make([]byte, keySize)
		_, _ = rand.Read(fresh) // never fails
		if _, err = s.bucket.Create(ctx, keyName, fresh); err == nil || errors.Is(err, eventlog.ErrKeyExists) {
			v, err = s.bucket.Get(ctx, keyName)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of the ack_ids: %w", err)
	}
	if len(v.Data) != keySize {
		return nil, fmt.Errorf("the key of the ack_ids has %d bytes, not %d", len(v.Data), keySize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = v.Data
	return s.key, nil
}

// ensure makes the consumers of a subscription, or brings them up to date.
func (s *Store) ensure(ctx context.Context, sub *Subscription) error {
	if err := s.shelf.Open(ctx); err != nil {
		return err
	}
	for _, p := range append(slices.Clone(sub.parts), sub.replay) {
		if err := p.Ensure(ctx, p.options); err != nil {
			return fmt.Errorf("%s: %w", sub.name(), err)
		}
	}
	return nil
}
