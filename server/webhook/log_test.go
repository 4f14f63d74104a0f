package webhook_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"eventrelay/server/webhook"
)

// followed is a log that has what it was told of, and else is waited for.
type followed struct {
	has     chan uint64 // the record that the log has next
	waiting chan uint64 // gets the record that is waited for
}

func newFollowed() *followed {
	return &followed{has: make(chan uint64), waiting: make(chan uint64, 1)}
}

func (l *followed) Await(ctx context.Context, index uint64) error {
	l.waiting <- index
	for {
		select {
		case has := <-l.has:
			if has >= index {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestAnAnswerThatMeansTheLogComesWhenTheLogHasTheNotification(t *testing.T) {
	l := newFollowed()
	r := start(t, func(_ *relay, o *webhook.Options) { o.Log, o.LogTimeout = l, time.Minute })
	answered := make(chan answer, 1)
	go func() { answered <- r.post(shopSecret, message) }()
	select {
	case index := <-l.waiting:
		if index != 1 || len(r.inbox.got()) != 1 {
			t.Errorf("waits for record %d, with %d in the inbox", index, len(r.inbox.got()))
		}
	case got := <-answered:
		t.Fatalf("answered without asking the log: %+v", got)
	}
	l.has <- 0 // another one
	select {
	case got := <-answered:
		t.Errorf("answered before the log had it: %+v", got)
	default:
	}
	l.has <- 1
	if got := <-answered; got.code != 200 || got.body != "" {
		t.Errorf("answer is %+v", got)
	}
}

func TestALogThatTakesTooLongIsAnswered503AndTheInboxKeepsTheNotification(t *testing.T) {
	l := newFollowed()
	r := start(t, func(_ *relay, o *webhook.Options) { o.Log, o.LogTimeout = l, time.Millisecond })
	got := r.post(shopSecret, message)
	if got.code != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "did not acknowledge") {
		t.Errorf("answer is %+v", got)
	}
	if n := len(r.inbox.got()); n != 1 {
		t.Errorf("%d records in the inbox, want one", n)
	}
	if !strings.Contains(r.log.String(), "log_timeout") {
		t.Errorf("the log says %s", r.log)
	}
}

func TestANotificationThatTheInboxRefusesIsNotWaitedFor(t *testing.T) {
	l := newFollowed()
	r := start(t, func(r *relay, o *webhook.Options) { o.Log, r.inbox.err = l, errors.New("refused") })
	if got := r.post(shopSecret, message); got.code != 503 {
		t.Errorf("answer is %+v", got)
	}
	if len(l.waiting) > 0 {
		t.Error("the log is waited for")
	}
}
