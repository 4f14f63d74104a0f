package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// eventPage is the most events, types or entries that one call returns.
const eventPage = 1000

// storedEvents is the commands about events that are stored, and about their schema.
type storedEvents struct {
	List  listEvents     `cmd:"" help:"List stored events."`
	Get   getEvent       `cmd:"" help:"Print one event, or the bytes it was made from."`
	Types listEventTypes `cmd:"" help:"List the event types that have a payload of their own."`
	Drift listDrift      `cmd:"" help:"List what providers send and the schema does not know."`
}

// listEvents prints a line per stored event, as tail does.
type listEvents struct {
	connection `embed:""`

	Filter string `placeholder:"CEL" help:"Only events for which this expression is true, such as 'event.type.startsWith(\"meta.page.\")' or 'has(event.message)'."`
	// Not read from the environment, where a place for tail to start may stand.
	From  moment `env:"-" placeholder:"TIME" help:"Only events that were received at this time (RFC 3339) or later, or how long ago at most (10m, 7d)."`
	To    moment `env:"-" placeholder:"TIME" help:"Only events that were received before this time, or how long ago at least."`
	Desc  bool   `help:"Newest first."`
	Limit uint64 `default:"100" placeholder:"N" help:"End after so many events; 0 for all. Default: 100."`
	View  string `enum:"full,typed,raw" default:"full" help:"Which parts of an event to ask for: full, typed (without the raw JSON) or raw (without the payload)."`
	JSON  bool   `name:"json" help:"Print each event as one JSON object with the fields of eventrelay.v1.Event, one a line."`
}

// Run prints the events page by page as they come: a list may be longer than the memory.
func (l *listEvents) Run(ctx context.Context, out *output) (err error) {
	buffer := bufio.NewWriter(out.out)
	defer func() { err = errors.Join(err, buffer.Flush()) }()
	lines := printer{out: buffer, json: l.JSON, width: terminalWidth(out.out)}
	request := &eventrelayv1.ListEventsRequest{
		Filter: l.Filter, StartTime: l.From.at, EndTime: l.To.at,
		View: eventrelayv1.EventView(eventrelayv1.EventView_value["EVENT_VIEW_"+strings.ToUpper(l.View)]),
	}
	if l.Desc {
		request.OrderBy = "sequence desc"
	}
	return l.call(ctx, 0, func(ctx context.Context, c *client.Client) error {
		var printed uint64
		return pages(func(token string) (string, error) {
			request.PageToken, request.PageSize = token, eventPage
			// One more than is wanted tells whether there are more.
			if left := l.Limit - printed; l.Limit > 0 && left < eventPage {
				request.PageSize = int32(left) + 1
			}
			asked, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			page, err := c.Events().ListEvents(asked, request)
			if err != nil {
				return "", err
			}
			for _, event := range page.GetEvents() {
				if l.Limit > 0 && printed == l.Limit {
					out.note("there are more than %d: raise --limit, or give 0 for all", l.Limit)
					return "", buffer.Flush()
				}
				if err := lines.print(event); err != nil {
					return "", fmt.Errorf("print events: %w", err)
				}
				printed++
			}
			following := page.GetNextPageToken()
			if l.Limit > 0 && printed == l.Limit && following != "" {
				out.note("there may be more than %d: raise --limit, or give 0 for all", l.Limit)
				following = ""
			}
			return following, buffer.Flush()
		})
	})
}

// getEvent prints one event.
type getEvent struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The event's id."`
	Raw  bool   `xor:"form" help:"Write the JSON that the event was made from, byte for byte and nothing else. On a terminal, control characters are escaped."`
	JSON bool   `name:"json" xor:"form" help:"Print the event as one JSON object on a line, with the fields of eventrelay.v1.Event."`
}

// Run prints the event as JSON, spread over lines for people.
func (g *getEvent) Run(ctx context.Context, out *output) error {
	return g.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		if g.Raw {
			return g.raw(ctx, c, out)
		}
		event, err := c.Events().GetEvent(ctx, &eventrelayv1.GetEventRequest{Id: g.ID})
		if err != nil {
			return err
		}
		text, err := jsonOf(event)
		if err != nil {
			return err
		}
		if !g.JSON {
			text = indented(text)
		}
		if _, err := io.WriteString(out.out, text+"\n"); err != nil {
			return fmt.Errorf("print event: %w", err)
		}
		return nil
	})
}

// raw writes the event's raw JSON as it comes.
func (g *getEvent) raw(ctx context.Context, c *client.Client, out *output) error {
	parts, err := c.Events().GetEventRaw(ctx, &eventrelayv1.GetEventRawRequest{Id: g.ID})
	if err != nil {
		return err
	}
	if _, shown := terminal(out.out); shown {
		// Gathered, for a part may end inside a character.
		var whole strings.Builder
		if err := copyParts(&whole, parts.Recv); err != nil {
			return err
		}
		lines := strings.Split(whole.String(), "\n")
		for i, line := range lines {
			lines[i] = visible(line)
		}
		_, err := io.WriteString(out.out, strings.Join(lines, "\n")+"\n")
		return err
	}
	return copyParts(out.out, parts.Recv)
}

// copyParts writes the parts of a stream until it ends.
func copyParts[P interface{ GetData() []byte }](w io.Writer, next func() (P, error)) error {
	for {
		part, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if _, err := w.Write(part.GetData()); err != nil {
			return fmt.Errorf("write raw JSON: %w", err)
		}
	}
}

// listEventTypes prints a line per event type.
type listEventTypes struct {
	connection `embed:""`

	JSON bool `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.ListEventTypesResponse."`
}

// Run prints all types.
func (l *listEventTypes) Run(ctx context.Context, out *output) error {
	all := &eventrelayv1.ListEventTypesResponse{}
	err := l.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		return pages(func(token string) (string, error) {
			page, err := c.Schema().ListEventTypes(ctx, &eventrelayv1.ListEventTypesRequest{PageSize: eventPage, PageToken: token})
			all.EventTypes = append(all.EventTypes, page.GetEventTypes()...)
			return page.GetNextPageToken(), err
		})
	})
	switch {
	case err != nil:
		return err
	case l.JSON:
		return out.printJSON(all)
	}
	rows := table{}
	rows.row("TYPE", "FIELD", "MESSAGE")
	for _, t := range all.GetEventTypes() {
		rows.row(t.GetType(), t.GetPayloadField(), t.GetPayloadMessage())
	}
	return rows.print(out.out, "")
}

// listDrift prints a line per kind of drift.
type listDrift struct {
	connection `embed:""`

	Since moment `env:"-" placeholder:"TIME" help:"Only what was seen after this time (RFC 3339), or in the last 10m, 24h, 7d."`
	JSON  bool   `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.ListDriftResponse."`
}

// Run prints all drift.
func (l *listDrift) Run(ctx context.Context, out *output) error {
	all := &eventrelayv1.ListDriftResponse{}
	err := l.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		return pages(func(token string) (string, error) {
			page, err := c.Schema().ListDrift(ctx, &eventrelayv1.ListDriftRequest{PageSize: eventPage, PageToken: token, SeenAfter: l.Since.at})
			all.Drift = append(all.Drift, page.GetDrift()...)
			all.Cursor, all.Forgotten = page.GetCursor(), page.GetForgotten()
			return page.GetNextPageToken(), err
		})
	})
	switch {
	case err != nil:
		return err
	case l.JSON:
		return out.printJSON(all)
	case len(all.GetDrift()) == 0:
		out.note("no drift: the schema knows all that was sent")
	default:
		rows := table{}
		rows.row("KIND", "TYPE", "PATH", "WORD", "COUNT", "FIRST", "LAST", "SAMPLE")
		for _, d := range all.GetDrift() {
			rows.row(word(d.GetKind()), d.GetType(), d.GetPath(), d.GetWord(), strconv.FormatUint(d.GetCount(), 10),
				when(d.GetFirstSeenTime()), when(d.GetLastSeenTime()), d.GetSampleEventId())
		}
		if err := rows.print(out.out, ""); err != nil {
			return err
		}
	}
	if all.GetForgotten() > 0 {
		out.note("%d kinds of drift were forgotten, because there were too many", all.GetForgotten())
	}
	return nil
}
