package client_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// pauses gives the time between one attempt and the next.
func pauses(r *relay) []time.Duration {
	var between []time.Duration
	attempts := r.attempts()
	for i := 1; i < len(attempts); i++ {
		between = append(between, attempts[i].at.Sub(attempts[i-1].at))
	}
	return between
}

// within fails unless a pause is drawn from the upper half below a bound. Half a millisecond is what the attempts themselves may take.
func within(t *testing.T, pause, bound time.Duration) {
	t.Helper()
	if pause < bound/2 || pause > bound+time.Millisecond/2 {
		t.Errorf("pause %v, want between %v and %v", pause, bound/2, bound)
	}
}

func TestPausesGrowToTheirBoundWhileNothingWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(1)
		r.refuse = func(stream int) error {
			if stream <= 8 {
				return status.Error(codes.Unavailable, "not yet")
			}
			return nil
		}
		c := serve(t, r)
		read(t, c, client.FollowOptions{From: earliest, MinBackoff: 10 * time.Millisecond, MaxBackoff: 200 * time.Millisecond}, 1)
		for i, want := range []time.Duration{10, 20, 40, 80, 160, 200, 200, 200} {
			within(t, pauses(r)[i], want*time.Millisecond)
		}
	})
}

func TestPausesStartOverAfterEventsCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(10)
		r.killAfter = func(int) int { return 1 }
		c := serve(t, r)
		read(t, c, client.FollowOptions{From: earliest, MinBackoff: 10 * time.Millisecond}, 10)
		for _, pause := range pauses(r) {
			within(t, pause, 10*time.Millisecond)
		}
	})
}

func TestGreetingAloneDoesNotShortenThePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(1)
		r.afterwards = func(stream int) error {
			if stream <= 5 {
				return status.Error(codes.Internal, "fails on the same event each time")
			}
			return nil
		}
		c := serve(t, r)
		read(t, c, client.FollowOptions{From: earliest, MinBackoff: 10 * time.Millisecond}, 1)
		for i, want := range []time.Duration{10, 20, 40, 80, 160} {
			within(t, pauses(r)[i], want*time.Millisecond)
		}
	})
}

func TestBreakingTheLoopClosesTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(3)
		c := serve(t, r)
		for range c.Follow(t.Context(), client.FollowOptions{From: earliest}) {
			break
		}
		synctest.Wait()
		if open := r.openStreams(); open != 0 {
			t.Errorf("%d streams are still open", open)
		}
	})
}

func TestPanicOfTheLoopClosesTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(3)
		c := serve(t, r)
		func() {
			defer func() { _ = recover() }()
			for range c.Follow(t.Context(), client.FollowOptions{From: earliest}) {
				panic("of the loop")
			}
		}()
		synctest.Wait()
		if open := r.openStreams(); open != 0 {
			t.Errorf("%d streams are still open", open)
		}
	})
}

func TestDoneContextEndsTheSequenceWithoutAnError(t *testing.T) {
	t.Run("while waiting for events", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := serve(t, newRelay(0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for event, err := range c.Follow(ctx, client.FollowOptions{}) {
				t.Errorf("%v, %v", event, err)
			}
		})
	})
	t.Run("between two attempts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(0)
			r.refuse = func(int) error { return status.Error(codes.Unavailable, "never") }
			c := serve(t, r)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for event, err := range c.Follow(ctx, client.FollowOptions{}) {
				t.Errorf("%v, %v", event, err)
			}
		})
	})
	t.Run("in the middle of a response", func(t *testing.T) {
		c := serve(t, newRelay(100))
		ctx, cancel := context.WithCancel(patience(t))
		defer cancel()
		seen := 0
		for _, err := range c.Follow(ctx, client.FollowOptions{From: earliest}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 3 {
				cancel()
			}
		}
		if seen != 3 {
			t.Errorf("%d events, the last %d after the end", seen, seen-3)
		}
	})
}

func TestClosingTheClientEndsEveryFollow(t *testing.T) {
	for name, refuse := range map[string]func(int) error{
		"while waiting for events": nil,
		"between two attempts":     func(int) error { return status.Error(codes.Unavailable, "never") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(0)
				r.refuse = refuse
				c := serve(t, r)
				var (
					followers sync.WaitGroup
					mu        sync.Mutex // guards ends
					ends      []error
					closing   atomic.Bool
				)
				o := client.FollowOptions{MinBackoff: time.Hour, MaxBackoff: time.Hour, OnBreak: func(err error) {
					if closing.Load() {
						t.Errorf("told that another stream will be tried: %v", err)
					}
				}}
				for range 3 {
					followers.Go(func() {
						for _, err := range c.Follow(t.Context(), o) {
							mu.Lock()
							ends = append(ends, err)
							mu.Unlock()
						}
					})
				}
				synctest.Wait()
				closing.Store(true)
				closed := time.Now()
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				followers.Wait()
				if len(ends) != 3 || slices.ContainsFunc(ends, func(err error) bool { return !errors.Is(err, client.ErrClosed) }) {
					t.Errorf("they ended with %v", ends)
				}
				if took := time.Since(closed); took > time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestFollowOnAClosedClientEndsAtOnce(t *testing.T) {
	r := newRelay(1)
	c := serve(t, r)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var got error
	for _, err := range c.Follow(patience(t), client.FollowOptions{From: earliest}) {
		got = err
	}
	if !errors.Is(got, client.ErrClosed) {
		t.Errorf("got %v", got)
	}
}

func TestProgressIsToldOnceItsEventsAreDoneWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(5)
		r.batch = 2
		c := serve(t, r)
		ctx, cancel := context.WithCancel(patience(t))
		defer cancel()
		var story []string
		o := client.FollowOptions{From: earliest, OnProgress: func(p client.Position) {
			story = append(story, "at "+p.Cursor)
			if !p.Time.Equal(time.Now()) {
				t.Errorf("position of %v at %v", p.Time, time.Now())
			}
			if p.Backlog == 0 {
				cancel()
			}
		}}
		for event, err := range c.Follow(ctx, o) {
			if err != nil {
				t.Fatal(err)
			}
			story = append(story, event.GetCursor())
		}
		if want := []string{"at c0", "c1", "c2", "at c2", "c3", "c4", "at c4", "c5", "at c5"}; !slices.Equal(story, want) {
			t.Errorf("got %v, want %v", story, want)
		}
	})
}

func TestEachRangeIsAFollowOfItsOwn(t *testing.T) {
	c := serve(t, newRelay(3))
	events := c.Follow(patience(t), client.FollowOptions{From: earliest})
	for range 2 {
		var seen []uint64
		for event, err := range events {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, event.GetSequence()); len(seen) == 3 {
				break
			}
		}
		inOrder(t, seen, 1, 3)
	}
}

func TestManyMayFollowAtOnce(t *testing.T) {
	r := newRelay(50)
	r.killAfter = func(int) int { return 9 }
	c := serve(t, r)
	var followers sync.WaitGroup
	for range 8 {
		followers.Go(func() {
			next := uint64(1)
			for event, err := range c.Follow(patience(t), client.FollowOptions{From: earliest, MinBackoff: time.Millisecond}) {
				if err != nil || event.GetSequence() != next {
					t.Errorf("event %d, %v, want event %d", event.GetSequence(), err, next)
					return
				}
				if next++; next > 50 {
					return
				}
			}
		})
	}
	followers.Wait()
}

func TestResponsesLargerThanStockClientsTakeArrive(t *testing.T) {
	r := newRelay(1)
	r.events[0].Raw = make([]byte, 6<<20)
	c := serve(t, r)
	var told error
	for event, err := range c.Follow(patience(t), client.FollowOptions{From: earliest, OnBreak: func(err error) { told = err }}) {
		if err != nil || len(event.GetRaw()) != 6<<20 {
			t.Fatalf("%d bytes, %v", len(event.GetRaw()), err)
		}
		return
	}
	t.Fatalf("nothing came: %v", told)
}

func TestRawClientsAreThere(t *testing.T) {
	c := serve(t, newRelay(0))
	for name, call := range map[string]func() error{
		"events": func() error { _, err := c.Events().GetEvent(patience(t), &eventrelayv1.GetEventRequest{}); return err },
		"sources": func() error {
			_, err := c.Sources().ListSources(patience(t), &eventrelayv1.ListSourcesRequest{})
			return err
		},
		"schema": func() error {
			_, err := c.Schema().ListDrift(patience(t), &eventrelayv1.ListDriftRequest{})
			return err
		},
		"meta": func() error {
			_, err := c.MetaSubscriptions().ListAppSubscriptions(patience(t), &eventrelayv1.ListAppSubscriptionsRequest{})
			return err
		},
		"dialog360": func() error {
			_, err := c.Dialog360().GetPartnerWebhook(patience(t), &eventrelayv1.GetPartnerWebhookRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// line is a connection that can die without a word: what is sent gets lost, and nothing comes.
type line struct {
	net.Conn
	dead, closed chan struct{}
	close        func()
}

func newLine(conn net.Conn) *line {
	l := &line{Conn: conn, dead: make(chan struct{}), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	select {
	case <-l.dead:
		<-l.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (l *line) Write(p []byte) (int, error) {
	select {
	case <-l.dead:
		return len(p), nil
	default:
		return l.Conn.Write(p)
	}
}

func (l *line) Close() error {
	l.close()
	return l.Conn.Close()
}

func TestConnectionThatDiesWithoutAWordIsReplacedAfterThreeCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(2)
		var lines []*line
		r.wire = func(conn net.Conn) net.Conn {
			lines = append(lines, newLine(conn))
			return lines[len(lines)-1]
		}
		c := serve(t, r)
		var seen []uint64
		var died time.Time
		for event, err := range c.Follow(patience(t), client.FollowOptions{From: earliest}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, event.GetSequence()); event.GetSequence() == 3 {
				break
			}
			if event.GetSequence() == 2 {
				died = time.Now()
				close(lines[0].dead)
				r.grow(1) // which the dead connection swallows
			}
		}
		inOrder(t, seen, 1, 3)
		if took := time.Since(died); took > 16*time.Second || len(lines) != 2 {
			t.Errorf("replaced after %v, by connection %d", took, len(lines))
		}
	})
}
