package index

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// entry is one id: its fingerprint, and where its event lies in the log.
type entry struct{ mark, sequence uint64 }

// run is a sorted set of entries that never changes: 12 bytes each, and less than half a byte for the fence. A fingerprint may stand in it more than once.
type run struct {
	base   uint64 // the lowest sequence
	prints []uint64
	deltas []uint32 // from base, beside the fingerprints
	// fence says where the fingerprints begin that share their highest bits, 8 to 16 of them: a look-up reads two cache lines.
	fence []uint32
	shift int // what is left of a fingerprint without those bits
}

// newRuns makes runs of entries, whose order it changes: one, unless their sequences lie more than 32 bits apart.
func newRuns(entries []entry) (runs []*run) {
	if len(entries) == 0 {
		return nil
	}
	base, last := entries[0].sequence, entries[0].sequence
	for _, e := range entries {
		base, last = min(base, e.sequence), max(last, e.sequence)
	}
	if last-base > math.MaxUint32 {
		slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.sequence, b.sequence) })
		far := slices.IndexFunc(entries, func(e entry) bool { return e.sequence-base > math.MaxUint32 })
		return append(newRuns(entries[:far]), newRuns(entries[far:])...)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if a.mark != b.mark {
			return cmp.Compare(a.mark, b.mark)
		}
		return cmp.Compare(a.sequence, b.sequence)
	})
	r := allocate(len(entries), base)
	for i, e := range entries {
		r.prints[i], r.deltas[i] = e.mark, uint32(e.sequence-base)
	}
	r.fortify()
	return []*run{r}
}

func allocate(n int, base uint64) *run {
	return &run{base: base, prints: make([]uint64, n), deltas: make([]uint32, n)}
}

// fortify makes the fence. Fingerprints are even, so as many lie in each part.
func (r *run) fortify() {
	high := max(0, bits.Len(uint(len(r.prints)))-4)
	r.shift = 64 - high
	r.fence = make([]uint32, 1<<high+1)
	part := uint64(0)
	for i, p := range r.prints {
		for ; part < p>>r.shift; part++ {
			r.fence[part+1] = uint32(i)
		}
	}
	for ; part < 1<<high; part++ {
		r.fence[part+1] = uint32(len(r.prints))
	}
}

// find appends the sequences of a fingerprint.
func (r *run) find(p uint64, found []uint64) []uint64 {
	part := p >> r.shift // all of it, where the run is so small that it has one part
	for i, end := r.fence[part], r.fence[part+1]; i < end && r.prints[i] <= p; i++ {
		if r.prints[i] == p {
			found = append(found, r.base+uint64(r.deltas[i]))
		}
	}
	return found
}

// last returns the highest sequence.
func (r *run) last() uint64 { return r.base + uint64(slices.Max(r.deltas)) }

// bytes returns what the run takes in memory.
func (r *run) bytes() int { return 8*len(r.prints) + 4*len(r.deltas) + 4*len(r.fence) }

// merge returns one run of the entries of two, or nil if their sequences lie too far apart.
func merge(a, b *run) *run {
	base := min(a.base, b.base)
	if max(a.last(), b.last())-base > math.MaxUint32 {
		return nil
	}
	m := allocate(len(a.prints)+len(b.prints), base)
	moveA, moveB := uint32(a.base-base), uint32(b.base-base)
	i, j := 0, 0
	for n := range m.prints {
		switch {
		case j == len(b.prints), i < len(a.prints) && (a.prints[i] < b.prints[j] || a.prints[i] == b.prints[j] && a.deltas[i]+moveA <= b.deltas[j]+moveB):
			m.prints[n], m.deltas[n] = a.prints[i], a.deltas[i]+moveA
			i++
		default:
			m.prints[n], m.deltas[n] = b.prints[j], b.deltas[j]+moveB
			j++
		}
	}
	m.fortify()
	return m
}

// stack is runs of falling size, as a binary counter has digits: few of them, and each entry is moved a few times only.
type stack []*run

// push adds a run, and merges what has become too many.
func (s stack) push(r *run) stack {
	s = append(s, r)
	for n := len(s); n > 1 && len(s[n-2].prints) < 2*len(s[n-1].prints) && s.mergeLast(); n = len(s) {
		s = s[:n-1]
	}
	return s
}

// squeeze merges all it can.
func (s stack) squeeze() stack {
	for len(s) > 1 && s.mergeLast() {
		s = s[:len(s)-1]
	}
	return s
}

// mergeLast makes one of the last two, and leaves nothing behind it.
func (s stack) mergeLast() bool {
	n := len(s)
	m := merge(s[n-2], s[n-1])
	if m == nil {
		return false
	}
	s[n-2], s[n-1] = m, nil
	return true
}
