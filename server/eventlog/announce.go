package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// announcements are the subjects of what relays tell each other.
const announcements = "eventrelay."

// Announce tells all relays that share the log something, this one included, without waiting and without a promise: nothing may depend on it but how soon others know. An embedded
// log has one relay, which is told nothing.
func (l *Log) Announce(topic string, what any) {
	if l.opts.URL == "" {
		return
	}
	k, _, err := l.current()
	if err != nil || k == nil {
		return
	}
	data, err := json.Marshal(what)
	if err == nil {
		err = k.sub.Publish(announcements+topic, data)
	}
	if err != nil {
		l.log.Debug("the other relays are not told", "topic", topic, "error", err)
	}
}

// Announcements hears what is announced under a topic until ctx ends, and goes on by itself after the log was away. It returns nil at the end of ctx, or why it cannot go on.
func Announcements[T any](ctx context.Context, l *Log, topic string, hear func(T)) error {
	outer := ctx
	ctx, stop := l.scope(ctx)
	defer stop()
	for {
		k, err := l.reached(ctx)
		if err == nil {
			err = listen(ctx, k, topic, hear)
		}
		switch {
		case outer.Err() != nil:
			return nil
		case l.ctx.Err() != nil, errors.Is(err, ErrReplaced):
			return fmt.Errorf("listen for %s: %w", topic, l.wrap(ctx, err))
		}
		select {
		case <-time.After(maxBackoff / 10):
		case <-ctx.Done():
		}
	}
}

// listen listens over one link.
func listen[T any](ctx context.Context, k *link, topic string, hear func(T)) error {
	sub, err := k.sub.SubscribeSync(announcements + topic)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails when the connection is gone, and then so is the subscription
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			continue // what was missed was promised to nobody
		}
		if err != nil {
			return err
		}
		var said T
		if json.Unmarshal(m.Data, &said) == nil {
			hear(said)
		}
	}
}
