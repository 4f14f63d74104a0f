package index

import (
	"context"
	"encoding/binary"
	"iter"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"eventrelay/server/eventlog"
)

// horizonIDs is a busy horizon.
const horizonIDs = 5_000_000

// BenchmarkMemory holds 5 million ids of seven days, as steps of different sizes bring them, and tells what one takes in memory and what a look-up costs. It does not touch a
// log, so what it holds is the index alone.
func BenchmarkMemory(b *testing.B) {
	before := heap()
	x, err := Open(nowhere{}, nil, Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	x.ready = true
	began := time.Now().Add(-defaultHorizon)
	took := time.Now()
	fill(x, began)
	filled := time.Since(took)
	bytes := heap() - before
	events, counted, generations := x.usage()
	if events != horizonIDs {
		b.Fatalf("%d ids", events)
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(bytes)/horizonIDs, "B/id")
		b.ReportMetric(float64(counted)/horizonIDs, "counted-B/id")
		b.ReportMetric(float64(generations), "generations")
		b.ReportMetric(horizonIDs/filled.Seconds(), "added/s")
	}
	var id [26]byte
	b.Run("new", func(b *testing.B) {
		for n := uint64(1 << 40); b.Loop(); n++ {
			if found := x.find(x.mark(name(&id, n))); len(found) > 0 {
				b.Fatal("found what never was")
			}
		}
		report(b)
	})
	b.Run("step", func(b *testing.B) {
		const step = 1000
		records := make([]eventlog.Record, step)
		prints := make([]uint64, step)
		for n := uint64(1 << 40); b.Loop(); n += step {
			for i := range prints {
				prints[i] = x.mark(name(&id, n+uint64(i)))
			}
			if found, err := x.suspects(records, prints); err != nil || len(found) > 0 {
				b.Fatal("found what never was", err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/step, "ns/id")
	})
	b.Run("known", func(b *testing.B) {
		for n := uint64(0); b.Loop(); n++ {
			if found := x.find(x.mark(name(&id, n*7919%horizonIDs))); len(found) != 1 {
				b.Fatal("lost an id")
			}
		}
		report(b)
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			y, err := Open(nowhere{}, nil, Options{Dir: x.dir})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := y.loadFiles(horizonIDs); err != nil {
				b.Fatal(err)
			}
			if events, _, _ := y.usage(); events != horizonIDs {
				b.Fatalf("%d ids of the files", events)
			}
		}
		b.ReportMetric(float64(b.N)*horizonIDs/b.Elapsed().Seconds(), "ids/s")
	})
	runtime.KeepAlive(x)
}

// fill brings the ids over seven days, in steps, saved as Run saves them.
func fill(x *Index, began time.Time) {
	var id [26]byte
	n := uint64(0)
	for step := 0; n < horizonIDs; step++ {
		size := min(uint64(1+step*37%1000), horizonIDs-n)
		b := block{from: n + 1, through: n + size, newest: began.Add(time.Duration(float64(defaultHorizon) * float64(n) / horizonIDs))}
		for range size {
			b.entries = append(b.entries, entry{x.mark(name(&id, n)), n + 1})
			n++
		}
		x.mu.Lock()
		x.add(b)
		x.position = b.through
		x.mu.Unlock()
		if step%100 == 0 {
			x.saveOrWarn()
		}
	}
	x.saveOrWarn()
}

// name makes an id of a number, without allocating.
func name(id *[26]byte, n uint64) string {
	const digits = "abcdefghijklmnop"
	for i := range id {
		id[i] = digits[n>>(i%16*4)&15]
	}
	return string(id[:])
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// nowhere is a log of which nothing is asked but its name.
type nowhere struct{}

func (nowhere) ID() string                                            { return "nowhere" }
func (nowhere) State(context.Context) (eventlog.State, error)         { panic("asked") }
func (nowhere) Get(context.Context, uint64) (eventlog.Entry, error)   { panic("asked") }
func (nowhere) SequenceAt(context.Context, time.Time) (uint64, error) { panic("asked") }
func (nowhere) ReadHeaders(context.Context, uint64) iter.Seq2[eventlog.Entry, error] {
	panic("asked")
}

// BenchmarkRebuild reads 200 000 events of 1.8 KB into an index that has no files, and then claims copies of them, each of which is confirmed.
func BenchmarkRebuild(b *testing.B) {
	const total = 200_000
	r := newRig(b, eventlog.Options{})
	var id [26]byte
	for at := 0; at < total; at += 1000 {
		step := make([]eventlog.Record, 1000)
		for n := range step {
			step[n] = eventlog.Record{ID: name(&id, uint64(at+n)), Source: "shop", Type: "test", Time: r.at, Origin: eventlog.Origin{Journal: "ours", Record: 1, Item: at + n}, Data: make([]byte, 1800)}
			binary.LittleEndian.PutUint64(step[n].Data, uint64(n))
		}
		if _, err := r.log.Append(b.Context(), step); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("read", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			x, err := Open(r.log, nil, Options{Dir: filepath.Join(b.TempDir(), strconv.Itoa(n))})
			if err != nil {
				b.Fatal(err)
			}
			if err := x.Settle(b.Context()); err != nil {
				b.Fatal(err)
			}
			if events, _, _ := x.usage(); events != total {
				b.Fatalf("%d ids", events)
			}
			if err := x.Close(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("copies", func(b *testing.B) {
		r.restart()
		const step = 1000
		for n := 0; b.Loop(); n++ {
			records := make([]eventlog.Record, step)
			for i := range records {
				records[i] = eventlog.Record{ID: name(&id, uint64((n*step+i)%total)), Time: r.at, Origin: eventlog.Origin{Journal: "ours", Record: 2, Item: i}}
			}
			fresh, copies, err := r.index.Claim(b.Context(), records)
			if err != nil || len(fresh) > 0 || len(copies) != step {
				b.Fatalf("%d new, %d copies, %v", len(fresh), len(copies), err)
			}
		}
		b.ReportMetric(float64(b.N)*step/b.Elapsed().Seconds(), "copies/s")
	})
}
