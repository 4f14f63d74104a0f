package filter

import (
	"strings"
	"sync"
	"sync/atomic"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// remembered is how many verdicts a shared filter remembers: those on some seconds of a busy log, in 32 KiB.
const remembered = 4096

// Set compiles each expression once for all who use it at the same time. Any goroutine may call its methods. The zero value is empty.
type Set struct {
	mu  sync.Mutex // guards use
	use map[string]*Shared
}

// Shared is a filter that several readers of one log use. Any goroutine may call its methods.
type Shared struct {
	*Filter

	expression string
	users      int          // guarded by the set's mutex
	compile    func() error // once, sets Filter

	mu sync.Mutex // held while a verdict is made, so that each is made once
	// verdicts holds the sequence of an event, shifted left by one, and whether it is wanted; 0 for none. A newer event takes the place of an older one.
	verdicts atomic.Pointer[[remembered]atomic.Uint64]
}

// Acquire returns the filter of an expression. The error is that of Compile, else Release must be called when the filter is no longer used.
func (s *Set) Acquire(expression string) (*Shared, error) {
	expression = strings.TrimSpace(expression)
	s.mu.Lock()
	f := s.use[expression]
	if f == nil {
		f = &Shared{expression: expression}
		f.compile = sync.OnceValue(func() (err error) {
			f.Filter, err = Compile(expression)
			return err
		})
		if s.use == nil {
			s.use = map[string]*Shared{}
		}
		s.use[expression] = f
	}
	f.users++
	s.mu.Unlock()
	if err := f.compile(); err != nil { // outside of the lock: others need not wait for it
		s.Release(f)
		return nil, err
	}
	return f, nil
}

// Release forgets a filter when its last user releases it, what it remembers included.
func (s *Set) Release(f *Shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users--; f.users == 0 {
		delete(s.use, f.expression)
	}
}

// All reports whether the filter wants every event, so that none need be asked about.
func (f *Shared) All() bool { return f.program == nil }

// MatchAt is Match for the event at a sequence of the log, above 0. Users that ask about the same event at about the same time share one verdict: decode is called, and the
// error of an evaluation returned, for the one of them that makes it; for the others such an event is just not wanted. A verdict is not remembered if decode returns nil;
// then, too, the event is not wanted.
func (f *Shared) MatchAt(sequence uint64, decode func() *eventrelayv1.Event) (bool, error) {
	if wanted, known := f.Verdict(sequence); known {
		return wanted, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if wanted, known := f.Verdict(sequence); known { // made meanwhile
		return wanted, nil
	}
	event := decode()
	if event == nil {
		return false, nil
	}
	wanted, err := f.Match(event)
	slot := sequence << 1
	if wanted {
		slot |= 1
	}
	verdicts := f.verdicts.Load()
	if verdicts == nil {
		verdicts = &[remembered]atomic.Uint64{}
		f.verdicts.Store(verdicts)
	}
	verdicts[sequence%remembered].Store(slot)
	return wanted, err
}

// Verdict returns whether the event at a sequence is wanted, if that is remembered.
func (f *Shared) Verdict(sequence uint64) (wanted, known bool) {
	verdicts := f.verdicts.Load()
	if verdicts == nil {
		return false, false
	}
	slot := verdicts[sequence%remembered].Load()
	return slot&1 == 1, slot>>1 == sequence
}
