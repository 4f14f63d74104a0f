package rpc

import (
	"context"
	"iter"

	"eventrelay/server/eventlog"
	"eventrelay/server/hub"
)

// HubLog lets a hub follow the event log: the hub knows entries by their sequence and bytes alone. What it keeps for readers are fragments, made as an entry comes in.
func HubLog(log *eventlog.Log) hub.Log {
	return hubLog{log: log, framer: framer{&cursors{logID: log.ID}}}
}

var _ hub.Framer = hubLog{}

type hubLog struct {
	framer

	log *eventlog.Log
}

func (l hubLog) Ready(ctx context.Context) error { return l.log.Ready(ctx) }

func (l hubLog) Last(ctx context.Context) (uint64, error) {
	state, err := l.log.State(ctx)
	return state.Last, err
}

func (l hubLog) Read(ctx context.Context, from uint64) iter.Seq2[hub.Entry, error] {
	return hubEntries(l.log.Read(ctx, from))
}

func (l hubLog) Tail(ctx context.Context, after uint64) iter.Seq2[hub.Entry, error] {
	return hubEntries(l.log.Tail(ctx, after))
}

func hubEntries(from iter.Seq2[eventlog.Entry, error]) iter.Seq2[hub.Entry, error] {
	return func(yield func(hub.Entry, error) bool) {
		for entry, err := range from {
			if !yield(hub.Entry{Sequence: entry.Sequence, Data: entry.Data, More: entry.More}, err) {
				return
			}
		}
	}
}
