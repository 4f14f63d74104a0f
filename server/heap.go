package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// heapFloor is what the heap may grow to before it is collected, in bytes. What the relay holds on to is a fraction of that as a rule, and a heap that is
	// collected whenever it has doubled is collected several times a second then, under load, which takes a seventh of the processors' time.
	heapFloor = 256 << 20
	// doubled is the collector's own rule, in percent.
	doubled = 100
)

// keepHeap has the heap collected when it has doubled, as usual, but not before it has reached heapFloor. It looks again after every collection. An operator who has set GOGC
// or GOMEMLIMIT has decided already.
func keepHeap() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	live := samples[0].Value.Uint64()
	debug.SetGCPercent(heapPercent(live, live+samples[1].Value.Uint64()+samples[2].Value.Uint64()))
	runtime.AddCleanup(new(collected), func(struct{}) { keepHeap() }, struct{}{})
}

// collected is referred to by nothing, so that a collection takes it.
type collected struct{ _ [64]byte }

// heapPercent is by how much of the base, in percent, a heap may grow of which so many bytes are live. The base is what the collector has to look at.
func heapPercent(live, base uint64) int {
	if live >= heapFloor {
		return doubled
	}
	return int(max(doubled, (heapFloor-live)*100/max(base, 1<<20)))
}
