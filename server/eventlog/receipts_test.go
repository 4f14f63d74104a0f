package eventlog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
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

func TestReceiptsOfManyAreRememberedAndOldOnesTakeNoRoom(t *testing.T) {
	dir := t.TempDir()
	r := newReceipts(dir)
	line := func(n string) string { return doneMark + "$JS.ACK.EVENTS.sub-a.1." + n + ".1.0.0" }
	var writers sync.WaitGroup
	for _, n := range []string{"1", "2", "3", "4"} {
		writers.Go(func() {
			for _, m := range []string{"1", "2", "3"} {
				if err := r.remember([]string{line(n + m), givenMark + "$JS.ACK.EVENTS.sub-a.2.9" + n + ".1.0.0"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	r.file.WriteString(line("99")) // cut off, so nobody was told
	again := newReceipts(dir)
	found, err := again.load()
	work := found[redoKey{"EVENTS", "sub-a"}]
	if err != nil || len(found) != 1 || len(work.done) != 12 || work.done[99] != "" || work.done[43] == "" || len(work.given) != 4 || work.given[91] != 2 {
		t.Fatalf("remembered %+v, %v", work, err)
	}
	// One more write and one more cut: what was there is carried along.
	if err := again.remember([]string{line("7")}); err != nil {
		t.Fatal(err)
	}
	if found, err = newReceipts(dir).load(); err != nil || len(found[redoKey{"EVENTS", "sub-a"}].done) != 13 {
		t.Fatalf("after one more cut there is %+v, %v", found, err)
	}
	for _, n := range []string{"101", "102", "103"} {
		again.began = time.Now().Add(-2 * receiptsAge)
		if err := again.remember([]string{line(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err = newReceipts(dir).load(); err != nil || len(found[redoKey{"EVENTS", "sub-a"}].done) != 2 {
		t.Errorf("want the last two files and no more: %+v, %v", found, err)
	}
	again.close()
	r.close()
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
	data, err := os.ReadFile(filepath.Join(filepath.Dir(streamDir(dir)), streamName, "obs", "reader", "o.dat"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := decodeConsumerFile(data)
	if err != nil || len(f.pending) != 4 || f.pending[2] != 2 || f.pending[5] != 5 || len(f.attempts) != 1 || f.attempts[4] != 2 {
		t.Errorf("it is read as %+v, %v", f, err)
	}
	for _, wrong := range [][]byte{nil, data[:1], data[:len(data)-1], append([]byte{1}, data[1:]...), append([]byte{data[0], 9}, data[2:]...)} {
		if _, err := decodeConsumerFile(wrong); !errors.Is(err, errConsumerFile) {
			t.Errorf("%x is read: %v", wrong, err)
		}
	}
}

func TestAReceiptIsReadInBothForms(t *testing.T) {
	want := parsedReceipt{redoKey{"EVENTS", "sub-a"}, 2, 17}
	for _, receipt := range []string{"$JS.ACK.EVENTS.sub-a.2.17.3.1763730000000000000.0", "$JS.ACK._.hash.EVENTS.sub-a.2.17.3.1763730000000000000.0.random"} {
		if p, err := parseReceipt(receipt); err != nil || p != want {
			t.Errorf("%s: %v, %v", receipt, p, err)
		}
	}
}

func FuzzReceiptAndConsumerFile(f *testing.F) {
	f.Add("$JS.ACK.EVENTS.sub-a.2.17.3.1763730000000000000.0", []byte{22, 2, 0, 0, 1, 1, 1, 2, 1, 1, 0, 1, 1, 3})
	f.Add("$JS.ACK.EVENTS.../../x.2.17.3.0.0", []byte{22, 2, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, receipt string, file []byte) {
		if p, err := parseReceipt(receipt); err == nil && (strings.ContainsAny(p.stream+p.consumer, "/\\. \n") || p.consumer == "") {
			t.Errorf("%q names the consumer %q of %q", receipt, p.consumer, p.stream)
		}
		found, err := decodeConsumerFile(file)
		if err == nil && len(found.pending) > len(file) {
			t.Errorf("%d entries of %d bytes", len(found.pending), len(file))
		}
	})
}

// A power cut takes more away than a kill: the server's file may be an old one, an empty one, or none, and the receipts of what is long settled were let go of.
func TestWhatWasSettledLongAgoStaysSettledAfterAPowerCut(t *testing.T) {
	for _, what := range []string{"as it was", "old", "empty", "gone"} {
		dir := t.TempDir()
		l := open(t, Options{Dir: dir})
		mustAppend(t, l, records(1, 9))
		c := l.Consumer("reader")
		mustEnsure(t, c, ConsumerOptions{MaxOutstanding: 100})
		file := filepath.Join(consumerDir(dir, redoKey{streamName, "reader"}), consumerState)
		var old []byte
		for round := range 3 {
			got := mustFetch(t, l, Demand{Consumer: c, Max: 3}).Deliveries
			for _, d := range got[:2] {
				mustSettle(t, l, Settlement{Receipt: d.Receipt, Verdict: Done})
			}
			waitFor(t, "what the server writes down", func() bool {
				was, err := os.ReadFile(file)
				is, bad := decodeConsumerFile(was)
				if round == 0 {
					old = was
				}
				return err == nil && bad == nil && is.given == uint64(3*(round+1)) && len(is.pending) == round+1
			})
			l.receipts.began = time.Now().Add(-2 * receiptsAge)
			mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done}) // which turns the files
		}
		for range 3 { // and no receipt is left but of the last
			l.receipts.began = time.Now().Add(-2 * receiptsAge)
			if err := l.receipts.remember([]string{doneMark + "$JS.ACK.EVENTS.other.1.1.1.0.0"}); err != nil {
				t.Fatal(err)
			}
		}
		cut := copyRunning(t, dir)
		l.Close()

		file = filepath.Join(consumerDir(cut, redoKey{streamName, "reader"}), consumerState)
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
