package index

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"eventrelay/server/eventlog"
)

// saved is a rig with some blocks in the files, and the ids in them.
func saved(t *testing.T, options eventlog.Options) (r *rig, ids []string) {
	t.Helper()
	r = newRig(t, options)
	for n := range 6 {
		step := numbered(fmt.Sprintf("s%d.", n), 3+n)
		ids = append(ids, step...)
		r.receive(step...)
		r.index.saveOrWarn()
	}
	return r, ids
}

// files returns the content of the index's folder.
func (r *rig) files() map[string][]byte {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, "index", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil {
			r.t.Fatal(err)
		}
	}
	return files
}

// put makes the folder hold these files and no others.
func (r *rig) put(files map[string][]byte) {
	r.t.Helper()
	for name := range r.files() {
		if err := os.Remove(name); err != nil {
			r.t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// damages calls try with every file damaged in turn: cut off, a bit turned, zeroes instead of an end, deleted.
func damages(files map[string][]byte, try func(what string, files map[string][]byte)) {
	for name, content := range files {
		with := func(what string, damaged []byte) {
			changed := maps.Clone(files)
			if changed[name] = damaged; damaged == nil {
				delete(changed, name)
			}
			try(filepath.Base(name)+" "+what, changed)
		}
		with("deleted", nil)
		for at := 0; at < len(content); at += 1 + len(content)/15 {
			with(fmt.Sprintf("cut at %d", at), append([]byte{}, content[:at]...))
			with(fmt.Sprintf("zero from %d", at), append(append([]byte{}, content[:at]...), make([]byte, len(content)-at)...))
			flipped := slices.Clone(content)
			flipped[at] ^= 1 << (at % 8)
			with(fmt.Sprintf("bit turned at %d", at), flipped)
		}
	}
}

func TestEveryDamageOfTheFilesIsRepairedFromTheLog(t *testing.T) {
	r, ids := saved(t, eventlog.Options{})
	r.restart()
	more := numbered("more", 4)
	r.receive(more...)
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, more...)
	damages(r.files(), func(what string, files map[string][]byte) {
		r.put(files)
		r.openIndex()
		found := 0
		for n, id := range ids {
			if slices.Equal(r.index.find(r.index.mark(id)), []uint64{uint64(n + 1)}) {
				found++
			}
		}
		if found != len(ids) {
			t.Errorf("%s: %d ids known of %d", what, found, len(ids))
		}
		// What was repaired is whole: the next start reads nothing twice.
		r.restart()
		if events, _, _ := r.index.usage(); events != len(ids) {
			t.Errorf("%s: %d ids after the next start, want %d", what, events, len(ids))
		}
		if err := r.index.Close(); err != nil {
			t.Fatal(err)
		}
		for name, content := range r.files() {
			if filepath.Ext(name) != extension {
				continue
			}
			if _, err := readBlocks(bytes.NewReader(content), r.index.mark(r.log.ID()), func(block, int64) bool { return true }); err != nil {
				t.Errorf("%s: what was damaged is still in %s: %v", what, name, err)
			}
		}
	})
	r.openIndex()
	r.wantKnown(ids...)
}

// Where the log cannot help, a copy may be taken in again, but nothing new is ever taken for a copy.
func TestNoDamageTakesANewEventForACopy(t *testing.T) {
	r, ids := saved(t, eventlog.Options{MaxEvents: 1})
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	strangers := numbered("new", 50)
	damages(r.files(), func(what string, files map[string][]byte) {
		r.put(files)
		r.openIndex()
		for _, id := range strangers {
			if found := r.index.find(r.index.mark(id)); len(found) > 0 {
				t.Errorf("%s: %s is taken for a copy", what, id)
			}
		}
		if events, _, _ := r.index.usage(); events > len(ids)+1 {
			t.Errorf("%s: %d ids of %d", what, events, len(ids))
		}
		if err := r.index.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A generation ends when its time is over. Whatever of that is on disk when the process dies, or the power, all ids are known.
func TestACrashAtAnyStepBetweenTwoGenerationsForgetsNothing(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.at = time.Now().Add(-48 * time.Hour)
	r.receive("a", "b")
	before := r.files() // the first is not even begun
	states := []map[string][]byte{before}
	note := func() { states = append(states, r.files()) }
	r.index.saveOrWarn()
	note() // one, and growing
	r.at = time.Now()
	r.receive("c")
	note() // the second begun, in memory
	r.index.saveOrWarn()
	note() // both
	one, two := r.index.path(1), r.index.path(2)
	last := states[len(states)-1]
	if len(last[one]) == 0 || len(last[two]) == 0 {
		t.Fatalf("there are not two generations: %d files", len(last))
	}
	for size := 0; size <= len(last[two]); size++ { // the second while it is made
		states = append(states, map[string][]byte{one: last[one], two: last[two][:size]})
	}
	for size := 0; size <= len(last[one]); size++ { // the first not synced when the second was
		states = append(states, map[string][]byte{one: last[one][:size], two: last[two]})
	}
	key := filepath.Join(r.dir, "index", keyFile)
	for n, files := range states {
		files[key] = last[key]
		r.put(files)
		r.openIndex()
		for sequence, id := range []string{"a", "b", "c"} {
			if got := r.index.find(r.index.mark(id)); !slices.Equal(got, []uint64{uint64(sequence + 1)}) {
				t.Errorf("state %d: %s lies at %v", n, id, got)
			}
		}
		if err := r.index.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.openIndex()
	r.wantKnown("a", "b", "c")
}

// copyLog copies the log's folder, which is closed.
func (r *rig) copyLog(from, to string) {
	r.t.Helper()
	if err := os.CopyFS(filepath.Join(r.dir, to), os.DirFS(filepath.Join(r.dir, from))); err != nil {
		r.t.Fatal(err)
	}
}

// cutPower makes the log lose all that came after keep, and the index nothing. It leaves both open.
func cutPower(t *testing.T, keep, lost func(r *rig)) *rig {
	t.Helper()
	r := newRig(t, eventlog.Options{})
	keep(r)
	if err := r.log.Close(); err != nil {
		t.Fatal(err)
	}
	r.copyLog("log", "before")
	id := r.log.ID()
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	r.openLog("log")
	r.openIndex()
	lost(r)
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	r.log.Close()
	r.openLog("before")
	if r.log.ID() != id {
		t.Fatal("it is another log: the test does not test what it says")
	}
	return r
}

func TestEventsThatAPowerCutTookFromTheLogAreTakenInAgain(t *testing.T) {
	for what, reopen := range map[string]func(r *rig){
		"at once": func(r *rig) { r.openIndex() },
		"when others have appended as much": func(r *rig) {
			r.others(numbered("o", 60)...)
			r.openIndex()
		},
	} {
		t.Run(what, func(t *testing.T) {
			kept := numbered("k", 30)
			r := cutPower(t, func(r *rig) { r.receive(kept...) }, func(r *rig) {
				r.index.saveOrWarn()
				r.receive(numbered("l", 20)...)
				r.index.saveOrWarn()
				r.receive(numbered("m", 20)...)
			})
			reopen(r)
			r.wantNew(append(numbered("l", 20), numbered("m", 20)...)...)
			r.wantKnown(kept...)
			again := append(numbered("m", 20), numbered("l", 20)...) // in another order, so at other sequences
			if copies := r.receive(again...); len(copies) > 0 {
				t.Errorf("lost for good, as copies of what the log has lost: %v", copies)
			}
			r.restart()
			r.wantKnown(append(kept, again...)...)
		})
	}
}

func TestWhatSpeaksOfSequencesBehindTheEndOfTheLogLeavesTheDisk(t *testing.T) {
	r := cutPower(t, func(r *rig) { r.receive("a", "b") }, func(r *rig) { r.receive("c", "d") })
	r.openIndex()
	for _, id := range []string{"c", "d"} {
		if got := r.index.find(r.index.mark(id)); len(got) > 0 {
			t.Errorf("%s lies at %v", id, got)
		}
	}
	r.others("x", "y") // at the sequences of c and d
	r.openIndex()
	for _, id := range []string{"c", "d"} {
		if got := r.index.find(r.index.mark(id)); len(got) > 0 {
			t.Errorf("%s lies at %v again", id, got)
		}
	}
	r.wantKnown("a", "b", "x", "y")
}

// A shared log may lose its end while this relay runs.
func TestALogThatLosesItsEndMeanwhileIsFollowedFromThere(t *testing.T) {
	r := cutPower(t, func(r *rig) { r.receive("a", "b") }, func(*rig) {})
	r.openIndex()
	shrunk := r.log
	r.openLog("log")
	r.index.log = r.log
	r.receive("c", "d")
	r.index.log = shrunk
	if err := r.index.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.log.Close()
	r.log = shrunk
	r.wantNew("c", "d")
	r.receive("d", "e")
	r.wantKnown("a", "b", "d", "e")
}

func TestALogThatWasReplacedHasNoneOfTheOldIDs(t *testing.T) {
	r, ids := saved(t, eventlog.Options{})
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	r.log.Close()
	r.openLog("another")
	r.openIndex()
	r.wantNew(ids...)
	r.receive(ids...)
	r.restart()
	r.wantKnown(ids...)
}

func TestABlockIsReadAsItWasWritten(t *testing.T) {
	want := block{from: 7, through: 7 + 1<<32 - 1, newest: time.Unix(0, 1763700000000000001), entries: []entry{{1, 7}, {1 << 63, 7 + 1<<32 - 1}, {1, 8}}}
	none := block{from: 1 << 40, through: 1 << 41}
	var got []block
	raw := slices.Concat(header(42), want.encode(), none.encode())
	good, err := readBlocks(bytes.NewReader(raw), 42, func(b block, _ int64) bool { got = append(got, b); return true })
	if err != nil || good != int64(len(raw)) || len(got) != 2 {
		t.Fatalf("%d blocks, %d good bytes of %d, %v", len(got), good, len(raw), err)
	}
	if got[0].from != want.from || got[0].through != want.through || !got[0].newest.Equal(want.newest) || !slices.Equal(got[0].entries, want.entries) {
		t.Errorf("read %+v, want %+v", got[0], want)
	}
	if got[1].from != none.from || got[1].through != none.through || len(got[1].entries) > 0 {
		t.Errorf("read %+v, want %+v", got[1], none)
	}
}

// What is read of any bytes is what writing it makes, so nothing is believed that was not written whole.
func FuzzReadBlocks(f *testing.F) {
	b := block{from: 3, through: 9, newest: time.Unix(1763700000, 0), entries: []entry{{5, 3}, {6, 9}}}
	far := block{from: 10, through: 1 << 50}
	whole := slices.Concat(header(1), b.encode(), far.encode())
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(header(2))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		written := header(1)
		good, err := readBlocks(bytes.NewReader(data), 1, func(b block, end int64) bool {
			for _, e := range b.entries {
				if e.sequence < b.from || e.sequence > b.through {
					t.Fatalf("an entry at %d in a block from %d through %d", e.sequence, b.from, b.through)
				}
			}
			written = append(written, b.encode()...)
			if end != int64(len(written)) {
				t.Fatalf("a block ends at %d, want %d", end, len(written))
			}
			return true
		})
		if good == 0 && err != nil {
			return
		}
		if good > int64(len(data)) || !bytes.Equal(written, data[:good]) {
			t.Fatalf("%d bytes are good, and are not what is written of what was read", good)
		}
		if err == nil && good != int64(len(data)) {
			t.Fatalf("%d of %d bytes are good, and nothing is wrong", good, len(data))
		}
	})
}
