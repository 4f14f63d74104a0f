package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventrelay/server/eventlog/store"
)

// ErrNoConsumer is returned for a consumer that is not there: it was never made, or was removed, maybe by another relay.
var ErrNoConsumer = errors.New("no such consumer of the event log")

// Consumer is a durable reader: the log remembers, by name, what it was given and what of that is settled. What is given and not settled in time is given again. All relays
// that share the log share its consumers. All methods may be called at once by many goroutines, and end with ErrUnavailable while the log cannot be reached.
type Consumer struct {
	log  *Log
	name string
	from source
}

// source is the stream that a consumer reads.
type source struct{ stream, prefix string }

// Consumer returns the consumer of that name over the events: letters, digits, - and _. It is made by Ensure.
func (l *Log) Consumer(name string) *Consumer {
	return &Consumer{log: l, name: name, from: source{streamName, subjectPrefix}}
}

// Name is the name of the consumer.
func (c *Consumer) Name() string { return c.name }

// ConsumerOptions say what a consumer is given, and how.
type ConsumerOptions struct {
	// From is the sequence to begin at; it counts when the consumer is made, and never again. 0 is the first.
	From uint64
	// Subjects are what it is given, as Pattern makes them; none are all.
	Subjects []string
	// Deadline is how long what was given may stay unsettled before it is given again.
	Deadline time.Duration
	// Delays are how much longer what was not settled rests, after each attempt; the last counts for all further ones. None is no rest.
	Delays []time.Duration
	// MaxOutstanding is how much may be given and unsettled at any time.
	MaxOutstanding int
}

// Ensure makes the consumer if it is not there, and brings it up to date if it is: where it stands stays.
func (c *Consumer) Ensure(ctx context.Context, o ConsumerOptions) error {
	cfg := jetstream.ConsumerConfig{
		Durable: c.name, Description: "A subscription of eventrelay.", AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq: max(o.From, 1), AckWait: o.Deadline, MaxDeliver: -1, MaxAckPending: o.MaxOutstanding, FilterSubjects: o.Subjects,
	}
	for _, d := range o.Delays {
		cfg.BackOff = append(cfg.BackOff, o.Deadline+d)
		cfg.AckWait = cfg.BackOff[0]
	}
	err := c.call(ctx, func(ctx context.Context, k *link) error {
		_, err := k.js.CreateConsumer(ctx, c.from.stream, cfg)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			var made jetstream.Consumer
			if made, err = k.js.Consumer(ctx, c.from.stream, c.name); err == nil {
				is := made.CachedInfo().Config
				if sameConsumer(is, cfg) {
					return nil
				}
				cfg.DeliverPolicy, cfg.OptStartSeq = is.DeliverPolicy, is.OptStartSeq
				_, err = k.js.UpdateConsumer(ctx, c.from.stream, cfg)
			}
		}
		if err == nil && k.srv != nil {
			folder := c.log.folder.Consumer(store.Consumer{Stream: c.from.stream, Name: c.name})
			return k.synced(c.log.folder.SyncTree(folder)) // a consumer that a power cut made unknown would begin anew
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("make consumer %s: %w", c.name, err)
	}
	return nil
}

// sameConsumer compares what can be changed.
func sameConsumer(is, want jetstream.ConsumerConfig) bool {
	subjects := is.FilterSubjects
	if is.FilterSubject != "" {
		subjects = []string{is.FilterSubject}
	}
	return is.AckWait == want.AckWait && slices.Equal(is.BackOff, want.BackOff) && is.MaxAckPending == want.MaxAckPending && slices.Equal(subjects, want.FilterSubjects)
}

// Remove makes the log forget the consumer. One that is not there is no error.
func (c *Consumer) Remove(ctx context.Context) error {
	err := c.call(ctx, func(ctx context.Context, k *link) error { return k.js.DeleteConsumer(ctx, c.from.stream, c.name) })
	if err != nil && !errors.Is(err, ErrNoConsumer) {
		return fmt.Errorf("remove consumer %s: %w", c.name, err)
	}
	return nil
}

// ConsumerState is how far a consumer is.
type ConsumerState struct {
	// Settled is a sequence up to which everything that the consumer was to be given is settled or gone.
	Settled uint64
	// Given is the highest sequence that it was given.
	Given uint64
	// Waiting counts what it has not been given yet, Outstanding what was given and is not settled.
	Waiting, Outstanding uint64
}

// State tells how far the consumer is, or ErrNoConsumer.
func (c *Consumer) State(ctx context.Context) (ConsumerState, error) {
	var st ConsumerState
	err := c.call(ctx, func(ctx context.Context, k *link) (err error) {
		st, err = c.stateOver(ctx, k)
		return err
	})
	if err != nil {
		return ConsumerState{}, fmt.Errorf("read state of consumer %s: %w", c.name, err)
	}
	return st, nil
}

// stateOver asks for the state over one link.
func (c *Consumer) stateOver(ctx context.Context, k *link) (ConsumerState, error) {
	found, err := k.js.Consumer(ctx, c.from.stream, c.name)
	if err != nil {
		return ConsumerState{}, err
	}
	info := found.CachedInfo()
	return ConsumerState{Settled: info.AckFloor.Stream, Given: info.Delivered.Stream, Waiting: info.NumPending, Outstanding: uint64(info.NumAckPending)}, nil
}

// missing tells whether an error says that the consumer, or what it reads, is not there.
func (c *Consumer) missing(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// call does something within callTimeout, and makes of its error one of this package.
func (c *Consumer) call(ctx context.Context, do func(context.Context, *link) error) error {
	ctx, stop := c.log.scope(ctx)
	defer stop()
	k, err := c.log.link(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = do(bounded, k)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return ErrNoConsumer
	}
	return c.log.wrap(ctx, err)
}

// Pattern is what the subjects of events have in common that are of a source, in a partition and of a type; "" is any source and any type, -1 any partition. A type that
// ends with a dot stands for all that begin with it.
func Pattern(source string, partition int, kind string) string {
	var b strings.Builder
	b.WriteString(subjectPrefix)
	if source == "" {
		b.WriteByte('*')
	} else {
		writeToken(&b, source)
	}
	b.WriteByte('.')
	if partition < 0 {
		b.WriteByte('*')
	} else {
		writePartition(&b, partition)
	}
	b.WriteByte('.')
	words := strings.Split(kind, ".")
	open := words[len(words)-1] == "" // the type is "", or goes on
	if open {
		words = words[:len(words)-1]
	}
	if len(words) >= maxTokens { // a subject has no more of a type
		words, open = words[:maxTokens], false
	}
	for i, word := range words {
		if i > 0 {
			b.WriteByte('.')
		}
		writeToken(&b, word)
	}
	switch {
	case open && len(words) > 0:
		b.WriteString(".>")
	case open:
		b.WriteByte('>')
	}
	return b.String()
}

// Partitions is how many partitions the ordering keys are dealt to.
const Partitions = partitions

// First returns the first entry at or after a sequence whose subject matches one of the patterns, or ErrNotFound. No patterns are all events.
func (l *Log) First(ctx context.Context, from uint64, patterns []string) (Entry, error) {
	if len(patterns) == 0 {
		patterns = []string{subjectPrefix + ">"}
	}
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return Entry{}, fmt.Errorf("find first entry: %w", err)
	}
	var found Entry
	for _, pattern := range patterns {
		e, err := l.lookup(ctx, k, `{"next_by_subj":"`+pattern+`","seq":`+strconv.FormatUint(max(from, 1), 10)+`}`)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return Entry{}, fmt.Errorf("find first entry: %w", l.wrap(ctx, err))
		case found.Sequence == 0 || e.Sequence < found.Sequence:
			found = e
		}
	}
	if found.Sequence == 0 {
		return Entry{}, ErrNotFound
	}
	return found, nil
}

// Losses reports, until ctx ends, each sequence that retention removed from the log after a consumer was given it and before it was settled: such a one is told by the server
// once, to those who listen at that moment. It goes on by itself after the log was away, and returns nil at the end of ctx, or why it cannot go on.
func (l *Log) Losses(ctx context.Context, report func(consumer string, sequence uint64)) error {
	outer := ctx
	ctx, stop := l.scope(ctx)
	defer stop()
	for {
		k, err := l.reached(ctx)
		if err == nil {
			err = k.losses(ctx, report)
		}
		switch {
		case outer.Err() != nil:
			return nil
		case l.ctx.Err() != nil, errors.Is(err, ErrReplaced):
			return fmt.Errorf("listen for losses: %w", l.wrap(ctx, err))
		}
		select {
		case <-time.After(maxBackoff / 10):
		case <-ctx.Done():
		}
	}
}

// unacknowledged is the reason that the server gives for what it had to give up itself.
const unacknowledged = "Unacknowledged message was deleted"

// losses listens over one link.
func (k *link) losses(ctx context.Context, report func(consumer string, sequence uint64)) error {
	sub, err := k.sub.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED." + streamName + ".*")
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails when the connection is gone, and then so is the subscription
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			continue // what was missed shows in the state of the consumer
		}
		if err != nil {
			return err
		}
		advisory, err := terminated(m.Data)
		if err == nil && advisory.Reason == unacknowledged {
			report(advisory.Consumer, advisory.Sequence)
		}
	}
}
