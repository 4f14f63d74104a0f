package store

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestReceiptsOfManyAreRememberedAndOldOnesTakeNoRoom(t *testing.T) {
	dir := t.TempDir()
	r := Folder(dir).Receipts()
	line := func(n string) string { return Done("$JS.ACK.EVENTS.sub-a.1." + n + ".1.0.0") }
	var writers sync.WaitGroup
	for _, n := range []string{"1", "2", "3", "4"} {
		writers.Go(func() {
			for _, m := range []string{"1", "2", "3"} {
				if err := r.Remember([]string{line(n + m), Given("$JS.ACK.EVENTS.sub-a.2.9" + n + ".1.0.0")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	r.file.WriteString(line("99")) // cut off, so nobody was told
	again := Folder(dir).Receipts()
	found, err := again.Load()
	work := found[Consumer{"EVENTS", "sub-a"}]
	if err != nil || len(found) != 1 || len(work.Done) != 12 || work.Done[99] != "" || work.Done[43] == "" || len(work.Given) != 4 || work.Given[91] != 2 {
		t.Fatalf("remembered %+v, %v", work, err)
	}
	// One more write and one more cut: what was there is carried along.
	if err := again.Remember([]string{line("7")}); err != nil {
		t.Fatal(err)
	}
	if found, err = Folder(dir).Receipts().Load(); err != nil || len(found[Consumer{"EVENTS", "sub-a"}].Done) != 13 {
		t.Fatalf("after one more cut there is %+v, %v", found, err)
	}
	for _, n := range []string{"101", "102", "103"} {
		again.began = time.Now().Add(-2 * receiptsAge)
		if err := again.Remember([]string{line(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err = Folder(dir).Receipts().Load(); err != nil || len(found[Consumer{"EVENTS", "sub-a"}].Done) != 2 {
		t.Errorf("want the last two files and no more: %+v, %v", found, err)
	}
	again.Close()
	r.Close()
}

func TestAReceiptIsReadInBothForms(t *testing.T) {
	want := parsedReceipt{Consumer{"EVENTS", "sub-a"}, 2, 17}
	for _, receipt := range []string{"$JS.ACK.EVENTS.sub-a.2.17.3.1763730000000000000.0", "$JS.ACK._.hash.EVENTS.sub-a.2.17.3.1763730000000000000.0.random"} {
		if p, err := parseReceipt(receipt); err != nil || p != want {
			t.Errorf("%s: %v, %v", receipt, p, err)
		}
	}
}

func FuzzReceiptAndPosition(f *testing.F) {
	f.Add("$JS.ACK.EVENTS.sub-a.2.17.3.1763730000000000000.0", []byte{22, 2, 0, 0, 1, 1, 1, 2, 1, 1, 0, 1, 1, 3})
	f.Add("$JS.ACK.EVENTS.../../x.2.17.3.0.0", []byte{22, 2, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, receipt string, file []byte) {
		if p, err := parseReceipt(receipt); err == nil && (strings.ContainsAny(p.Stream+p.Name, "/\\. \n") || p.Name == "") {
			t.Errorf("%q names the consumer %q of %q", receipt, p.Name, p.Stream)
		}
		found, err := DecodePosition(file)
		if err == nil && len(found.Pending) > len(file) {
			t.Errorf("%d entries of %d bytes", len(found.Pending), len(file))
		}
	})
}
