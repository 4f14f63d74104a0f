package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// link is one working way to the log: the connections and, embedded, the server behind them. It is never repaired. When it
// fails it is thrown away and another is made, so that nothing sent over the old one waits in a buffer to be sent again.
type link struct {
	srv *server.Server // nil with a URL
	dir dirSync        // embedded only
	pub *nats.Conn     // events are published here, so that a burst of reads delays no acknowledgement
	sub *nats.Conn
	js  jetstream.JetStream

	replies string             // prefix of the subjects on which acknowledgements arrive
	acks    *nats.Subscription // on pub; used by the one Append that runs

	maxRecord int // bytes of one message, headers included
	replicas  int // of the stream
}

const (
	// minPayload is the smallest max_payload of a server that can hold what a webhook of a few MiB becomes.
	minPayload = 16 << 20

	// pingInterval makes a connection to a dead host known within half a minute.
	pingInterval = 10 * time.Second

	minBackoff = 10 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// connect makes a link: starts the embedded server or dials, checks what is there, and sees to the stream. damaged says that
// the store of the embedded server had a write error.
func (l *Log) connect(ctx context.Context, damaged bool) (_ *link, err error) {
	k := &link{}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if l.opts.URL == "" {
		if k.srv, err = startServer(l.opts, l.log, damaged, l.acked.time()); err != nil {
			return nil, err
		}
	}
	if k.pub, err = l.dial(ctx, k); err != nil {
		return nil, err
	}
	if k.srv == nil {
		if err := checkServer(k.pub); err != nil {
			return nil, err
		}
	}
	if k.sub, err = l.dial(ctx, k); err != nil {
		return nil, err
	}
	// A subject of its own for the answers, subscribed once: the client's own requests share a subscription with everything else.
	k.replies = nats.NewInbox() + "."
	if k.acks, err = k.pub.SubscribeSync(k.replies + "*"); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	k.maxRecord = int(min(k.pub.MaxPayload(), maxStoredRecord)) - recordOverhead
	if k.js, err = jetstream.New(k.sub, jetstream.WithDefaultTimeout(callTimeout)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout) // a cluster may have to elect leaders first
	defer cancel()
	if err := l.ensureStream(ctx, k); err != nil {
		return nil, err
	}
	if k.srv != nil {
		k.dir = dirSync{path: messageDir(l.opts.Dir)}
		if err := syncTree(l.opts.Dir, k.dir.path); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// dial opens one connection. It does not reconnect by itself: its end is the end of the link, and the next link dials anew.
func (l *Log) dial(ctx context.Context, k *link) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("eventrelay"),
		nats.NoReconnect(),
		nats.Timeout(callTimeout),
		nats.PingInterval(pingInterval),
		nats.ClosedHandler(func(*nats.Conn) { l.fault(k, errors.New("connection lost")) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.log.Debug("nats connection", "error", err) }),
	}
	if k.srv != nil {
		opts = append(opts, nats.InProcessServer(k.srv))
	}
	if d, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(max(time.Millisecond, min(callTimeout, time.Until(d)))))
	}
	nc, err := nats.Connect(l.opts.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: connect: %w", ErrUnavailable, err)
	}
	return nc, nil
}

// checkServer refuses, by name, a server that lacks what this package needs.
func checkServer(nc *nats.Conn) error {
	var major, minor int
	v := nc.ConnectedServerVersion()
	if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err != nil || major < 2 || major == 2 && minor < 12 {
		return fmt.Errorf("%w: nats-server %s is too old, 2.12 or newer is needed", ErrUnsupported, v)
	}
	if nc.MaxPayload() < minPayload {
		return fmt.Errorf("%w: its max_payload is %d, at least %d (16MB) is needed", ErrUnsupported, nc.MaxPayload(), minPayload)
	}
	return nil
}

// close ends the connections and the embedded server. When it returns, nothing that was sent over this link can still be
// stored by an embedded server.
func (k *link) close() {
	for _, nc := range []*nats.Conn{k.pub, k.sub} {
		if nc != nil {
			nc.Close()
		}
	}
	if k.srv != nil {
		stopServer(k.srv)
	}
}

// damage tells whether the embedded server has stopped storing, and why. A write error is sticky there, and a publish that
// meets one is not even answered.
func (k *link) damage() error {
	if k.srv == nil {
		return nil
	}
	return serverDamage(k.srv)
}

// link returns the link in use, or waits for the one being made, a while.
func (l *Log) link(ctx context.Context) (*link, error) {
	var timeout <-chan time.Time
	for {
		l.mu.Lock()
		k, moved, fatal, closed := l.cur, l.moved, l.fatal, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case fatal != nil:
			return nil, fatal
		case k != nil:
			return k, nil
		}
		// There is none just now. Most often there is one again in a moment.
		if timeout == nil {
			t := time.NewTimer(callTimeout)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-moved:
		case <-timeout:
			return nil, fmt.Errorf("%w: no connection", ErrUnavailable)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: no connection: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// install makes k the link in use. mu is held.
func (l *Log) install(k *link) {
	l.cur = k
	close(l.moved)
	l.moved = make(chan struct{})
}

// fault retires the link because of cause and has another made. Only the first report counts.
func (l *Log) fault(k *link, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur != k || k == nil || l.closed {
		return // it is being replaced already, or was never in use, or never will be
	}
	l.cur = nil
	l.work.Add(1)
	go l.replace(k, cause)
}

// replaced makes ErrReplaced the answer to every call.
func (l *Log) replaced(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == k && l.fatal == nil {
		l.log.Error("the event log was replaced by another; it has to be opened anew", "id", l.id)
		l.fatal = ErrReplaced
	}
}

// replace closes the failed link and makes another, for as long as it takes. It ends with Close.
func (l *Log) replace(old *link, cause error) {
	defer l.work.Done()
	damage := old.damage()
	if damage != nil {
		cause = damage
	}
	l.log.Warn("event log is unavailable, opening it again", "cause", cause)
	old.close() // from here on nothing of it can be stored any more
	if damage == nil && old.srv != nil {
		// It was slow, not broken, and has stopped in order. Without the mark the next start reads all blocks, no more.
		if err := markClean(l.opts.Dir); err != nil {
			l.log.Debug("event log is not marked as cleanly stopped", "error", err)
		}
	}
	began, backoff := time.Now(), minBackoff
	for {
		k, err := l.connect(l.ctx, damage != nil)
		l.mu.Lock()
		switch {
		case err == nil:
			l.install(k)
			l.mu.Unlock()
			l.log.Info("event log is available again", "after", time.Since(began))
			if k.pub.IsClosed() || k.sub.IsClosed() {
				l.fault(k, errors.New("connection lost")) // before it was installed, when nobody was told
			}
			return
		case errors.Is(err, ErrReplaced):
			l.fatal = err
			close(l.moved)
			l.mu.Unlock()
			l.log.Error("the event log was replaced by another; it has to be opened anew", "id", l.id)
			return
		}
		l.mu.Unlock()
		if l.ctx.Err() != nil {
			return
		}
		l.log.Debug("event log is still unavailable", "error", err)
		select {
		case <-time.After(backoff):
		case <-l.ctx.Done():
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}
