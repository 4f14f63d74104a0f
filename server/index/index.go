// Package index knows the ids of the events that the log took within the horizon, which is as long as a provider delivers again: what is known is a copy. It also says where
// in the log an id lies.
//
// Of an id it keeps a 64-bit fingerprint under a secret key (SipHash) and the sequence, in 12 bytes and the fence of the sorted runs they lie in: less than 13 in all. A
// fingerprint that is known is only a suspicion: the log is asked what lies at that sequence, so that two ids with one fingerprint, or an index that is ahead of a log which
// lost its end, never cost an event. Only where retention has removed the entry the fingerprint must do: with 5 million such ids the chance that a new one is taken for a copy
// is 5e6/2^64, some 2.7e-13, and nobody can search for such ids who does not have the key.
//
// It is fed by the steps of this process, whose ids count from the moment they are claimed, and by the log itself for what others appended. It keeps its own files: see
// file.go. They are a help and no more: what is missing, damaged, or of another log is read from the log again, and what speaks of sequences beyond the log's end is cut off,
// so that an event that a power cut took from the log is taken in again.
//
// Ids are kept in generations of an eighth of the horizon, which leave as a whole when their newest event is older than the horizon; so an id is known for the horizon
// and up to an eighth more.
package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dchest/siphash"
	"github.com/prometheus/client_golang/prometheus"

	"eventrelay/server/eventlog"
)

// defaultHorizon is how long providers deliver again.
const defaultHorizon = 7 * 24 * time.Hour

// Log is what is indexed.
type Log interface {
	ID() string
	State(ctx context.Context) (eventlog.State, error)
	Get(ctx context.Context, sequence uint64) (eventlog.Entry, error)
	SequenceAt(ctx context.Context, t time.Time) (uint64, error)
	ReadHeaders(ctx context.Context, from uint64) iter.Seq2[eventlog.Entry, error]
}

// Bell rings when the log has grown: the hub.
type Bell interface {
	// Wait returns nil as soon as an entry behind `after` is visible, or an error when it never will.
	Wait(ctx context.Context, after uint64) error
}

// Options says where the index lives and how far back it goes.
type Options struct {
	// Dir is the folder of its files. It is created if missing and must belong to this index alone.
	Dir string
	// Horizon is how long after its receipt an event's id is known at least. 0 means seven days.
	Horizon time.Duration
	// Metrics is where metrics are registered; nil for none.
	Metrics prometheus.Registerer
	// Logger gets what no caller is told. nil discards.
	Logger *slog.Logger
}

// Index is an open index. All methods may be called at once by many goroutines, Settle and Claim by one at a time. Nothing is known before the first Settle has returned.
type Index struct {
	log     Log
	bell    Bell
	dir     string
	horizon time.Duration
	logger  *slog.Logger
	meters  *meters
	key     [2]uint64

	reading chan struct{} // held by who reads the log into the index
	writing sync.Mutex    // held by who touches the files; comes before mu
	failing atomic.Bool   // the last save failed

	mu sync.Mutex // guards what follows
	// ready is set while generations hold all that they must, up to position.
	ready       bool
	generations []*generation // in the order in which they were begun; the last one grows
	number      uint64        // of the newest generation
	position    uint64        // everything up to here is known
	// claims are ids of this process that are on their way into the log, by fingerprint.
	claims  map[uint64]claim
	awaited []awaited // steps that are in the log and not read back yet
	target  uint64    // the highest sequence of those
	// unsaved is what the files lack, in order; aged are generations whose files are to go.
	unsaved []unsaved
	aged    []*generation
	moved   chan struct{} // closed and replaced when claims or target change
}

// claim is an id on its way.
type claim struct {
	id string
	// floor is where its event cannot lie before.
	floor uint64
}

// awaited is a step of this process that lies in the log, at or below a sequence, among events of others.
type awaited struct {
	last   uint64
	prints []uint64
}

// generation is the ids of a stretch of time.
type generation struct {
	file
	runs           stack
	events         int
	opened, newest time.Time
	sealed         bool // grows no more
}

// unsaved is a block that its generation's file lacks.
type unsaved struct {
	of *generation
	block
}

// Open opens the index of a log, which need not be there yet. bell may be nil: then what others append is found out by Settle only.
func Open(log Log, bell Bell, o Options) (*Index, error) {
	x := &Index{
		log: log, bell: bell, dir: o.Dir, horizon: o.Horizon, logger: o.Logger,
		reading: make(chan struct{}, 1), claims: map[uint64]claim{}, moved: make(chan struct{}),
	}
	if x.horizon <= 0 {
		x.horizon = defaultHorizon
	}
	if x.logger == nil {
		x.logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if err := x.openKey(); err != nil {
		return nil, fmt.Errorf("open the index in %s: %w", o.Dir, err)
	}
	x.meters = newMeters(o.Metrics, x.usage)
	return x, nil
}

// mark returns the fingerprint of an id.
func (x *Index) mark(id string) uint64 { return siphash.Hash(x.key[0], x.key[1], []byte(id)) }

// Settle returns when the index knows everything that the log holds at this moment, and takes back all claims. The first call reads the files, and from the log what they
// lack. It returns an error of the log or of ctx, and can be called again.
func (x *Index) Settle(ctx context.Context) error {
	if err := x.catchUp(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.claims)
	x.awaited, x.target = nil, 0
	x.stir()
	return nil
}

// Claim divides the records of a step. fresh are those whose ids nobody knows, and which are known from now on; they must be appended to the log and Stored must be called,
// or Settle if that fails. copies are those whose ids are known. A record that is in the log already from its very origin is neither: it is done. The order stays; records
// is not to be used afterwards. An error is of the log or of ctx; nothing is claimed then.
func (x *Index) Claim(ctx context.Context, records []eventlog.Record) (fresh, copies []eventlog.Record, err error) {
	if len(records) == 0 {
		return nil, nil, nil
	}
	prints := make([]uint64, len(records))
	for n := range records {
		prints[n] = x.mark(records[n].ID)
	}
	suspects, err := x.suspects(records, prints)
	if err != nil {
		return nil, nil, err
	}
	verdicts, err := x.confirm(ctx, records, suspects)
	if err != nil {
		return nil, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	fresh = records[:0]
	for n, r := range records {
		claimed, inFlight := x.claims[prints[n]]
		switch verdict := verdicts[n]; {
		case verdict == own:
		case verdict == known, inFlight && claimed.id == r.ID:
			copies = append(copies, r)
		default:
			x.claims[prints[n]] = claim{id: r.ID, floor: x.position + 1}
			fresh = append(fresh, r)
		}
	}
	return fresh, copies, nil
}

// suspect is a record whose fingerprint is known, and where in the log.
type suspect struct {
	record    int
	sequences []uint64
}

func (x *Index) suspects(records []eventlog.Record, prints []uint64) (suspects []suspect, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ready {
		return nil, errNotReady
	}
	x.age(records[0].Time)
	// Run by run, so that the look-ups of a step, each of which waits for memory, wait together.
	found := make([][]uint64, len(prints))
	for _, g := range x.generations {
		for _, r := range g.runs {
			for n, p := range prints {
				found[n] = r.find(p, found[n])
			}
		}
	}
	for n := range found {
		if len(found[n]) > 0 {
			suspects = append(suspects, suspect{n, newestFirst(found[n])})
		}
	}
	return suspects, nil
}

// errNotReady is told by calls before the first Settle.
var errNotReady = fmt.Errorf("%w: the ids of its events are still being read", eventlog.ErrUnavailable)

// find returns where a fingerprint lies, the newest first; mu is held.
func (x *Index) find(p uint64) (found []uint64) {
	for _, g := range x.generations {
		for _, r := range g.runs {
			found = r.find(p, found)
		}
	}
	return newestFirst(found)
}

func newestFirst(sequences []uint64) []uint64 {
	slices.Sort(sequences)
	slices.Reverse(sequences)
	return sequences
}

// Stored says that the records of a step, which were claimed, are in the log.
func (x *Index) Stored(records []eventlog.Record, done eventlog.Appended) {
	if len(records) == 0 {
		return
	}
	prints := make([]uint64, len(records))
	for n := range records {
		prints[n] = x.mark(records[n].ID)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	defer x.stir()
	if x.alone(records, prints, done) {
		// So many new sequences and as many records, none of which was read back: it is them, in their order.
		b := block{from: x.position + 1, through: done.Last, entries: make([]entry, len(records))}
		for n, p := range prints {
			b.entries[n] = entry{p, b.from + uint64(n)}
			b.meet(records[n].Time)
			delete(x.claims, p)
		}
		x.position = b.through
		x.add(b)
		return
	}
	x.awaited = append(x.awaited, awaited{done.Last, prints})
	x.target = max(x.target, done.Last)
	x.settleAwaited()
}

// alone reports whether between the position and the end of a step there is nothing but the step; mu is held.
func (x *Index) alone(records []eventlog.Record, prints []uint64, done eventlog.Appended) bool {
	if done.Duplicates > 0 || done.Last != x.position+uint64(len(records)) {
		return false
	}
	for n, p := range prints {
		if x.claims[p].id != records[n].ID {
			return false
		}
	}
	return true
}

// settleAwaited ends the claims of steps that have been read back. What was not met there was removed by retention at once: its place is unknown, but in front of the first
// that is kept, as its floor is. mu is held.
func (x *Index) settleAwaited() {
	for len(x.awaited) > 0 && x.awaited[0].last <= x.position {
		for _, p := range x.awaited[0].prints {
			if c, ok := x.claims[p]; ok {
				x.add(block{from: c.floor, through: c.floor, newest: time.Now(), entries: []entry{{p, c.floor}}})
				delete(x.claims, p)
			}
		}
		x.awaited = x.awaited[1:]
	}
}

// stir wakes who waits for claims to end; mu is held.
func (x *Index) stir() {
	close(x.moved)
	x.moved = make(chan struct{})
}

// Find returns the entry of an event id, and false if there is none: it never was, the index does not reach back to it, or the log does not keep it. Every event that was
// visible when Find was called is found.
func (x *Index) Find(ctx context.Context, id string) (eventlog.Entry, bool, error) {
	p := x.mark(id)
	for again := true; ; again = false {
		x.mu.Lock()
		ready, found := x.ready, x.find(p)
		x.mu.Unlock()
		if !ready {
			return eventlog.Entry{}, false, errNotReady
		}
		for _, sequence := range found {
			e, err := x.log.Get(ctx, sequence)
			switch {
			case errors.Is(err, eventlog.ErrNotFound):
			case err != nil:
				return eventlog.Entry{}, false, err
			case e.ID == id:
				return e, true, nil
			}
		}
		if !again {
			return eventlog.Entry{}, false, nil
		}
		// A reader may have been handed the event before its step was over.
		if err := x.catchUp(ctx); err != nil {
			return eventlog.Entry{}, false, err
		}
	}
}

// Close writes what the files lack and lets go of them. The index is not to be used afterwards.
func (x *Index) Close() error {
	if err := x.save(true); err != nil {
		return fmt.Errorf("close the index in %s: %w", x.dir, err)
	}
	return nil
}

// path is the file of a generation.
func (x *Index) path(number uint64) string {
	return filepath.Join(x.dir, fmt.Sprintf("%016d%s", number, extension))
}
