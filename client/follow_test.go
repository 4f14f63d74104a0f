package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	earliest = eventrelayv1.StartFrom_START_FROM_EARLIEST
	latest   = eventrelayv1.StartFrom_START_FROM_LATEST
)

// read follows until it has the event with a sequence, and gives the sequences it saw.
func read(t *testing.T, c *client.Client, o client.FollowOptions, until uint64) []uint64 {
	t.Helper()
	var seen []uint64
	for event, err := range c.Follow(patience(t), o) {
		if err != nil {
			t.Fatalf("after %d events: %v", len(seen), err)
		}
		seen = append(seen, event.GetSequence())
		if event.GetSequence() == until {
			return seen
		}
	}
	t.Fatalf("the sequence ended after %d events", len(seen))
	return nil
}

// inOrder fails unless the sequences are first, first+1, ... last.
func inOrder(t *testing.T, seen []uint64, first, last uint64) {
	t.Helper()
	for i, sequence := range seen {
		if sequence != first+uint64(i) {
			t.Fatalf("at place %d: event %d, want %d", i, sequence, first+uint64(i))
		}
	}
	if len(seen) == 0 || seen[len(seen)-1] != last {
		t.Fatalf("ends with %d events, want the last to be %d", len(seen), last)
	}
}

func TestFollowSeesEveryEventOnceAcrossBrokenStreams(t *testing.T) {
	for _, batch := range []int{0, 1, 7} {
		t.Run(fmt.Sprintf("responses of %d", batch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const events = 500
				r := newRelay(events)
				r.batch = batch
				r.killAfter = func(int) int { return rand.IntN(20) }
				c := serve(t, r)
				// MaxBackoff: a stream that is cut behind its greeting slows the next one down, and patience runs on the same clock.
				seen := read(t, c, client.FollowOptions{From: earliest, MaxBackoff: 100 * time.Millisecond}, events)
				inOrder(t, seen, 1, events)
				if streams := len(r.attempts()); streams < events/20 {
					t.Errorf("only %d streams: nothing was broken", streams)
				}
			})
		})
	}
}

func TestFollowStartsOverFromTheLastYieldedCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(10)
		r.killAfter = func(stream int) int { return []int{3, 4, -1}[stream-1] }
		c := serve(t, r)
		inOrder(t, read(t, c, client.FollowOptions{From: earliest}, 10), 1, 10)
		if want := []string{"START_FROM_EARLIEST", "c3", "c7"}; !slices.Equal(r.starts(), want) {
			t.Errorf("streams started at %v, want %v", r.starts(), want)
		}
	})
}

func TestStartAtLatestDoesNotMoveOnReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(5)
		r.afterwards = func(stream int) error {
			if stream == 1 {
				r.grow(2) // while the reader is away
				return status.Error(codes.Unavailable, "cut")
			}
			return nil
		}
		c := serve(t, r)
		inOrder(t, read(t, c, client.FollowOptions{}, 7), 6, 7)
	})
}

func TestStartsAreAskedForAsGiven(t *testing.T) {
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	for want, o := range map[string]client.FollowOptions{
		"START_FROM_UNSPECIFIED": {},
		"START_FROM_LATEST":      {From: latest},
		"START_FROM_EARLIEST":    {From: earliest},
		"2026-11-21T09:00:00Z":   {StartTime: at},
		"c2":                     {Cursor: "c2"},
	} {
		t.Run(want, func(t *testing.T) {
			r := newRelay(3)
			c := serve(t, r)
			ctx, cancel := context.WithCancel(patience(t))
			o.Filter, o.View, o.MaxEvents, o.MaxBytes = "event.test", eventrelayv1.EventView_EVENT_VIEW_TYPED, 7, 4096
			o.OnProgress = func(client.Position) { cancel() }
			for _, err := range c.Follow(ctx, o) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := r.starts(); !slices.Equal(got, []string{want}) {
				t.Errorf("started at %v", got)
			}
			request := r.attempts()[0].request
			if request.GetFilter() != "event.test" || request.GetView() != o.View || request.GetMaxEvents() != 7 || request.GetMaxBytes() != 4096 {
				t.Errorf("the request lost something: %v", request)
			}
			if got := request.GetCheckpointInterval().AsDuration(); got != 5*time.Second {
				t.Errorf("checkpoint interval %v", got)
			}
		})
	}
}

func TestOptionsThatContradictThemselvesAreRefusedBeforeAnyCall(t *testing.T) {
	for name, o := range map[string]client.FollowOptions{
		"two starts":       {Cursor: "c1", From: earliest},
		"filter not UTF-8": {Filter: "event.id == '\xff'"},
		"cursor not UTF-8": {Cursor: "\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(1)
			c := serve(t, r)
			var got error
			for _, err := range c.Follow(patience(t), o) {
				got = err
			}
			if status.Code(got) != codes.InvalidArgument || len(r.attempts()) != 0 {
				t.Errorf("%v after %d calls", got, len(r.attempts()))
			}
		})
	}
}

func TestSilentStreamIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(2)
		quiet := make(chan struct{})
		defer close(quiet)
		r.afterwards = func(stream int) error {
			if stream == 1 {
				<-quiet // as if the path had died: nothing comes, nothing ends
			}
			return nil
		}
		c := serve(t, r)
		var broke []error
		start := time.Now()
		seen := read(t, c, client.FollowOptions{From: earliest, OnBreak: func(err error) { broke = append(broke, err) }}, 2)
		inOrder(t, seen, 1, 2)
		// Three checkpoint intervals of 5 s and a pause of at most 100 ms.
		if took := time.Since(start); took < 15*time.Second || took > 15200*time.Millisecond {
			t.Errorf("replaced after %v", took)
		}
		if len(broke) != 1 {
			t.Errorf("OnBreak was told %v", broke)
		}
	})
}

func TestStreamWithoutAGreetingIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(2)
		r.silent = func(stream int) bool { return stream == 1 }
		c := serve(t, r)
		inOrder(t, read(t, c, client.FollowOptions{From: earliest, CheckpointInterval: 100 * time.Millisecond}, 2), 1, 2)
	})
}

func TestCheckpointsKeepAStreamAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(0)
		c := serve(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		checkpoints := 0
		for event, err := range c.Follow(ctx, client.FollowOptions{OnProgress: func(client.Position) { checkpoints++ }}) {
			t.Fatalf("%v, %v", event, err)
		}
		if streams := len(r.attempts()); streams != 1 {
			t.Errorf("%d streams in an hour without events", streams)
		}
		if checkpoints < 700 {
			t.Errorf("told of %d checkpoints", checkpoints)
		}
	})
}

func TestSlowLoopIsNotTakenForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(1)
		c := serve(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		var seen []uint64
		for event, err := range c.Follow(ctx, client.FollowOptions{From: earliest}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, event.GetSequence()); len(seen) == 20 {
				break
			}
			<-time.After(10 * time.Minute)
			r.grow(1) // so that the next event comes by a stream that has outlived the pause
		}
		inOrder(t, seen, 1, 20)
		if streams := len(r.attempts()); streams != 1 {
			t.Errorf("a slow loop cost %d streams", streams)
		}
	})
}

func TestExpiredCursorIsATypedError(t *testing.T) {
	r := newRelay(10)
	r.expire(6)
	c := serve(t, r)
	var got error
	for event, err := range c.Follow(patience(t), client.FollowOptions{Cursor: "c2"}) {
		if event != nil {
			t.Errorf("event %v across a gap", event.GetSequence())
		}
		got = err
	}
	var expired *client.ExpiredError
	if !errors.Is(got, client.ErrCursorExpired) || !errors.As(got, &expired) {
		t.Fatalf("got %v", got)
	}
	if expired.EarliestCursor != "c6" || client.Reason(got) != "CURSOR_EXPIRED" || status.Code(got) != codes.OutOfRange {
		t.Errorf("earliest %q, reason %q, code %v", expired.EarliestCursor, client.Reason(got), status.Code(got))
	}
	if len(r.attempts()) != 1 {
		t.Errorf("asked %d times", len(r.attempts()))
	}
}

func TestCursorThatExpiresDuringAFollowIsATypedErrorToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(10)
		r.killAfter = func(int) int { r.expire(6); return 3 }
		c := serve(t, r)
		seen := 0
		var got error
		for event, err := range c.Follow(patience(t), client.FollowOptions{From: earliest}) {
			if got = err; event != nil {
				seen++
			}
		}
		if seen != 3 || !errors.Is(got, client.ErrCursorExpired) {
			t.Errorf("%d events, then %v", seen, got)
		}
	})
}

func TestRestartAtEarliestGoesOnAndTellsOfTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(10)
		r.expire(6)
		c := serve(t, r)
		var gap *client.ExpiredError
		o := client.FollowOptions{Cursor: "c2", RestartAtEarliest: true, OnBreak: func(err error) { errors.As(err, &gap) }}
		inOrder(t, read(t, c, o, 10), 7, 10)
		if gap == nil || gap.EarliestCursor != "c6" {
			t.Errorf("the gap was told as %v", gap)
		}
		if want := []string{"c2", "c6"}; !slices.Equal(r.starts(), want) {
			t.Errorf("streams started at %v, want %v", r.starts(), want)
		}
	})
}

func TestRestartWithoutAnEarliestCursorStartsAtTheEarliestEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(3)
		r.refuse = func(stream int) error {
			if stream == 1 {
				return refusal(codes.OutOfRange, "CURSOR_EXPIRED", nil)
			}
			return nil
		}
		c := serve(t, r)
		inOrder(t, read(t, c, client.FollowOptions{Cursor: "c2", RestartAtEarliest: true}, 3), 1, 3)
	})
}

func TestErrorsThatARetryCannotMendEndTheSequence(t *testing.T) {
	for _, code := range []codes.Code{
		codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound,
		codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented,
	} {
		t.Run(code.String(), func(t *testing.T) {
			r := newRelay(1)
			r.refuse = func(int) error { return refusal(code, "FILTER_INVALID", map[string]string{"line": "1", "column": "7"}) }
			c := serve(t, r)
			var got []error
			for _, err := range c.Follow(patience(t), client.FollowOptions{RestartAtEarliest: true}) {
				got = append(got, err)
			}
			if len(got) != 1 || status.Code(got[0]) != code || len(r.attempts()) != 1 {
				t.Fatalf("%v after %d calls", got, len(r.attempts()))
			}
			if client.Reason(got[0]) != "FILTER_INVALID" || client.Detail(got[0], "column") != "7" {
				t.Errorf("reason %q, column %q", client.Reason(got[0]), client.Detail(got[0], "column"))
			}
		})
	}
}

func TestReasonIsEmptyWhereTheServiceStatesNone(t *testing.T) {
	foreign, err := status.New(codes.NotFound, "of the Graph").WithDetails(&errdetails.ErrorInfo{Reason: "GONE", Domain: "graph.facebook.com"})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"no error": nil, "no status": errors.New("plain"), "no details": status.Error(codes.NotFound, "bare"), "another's domain": foreign.Err(),
	} {
		if got := client.Reason(err); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestErrorsThatPassAreOutlived(t *testing.T) {
	passing := []error{
		status.Error(codes.Unavailable, "going down"), status.Error(codes.Internal, "RST_STREAM"), status.Error(codes.Unknown, "a proxy's word"),
		status.Error(codes.Canceled, "a proxy's whim"), status.Error(codes.ResourceExhausted, "too many streams"), status.Error(codes.DeadlineExceeded, "a proxy's limit"),
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(1)
		r.refuse = func(stream int) error {
			if stream <= len(passing) {
				return passing[stream-1]
			}
			return nil
		}
		c := serve(t, r)
		var told []codes.Code
		o := client.FollowOptions{From: earliest, OnBreak: func(err error) { told = append(told, status.Code(err)) }}
		inOrder(t, read(t, c, o, 1), 1, 1)
		if len(told) != len(passing) {
			t.Errorf("told of %v", told)
		}
	})
}

func TestStreamThatTheServerEndsIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(4)
		r.afterwards = func(stream int) error {
			if stream == 1 {
				return errEnd
			}
			return nil
		}
		c := serve(t, r)
		inOrder(t, read(t, c, client.FollowOptions{From: earliest}, 4), 1, 4)
		if len(r.attempts()) != 2 {
			t.Errorf("%d streams", len(r.attempts()))
		}
	})
}
