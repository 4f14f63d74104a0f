package journal

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// defaultRecentBytes bounds the records that are kept in memory for a reader that follows
	// closely.
	defaultRecentBytes = 32 << 20
	// recentOverhead is what a record takes in memory beside its body, in bytes.
	recentOverhead = 512
)

// recent holds durable records as they were appended, so that who follows the journal reads
// them without the disk. They are of one piece: once the bound is reached nothing is added
// until what is there was trimmed, for the reader is at the front and would come to the
// latest last.
type recent struct {
	max int // bytes

	mu      sync.Mutex // guards what follows
	records []Record   // with indexes in a row
	bytes   int
}

func (r *recent) add(record Record) {
	size := recentOverhead + len(record.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.records); n > 0 && r.records[n-1].Index+1 != record.Index || r.bytes+size > r.max {
		return
	}
	r.records = append(r.records, record)
	r.bytes += size
}

// trim drops the records through an index.
func (r *recent) trim(through uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(r.records) && r.records[n].Index <= through {
		r.bytes -= recentOverhead + len(r.records[n].Body)
		n++
	}
	r.records = slices.Delete(r.records, 0, n)
}

// at returns a record, if it is here.
func (r *recent) at(index uint64) (Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 || index < r.records[0].Index || index-r.records[0].Index >= uint64(len(r.records)) {
		return Record{}, false
	}
	return r.records[index-r.records[0].Index], true
}

// asRead is a record as it comes back from the disk.
func asRead(r Record) Record {
	if !r.ReceivedAt.IsZero() {
		r.ReceivedAt = time.Unix(0, r.ReceivedAt.UnixNano()).UTC()
	}
	r.Body = slices.Clip(r.Body)
	if len(r.Body) == 0 {
		r.Body = nil
	}
	for name, values := range r.Header {
		if len(values) == 0 {
			r.Header = maps.Clone(r.Header)
			delete(r.Header, name)
		}
	}
	if len(r.Header) == 0 {
		r.Header = nil
	}
	return r
}
