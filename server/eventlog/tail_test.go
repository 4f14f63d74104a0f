package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"eventrelay/server/eventlog/store"
)

// tailer collects what a Tail yields until it is stopped.
type tailer struct {
	mu   sync.Mutex
	got  []Entry
	stop func()
	done chan error
}

func tailFrom(t *testing.T, l *Log, after uint64) *tailer {
	ctx, cancel := context.WithCancel(t.Context())
	x := &tailer{stop: cancel, done: make(chan error, 1)}
	go func() {
		for e, err := range l.Tail(ctx, after) {
			if err != nil {
				x.done <- err
				return
			}
			x.mu.Lock()
			x.got = append(x.got, e)
			x.mu.Unlock()
		}
		x.done <- nil
	}()
	t.Cleanup(cancel)
	return x
}

func (x *tailer) len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.got)
}

// end stops the tail, which must end without an error, and returns what it yielded.
func (x *tailer) end(t *testing.T) []Entry {
	t.Helper()
	x.stop()
	if err := <-x.done; err != nil {
		t.Fatalf("tail ended with %v", err)
	}
	return x.got
}

func TestTailYieldsEveryEntryOnceInOrderWhileOthersAppend(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		all := records(1, 4000)
		mustAppend(t, l, all[:500])
		early, late := tailFrom(t, l, 0), tailFrom(t, l, 400)
		for at, step := 500, 0; at < len(all); step++ {
			n := min([]int{1, 7, 15, 400}[step%4], len(all)-at)
			mustAppend(t, l, all[at:at+n])
			at += n
		}
		fresh := tailFrom(t, l, 4000) // nothing yet
		mustAppend(t, l, records(4001, 1))
		waitFor(t, "all entries", func() bool { return early.len() >= 4001 && late.len() >= 3601 && fresh.len() >= 1 })
		all = records(1, 4001)
		wantEntries(t, early.end(t), 1, all)
		wantEntries(t, late.end(t), 401, all[400:])
		wantEntries(t, fresh.end(t), 4001, all[4000:])
	})
}

// A batch is synced once, at its end. A consumer shows its first entry long before.
func TestTailYieldsNothingOfABatchThatIsStillBeingWritten(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		k, err := l.link(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const batches = 4
		early := make(chan error, 1)
		go func() {
			for e, err := range l.Tail(t.Context(), 0) {
				if err == nil && e.Sequence%maxBatch == 1 {
					// What the store holds at this moment, whether synced or not.
					info, infoErr := k.info(t.Context())
					if err = infoErr; err == nil && info.State.LastSeq < e.Sequence-1+maxBatch {
						err = fmt.Errorf("entry %d came when the store was at %d", e.Sequence, info.State.LastSeq)
					}
				}
				if err != nil || e.Sequence == batches*maxBatch {
					early <- err
					return
				}
			}
		}()
		for i := range batches {
			rs := records(1+i*maxBatch, maxBatch)
			for j := range rs {
				rs[j].Data = make([]byte, 7<<10)
			}
			mustAppend(t, l, rs)
		}
		if err := <-early; err != nil {
			t.Error(err)
		}
	})
}

func TestTailSeesWhatAnotherRelayAppends(t *testing.T) {
	url := externalServer(t, nil)
	a, b := open(t, Options{URL: url}), open(t, Options{URL: url})
	if a.ID() != b.ID() {
		t.Fatalf("two relays see two logs: %s and %s", a.ID(), b.ID())
	}
	x := tailFrom(t, a, 0)
	var steps sync.WaitGroup
	for name, l := range map[string]*Log{"a": a, "b": b} {
		steps.Go(func() {
			for i := range 20 {
				if _, err := l.Append(t.Context(), recordsOf(name, 1+i*25, 25)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	steps.Wait()
	waitFor(t, "entries of both", func() bool { return x.len() >= 1000 })
	next := map[string]uint64{"a": 1, "b": 1}
	for i, e := range x.end(t) {
		if e.Sequence != uint64(i+1) || e.Origin.Record != next[e.Origin.Journal] {
			t.Fatalf("entry %d is %d %+v, want record %d", i, e.Sequence, e.Origin, next[e.Origin.Journal])
		}
		next[e.Origin.Journal]++
	}
}

func TestTwoRelaysThatReceiveTheSameStoreItOnce(t *testing.T) {
	url := externalServer(t, nil)
	logs := []*Log{open(t, Options{URL: url}), open(t, Options{URL: url})}
	var (
		steps sync.WaitGroup
		mu    sync.Mutex
		sum   Appended
	)
	for _, l := range logs {
		steps.Go(func() {
			for i := range 10 {
				a, err := l.Append(t.Context(), records(1+i*50, 50))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				sum.Stored += a.Stored
				sum.Duplicates += a.Duplicates
				mu.Unlock()
			}
		})
	}
	steps.Wait()
	if sum.Stored != 500 || sum.Duplicates != 500 {
		t.Errorf("stored %d, refused %d", sum.Stored, sum.Duplicates)
	}
	seen := map[string]bool{}
	for _, e := range read(t, logs[0], 1) {
		seen[e.ID] = true
	}
	if len(seen) != 500 || state(t, logs[0]).Events != 500 {
		t.Errorf("%d ids in %d entries", len(seen), state(t, logs[0]).Events)
	}
}

func TestTailAndAppendGoOnAcrossARestartOfTheEmbeddedServer(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	all := records(1, 600)
	x := tailFrom(t, l, 0)
	for at := 0; at < len(all); at += 20 {
		mustAppend(t, l, all[at:at+20])
		if at == 200 || at == 400 {
			k, err := l.link(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l.fault(k, errors.New("the test says so"))
		}
	}
	waitFor(t, "all entries", func() bool { return x.len() >= 600 })
	wantEntries(t, x.end(t), 1, all)
	wantEntries(t, read(t, l, 1), 1, all)
}

// Whatever was on its way when the connection broke either lies before what is appended next, or nowhere.
func TestAConnectionThatBreaksInTheMiddleOfAStepNeitherLosesNorReorders(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		x := tailFrom(t, l, 0)
		const total = 6000
		all := records(1, total)
		breaking := make(chan struct{})
		go func() {
			defer close(breaking)
			for n := 1; n <= 12; n++ {
				for x.len() < n*400 {
					select {
					case <-time.After(time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
				if k, err := l.link(t.Context()); err == nil {
					k.pub.Close() // which is noticed, as any loss is
				}
			}
		}()
		failed := 0
		for at, step := 0, 0; at < total; step++ {
			n := min([]int{300, 3, 70}[step%3], total-at)
			if _, err := l.Append(t.Context(), all[at:at+n]); err == nil {
				at += n
				continue
			} else if !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			failed++
			p, ok, err := l.Position(t.Context(), "journal")
			for tries := 0; errors.Is(err, ErrUnavailable) && tries < 20; tries++ { // the next break came in between
				p, ok, err = l.Position(t.Context(), "journal")
			}
			if err != nil || ok && p.Record < uint64(at) {
				t.Fatalf("position is %+v, %v, %v after %d", p, ok, err, at)
			}
			at = int(p.Record)
		}
		<-breaking
		if failed == 0 {
			t.Error("no step failed, so this proves nothing")
		}
		wantEntries(t, read(t, l, 1), 1, all)
		waitFor(t, "the tail", func() bool { return x.len() >= total })
		wantEntries(t, x.end(t), 1, all)
	})
}

func TestARestartOfTheExternalServerCostsNoEntry(t *testing.T) {
	dir := t.TempDir()
	start := func(port int) *server.Server {
		srv, err := server.NewServer(&server.Options{
			ServerName: "external", Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: dir, SyncAlways: true, MaxPayload: 32 << 20, MaxPending: 1 << 30,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		if !srv.ReadyForConnections(10 * time.Second) {
			t.Fatal("the external server does not come up")
		}
		return srv
	}
	srv := start(-1)
	defer func() { store.Stop(srv) }()
	l := open(t, Options{URL: srv.ClientURL()})
	x := tailFrom(t, l, 0)
	all := records(1, 400)
	mustAppend(t, l, all[:200])
	var port int
	if _, err := fmt.Sscanf(srv.Addr().String(), "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	store.Stop(srv)

	// Away: each call ends with its context, and says why.
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	waitFor(t, "the loss to be noticed", func() bool {
		_, err := l.State(soon())
		return errors.Is(err, ErrUnavailable)
	})
	_, appendErr := l.Append(soon(), all[200:])
	_, _, posErr := l.Position(soon(), "journal")
	var readErr error
	for _, err := range l.Read(soon(), 1) {
		readErr = err
	}
	for _, err := range []error{appendErr, posErr, readErr} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("while the server is away a call gives %v", err)
		}
	}

	srv = start(port)
	waitFor(t, "the log to come back", func() bool { _, err := l.State(t.Context()); return err == nil })
	mustAppend(t, l, all[200:])
	waitFor(t, "all entries", func() bool { return x.len() >= 400 })
	wantEntries(t, x.end(t), 1, all)
}

func TestAReaderThatStandsStillHoldsLittle(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	rs := records(1, 2000)
	for i := range rs {
		rs[i].Data = make([]byte, 8<<10) // 16 MiB in all
	}
	mustAppend(t, l, rs)
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := k.feed(t.Context(), start{seq: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, err := f.next(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	c, err := k.js.Consumer(t.Context(), streamName, f.name)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the server to have sent what it was asked for", func() bool {
		info, err := c.Info(t.Context())
		return err == nil && info.NumWaiting == 0
	})
	if err := k.sub.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, held, err := f.sub.MaxPending(); err != nil || held > 3*pullBytes {
		t.Fatalf("%d bytes wait for a reader that took one burst (%v)", held, err)
	}
}

func TestTheReaderMayStopAnywhere(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		mustAppend(t, l, records(1, 100))
		n := 0
		for range l.Read(t.Context(), 1) {
			if n++; n == 7 {
				break
			}
		}
		for e := range l.Tail(t.Context(), 50) {
			if e.Sequence == 60 {
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range l.Tail(ctx, 0) {
			t.Fatalf("tail with an ended context yields %v", err)
		}
		for _, err := range l.Read(ctx, 1) {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("read with an ended context yields %v", err)
			}
		}
		waitFor(t, "no consumer to be left", func() bool {
			k, err := l.link(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			info, err := k.info(t.Context())
			return err == nil && info.State.Consumers == 0
		})
	})
}
