package eventlog

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// latestBytes bounds what is kept of the newest entries for those who follow the log: a large step, or some small ones.
	latestBytes = 8 << 20
	// entryOverhead is what an entry takes in memory beside its data, in bytes.
	entryOverhead = 256
)

// latest holds the newest entries of an embedded log as they were appended, in a row that ends with the log: who follows takes them from here, and not out of the store and
// through a connection. Only what is on disk is added.
type latest struct {
	mu      sync.Mutex // guards what follows
	entries []Entry
	bytes   int
}

// add takes in what a step stored, from a sequence on. Of a step that held copies nobody knows here which record lies where, so first is 0 and nothing is left: the store knows.
func (l *latest) add(first uint64, records []Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.entries); first == 0 || n > 0 && l.entries[n-1].Sequence+1 != first {
		l.entries, l.bytes = nil, 0
	}
	if first == 0 {
		return
	}
	for i := range records {
		r := &records[i]
		e := Entry{Sequence: first + uint64(i), ID: r.ID, Origin: r.Origin, Data: r.Data, More: i+1 < len(records)}
		if !r.Time.IsZero() {
			e.Time = time.Unix(0, r.Time.UnixNano()).UTC()
		}
		if len(e.Data) == 0 {
			e.Data = []byte{} // as it is read
		}
		l.entries = append(l.entries, e)
		l.bytes += entryOverhead + len(e.Data)
	}
	n := 0
	for ; l.bytes > latestBytes && n+1 < len(l.entries); n++ {
		l.bytes -= entryOverhead + len(l.entries[n].Data)
	}
	l.entries = slices.Delete(l.entries, 0, n)
}

// from returns the next entries from a sequence on; none if it is not there yet, or not there any more.
func (l *latest) from(sequence uint64) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.entries)
	if n == 0 || sequence < l.entries[0].Sequence || sequence > l.entries[n-1].Sequence {
		return nil
	}
	rest := l.entries[sequence-l.entries[0].Sequence:]
	return slices.Clone(rest[:min(len(rest), burst)]) // what is here moves
}

// tail is follow for an embedded log, for ever: the newest entries come as they were appended, what lies further back out of the store.
func (l *Log) tail(ctx context.Context, k *link, from *start, yield func(Entry, error) bool) error {
	for {
		if err := k.shown(ctx, from.seq); err != nil {
			return err
		}
		entries := k.disk.latest.from(from.seq)
		if len(entries) == 0 {
			if err := l.follow(ctx, k, from, k.disk.end(), false, yield); err != nil {
				return err
			}
			continue
		}
		for _, e := range entries {
			from.seq = e.Sequence + 1
			if !yield(e, nil) {
				return errStopped
			}
		}
	}
}
