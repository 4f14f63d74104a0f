package journal

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// childDir names the environment variable that makes the test binary a child that appends.
const childDir = "EVENTRELAY_TEST_JOURNAL_DIR"

func (r Record) fingerprint() uint32 {
	h := crc32.NewIEEE()
	fmt.Fprintf(h, "%s %d %d %v ", r.Source, r.Provider, r.ReceivedAt.UnixNano(), r.Header)
	h.Write(r.Body)
	return h.Sum32()
}

// appendUntilKilled is the child: it tells index and fingerprint of each record once it is
// acknowledged, each in one write to the pipe.
func appendUntilKilled() {
	j, err := Open(os.Getenv(childDir), Options{SegmentBytes: 32 << 10, MinFreeBytes: 1})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				r := sample(rand.IntN(1 << 30))
				index, err := j.Append(context.Background(), r)
				if err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Printf("%d %d\n", index, r.fingerprint())
				if index%50 == 0 {
					j.Trim(index - 30)
				}
			}
		})
	}
	wg.Wait()
}

func TestKilledProcessLosesNothingItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	total := 0
	for round := range rounds {
		acked := runAndKill(t, dir, time.Duration(50+rand.IntN(250))*time.Millisecond)
		total += len(acked)
		j := mustOpen(t, dir, Options{SegmentBytes: 32 << 10})
		good, damaged := contentsOf(t, j, 1)
		if len(damaged) > 0 {
			t.Fatalf("round %d: damaged %v", round, damaged)
		}
		for index, sum := range acked {
			if index < j.First() {
				continue // trimmed by the child
			}
			r, ok := good[index]
			if !ok || r.fingerprint() != sum {
				t.Fatalf("round %d: record %d was acknowledged and is not there as it was (last %d)", round, index, j.Last())
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records acknowledged in %d rounds", total, rounds)
}

func runAndKill(t *testing.T, dir string, after time.Duration) map[uint64]uint32 {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[uint64]uint32{}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil { // it runs; its time begins now
			kill = time.AfterFunc(after, func() { child.Process.Kill() })
			defer kill.Stop()
		}
		var index uint64
		var sum uint32
		if strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
		if _, err := fmt.Sscan(lines.Text(), &index, &sum); err != nil {
			t.Fatal(err) // a line is one write, so none is cut
		}
		acked[index] = sum
	}
	child.Wait()
	return acked
}
