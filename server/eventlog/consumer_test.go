package eventlog

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"eventrelay/server/eventlog/natstest"
)

func mustEnsure(t testing.TB, c *Consumer, o ConsumerOptions) {
	t.Helper()
	if o.Deadline == 0 {
		o.Deadline = time.Minute
	}
	if o.MaxOutstanding == 0 {
		o.MaxOutstanding = 1000
	}
	if err := c.Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func mustFetch(t testing.TB, l *Log, demands ...Demand) Fetched {
	t.Helper()
	got, err := l.Fetch(t.Context(), demands)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustSettle(t testing.TB, l *Log, s ...Settlement) []bool {
	t.Helper()
	gone, err := l.Settle(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return gone
}

func sequences(deliveries []Delivery) (list []uint64) {
	for _, d := range deliveries {
		list = append(list, d.Sequence)
	}
	return list
}

func TestWhatIsGivenComesAgainUntilItIsSettled(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		mustAppend(t, l, records(1, 5))
		c := l.Consumer("reader")
		if _, err := c.State(t.Context()); !errors.Is(err, ErrNoConsumer) {
			t.Fatalf("State of a consumer that never was: %v", err)
		}
		if got := mustFetch(t, l, Demand{Consumer: c, Max: 1}); !slices.Equal(got.Gone, []int{0}) {
			t.Fatalf("Fetch from a consumer that never was: %+v", got)
		}
		mustEnsure(t, c, ConsumerOptions{From: 2})
		mustEnsure(t, c, ConsumerOptions{From: 2}) // again
		got := mustFetch(t, l, Demand{Consumer: c, Max: 3}).Deliveries
		if !slices.Equal(sequences(got), []uint64{2, 3, 4}) || got[0].Attempt != 1 {
			t.Fatalf("given %+v", got)
		}
		gone := mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done}, Settlement{Receipt: got[1].Receipt, Verdict: Back}, Settlement{Receipt: got[2].Receipt, Verdict: More})
		if slices.Contains(gone, true) {
			t.Fatalf("gone: %v", gone)
		}
		again := mustFetch(t, l, Demand{Consumer: c, Max: 1, Wait: 5 * time.Second}).Deliveries
		if !slices.Equal(sequences(again), []uint64{3}) || again[0].Attempt != 2 {
			t.Fatalf("given back, there came %+v", again)
		}
		if st, err := c.State(t.Context()); err != nil || st.Settled != 2 || st.Given != 4 || st.Waiting != 1 || st.Outstanding != 2 {
			t.Fatalf("State = %+v, %v", st, err)
		}
		mustEnsure(t, c, ConsumerOptions{From: 1, Deadline: time.Hour}) // a change leaves it where it is
		if st, err := c.State(t.Context()); err != nil || st.Given != 4 || st.Outstanding != 2 {
			t.Fatalf("State after a change = %+v, %v", st, err)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Fatalf("Remove of what is not there: %v", err)
		}
		if gone := mustSettle(t, l, Settlement{Receipt: again[0].Receipt, Verdict: Done}); !gone[0] {
			t.Error("a receipt of a consumer that was removed counts as settled")
		}
	})
}

func TestAConsumerSurvivesARestartWithWhatIsOutstanding(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	l := open(t, o)
	mustAppend(t, l, records(1, 3))
	c := l.Consumer("reader")
	mustEnsure(t, c, ConsumerOptions{})
	got := mustFetch(t, l, Demand{Consumer: c, Max: 3}).Deliveries
	mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done})
	mustClose(t, l)
	l = open(t, o)
	c = l.Consumer("reader")
	if st, err := c.State(t.Context()); err != nil || st.Settled != 1 || st.Outstanding != 2 {
		t.Fatalf("State after a restart = %+v, %v", st, err)
	}
	mustSettle(t, l, Settlement{Receipt: got[1].Receipt, Verdict: Done}, Settlement{Receipt: got[2].Receipt, Verdict: Back})
	again := mustFetch(t, l, Demand{Consumer: c, Max: 3, Wait: 5 * time.Second}).Deliveries
	if !slices.Equal(sequences(again), []uint64{3}) || again[0].Attempt != 2 {
		t.Fatalf("after a restart there came %+v", again)
	}
}

func TestAFetchThatIsGivenUpLeavesNothingGivenToNobody(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	c := l.Consumer("reader")
	mustEnsure(t, c, ConsumerOptions{})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			got Fetched
			err error
		}
		results := make(chan result)
		go func() {
			got, err := l.Fetch(ctx, []Demand{{Consumer: c, Max: 1, Wait: time.Minute}})
			results <- result{got, err}
		}()
		before := state(t, l).Last
		mustAppend(t, l, records(int(before)+1, 1))
		cancel() // while it is on its way
		r := <-results
		for _, d := range r.got.Deliveries {
			mustSettle(t, l, Settlement{Receipt: d.Receipt, Verdict: Back})
		}
		again := mustFetch(t, l, Demand{Consumer: c, Max: 1, Wait: 5 * time.Second}).Deliveries
		if len(again) != 1 {
			t.Fatalf("the entry %d was given to nobody (%v)", before+1, r.err)
		}
		mustSettle(t, l, Settlement{Receipt: again[0].Receipt, Verdict: Done})
	}
}

func TestOfManyConsumersEachGivesWhatItsPatternsSay(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	var rs []Record
	for n, kind := range []string{"meta.page.feed", "meta.page.messages", "meta.user.email", "meta.page"} {
		r := records(n+1, 1)[0]
		r.Type, r.Source, r.OrderingKey = kind, "shop", "k"
		rs = append(rs, r)
	}
	mustAppend(t, l, rs)
	for _, c := range []struct {
		pattern string
		want    []uint64
	}{
		{Pattern("", -1, ""), []uint64{1, 2, 3, 4}},
		{Pattern("shop", -1, "meta.page."), []uint64{1, 2}},
		{Pattern("shop", partition("k"), "meta.page"), []uint64{4}},
		{Pattern("", partition("k"), "meta."), []uint64{1, 2, 3, 4}},
		{Pattern("", (partition("k")+1)%partitions, ""), nil},
		{Pattern("other", -1, ""), nil},
	} {
		reader := l.Consumer("reader-" + strconv.Itoa(len(c.pattern)) + "-" + strconv.Itoa(len(c.want)))
		mustEnsure(t, reader, ConsumerOptions{Subjects: []string{c.pattern}})
		if got := sequences(mustFetch(t, l, Demand{Consumer: reader, Max: 10, Linger: 500 * time.Millisecond}).Deliveries); !slices.Equal(got, c.want) {
			t.Errorf("%s gives %v, want %v", c.pattern, got, c.want)
		}
	}
}

func TestOneOutstandingBlocksItsConsumerAndNoOther(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	mustAppend(t, l, records(1, 2))
	narrow, wide := l.Consumer("narrow"), l.Consumer("wide")
	mustEnsure(t, narrow, ConsumerOptions{MaxOutstanding: 1})
	mustEnsure(t, wide, ConsumerOptions{})
	both := []Demand{{Consumer: narrow, Max: 1, Linger: 5 * time.Millisecond}, {Consumer: wide, Max: 1}}
	first := mustFetch(t, l, both...).Deliveries
	if len(first) != 2 {
		t.Fatalf("first %+v", first)
	}
	second := mustFetch(t, l, both...).Deliveries
	if len(second) != 1 || second[0].Consumer != 1 || second[0].Sequence != 2 {
		t.Fatalf("with one outstanding there came %+v", second)
	}
	for _, d := range first {
		mustSettle(t, l, Settlement{Receipt: d.Receipt, Verdict: Done})
	}
	if next := mustFetch(t, l, both[0]).Deliveries; !slices.Equal(sequences(next), []uint64{2}) {
		t.Fatalf("when it was settled there came %+v", next)
	}
}

func TestWhatRetentionTakesOfOutstandingEntriesIsTold(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), MaxEvents: 3})
	mustAppend(t, l, records(1, 3))
	c := l.Consumer("reader")
	mustEnsure(t, c, ConsumerOptions{})
	got := mustFetch(t, l, Demand{Consumer: c, Max: 2}).Deliveries
	mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done})
	told := make(chan uint64, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Losses(ctx, func(_ string, seq uint64) { told <- seq }) }()
	next := 4
	var lost uint64
	waitFor(t, "the loss is told", func() bool {
		mustAppend(t, l, records(next, 1))
		next++
		select {
		case lost = <-told:
			return true
		default:
			return next > 20
		}
	})
	cancel()
	if err := <-ended; err != nil || lost != 0 && lost != 2 {
		t.Errorf("told of %d, ended with %v", lost, err)
	}
}

func TestConsumersAndShelvesSayThatTheServerIsAway(t *testing.T) {
	server := natstest.NewServer(t)
	server.Start()
	l := open(t, Options{URL: server.URL()})
	mustAppend(t, l, records(1, 1))
	c, shelf := l.Consumer("reader"), l.Shelf("LETTERS", 0)
	mustEnsure(t, c, ConsumerOptions{})
	got := mustFetch(t, l, Demand{Consumer: c, Max: 1}).Deliveries
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for what, err := range map[string]error{
		"Ensure": c.Ensure(ctx, ConsumerOptions{Deadline: time.Minute, MaxOutstanding: 1}), "Put": shelf.Put(ctx, "a", nil),
		"Fetch": second(l.Fetch(ctx, []Demand{{Consumer: c, Max: 1}})), "Settle": second(l.Settle(ctx, []Settlement{{Receipt: got[0].Receipt, Verdict: Done}})),
		"State": second(c.State(ctx)), "Next": second(shelf.Next(ctx, "a", 0)),
	} {
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s while the server is away: %v", what, err)
		}
	}
	server.Start()
	ready(t, l)
	mustSettle(t, l, Settlement{Receipt: got[0].Receipt, Verdict: Done})
	if st, err := c.State(t.Context()); err != nil || st.Settled != 1 {
		t.Errorf("State = %+v, %v", st, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAShelfHasOneMessageASubject(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := open(t, o)
		ctx, s := t.Context(), l.Shelf("LETTERS", time.Hour)
		for _, m := range [][2]string{{"dead.a.1", "one"}, {"dead.a.2", "two"}, {"dead.b.1", "other"}, {"dead.a.1", "again"}} {
			if err := s.Put(ctx, m[0], []byte(m[1])); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		var last Kept
		for after := uint64(0); ; after = last.Sequence {
			kept, err := s.Next(ctx, "dead.a.*", after)
			if errors.Is(err, ErrNotFound) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			last = kept
			got = append(got, kept.Subject+"="+string(kept.Data))
		}
		if !slices.Equal(got, []string{"dead.a.2=two", "dead.a.1=again"}) {
			t.Fatalf("kept %v", got)
		}
		if n, err := s.Count(ctx, "dead.a.*"); err != nil || n != 2 {
			t.Errorf("Count = %d, %v", n, err)
		}
		if err := s.Remove(ctx, last.Sequence); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(ctx, last.Sequence); !errors.Is(err, ErrNotFound) {
			t.Errorf("Remove of what is gone: %v", err)
		}
		if err := s.Clear(ctx, "dead.a.*"); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Count(ctx, "dead.>"); err != nil || n != 1 {
			t.Errorf("Count = %d, %v", n, err)
		}
	})
}
