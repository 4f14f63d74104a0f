package hub

import (
	"sort"
	"sync"
)

const (
	// maxRecentBytes bounds the memory of recent entries, whatever the number of readers: some seconds of a busy log.
	maxRecentBytes = 16 << 20
	// chunkBytes is the size of the pieces that it is made of. Whoever holds on to an entry holds on to its whole chunk, so a chunk is small; a larger entry has one of its own.
	chunkBytes = 64 << 10
)

// Framer may be implemented by a Log: readers are then sent what it makes of an entry, made once for all of them.
type Framer interface {
	// Frame appends to dst what readers are sent of an entry, and returns it with the place in it where the entry's data lies, unchanged; -1 if it is not in it.
	Frame(dst []byte, entry Entry) (framed []byte, data int)
}

// ring holds the newest entries in chunks, oldest first, without a gap. Its user holds a lock; what it hands out is never written again.
type ring struct {
	framer Framer
	// max bounds its bytes; chunkBytes is the size of a chunk.
	max, chunkBytes int
	chunks          []*chunk
	bytes           int
}

// chunk is a piece of memory that is filled once, from its beginning to its end.
type chunk struct {
	first uint64
	// frames holds the frames one behind the other. What has been handed out of it stays as it is: more is only appended.
	frames []byte
	marks  []mark
	notes  *Notes
	// apart is how many bytes of data lie elsewhere, size how many bytes all of it takes.
	apart, size int
}

// mark is where the frame of an entry lies in its chunk, and its data, which is a part of the frame as a rule.
type mark struct {
	start, end uint32
	data       []byte
}

// add puts an entry, which is the next one, at the end, and lets go of the oldest ones.
func (r *ring) add(entry Entry) {
	c := r.room(entry)
	m := mark{start: uint32(len(c.frames)), data: entry.Data}
	data := len(c.frames)
	if r.framer == nil {
		c.frames = append(c.frames, entry.Data...)
	} else {
		c.frames, data = r.framer.Frame(c.frames, entry)
	}
	m.end = uint32(len(c.frames))
	if data >= 0 {
		m.data = c.frames[data : data+len(entry.Data) : data+len(entry.Data)]
	} else {
		c.apart += len(entry.Data)
	}
	c.marks = append(c.marks, m)
	size := cap(c.frames) + c.apart
	r.bytes += size - c.size
	for c.size = size; r.bytes > r.max && len(r.chunks) > 1; r.chunks = r.chunks[1:] {
		r.bytes -= r.chunks[0].size
		r.chunks[0] = nil // not held by the array behind the slice
	}
}

// FrameRoom is how much a frame may add to the data without a copy of what lies before it.
const FrameRoom = 128

// fits reports whether an entry goes into the newest chunk.
func (r *ring) fits(entry Entry) bool {
	n := len(r.chunks)
	return n > 0 && cap(r.chunks[n-1].frames)-len(r.chunks[n-1].frames) >= len(entry.Data)+FrameRoom
}

// room returns the chunk that an entry goes into.
func (r *ring) room(entry Entry) *chunk {
	if r.fits(entry) {
		return r.chunks[len(r.chunks)-1]
	}
	c := &chunk{first: entry.Sequence, notes: &Notes{}}
	if len(entry.Data)+FrameRoom <= r.chunkBytes { // else it takes what its frame takes
		c.frames = make([]byte, 0, r.chunkBytes)
	}
	r.chunks = append(r.chunks, c)
	return c
}

// clear forgets everything.
func (r *ring) clear() { r.chunks, r.bytes = nil, 0 }

// behind returns the entries behind a sequence that lie in one chunk; none if the ring does not reach back that far.
func (r *ring) behind(after uint64) Run {
	// The first chunk that begins further on; the one before it is the one.
	i := sort.Search(len(r.chunks), func(i int) bool { return r.chunks[i].first > after+1 })
	if i == 0 {
		return Run{}
	}
	c := r.chunks[i-1]
	if after+1-c.first >= uint64(len(c.marks)) {
		return Run{}
	}
	return c.run(after + 1)
}

// run returns the entries of a chunk from a sequence on.
func (c *chunk) run(from uint64) Run {
	return Run{first: c.first, from: int(from - c.first), marks: c.marks, frames: c.frames, notes: c.notes, pinned: c.size}
}

// count is how many entries the ring holds.
func (r *ring) count() (n int) {
	for _, c := range r.chunks {
		n += len(c.marks)
	}
	return n
}

// Run is a row of entries without a gap whose frames lie one behind the other. Nothing of it is ever written again or used for something else, so it may be kept, and handed
// on by reference, for as long as one likes.
type Run struct {
	// first is the sequence of the chunk's first entry, from the place of the run's first one in the chunk.
	first  uint64
	from   int
	marks  []mark
	frames []byte
	notes  *Notes
	pinned int
}

// Len is how many entries there are.
func (r Run) Len() int { return len(r.marks) - r.from }

// First is the sequence of the first entry; that of the next one is the next number.
func (r Run) First() uint64 { return r.first + uint64(r.from) }

// Whole returns the run from the first entry of its chunk on, and how many entries that are more. All runs of a chunk have the same Notes.
func (r Run) Whole() (whole Run, more int) {
	whole, more = r, r.from
	whole.from = 0
	return whole, more
}

// Entry returns an entry. Nobody may change its data.
func (r Run) Entry(i int) Entry {
	return Entry{Sequence: r.first + uint64(r.from+i), Data: r.marks[r.from+i].data}
}

// Frames returns the frames of the entries from i up to but not including j, one behind the other. Nobody may change them.
func (r Run) Frames(i, j int) []byte {
	if i >= j {
		return nil
	}
	start, end := r.marks[r.from+i].start, r.marks[r.from+j-1].end
	return r.frames[start:end:end]
}

// Size is the size in bytes of the frames from i up to but not including j.
func (r Run) Size(i, j int) int {
	if i >= j {
		return 0
	}
	return int(r.marks[r.from+j-1].end - r.marks[r.from+i].start)
}

// Pinned is how many bytes of memory stay in use for as long as any part of the run does.
func (r Run) Pinned() int { return r.pinned }

// Notes is where readers leave what they have worked out about the entries of a chunk, for each other. It goes with the chunk.
func (r Run) Notes() *Notes { return r.notes }

// Notes holds one value. Any goroutine may call its methods.
type Notes struct {
	once  sync.Once
	value any
}

// Value returns what the first call of make returned.
func (n *Notes) Value(first func() any) any {
	n.once.Do(func() { n.value = first() })
	return n.value
}
