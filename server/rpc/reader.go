package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
	"eventrelay/server/hub"
)

// reader is one stream: a position in the log that moves past every event, wanted or not. It belongs to one goroutine and keeps nothing of what it has sent.
type reader struct {
	service *EventService
	stream  grpc.ServerStream
	filter  *filter.Shared
	view    eventrelayv1.EventView
	// interval is how long the stream is silent at most, end when it ends; zero for never.
	interval            time.Duration
	end                 time.Time
	maxEvents, maxBytes int

	// position is the sequence up to which everything has been served or is in batch.
	position uint64
	// exact is whether the next event must be the next sequence: always, but for the first event of a stream that starts at the earliest one or at a time, which
	// retention may overtake before it is read.
	exact bool
	batch batch
	// sent is when the last response was sent.
	sent  time.Time
	timer *time.Timer
}

// batch is the next response in the making.
type batch struct {
	wire mem.BufferSlice
	// events is how many there are, size their bytes, pinned the bytes of memory that they keep. newest tells the memory that the last one lies in.
	events, size, pinned int
	newest               *hub.Notes
}

// run serves the stream until the client goes, the server goes down, the stream's time is over, or retention overtakes the reader.
func (r *reader) run(ctx context.Context) error {
	defer func() {
		if r.timer != nil {
			r.timer.Stop()
		}
	}()
	if err := r.send(); err != nil {
		return err
	}
	// What waits, and most streams do, waits here: with little on its stack, which is what an idle stream costs.
	for {
		more, err := r.step(ctx)
		if err == nil && !more {
			err = r.wait(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// step takes what comes next, and reports whether there was anything. There is not once the hub is closed: what is left then is for the next connection.
func (r *reader) step(ctx context.Context) (bool, error) {
	run, visible := r.service.hub.Recent(r.position)
	switch {
	case r.position >= visible || r.service.hub.Closed():
		return false, nil
	case run.Len() > 0:
		r.exact = true
		return true, r.take(run, true)
	default:
		return true, r.catchUp(ctx, visible)
	}
}

// catchUp reads the log until what comes next is in memory.
func (r *reader) catchUp(ctx context.Context, visible uint64) error {
	for run, err := range r.service.hub.ReadRuns(ctx, r.position) {
		if err != nil {
			return fmt.Errorf("read the log behind %d: %w", r.position, err)
		}
		if run.First() != r.position+1 && r.exact {
			if err := r.checkKept(ctx); err != nil {
				return err
			}
		}
		r.exact = true
		if err := r.take(run, false); err != nil {
			return err
		}
		if recent, _ := r.service.hub.Recent(r.position); recent.Len() > 0 || r.service.hub.Closed() {
			return nil
		}
	}
	if r.position < visible { // what was visible could not be read: removed meanwhile
		if err := r.checkKept(ctx); err != nil {
			return err
		}
		return fmt.Errorf("the log ends at %d, but was visible up to %d: %w", r.position, visible, eventlog.ErrUnavailable)
	}
	return nil
}

// take moves past the entries of a run, of which those that are wanted go into the batch. A response is sent before one that would make the batch too large, and whenever it
// is full or the stream has been silent for long enough. Many read a run that is shared, each with the filter of its own.
func (r *reader) take(run hub.Run, shared bool) error {
	fragments := r.service.framer.fragments(run, r.view)
	for i := 0; i < run.Len(); {
		n, wanted, err := r.next(run, i, shared)
		switch {
		case err != nil:
			return err
		case !wanted:
			i += n
			r.position = run.First() + uint64(i) - 1
			continue
		}
		for last := i + n; i < last; {
			if n, err = r.put(fragments, i, last); err != nil {
				return err
			}
			i += n
			r.position = run.First() + uint64(i) - 1
			if r.batch.events >= r.maxEvents {
				if err := r.send(); err != nil {
					return err
				}
			}
		}
	}
	if time.Since(r.sent) >= r.interval {
		return r.send()
	}
	return nil
}

// next returns how many entries from i on are wanted, or how many are not.
func (r *reader) next(run hub.Run, i int, shared bool) (n int, wanted bool, err error) {
	if r.filter.All() {
		return run.Len() - i, true, nil
	}
	for n = 0; i+n < run.Len(); n++ {
		yes, err := r.service.wants(r.filter, run.Entry(i+n), shared)
		if err != nil {
			return 0, false, err
		}
		if n > 0 && yes != wanted {
			break
		}
		wanted = yes
	}
	return n, wanted, nil
}

// put puts fragments from i on, but before last, into the batch, as many as fit and at least one, for which it sends the batch first if it must. It returns how many they are.
func (r *reader) put(fragments fragments, i, last int) (n int, err error) {
	if fragments.size(i, i+1) == 0 {
		return 0, fmt.Errorf("event %d of the log cannot be read", fragments.run.First()+uint64(i))
	}
	pinned := 0
	if r.batch.newest != fragments.run.Notes() {
		pinned = fragments.run.Pinned()
	}
	room := r.maxBytes - tailBytes - r.batch.size
	if r.batch.events > 0 && (fragments.size(i, i+1) > room || r.batch.pinned+pinned > max(maxPinned, r.maxBytes)) {
		if err := r.send(); err != nil {
			return 0, err
		}
		room, pinned = r.maxBytes-tailBytes, fragments.run.Pinned()
	}
	n = min(max(fragments.fit(i, room), 1), last-i, r.maxEvents-r.batch.events)
	for j := i + 1; j < i+n; j++ {
		if fragments.size(j, j+1) == 0 {
			n = j - i // what cannot be read is told when it is its turn
		}
	}
	r.batch.wire = fragments.append(r.batch.wire, i, i+n)
	r.batch.events += n
	r.batch.size += fragments.size(i, i+n)
	r.batch.pinned += pinned
	r.batch.newest = fragments.run.Notes()
	return n, nil
}

// send sends the batch, or a checkpoint if it is empty. The stream ends with it if its time is over.
func (r *reader) send() error {
	s := r.service
	tail := make([]byte, 0, tailBytes)
	tail = protowire.AppendVarint(append(tail, respCursorTag...), tokenText)
	tail = s.framer.cursors.append(tail, r.position)
	if last := s.hub.Last(); last > r.position {
		tail = protowire.AppendVarint(append(tail, backlogTag...), last-r.position)
	}
	if err := r.stream.SendMsg(&ready{append(r.batch.wire, mem.SliceBuffer(tail))}); err != nil {
		return err
	}
	s.meters.delivered.Add(float64(r.batch.events))
	r.batch, r.sent = batch{}, time.Now()
	if !r.end.IsZero() && r.sent.After(r.end) {
		return errStreamAge
	}
	return nil
}

// wait sends what there is and returns when there is something behind the position. It sends checkpoints until then.
func (r *reader) wait(ctx context.Context) error {
	for {
		bell, err := r.service.hub.Bell(r.position)
		switch {
		case errors.Is(err, hub.ErrClosed):
			// The last word is where to go on from.
			if sendErr := r.send(); sendErr != nil {
				return sendErr
			}
			return err
		case r.batch.events > 0:
			if err := r.send(); err != nil {
				return err
			}
			continue
		case bell == nil:
			return nil
		}
		r.wind()
		select {
		case <-bell:
			// On a busy machine others go first, the tail of the log among them: what they bring goes along in the same response.
			runtime.Gosched()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-r.timer.C:
			if err := r.send(); err != nil {
				return err
			}
		}
	}
}

// wind sets the timer to when the stream must be heard of again.
func (r *reader) wind() {
	until := r.sent.Add(r.interval)
	if !r.end.IsZero() && r.end.Before(until) {
		until = r.end
	}
	if r.timer == nil {
		r.timer = time.NewTimer(time.Until(until))
	} else {
		r.timer.Reset(time.Until(until))
	}
}

// checkKept returns an error if events behind the position have been removed.
func (r *reader) checkKept(ctx context.Context) error {
	state, err := r.service.log.State(ctx)
	if err != nil {
		return fmt.Errorf("read state of the log: %w", err)
	}
	if state.First > r.position+1 {
		return r.service.expired(state)
	}
	return nil
}

// wants reports whether a filter wants the event of an entry. Where entries are read by many the verdict is shared, and so is the decoding by all filters; a reader further
// back decides for itself, and takes nothing from those in front.
func (s *EventService) wants(f *filter.Shared, entry hub.Entry, shared bool) (wanted bool, err error) {
	if !shared {
		event, err := s.decode(entry.Sequence, entry.Data, eventrelayv1.EventView_EVENT_VIEW_FULL)
		if err != nil {
			return false, err
		}
		return s.matches(f.Filter, event), nil
	}
	if wanted, known := f.Verdict(entry.Sequence); known {
		return wanted, nil
	}
	wanted, failed := f.MatchAt(entry.Sequence, func() (event *eventrelayv1.Event) {
		event, err = s.decoded.event(entry, func(entry hub.Entry) (*eventrelayv1.Event, error) {
			return s.decode(entry.Sequence, entry.Data, eventrelayv1.EventView_EVENT_VIEW_FULL)
		})
		return event
	})
	if failed != nil {
		s.meters.filterErrors.Inc()
	}
	return wanted, err
}
