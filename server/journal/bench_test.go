package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft-wal/fs"
)

// BenchmarkAppend measures records per second, and beside it, in the same run, what the disk
// alone takes for as many bytes in as many writes with fsync, on a preallocated
// file: of-limit is the journal's share of that speed.
func BenchmarkAppend(b *testing.B) {
	const body = 1800 // bytes of a usual notification
	for _, writers := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			j := mustOpen(b, b.TempDir(), Options{MinFreeBytes: 1})
			r := Record{Source: "shop", ReceivedAt: time.Now(), Body: make([]byte, body)}
			size := envelopeLen(&r)
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.SetBytes(body)
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := j.Append(context.Background(), r); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			commits := int64(j.Usage().Commits)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(b.N)/float64(commits), "records/fsync")
			bare := bareWrites(b, commits, int64(b.N)*frameLen(size)/commits)
			b.ReportMetric(bare.Seconds()/b.Elapsed().Seconds(), "of-limit")
		})
	}
}

// bareWrites takes the time of n writes of size bytes, each with an fsync, into files of a
// segment's size that the engine's file system preallocates.
func bareWrites(b *testing.B, n, size int64) time.Duration {
	b.Helper()
	dir := b.TempDir()
	buf := make([]byte, size)
	var took time.Duration
	for file := 0; n > 0; file++ {
		name := strconv.Itoa(file)
		f, err := fs.New().Create(dir, name, defaultSegmentBytes)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for off := int64(0); n > 0 && off+size <= defaultSegmentBytes; off += size {
			if _, err := f.WriteAt(buf, off); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			n--
		}
		took += time.Since(start)
		f.Close()
		os.Remove(filepath.Join(dir, name))
	}
	return took
}

// BenchmarkRead measures reading back what was just appended.
func BenchmarkRead(b *testing.B) {
	j := mustOpen(b, b.TempDir(), Options{MinFreeBytes: 1})
	const records = 20_000
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range records / 100 {
				if _, err := j.Append(context.Background(), Record{Body: make([]byte, 1800)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.SetBytes(1800)
	b.ResetTimer()
	for read := 0; read < b.N; {
		for _, err := range j.Read(context.Background(), 1) {
			if err != nil {
				b.Fatal(err)
			}
			if read++; read == b.N {
				break
			}
		}
	}
}

// BenchmarkOpen measures what Open takes with a tail segment that is nearly full.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	j := mustOpen(b, dir, Options{MinFreeBytes: 1})
	for range 60 {
		if _, err := j.Append(context.Background(), Record{Body: make([]byte, 1<<20)}); err != nil {
			b.Fatal(err)
		}
	}
	j.Close()
	for b.Loop() {
		j, err := Open(dir, Options{MinFreeBytes: 1})
		if err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
}
