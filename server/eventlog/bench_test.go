package eventlog

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// benchRecords are of the size of a usual event.
func benchRecords(first, n int) []Record {
	data := make([]byte, 1800)
	rs := records(first, n)
	for i := range rs {
		rs[i].Data = data
	}
	return rs
}

// BenchmarkAppend appends to the embedded log, synced, while a tail reads along.
func BenchmarkAppend(b *testing.B) {
	for _, step := range []int{1, 5, 10, 50, 200, 1000} {
		b.Run(fmt.Sprintf("step=%d", step), func(b *testing.B) {
			l := open(b, Options{Dir: b.TempDir()})
			seen := make(chan uint64, 1)
			go func() {
				n := uint64(0)
				for e, err := range l.Tail(b.Context(), 0) {
					if err != nil {
						break
					}
					n = e.Sequence
				}
				seen <- n
			}()
			next := 1
			for b.Loop() {
				b.StopTimer()
				rs := benchRecords(next, step)
				next += step
				b.StartTimer()
				if _, err := l.Append(b.Context(), rs); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(next-1)/b.Elapsed().Seconds(), "events/s")
			_ = l.Close()
			<-seen
		})
	}
}

// BenchmarkRead reads 200 000 events and compares with an ordered consumer of the client library on the same server.
func BenchmarkRead(b *testing.B) {
	const total = 200_000
	l := open(b, Options{Dir: b.TempDir()})
	for at := 1; at <= total; at += 1000 {
		if _, err := l.Append(b.Context(), benchRecords(at, 1000)); err != nil {
			b.Fatal(err)
		}
	}
	var limit float64 // events/s of the bare consumer
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			bareRead(b, l, total)
		}
		limit = total * float64(b.N) / b.Elapsed().Seconds()
		b.ReportMetric(limit, "events/s")
	})
	for _, headersOnly := range []bool{false, true} {
		b.Run(fmt.Sprintf("headers=%v", headersOnly), func(b *testing.B) {
			for b.Loop() {
				n := 0
				for _, err := range l.read(b.Context(), 1, headersOnly) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != total {
					b.Fatalf("read %d events", n)
				}
			}
			rate := total * float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(rate, "events/s")
			if limit > 0 {
				b.ReportMetric(rate/limit, "of-limit")
			}
		})
	}
}

func bareRead(b *testing.B, l *Log, total int) {
	k, err := l.link(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c, err := k.js.OrderedConsumer(b.Context(), streamName, jetstream.OrderedConsumerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	it, err := c.Messages()
	if err != nil {
		b.Fatal(err)
	}
	defer it.Stop()
	for range total {
		if _, err := it.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRebuild is the start after an unclean stop: the whole log is read.
func BenchmarkRebuild(b *testing.B) {
	dir := b.TempDir()
	l := open(b, Options{Dir: dir})
	const total = 200_000
	for at := 1; at <= total; at += 1000 {
		if _, err := l.Append(b.Context(), benchRecords(at, 1000)); err != nil {
			b.Fatal(err)
		}
	}
	st := state(b, l)
	mustClose(b, l)
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("clean=%v", clean), func(b *testing.B) {
			b.SetBytes(int64(st.Bytes))
			for b.Loop() {
				b.StopTimer()
				if !clean {
					unmark(b, dir)
				}
				b.StartTimer()
				l, err := Open(b.Context(), Options{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				mustClose(b, l)
				b.StartTimer()
			}
		})
	}
}
