package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// A pull asks for pullBytes. When half of it has come another one is sent, and the server shares out between the two, so
	// that there is always one to serve: a reader that stands still holds two of them and no more. With half as much the server
	// idles between pulls, and reading takes half as long again; with twice as much nothing is gained.
	pullBytes = 2 << 20
	// pullEvents is more than the smallest events that fit, so that a pull ends for its bytes, which the server reports.
	pullEvents = 10_000

	// pullExpires ends a pull that waits at the end of the log, pullHeartbeat is how often the server says meanwhile that it
	// is still there. Two missed ones and the feed counts as lost.
	pullExpires   = 30 * time.Second
	pullHeartbeat = 5 * time.Second

	// feedExpires is when the server forgets a consumer that nobody pulls from: after a crash of ours, or with a reader that
	// stands still. The reader then makes another.
	feedExpires = time.Minute

	// settling is how long a new consumer may take to be known to every server of a cluster.
	settling = 2 * time.Second

	// burst bounds what is taken from the subscription at once.
	burst = 256
)

// errFeedLost says that a feed has to be made anew.
var errFeedLost = errors.New("feed lost")

// feed is one ordered run through the stream: an ephemeral pull consumer without acknowledgements. It ends at the first
// irregularity, and its user makes another from where it was. It is used by one goroutine.
type feed struct {
	k       *link
	sub     *nats.Subscription
	inbox   string
	name    string
	count   uint64    // messages received so far; the server numbers them
	pending uint64    // what lay behind the newest message received, when it was sent
	asked   int       // messages asked for and not yet received
	open    int       // pulls under way
	bytes   int       // received since the last pull was sent
	pulls   int       // sent so far
	big     bool      // the next message exceeds pullBytes
	heard   time.Time // when the server was last heard of
	items   []item    // of the latest call of next
	err     error     // why it has ended
}

// item is one message of a feed.
type item struct {
	seq uint64
	msg *nats.Msg
}

// start is where a feed begins: at a sequence or, if that is 0, at what was stored at a time.
type start struct {
	seq    uint64
	stored time.Time
}

func (k *link) feed(ctx context.Context, from start, headersOnly bool) (*feed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cfg := jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       max(from.seq, 1),
		HeadersOnly:       headersOnly,
		InactiveThreshold: feedExpires,
		MemoryStorage:     true,
		Replicas:          1,
	}
	if from.seq == 0 && !from.stored.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &from.stored
	}
	c, err := k.js.CreateConsumer(ctx, streamName, cfg)
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	f := &feed{k: k, name: c.CachedInfo().Name, pending: c.CachedInfo().NumPending, inbox: nats.NewInbox()}
	if f.sub, err = k.sub.SubscribeSync(f.inbox + ".*"); err != nil {
		f.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return f, nil
}

// close lets the server forget the consumer.
func (f *feed) close() {
	if f.sub != nil {
		_ = f.sub.Unsubscribe() // fails when the connection is gone, and then so is the subscription
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = f.k.js.DeleteConsumer(ctx, streamName, f.name) // forgotten anyway after feedExpires
}

// next waits for messages, at most for d, and returns those that are there; none when d has passed. The slice is good until
// the next call.
func (f *feed) next(ctx context.Context, d time.Duration) ([]item, error) {
	f.items = f.items[:0]
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for f.err == nil && len(f.items) < burst {
		if f.err = f.pull(); f.err != nil {
			break
		}
		// Wait for the first message; take the others only if they are there already.
		var (
			m   *nats.Msg
			err error
		)
		if len(f.items) == 0 {
			m, err = f.sub.NextMsgWithContext(waiting)
		} else if m, err = f.sub.NextMsg(time.Nanosecond); errors.Is(err, nats.ErrTimeout) {
			break // that was all for now
		}
		switch {
		case err == nil:
			f.heard = time.Now()
			err = f.receive(m)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, nats.ErrNoResponders) && f.count == 0 && time.Since(f.heard) < settling:
			// In a cluster the server at our end may not have heard of the consumer yet.
			f.asked, f.open, err = 0, 0, nil
			select {
			case <-time.After(minBackoff):
			case <-ctx.Done():
			}
		case waiting.Err() != nil && time.Since(f.heard) < 2*pullHeartbeat+time.Second:
			return nil, nil
		}
		if err != nil {
			f.err = fmt.Errorf("%w: %w", errFeedLost, err)
		}
	}
	if len(f.items) > 0 {
		return f.items, nil // the error, if any, comes with the next call
	}
	return nil, f.err
}

// receive takes one message: an event, or word about a pull.
func (f *feed) receive(m *nats.Msg) error {
	if m.Reply != "" { // only events have one, which says where they stand
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if f.count++; meta.Sequence.Consumer != f.count {
			return fmt.Errorf("message %d came as number %d", meta.Sequence.Consumer, f.count)
		}
		if f.asked--; f.asked == 0 {
			f.open = 0
		}
		f.bytes += m.Size()
		f.big = false
		f.pending = meta.NumPending
		f.items = append(f.items, item{seq: meta.Sequence.Stream, msg: m})
		return nil
	}
	status, text := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case status == "100": // heartbeat
		return nil
	case status == "408", status == "409" && m.Header.Get("Nats-Pending-Messages") != "":
		// The pull has ended, for its time or its bytes were used up.
		left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			return fmt.Errorf("pull ended: %s %s: %w", status, text, err)
		}
		f.asked = max(0, f.asked-left)
		f.open = max(0, f.open-1)
		// A full pull that ended for a message's size can never bring that message.
		f.big = f.big || text == "Message Size Exceeds MaxBytes" && left == pullEvents
		return nil
	}
	return fmt.Errorf("pull ended: %s %s", status, text) // the consumer or the server is gone
}

// pull asks for more when little is under way.
func (f *feed) pull() error {
	want, size := pullEvents, pullBytes
	if f.big {
		want, size = 1, 0
	}
	if f.open > 1 || f.open == 1 && (f.big || f.bytes < pullBytes/2) {
		return nil
	}
	if f.pulls == 0 {
		f.heard = time.Now()
	}
	f.pulls++
	f.open++
	f.bytes = 0
	f.asked += want
	req := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, want, size, pullExpires, pullHeartbeat)
	return f.k.sub.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+streamName+"."+f.name, f.inbox+"."+strconv.Itoa(f.pulls), req)
}
