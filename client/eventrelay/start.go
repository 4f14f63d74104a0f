package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// maxCursor is the longest cursor that a server gives out.
const maxCursor = 256

// start is where reading begins, the value of --from.
type start struct {
	text   string
	from   eventrelayv1.StartFrom
	at     time.Time
	cursor string
}

// UnmarshalText reads `latest`, `earliest`, an RFC 3339 time, a duration before now (`10m`, `10m ago`), and takes everything else for a cursor.
func (s *start) UnmarshalText(text []byte) error {
	*s = start{text: string(text)}
	ago := strings.TrimSpace(strings.TrimSuffix(s.text, "ago"))
	switch s.text {
	case "latest":
		s.from = eventrelayv1.StartFrom_START_FROM_LATEST
		return nil
	case "earliest":
		s.from = eventrelayv1.StartFrom_START_FROM_EARLIEST
		return nil
	}
	if at, err := time.Parse(time.RFC3339, s.text); err == nil {
		s.at = at
		return nil
	}
	if back, err := time.ParseDuration(ago); err == nil {
		if back < 0 {
			return fmt.Errorf("%q lies in the future: give how long ago, as 10m", s.text)
		}
		s.at = time.Now().Add(-back)
		return nil
	}
	if s.text == "" || len(s.text) > maxCursor || strings.ContainsFunc(s.text, func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII }) {
		return fmt.Errorf("%q is no place to start: %s", s.text, startForms)
	}
	s.cursor = s.text
	return nil
}

// startForms says what --from takes.
const startForms = "give latest, earliest, a time (2026-11-21T09:00:00Z), how long ago (10m), or the cursor of an event"

// apply sets the start of a Follow.
func (s *start) apply(o *client.FollowOptions) {
	o.Cursor, o.StartTime, o.From = s.cursor, s.at, s.from
}
