package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) != "" {
		appendUntilKilled()
		return
	}
	goleak.VerifyTestMain(m)
}

// small keeps many segments in few bytes, reads all from there, and does not ask the disk of the machine.
func small() Options {
	return Options{SegmentBytes: 4096, recent: -1, free: func(string) (int64, error) { return 1 << 40, nil }}
}

func mustOpen(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// sample is a record made of n alone, of varied size and form.
func sample(n int) Record {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	r := Record{
		Source:     fmt.Sprintf("shop-%d", n%7),
		Provider:   int32(n % 4),
		ReceivedAt: time.Unix(1_700_000_000+int64(n), int64(rnd.IntN(1e9))).UTC(),
	}
	if n%3 > 0 {
		r.Header = http.Header{"X-Hub-Signature-256": {fmt.Sprintf("sha256=%x", n)}, "X-Twice": {"a", "", "b"}}
	}
	most := 400
	if n > 31 && n < 50 {
		most = 40 // those that the tests of damage go through byte by byte
	}
	if size := rnd.IntN(most); n%5 > 0 && size > 0 {
		r.Body = make([]byte, size)
		for i := range r.Body {
			r.Body[i] = byte(rnd.Uint32())
		}
	}
	return r
}

func appendSamples(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		got, err := j.Append(context.Background(), sample(n))
		if err != nil {
			t.Fatalf("append %d: %v", n, err)
		}
		if got != uint64(n) {
			t.Fatalf("record %d got index %d", n, got)
		}
	}
}

// contentsOf reads all, with the damaged indexes apart.
func contentsOf(t testing.TB, j *Journal, from uint64) (good map[uint64]Record, damaged map[uint64]bool) {
	t.Helper()
	good, damaged = map[uint64]Record{}, map[uint64]bool{}
	next := max(from, j.First())
	for r, err := range j.Read(context.Background(), from) {
		if r.Index != next {
			t.Fatalf("record %d follows %d (error %v)", r.Index, next-1, err)
		}
		next++
		switch {
		case errors.Is(err, ErrDamaged):
			damaged[r.Index] = true
		case err != nil:
			t.Fatal(err)
		default:
			good[r.Index] = r
		}
	}
	return good, damaged
}

func isSample(r Record, n int) bool {
	want := sample(n)
	want.Index = uint64(n)
	return reflect.DeepEqual(r, want)
}

func checkSamples(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	good, damaged := contentsOf(t, j, uint64(from))
	if len(damaged) > 0 {
		t.Fatalf("damaged: %v", damaged)
	}
	for n := from; n <= to; n++ {
		if !isSample(good[uint64(n)], n) {
			t.Fatalf("record %d differs: %+v", n, good[uint64(n)])
		}
	}
}

func TestRecordsComeBackAsTheyWereAppended(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	appendSamples(t, j, 1, 200)
	checkSamples(t, j, 1, 200)
	checkSamples(t, j, 150, 200)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir, small())
	checkSamples(t, j, 1, 200)
	appendSamples(t, j, 201, 210)
	checkSamples(t, j, 1, 210)
}

func TestEdgesOfARecordSurvive(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	for from, bytes := range map[string]int{"disk": -1, "memory": 0} {
		j := mustOpen(t, t.TempDir(), Options{free: small().free, recent: bytes})
		for _, r := range []struct{ given, want Record }{
			{},
			{given: Record{Source: "s", Provider: -1, Header: http.Header{"": {""}}}, want: Record{Source: "s", Provider: -1, Header: http.Header{"": {""}}}},
			{given: Record{ReceivedAt: time.Unix(0, -1)}, want: Record{ReceivedAt: time.Unix(0, -1).UTC()}},
			{given: Record{Body: []byte{0}}, want: Record{Body: []byte{0}}},
			{given: Record{Body: []byte{}, Header: http.Header{}}, want: Record{}},
			{given: Record{Header: http.Header{"None": {}, "One": {"1"}}}, want: Record{Header: http.Header{"One": {"1"}}}},
			{given: Record{Header: http.Header{"None": {}}}, want: Record{}},
			{given: Record{Body: big}, want: Record{Body: big}},
		} {
			index, err := j.Append(context.Background(), r.given)
			if err != nil {
				t.Fatal(err)
			}
			r.want.Index = index
			for got, err := range j.Read(context.Background(), index) {
				if err != nil || !reflect.DeepEqual(got, r.want) {
					t.Fatalf("%s: record %d differs (error %v)", from, index, err)
				}
			}
		}
	}
}

func TestTooLargeARecordIsRefusedAndCostsNothing(t *testing.T) {
	o := small()
	o.MaxBytes = 10_000
	j := mustOpen(t, t.TempDir(), o)
	if _, err := j.Append(context.Background(), Record{Body: make([]byte, 20_000)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("over MaxBytes: %v", err)
	}
	j2 := mustOpen(t, t.TempDir(), Options{free: o.free})
	if _, err := j2.Append(context.Background(), Record{Body: make([]byte, 64<<20)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("over the engine's limit: %v", err)
	}
	if err := j.Err(); err != nil {
		t.Fatal(err)
	}
	appendSamples(t, j, 1, 3)
}

func TestConcurrentAppendsShareCommitsAndKeepOrder(t *testing.T) {
	o := small()
	o.SegmentBytes = 64 << 10
	j := mustOpen(t, t.TempDir(), o)
	const writers, each = 256, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	bodies := map[uint64]string{}
	for w := range writers {
		wg.Go(func() {
			before := uint64(0)
			for n := range each {
				body := fmt.Sprintf("%d/%d", w, n)
				index, err := j.Append(context.Background(), Record{Body: []byte(body)})
				if err != nil {
					t.Error(err)
					return
				}
				if index <= before {
					t.Errorf("index %d follows %d in one goroutine", index, before)
				}
				if last := j.Last(); last < index {
					t.Errorf("Last is %d after record %d was acknowledged", last, index)
				}
				before = index
				mu.Lock()
				bodies[index] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(bodies) != writers*each {
		t.Fatalf("%d different indexes for %d records", len(bodies), writers*each)
	}
	good, _ := contentsOf(t, j, 1)
	for index, body := range bodies {
		if string(good[index].Body) != body {
			t.Fatalf("record %d is %q, its writer was told so of %q", index, good[index].Body, body)
		}
	}
	if c := j.Usage().Commits; c > writers*each/4 {
		t.Errorf("%d commits for %d records of %d writers", c, writers*each, writers)
	}
}

func TestReaderThatWaitsMissesNothing(t *testing.T) {
	j := mustOpen(t, t.TempDir(), small())
	const n = 300
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for next := uint64(1); next <= n; {
				if err := j.Wait(context.Background(), next-1); err != nil {
					t.Error(err)
					return
				}
				for r, err := range j.Read(context.Background(), next) {
					if err != nil || !isSample(r, int(next)) {
						t.Errorf("record %d where %d is due: %v", r.Index, next, err)
						return
					}
					next++
				}
			}
		})
	}
	appendSamples(t, j, 1, n)
	wg.Wait()
}

func TestWaitEndsWithTheContextAndWithClose(t *testing.T) {
	j := mustOpen(t, t.TempDir(), small())
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error)
	go func() { waited <- j.Wait(ctx, 0) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	go func() { waited <- j.Wait(context.Background(), 0) }()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := j.Append(context.Background(), Record{}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := j.Trim(0); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := j.Err(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal("second Close:", err)
	}
}

func TestCloseAnswersAllWhoAppend(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	var acked atomic.Uint64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				if _, err := j.Append(context.Background(), Record{Body: []byte("x")}); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				acked.Add(1)
			}
		})
	}
	if err := j.Wait(context.Background(), 500); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if j = mustOpen(t, dir, small()); j.Last() != acked.Load() {
		t.Fatalf("%d records were acknowledged, %d are there", acked.Load(), j.Last())
	}
}

func TestReadStopsWhereItsCallerDoes(t *testing.T) {
	j := mustOpen(t, t.TempDir(), small())
	appendSamples(t, j, 1, 10)
	seen := 0
	for range j.Read(context.Background(), 1) {
		if seen++; seen == 3 {
			break
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	for r, e := range j.Read(ctx, 1) {
		if err = e; r.Index == 4 {
			cancel()
		}
		seen++
	}
	if !errors.Is(err, context.Canceled) || seen != 3+5 {
		t.Fatalf("%d records seen, then %v", seen, err)
	}
}

func TestFullJournalRefusesUntilTrimmed(t *testing.T) {
	dir := t.TempDir()
	o := small()
	o.MaxBytes = 5000
	j := mustOpen(t, dir, o)
	r := Record{Body: make([]byte, 400)}
	n := uint64(0)
	var err error
	for err == nil && n < 100 {
		_, err = j.Append(context.Background(), r)
		n++
	}
	n--
	if !errors.Is(err, ErrFull) || !errors.Is(j.Err(), ErrFull) {
		t.Fatalf("after %d records: %v, Err %v", n, err, j.Err())
	}
	if u := j.Usage(); n < 8 || u.Bytes > 5000 || j.Last() != n {
		t.Fatalf("%d records taken, last is %d, usage %+v", n, j.Last(), u)
	}
	j.Close()
	j = mustOpen(t, dir, o) // it stays full across a restart
	if _, err := j.Append(context.Background(), r); !errors.Is(err, ErrFull) {
		t.Fatal("after a restart:", err)
	}
	if err := j.Trim(1); err != nil {
		t.Fatal(err)
	}
	if err := j.Err(); err != nil {
		t.Fatal("after Trim:", err)
	}
	if index, err := j.Append(context.Background(), r); err != nil || index != n+1 {
		t.Fatalf("after Trim: index %d, %v", index, err)
	}
}

func TestFullDiskRefusesUntilThereIsSpace(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	o := small()
	o.free = func(string) (int64, error) { return free.Load(), nil }
	j := mustOpen(t, t.TempDir(), o)
	j.disk.every = 0 // look every time
	appendSamples(t, j, 1, 5)
	free.Store(defaultMinFreeBytes - 1)
	if _, err := j.Append(context.Background(), sample(6)); !errors.Is(err, ErrFull) || !errors.Is(j.Err(), ErrFull) {
		t.Fatalf("%v, Err %v", err, j.Err())
	}
	free.Store(defaultMinFreeBytes)
	appendSamples(t, j, 6, 10)
	if err := j.Err(); err != nil {
		t.Fatal(err)
	}

	o.MinFreeBytes = 1
	o.SegmentBytes = 1 << 20
	j = mustOpen(t, t.TempDir(), o)
	j.disk.every = 0
	free.Store(1<<20 + 1)
	if _, err := j.Append(context.Background(), sample(1)); !errors.Is(err, ErrFull) {
		t.Fatal("without room for the next segments:", err)
	}
}

func TestFreeSpaceOfARealDiskIsKnown(t *testing.T) {
	free, err := freeBytes(t.TempDir())
	if err != nil || free <= 0 {
		t.Fatalf("%d bytes, %v", free, err)
	}
}

func TestSecondOpenIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	if _, err := Open(dir, small()); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
	j.Close()
	mustOpen(t, dir, small())
}

func TestIdentityOutlivesRestartsButNotAWipedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "journal")
	j := mustOpen(t, dir, small())
	id := j.ID()
	appendSamples(t, j, 1, 3)
	j.Close()
	j = mustOpen(t, dir, small())
	if len(id) < 20 || j.ID() != id {
		t.Fatalf("identity %q became %q", id, j.ID())
	}
	j.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if j = mustOpen(t, dir, small()); j.ID() == id || j.Last() != 0 {
		t.Fatalf("a wiped journal has identity %q and %d records", j.ID(), j.Last())
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for _, o := range []Options{{MaxBytes: -1}, {MinFreeBytes: -1}, {SegmentBytes: -1}, {SegmentBytes: 2 << 30}} {
		if _, err := Open(t.TempDir(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
