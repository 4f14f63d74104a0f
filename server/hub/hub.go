// Package hub rings a bell when the log has grown. It hands nothing to anyone: whoever waits wakes up and reads on from its own position, so a slow reader costs nobody
// anything and there is no queue to overflow. Readers near the end read the newest entries out of memory, those further back read the log.
package hub

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"
)

// ErrClosed says that the hub was closed: the server is going down.
var ErrClosed = errors.New("hub closed")

const (
	// minRetryDelay and maxRetryDelay bound the back-off before the hub follows a log again whose tail broke.
	minRetryDelay = 100 * time.Millisecond
	maxRetryDelay = 5 * time.Second
)

// Entry is one event as the log holds it.
type Entry struct {
	// Sequence is its place in the log.
	Sequence uint64
	// Data is the serialized event, without cursor and sequence. Nobody may change it.
	Data []byte
	// More says that the next entry follows at once: the bell rings for both together.
	More bool
}

// Log is what the hub follows and its readers read.
type Log interface {
	// Ready returns nil when the log can be reached, and waits until then.
	Ready(ctx context.Context) error
	// Last returns the sequence of the newest entry ever stored, or an error at once when the log cannot be reached.
	Last(ctx context.Context) (uint64, error)
	// Read yields the entries from the first kept one at or behind `from` up to the end of the log at that moment.
	Read(ctx context.Context, from uint64) iter.Seq2[Entry, error]
	// Tail yields every entry behind `after` as it becomes visible, until ctx ends.
	Tail(ctx context.Context, after uint64) iter.Seq2[Entry, error]
}

// Hub knows the end of the log and wakes those who wait for it to move. All methods may be called at once.
type Hub struct {
	log    Log
	logger *slog.Logger

	// mu guards the fields below it.
	mu   sync.Mutex
	last uint64
	// started is set once last is the end of a log.
	started bool
	closed  bool
	// recent holds the newest entries, without a gap, up to last.
	recent ring
	// rung is closed when last moves or the hub is closed; nil while nobody waits for that.
	rung chan struct{}
}

// New returns a hub for a log, which need not be there yet. Run must be called for the bell to ring. Where the log is a Framer, readers of Recent are given its frames, else
// the data of the entries.
func New(log Log, logger *slog.Logger) *Hub {
	framer, _ := log.(Framer)
	return &Hub{log: log, logger: logger, recent: ring{framer: framer, max: maxRecentBytes, chunkBytes: chunkBytes}}
}

// Start finds the end of the log, unless that is known already. Until it has succeeded once, by Run or by a reader, the hub knows of no entry, which is not to be taken for an
// empty log. It returns the error of the log.
func (h *Hub) Start(ctx context.Context) error {
	h.mu.Lock()
	started := h.started
	h.mu.Unlock()
	if started {
		return nil
	}
	last, err := h.log.Last(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started || h.closed { // another was faster, and its end is what the tail goes on from
		return nil
	}
	h.started, h.last = true, last
	h.ring()
	return nil
}

// Run waits for the log, follows its tail and rings the bell until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	delay := minRetryDelay
	for ctx.Err() == nil {
		moved, err := h.follow(ctx)
		if moved {
			delay = minRetryDelay
		}
		if err != nil && ctx.Err() == nil {
			h.logger.Warn("tail of the log broke, following it again", "error", err, "in", delay)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// follow rings the bell for what the tail brings until it breaks, and reports whether it brought anything.
func (h *Hub) follow(ctx context.Context) (moved bool, err error) {
	if err := h.log.Ready(ctx); err != nil {
		return false, err
	}
	if err := h.Start(ctx); err != nil {
		return false, err
	}
	defer func() { // what was to come with the next entry, if that does not come
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ring()
	}()
	for entry, err := range h.log.Tail(ctx, h.Last()) {
		if err != nil {
			return moved, err
		}
		h.advance(entry)
		moved = true
	}
	return moved, nil
}

// advance moves the end of the log forward by one entry and wakes everyone, unless more follows at once.
func (h *Hub) advance(entry Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if entry.Sequence <= h.last || h.closed {
		return
	}
	if entry.Sequence != h.last+1 { // retention removed what was in between; whoever is behind must see that in the log
		h.recent.clear()
	}
	h.recent.add(entry)
	h.last = entry.Sequence
	if !entry.More {
		h.ring()
	}
}

// ring wakes everyone. mu is held.
func (h *Hub) ring() {
	if h.rung != nil {
		close(h.rung)
		h.rung = nil
	}
}

// Last returns the sequence of the last visible entry; 0 until the hub has started.
func (h *Hub) Last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Bell returns nil if an entry behind `after` is visible, else a channel that is closed when the end of the log has moved or the hub is closed: then ask again. It returns
// ErrClosed once the hub is closed, also when such an entry is there.
func (h *Hub) Bell(after uint64) (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, ErrClosed
	case h.last > after:
		return nil, nil //nolint:nilnil // there is nothing to wait for
	case h.rung == nil:
		h.rung = make(chan struct{})
	}
	return h.rung, nil
}

// Wait returns nil as soon as an entry behind `after` is visible. It returns ErrClosed once the hub is closed, also when such an entry is there, or the error of ctx.
func (h *Hub) Wait(ctx context.Context, after uint64) error {
	for {
		bell, err := h.Bell(after)
		if bell == nil {
			return err
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Recent returns the next entries behind `after` that are in memory, and the end of the log at that moment. There is at least one entry, unless `after` is the end of the
// log or lies too far back, for Read. What else is in memory comes with the next call.
func (h *Hub) Recent(after uint64) (run Run, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after >= h.last {
		return Run{}, h.last
	}
	return h.recent.behind(after), h.last
}

// Read yields the entries behind `after` up to what was visible at the moment of the call, or a little further. Where retention removed entries, the first one yielded is
// not the next sequence: telling that to the reader is the caller's part.
func (h *Hub) Read(ctx context.Context, after uint64) iter.Seq2[Entry, error] {
	run, last := h.Recent(after)
	switch {
	case after >= last:
		return func(func(Entry, error) bool) {}
	case run.Len() == 0:
		return h.log.Read(ctx, after+1)
	}
	return func(yield func(Entry, error) bool) {
		for ; run.Len() > 0 && after < last; run, _ = h.Recent(after) {
			for i := range run.Len() {
				entry := run.Entry(i)
				if !yield(entry, ctx.Err()) {
					return
				}
				after = entry.Sequence
			}
		}
		if after < last { // the ring moved on faster than the reader
			h.log.Read(ctx, after+1)(yield)
		}
	}
}

// ReadRuns is Read of the log alone, in runs as large as a chunk: for readers who are further back than what is in memory. A run ends where an entry is missing.
func (h *Hub) ReadRuns(ctx context.Context, after uint64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		// A ring of the reader's own, emptied whenever a chunk is full.
		own := ring{framer: h.recent.framer, max: maxRecentBytes, chunkBytes: h.recent.chunkBytes}
		flush := func() bool {
			if len(own.chunks) == 0 {
				return true
			}
			run := own.chunks[0].run(own.chunks[0].first)
			own.clear()
			return yield(run, nil)
		}
		for entry, err := range h.log.Read(ctx, after+1) {
			if err != nil {
				if flush() {
					yield(Run{}, err)
				}
				return
			}
			if (entry.Sequence != after+1 || !own.fits(entry)) && !flush() {
				return
			}
			own.add(entry)
			after = entry.Sequence
		}
		flush()
	}
}

// Closed reports whether Close was called.
func (h *Hub) Closed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// Close wakes everyone who waits with ErrClosed, for good.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.ring()
	}
}
