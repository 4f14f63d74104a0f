package ingest

import (
	"context"
	"time"
)

const (
	// restFactor is how many times as long as a step took the loop rests after it, while more comes than it takes in: the log then has an eighth of the disk and of the
	// processors, and answers to providers the rest. What comes in the meantime shares the next step, which costs less for each.
	restFactor = 7
	// minRest makes a rest worth it: fewer events than come in it, at the rate at which rests begin, would be synced one by one. maxRest bounds one rest, and maxHeld
	// how old the oldest waiting notification may become by rests. From then on, step follows step: nothing is put off for good.
	minRest = 5 * time.Millisecond
	maxRest = 250 * time.Millisecond
	maxHeld = time.Second
	// busyFrom and busyRate are how many notifications must have come during a step, and how many in a second, to make it a busy time. With fewer, the next step begins
	// at once: a disk that was slow once is no busy time.
	busyFrom = 2
	busyRate = 500
	// quietAfter ends a rest in which nothing came for so long: there is nothing left to make way for.
	quietAfter = 10 * time.Millisecond
)

// rest returns how long to wait before the next step: not at all, unless notifications come faster than the log takes them.
func rest(step time.Duration, waiting int, oldest time.Duration) time.Duration {
	if waiting < busyFrom || float64(waiting) < busyRate*step.Seconds() {
		return 0
	}
	return max(0, min(max(restFactor*step, minRest), maxRest, maxHeld-oldest))
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
