package rpc

import (
	"sync"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/hub"
)

// maxDecodedBytes bounds the stored bytes of the events that are kept decoded; decoded they take a few times as much.
const maxDecodedBytes = 4 << 20

// decodings keeps the newest events that a filter had to look into, so that the next filter finds them decoded. The zero value is empty.
type decodings struct {
	mu     sync.Mutex // guards what follows
	events map[uint64]*decoding
	// order holds their sequences, oldest first.
	order []uint64
	bytes int
	// made is how many events were decoded.
	made int
}

// decoding is an event that is decoded once, by whoever comes first.
type decoding struct {
	once  sync.Once
	size  int
	event *eventrelayv1.Event
	err   error
}

// event returns the event of an entry as decode makes it. Nobody may change it.
func (d *decodings) event(entry hub.Entry, decode func(hub.Entry) (*eventrelayv1.Event, error)) (*eventrelayv1.Event, error) {
	d.mu.Lock()
	found := d.events[entry.Sequence]
	if found == nil {
		found = &decoding{size: len(entry.Data)}
		if d.events == nil {
			d.events = map[uint64]*decoding{}
		}
		d.events[entry.Sequence] = found
		d.made++
		d.order = append(d.order, entry.Sequence)
		for d.bytes += found.size; d.bytes > maxDecodedBytes && len(d.order) > 1; d.order = d.order[1:] {
			d.bytes -= d.events[d.order[0]].size
			delete(d.events, d.order[0])
		}
	}
	d.mu.Unlock()
	found.once.Do(func() { found.event, found.err = decode(entry) })
	return found.event, found.err
}
