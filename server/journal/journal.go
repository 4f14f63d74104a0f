// Package journal is the durable inbox: it keeps every notification as it was
// received until the rest of the service is done with it.
//
// What it guarantees:
//
//   - Append returns only after the record is fsynced. All who wait at that
//     moment share one write and one fsync; there is no timer.
//   - Durable before visible: Last, Read and Wait never show a record whose
//     fsync has not returned.
//   - After a failed write or fsync nothing is accepted any more until the
//     journal is opened again, for nobody knows what the disk then holds. What
//     was durable before stays readable.
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
// and "lock". Every record lies in an envelope of its own with magic, index,
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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
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

// Options tune a journal. The zero value works.
type Options struct {
	// MaxBytes bounds the bytes of the records that are not trimmed yet, as stored.
	// Default 4 GiB.
	MaxBytes int64
	// MinFreeBytes is how much free disk must remain: with less, Append is refused.
	// Default 256 MiB. Room for two segments is asked for in any case.
	MinFreeBytes int64
	// SegmentBytes is the size of a segment file, preallocated; disk is given back
	// by whole segments. Default 64 MiB, at most 1 GiB.
	SegmentBytes int
	// Logger gets what Open finds damaged and what cannot be cleaned up. nil
	// discards it.
	Logger *slog.Logger

	vfs  types.VFS                   // where segments lie; the real file system unless a test says otherwise
	free func(string) (int64, error) // free bytes of the folder's file system
}

const (
	defaultMaxBytes     = 4 << 30
	defaultMinFreeBytes = 256 << 20
	defaultSegmentBytes = 64 << 20
	// maxSegmentBytes leaves room below 4 GiB, the reach of the engine's 32-bit
	// offsets, for the batch that overshoots the end of a segment.
	maxSegmentBytes = 1 << 30
)

func (o *Options) withDefaults() error {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFreeBytes
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.vfs == nil {
		o.vfs = fs.New()
	}
	if o.free == nil {
		o.free = freeBytes
	}
	if o.MaxBytes < 0 || o.MinFreeBytes < 0 || o.SegmentBytes < 0 || o.SegmentBytes > maxSegmentBytes {
		return fmt.Errorf("journal options: MaxBytes %d, MinFreeBytes %d and SegmentBytes %d must not be negative, SegmentBytes at most %d",
			o.MaxBytes, o.MinFreeBytes, o.SegmentBytes, maxSegmentBytes)
	}
	return nil
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

	// mu guards all below. last is written by the writer goroutine alone.
	mu       sync.Mutex
	work     *sync.Cond // the queue is not empty, or closing
	queue    []*batch
	reserved int64 // bytes of the records on their way to the disk
	waiting  ledger
	first    uint64
	last     uint64
	bell     chan struct{} // closed and replaced when last moves
	failure  error
	closing  bool
	refused  bool // a record did not fit since the last Trim
	commits  uint64

	scratch []raft.Log // of the writer goroutine
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
		return nil, fmt.Errorf("%w: folder %s is held by another process", ErrLocked, dir)
	}
	j := &Journal{
		dir: dir, opt: o, log: o.Logger, lock: lock,
		ended:   make(chan struct{}),
		bell:    make(chan struct{}),
		waiting: ledger{step: o.MaxBytes / ledgerMarks},
		disk:    disk{dir: dir, look: o.free, every: int64(o.SegmentBytes) / 2},
	}
	j.work = sync.NewCond(&j.mu)
	if err := j.open(); err != nil {
		if j.marks != nil {
			j.marks.close()
		}
		lock.Unlock()
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
		j.wal.Close()
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

// Usage is what a journal holds, for metrics and readiness.
type Usage struct {
	Records      uint64 // not trimmed
	Bytes        int64  // of these, as stored; trimmed ones leave in steps of at most MaxBytes/65536
	MaxBytes     int64
	FreeBytes    int64 // of the file system, at most a second old
	MinFreeBytes int64
	Commits      uint64 // writes with fsync since Open, each for all records that waited
	Damaged      uint64 // damaged records that Read told of since Open
}

// Usage reports what the journal holds. It does not wait for the disk.
func (j *Journal) Usage() Usage {
	free, err := j.disk.free(0)
	if err != nil {
		free = 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return Usage{
		Records:      j.last + 1 - j.first,
		Bytes:        j.waiting.total,
		MaxBytes:     j.opt.MaxBytes,
		FreeBytes:    free,
		MinFreeBytes: j.minFree(),
		Commits:      j.commits,
		Damaged:      j.damaged.Load(),
	}
}

// Err is nil while the journal accepts records, else an error that wraps ErrFull,
// ErrFailed or ErrClosed. Once a record did not fit, it is full until the next
// Trim, though smaller ones may still be taken.
func (j *Journal) Err() error {
	diskErr := j.checkDisk(0)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closing:
		return ErrClosed
	case j.failure != nil:
		return j.failure
	case j.refused || j.waiting.total+j.reserved >= j.opt.MaxBytes:
		return fmt.Errorf("%w: %d bytes wait, %d allowed", ErrFull, j.waiting.total+j.reserved, j.opt.MaxBytes)
	}
	return diskErr
}

// minFree is the free space below which nothing is taken. Two segments are asked
// for because the engine makes the next one in the background, and another
// may follow before the disk is looked at again.
func (j *Journal) minFree() int64 {
	return max(j.opt.MinFreeBytes, 2*int64(j.opt.SegmentBytes))
}

func (j *Journal) checkDisk(size int64) error {
	free, err := j.disk.free(size)
	if err != nil {
		return fmt.Errorf("%w: free disk space of %s is unknown: %w", ErrFull, j.dir, err)
	}
	if free < j.minFree() {
		return fmt.Errorf("%w: %d bytes of disk are free in %s, %d must remain", ErrFull, free, j.dir, j.minFree())
	}
	return nil
}

// Wait returns nil once Last() > after, else the context's error or ErrClosed.
func (j *Journal) Wait(ctx context.Context, after uint64) error {
	for {
		j.mu.Lock()
		last, closing, bell := j.last, j.closing, j.bell
		j.mu.Unlock()
		if last > after {
			return nil
		}
		if closing {
			return ErrClosed
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

// makeDir makes dir durable with its name, for its owner alone: bodies are
// personal data.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ledgerMarks is how many steps the bytes of a full journal are counted in: about
// a megabyte of memory, whatever the number of records.
const ledgerMarks = 1 << 16

// A ledger counts the bytes of the records that wait. It remembers them by runs of
// records of about step bytes, so a run leaves the count when its last
// record is trimmed.
type ledger struct {
	step  int64
	total int64
	runs  []run
}

type run struct {
	through uint64
	bytes   int64
}

func (l *ledger) add(index uint64, bytes int64) {
	l.total += bytes
	if n := len(l.runs); n > 0 && l.runs[n-1].bytes+bytes <= l.step {
		l.runs[n-1] = run{index, l.runs[n-1].bytes + bytes}
		return
	}
	l.runs = append(l.runs, run{index, bytes})
}

func (l *ledger) trim(through uint64) {
	for len(l.runs) > 0 && l.runs[0].through <= through {
		l.total -= l.runs[0].bytes
		l.runs = l.runs[1:]
	}
}

// noTime stands for the zero Time, which has no count of nanoseconds.
const noTime = math.MinInt64
