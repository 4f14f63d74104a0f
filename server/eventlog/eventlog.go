// Package eventlog keeps the events of the relay: durable, ordered, read from anywhere.
//
// It knows bytes, ids and sequences, never what an event means, and is the only package that knows NATS. The log is one
// JetStream stream, either in a server that runs inside this process or in an existing one; both are used through the same
// code, and only the connection differs.
//
// What it guarantees:
//
//   - Events lie in the order in which Append was given them; sequences ascend and are never used twice under one ID.
//   - When Append returns without an error the events are on disk (embedded: written and synced, and so is the directory that
//     names the file; with a URL: whatever the acknowledgement of that server and of its replicas means).
//   - Read, Tail and Fetch give an entry only when it is on disk. The embedded server writes without syncing and would give what
//     it has written; what Append has not synced yet is held back here. With replicas a quorum has it.
//   - Tail yields every entry once, in order, across lost connections and restarts of the embedded server.
//   - Nothing here waits for ever on a server that is away: calls end with ErrUnavailable or with their context. Open included: a Log with a URL may be
//     opened while its servers are away, and is reached in the background. Only Tail and Ready, which are made for it, wait.
//
// The stream refuses a second event with the same ID only for Options.DuplicateWindow, counted back from now. The window
// forgets while the log stands still, so it is no replacement for knowing the ids of older events.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"eventrelay/server/eventlog/store"
)

var (
	// ErrClosed is returned by every call on a Log after Close has begun.
	ErrClosed = errors.New("event log is closed")
	// ErrUnavailable is returned while the log cannot be reached or cannot write. The same call may succeed later.
	ErrUnavailable = errors.New("event log is unavailable")
	// ErrTooLarge is returned by Append for a record that the log can never hold. Nothing has been stored then.
	ErrTooLarge = errors.New("record is too large for the event log")
	// ErrNotFound is returned by Get when there is no entry with that sequence.
	ErrNotFound = errors.New("no such entry in the event log")
	// ErrReplaced is returned once the log behind this Log is another one than was opened: deleted and made anew, or found
	// damaged after a restart, so that its sequences mean something else. Only a new Open helps, and has a new ID.
	ErrReplaced = errors.New("event log was replaced by another")
	// ErrUnsupported is returned by Open for a server that is too old or too small.
	ErrUnsupported = errors.New("server cannot hold an event log")
	// ErrRefused is returned by Open when the server is there and forbids it: the credentials, the encryption, a permission, JetStream switched off, or a stream of that
	// name or those subjects with settings that cannot be changed.
	ErrRefused = errors.New("server refuses the event log")
)

const (
	// streamName is the stream of the events. It is stored state.
	streamName = "EVENTS"

	// callTimeout bounds the wait for one answer, and for a connection that is being replaced. A healthy server answers in
	// milliseconds, an election in a cluster takes a few seconds.
	callTimeout = 10 * time.Second

	// defaultDuplicateWindow is JetStream's own default.
	defaultDuplicateWindow = 2 * time.Minute
)

// Options says where the log lives and how much it keeps. With neither Dir nor URL, Open fails.
type Options struct {
	// Dir is the folder of the embedded server's store. It is created if missing and must belong to this process alone.
	Dir string
	// URL names an existing JetStream, 2.12 or newer, as in nats://host:4222; of a cluster name every server,
	// separated by commas. Dir is not used then.
	URL string
	// Replicas is the number of copies with URL. 0 leaves an existing log as it is, and makes a new one with one copy. The
	// embedded server has one.
	Replicas int
	// MaxAge, MaxBytes and MaxEvents bound what is kept; the oldest goes first. 0 is no bound.
	MaxAge    time.Duration
	MaxBytes  int64
	MaxEvents int64
	// DuplicateWindow is how far back the log itself refuses a second event with the same ID. 0 means two minutes, and it is
	// never longer than MaxAge.
	DuplicateWindow time.Duration
	// Logger gets what no caller is told. nil discards.
	Logger *slog.Logger

	syncStore func(store.Folder) error // nil syncs
}

// Log is an open event log. All methods may be called at once by many goroutines; Appends run one after the other.
type Log struct {
	opts Options
	log  *slog.Logger
	// place names the servers of the URL, without credentials; the folder of an embedded one.
	place string
	// id is the identity of the log, nil until the log was reached for the first time.
	id atomic.Pointer[string]

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc

	appending chan struct{}   // held by the one Append that runs
	names     names           // used by the one Append that runs
	folder    store.Folder    // of the embedded server
	acked     *store.Mark     // highest acknowledged sequence, embedded only
	receipts  *store.Receipts // what was settled last, embedded only

	mu       sync.Mutex // guards what follows
	cur      *link      // nil while there is none
	moved    chan struct{}
	patience time.Time // until when calls wait for a link
	why      error     // why there is none
	fatal    error     // why there will be no link any more
	said     complaint
	closed   bool
	work     sync.WaitGroup // running Appends and the goroutine that makes the link
}

// Open opens the log, and makes it if there is none. ctx bounds the opening only.
//
// The embedded log has been recovered and can be appended to when Open returns; that it cannot be is an error of this machine, and so of Open.
//
// With a URL the log is reached if a server answers within a few seconds. If none does, Open returns a Log all the same: calls give ErrUnavailable until it is reached in the
// background, and Ready waits for that. Settings that cannot work, here or at the server, are an error of Open (ErrUnsupported, ErrRefused) when a server says so at once;
// one that says so later is complained about in the logger and asked again, for what the operator mends there takes effect here without a restart.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Dir == "" && o.URL == "" {
		return nil, errors.New("open event log: neither a folder nor a URL is given")
	}
	place := o.Dir
	if o.URL == "" {
		o.Replicas = 1
	} else {
		var err error
		if place, err = hosts(o.URL); err != nil {
			return nil, fmt.Errorf("open event log: %w", err)
		}
	}
	if o.DuplicateWindow == 0 {
		o.DuplicateWindow = defaultDuplicateWindow
	}
	if o.MaxAge > 0 {
		o.DuplicateWindow = min(o.DuplicateWindow, o.MaxAge) // JetStream refuses a longer one
	}
	if o.syncStore == nil {
		o.syncStore = store.Folder.Sync
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{opts: o, log: o.Logger, place: place, folder: store.Folder(o.Dir), appending: make(chan struct{}, 1), names: newNames(), moved: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	begin := l.begin
	if o.URL == "" {
		begin = l.beginEmbedded
	}
	if err := begin(ctx); err != nil {
		_ = l.Close() // nothing was written
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return l, nil
}

// beginEmbedded starts the embedded server.
func (l *Log) beginEmbedded(ctx context.Context) error {
	m, err := l.folder.OpenMark()
	if err != nil {
		return err
	}
	l.acked, l.receipts = m, l.folder.Receipts()
	k, err := l.connect(ctx, false)
	if errors.Is(err, errNotSynced) {
		k, err = l.connect(ctx, true)
	}
	if err != nil {
		return err
	}
	l.install(k)
	return nil
}

// ID names this log. It is stored with the stream and constant while the Log is open; it is empty until the log was reached for
// the first time, so any call that has succeeded knows it. A log that was wiped, made anew or found inconsistent has another one:
// sequences may be compared only under the same ID.
func (l *Log) ID() string {
	if id := l.id.Load(); id != nil {
		return *id
	}
	return ""
}

// Close ends all calls with ErrClosed, waits for the running Append, and stops. An embedded server is shut down and its store
// marked as cleanly stopped, which makes the next Open fast. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.cancel(ErrClosed)
	l.work.Wait()

	l.mu.Lock()
	k := l.cur
	l.cur = nil
	l.mu.Unlock()
	// A store with a write error is not clean: its index may speak of what never reached the blocks.
	healthy := k != nil && k.damage() == nil
	if k != nil {
		k.close()
	}
	if l.acked == nil {
		return nil
	}
	err := errors.Join(l.acked.Close(), l.receipts.Close())
	if healthy && err == nil {
		err = l.folder.MarkClean()
	}
	if err != nil {
		return fmt.Errorf("close event log: %w", err)
	}
	return nil
}

// State is what the log holds.
type State struct {
	First  uint64 // sequence of the oldest entry; Last+1 when there is none
	Last   uint64 // sequence of the newest entry ever stored; 0 in a new log
	Events uint64 // entries kept
	Bytes  uint64 // what they take on disk
}

// State tells what the log holds now. Last may count a batch that is being written, an instant before Read and Tail show it.
func (l *Log) State(ctx context.Context) (State, error) {
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	st, err := l.state(ctx, k)
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", l.wrap(ctx, err))
	}
	return st, nil
}

// state asks the stream's leader, and sees to it that the log is still the one that was opened.
func (l *Log) state(ctx context.Context, k *link) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := k.info(ctx)
	if err != nil && !(k.srv == nil && errors.Is(err, jetstream.ErrStreamNotFound)) {
		return State{}, err
	}
	if err != nil || info.Config.Metadata[metaID] != l.ID() {
		l.replaced(k)
		return State{}, ErrReplaced
	}
	return stateOf(info), nil
}

// scope derives a context that also ends with Close.
func (l *Log) scope(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// wrap turns the error of a call into what the caller can act on.
func (l *Log) wrap(ctx context.Context, err error) error {
	for _, own := range []error{ErrClosed, ErrReplaced, ErrTooLarge, ErrUnavailable, ErrUnsupported, ErrRefused, ErrNotFound} {
		if errors.Is(err, own) {
			if l.ctx.Err() != nil && errors.Is(own, ErrUnavailable) {
				return ErrClosed // which is why
			}
			return err
		}
	}
	switch {
	case l.ctx.Err() != nil:
		return ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer within %s", ErrUnavailable, callTimeout) // our bound, not the caller's deadline
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
