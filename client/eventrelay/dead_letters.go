package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// listDeadLetters prints a line per dead letter.
type listDeadLetters struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The subscription."`
	JSON bool   `name:"json" help:"Print each dead letter as one JSON object with the fields of eventrelay.v1.DeadLetter, one a line."`
}

// Run prints the dead letters page by page.
func (l *listDeadLetters) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(l.ID)
	if err != nil {
		return err
	}
	rows := table{}
	rows.row("ID", "ATTEMPTS", "DEAD SINCE", "TYPE", "EVENT", "LAST ERROR")
	none := true
	err = l.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		return pages(func(token string) (string, error) {
			page, err := c.Subscriptions().ListDeadLetters(ctx, &eventrelayv1.ListDeadLettersRequest{Name: name, PageSize: subscriptionPage, PageToken: token})
			for _, dead := range page.GetDeadLetters() {
				none = false
				if !l.JSON {
					rows.row(dead.GetId(), strconv.Itoa(int(dead.GetDeliveryAttempts())), when(dead.GetDeadLetterTime()), dead.GetEvent().GetType(), dead.GetEvent().GetId(), dead.GetLastError())
					continue
				}
				// Whoever asks for dead letters asks for their reasons.
				text, err := jsonOf(dead)
				if err == nil {
					_, err = fmt.Fprintln(out.out, text)
				}
				if err != nil {
					return "", fmt.Errorf("print dead letters: %w", err)
				}
			}
			return page.GetNextPageToken(), err
		})
	})
	switch {
	case err != nil:
		return err
	case none:
		out.note("%s has no dead letters", name)
		return nil
	case l.JSON:
		return nil
	}
	return rows.print(out.out, "")
}

// replayDeadLetters has dead letters delivered once more.
type replayDeadLetters struct {
	connection `embed:""`

	ID  string   `arg:"" name:"id" help:"The subscription."`
	IDs []string `arg:"" optional:"" name:"dead-letter" help:"The dead letters, by the ids that dead-letters shows."`
	All bool     `env:"-" help:"All that there are."`
}

// Run replays them and tells how many they were.
func (r *replayDeadLetters) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(r.ID)
	switch {
	case err != nil:
		return err
	case r.All == (len(r.IDs) > 0):
		return usagef("give the ids of dead letters, or --all")
	}
	var replayed *eventrelayv1.ReplayDeadLettersResponse
	err = r.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		replayed, err = c.Subscriptions().ReplayDeadLetters(ctx, &eventrelayv1.ReplayDeadLettersRequest{Name: name, Ids: r.IDs})
		return err
	})
	if err != nil {
		return err
	}
	return out.print("replayed %d of %s", replayed.GetReplayed(), name)
}

// tailSubscription prints events and acknowledges them.
type tailSubscription struct {
	connection `embed:""`

	ID    string `arg:"" name:"id" help:"The subscription."`
	Count uint64 `placeholder:"N" help:"End after so many events."`
	View  string `enum:"full,typed,raw" default:"full" help:"Which parts of an event to ask for: full, typed (without the raw JSON) or raw (without the payload)."`
	JSON  bool   `name:"json" help:"Print each event as one JSON object with the fields of eventrelay.v1.Event."`
	Color string `enum:"auto,always,never" default:"auto" help:"Colour the lines: always, never, or auto, which is on a terminal and not where NO_COLOR is set."`
}

// errTailed says that an event came when enough were printed: it is given back.
var errTailed = errors.New("enough events were printed")

// Run prints each event and acknowledges it once it is written; no other consumer has it then.
func (t *tailSubscription) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(t.ID)
	if err != nil {
		return err
	}
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	buffer := bufio.NewWriter(out.out)
	lines := printer{out: buffer, json: t.JSON, width: terminalWidth(out.out), color: t.Color == "always" || t.Color == "auto" && colorful(out.out)}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		mu      sync.Mutex // guards what follows
		printed uint64
		failed  error
	)
	server := link{server: t.Server, from: name, out: out}
	out.note("what is printed is acknowledged: no other consumer of %s has it then", name)
	err = c.Consume(ctx, name, func(_ context.Context, event *eventrelayv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if failed != nil || t.Count > 0 && printed == t.Count {
			return errTailed
		}
		err := lines.print(event)
		if err == nil {
			err = buffer.Flush()
		}
		if err != nil {
			failed = fmt.Errorf("print events: %w", err)
			stop()
			return failed
		}
		server.up()
		if printed++; printed == t.Count {
			stop()
		}
		return nil
	}, client.ConsumeOptions{
		View: eventrelayv1.EventView(eventrelayv1.EventView_value["EVENT_VIEW_"+strings.ToUpper(t.View)]),
		OnBreak: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			server.down(err)
		},
	})
	return cmp.Or(failed, t.explain(err))
}
