package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// protoNames writes messages with the names of the .proto files, which for payloads are the provider's own keys.
var protoNames = protojson.MarshalOptions{UseProtoNames: true}

// payloadRoom is how many columns of a terminal the payload has at least: a short text and the word before it fit.
const payloadRoom = 60

// printer writes a line for each event.
type printer struct {
	out   io.Writer
	json  bool
	width int // of the terminal; 0: none, and lines are never cut
	color bool
}

// The colours of a line: what is the same in each is faint, and what went wrong is red.
const (
	faint   = "\x1b[2m"
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
	blue    = "\x1b[34m"
	magenta = "\x1b[35m"
	reset   = "\x1b[0m"
)

// colorOf gives the colour of an event type: by provider and object, but for errors.
func colorOf(eventType string) string {
	switch {
	case strings.HasSuffix(eventType, ".error"), strings.HasSuffix(eventType, ".unknown"), eventType == "unknown":
		return red
	case strings.HasPrefix(eventType, "meta.whatsapp_business_account."):
		return green
	case strings.HasPrefix(eventType, "meta.instagram."):
		return magenta
	case strings.HasPrefix(eventType, "meta."):
		return blue
	default:
		return yellow
	}
}

// print writes the event's line.
func (p *printer) print(event *eventrelayv1.Event) error {
	if p.json {
		text, err := jsonOf(event)
		if err != nil {
			return err
		}
		_, err = io.WriteString(p.out, text+"\n")
		return err
	}
	_, err := io.WriteString(p.out, p.line(event)+"\n")
	return err
}

// line gives time, type, conversation, id and payload of an event, the payload cut to what the terminal has room for.
func (p *printer) line(event *eventrelayv1.Event) string {
	at := event.GetReceivedAt()
	if at == nil {
		at = event.GetOccurredAt()
	}
	when := "-"
	if at != nil {
		when = at.AsTime().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	conversation := cmp.Or(event.GetOrderingKey(), event.GetEntryId(), "-")
	fields := []string{when, cmp.Or(event.GetType(), "-"), conversation, cmp.Or(event.GetId(), "-")}
	for i, field := range fields {
		fields[i] = visible(field)
	}
	head := strings.Join(fields, "  ") + "  "
	rest := visible(cmp.Or(summary(event), "-"))
	if p.width > 0 {
		// As many rows as leave the payload some room, and no more.
		taken := utf8.RuneCountInString(head)
		rows := (taken + payloadRoom + p.width - 1) / p.width
		rest = cut(rest, rows*p.width-taken)
	}
	if p.color { // what is counted above has no width of its own
		for i, color := range []string{faint, colorOf(fields[1]), "", faint} {
			if color != "" {
				fields[i] = color + fields[i] + reset
			}
		}
		head = strings.Join(fields, "  ") + "  "
	}
	return head + rest
}

// summary gives an event's payload by its name, or its raw JSON where it comes without a payload.
func summary(event *eventrelayv1.Event) string {
	reflected := event.ProtoReflect()
	field := reflected.WhichOneof(reflected.Descriptor().Oneofs().ByName("payload"))
	if field == nil {
		return compact(event.GetRaw())
	}
	return string(field.Name()) + " " + telling(reflected.Get(field).Message())
}

// telling gives a message as JSON with what tells the most in front: its words, its figures, what it holds, then texts and ids, and times at last. A line that
// is cut then still says what happened.
func telling(message protoreflect.Message) string {
	text, err := protoNames.Marshal(message.Interface())
	if err != nil {
		return "(" + err.Error() + ")"
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		return compact(text) // a message whose JSON is no object
	}
	var fields []protoreflect.FieldDescriptor
	for i := range message.Descriptor().Fields().Len() {
		if field := message.Descriptor().Fields().Get(i); values[string(field.Name())] != nil {
			fields = append(fields, field)
		}
	}
	slices.SortStableFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return rank(a) - rank(b) })
	parts := make([]string, len(fields))
	for i, field := range fields {
		parts[i] = fmt.Sprintf("%q:%s", field.Name(), compact(values[string(field.Name())]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// rank orders fields by how much they tell at a glance.
func rank(field protoreflect.FieldDescriptor) int {
	switch field.Kind() {
	case protoreflect.EnumKind:
		return 0
	case protoreflect.StringKind, protoreflect.BytesKind:
		return 3
	case protoreflect.MessageKind:
		if field.Message().FullName() == "google.protobuf.Timestamp" {
			return 4
		}
		return 2
	default:
		return 1
	}
}

// compact gives JSON without the spaces between its parts, which protojson varies on purpose. What is no JSON stays as it is.
func compact(text []byte) string {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return string(text)
	}
	return b.String()
}

// visible escapes what a terminal would act on instead of showing it: control characters, C1 and bidirectional ones included. Senders choose their texts. The
// escapes are JSON's, so that JSON stays what it was.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r), r == '\u200c', r == '\u200d': // the joiners are part of words and of emoji
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// cut shortens a line to a width.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}
