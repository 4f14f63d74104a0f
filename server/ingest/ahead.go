package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"eventrelay/server/journal"
	"eventrelay/server/translate"
)

// maxAheadBytes bounds what is translated and not in the log yet, the step under way included: the next step is ready when that one is durable. A single record may exceed it.
const maxAheadBytes = 2 * maxStepBytes

// recordOverhead is what a record takes beside the events, in bytes, so that those without any are bounded as well.
const recordOverhead = 512

// translated is a record of the journal and what was made of it.
type translated struct {
	journal.Record                   // without its body, which the events hold as far as it is needed
	events         []translate.Event // none if the record is damaged
	damage         error
	bytes          int
}

// ahead is what one goroutine has translated in front of the steps, in the order of the journal. It is dropped with the first failure, and what was in it is read again.
type ahead struct {
	mu      sync.Mutex // guards what follows
	ready   []translated
	events  int    // of ready
	bytes   int    // of ready
	held    int    // bytes of ready, and of what was taken and not released
	full    bool   // the next record waits for room
	through uint64 // the record that the next step waits for
	err     error  // why nothing follows what is ready

	resting chan struct{} // holds one during a rest, in which nothing is added

	filled chan struct{} // has a token when enough for a step was added
	freed  chan struct{} // has a token when something was released
}

func newAhead() *ahead {
	return &ahead{resting: make(chan struct{}, 1), filled: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
}

func token(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default: // there is one already
	}
}

// rest lets a while pass in which the translation stands still as well, or as much of it as notifications keep coming: last is the latest of them.
func (a *ahead) rest(ctx context.Context, d time.Duration, last func() uint64) {
	a.resting <- struct{}{}
	defer func() { <-a.resting }()
	for end := time.Now().Add(d); ctx.Err() == nil; {
		before, left := last(), time.Until(end)
		if left <= 0 {
			return
		}
		sleep(ctx, min(left, quietAfter))
		if last() == before {
			return
		}
	}
}

// translateAhead follows the journal from a record on, until ctx ends or the journal cannot be read.
func (i *Ingest) translateAhead(ctx context.Context, a *ahead, from uint64) {
	err := i.follow(ctx, from, func(t translated) error { return a.put(ctx, t) })
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	token(a.filled)
}

// follow calls do with each record of the journal, from one on, without a gap. It returns an error only.
func (i *Ingest) follow(ctx context.Context, next uint64, do func(translated) error) error {
	for {
		if err := i.journal.Wait(ctx, next-1); err != nil {
			return err
		}
		for record, err := range i.journal.Read(ctx, next) {
			t := translated{Record: record}
			switch {
			case errors.Is(err, journal.ErrDamaged):
				t.damage = err
			case err != nil:
				return fmt.Errorf("read the journal from record %d: %w", next, err)
			case record.Index != next:
				return fmt.Errorf("read the journal: record %d follows, want %d", record.Index, next)
			default:
				t.events = i.events(record)
			}
			t.bytes = recordOverhead
			for n := range t.events {
				t.bytes += len(t.events[n].Data)
			}
			t.Body = nil
			if err := do(t); err != nil {
				return err
			}
			next = record.Index + 1
		}
	}
}

// put adds a record once there is room for it and no rest.
func (a *ahead) put(ctx context.Context, t translated) error {
	a.resting <- struct{}{} // waits for the end of a rest, nothing more
	<-a.resting
	for {
		a.mu.Lock()
		a.full = a.held > 0 && a.held+t.bytes > maxAheadBytes
		full := a.full
		if !full {
			a.ready = append(a.ready, t)
			a.events += len(t.events)
			a.bytes += t.bytes
			a.held += t.bytes
		}
		enough := a.enough()
		a.mu.Unlock()
		if enough {
			token(a.filled)
		}
		if !full {
			return nil
		}
		select {
		case <-a.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// enough tells whether a step may begin: the record that it waits for is ready, or nothing more fits into it. mu must be held.
func (a *ahead) enough() bool {
	n := len(a.ready)
	return n > 0 && (a.ready[n-1].Index >= a.through || a.full || a.events >= maxStepEvents || a.bytes >= maxStepBytes)
}

// take waits for a record, and until the record through is ready or a step's bounds are reached, and returns those that are ready, in order, up to those bounds. Their bytes are
// held until they are released.
func (a *ahead) take(ctx context.Context, through uint64) ([]translated, error) {
	for {
		a.mu.Lock()
		a.through = through
		var taken []translated
		if a.enough() || a.err != nil {
			taken = a.cut()
		}
		err := a.err
		a.mu.Unlock()
		if len(taken) > 0 {
			return taken, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-a.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// cut takes what fits into a step from what is ready. mu must be held.
func (a *ahead) cut() []translated {
	events, bytes, n := 0, 0, 0
	for n < len(a.ready) && (n == 0 || events < maxStepEvents && bytes < maxStepBytes) {
		events += len(a.ready[n].events)
		bytes += a.ready[n].bytes
		n++
	}
	taken := slices.Clone(a.ready[:n])
	a.ready = slices.Delete(a.ready, 0, n)
	a.events -= events
	a.bytes -= bytes
	return taken
}

// release makes room of what was taken.
func (a *ahead) release(taken []translated) {
	a.mu.Lock()
	for n := range taken {
		a.held -= taken[n].bytes
	}
	a.mu.Unlock()
	token(a.freed)
}
