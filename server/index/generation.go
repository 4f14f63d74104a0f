package index

import (
	"math"
	"slices"
	"time"
)

const (
	// perHorizon is in how many generations the ids of a horizon lie: the fewer, the faster is a look-up; the more, the sooner is memory given back.
	perHorizon = 8
	// maxGeneration bounds a generation. To merge two runs of half of that takes some 20 ms, during which a step waits.
	maxGeneration = 2 << 20
	// maxUnsaved is how many entries may wait for the file before somebody writes them at once.
	maxUnsaved = 4 * maxEntries
)

// meet notes when an event was received.
func (b *block) meet(received time.Time) {
	if received.After(b.newest) {
		b.newest = received
	}
}

// add takes a block into the newest generation, or into a new one if that has had its time; mu is held.
func (x *Index) add(b block) {
	if now := time.Now(); len(b.entries) > 0 && (b.newest.IsZero() || b.newest.After(now)) {
		b.newest = now // a clock that is ahead must not keep a generation for longer
	}
	g := x.current(&b)
	for _, r := range newRuns(b.entries) {
		g.runs = g.runs.push(r)
	}
	g.events += len(b.entries)
	if b.newest.After(g.newest) {
		g.newest = b.newest
	}
	if n := len(x.unsaved); n > 0 && x.unsaved[n-1].of == g && x.unsaved[n-1].extend(b) {
		return
	}
	x.unsaved = append(x.unsaved, unsaved{g, b})
}

// current returns the generation that a block goes into; mu is held.
func (x *Index) current(b *block) *generation {
	if n := len(x.generations); n > 0 {
		g := x.generations[n-1]
		full := g.events > 0 && (g.events+len(b.entries) > maxGeneration || b.newest.Sub(g.opened) >= x.horizon/perHorizon)
		if !full && !g.sealed {
			if g.events == 0 {
				g.opened = b.newest
			}
			return g
		}
		g.seal()
	}
	x.number++
	g := &generation{file: file{path: x.path(x.number)}, opened: b.newest}
	x.generations = append(x.generations, g)
	return g
}

// seal ends a generation's growth.
func (g *generation) seal() {
	g.sealed = true
	g.runs = g.runs.squeeze()
}

// age drops the generations that hold nothing received within the horizon before t, or before now if that is earlier; mu is held. What waited in the journal while the log
// was away is compared with what was known when it came.
func (x *Index) age(t time.Time) {
	if now := time.Now(); t.IsZero() || t.After(now) {
		t = now
	}
	cutoff := t.Add(-x.horizon)
	x.generations = slices.DeleteFunc(x.generations, func(g *generation) bool {
		gone := g.newest.Before(cutoff)
		if gone {
			x.aged = append(x.aged, g)
		}
		return gone
	})
}

// usage returns how many entries there are, what they take in memory, and in how many generations they lie.
func (x *Index) usage() (events, bytes, generations int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, g := range x.generations {
		events += g.events
		for _, r := range g.runs {
			bytes += r.bytes()
		}
	}
	return events, bytes, len(x.generations)
}

// coverage is which sequences are known: stretches from one through another, in no order.
type coverage []stretch

type stretch struct{ from, through uint64 }

// add takes a stretch in.
func (c coverage) add(from, through uint64) coverage {
	if n := len(c); n > 0 && from >= c[n-1].from && from-1 <= c[n-1].through {
		c[n-1].through = max(c[n-1].through, through)
		return c
	}
	return append(c, stretch{from, through})
}

// gaps returns what is missing between two sequences, both included.
func (c coverage) gaps(first, last uint64) (missing []stretch) {
	slices.SortFunc(c, func(a, b stretch) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	next := first
	for _, s := range append(c, stretch{math.MaxUint64, math.MaxUint64}) {
		if s.from > next && next <= last {
			missing = append(missing, stretch{next, min(s.from-1, last)})
		}
		if s.through != math.MaxUint64 {
			next = max(next, s.through+1)
		}
	}
	return missing
}
