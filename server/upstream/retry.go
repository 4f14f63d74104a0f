package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// RetryBudget is how long after its start a call may be repeated, and how long the repetitions may take with all that is between them.
	RetryBudget = 5 * time.Second
	// firstWait is the wait before the second attempt; each further one is twice as long, all give or take a half.
	firstWait = 200 * time.Millisecond
)

// A passing error says whether, and after how long at least, what failed may be tried again.
type passing interface {
	error
	Again() (wait time.Duration, ok bool)
}

// Retry calls attempt until it succeeds or fails for a lasting reason, for RetryBudget at most. The first attempt has the time that its own
// requests take; the later ones end with the budget. What is attempted must be fit to be done twice.
//
// The error is that of the last attempt that came to its end; if ctx ended in between, it wraps ctx's own.
func (c *Caller) Retry(ctx context.Context, attempt func(ctx context.Context) error) error {
	budget, cancel := context.WithTimeoutCause(ctx, RetryBudget, errPatience)
	defer cancel()
	var (
		last    error
		lasting bool
	)
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		within := ctx
		if last != nil {
			within = budget
		}
		err := attempt(within)
		if err == nil {
			return struct{}{}, nil
		}
		var wait time.Duration
		wait, lasting = verdict(err)
		if lasting || last == nil || budget.Err() == nil {
			last = err // An attempt that ran into the end of the budget has less to say than the one before.
		}
		if lasting {
			return struct{}{}, backoff.Permanent(err)
		}
		if wait > 0 {
			return struct{}{}, &backoff.RetryAfterError{Duration: wait}
		}
		return struct{}{}, err
	}, backoff.WithBackOff(waits()), backoff.WithMaxElapsedTime(RetryBudget), backoff.WithNotify(func(_ error, wait time.Duration) {
		c.logger.DebugContext(ctx, "call of a provider failed, trying again", "error", last, "wait", wait)
	}))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !lasting:
		return fmt.Errorf("%w; before that: %s", ctx.Err(), last.Error())
	}
	return last
}

// verdict returns how long to wait before trying again, or that there is no use in it.
func verdict(err error) (wait time.Duration, lasting bool) {
	var again passing
	if !errors.As(err, &again) {
		return 0, true
	}
	wait, ok := again.Again()
	return wait, !ok
}

func waits() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = firstWait
	b.Multiplier = 2
	return b
}
