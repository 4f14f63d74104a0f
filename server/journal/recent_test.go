package journal

import (
	"context"
	"sync"
	"testing"
)

// roomFor is the bound at which so many samples of the largest size are kept.
func roomFor(records int) int { return records * (recentOverhead + 400) }

func TestRecordsFromMemoryAreThoseFromTheDisk(t *testing.T) {
	dir := t.TempDir()
	o := small()
	o.recent = 0
	j := mustOpen(t, dir, o)
	appendSamples(t, j, 1, 200)
	for n := range uint64(200) {
		if _, ok := j.recent.at(n + 1); !ok {
			t.Fatalf("record %d is not in memory", n+1)
		}
	}
	checkSamples(t, j, 1, 200)
	j.Close()
	checkSamples(t, mustOpen(t, dir, small()), 1, 200)
}

// What does not fit is read from the disk, between what was kept before and after it.
func TestReaderGoesFromMemoryToTheDiskAndBack(t *testing.T) {
	o := small()
	o.recent = roomFor(20)
	j := mustOpen(t, t.TempDir(), o)
	appendSamples(t, j, 1, 100)
	if _, ok := j.recent.at(100); ok || len(j.recent.records) < 20 {
		t.Fatalf("%d records are kept, the last among them: %t", len(j.recent.records), ok)
	}
	checkSamples(t, j, 1, 100)
	if err := j.Trim(99); err != nil {
		t.Fatal(err)
	}
	appendSamples(t, j, 101, 110)
	if _, ok := j.recent.at(110); !ok {
		t.Error("once there is room again, nothing is kept")
	}
	checkSamples(t, j, 100, 110)
}

func TestMemoryIsBoundedAndGivenBack(t *testing.T) {
	o := small()
	o.recent = roomFor(50)
	j := mustOpen(t, t.TempDir(), o)
	for n := 1; n <= 1000; n += 10 {
		appendSamples(t, j, n, n+9)
		if j.recent.bytes > o.recent {
			t.Fatalf("%d bytes are kept, the bound is %d", j.recent.bytes, o.recent)
		}
		if n%70 == 1 {
			if err := j.Trim(uint64(n + 4)); err != nil {
				t.Fatal(err)
			}
		}
		checkSamples(t, j, int(j.First()), n+9)
	}
	if err := j.Trim(1000); err != nil {
		t.Fatal(err)
	}
	if j.recent.bytes != 0 || len(j.recent.records) != 0 {
		t.Errorf("all is trimmed, yet %d records of %d bytes are kept", len(j.recent.records), j.recent.bytes)
	}
}

// Who cannot be called off writes by itself when nobody else does, and everybody else meanwhile waits for the writer.
func TestLoneAndSharedWritesKeepOneOrder(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	const writers, each = 4, 200
	given := make([][]uint64, writers)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			ctx := context.Background() // never done
			if w%2 == 1 {
				ctx = t.Context()
			}
			for n := range each {
				index, err := j.Append(ctx, Record{Source: "s", Provider: int32(w), Body: []byte{byte(n)}})
				if err != nil {
					t.Error(err)
					return
				}
				given[w] = append(given[w], index)
			}
		})
	}
	writing.Wait()
	j.Close()
	j = mustOpen(t, dir, small())
	good, damaged := contentsOf(t, j, 1)
	if len(good) != writers*each || len(damaged) > 0 {
		t.Fatalf("%d records, %d damaged", len(good), len(damaged))
	}
	for w, indexes := range given {
		for n, index := range indexes {
			if r := good[index]; r.Provider != int32(w) || r.Body[0] != byte(n) {
				t.Fatalf("record %d of writer %d is not at %d", n, w, index)
			}
		}
	}
}
