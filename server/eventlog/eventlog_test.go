package eventlog

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestEventsComeBackInTheOrderOfAppend(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		all := records(1, 3000)
		at := 0
		for _, n := range []int{1, 3, 9, 10, 11, 200, 1000, 1005, 761} { // singles, batches, and more than one batch
			a := mustAppend(t, l, all[at:at+n])
			at += n
			if want := (Appended{Stored: n, Last: uint64(at)}); !same(a, want) {
				t.Fatalf("append of %d gave %+v, want %+v", n, a, want)
			}
		}
		wantEntries(t, read(t, l, 0), 1, all)
		wantEntries(t, read(t, l, 2990), 2990, all[2989:])
		if es := read(t, l, 3001); len(es) != 0 {
			t.Fatalf("beyond the end there are %d entries", len(es))
		}
		st := state(t, l)
		if st.First != 1 || st.Last != 3000 || st.Events != 3000 || st.Bytes == 0 {
			t.Fatalf("state is %+v", st)
		}
	})
}

func TestAnEmptyLogIsEmpty(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		if st := state(t, l); st != (State{First: 1}) {
			t.Fatalf("state is %+v", st)
		}
		if es := read(t, l, 0); len(es) != 0 {
			t.Fatalf("there are %d entries", len(es))
		}
		if _, ok, err := l.Position(t.Context(), "journal"); ok || err != nil {
			t.Fatalf("position is %v, %v", ok, err)
		}
		if seq, err := l.SequenceAt(t.Context(), time.Now()); seq != 1 || err != nil {
			t.Fatalf("sequence is %d, %v", seq, err)
		}
		if a, err := l.Append(t.Context(), nil); !same(a, Appended{}) || err != nil {
			t.Fatalf("append of nothing gave %+v, %v", a, err)
		}
	})
}

func TestHeadersComeWithoutData(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		rs := records(1, 300)
		mustAppend(t, l, rs)
		var es []Entry
		for e, err := range l.ReadHeaders(t.Context(), 1) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Data != nil {
				t.Fatalf("entry %d has data", e.Sequence)
			}
			es = append(es, e)
		}
		for i := range rs {
			rs[i].Data = nil
		}
		wantEntries(t, es, 1, rs)
	})
}

func TestADuplicateIsStoredOnceAndCostsNoOther(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		mustAppend(t, l, records(1, 3)) // 1 2 3

		// Across steps, one by one.
		if a := mustAppend(t, l, records(2, 4)); !same(a, Appended{Stored: 2, Duplicates: 2, Last: 5}) { // 2 3 | 4 5
			t.Fatalf("singles gave %+v", a)
		}
		// In one step, twice, in a batch.
		step := append(records(6, 20), records(6, 5)...) // 6 to 25, and 6 to 10 again
		if a := mustAppend(t, l, step); !same(a, Appended{Stored: 20, Duplicates: 5, Last: 25}) {
			t.Fatalf("a step with repetitions gave %+v", a)
		}
		// A batch that holds what the log has: the others are all stored, in order.
		step = slices.Concat(records(26, 10), records(1, 1), records(36, 10))
		if a := mustAppend(t, l, step); !same(a, Appended{Stored: 20, Duplicates: 1, Last: 45}) {
			t.Fatalf("a batch with a duplicate gave %+v", a)
		}
		// The same where it is the first, or the last.
		for _, step := range [][]Record{slices.Concat(records(2, 1), records(46, 15)), slices.Concat(records(61, 15), records(3, 1))} {
			first := int(state(t, l).Last)
			if a := mustAppend(t, l, step); !same(a, Appended{Stored: 15, Duplicates: 1, Last: uint64(first + 15)}) {
				t.Fatalf("a batch with a duplicate at one end gave %+v", a)
			}
		}
		// Nothing but duplicates.
		if a := mustAppend(t, l, records(1, 75)); !same(a, Appended{Duplicates: 75, Last: 75}) {
			t.Fatalf("a repeated step gave %+v", a)
		}
		wantEntries(t, read(t, l, 1), 1, records(1, 75))
	})
}

func TestALargeRecordIsStoredAmongSmallOnes(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		rs := records(1, 60)
		for _, i := range []int{30, 31, 45} {
			rs[i].Data = make([]byte, 12<<20)
			rs[i].Data[7] = byte(i)
		}
		for i := 5; i < 25; i++ {
			rs[i].Data = make([]byte, 900<<10) // more than one batch may hold together
		}
		if a := mustAppend(t, l, rs); !same(a, Appended{Stored: 60, Last: 60}) {
			t.Fatalf("append gave %+v", a)
		}
		wantEntries(t, read(t, l, 1), 1, rs)
		e, err := l.Get(t.Context(), 31)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries(t, []Entry{e}, 31, rs[30:31])
	})
}

func TestARecordThatDoesNotFitIsRefusedBeforeAnythingIsStored(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		rs := records(1, 3)
		rs[2].Data = make([]byte, 33<<20)
		if _, err := l.Append(t.Context(), rs); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("error is %v", err)
		}
		if st := state(t, l); st.Events != 0 {
			t.Fatalf("%d were stored", st.Events)
		}
		l.mu.Lock()
		most := l.cur.maxRecord
		l.mu.Unlock()
		rs[2].Data = make([]byte, most-len(rs[2].ID)-len(rs[2].Origin.Journal)) // to the byte
		mustAppend(t, l, rs)
		wantEntries(t, read(t, l, 1), 1, rs)
	})
}

func TestGetFindsOneEntryOrSaysSo(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		rs := records(1, 3)
		mustAppend(t, l, rs)
		e, err := l.Get(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries(t, []Entry{e}, 2, rs[1:2])
		for _, seq := range []uint64{0, 4, 1 << 63, 1<<64 - 1} {
			if _, err := l.Get(t.Context(), seq); !errors.Is(err, ErrNotFound) {
				t.Fatalf("get %d gave %v", seq, err)
			}
		}
	})
}

func TestPositionIsWhereTheJournalStands(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		want := func(journal string, record int) {
			t.Helper()
			got, ok, err := l.Position(t.Context(), journal)
			if err != nil {
				t.Fatal(err)
			}
			if w := recordsOf(journal, record, 1)[0].Origin; !ok || got != w {
				t.Fatalf("position of %s is %+v (%v), want %+v", journal, got, ok, w)
			}
		}
		mustAppend(t, l, recordsOf("a", 1, 5))
		want("a", 5)
		mustAppend(t, l, recordsOf("b", 1, 30))
		want("b", 30)
		want("a", 5) // within the first look back
		mustAppend(t, l, recordsOf("b", 31, 1000))
		want("a", 5) // several looks further back
		want("b", 1030)
		if _, ok, err := l.Position(t.Context(), "c"); ok || err != nil {
			t.Fatalf("position of a journal that never wrote is %v, %v", ok, err)
		}
	})
}

func TestPositionTellsHowFarABrokenStepGot(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		stored := make(chan struct{})
		go func() {
			defer close(stored)
			for e, err := range l.Tail(t.Context(), 0) {
				if err != nil || e.Sequence >= 1000 {
					cancel()
					return
				}
			}
		}()
		var (
			all []Record
			err error
		)
		for err == nil { // the tail may be several steps behind
			step := records(len(all)+1, 5000)
			all = append(all, step...)
			_, err = l.Append(ctx, step)
		}
		<-stored
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("append gave %v", err)
		}
		o2, ok, err := l.Position(t.Context(), "journal")
		if err != nil || !ok || o2.Record < 1000 || o2.Record >= uint64(len(all)) {
			t.Fatalf("position is %+v, %v, %v", o2, ok, err)
		}
		mustAppend(t, l, all[o2.Record:])
		wantEntries(t, read(t, l, 1), 1, all)
	})
}

func TestSequenceAtFindsTheFirstNotBefore(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		base := time.Now().Add(-time.Hour).UTC()
		rs := records(1, 40)
		for i := range rs {
			rs[i].Time = base.Add(time.Duration(i/10) * time.Second) // ten at a time
		}
		rs[25].Time = base // received early, stored late
		mustAppend(t, l, rs)
		deleteEntry(t, l, 11) // a hole where the second ten begin
		for _, c := range []struct {
			at   time.Duration
			want uint64
		}{
			{-time.Hour, 1}, {0, 1}, {1, 12}, {time.Second, 12}, {time.Second + 1, 21}, {2 * time.Second, 21}, {3 * time.Second, 31}, {3*time.Second + 1, 41}, {3 * time.Hour, 41},
		} {
			if got, err := l.SequenceAt(t.Context(), base.Add(c.at)); got != c.want || err != nil {
				t.Errorf("at %v: %d, %v; want %d", c.at, got, err, c.want)
			}
		}
		deleteEntry(t, l, 40) // a hole at the very end
		if got, err := l.SequenceAt(t.Context(), base.Add(4*time.Second)); got != 41 || err != nil {
			t.Errorf("beyond a hole: %d, %v", got, err)
		}
		if es := read(t, l, 38); len(es) != 2 || es[1].Sequence != 39 {
			t.Errorf("a read to a hole at the end gave %d entries", len(es))
		}
		if es := read(t, l, 10); es[0].Sequence != 10 || es[1].Sequence != 12 {
			t.Errorf("a read across a hole went %d, %d", es[0].Sequence, es[1].Sequence)
		}
	})
}

func TestRetentionTakesTheOldestFirst(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxEvents = 100
		l := open(t, o)
		rs := records(1, 250)
		mustAppend(t, l, rs)
		if st := state(t, l); st.First != 151 || st.Last != 250 || st.Events != 100 {
			t.Fatalf("state is %+v", st)
		}
		wantEntries(t, read(t, l, 1), 151, rs[150:])
		mustClose(t, l)

		o.MaxEvents = 10 // a tighter limit holds from the next start on
		l = open(t, o)
		if st := state(t, l); st.First != 241 || st.Last != 250 {
			t.Fatalf("state is %+v", st)
		}
		mustClose(t, l)

		o.MaxEvents, o.MaxAge = 0, 100*time.Millisecond
		l = open(t, o)
		waitFor(t, "everything to be too old", func() bool { return state(t, l) == State{First: 251, Last: 250} })
		if es := read(t, l, 1); len(es) != 0 {
			t.Fatalf("there are %d entries", len(es))
		}
		if a := mustAppend(t, l, records(251, 1)); a.Last != 251 {
			t.Fatalf("append gave %+v", a)
		}
	})
}

func TestALogKeepsItsIdentityAndItsEventsAcrossAnOrderlyStop(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		id := l.ID()
		if len(id) < 16 {
			t.Fatalf("identity is %q", id)
		}
		mustAppend(t, l, records(1, 50))
		mustClose(t, l)
		l = open(t, o)
		if l.ID() != id {
			t.Fatalf("identity changed from %s to %s", id, l.ID())
		}
		if a := mustAppend(t, l, records(50, 2)); !same(a, Appended{Stored: 1, Duplicates: 1, Last: 51}) {
			t.Fatalf("append gave %+v", a)
		}
		wantEntries(t, read(t, l, 1), 1, records(1, 51))
	})
}

func TestAfterCloseEverythingSaysSo(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		mustAppend(t, l, records(1, 1))
		tail := make(chan error, 1)
		tailing := make(chan struct{})
		go func() {
			for _, err := range l.Tail(t.Context(), 0) {
				if err != nil {
					tail <- err
					return
				}
				close(tailing)
			}
			tail <- nil
		}()
		<-tailing
		mustClose(t, l)
		mustClose(t, l)
		if err := <-tail; !errors.Is(err, ErrClosed) {
			t.Errorf("tail ended with %v", err)
		}
		_, err := l.Append(t.Context(), records(1, 1))
		_, err2 := l.State(t.Context())
		_, _, err3 := l.Position(t.Context(), "journal")
		_, err4 := l.SequenceAt(t.Context(), time.Now())
		_, err5 := l.Get(t.Context(), 1)
		errs := []error{err, err2, err3, err4, err5}
		for _, err := range l.Read(t.Context(), 1) {
			errs = append(errs, err)
		}
		if len(errs) != 6 {
			t.Errorf("read after close gave %d results", len(errs)-5)
		}
		for i, err := range errs {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("call %d gave %v", i, err)
			}
		}
	})
}
