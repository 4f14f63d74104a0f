package eventlog

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"eventrelay/server/eventlog/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedEnv); dir != "" {
		fmt.Println(appendUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// externalServer runs a JetStream with a listener, as an operator would, and returns its URL.
func externalServer(t testing.TB, change func(*server.Options)) string {
	t.Helper()
	o := &server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true,
		StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: 32 << 20, MaxPending: 1 << 30,
	}
	if change != nil {
		change(o)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { store.Stop(srv) })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the external server does not come up")
	}
	return srv.ClientURL()
}

func open(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// records makes n records of one journal, numbered from first on.
func records(first, n int) []Record {
	return recordsOf("journal", first, n)
}

func recordsOf(journal string, first, n int) []Record {
	rs := make([]Record, n)
	for i := range rs {
		k := first + i
		rs[i] = Record{
			ID: fmt.Sprintf("%s-%d", journal, k), Source: "shop", Type: "meta.whatsapp_business_account.messages.message",
			OrderingKey: strconv.Itoa(k % 7), Time: time.Unix(1_700_000_000, int64(k)).UTC(),
			Origin: Origin{Journal: journal, Record: uint64(k), Item: k % 3}, Data: fmt.Appendf(nil, "event %d", k),
		}
	}
	return rs
}

func mustAppend(t testing.TB, l *Log, rs []Record) Appended {
	t.Helper()
	a, err := l.Append(t.Context(), rs)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// same compares what two steps did by their figures.
func same(a, b Appended) bool {
	return a.Stored == b.Stored && a.Duplicates == b.Duplicates && a.Last == b.Last && len(a.Copies) == a.Duplicates
}

func read(t testing.TB, l *Log, from uint64) []Entry {
	t.Helper()
	var es []Entry
	for e, err := range l.Read(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, e)
	}
	return es
}

func state(t testing.TB, l *Log) State {
	t.Helper()
	st, err := l.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// wantEntries compares entries with the records that made them, the first at sequence first.
func wantEntries(t testing.TB, es []Entry, first uint64, rs []Record) {
	t.Helper()
	if len(es) != len(rs) {
		t.Fatalf("got %d entries, want %d", len(es), len(rs))
	}
	for i, e := range es {
		r := rs[i]
		if e.Sequence != first+uint64(i) || e.ID != r.ID || !e.Time.Equal(r.Time) || e.Origin != r.Origin || string(e.Data) != string(r.Data) {
			t.Fatalf("entry %d is %d %s %v %+v, %d bytes; want %d %s %v %+v, %d bytes", i, e.Sequence, e.ID, e.Time, e.Origin, len(e.Data),
				first+uint64(i), r.ID, r.Time, r.Origin, len(r.Data))
		}
	}
}

// waitFor polls a condition that another goroutine or the server makes true.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("still waiting for: " + what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("still waiting for: " + what)
		}
	}
}

// both runs a test against the embedded server and against one that is reached by URL.
func both(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("embedded", func(t *testing.T) { test(t, Options{Dir: t.TempDir()}) })
	t.Run("url", func(t *testing.T) { test(t, Options{URL: externalServer(t, nil)}) })
}

// deleteEntry makes a hole, as an operator might.
func deleteEntry(t *testing.T, l *Log, seq uint64) {
	t.Helper()
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.js.Stream(t.Context(), streamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
}
