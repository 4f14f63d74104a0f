package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// errTrimmed says that the record went away while Read was under way.
var errTrimmed = errors.New("record is trimmed")

// Read yields the records from index from, or from the first that is not trimmed if
// that is later, to the last at the moment the loop begins.
//
// A record that is damaged is yielded as Record{Index: n} with an error that
// wraps ErrDamaged, and the loop goes on with the next one. With any other error
// (the context's, ErrClosed, or of reading from the disk) the record is empty and the
// loop ends. A disk error is not taken for damage: what cannot be read now may be whole.
func (j *Journal) Read(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		last := j.Last()
		for i := max(from, j.First()); i <= last; i++ {
			if err := ctx.Err(); err != nil {
				yield(Record{}, err)
				return
			}
			r, ok := j.recent.at(i)
			var err error
			if !ok {
				r, err = j.read(i)
			}
			switch {
			case err == nil:
				if !yield(r, nil) {
					return
				}
			case errors.Is(err, ErrDamaged):
				j.damaged.Add(1)
				if !yield(Record{Index: i}, err) {
					return
				}
			case errors.Is(err, errTrimmed):
				i = j.First() - 1
			default:
				yield(Record{}, err)
				return
			}
		}
	}
}

// Wait returns nil once Last() > after, else the context's error or ErrClosed.
func (j *Journal) Wait(ctx context.Context, after uint64) error {
	for {
		j.mu.Lock()
		last, closing, bell := j.last, j.closing, j.bell
		j.mu.Unlock()
		if last > after {
			return nil
		}
		if closing {
			return ErrClosed
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (j *Journal) read(index uint64) (Record, error) {
	var l raft.Log
	err := j.wal.GetLog(index, &l)
	if err == nil {
		h, payload, damage := j.sum.check(l.Data, index)
		if damage == nil && h.kind == kindLost {
			return Record{}, fmt.Errorf("%w: record %d was lost", ErrDamaged, index)
		}
		if damage == nil {
			return decode(index, payload)
		}
		err = damage
	}
	var hard *fs.PathError
	switch {
	case errors.Is(err, types.ErrClosed):
		return Record{}, ErrClosed
	case index < j.First():
		return Record{}, errTrimmed
	case errors.As(err, &hard):
		return Record{}, fmt.Errorf("read record %d: %w", index, err)
	}
	return j.rescue(index, err)
}

// rescue looks for a record in the bytes of its segment, for when the engine does not find
// it there, or finds something else. That takes a pass over the segment, some
// ten milliseconds, for each such record.
func (j *Journal) rescue(index uint64, cause error) (Record, error) {
	if !errors.Is(cause, ErrDamaged) {
		cause = fmt.Errorf("%w: record %d: %w", ErrDamaged, index, cause)
	}
	si, ok := j.meta.segmentOf(index)
	if !ok {
		return Record{}, cause
	}
	name := segment.FileName(si)
	f, err := j.opt.vfs.OpenReader(j.dir, name)
	if err != nil {
		return Record{}, fmt.Errorf("read record %d: %w", index, err)
	}
	defer f.Close() //nolint:errcheck // only read
	stat, err := os.Stat(filepath.Join(j.dir, name))
	if err != nil {
		return Record{}, fmt.Errorf("read record %d: %w", index, err)
	}
	c, err := survey(newImage(f, stat.Size()), si, j.sum)
	if err != nil {
		return Record{}, err
	}
	n, ok := slices.BinarySearchFunc(c.places, index, placeOrder)
	if !ok {
		return Record{}, cause
	}
	b := make([]byte, c.places[n].len)
	if _, err := f.ReadAt(b, c.places[n].off); err != nil {
		return Record{}, fmt.Errorf("read record %d: %w", index, err)
	}
	h, payload, err := j.sum.check(b, index)
	if err != nil || h.kind == kindLost {
		return Record{}, cause
	}
	return decode(index, payload)
}
