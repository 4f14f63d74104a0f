package journal

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// maxBatchBytes bounds one write. At this size an fsync costs more than its fixed
// part, so larger batches gain nothing and only hold up those who wait behind; and
// it bounds the engine's write buffer.
const maxBatchBytes = 8 << 20

// A batch is the records that share a write and an fsync.
type batch struct {
	entries []entry
	bytes   int64
	done    chan struct{} // closed once index of each entry and err are set
	err     error
}

type entry struct {
	record   Record
	envelope *[]byte // nil when the caller gave up before the writer came
	size     int64   // as reserved
	index    uint64
}

// envelopes holds the buffers that records are encoded in.
var envelopes = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps rare giants out of the pool, where they would stay in memory.
const maxPooled = 1 << 20

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		envelopes.Put(b)
	}
}

// Append stores r and returns its index once it is durable. Until then it is
// shown to nobody.
//
// With ErrFull, ErrTooLarge and ErrClosed nothing was stored. With ErrFailed, and with
// the context's error, the record may or may not be there after a restart. r.Body and
// the values of r.Header are kept for readers: they must not be changed any more.
func (j *Journal) Append(ctx context.Context, r Record) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	length := envelopeLen(&r)
	if length > maxEnvelope || frameLen(length) > j.opt.MaxBytes {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, length)
	}
	size := frameLen(length)
	if err := j.reserve(size); err != nil {
		return 0, err
	}
	// Encoding is done here, by many at once; the writer only adds the index.
	buf, _ := envelopes.Get().(*[]byte) // the pool makes nothing else
	*buf = j.sum.encode((*buf)[:0], &r)

	e := entry{record: asRead(r), envelope: buf, size: size}
	uncancelled := ctx.Done() == nil
	if uncancelled && j.seize() {
		// Nobody else writes or waits, and nobody can call this off: there is no need for the
		// writer, and for the two changes of goroutine that it takes.
		b := &batch{entries: []entry{e}, bytes: size, done: make(chan struct{})}
		j.commit(b)
		j.leave()
		return b.entries[0].index, b.err
	}
	b, pos, err := j.enqueue(e)
	if err != nil {
		release(buf)
		return 0, err
	}
	if uncancelled {
		<-b.done
		return b.entries[pos].index, b.err
	}
	select {
	case <-b.done:
		return b.entries[pos].index, b.err
	case <-ctx.Done():
		j.abandon(b, pos)
		return 0, ctx.Err()
	}
}

// reserve admits a record of size bytes and counts it as on its way, or says why it
// is refused.
func (j *Journal) reserve(size int64) error {
	diskErr := j.checkDisk(size)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.stopped(); err != nil {
		return err
	}
	if diskErr != nil {
		return diskErr
	}
	if waiting := j.waiting.total + j.reserved; waiting+size > j.opt.MaxBytes {
		j.refused = true
		return fmt.Errorf("%w: %d bytes wait, %d allowed", ErrFull, waiting, j.opt.MaxBytes)
	}
	j.reserved += size
	return nil
}

// stopped tells why no record is taken any more. mu must be held.
func (j *Journal) stopped() error {
	if j.closing {
		return ErrClosed
	}
	return j.failure
}

// enqueue puts e into the batch that is written next, or gives back what it had
// reserved.
func (j *Journal) enqueue(e entry) (*batch, int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.stopped(); err != nil {
		j.reserved -= e.size
		return nil, 0, err
	}
	n := len(j.queue)
	if n == 0 || j.queue[n-1].bytes+e.size > maxBatchBytes {
		j.queue = append(j.queue, &batch{entries: make([]entry, 0, j.shared), done: make(chan struct{})})
		n++
		if !j.writing {
			j.work.Signal()
		}
	}
	b := j.queue[n-1]
	b.entries = append(b.entries, e)
	b.bytes += e.size
	return b, len(b.entries) - 1, nil
}

// abandon takes the entry back if its batch still waits, so that a disk that hangs
// does not fill the memory with records that nobody waits for.
func (j *Journal) abandon(b *batch, pos int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(j.queue, b) {
		e := &b.entries[pos]
		release(e.envelope)
		e.envelope = nil
		j.reserved -= e.size
		b.bytes -= e.size
		return
	}
}

// seize makes the caller the one who writes, if nobody is, nobody waits for it, and nobody shared the last write.
func (j *Journal) seize() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.writing || len(j.queue) > 0 || j.shared > 1 || j.stopped() != nil {
		return false
	}
	j.writing = true
	return true
}

// leave ends what seize began, and has the writer take what has come meanwhile.
func (j *Journal) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = false
	if len(j.queue) > 0 || j.closing {
		j.work.Signal()
	}
}

// write is the writer goroutine: it takes what waits, writes and syncs it, wakes
// those who waited, and takes the next, until Close.
func (j *Journal) write() {
	defer close(j.ended)
	for b := j.next(); b != nil; b = j.next() {
		j.commit(b)
		j.leave()
	}
}

// next waits for a batch, and for whoever writes, and takes it; nil once the journal is closing and the queue
// is empty.
func (j *Journal) next() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		for j.writing || len(j.queue) == 0 {
			if j.closing && !j.writing {
				return nil
			}
			j.work.Wait()
		}
		j.writing = true
		j.gather()
		if len(j.queue) > 0 {
			break
		}
		j.writing = false // a failure has answered all who waited
	}
	b := j.queue[0]
	j.queue[0] = nil
	j.queue = j.queue[1:]
	return b
}

// gatherTries is how often in a row nobody may have come before those who have are not kept waiting any more.
const gatherTries = 3

// gather lets others go first while fewer wait than twice as many as shared the last write, and as long as more come: most of
// those who were woken by it come back with another record, and a sync costs as much for one as for all of them. Without it 32
// writers go by halves, at less than half the speed. It waits for nobody who is not ready to run. mu must be held, and is let
// go of.
func (j *Journal) gather() {
	if j.shared < 2 {
		return
	}
	for came, tries := 0, 0; tries < gatherTries && len(j.queue) == 1 && len(j.queue[0].entries) < 2*j.shared; tries++ {
		if n := len(j.queue[0].entries); n > came {
			came, tries = n, 0
		}
		j.mu.Unlock()
		runtime.Gosched()
		j.mu.Lock()
	}
}

func (j *Journal) commit(b *batch) {
	defer close(b.done)
	index := j.last // only who writes changes it
	logs := j.scratch[:0]
	for i := range b.entries {
		e := &b.entries[i]
		if e.envelope == nil {
			continue
		}
		index++
		e.index = index
		j.sum.stamp(*e.envelope, index)
		logs = append(logs, raft.Log{Index: index, Data: *e.envelope})
	}
	if len(logs) == 0 {
		return
	}
	err := j.store(logs)
	j.scratch = logs
	clear(j.scratch) // pins no buffers

	j.mu.Lock()
	defer j.mu.Unlock()
	j.reserved -= b.bytes
	j.shared = len(logs)
	if err == nil {
		j.last = index
		j.commits++
	} else {
		b.err = j.failure
	}
	for i := range b.entries {
		e := &b.entries[i]
		if e.envelope == nil {
			continue
		}
		if err == nil {
			j.waiting.add(e.index, frameLen(int64(len(*e.envelope))))
			e.record.Index = e.index
			j.recent.add(e.record)
		} else {
			e.index = 0
		}
		release(e.envelope)
		e.envelope = nil
	}
	if err == nil {
		j.ring()
	}
}

// store makes logs durable. An error has already stopped the journal.
func (j *Journal) store(logs []raft.Log) error {
	j.mu.Lock()
	err := j.failure
	j.mu.Unlock()
	if err != nil {
		return err
	}
	refs := make([]*raft.Log, len(logs))
	for i := range logs {
		refs[i] = &logs[i]
	}
	if err := j.wal.StoreLogs(refs); err != nil {
		j.fail(err)
		return err
	}
	// The mark follows the fsync and precedes the answer: below it everything is
	// acknowledged or about to be. That it cannot be written takes nothing from
	// this batch, but no further one shall trust the disk.
	if err := j.marks.acknowledge(logs[len(logs)-1].Index); err != nil {
		j.fail(err)
	}
	return nil
}

// fail stops the journal for good, with the first cause, and answers all who wait.
func (j *Journal) fail(cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failure != nil {
		return
	}
	j.failure = fmt.Errorf("%w: %w", ErrFailed, cause)
	for _, b := range j.queue {
		for i := range b.entries {
			if e := &b.entries[i]; e.envelope != nil {
				release(e.envelope)
				e.envelope = nil
			}
		}
		j.reserved -= b.bytes
		b.err = j.failure
		close(b.done)
	}
	j.queue = nil
}
