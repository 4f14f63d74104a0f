package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventrelay/server/eventlog/store"
)

// link is one working way to the log: the connections and, embedded, the server behind them. It is never repaired. When it
// fails it is thrown away and another is made, so that nothing sent over the old one waits in a buffer to be sent again.
type link struct {
	srv  *server.Server // nil with a URL
	disk disk           // embedded only
	wire *wire          // the sockets with a URL
	deny func(error)    // reports that the server forbids what is asked of it
	pub  *nats.Conn     // events are published here, so that a burst of reads delays no acknowledgement
	sub  *nats.Conn
	js   jetstream.JetStream

	replies string             // prefix of the subjects on which acknowledgements arrive
	acks    *nats.Subscription // on pub; used by the one Append that runs

	maxRecord int // bytes of one message, headers included
	replicas  int // of the stream

	alive context.Context // ends with close
	end   context.CancelFunc
}

// connect makes a link: starts the embedded server or dials, checks what is there, and sees to the stream. damaged says that
// the store of the embedded server had a write error.
func (l *Log) connect(ctx context.Context, damaged bool) (_ *link, err error) {
	ctx, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	k := &link{wire: &wire{ctx: l.ctx}}
	k.alive, k.end = context.WithCancel(context.Background())
	k.deny = func(err error) { deny(fmt.Errorf("%w: %w", ErrRefused, err)) }
	defer func() {
		if err != nil {
			k.close()
		}
		if denied := context.Cause(ctx); err != nil && errors.Is(denied, ErrRefused) {
			err = denied
		}
	}()
	var lost map[store.Consumer]*store.Lost
	if l.opts.URL == "" {
		if lost, err = l.receipts.Load(); err != nil {
			return nil, err
		}
		if k.srv, err = l.folder.Start(l.log, damaged, l.acked.Time()); err != nil {
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
	k.maxRecord = int(min(k.pub.MaxPayload(), store.MaxRecord)) - recordOverhead
	if k.js, err = jetstream.New(k.sub, jetstream.WithDefaultTimeout(callTimeout)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout) // a cluster may have to elect leaders first
	defer cancel()
	if err := l.ensureStream(ctx, k); err != nil {
		return nil, k.explain(err)
	}
	if k.srv == nil {
		return k, nil
	}
	// What was found here may be in memory only: whoever wrote it may not have got to the sync.
	if err := l.opts.syncStore(l.folder); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSynced, err)
	}
	info, err := k.info(ctx)
	if err != nil {
		return nil, k.explain(err)
	}
	k.disk.begin(l.folder.Messages(streamName), stateOf(info).Last)
	if err := l.redo(ctx, k, lost); err != nil {
		return nil, err
	}
	return k, nil
}

// close ends the connections and the embedded server. When it returns, nothing that was sent over this link can still be
// stored by an embedded server.
func (k *link) close() {
	k.end()
	k.wire.cut()
	for _, nc := range []*nats.Conn{k.pub, k.sub} {
		if nc != nil {
			nc.Close()
		}
	}
	if k.srv != nil {
		store.Stop(k.srv)
	}
}

// synced remembers an error of a sync of what the embedded server wrote: what the kernel shows then and what the disk holds may differ.
func (k *link) synced(err error) error {
	if err != nil {
		k.disk.fail(err)
	}
	return err
}

// shown returns once an entry of the stream is on disk; what is not there yet is shown to nobody.
func (k *link) shown(ctx context.Context, sequence uint64) error {
	if k.srv == nil {
		return nil
	}
	return k.disk.wait(ctx, k.alive, sequence)
}

// damage tells whether the embedded server has stopped storing, and why, or whether what it stored could not be synced. A write error is sticky there, and a publish that
// meets one is not even answered.
func (k *link) damage() error {
	if k.srv == nil {
		return nil
	}
	if err := k.disk.damage(); err != nil {
		return err
	}
	return store.Damage(k.srv, streamName)
}
