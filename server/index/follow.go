package index

import (
	"context"
	"errors"
	"sync"
	"time"

	"eventrelay/server/eventlog"
)

const (
	// saveInterval is how often the files are brought up to date. What a crash loses of it is read from the log again.
	saveInterval = time.Second
	// retryDelay is how long following pauses after the log could not be read.
	retryDelay = time.Second
)

// Run follows what others append to the log, and writes the files, until ctx ends.
func (x *Index) Run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	if x.bell != nil {
		following.Go(func() { x.follow(ctx) })
	}
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			x.saveOrWarn()
		case <-ctx.Done():
			return
		}
	}
}

// follow reads what this process has not appended itself.
func (x *Index) follow(ctx context.Context) {
	for {
		position, err := x.idle(ctx)
		if err == nil {
			err = x.bell.Wait(ctx, position)
		}
		if err != nil {
			return // the end of ctx, or of the hub
		}
		if !x.behind(position) {
			continue
		}
		switch err := x.catchUp(ctx); {
		case err == nil:
			continue
		case errors.Is(err, eventlog.ErrClosed):
			return
		default:
			x.logger.Debug("the log cannot be read to follow it, trying again", "error", err)
		}
		select {
		case <-time.After(retryDelay):
		case <-ctx.Done():
		}
	}
}

// idle waits until the index is ready and the log may hold what this process did not append: while a step is under way, most likely it is that step which rings the bell,
// and Stored tells of it without reading it back. It returns the position.
func (x *Index) idle(ctx context.Context) (uint64, error) {
	for {
		x.mu.Lock()
		quiet := x.ready && (len(x.claims) == 0 || x.target > x.position)
		position, moved := x.position, x.moved
		x.mu.Unlock()
		if quiet {
			return position, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// behind reports whether the log has to be read, after the bell rang behind position.
func (x *Index) behind(position uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.position == position && (len(x.claims) == 0 || x.target > x.position)
}

// saveOrWarn is save for those who have nobody to tell.
func (x *Index) saveOrWarn() {
	err := x.save(false)
	if err != nil {
		x.meters.failures.Inc()
	}
	if failing := err != nil; x.failing.Swap(failing) != failing {
		if failing {
			x.logger.Warn("the index cannot write its files; it works on, and reads what they lack from the log at the next start", "error", err)
		} else {
			x.logger.Info("the index can write its files again")
		}
	}
}

// save writes what the files lack, closes those that grow no more, or all, and removes those that have aged out. What cannot be written is given up, for what the files lack is
// read from the log again.
func (x *Index) save(all bool) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	blocks, aged := x.unsaved, x.aged
	x.unsaved, x.aged = nil, nil
	var closing []*generation
	for _, g := range x.generations {
		if all || g.sealed {
			closing = append(closing, g)
		}
	}
	gone := make(map[*generation]bool, len(aged))
	for _, g := range aged {
		gone[g] = true
	}
	x.mu.Unlock()

	var failed error
	check := x.mark(x.log.ID())
	for _, u := range blocks {
		if gone[u.of] {
			continue
		}
		if err := u.of.write(check, &u.block); err != nil && failed == nil {
			failed = err
		}
	}
	for _, g := range closing {
		if err := g.close(); err != nil && failed == nil {
			failed = err
		}
	}
	for _, g := range aged {
		if err := g.remove(); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}
