package eventlog

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
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
func (l *Log) redo(ctx context.Context, k *link, work map[redoKey]*redo) error {
	for key, w := range work {
		c := &Consumer{log: l, name: key.consumer, from: source{key.stream, ""}}
		err := w.run(ctx, k, c)
		if c.missing(err) {
			continue // it was removed
		}
		if err != nil {
			return fmt.Errorf("settle anew what consumer %s was told: %w", key.consumer, err)
		}
	}
	return nil
}

// run brings one consumer to where it was.
func (w *redo) run(ctx context.Context, k *link, c *Consumer) error {
	at, err := c.stateOver(ctx, k)
	if err != nil {
		return err
	}
	last := uint64(0)
	for sequence := range w.done {
		last = max(last, sequence)
	}
	for sequence := range w.given {
		last = max(last, sequence)
	}
	// What it was given for the first time it was given in order, so all up to there was.
	backs := map[uint64]string{} // receipts to give back by
	for sequence, place := range w.was.pending {
		backs[sequence] = fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", c.from.stream, c.name, sequence, place)
	}
	attempts := w.was.attempts
	for range maxRedoRounds {
		if err := w.settle(ctx, k, at.Given); err != nil {
			return err
		}
		if at.Given >= last {
			break
		}
		got, err := k.fetch(ctx, []Demand{{Consumer: c, Max: int(min(redoBatch, last-at.Given)), Linger: redoLinger}})
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
		if err := k.settleAll(ctx, early, make([]bool, len(early))); err != nil {
			return err
		}
	}
	return w.again(ctx, k, c, backs, attempts)
}

// settle settles what is done, as far as the server knows that it was given, and takes it off the list.
func (w *redo) settle(ctx context.Context, k *link, given uint64) error {
	var list []Settlement
	for sequence, receipt := range w.done {
		if sequence <= given {
			list = append(list, Settlement{Receipt: receipt, Verdict: Done})
			delete(w.done, sequence)
			delete(w.given, sequence)
		}
	}
	return k.settleAll(ctx, list, make([]bool, len(list)))
}

// again has what is outstanding given as often as was told.
func (w *redo) again(ctx context.Context, k *link, c *Consumer, backs map[uint64]string, attempts map[uint64]int) error {
	for range maxRedoRounds {
		var list []Settlement
		for sequence, attempt := range w.given {
			if receipt, ok := backs[sequence]; ok && max(attempts[sequence], 1) < attempt {
				list = append(list, Settlement{Receipt: receipt, Verdict: Back})
			}
		}
		if len(list) == 0 {
			return nil
		}
		list = list[:min(len(list), redoBatch)]
		if err := k.settleAll(ctx, list, make([]bool, len(list))); err != nil {
			return err
		}
		got, err := k.fetch(ctx, []Demand{{Consumer: c, Max: len(list), Linger: redoLinger}})
		if err != nil || len(got.Deliveries) == 0 {
			return err
		}
		for _, d := range got.Deliveries {
			backs[d.Sequence], attempts[d.Sequence] = d.Receipt, d.Attempt
		}
	}
	return nil
}

// consumerFile is what the embedded server writes down of a consumer, as far as it is of use: how many it was given, the sequence up to which all is settled, the place of each entry
// that is outstanding among what the consumer was given, and how often each was given that was given more than once.
type consumerFile struct {
	given    uint64
	settled  uint64
	pending  map[uint64]uint64
	attempts map[uint64]int
}

// before tells whether a file is of an earlier time than another one of the same consumer.
func (f consumerFile) before(other consumerFile) bool {
	return cmp.Or(cmp.Compare(f.given, other.given), cmp.Compare(f.settled, other.settled), cmp.Compare(len(other.pending), len(f.pending))) < 0
}

// errConsumerFile is returned for bytes that are no such file, or one of another version.
var errConsumerFile = errors.New("not a file of a consumer that this version knows")

// Of the file: two bytes of head, and the version that is known.
const (
	consumerFileMagic   = 22
	consumerFileVersion = 2
)

// decodeConsumerFile reads the file of a consumer.
func decodeConsumerFile(data []byte) (consumerFile, error) {
	f := consumerFile{pending: map[uint64]uint64{}, attempts: map[uint64]int{}}
	if len(data) < 2 || data[0] != consumerFileMagic || data[1] != consumerFileVersion {
		return f, errConsumerFile
	}
	rest, broken := data[2:], false
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			broken, rest = true, nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	floor, settled := number(), number() // of what was given, and of the log
	f.given, f.settled = number(), settled
	_ = number() // the sequence to which it was given
	if n := number(); n > 0 {
		_ = number() // a time that others are relative to
		for ; n > 0 && !broken; n-- {
			sequence, place := number(), number()
			_ = number() // when
			f.pending[settled+sequence] = floor + place
		}
	}
	for n := number(); n > 0 && !broken; n-- {
		sequence, times := number(), number()
		f.attempts[settled+sequence] = int(times) + 1
	}
	if broken {
		return f, errConsumerFile
	}
	return f, nil
}
