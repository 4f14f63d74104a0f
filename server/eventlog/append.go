package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Headers of a stored event. They are stored state, as is Nats-Msg-Id, which holds the event's id.
const (
	headerJournal  = "Eventrelay-Journal"
	headerRecord   = "Eventrelay-Record"
	headerItem     = "Eventrelay-Item"
	headerReceived = "Eventrelay-Received" // Unix nanoseconds
)

const (
	headerID          = "Nats-Msg-Id"
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
	headerExpected    = "Nats-Expected-Last-Sequence"
)

const (
	// minBatch is from how many records on a batch is faster than single publishes, with a URL: a batch costs some 2 ms whatever
	// is in it, a publish some 0.2 ms.
	minBatch = 10
	// maxBatch is JetStream's limit of messages in one atomic batch.
	maxBatch = 1000
	// maxBatchBytes bounds what one batch stages, on disk and in memory, before it is committed.
	maxBatchBytes = 8 << 20

	// recordOverhead is kept free for the subject, the headers that do not vary, and the store's framing.
	recordOverhead = 4 << 10

	// ackTimeout is how long an acknowledgement may take. A disk that hiccups for seconds is waited for; a write error is
	// found out sooner, for it is asked for every ackCheck.
	ackTimeout = 20 * time.Second
	ackCheck   = 250 * time.Millisecond

	// cancelGrace is how long the one publish under way is still waited for when the caller gives up, so that a shutdown
	// leaves nothing unknown.
	cancelGrace = time.Second

	// conflictPause is the pause before asking again about an event that another relay is just storing.
	conflictPause = 20 * time.Millisecond
)

// Origin is where an event came from: the journal's id, the record's index in it, and the item's number in the record.
type Origin struct {
	Journal string
	Record  uint64
	Item    int
}

// Record is one event to append.
type Record struct {
	ID          string // a second one with the same ID is refused within the duplicate window
	Source      string
	Type        string // dotted
	OrderingKey string // events with the same key share a partition
	Time        time.Time
	Origin      Origin
	Data        []byte // never changed: who follows the log may get it as it is
}

// Appended is what Append did.
type Appended struct {
	Stored     int    // records stored now
	Duplicates int    // records the log had already, within its duplicate window, or that came twice
	Last       uint64 // the highest sequence at which a record of this step lies; 0 if none
	// Copies are the ids of the duplicates, each as often as it was one, in no order.
	Copies []string
}

// copied counts a duplicate.
func (a *Appended) copied(id string) {
	a.Duplicates++
	a.Copies = append(a.Copies, id)
}

// Append stores the records in their order, in one step: in the embedded server one behind the other and with one sync for all, with a
// URL a few one by one, and many as atomic batches of at most 1000 records and 8 MiB. When it returns without an error all of
// them are durable.
//
// With ErrTooLarge nothing was stored. With any other error a part of them, from the first one on and without a gap, may have
// been; Position tells how far it got, and the caller goes on from there. Nothing of a step that ended in an error is stored
// later in front of, or between, what is appended next: the embedded server is then restarted, and with a URL the one publish
// or batch that may still be on its way holds exactly the records that come next, so that one of the two is refused as a
// duplicate.
//
// When ctx ends, the publish under way is still waited for, a second at most.
func (l *Log) Append(ctx context.Context, records []Record) (Appended, error) {
	var done Appended
	if len(records) == 0 {
		return done, nil
	}
	select {
	case l.appending <- struct{}{}:
		defer func() { <-l.appending }()
	case <-ctx.Done():
		return done, fmt.Errorf("append: %w", context.Cause(ctx))
	case <-l.ctx.Done():
		return done, fmt.Errorf("append: %w", ErrClosed)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return done, fmt.Errorf("append: %w", ErrClosed)
	}
	l.work.Add(1)
	l.mu.Unlock()
	defer l.work.Done()

	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return done, fmt.Errorf("append: %w", err)
	}
	defer k.wire.cutAfter(ctx, cancelGrace)()
	msgs, err := k.messages(records, &done)
	if err != nil {
		return done, fmt.Errorf("append: %w", err)
	}
	// One publish, row or batch at a time, each awaited: so whatever goes wrong, what is stored is the beginning of the step.
	for len(msgs) > 0 && err == nil {
		if err = context.Cause(ctx); err != nil {
			break
		}
		n := 1
		switch b := batchLen(msgs); {
		case k.srv != nil && b > 1:
			n, err = l.publishRow(ctx, k, msgs[:b], &done)
		case b >= minBatch:
			n, err = l.publishBatch(ctx, k, msgs[:b], &done)
		default:
			err = l.publish(ctx, k, msgs[0], notOurs, &done)
		}
		msgs = msgs[n:]
	}
	// With an error too: what is stored is there, and is found by who asks how far it got.
	if e := l.complete(k, records, done); err == nil {
		err = e
	}
	if err != nil {
		return done, fmt.Errorf("append: %w", l.wrap(ctx, err))
	}
	return done, nil
}

// messages turns records into messages. A record whose ID stood earlier in the step is left out: one such would have the
// server refuse a whole batch.
func (k *link) messages(records []Record, done *Appended) ([]*nats.Msg, error) {
	msgs := make([]*nats.Msg, 0, len(records))
	seen := make(map[string]struct{}, len(records))
	for i := range records {
		r := &records[i]
		if r.ID == "" {
			return nil, fmt.Errorf("record %d has no id", i)
		}
		if _, twice := seen[r.ID]; twice {
			done.copied(r.ID)
			continue
		}
		seen[r.ID] = struct{}{}
		if size := len(r.Data) + len(r.ID) + len(r.Origin.Journal); size > k.maxRecord {
			return nil, fmt.Errorf("%w: %s has %d bytes, at most %d fit", ErrTooLarge, r.ID, size, k.maxRecord)
		}
		v := [...]string{r.ID, r.Origin.Journal, strconv.FormatUint(r.Origin.Record, 10), strconv.Itoa(r.Origin.Item), ""} // one piece of memory for all of them
		h := nats.Header{headerID: v[0:1:1], headerJournal: v[1:2:2], headerRecord: v[2:3:3], headerItem: v[3:4:4]}
		if !r.Time.IsZero() {
			v[4] = strconv.FormatInt(r.Time.UnixNano(), 10)
			h[headerReceived] = v[4:]
		}
		msgs = append(msgs, &nats.Msg{Subject: subject(r), Header: h, Data: r.Data})
	}
	return msgs, nil
}

// batchLen is how many of the messages, from the first on, go into one batch.
func batchLen(msgs []*nats.Msg) int {
	bytes := 0
	for i, m := range msgs[:min(len(msgs), maxBatch)] {
		if bytes += len(m.Data); bytes > maxBatchBytes {
			return i
		}
	}
	return min(len(msgs), maxBatch)
}

// notOurs is the sequence from which on a copy was stored by the step itself, where it stored none that it sends again.
const notOurs = math.MaxUint64

// publish stores one message and waits for it. A copy that lies at sequence ours, or behind it, was stored by this step.
func (l *Log) publish(ctx context.Context, k *link, m *nats.Msg, ours uint64, done *Appended) error {
	for began := time.Now(); ; {
		ack, err := l.await(ctx, k, m)
		if err != nil {
			return err
		}
		if ack.code() == server.JSStreamDuplicateMessageConflict && time.Since(began) < ackTimeout {
			// Another relay is storing the same event, and whether it will be stored is not settled yet.
			select {
			case <-time.After(conflictPause):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := l.accept(k, ack); err != nil {
			return err
		}
		if ack.Duplicate && ack.Seq < ours {
			done.copied(m.Header.Get(headerID))
		} else {
			done.Stored++
		}
		done.Last = max(done.Last, ack.Seq)
		return nil
	}
}

// publishBatch stores all of the messages or none, and waits. A batch that is refused before anything of it is stored, for a
// duplicate above all, is sent one by one. It returns how many messages it is done with.
func (l *Log) publishBatch(ctx context.Context, k *link, msgs []*nats.Msg, done *Appended) (int, error) {
	name := l.names.next()
	last := len(msgs) - 1
	// The server stages what comes without asking back; only the last message, which commits, is answered, for all of them.
	for i, m := range msgs {
		m.Header[headerBatchID] = []string{name}
		m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
		if i == last {
			m.Header[headerBatchCommit] = []string{"1"}
		} else if err := k.pub.PublishMsg(m); err != nil {
			l.fault(k, err)
			return 0, err
		}
	}
	ack, err := l.await(ctx, k, msgs[last])
	if err != nil {
		return 0, err
	}
	switch ack.code() {
	case server.JSAtomicPublishContainsDuplicateMessageErr, server.JSStreamDuplicateMessageConflict,
		server.JSAtomicPublishTooLargeBatchErrF, server.JSAtomicPublishTooManyInflight:
		return l.publishEach(ctx, k, msgs, notOurs, done)
	}
	if err := l.accept(k, ack); err != nil {
		return 0, err
	}
	done.Stored += len(msgs)
	done.Last = max(done.Last, ack.Seq)
	return len(msgs), nil
}

// publishEach sends one by one what was refused as a whole, or stored in part, at sequence ours and behind it. It returns how many messages it is done with.
func (l *Log) publishEach(ctx context.Context, k *link, msgs []*nats.Msg, ours uint64, done *Appended) (int, error) {
	for i, m := range msgs {
		for _, name := range []string{headerBatchID, headerBatchSeq, headerBatchCommit, headerExpected} {
			delete(m.Header, name)
		}
		if err := context.Cause(ctx); err != nil {
			return i, err
		}
		if err := l.publish(ctx, k, m, ours, done); err != nil {
			return i, err
		}
	}
	return len(msgs), nil
}

// publishRow sends the messages to the embedded server one behind the other, and waits for the answer to the last. Each says behind which it belongs, and nobody else writes
// there, so after one that is not stored, for it is a duplicate, none of those behind it is either; then all are sent one by one. It returns how many messages it is done with.
func (l *Log) publishRow(ctx context.Context, k *link, msgs []*nats.Msg, done *Appended) (int, error) {
	end := max(k.disk.end(), done.Last)
	last := len(msgs) - 1
	for i, m := range msgs {
		m.Header[headerExpected] = []string{strconv.FormatUint(end+uint64(i), 10)}
		if i == last {
			break
		}
		if err := k.pub.PublishMsg(m); err != nil {
			l.fault(k, err)
			return 0, err
		}
	}
	ack, err := l.await(ctx, k, msgs[last])
	if err != nil {
		return 0, err
	}
	if ack.code() == server.JSStreamWrongLastSequenceErrF || ack.Duplicate {
		return l.publishEach(ctx, k, msgs, end+1, done)
	}
	if err := l.accept(k, ack); err != nil {
		return 0, err
	}
	done.Stored += len(msgs)
	done.Last = max(done.Last, ack.Seq)
	return len(msgs), nil
}

// puback is the server's answer to a publish or to the end of a batch.
type puback struct {
	Error     *apiError `json:"error"`
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
}

// apiError is how JetStream refuses.
type apiError struct {
	ErrCode     server.ErrorIdentifier `json:"err_code"`
	Description string                 `json:"description"`
}

func (a *puback) code() server.ErrorIdentifier {
	if a.Error == nil {
		return 0
	}
	return a.Error.ErrCode
}

// await publishes m and waits for the answer. Without one it is unknown whether m was stored, or will be; then the link is
// given up, which settles it.
func (l *Log) await(ctx context.Context, k *link, m *nats.Msg) (*puback, error) {
	m.Reply = k.replies + l.names.next()
	err := k.pub.PublishMsg(m)
	// One wait is short, so that between two of them all the reasons to stop waiting get their turn.
	began, canceled := time.Now(), time.Time{}
	for err == nil {
		var reply *nats.Msg
		reply, err = k.acks.NextMsg(ackCheck)
		switch {
		case err == nil && reply.Subject != m.Reply:
			// Nothing answers twice, and what is given up takes its link along. But an answer to something else, believed,
			// would be an event lost.
		case err == nil:
			var ack puback
			if err = json.Unmarshal(reply.Data, &ack); err == nil {
				return &ack, nil
			}
			err = fmt.Errorf("answer %q %s: %w", reply.Data, reply.Header.Get("Status"), err) // 503: nobody holds the stream
		case !errors.Is(err, nats.ErrTimeout):
		case k.damage() != nil: // the server does not answer a publish that it could not store
			err = k.damage()
		case ctx.Err() != nil && canceled.IsZero():
			canceled, err = time.Now(), nil
		case ctx.Err() != nil && time.Since(canceled) > cancelGrace:
			err = context.Cause(ctx)
		case time.Since(began) < ackTimeout:
			err = nil
		}
	}
	l.fault(k, fmt.Errorf("publish: %w", err))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("%w: publish: %w", ErrUnavailable, err)
}

// accept makes an error of a refusal.
func (l *Log) accept(k *link, ack *puback) error {
	var err error
	switch {
	case ack.Error != nil:
		err = fmt.Errorf("%w: %s (%d)", ErrUnavailable, ack.Error.Description, ack.Error.ErrCode)
	case ack.Seq == 0:
		err = errors.New("acknowledged without a sequence")
	default:
		return nil
	}
	// What is refused here is refused for a disk or a limit, and stays refused in an embedded server that met an error.
	l.fault(k, err)
	return err
}

// complete ends a step on the embedded server. The order matters: first what was stored is synced, and may be shown, then that is recorded, and only then does the caller hear
// of it.
func (l *Log) complete(k *link, records []Record, done Appended) error {
	if k.srv == nil || done.Last == 0 {
		return nil
	}
	first := uint64(0)
	if done.Stored == len(records) {
		first = done.Last - uint64(len(records)) + 1
	}
	if err := k.disk.sync(done.Last, first, records); err != nil {
		l.fault(k, err)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if done.Stored == 0 {
		return nil
	}
	return l.acked.Write(l.ID(), k.disk.end())
}

// names gives each batch, and each answer, a name that no other relay uses.
type names struct {
	prefix string
	n      uint64
}

func newNames() names { return names{prefix: newID()} }

func (b *names) next() string {
	b.n++
	return b.prefix + "-" + strconv.FormatUint(b.n, 36)
}
