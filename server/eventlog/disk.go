package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"eventrelay/server/eventlog/store"
)

// errNotSynced says that what was found of a log could not be synced. A second attempt proves nothing: the kernel reports an error once, and believes from then on that what it
// holds is on disk. So the blocks have to be written anew first.
var errNotSynced = errors.New("what the event log holds cannot be synced")

// disk is how much of an embedded log is on disk. Its zero value is of a log that has not begun.
type disk struct {
	blocks store.Blocks // used by the one Append that runs
	latest latest

	mu      sync.Mutex // guards what follows
	through uint64     // the highest sequence that is
	moved   chan struct{}
	failed  error // why a sync has failed
}

// begin is called when everything through a sequence is on disk.
func (d *disk) begin(dir string, through uint64) {
	d.blocks = store.NewBlocks(dir)
	d.raise(through)
}

// end is the highest sequence that is on disk.
func (d *disk) end() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.through
}

// sync makes durable what was written, which ends at a sequence, and lets it be shown: records, from another sequence on, as latest.add has it.
func (d *disk) sync(through, first uint64, records []Record) error {
	if err := d.blocks.Sync(); err != nil {
		d.fail(err)
		return err
	}
	if through > d.end() {
		d.latest.add(first, records)
	}
	d.raise(through)
	return nil
}

func (d *disk) raise(through uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through = max(d.through, through)
	if d.moved != nil {
		close(d.moved)
	}
	d.moved = make(chan struct{})
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
}

// damage is why a sync has failed.
func (d *disk) damage() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// wait returns nil once a sequence is on disk, or an error when a context ends: the caller's, or the one that lasts as long as the link.
func (d *disk) wait(ctx, alive context.Context, sequence uint64) error {
	for {
		d.mu.Lock()
		there, moved := sequence <= d.through, d.moved
		d.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-alive.Done():
			return fmt.Errorf("%w: it is opened again", ErrUnavailable)
		}
	}
}
