package main

import (
	"regexp"
	"runtime"
	"strconv"
	"testing"
)

func TestAHeapMayDoubleAndMayGrowToTheFloor(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, roots uint64
		least, most uint64 // where the next collection begins
	}{
		{0, 0, heapFloor, heapFloor},
		{10 * mib, 2 * mib, heapFloor * 98 / 100, heapFloor},
		{60 * mib, 30 * mib, heapFloor * 98 / 100, heapFloor},
		{127 * mib, 0, heapFloor * 98 / 100, heapFloor},
		{200 * mib, 0, 400 * mib, 400 * mib},
		{5000 * mib, 100 * mib, 10100 * mib, 10100 * mib},
	} {
		base := max(c.live+c.roots, mib)
		next := c.live + base*uint64(heapPercent(c.live, c.live+c.roots))/100
		if next < c.least || next > c.most {
			t.Errorf("with %d MiB live the heap is collected at %d MiB", c.live/mib, next/mib)
		}
	}
}

func TestTheOperatorDecidesOverHeapAndProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	runtime.SetDefaultGOMAXPROCS()
	processors := runtime.GOMAXPROCS(before)
	gauge := func(page, name string) float64 {
		t.Helper()
		found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(page)
		if found == nil {
			t.Fatalf("the metrics do not tell %s", name)
		}
		n, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, c := range []struct{ percent, processors string }{{"", ""}, {"100", "3"}} {
		t.Setenv("GOGC", c.percent)
		t.Setenv("GOMAXPROCS", c.processors)
		r := spawn(t, t.TempDir())
		_, page := r.get("/metrics")
		if n := gauge(page, "go_gc_gogc_percent"); (n > doubled) != (c.percent == "") {
			t.Errorf("with GOGC=%q a heap may grow by %v %%", c.percent, n)
		}
		want := float64(processors + syncing)
		if c.processors != "" {
			want = 3
		}
		if n := gauge(page, "go_sched_gomaxprocs_threads"); n != want {
			t.Errorf("with GOMAXPROCS=%q there is room for %v threads, want %v", c.processors, n, want)
		}
		r.stop()
	}
}
