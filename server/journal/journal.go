// Package journal is the durable inbox: it keeps every notification as it was
// received until the rest of the service is done with it.
//
// What it guarantees:
//
//   - Append returns only after the record is on disk. All who wait at that
//     moment share one write and one fsync; there is no timer.
//   - Durable before visible: Last, Read and Wait never show a record whose
//     fsync has not returned.
//   - After a failed write or fsync nothing is accepted any more until the
//     journal is opened again, for nobody knows what the disk then holds. What
//     was durable before stays readable.
//   - The latest records are in memory as well, for a reader that follows closely; what
//     it gets is what the disk would give.
//   - A record that was acknowledged comes back byte for byte, or Read says by
//     its index that it is damaged. It is never skipped and never returned
//     altered.
//   - Indexes count from 1 without gaps and never start again, also when all
//     records are trimmed and the journal is reopened.
//
// # On disk
//
// The folder holds the segments of a write-ahead log (hashicorp/raft-wal, files
// *.wal), "meta" and "meta.copy" (identity and list of segments, checksummed,
// replaced by rename), "marks" (how far records are acknowledged and trimmed)
// and "lock". A segment is written past the page cache, with O_DSYNC, so that a
// write is its own fsync; where the file system cannot do that, it is written and
// fsynced (see direct.go). Every record lies in an envelope of its own with magic, index,
// length and checksums keyed by a random number of this journal, so each can be
// recognised and checked alone, whatever has become of the bytes around it.
//
// # After a crash or damage
//
// Open reads the tail segment whole and puts it in order before the log engine
// sees it (see repair.go). What it can tell, and what it cannot:
//
//   - Bytes behind the last whole record, above the acknowledged mark, are what a
//     power cut leaves of a write that nobody was told about. They are dropped
//     silently.
//   - A record that is missing below the acknowledged mark, or in front of a whole
//     record, is taken for a damaged acknowledged one: it keeps its index, Read
//     yields ErrDamaged for it, and Open logs it. All whole records around it are
//     kept.
//   - The acknowledged mark is written after each fsync but not synced itself. After
//     a killed process or a clean stop it is exact. After a power cut it may lag by
//     what the kernel had not written back (about 30 s). Within that lag two things
//     look alike: a hole in a write that was never acknowledged is reported
//     as damage if later parts of that write are whole; and damage at the very end, with
//     nothing whole behind it, passes as a torn write.
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

var (
	// ErrFull says that the record was not taken because too much waits or the
	// disk is nearly full. Nothing was written; the journal accepts again by
	// itself after a Trim, or once there is space.
	ErrFull = errors.New("journal is full")
	// ErrFailed says that an earlier write or fsync failed. It stays until the
	// journal is opened again, and wraps the cause.
	ErrFailed = errors.New("journal has failed")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("journal is closed")
	// ErrLocked says that another process, or another Journal in this one, has
	// the folder open.
	ErrLocked = errors.New("journal is in use")
	// ErrTooLarge says that the record could never be stored: encoded it is over
	// 64 MiB, or over Options.MaxBytes.
	ErrTooLarge = errors.New("record is too large")
	// ErrDamaged says that what lies on disk is not what was written.
	ErrDamaged = errors.New("journal is damaged")
)

// Record is one notification as it was received.
type Record struct {
	// Index is the record's place in the journal, from 1, without gaps. The
	// journal sets it; Append ignores what it is given.
	Index uint64
	// Source is the id of the source it came in by.
	Source string
	// Provider is the number that the source's provider had at that time.
	Provider int32
	// ReceivedAt is kept to the nanosecond and comes back in UTC. Years 1678 to
	// 2262; the zero Time is kept as such.
	ReceivedAt time.Time
	// Header holds the headers that matter. Empty comes back as nil.
	Header http.Header
	// Body is kept byte for byte. Empty comes back as nil.
	Body []byte
}

// Journal is an open journal. All methods may be called at once from any number
// of goroutines.
type Journal struct {
	dir   string
	opt   Options
	log   *slog.Logger
	lock  *flock.Flock
	meta  *meta
	marks *marks
	wal   *wal.WAL
	sum   keyedSum
	disk  disk

	ended   chan struct{} // closed when the writer goroutine has ended
	damaged atomic.Uint64

	// trimming lets one Trim at a time work on the disk.
	trimming sync.Mutex

	recent recent

	// mu guards all below. last is changed by who writes alone.
	mu       sync.Mutex
	work     *sync.Cond // the queue is not empty, nobody writes any more, or closing
	writing  bool       // the writer goroutine, or who appends alone, is at the disk
	queue    []*batch
	shared   int   // records in the last write
	reserved int64 // bytes of the records on their way to the disk
	waiting  ledger
	first    uint64
	last     uint64
	bell     chan struct{} // closed and replaced when last moves
	failure  error
	closing  bool
	refused  bool // a record did not fit since the last Trim
	commits  uint64

	scratch []raft.Log // of who writes
}

// Open opens the journal in dir and creates it, and the folder, where there is
// none. It holds an exclusive lock on the folder until Close; a second Open gets
// ErrLocked. It repairs what a crash left behind. Damage that it cannot repair is
// an error that names the file; it never starts empty over existing segments.
func Open(dir string, o Options) (*Journal, error) {
	if err := o.withDefaults(); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock journal %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: folder %s is open elsewhere", ErrLocked, dir)
	}
	j := &Journal{
		dir: dir, opt: o, log: o.Logger, lock: lock,
		ended:   make(chan struct{}),
		bell:    make(chan struct{}),
		waiting: ledger{step: o.MaxBytes / ledgerMarks},
		recent:  recent{max: o.recent},
		disk:    disk{dir: dir, look: o.free, every: int64(o.SegmentBytes) / 2},
	}
	j.work = sync.NewCond(&j.mu)
	if err := j.open(); err != nil {
		if j.marks != nil {
			_ = j.marks.close() // the journal could not be opened, which says more
		}
		_ = lock.Unlock() // the process may end now, which unlocks as well
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	go j.write()
	return j, nil
}

const lockFile = "lock"

func (j *Journal) open() error {
	var err error
	if j.meta, err = openMeta(j.dir, j.log); err != nil {
		return err
	}
	j.sum = j.meta.sum()
	var known bool
	if j.marks, known, err = openMarks(j.dir, j.sum); err != nil {
		return err
	}
	if !known {
		if len(j.meta.segments()) > 0 {
			// Without its marks nobody can say that no acknowledged record is missing at
			// the end, so that an index might be given twice. A new identity keeps a
			// reader from mistaking the second for the first.
			j.log.Warn("marks of the journal are missing or damaged: it takes a new identity", "dir", j.dir)
			if err := j.meta.renew(); err != nil {
				return err
			}
		}
		if err := j.marks.reset(); err != nil {
			return err
		}
	}
	segs := &segments{Filer: newFiler(j.dir, j.opt.vfs), log: j.log}
	acked, trimmed := j.marks.get()
	r := repair{
		dir: j.dir, vfs: j.opt.vfs, filer: segs.Filer, meta: j.meta, sum: j.sum, log: j.log,
		acked: acked, trimmed: trimmed, segmentBytes: j.opt.SegmentBytes, count: j.waiting.add,
	}
	last, err := r.run()
	if err != nil {
		return err
	}
	j.wal, err = wal.Open(j.dir,
		wal.WithMetaStore(j.meta),
		wal.WithSegmentFiler(segs),
		wal.WithCodec(envelopeCodec{}),
		wal.WithSegmentSize(j.opt.SegmentBytes),
		wal.WithLogger(hclog.NewNullLogger()),
	)
	if err != nil {
		return err
	}
	got, err := j.wal.LastIndex()
	if err == nil && got != 0 && got != last {
		err = fmt.Errorf("%w: the log ends at record %d, its segments at %d", ErrDamaged, got, last)
	}
	if err == nil {
		// The engine syncs the folder after the first write to a file that it
		// made, not to one that it found: a file made right before a crash
		// could still lose its name.
		err = syncDir(j.dir)
	}
	if err != nil {
		_ = j.wal.Close() // err says more
		return err
	}
	j.last = last
	j.first = max(j.meta.first(), trimmed+1)
	if last == 0 {
		j.first = 1
	}
	// From here on an error of the engine's background work has nobody to be
	// returned to but the next Append.
	j.meta.onError(j.fail)
	segs.onError(j.fail)
	return nil
}

// ID is the random identity that the journal got when it was first created. It
// changes when the folder is wiped, and when damage leaves in doubt whether an
// index might be given a second time.
func (j *Journal) ID() string { return j.meta.id() }

// First is the index of the first record that is not trimmed; Last()+1 when there
// is none.
func (j *Journal) First() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.first
}

// Last is the index of the last durable record, trimmed or not; 0 when there never
// was one.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// ring wakes all who wait. mu must be held.
func (j *Journal) ring() {
	close(j.bell)
	j.bell = make(chan struct{})
}

// Close refuses new records, waits until those in flight are answered, and
// releases the folder. Further calls do nothing and return nil.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		<-j.ended
		return nil
	}
	j.closing = true
	j.work.Signal()
	j.mu.Unlock()
	<-j.ended

	j.trimming.Lock()
	defer j.trimming.Unlock()
	j.mu.Lock()
	j.ring()
	j.mu.Unlock()
	err := errors.Join(j.wal.Close(), j.marks.close(), j.lock.Unlock())
	if err != nil {
		return fmt.Errorf("close journal %s: %w", j.dir, err)
	}
	return nil
}
