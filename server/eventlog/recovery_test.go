package eventlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventrelay/server/eventlog/store"
)

// killedEnv makes the test binary the process that is killed, and says where it appends.
const killedEnv = "EVENTLOG_TEST_APPEND_IN"

func appendUntilKilled(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, Options{Dir: dir})
	if err != nil {
		return err
	}
	o, _, err := l.Position(ctx, "journal")
	for i, next := 0, int(o.Record)+1; err == nil; i++ {
		n := []int{1, 5, 40, 1000}[i%4]
		var a Appended
		a, err = l.Append(ctx, records(next, n))
		next += n
		fmt.Println(l.ID(), a.Last)
	}
	return err
}

func TestAKilledProcessLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var id string
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // also when the test has failed before it got to it
		var acked uint64
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			var now string
			if _, err := fmt.Sscan(lines.Text(), &now, &acked); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
			if id == "" {
				id = now
			} else if now != id {
				t.Fatalf("identity changed from %s to %s", id, now)
			}
			if i == 10+3*round { // each time in front of a step of another size
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed, which is an error

		c := open(t, Options{Dir: copyRunning(t, dir)}) // the process goes on after the kill, not after our stop in order
		st := state(t, c)
		if st.Last < acked || st.Events != st.Last || c.ID() != id {
			t.Fatalf("acknowledged was %d under %s, there is %+v under %s", acked, id, st, c.ID())
		}
		wantEntries(t, read(t, c, 1), 1, records(1, int(st.Last)))
		if a := mustAppend(t, c, records(int(st.Last)+1, 30)); a.Last != st.Last+30 {
			t.Fatalf("append gave %+v after %d", a, st.Last)
		}
		mustClose(t, c)
	}
}

// copyRunning copies the store of a running log, which is what a power cut leaves.
func copyRunning(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// What lies where in a log's folder. A release may not change it.
const (
	cleanFile = "clean-stop"
	guardDir  = "guard"
)

func streamDir(dir string) string  { return store.Folder(dir).Stream(streamName) }
func messageDir(dir string) string { return store.Folder(dir).Messages(streamName) }

func consumerFile(dir string) string {
	return filepath.Join(store.Folder(dir).Consumer(store.Consumer{Stream: streamName, Name: "reader"}), "o.dat")
}

// newestBlock returns the path and the size of the last block.
func newestBlock(t *testing.T, dir string) (string, int64) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(messageDir(dir), "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("there are no blocks (%v)", err)
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(filepath.Base(name[:len(name)-len(".blk")]))
		return n
	}
	newest := slices.MaxFunc(blocks, func(a, b string) int { return number(a) - number(b) })
	fi, err := os.Stat(newest)
	if err != nil {
		t.Fatal(err)
	}
	return newest, fi.Size()
}

// stopped makes a log of n events that was stopped in order, and returns its folder and its identity.
func stopped(t *testing.T, n int) (dir, id string) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, Options{Dir: dir})
	mustAppend(t, l, records(1, n))
	mustClose(t, l)
	if _, err := os.Stat(filepath.Join(messageDir(dir), "index.db")); err != nil {
		t.Fatalf("the server wrote no index, so this test proves nothing: %v", err)
	}
	return dir, l.ID()
}

func unmark(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, cleanFile)); err != nil {
		t.Fatal(err)
	}
}

func TestACopyOfARunningLogIsALog(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustAppend(t, l, records(1, 1500))
	c := open(t, Options{Dir: copyRunning(t, dir)})
	if c.ID() != l.ID() {
		t.Errorf("identity changed from %s to %s", l.ID(), c.ID())
	}
	wantEntries(t, read(t, c, 1), 1, records(1, 1500))
	if a := mustAppend(t, c, records(1501, 1)); a.Last != 1501 {
		t.Errorf("append gave %+v", a)
	}
}

// An index that is newer than the blocks would make the log end beyond what it holds.
func TestAfterAnUncleanStopTheBlocksCountAndNotTheIndex(t *testing.T) {
	dir, id := stopped(t, 100)
	unmark(t, dir)
	block, size := newestBlock(t, dir)
	if err := os.Truncate(block, size-size/20); err != nil { // some five records and a half
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	st := state(t, l)
	if st.Last < 90 || st.Last >= 100 || st.Events != st.Last || st.First != 1 {
		t.Fatalf("state is %+v", st)
	}
	wantEntries(t, read(t, l, 1), 1, records(1, int(st.Last)))
	if l.ID() == id {
		t.Error("what was acknowledged is gone, yet the identity is the same, so cursors to it would be misread")
	}
	if a := mustAppend(t, l, records(int(st.Last)+1, 50)); a.Last != st.Last+50 {
		t.Errorf("append gave %+v after %d", a, st.Last)
	}
	wantEntries(t, read(t, l, 1), 1, records(1, int(st.Last)+50))
	id = l.ID()
	mustClose(t, l)
	if l = open(t, Options{Dir: dir}); l.ID() != id {
		t.Error("the identity changes at every start")
	}
}

func TestATornWriteThatNobodyWasToldOfKeepsTheIdentity(t *testing.T) {
	dir, id := stopped(t, 100)
	unmark(t, dir)
	block, _ := newestBlock(t, dir)
	b, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(block, append(b, b[:len(b)/200]...), 0o600); err != nil { // half a record more
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	if l.ID() != id {
		t.Error("identity changed though all that was acknowledged is there")
	}
	if a := mustAppend(t, l, records(101, 20)); a.Last != 120 {
		t.Errorf("append gave %+v", a)
	}
	wantEntries(t, read(t, l, 1), 1, records(1, 120))
}

func TestAHoleInTheMiddleTakesANewIdentityOnce(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	rs := records(1, 40)
	for i := range rs {
		rs[i].Data = make([]byte, 1<<20) // several blocks
	}
	mustAppend(t, l, rs)
	id := l.ID()
	mustClose(t, l)
	unmark(t, dir)
	if err := os.Remove(filepath.Join(messageDir(dir), "2.blk")); err != nil {
		t.Fatal(err)
	}
	l = open(t, Options{Dir: dir})
	st := state(t, l)
	if st.Last != 40 || st.Events == 40 || l.ID() == id {
		t.Fatalf("state is %+v, identity %s was %s", st, l.ID(), id)
	}
	id = l.ID()
	mustClose(t, l)
	if l = open(t, Options{Dir: dir}); l.ID() != id {
		t.Error("the identity changes at every start")
	}
}

func TestTheMarkOfACleanStopIsThereOnlyWhileTheLogIsStopped(t *testing.T) {
	dir, _ := stopped(t, 10)
	mark := filepath.Join(dir, cleanFile)
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("after a stop: %v", err)
	}
	l := open(t, Options{Dir: dir})
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("while the log is open: %v", err)
	}
	if n := state(t, l).Events; n != 10 {
		t.Errorf("it holds %d events", n)
	}
}

func TestAWipedFolderIsANewLog(t *testing.T) {
	dir, id := stopped(t, 10)
	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	if l.ID() == id {
		t.Error("it has the identity of the log that was wiped")
	}
	if a := mustAppend(t, l, records(1, 1)); a.Last != 1 {
		t.Errorf("append gave %+v", a)
	}
}

func TestAStoreThatCannotBeReadIsNotOverwritten(t *testing.T) {
	dir, _ := stopped(t, 10)
	meta := filepath.Join(streamDir(dir), "meta.inf")
	if err := os.WriteFile(meta, []byte("{ not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(t.Context(), Options{Dir: dir}); err == nil {
		_ = l.Close()
		t.Fatal("a log was made on top of one that could not be read")
	}
}

// Where the next block belongs is a folder, so the store meets a write error. The server stops storing for good then, and no
// longer answers.
func TestAWriteErrorIsOvercomeWithoutARestartOfTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustAppend(t, l, records(1, 20))
	x := tailFrom(t, l, 0)
	trap := filepath.Join(messageDir(dir), "2.blk")
	if err := os.Mkdir(trap, 0o700); err != nil {
		t.Fatal(err)
	}
	rs := records(21, 30)
	for i := range rs {
		rs[i].Data = make([]byte, 1<<20)
	}
	began := time.Now()
	_, err := l.Append(t.Context(), rs)
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append on a broken store gave %v", err)
	}
	if took := time.Since(began); took > ackTimeout/2 {
		t.Errorf("the error was found out after %v only", took)
	}
	// Only while it is the trap: a log that was recovered before this has a block of that name.
	if err := syscall.Rmdir(trap); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	o, ok, err := l.Position(t.Context(), "journal")
	if err != nil || !ok || o.Record < 20 {
		t.Fatalf("position is %+v, %v, %v", o, ok, err)
	}
	mustAppend(t, l, rs[o.Record-20:])
	rs = append(records(1, 20), rs...)
	wantEntries(t, read(t, l, 1), 1, rs)
	waitFor(t, "the tail", func() bool { return x.len() >= 50 })
	wantEntries(t, x.end(t), 1, rs)
}

// The server deletes a stream that it cannot recover, be it for a fault that passes. Here a block is a folder, until it is taken away.
func TestALogThatCannotBeRecoveredForAWhileIsNotLost(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			dir, id := stopped(t, 100)
			if !clean {
				unmark(t, dir)
			}
			trap := filepath.Join(messageDir(dir), "2.blk")
			if err := os.Mkdir(trap, 0o700); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				// The server may read what its index says, and start; or refuse.
				if l, err := Open(t.Context(), Options{Dir: dir}); err == nil {
					mustClose(t, l)
					unmark(t, dir)
				}
			}
			if err := os.RemoveAll(trap); err != nil {
				t.Fatal(err)
			}
			l := open(t, Options{Dir: dir})
			wantEntries(t, read(t, l, 1), 1, records(1, 100))
			if l.ID() != id {
				t.Error("it has another identity")
			}
			if a := mustAppend(t, l, records(101, 20)); a.Last != 120 {
				t.Errorf("append gave %+v", a)
			}
			if _, err := os.Stat(filepath.Join(dir, guardDir)); !os.IsNotExist(err) {
				t.Errorf("the guard is still there: %v", err)
			}
		})
	}
}

// A kill in the middle of a batch leaves what the server had staged of it, which the next start rightly removes: nobody was told that it is stored.
func TestWhatIsLeftOfABatchThatWasCutOffDoesNotStopTheStart(t *testing.T) {
	dir, id := stopped(t, 100)
	unmark(t, dir)
	staged := filepath.Join(filepath.Dir(messageDir(dir)), "batches", "c4txY4oE")
	if err := os.MkdirAll(filepath.Join(staged, "msgs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"meta.inf", "meta.sum", filepath.Join("msgs", "1.blk")} {
		if err := os.WriteFile(filepath.Join(staged, file), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, Options{Dir: dir})
	wantEntries(t, read(t, l, 1), 1, records(1, 100))
	if l.ID() != id {
		t.Error("it has another identity")
	}
}

func TestAStartThatWasKilledWhileTheServerDeletedALogPutsItBack(t *testing.T) {
	dir, id := stopped(t, 100)
	unmark(t, dir)
	// As a start makes it: a second name of every file.
	from := filepath.Join(dir, "jetstream")
	if err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		to := filepath.Join(dir, guardDir, strings.TrimPrefix(path, from))
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Link(path, to))
	}); err != nil {
		t.Fatal(err)
	}
	block, _ := newestBlock(t, dir) // half of the folder is deleted, its description is not
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	wantEntries(t, read(t, l, 1), 1, records(1, 100))
	if l.ID() != id {
		t.Error("it has another identity")
	}
}
