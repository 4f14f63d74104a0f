package index

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"eventrelay/server/eventlog"
)

// maxConfirming bounds how many look-ups are under way at once: a provider that delivers a day again is told so without waiting for each item by itself.
const maxConfirming = 8

// verdict is what the log says of a record whose fingerprint is known.
type verdict int

const (
	unknown verdict = iota
	known           // the log has the id, or had it
	own             // the log has the id from this very origin
)

// confirm asks the log about suspects, and returns the verdicts by the number of the record.
func (x *Index) confirm(ctx context.Context, records []eventlog.Record, suspects []suspect) (map[int]verdict, error) {
	if len(suspects) == 0 {
		return nil, nil //nolint:nilnil // no suspects, no verdicts
	}
	st, err := x.log.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("confirm copies: %w", err)
	}
	found := make([]verdict, len(suspects))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxConfirming)
	for n, s := range suspects {
		group.Go(func() (err error) {
			found[n], err = x.judge(ctx, st, &records[s.record], s.sequences)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("confirm copies: %w", err)
	}
	verdicts := make(map[int]verdict, len(suspects))
	for n, s := range suspects {
		verdicts[s.record] = found[n]
		if found[n] == unknown {
			x.meters.refuted.Inc()
		}
	}
	return verdicts, nil
}

// judge looks at each place where the fingerprint lies. What is behind the log's end was lost, and what is in front of its beginning was removed by retention.
func (x *Index) judge(ctx context.Context, st eventlog.State, r *eventlog.Record, sequences []uint64) (verdict, error) {
	for _, sequence := range sequences {
		switch {
		case sequence > st.Last:
			continue
		case sequence < st.First:
			return known, nil
		}
		e, err := x.log.Get(ctx, sequence)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			now, err := x.log.State(ctx)
			if err != nil {
				return unknown, err
			}
			if sequence < now.First { // retention was faster
				return known, nil
			}
		case err != nil:
			return unknown, err
		case e.ID == r.ID && e.Origin == r.Origin:
			return own, nil
		case e.ID == r.ID:
			return known, nil
		}
	}
	return unknown, nil
}
