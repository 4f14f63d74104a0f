package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

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

	Filter   string `placeholder:"CEL" help:"Only events for which this expression is true, such as 'event.type.startsWith(\"meta.page.\")' or 'has(event.message)'."`
	From     start  `default:"latest" placeholder:"WHERE" help:"Where to start: latest, earliest, a time (RFC 3339), how long ago (10m), or the cursor of an event. Default: latest."`
	View     string `enum:"full,typed,raw" default:"full" help:"Which parts of an event to ask for: full, typed (without the raw JSON) or raw (without the payload)."`
	Count    uint64 `placeholder:"N" help:"End after so many events."`
	NoFollow bool   `name:"no-follow" help:"End when everything up to now is printed, instead of waiting for more. Most useful with --from."`
	JSON     bool   `name:"json" help:"Print each event as one JSON object with the fields of eventrelay.v1.Event."`
}

// Run prints events until as many as asked for are printed, all are (--no-follow), or ctx is done. Losing the server is told once and outlived.
func (t *tail) Run(ctx context.Context, out *output) (err error) {
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	// Flushed with each response: one write for what came together, and nothing is held back.
	buffer := bufio.NewWriter(out.out)
	defer func() { err = errors.Join(err, buffer.Flush()) }()
	lines := printer{out: buffer, json: t.JSON, width: terminalWidth(out.out)}

	reached := link{server: t.Server, from: t.From.text, out: out}
	o := client.FollowOptions{
		Filter: t.Filter,
		View:   eventrelayv1.EventView(eventrelayv1.EventView_value["EVENT_VIEW_"+strings.ToUpper(t.View)]),
		OnProgress: func(p client.Position) {
			reached.up()
			if err := buffer.Flush(); err != nil {
				stop(fmt.Errorf("print events: %w", err))
			}
			if t.NoFollow && p.Backlog == 0 {
				stop(nil)
			}
		},
		OnBreak: func(err error) {
			if reached.down(err); t.NoFollow && reached.attempts == givesUpAfter {
				stop(fmt.Errorf("%s did not answer %d times: %s", t.Server, givesUpAfter, message(err)))
			}
		},
	}
	t.From.apply(&o)
	var printed uint64
	for event, err := range c.Follow(ctx, o) {
		if err != nil {
			return t.explain(err)
		}
		if err := lines.print(event); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
		if printed++; printed == t.Count {
			return nil
		}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// explain says what to do about an error that ends a Follow.
func (t *tail) explain(err error) error {
	var expired *client.ExpiredError
	switch {
	case errors.As(err, &expired):
		return fmt.Errorf("events behind the cursor have been removed by retention; go on with what is left by --from %s", cmp.Or(expired.EarliestCursor, "earliest"))
	case client.Reason(err) == "FILTER_INVALID":
		return filterFault(err)
	case client.Reason(err) == "CURSOR_MALFORMED":
		return usagef("--from %q is no cursor of %s: %s", t.From.text, t.Server, startForms)
	case client.Reason(err) == "CURSOR_FOREIGN":
		return fmt.Errorf("--from: the cursor is of another log than that of %s, or of one that was wiped; start with --from earliest or --from latest", t.Server)
	case status.Code(err) == codes.Unauthenticated:
		return fmt.Errorf("%s wants a valid token, in EVENTRELAY_TOKEN or --token: %s", t.Server, message(err))
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
