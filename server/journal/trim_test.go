package journal

import (
	"context"
	"sync"
	"testing"
)

func TestTrimmedRecordsAreGoneAndTheirDiskIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	appendSamples(t, j, 1, 300)
	before := segmentFiles(t, dir)
	if err := j.Trim(250); err != nil {
		t.Fatal(err)
	}
	if j.First() != 251 || j.Last() != 300 {
		t.Fatalf("records %d to %d", j.First(), j.Last())
	}
	if u := j.Usage(); u.Records != 50 {
		t.Fatalf("%d records wait", u.Records)
	}
	checkSamples(t, j, 1, 0) // reading from the start begins at the first kept
	good, _ := contentsOf(t, j, 1)
	if len(good) != 50 {
		t.Fatalf("%d records are read", len(good))
	}
	if after := segmentFiles(t, dir); after > before/4 {
		t.Fatalf("%d segments of %d remain", after, before)
	}
	if err := j.Trim(100); err != nil || j.First() != 251 {
		t.Fatalf("trimming again moved the start to %d: %v", j.First(), err)
	}
	if err := j.Trim(301); err == nil {
		t.Fatal("trimming what is not there was accepted")
	}
	j.Close()
	j = mustOpen(t, dir, small())
	if j.First() != 251 {
		t.Fatalf("after a restart the first record is %d", j.First())
	}
	checkSamples(t, j, 251, 300)
}

func TestReadSkipsWhatIsTrimmedMeanwhile(t *testing.T) {
	j := mustOpen(t, t.TempDir(), small())
	appendSamples(t, j, 1, 300)
	var seen []uint64
	for r, err := range j.Read(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Index == 2 {
			if err := j.Trim(290); err != nil {
				t.Fatal(err)
			}
		}
		seen = append(seen, r.Index)
	}
	if len(seen) != 12 || seen[2] != 291 {
		t.Fatalf("seen %v", seen)
	}
}

func TestIndexesGoOnWhenAllIsTrimmed(t *testing.T) {
	dir := t.TempDir()
	n := 0
	for range 6 {
		j := mustOpen(t, dir, small())
		if int(j.Last()) != n || int(j.First()) != n+1 {
			t.Fatalf("after %d records: first %d, last %d", n, j.First(), j.Last())
		}
		appendSamples(t, j, n+1, n+60)
		n += 60
		if err := j.Trim(uint64(n)); err != nil {
			t.Fatal(err)
		}
		if u := j.Usage(); u.Bytes != 0 || u.Records != 0 {
			t.Fatalf("all is trimmed, yet %d records of %d bytes wait", u.Records, u.Bytes)
		}
		j.Close()
	}
}

func TestTrimmingBesideAppendsLosesNothing(t *testing.T) {
	j := mustOpen(t, t.TempDir(), small())
	const n = 2000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for next := uint64(1); next <= n; {
			if err := j.Wait(context.Background(), next-1); err != nil {
				t.Error(err)
				return
			}
			for r, err := range j.Read(context.Background(), next) {
				if err != nil || r.Index != next || len(r.Body) != 300 {
					t.Errorf("record %d where %d is due: %v", r.Index, next, err)
					return
				}
				next++
			}
			if err := j.Trim(next - 1); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				if _, err := j.Append(context.Background(), Record{Body: make([]byte, 300)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	<-done
	if j.First() != n+1 {
		t.Fatalf("first is %d", j.First())
	}
}

func segmentFiles(t testing.TB, dir string) int {
	t.Helper()
	names, err := segmentNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
