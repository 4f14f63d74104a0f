package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

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

// UnmarshalText reads `latest`, `earliest`, an RFC 3339 time, a duration before now (`10m`, `10m ago`, `7d`), and takes everything else for a cursor.
func (s *start) UnmarshalText(text []byte) error {
	*s = start{text: string(text)}
	switch s.text {
	case "latest":
		s.from = eventrelayv1.StartFrom_START_FROM_LATEST
		return nil
	case "earliest":
		s.from = eventrelayv1.StartFrom_START_FROM_EARLIEST
		return nil
	}
	at, ok, err := pointInTime(s.text)
	if ok || err != nil {
		s.at = at
		return err
	}
	if s.text == "" || len(s.text) > maxCursor || strings.ContainsFunc(s.text, func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII }) {
		return fmt.Errorf("%q is no place to start: %s", s.text, startForms)
	}
	s.cursor = s.text
	return nil
}

// pointInTime reads an RFC 3339 time or a duration before now (`10m`, `10m ago`, `7d`), and tells whether the text is one.
func pointInTime(text string) (at time.Time, ok bool, err error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, true, nil
	}
	switch back, ok := duration(strings.TrimSpace(strings.TrimSuffix(text, "ago"))); {
	case !ok:
		return time.Time{}, false, nil
	case back < 0:
		return time.Time{}, true, fmt.Errorf("%q lies in the future: give how long ago, as 10m", text)
	default:
		return time.Now().Add(-back), true, nil
	}
}

// duration reads a duration of Go's form, or whole days (`7d`), and tells whether the text is one.
func duration(text string) (time.Duration, bool) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, true
	}
	number, isDays := strings.CutSuffix(text, "d")
	days, err := strconv.ParseUint(number, 10, 16) // at most 179 years, which a Duration holds
	return time.Duration(days) * 24 * time.Hour, isDays && err == nil
}

// moment is a time, the value of flags that take no other place of the log.
type moment struct{ at *timestamppb.Timestamp }

// UnmarshalText reads an RFC 3339 time or a duration before now.
func (m *moment) UnmarshalText(text []byte) error {
	at, ok, err := pointInTime(string(text))
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("%q is no time: give one as 2026-11-21T09:00:00Z, or how long ago as 10m or 7d", text)
	}
	m.at = timestamppb.New(at)
	return nil
}

// startForms says what --from takes.
const startForms = "give latest, earliest, a time (2026-11-21T09:00:00Z), how long ago (10m), or the cursor of an event"

// apply sets the start of a Follow.
func (s *start) apply(o *client.FollowOptions) {
	o.Cursor, o.StartTime, o.From = s.cursor, s.at, s.from
}
