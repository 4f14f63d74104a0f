package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"eventrelay/server/eventlog/store"
)

// keys lists a bucket as key=value, sorted.
func keys(t testing.TB, b *Bucket) []string {
	t.Helper()
	values, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, v := range values {
		list = append(list, v.Key+"="+string(v.Data))
	}
	slices.Sort(list)
	return list
}

func mustCreate(t testing.TB, b *Bucket, key, data string) uint64 {
	t.Helper()
	revision, err := b.Create(t.Context(), key, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestAValueIsCreatedOnceAndChangedOnlyFromItsRevision(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		ctx, b := t.Context(), open(t, o).Bucket("sources")
		if _, err := b.Get(ctx, "a"); !errors.Is(err, ErrKeyNotFound) {
			t.Fatalf("Get of a key that never was: %v", err)
		}
		first := mustCreate(t, b, "a", "one")
		if _, err := b.Create(ctx, "a", []byte("other")); !errors.Is(err, ErrKeyExists) || errors.Is(err, ErrRevision) {
			t.Errorf("a second Create: %v", err)
		}
		second, err := b.Update(ctx, "a", []byte("two"), first)
		if err != nil || second <= first {
			t.Fatalf("Update = %d after %d, %v", second, first, err)
		}
		if _, err := b.Update(ctx, "a", []byte("other"), first); !errors.Is(err, ErrRevision) {
			t.Errorf("Update from an old revision: %v", err)
		}
		if err := b.Delete(ctx, "a", first); !errors.Is(err, ErrRevision) {
			t.Errorf("Delete of an old revision: %v", err)
		}
		if v, err := b.Get(ctx, "a"); err != nil || string(v.Data) != "two" || v.Revision != second || v.Key != "a" || time.Since(v.Time) > time.Minute {
			t.Errorf("Get = %+v, %v", v, err)
		}
		if err := b.Delete(ctx, "a", second); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Get(ctx, "a"); !errors.Is(err, ErrKeyNotFound) {
			t.Errorf("Get of a deleted key: %v", err)
		}
		if _, err := b.Update(ctx, "a", []byte("other"), second); !errors.Is(err, ErrRevision) {
			t.Errorf("Update of a deleted key: %v", err)
		}
		if again := mustCreate(t, b, "a", "three"); again <= second {
			t.Errorf("a key that was deleted begins again at %d, after %d", again, second)
		}
		mustCreate(t, b, "b", "four")
		if got := keys(t, b); !slices.Equal(got, []string{"a=three", "b=four"}) {
			t.Errorf("List = %v", got)
		}
		if _, err := b.Create(ctx, "no key", nil); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("a word that cannot be a key: %v", err)
		}
	})
}

func TestOfManyWhoChangeOneValueAtOnceOneWins(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		revision := mustCreate(t, l.Bucket("sources"), "a", "one")
		var (
			wins, stale int
			mu          sync.Mutex
			all         sync.WaitGroup
		)
		for i := range 8 {
			b := l.Bucket("sources") // as another relay has it
			all.Go(func() {
				_, err := b.Update(t.Context(), "a", fmt.Append(nil, i), revision)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					wins++
				case errors.Is(err, ErrRevision):
					stale++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if wins != 1 || stale != 7 {
			t.Errorf("%d won and %d were told that they were late", wins, stale)
		}
	})
}

// watched is a Watch that runs.
type watched struct {
	t       *testing.T
	changes chan Change
	stop    func()
}

func watch(t *testing.T, b *Bucket) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{t: t, changes: make(chan Change)}
	var running sync.WaitGroup
	running.Go(func() {
		for c, err := range b.Watch(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			select {
			case w.changes <- c:
			case <-ctx.Done():
			}
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	return w
}

// next is the next change, as a word.
func (w *watched) next() string {
	w.t.Helper()
	select {
	case c := <-w.changes:
		switch c.Kind {
		case ChangeRestart:
			return "restart"
		case ChangeComplete:
			return "complete"
		case ChangePut:
			return c.Value.Key + "=" + string(c.Value.Data)
		default:
			return c.Value.Key + " deleted"
		}
	case <-time.After(30 * time.Second):
		w.t.Fatal("no change within 30 s")
		return ""
	}
}

func (w *watched) want(words ...string) {
	w.t.Helper()
	for _, word := range words {
		if got := w.next(); got != word {
			w.t.Fatalf("got %q, want %q", got, word)
		}
	}
}

func TestAWatchBeginsWithWhatIsThereAndGoesOnWithWhatHappens(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		b := open(t, o).Bucket("sources")
		w := watch(t, b)
		w.want("restart", "complete")
		first := mustCreate(t, b, "a", "one")
		w.want("a=one")
		second, err := b.Update(t.Context(), "a", []byte("two"), first)
		if err != nil {
			t.Fatal(err)
		}
		w.want("a=two")
		mustCreate(t, b, "b", "three")
		w.want("b=three")
		later := watch(t, b)
		later.want("restart", "a=two", "b=three", "complete")
		if err := b.Delete(t.Context(), "a", second); err != nil {
			t.Fatal(err)
		}
		w.want("a deleted")
		later.want("a deleted")
	})
}

func TestAWatchSeesWhatAnotherRelayWrites(t *testing.T) {
	url := externalServer(t, nil)
	one, two := open(t, Options{URL: url}).Bucket("sources"), open(t, Options{URL: url}).Bucket("sources")
	w := watch(t, one)
	w.want("restart", "complete")
	mustCreate(t, two, "a", "one")
	w.want("a=one")
}

func TestAWatchBeginsAgainAfterARestartOfTheEmbeddedServer(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	b := l.Bucket("sources")
	mustCreate(t, b, "a", "one")
	w := watch(t, b)
	w.want("restart", "a=one", "complete")
	l.mu.Lock()
	k := l.cur
	l.mu.Unlock()
	l.fault(k, errors.New("broken on purpose"))
	w.want("restart", "a=one", "complete")
	mustCreate(t, b, "b", "two")
	w.want("b=two")
}

func TestAWatchBeginsAgainWhenTheServerIsBack(t *testing.T) {
	dir, port := t.TempDir(), -1
	start := func() *server.Server {
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
	srv := start()
	defer func() { store.Stop(srv) }()
	if _, err := fmt.Sscanf(srv.Addr().String(), "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	b := open(t, Options{URL: srv.ClientURL()}).Bucket("sources")
	revision := mustCreate(t, b, "a", "one")
	w := watch(t, b)
	w.want("restart", "a=one", "complete")
	store.Stop(srv)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Get(ctx, "a"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Get while the server is away: %v", err)
	}
	srv = start()
	w.want("restart", "a=one", "complete")
	if _, err := b.Update(t.Context(), "a", []byte("two"), revision); err != nil {
		t.Fatal(err)
	}
	w.want("a=two")
}

func TestABucketSurvivesStopsOfEveryKind(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	b := l.Bucket("sources")
	revision := mustCreate(t, b, "a", "one")
	mustCreate(t, b, "b", "two")
	copied := copyRunning(t, dir) // as a killed process leaves it
	mustClose(t, l)
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
	for _, dir := range []string{dir, copied} {
		b := open(t, Options{Dir: dir}).Bucket("sources")
		if got := keys(t, b); !slices.Equal(got, []string{"a=one", "b=two"}) {
			t.Errorf("%s has %v", dir, got)
		}
		if _, err := b.Update(t.Context(), "a", []byte("three"), revision); err != nil {
			t.Errorf("the revision of before does not count: %v", err)
		}
	}
}

func TestAWatchEndsWithItsContextAndWithClose(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	b := l.Bucket("sources")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for c, err := range b.Watch(ctx) {
		if last = err; c.Kind == ChangeComplete {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
	for c, err := range b.Watch(t.Context()) {
		if last = err; c.Kind == ChangeComplete {
			mustClose(t, l)
		}
	}
	if !errors.Is(last, ErrClosed) {
		t.Errorf("ended with %v", last)
	}
}

func TestABucketOnDiskThatWasNotRecoveredIsNotMadeAnew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustCreate(t, l.Bucket("sources"), "a", "one")
	mustClose(t, l)
	meta := filepath.Join(store.Folder(dir).Stream(bucketPrefix+"sources"), server.JetStreamMetaFile)
	if err := os.WriteFile(meta, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, Options{Dir: dir}).Bucket("sources")
	if _, err := b.Create(t.Context(), "a", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Create = %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(meta), "msgs")); errors.Is(err, fs.ErrNotExist) {
		t.Error("what was there is gone")
	}
}
