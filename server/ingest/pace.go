package ingest

import (
	"context"
	"time"
)

const (
	// restFactor is how many times as long as a step took the loop rests after it, while more comes than it takes in: the log then has a sixteenth of the disk and of
	// the processors, and answers to providers the rest. What comes in the meantime shares the next step, which costs less for each.
	restFactor = 15
	// minRest makes a rest worth it: fewer events than come in it, at the rate at which rests begin, would be synced one by one. maxRest bounds one rest, and maxHeld
	// how old the oldest waiting notification may become by rests. From then on, step follows step: nothing is put off for good. Where more waits than a step
	// holds, rests are twice as long: the next step is a full one either way.
	minRest = 5 * time.Millisecond
	maxRest = 250 * time.Millisecond
	maxHeld = time.Second
	// busyFrom is how many notifications must wait after a step, and busyRate how many must have come in a second since the step before, to make it a busy time. With fewer,
	// the next step begins at once: what a slow disk, or a rest, has left waiting is no busy time.
	busyFrom = 2
	busyRate = 500
	// quietAfter ends a rest in which nothing came for so long: there is nothing left to make way for.
	quietAfter = 10 * time.Millisecond
)

// pace tells how fast notifications come.
type pace struct {
	at   time.Time // of the last look
	last uint64    // notification then
}

// busy reports whether notifications came faster than busyRate since the last look. last is the latest of them now.
func (p *pace) busy(now time.Time, last uint64) bool {
	came, over := last-p.last, now.Sub(p.at)
	p.at, p.last = now, last
	return float64(came) >= busyRate*over.Seconds()
}

// rest returns how long to wait before the next step in a busy time, after one that took so long. waiting is how many notifications there are for it, oldest how old the first
// of them is at least.
func rest(step time.Duration, waiting uint64, oldest time.Duration) time.Duration {
	if waiting < busyFrom {
		return 0
	}
	rest := min(max(restFactor*step, minRest), maxRest)
	if waiting > maxStepEvents {
		rest *= 2
	}
	return max(0, min(rest, maxHeld-oldest))
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
