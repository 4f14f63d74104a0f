package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// tune fits the Go runtime to what the process does, once.
var tune = sync.OnceFunc(func() {
	keepHeap()
	sparePlace()
})

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

// syncing is how many threads wait for a disk nearly all of the time, under load: that of the journal.
const syncing = 1

// sparePlace lets as many threads run as there are processors beside those that wait for a disk. One that waits keeps its place among those that run until the scheduler
// notices, which it looks for ever more rarely under load. An operator who has set GOMAXPROCS has decided already; a limit of the container that is changed while the relay runs
// counts from the next start on.
func sparePlace() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncing)
	}
}
