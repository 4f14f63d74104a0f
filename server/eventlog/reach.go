package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// firstWait is how long Open waits for the first attempt to reach the server of a URL. One that is there answers in milliseconds; one that hangs must not keep
	// webhooks waiting.
	firstWait = 3 * time.Second

	// complainEvery is how often the same complaint is logged aloud.
	complainEvery = time.Minute

	minBackoff = 10 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// misconfigured tells whether an error will stay until somebody changes a setting, here or at the server.
func misconfigured(err error) bool {
	return errors.Is(err, ErrUnsupported) || errors.Is(err, ErrRefused)
}

// begin makes the first link to the server of a URL. It returns an error when a server answers soon and what it says will not change by itself, or when ctx ends; otherwise
// the log is there, or is reached for from now on until Close.
func (l *Log) begin(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	verdict := make(chan error)
	l.work.Go(func() {
		l.reach(false, func(err error) bool {
			select {
			case verdict <- err:
				return !misconfigured(err)
			case <-waiting.Done():
				return true
			}
		})
	})
	select {
	case err := <-verdict:
		if misconfigured(err) {
			return err
		}
	case <-waiting.Done():
	}
	return context.Cause(ctx)
}

// fault retires the link because of cause and has another made. Only the first report counts.
func (l *Log) fault(k *link, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur != k || k == nil || l.closed {
		return // it is being replaced already, or was never in use, or never will be
	}
	l.cur = nil
	l.patience, l.why = time.Now().Add(callTimeout), cause
	l.work.Add(1)
	go l.replace(k, cause)
}

// replaced makes ErrReplaced the answer to every call.
func (l *Log) replaced(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == k && l.fatal == nil {
		l.log.Error("the event log was replaced by another; it has to be opened anew", "id", l.ID())
		l.fatal = ErrReplaced
	}
}

// replace closes the failed link and makes another, for as long as it takes. It ends with Close.
func (l *Log) replace(old *link, cause error) {
	defer l.work.Done()
	damage := old.damage()
	if damage != nil {
		cause = damage
	}
	l.complain("event log is unavailable, opening it again", cause)
	old.close() // from here on nothing of it can be stored any more
	if damage == nil && old.srv != nil {
		// It was slow, not broken, and has stopped in order, unless what it left cannot be synced.
		if damage = l.folder.MarkClean(); damage != nil {
			l.log.Debug("event log is not marked as cleanly stopped", "error", damage)
		}
	}
	l.reach(damage != nil, func(error) bool { return true })
}

// reach makes a link, for as long as it takes, and installs it. It ends with Close, when the log was replaced, or when goOn, which is told how each attempt ended, returns
// false.
func (l *Log) reach(damaged bool, goOn func(error) bool) {
	began := time.Now()
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		k, err := l.connect(l.ctx, damaged)
		if err == nil {
			l.install(k)
			goOn(nil)
			l.relieved(time.Since(began))
			if k.pub.IsClosed() || k.sub.IsClosed() {
				l.fault(k, errors.New("connection lost")) // before it was installed, when nobody was told
			}
			return
		}
		if l.ctx.Err() != nil {
			return
		}
		damaged = damaged || errors.Is(err, errNotSynced)
		replaced := errors.Is(err, ErrReplaced)
		l.fail(err, replaced)
		if replaced {
			l.log.Error("the event log was replaced by another; it has to be opened anew", "id", l.ID())
			return
		}
		if !goOn(err) {
			return
		}
		l.complain("event log cannot be reached, trying until it can", err)
		select {
		case <-time.After(backoff/2 + rand.N(backoff)): // relays that lost the same server do not come back in step
		case <-l.ctx.Done():
			return
		}
	}
}

// install makes k the link in use.
func (l *Log) install(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur = k
	close(l.moved)
	l.moved = make(chan struct{})
}

// fail notes why there is no link, and whether there will never be one again.
func (l *Log) fail(err error, forGood bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why = err
	if forGood {
		l.fatal = err
		close(l.moved)
		l.moved = make(chan struct{})
	}
}

// complaint is what was last logged aloud about the link.
type complaint struct {
	at     time.Time
	wrong  bool // it was about a setting
	spoken bool // and nothing better was said since
}

// complain logs why there is no link: aloud at first, when it turns out that a setting is wrong, and from time to time; else at debug. A server that is away for a day, or
// one that comes and goes, does not fill the operator's log.
func (l *Log) complain(text string, err error) {
	wrong := misconfigured(err)
	level := slog.LevelDebug
	l.mu.Lock()
	if time.Since(l.said.at) >= complainEvery || wrong && !l.said.wrong {
		l.said = complaint{at: time.Now(), wrong: wrong, spoken: true}
		level = slog.LevelWarn
	}
	l.mu.Unlock()
	if level == slog.LevelWarn && wrong {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, text, "servers", l.place, "error", err)
}

// relieved takes a complaint back.
func (l *Log) relieved(after time.Duration) {
	l.mu.Lock()
	spoken := l.said.spoken
	l.said.spoken, l.said.wrong = false, false
	l.mu.Unlock()
	if spoken {
		l.log.Info("event log is available again", "servers", l.place, "after", after.Round(time.Millisecond))
	}
}

// current returns the link in use. Without one it returns a channel that is closed when that changes, or why there will be none any more.
func (l *Log) current() (k *link, moved <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, ErrClosed
	case l.fatal != nil:
		return nil, nil, l.fatal
	}
	return l.cur, l.moved, nil
}

// reached returns the link in use, or waits for one for as long as it takes.
func (l *Log) reached(ctx context.Context) (*link, error) {
	for {
		k, moved, err := l.current()
		if k != nil || err != nil {
			return k, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// link returns the link in use. One that has just been lost is most often there again in a moment, so for a while after that the next one is waited for; when the log has
// been away for longer than that, or was never there, the answer is ErrUnavailable at once.
func (l *Log) link(ctx context.Context) (*link, error) {
	if k, _, err := l.current(); k != nil || err != nil {
		return k, err
	}
	l.mu.Lock()
	patience := l.patience
	l.mu.Unlock()
	waiting, cancel := context.WithDeadline(ctx, patience)
	defer cancel()
	k, err := l.reached(waiting)
	switch {
	case k != nil, errors.Is(err, ErrClosed), errors.Is(err, ErrReplaced):
		return k, err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: no connection: %w", ErrUnavailable, context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	why := "not reached yet"
	if l.why != nil {
		why = l.why.Error() // as text: that an attempt of ours ran out of time is not the caller's deadline
	}
	return nil, fmt.Errorf("%w: no connection: %s", ErrUnavailable, why)
}

// Ready returns nil when the log can be reached, and waits until then, for as long as it takes. It returns ErrReplaced, ErrClosed, or the error of ctx.
func (l *Log) Ready(ctx context.Context) error {
	ctx, stop := l.scope(ctx)
	defer stop()
	_, err := l.reached(ctx)
	return err
}

// Up reports whether the log can be reached, as far as is known: a server that has just stopped answering is found out within half a minute. It never blocks.
func (l *Log) Up() bool {
	k, _, err := l.current()
	return k != nil && err == nil
}
