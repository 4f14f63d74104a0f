package eventlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"eventrelay/server/eventlog/store"
)

// writtenOnly has the embedded server store records that nobody has synced yet.
func writtenOnly(t *testing.T, l *Log, rs []Record) {
	t.Helper()
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var done Appended
	msgs, err := k.messages(rs, &done)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if _, err := k.pub.RequestMsg(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

// What a power cut may still take away is shown to nobody: not to who follows, not to who reads and not to who is given it.
func TestWhatIsNotOnDiskIsNotShown(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	mustAppend(t, l, records(1, 3))
	x := tailFrom(t, l, 0)
	waitFor(t, "what is on disk", func() bool { return x.len() == 3 })
	c := l.Consumer("reader")
	mustEnsure(t, c, ConsumerOptions{MaxOutstanding: 100})

	rs := records(1, 6)
	writtenOnly(t, l, rs[3:])
	if st := state(t, l); st.Last != 6 {
		t.Fatalf("the server has stored up to %d, so this test proves nothing", st.Last)
	}
	const moment = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	n := 0
	for _, err := range l.Read(ctx, 1) {
		if err == nil {
			n++
		}
	}
	if n != 3 {
		t.Errorf("read %d entries of 3 that are on disk", n)
	}
	ctx, cancel = context.WithTimeout(t.Context(), moment)
	defer cancel()
	got, err := l.Fetch(ctx, []Demand{{Consumer: c, Max: 10}})
	if err == nil {
		t.Errorf("given %v before it is on disk", sequences(got.Deliveries))
	}
	if x.len() != 3 {
		t.Errorf("followed %d entries of 3 that are on disk", x.len())
	}

	// The next step syncs what is there.
	rs = append(rs, records(7, 1)...)
	mustAppend(t, l, rs[6:])
	waitFor(t, "what is on disk now", func() bool { return x.len() == 7 })
	wantEntries(t, x.end(t), 1, rs)
	wantEntries(t, read(t, l, 1), 1, rs)
}

// A sync that fails leaves nobody knowing what is on disk: what was written since is written anew, and the log goes on.
func TestASyncThatFailsIsOvercomeWithoutARestartOfTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustAppend(t, l, records(1, 20))
	x := tailFrom(t, l, 0)
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.disk.blocks = store.NewBlocks(filepath.Join(dir, "gone"))
	block, _ := newestBlock(t, dir)
	before, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	rs := records(1, 60)
	if _, err := l.Append(t.Context(), rs[20:]); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append that cannot be synced gave %v", err)
	}
	o, ok, err := l.Position(t.Context(), "journal")
	if err != nil || !ok {
		t.Fatalf("position is %+v, %v, %v", o, ok, err)
	}
	if after, err := os.Stat(block); err != nil || os.SameFile(before, after) {
		t.Errorf("the block was not written anew (%v)", err)
	}
	if o.Record < 60 {
		mustAppend(t, l, rs[o.Record:])
	}
	wantEntries(t, read(t, l, 1), 1, rs)
	waitFor(t, "the tail", func() bool { return x.len() >= 60 })
	wantEntries(t, x.end(t), 1, rs)
}

// The kernel tells of a failed sync once. A start that meets it must not take the next sync for the truth.
func TestWhatAStartCannotSyncIsWrittenAnew(t *testing.T) {
	dir, _ := stopped(t, 20)
	block, _ := newestBlock(t, dir)
	before, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	l := open(t, Options{Dir: dir, syncStore: func(f store.Folder) error {
		if tries++; tries == 1 {
			return errors.New("input/output error")
		}
		return f.Sync()
	}})
	if after, err := os.Stat(block); err != nil || os.SameFile(before, after) || tries != 2 {
		t.Errorf("after %d syncs the block was not written anew (%v)", tries, err)
	}
	mustAppend(t, l, records(21, 5))
	wantEntries(t, read(t, l, 1), 1, records(1, 25))
}

// The same of a log that is opened again while the process goes on.
func TestWhatAReopenedLogCannotSyncIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	var broken atomic.Bool
	l := open(t, Options{Dir: dir, syncStore: func(f store.Folder) error {
		if broken.CompareAndSwap(true, false) {
			return errors.New("input/output error")
		}
		return f.Sync()
	}})
	mustAppend(t, l, records(1, 20))
	block, _ := newestBlock(t, dir)
	before, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	l.fault(k, errors.New("slow"))
	mustAppend(t, l, records(21, 5))
	if after, err := os.Stat(block); err != nil || os.SameFile(before, after) || broken.Load() {
		t.Errorf("the block was not written anew (%v)", err)
	}
	wantEntries(t, read(t, l, 1), 1, records(1, 25))
}
