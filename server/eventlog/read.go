package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Entry is one event of the log.
type Entry struct {
	Sequence uint64
	ID       string
	Time     time.Time // when the event was received, as Record.Time
	Origin   Origin
	Data     []byte // the caller's to keep; nil from ReadHeaders
	// More says that another entry follows at once, for readers who would rather do something once for all of them.
	More bool
}

const (
	// endCheck is how long a read waits for an entry below the end it was given before it asks whether there is one. A
	// replica that lags is the rule then, entries that retention removed meanwhile the exception.
	endCheck = time.Second

	// readTries is how many feeds in a row may fail without an entry, with growing pauses of less than a second in all, before
	// a read gives up.
	readTries = 6
)

// Read yields the entries from the first one kept at or after from, in order, up to the last one at the moment of the call.
// Entries that are gone are skipped: a sequence above from at the start, or a jump further on when retention overtakes the
// reader, is how the caller sees it. After an error, which is yielded once, nothing follows.
func (l *Log) Read(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return l.read(ctx, max(from, 1), false)
}

// ReadHeaders is Read without Data.
func (l *Log) ReadHeaders(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return l.read(ctx, max(from, 1), true)
}

func (l *Log) read(ctx context.Context, from uint64, headersOnly bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, stop := l.scope(ctx)
		defer stop()
		err := l.readToEnd(ctx, from, headersOnly, yield)
		if err != nil && !errors.Is(err, errStopped) {
			yield(Entry{}, fmt.Errorf("read: %w", l.wrap(ctx, err)))
		}
	}
}

func (l *Log) readToEnd(ctx context.Context, from uint64, headersOnly bool, yield func(Entry, error) bool) error {
	k, err := l.link(ctx)
	if err != nil {
		return err
	}
	st, err := l.state(ctx, k)
	if err != nil || st.Events == 0 {
		return err
	}
	return l.readUntil(ctx, start{seq: from}, st.Last, headersOnly, yield)
}

// readUntil yields what lies between from and last, which is not 0.
func (l *Log) readUntil(ctx context.Context, from start, last uint64, headersOnly bool, yield func(Entry, error) bool) error {
	// A feed that breaks is replaced, and the read goes on where it was; the caller sees only that it took longer.
	for tries := 1; from.seq <= last; tries++ {
		k, err := l.link(ctx)
		if err != nil {
			return err
		}
		pos := from.seq
		err = l.follow(ctx, k, &from, last, headersOnly, yield)
		if from.seq > pos {
			tries = 0
		}
		if err != nil && (tries >= readTries || !l.again(ctx, err)) {
			return err
		}
		if err != nil {
			select {
			case <-time.After(minBackoff << tries):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// Tail yields every entry after the given sequence, whichever relay appended it: those that are there, and then each one as
// soon as it is there. It blocks between them, and goes on by itself after the log was away. It ends, without an error, with
// ctx; any error, yielded once, is final: ErrClosed or ErrReplaced.
func (l *Log) Tail(ctx context.Context, after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		outer := ctx // whose end is the caller's wish, unlike the end that Close makes
		ctx, stop := l.scope(ctx)
		defer stop()
		from := start{seq: after + 1}
		for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
			pos := from.seq
			k, err := l.reached(ctx)
			if err == nil {
				_, err = l.state(ctx, k) // it may be another log by now
			}
			switch {
			case err != nil:
			case k.srv != nil:
				err = l.tail(ctx, k, &from, yield)
			default:
				err = l.follow(ctx, k, &from, 0, false, yield)
			}
			switch {
			case errors.Is(err, errStopped), outer.Err() != nil:
				return
			case l.ctx.Err() != nil, errors.Is(err, ErrReplaced):
				yield(Entry{}, fmt.Errorf("tail: %w", l.wrap(ctx, err)))
				return
			}
			l.log.Debug("tail goes on with a new feed", "at", from.seq, "cause", err)
			if from.seq > pos {
				backoff = minBackoff
			}
			select {
			case <-time.After(backoff):
			case <-ctx.Done():
			}
		}
	}
}

// errStopped says that the caller's loop has ended.
var errStopped = errors.New("the reader stopped")

// again tells whether it makes sense to go on with another feed.
func (l *Log) again(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, errStopped) && !errors.Is(err, ErrReplaced)
}

// follow yields from one feed, to last or, if that is 0, for ever. from is always what comes next, also when it returns with an
// error, so that another feed goes on there without a gap and without a double.
func (l *Log) follow(ctx context.Context, k *link, from *start, last uint64, headersOnly bool, yield func(Entry, error) bool) error {
	f, err := k.feed(ctx, *from, headersOnly)
	if err != nil {
		return err
	}
	defer f.close()
	wait := pullHeartbeat
	if last > 0 {
		wait = endCheck
	}
	idle := last > 0 && f.pending == 0
	for {
		if idle {
			// Below last there may be nothing any more.
			if _, err := l.first(ctx, k, *from, last); errors.Is(err, ErrNotFound) {
				from.seq = last + 1
				return nil
			} else if err != nil {
				return err
			}
		}
		items, err := f.next(ctx, wait)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			idle = last > 0
			continue
		}
		for i, it := range items {
			if last > 0 && it.seq > last {
				from.seq = last + 1
				return nil
			}
			if err := k.shown(ctx, it.seq); err != nil {
				return err
			}
			from.seq = it.seq + 1
			entry := entryOf(it, headersOnly)
			entry.More = i+1 < len(items)
			if !yield(entry, nil) {
				return errStopped
			}
			if it.seq == last {
				return nil
			}
		}
		idle = last > 0 && f.pending == 0 // what is left below last, if anything, this replica does not have
	}
}

// entryOf reads the headers. What another publisher put into the stream may lack some; then the field is zero.
func entryOf(it item, headersOnly bool) Entry {
	e := Entry{Sequence: it.seq, Data: it.msg.Data}
	e.header(it.msg.Header)
	if len(e.Data) == 0 {
		e.Data = nil
		if !headersOnly {
			e.Data = []byte{} // read in full, and empty
		}
	}
	return e
}

// header takes the fields that are stored as headers.
func (e *Entry) header(h nats.Header) {
	e.ID = h.Get(headerID)
	e.Origin.Journal = h.Get(headerJournal)
	e.Origin.Record, _ = strconv.ParseUint(h.Get(headerRecord), 10, 64)
	e.Origin.Item, _ = strconv.Atoi(h.Get(headerItem))
	if ns, err := strconv.ParseInt(h.Get(headerReceived), 10, 64); err == nil {
		e.Time = time.Unix(0, ns).UTC()
	}
}
