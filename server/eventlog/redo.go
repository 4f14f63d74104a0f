package eventlog

import (
	"context"
	"fmt"
	"time"

	"eventrelay/server/eventlog/store"
)

const (
	// redoBatch is how much is fetched at a time, redoLinger how long a consumer that has all outstanding that it may is waited for.
	redoBatch  = 256
	redoLinger = 20 * time.Millisecond
	// maxRedoRounds bounds what is done for a consumer, should the server answer in a way that leads nowhere.
	maxRedoRounds = 10_000
)

// redo does once more what the embedded server was told before it was cut off and had not written down: what was settled is settled, and attempts that were told count. What had been
// given besides is outstanding again until its deadline, as it was. After a stop in order there is nothing to do.
func (l *Log) redo(ctx context.Context, k *link, lost map[store.Consumer]*store.Lost) error {
	for name, what := range lost {
		r := redo{Lost: what, k: k, c: &Consumer{log: l, name: name.Name, from: source{name.Stream, ""}}}
		err := r.run(ctx)
		if r.c.missing(err) {
			continue // it was removed
		}
		if err != nil {
			return fmt.Errorf("settle anew what consumer %s was told: %w", name.Name, err)
		}
	}
	return nil
}

// redo is that of one consumer.
type redo struct {
	*store.Lost
	k *link
	c *Consumer
}

// run brings one consumer to where it was.
func (r redo) run(ctx context.Context) error {
	at, err := r.c.stateOver(ctx, r.k)
	if err != nil {
		return err
	}
	last := uint64(0)
	for sequence := range r.Done {
		last = max(last, sequence)
	}
	for sequence := range r.Given {
		last = max(last, sequence)
	}
	// What it was given for the first time it was given in order, so all up to there was.
	backs := map[uint64]string{} // receipts to give back by
	for sequence, place := range r.Was.Pending {
		backs[sequence] = fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", r.c.from.stream, r.c.name, sequence, place)
	}
	attempts := r.Was.Attempts
	for range maxRedoRounds {
		if err := r.settle(ctx, at.Given); err != nil {
			return err
		}
		if at.Given >= last {
			break
		}
		got, err := r.k.fetch(ctx, []Demand{{Consumer: r.c, Max: int(min(redoBatch, last-at.Given)), Linger: redoLinger}})
		if err != nil {
			return err
		}
		if len(got.Deliveries) == 0 {
			break // retention has removed the rest, or one that nobody has settled is in the way
		}
		var early []Settlement // of what it had not been given yet, where it is not given all
		for _, d := range got.Deliveries {
			at.Given = max(at.Given, d.Sequence)
			backs[d.Sequence], attempts[d.Sequence] = d.Receipt, d.Attempt
			if d.Sequence > last {
				early = append(early, Settlement{Receipt: d.Receipt, Verdict: Back})
			}
		}
		if err := r.k.settleAll(ctx, early, make([]bool, len(early))); err != nil {
			return err
		}
	}
	return r.again(ctx, backs, attempts)
}

// settle settles what is done, as far as the server knows that it was given, and takes it off the list.
func (r redo) settle(ctx context.Context, given uint64) error {
	var list []Settlement
	for sequence, receipt := range r.Done {
		if sequence <= given {
			list = append(list, Settlement{Receipt: receipt, Verdict: Done})
			delete(r.Done, sequence)
			delete(r.Given, sequence)
		}
	}
	return r.k.settleAll(ctx, list, make([]bool, len(list)))
}

// again has what is outstanding given as often as was told.
func (r redo) again(ctx context.Context, backs map[uint64]string, attempts map[uint64]int) error {
	for range maxRedoRounds {
		var list []Settlement
		for sequence, attempt := range r.Given {
			if receipt, ok := backs[sequence]; ok && max(attempts[sequence], 1) < attempt {
				list = append(list, Settlement{Receipt: receipt, Verdict: Back})
			}
		}
		if len(list) == 0 {
			return nil
		}
		list = list[:min(len(list), redoBatch)]
		if err := r.k.settleAll(ctx, list, make([]bool, len(list))); err != nil {
			return err
		}
		got, err := r.k.fetch(ctx, []Demand{{Consumer: r.c, Max: len(list), Linger: redoLinger}})
		if err != nil || len(got.Deliveries) == 0 {
			return err
		}
		for _, d := range got.Deliveries {
			backs[d.Sequence], attempts[d.Sequence] = d.Receipt, d.Attempt
		}
	}
	return nil
}
