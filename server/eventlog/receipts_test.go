package eventlog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"eventrelay/server/eventlog/store"
)

// lose returns a copy of a log's folder in which the server knows nothing of what happened after before: only what is remembered beside it is new. It is what a kill leaves, or a
// power cut, at its worst.
func lose(t *testing.T, before, after string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(after, "receipts-*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("nothing is remembered: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhatWasSettledStaysSettledWhenTheServerHasForgotten(t *testing.T) {
	for _, outstanding := range []int{100, 1} {
		dir, before := t.TempDir(), t.TempDir()
		l := open(t, Options{Dir: dir})
		mustAppend(t, l, records(1, 6))
		mustEnsure(t, l.Consumer("reader"), ConsumerOptions{MaxOutstanding: outstanding})
		l.Close()
		if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}

		l = open(t, Options{Dir: dir})
		c := l.Consumer("reader")
		ask := Demand{Consumer: c, Max: 4, Linger: 50 * time.Millisecond}
		held := map[uint64]Delivery{}
		take := func(n int) {
			t.Helper()
			for end := time.Now().Add(10 * time.Second); n > 0; {
				if time.Now().After(end) {
					t.Fatal("what is due does not come")
				}
				for _, d := range mustFetch(t, l, ask).Deliveries {
					held[d.Sequence] = d
					n--
				}
			}
		}
		settle := func(v Verdict, list ...uint64) {
			t.Helper()
			for _, n := range list {
				mustSettle(t, l, Settlement{Receipt: held[n].Receipt, Verdict: v})
			}
		}
		var unsettled []uint64
		if outstanding == 1 {
			for n := range uint64(4) {
				take(1)
				settle(Done, n+1)
			}
			take(1)
			unsettled = []uint64{5}
		} else {
			take(4)
			settle(Done, 1, 3)
			unsettled = []uint64{2, 4}
		}
		ask.Max = 1
		last := unsettled[len(unsettled)-1]
		for range 2 {
			settle(Back, last)
			take(1)
		}
		if held[last].Attempt != 3 {
			t.Fatalf("attempt %d, want 3", held[last].Attempt)
		}
		l.Close()

		l = open(t, Options{Dir: lose(t, before, dir)})
		c = l.Consumer("reader")
		ask.Consumer = c
		st, err := c.State(t.Context())
		if err != nil || st.Outstanding != uint64(len(unsettled)) || st.Waiting != 6-last {
			t.Fatalf("with %d outstanding at most it stands at %+v, %v", outstanding, st, err)
		}
		settle(Back, last) // by its receipt of before
		delete(held, last)
		take(1)
		if d, ok := held[last]; !ok || d.Attempt != 4 {
			t.Errorf("given back once more it is attempt %d, want 4", d.Attempt)
		}
		settle(Done, unsettled...)
		if st, err = c.State(t.Context()); err != nil || st.Outstanding != 0 {
			t.Errorf("when all is settled it stands at %+v, %v", st, err)
		}
	}
}

func TestWhatAServerWritesDownOfAConsumerIsRead(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustAppend(t, l, records(1, 5))
	c := l.Consumer("reader")
	mustEnsure(t, c, ConsumerOptions{})
	got := mustFetch(t, l, Demand{Consumer: c, Max: 5})
	mustSettle(t, l, Settlement{Receipt: got.Deliveries[0].Receipt, Verdict: Done}, Settlement{Receipt: got.Deliveries[3].Receipt, Verdict: Back})
	if again := mustFetch(t, l, Demand{Consumer: c, Max: 1, Wait: 5 * time.Second}); !slices.Equal(sequences(again.Deliveries), []uint64{4}) {
		t.Fatalf("%v came", sequences(again.Deliveries))
	}
	l.Close()
	data, err := os.ReadFile(consumerFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	f, err := store.DecodePosition(data)
	if err != nil || len(f.Pending) != 4 || f.Pending[2] != 2 || f.Pending[5] != 5 || len(f.Attempts) != 1 || f.Attempts[4] != 2 {
		t.Errorf("it is read as %+v, %v", f, err)
	}
	for _, wrong := range [][]byte{nil, data[:1], data[:len(data)-1], append([]byte{1}, data[1:]...), append([]byte{data[0], 9}, data[2:]...)} {
		if _, err := store.DecodePosition(wrong); !errors.Is(err, store.ErrUnknownFormat) {
			t.Errorf("%x is read: %v", wrong, err)
		}
	}
}

// A power cut takes more away than a kill: the server's file may be an old one, an empty one, or none, and the receipts of what is long settled were let go of.
func TestWhatWasSettledLongAgoStaysSettledAfterAPowerCut(t *testing.T) {
	for _, what := range []string{"as it was", "old", "empty", "gone"} {
		dir := t.TempDir()
		l := open(t, Options{Dir: dir})
		l.receipts.Age = 0 // every write lets go of the one before the last
		mustAppend(t, l, records(1, 9))
		c := l.Consumer("reader")
		mustEnsure(t, c, ConsumerOptions{MaxOutstanding: 100})
		file := consumerFile(dir)
		var old []byte
		for round := range 3 {
			got := mustFetch(t, l, Demand{Consumer: c, Max: 3}).Deliveries
			for _, d := range got[:2] {
				mustSettle(t, l, Settlement{Receipt: d.Receipt, Verdict: Done})
			}
			waitFor(t, "what the server writes down", func() bool {
				was, err := os.ReadFile(file)
				is, bad := store.DecodePosition(was)
				if round == 0 {
					old = was
				}
				return err == nil && bad == nil && is.Given == uint64(3*(round+1)) && len(is.Pending) == round+1
			})
			mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done}) // by now the server's file is of all that is let go of
		}
		for range 3 { // and no receipt is left but of the last
			if err := l.receipts.Remember([]string{store.Done("$JS.ACK.EVENTS.other.1.1.1.0.0")}); err != nil {
				t.Fatal(err)
			}
		}
		cut := copyRunning(t, dir)
		l.Close()

		file = consumerFile(cut)
		var err error
		switch what {
		case "old":
			err = os.WriteFile(file, old, 0o600)
		case "empty":
			err = os.WriteFile(file, nil, 0o600)
		case "gone":
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		l = open(t, Options{Dir: cut})
		c = l.Consumer("reader")
		if st, err := c.State(t.Context()); err != nil || st.Outstanding != 3 || st.Waiting != 0 {
			t.Errorf("with a file that is %s it stands at %+v, %v", what, st, err)
		}
		// Another consumer of that name has nothing to do with it.
		if err := c.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustEnsure(t, c, ConsumerOptions{MaxOutstanding: 100})
		l.Close()
		l = open(t, Options{Dir: cut})
		if st, err := l.Consumer("reader").State(t.Context()); err != nil || st.Waiting != 9 {
			t.Errorf("a new one of the name stands at %+v, %v", st, err)
		}
		l.Close()
	}
}
