package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hardlyStolen is how many percent of the processors' time the host of a virtual machine may take in a turn that shows what they can do.
const hardlyStolen = 2

// turn is what was measured in one turn, and what the host took of the processors' time in it, in percent.
type turn[T any] struct {
	of     T
	stolen float64
}

// takeTurns measures in turns until there were enough in which the host took hardly any of the processors' time, or three times as many. It returns those in which it took the
// least, as many as are enough, and all.
func takeTurns[T any](tb testing.TB, enough int, take func() T) (calm, all []turn[T]) {
	tb.Helper()
	for undisturbed := 0; undisturbed < enough && len(all) < 3*enough; {
		before := readProcessors(tb)
		t := turn[T]{of: take()}
		t.stolen = readProcessors(tb).stolenSince(before)
		all = append(all, t)
		if t.stolen <= hardlyStolen {
			undisturbed++
		}
	}
	slices.SortStableFunc(all, func(a, b turn[T]) int { return cmp.Compare(a.stolen, b.stolen) })
	return all[:enough], all
}

// figures are what was measured in one turn, by name. The name of a share has "of-" in it.
type figures map[string]float64

// reportTurns measures in turns and reports the median of each figure in those that count, and what the host took of the processors' time in them. The shares, and what was
// taken, are reported of all turns as well, with all- in front.
func reportTurns(b *testing.B, enough int, take func() figures) {
	b.Helper()
	calm, all := takeTurns(b, enough, take)
	for name := range all[0].of {
		of := func(t turn[figures]) float64 { return t.of[name] }
		b.ReportMetric(medianOf(calm, of), name)
		if strings.Contains(name, "of-") {
			b.ReportMetric(medianOf(all, of), "all-"+name)
		}
	}
	reportStolen(b, calm, all)
}

// reportStolen tells what the host took in the turns that count, and in all.
func reportStolen[T any](b *testing.B, calm, all []turn[T]) {
	b.Helper()
	stolen := func(t turn[T]) float64 { return t.stolen }
	b.ReportMetric(medianOf(calm, stolen), "stolen-%")
	b.ReportMetric(medianOf(all, stolen), "all-stolen-%")
}

func medianOf[T any](turns []turn[T], of func(turn[T]) float64) float64 {
	var each []float64
	for _, t := range turns {
		each = append(each, of(t))
	}
	return median(each)
}

// processors is the time of all processors since the start of the machine, and what its host took of that for others, in ticks of the system.
type processors struct{ all, stolen uint64 }

// readProcessors reads the time of the processors, as proc_stat(5) describes it. Where that is not told, nothing is stolen.
func readProcessors(tb testing.TB) (p processors) {
	tb.Helper()
	const stolen = 7 // behind user, nice, system, idle, iowait, irq and softirq; the time of guests, behind it, is in the first two
	stat, err := os.ReadFile("/proc/stat")
	if errors.Is(err, fs.ErrNotExist) {
		return p
	}
	if err != nil {
		tb.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) <= stolen+1 {
		tb.Fatalf("/proc/stat begins %q", line)
	}
	for i, field := range fields[1 : stolen+2] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			tb.Fatalf("/proc/stat begins %q", line)
		}
		p.all += n
		if i == stolen {
			p.stolen = n
		}
	}
	return p
}

// stolenSince is what the host took of the processors' time since before, in percent.
func (p processors) stolenSince(before processors) float64 {
	if p.all == before.all {
		return 0
	}
	return 100 * float64(p.stolen-before.stolen) / float64(p.all-before.all)
}
