package ingest

import (
	"context"
	"time"
)

const (
	// restFactor is how many times as long as a step took the loop rests after it in a busy time: the log then has a sixteenth of the disk and of
	// the processors, and answers to providers the rest. What comes in the meantime shares the next step, which costs less for each.
	restFactor = 15
	// minRest makes a rest worth it: fewer events than come in it, at the rate at which rests begin, would be synced one by one. maxRest bounds one rest where heavyRate
	// notifications come in a second, or more; where fewer do, rests are shorter in the same measure, for what is gained by them is less. maxHeld bounds how old the oldest waiting
	// notification may become by rests. From then on, step follows step: nothing is put off for good. Where more waits than a step holds, rests are twice as long: the
	// next step is a full one either way.
	minRest   = 5 * time.Millisecond
	maxRest   = 250 * time.Millisecond
	heavyRate = 20_000
	maxHeld   = time.Second
	// busyRate is how many notifications must have come in a second since the step before to make it a busy time. With fewer, the next step begins at once: what a slow disk, or a
	// rest, has left waiting is no busy time.
	busyRate = 500
	// quietAfter ends a rest in which nothing came for so long: there is nothing left to make way for.
	quietAfter = 10 * time.Millisecond
)

// pace tells how fast notifications come.
type pace struct {
	at   time.Time // of the last look
	last uint64    // notification then
}

// rate is how many notifications have come in a second since the last look. last is the latest of them now.
func (p *pace) rate(now time.Time, last uint64) float64 {
	came, over := last-p.last, now.Sub(p.at)
	p.at, p.last = now, last
	return float64(came) / max(over, time.Microsecond).Seconds()
}

// rest returns how long to wait before the next step, after one that took so long. rate is how many notifications come in a second, waiting how many there are for the next step,
// oldest how old the first of them is at least.
func rest(step time.Duration, rate float64, waiting uint64, oldest time.Duration) time.Duration {
	if rate < busyRate {
		return 0
	}
	longest := time.Duration(min(1, rate/heavyRate) * float64(maxRest))
	rest := min(max(restFactor*step, minRest), longest)
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
