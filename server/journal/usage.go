package journal

import "fmt"

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
