package filter

import (
	"errors"
	"sync"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func acquire(t *testing.T, set *Set, expression string) *Shared {
	t.Helper()
	f, err := set.Acquire(expression)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUsersOfOneExpressionShareOneFilterAsLongAsThereIsOne(t *testing.T) {
	var set Set
	a, b := acquire(t, &set, "event.sequence > 1"), acquire(t, &set, " event.sequence > 1\n")
	if a != b {
		t.Error("two users of one expression have a filter each")
	}
	if c := acquire(t, &set, "event.sequence > 2"); c == a {
		t.Error("two expressions share a filter")
	}
	set.Release(a)
	if acquire(t, &set, "event.sequence > 1") != b {
		t.Error("the filter was forgotten while it had a user")
	}
	set.Release(b)
	set.Release(b)
	if acquire(t, &set, "event.sequence > 1") == b {
		t.Error("the filter outlives its last user")
	}
}

func TestAnExpressionThatDoesNotCompileIsNotKept(t *testing.T) {
	var set Set
	for range 3 {
		_, err := set.Acquire("event.typ")
		if _, invalid := errors.AsType[*InvalidError](err); !invalid {
			t.Fatalf("error %v", err)
		}
	}
	if len(set.use) != 0 {
		t.Errorf("%d expressions are kept", len(set.use))
	}
}

func TestWhoeverAsksAtOnceADecisionIsMadeOnce(t *testing.T) {
	var set Set
	f := acquire(t, &set, "event.sequence % 3u == 0u")
	var mu sync.Mutex
	decoded := map[uint64]int{}
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for sequence := uint64(1); sequence <= remembered; sequence++ {
				wanted, err := f.MatchAt(sequence, func() *eventrelayv1.Event {
					mu.Lock()
					defer mu.Unlock()
					decoded[sequence]++
					return &eventrelayv1.Event{Sequence: sequence}
				})
				if err != nil || wanted != (sequence%3 == 0) {
					t.Errorf("%d is wanted: %v, %v", sequence, wanted, err)
				}
			}
		})
	}
	users.Wait()
	for sequence, n := range decoded {
		if n != 1 {
			t.Fatalf("event %d was decoded %d times", sequence, n)
		}
	}
}

// A verdict makes room for that on a newer event. It must never be taken for it.
func TestAVerdictThatMadeRoomIsMadeAnew(t *testing.T) {
	var set Set
	f := acquire(t, &set, "event.sequence % 2u == 0u && event.sequence > 7000u")
	ask := func(sequence uint64) {
		t.Helper()
		wanted, err := f.MatchAt(sequence, func() *eventrelayv1.Event { return &eventrelayv1.Event{Sequence: sequence} })
		if want := sequence%2 == 0 && sequence > 7000; err != nil || wanted != want {
			t.Errorf("%d is wanted: %v, %v; want %v", sequence, wanted, err, want)
		}
	}
	for sequence := uint64(1); sequence <= 3*remembered; sequence++ {
		ask(sequence)
		ask((sequence*7919)%(3*remembered) + 1) // a reader further back or further on
	}
}

func TestAFailedEvaluationIsToldOnceAndAnEventThatCannotBeReadIsAskedForAgain(t *testing.T) {
	var set Set
	f := acquire(t, &set, "1 / int(event.sequence - event.sequence) == 0")
	event := func() *eventrelayv1.Event { return &eventrelayv1.Event{Sequence: 5} }
	for _, told := range []bool{true, false} {
		if wanted, err := f.MatchAt(5, event); wanted || (err != nil) != told {
			t.Errorf("wanted %v, %v; want an error: %v", wanted, err, told)
		}
	}
	calls := 0
	for range 2 {
		if wanted, err := f.MatchAt(6, func() *eventrelayv1.Event { calls++; return nil }); wanted || err != nil {
			t.Errorf("wanted %v, %v", wanted, err)
		}
	}
	if calls != 2 {
		t.Errorf("asked %d times", calls)
	}
}
