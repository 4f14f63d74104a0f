package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// givesUpAfter is how many attempts in a row may get no answer before --no-follow gives up: about two seconds, enough for a server that is being restarted.
const givesUpAfter = 5

// tail prints events.
type tail struct {
	connection `embed:""`

	reading `embed:""`

	View  string `enum:"full,typed,raw" default:"full" help:"Which parts of an event to ask for: full, typed (without the raw JSON) or raw (without the payload)."`
	JSON  bool   `name:"json" help:"Print each event as one JSON object with the fields of eventrelay.v1.Event."`
	Color string `enum:"auto,always,never" default:"auto" help:"Colour the lines: always, never, or auto, which is on a terminal and not where NO_COLOR is set."`
}

// reading is the flags of every command that follows events.
type reading struct {
	Filter string `placeholder:"CEL" help:"Only events for which this expression is true, such as 'event.type.startsWith(\"meta.page.\")' or 'has(event.message)'."`
	From   start  `default:"latest" placeholder:"WHERE" help:"Where to start: latest, earliest, a time (RFC 3339), how long ago (10m), or the cursor of an event. Default: latest."`
	Since  moment `placeholder:"TIME" help:"Start at the events received at this time (RFC 3339) or later, or in the last 10m, 24h, 7d: a --from that takes nothing else."`
	Follow bool   `negatable:"" default:"true" help:"Wait for more, which is the default; with --no-follow end when everything up to now is done with. Most useful with --from."`
	Count  uint64 `placeholder:"N" help:"End after so many events."`
}

// start gives where reading begins.
func (r *reading) start() (start, error) {
	if r.Since.at == nil {
		return r.From, nil
	}
	if r.From.from != eventrelayv1.StartFrom_START_FROM_LATEST {
		return start{}, usagef("--since and --from are both given: give one")
	}
	at := r.Since.at.AsTime()
	return start{text: at.Format(time.RFC3339), at: at}, nil
}

// Run prints events.
func (t *tail) Run(ctx context.Context, out *output) (err error) {
	if t.From, err = t.start(); err != nil {
		return err
	}
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()

	// Flushed with each response: one write for what came together, and nothing is held back.
	buffer := bufio.NewWriter(out.out)
	defer func() { err = errors.Join(err, buffer.Flush()) }()
	lines := printer{out: buffer, json: t.JSON, width: terminalWidth(out.out), color: t.Color == "always" || t.Color == "auto" && colorful(out.out)}

	return t.follow(ctx, c, t.Server, out, client.FollowOptions{
		View: eventrelayv1.EventView(eventrelayv1.EventView_value["EVENT_VIEW_"+strings.ToUpper(t.View)]),
	}, func(event *eventrelayv1.Event) error {
		if err := lines.print(event); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
		return nil
	}, func(client.Position) error {
		if err := buffer.Flush(); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
		return nil
	})
}

// follow does something with each event, and with each position up to which that is done, until as many are done as asked for, all are (--no-follow), ctx is done, or
// something cannot be done. Losing the server is told once and outlived.
func (r *reading) follow(ctx context.Context, c *client.Client, server string, out *output, o client.FollowOptions,
	each func(*eventrelayv1.Event) error, reached func(client.Position) error,
) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	connection := link{server: server, from: r.From.text, out: out}
	r.From.apply(&o)
	o.Filter = r.Filter
	o.OnProgress = func(p client.Position) {
		connection.up()
		if err := reached(p); err != nil {
			stop(err)
		} else if !r.Follow && p.Backlog == 0 {
			stop(nil)
		}
	}
	o.OnBreak = func(err error) {
		if connection.down(err); !r.Follow && connection.attempts == givesUpAfter {
			stop(fmt.Errorf("%s did not answer %d times: %s", server, givesUpAfter, message(err)))
		}
	}
	var done uint64
	for event, err := range c.Follow(ctx, o) {
		if err != nil {
			return followFault(err, server, r.From.text)
		}
		if err := each(event); err != nil {
			return err
		}
		if done++; done == r.Count {
			return nil
		}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// followFault says what to do about an error that ends a Follow.
func followFault(err error, server, from string) error {
	var expired *client.ExpiredError
	switch {
	case errors.As(err, &expired):
		return fmt.Errorf("events behind the cursor have been removed by retention; go on with what is left by --from %s", cmp.Or(expired.EarliestCursor, "earliest"))
	case client.Reason(err) == "FILTER_INVALID":
		return filterFault(err)
	case client.Reason(err) == "CURSOR_MALFORMED":
		return usagef("--from %q is no cursor of %s: %s", from, server, startForms)
	case client.Reason(err) == "CURSOR_FOREIGN":
		return fmt.Errorf("--from: the cursor is of another log than that of %s, or of one that was wiped; start with --from earliest or --from latest", server)
	case status.Code(err) == codes.Unauthenticated:
		return fmt.Errorf("%s wants a valid token, in EVENTRELAY_TOKEN or --token: %s", server, message(err))
	default:
		return err
	}
}

// link tells when the server is lost and when it is back, each once. It belongs to the goroutine of the loop.
type link struct {
	server string
	from   string
	out    *output

	connected bool
	lost      bool // the loss has been told
	attempts  int  // in a row without an answer
}

// up notes a response.
func (l *link) up() {
	switch {
	case l.connected:
	case l.lost:
		l.out.note("connected to %s again", l.server)
	default:
		l.out.note("reading from %s, starting at %s", l.server, l.from)
	}
	l.connected, l.lost, l.attempts = true, false, 0
}

// down notes a broken stream or an attempt that got no answer.
func (l *link) down(err error) {
	switch {
	case l.connected:
		l.out.note("lost %s: %s; trying again", l.server, message(err))
	case !l.lost:
		l.out.note("cannot reach %s: %s; trying again", l.server, message(err))
	}
	l.connected, l.lost = false, true
	l.attempts++
}

// message gives an error without gRPC's prefix.
func message(err error) string {
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		return st.GRPCStatus().Message()
	}
	return err.Error()
}
