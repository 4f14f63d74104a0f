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

// view is the fragments of a chunk in one view, one behind the other: made once, and shared. It is a copy of what is kept of the chunk's own bytes, for one reference to many
// small events costs the sending of each reader less than a reference or two to each of them, and the copy is made for all readers together. What was handed out of a view
// does not change.
type view struct {
	frames []byte
	// ends is, for each entry, where its fragment ends.
	ends []int
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
		parts, _ := f.cut(whole.Entry(n), v) // what is no event has no parts
		for _, part := range parts {
			made.frames = append(made.frames, part...)
		}
		made.ends = append(made.ends, len(made.frames))
	}
	snapshot := *made
	return fragments{run: run, view: &snapshot, skip: skip}
}

// size is the size in bytes of the fragments from i up to but not including j.
func (f fragments) size(i, j int) int {
	if f.view == nil {
		return f.run.Size(i, j)
	}
	return f.view.end(f.skip+j) - f.view.end(f.skip+i)
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
	start, end := f.view.end(f.skip+i), f.view.end(f.skip+j)
	return append(wire, mem.SliceBuffer(f.view.frames[start:end:end]))
}

// end is where the fragments of the first n entries end.
func (v *view) end(n int) int {
	if n == 0 {
		return 0
	}
	return v.ends[n-1]
}
