package rpc

import (
	"sort"
	"sync"

	"google.golang.org/grpc/mem"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/hub"
)

// fragments are those of a run of entries in one view.
type fragments struct {
	run hub.Run
	// view is nil for the full one, whose fragments the run itself holds.
	view *view
	// skip is how many entries the view knows before the run's first.
	skip int
}

// view is what a run's fragments are in one view: made once, of references to the run's own bytes and a head for each, and shared. A view that was handed out does not change.
type view struct {
	parts []mem.Buffer
	// ends and sizes are, for each entry, how many parts and bytes there are up to its end.
	ends, sizes []int
}

// views are the views of the entries of a chunk.
type views struct {
	mu sync.Mutex // guards what follows
	of [eventrelayv1.EventView_EVENT_VIEW_RAW + 1]view
}

// fragments returns the fragments of a run in a view.
func (f framer) fragments(run hub.Run, v eventrelayv1.EventView) fragments {
	if v <= eventrelayv1.EventView_EVENT_VIEW_FULL {
		return fragments{run: run}
	}
	shared, _ := run.Notes().Value(func() any { return &views{} }).(*views)
	whole, skip := run.Whole()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	made := &shared.of[v]
	for n := len(made.ends); n < whole.Len(); n++ {
		parts, size, _ := f.cut(whole.Entry(n), v) // what is no event has no parts
		for _, part := range parts {
			made.parts = append(made.parts, mem.SliceBuffer(part))
		}
		if n > 0 {
			size += made.sizes[n-1]
		}
		made.ends, made.sizes = append(made.ends, len(made.parts)), append(made.sizes, size)
	}
	snapshot := *made
	return fragments{run: run, view: &snapshot, skip: skip}
}

// size is the size in bytes of the fragments from i up to but not including j.
func (f fragments) size(i, j int) int {
	if f.view == nil {
		return f.run.Size(i, j)
	}
	return before(f.view.sizes, f.skip+j) - before(f.view.sizes, f.skip+i)
}

// fit is how many entries from i on have fragments that fit into so many bytes together.
func (f fragments) fit(i, room int) int {
	return sort.Search(f.run.Len()-i, func(n int) bool { return f.size(i, i+n+1) > room })
}

// append appends the fragments from i up to but not including j to what is sent.
func (f fragments) append(wire mem.BufferSlice, i, j int) mem.BufferSlice {
	if f.view == nil {
		return append(wire, mem.SliceBuffer(f.run.Frames(i, j)))
	}
	return append(wire, f.view.parts[before(f.view.ends, f.skip+i):before(f.view.ends, f.skip+j)]...)
}

// before is the running total in front of the entry n.
func before(totals []int, n int) int {
	if n == 0 {
		return 0
	}
	return totals[n-1]
}
