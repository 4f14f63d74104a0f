package main

import (
	"regexp"
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

func TestTheOperatorDecidesOverTheHeap(t *testing.T) {
	percent := regexp.MustCompile(`(?m)^go_gc_gogc_percent (\S+)$`)
	for _, set := range []string{"", "100"} {
		t.Setenv("GOGC", set)
		r := spawn(t, t.TempDir())
		_, page := r.get("/metrics")
		found := percent.FindStringSubmatch(page)
		if found == nil {
			t.Fatal("the metrics do not tell")
		}
		n, err := strconv.ParseFloat(found[1], 64)
		if err != nil || (n > doubled) != (set == "") {
			t.Errorf("with GOGC=%q a heap may grow by %v %%", set, n)
		}
		r.stop()
	}
}
