package filter

import (
	"errors"
	"strings"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
)

func text(body string) *eventrelayv1.Event {
	return &eventrelayv1.Event{
		Type: "meta.whatsapp_business_account.messages.message", Sequence: 7,
		Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{
			Type: whatsappv1.MessageType_MESSAGE_TYPE_TEXT,
			Text: &whatsappv1.Text{Body: new(body)},
		}},
	}
}

func TestFiltersSelectByTypePayloadAndEnum(t *testing.T) {
	status := &eventrelayv1.Event{
		Type:    "meta.whatsapp_business_account.messages.status",
		Payload: &eventrelayv1.Event_Status{Status: &whatsappv1.Status{Status: whatsappv1.StatusState_STATUS_STATE_READ}},
	}
	for _, c := range []struct {
		expression string
		event      *eventrelayv1.Event
		want       bool
	}{
		{"", status, true},
		{"  ", status, true},
		{`event.type.startsWith("meta.whatsapp_business_account.messages")`, status, true},
		{`event.message.text.body.contains("hi")`, text("oh hi"), true},
		{`event.message.text.body.contains("hi")`, text("bye"), false},
		{`event.message.text.body == ""`, status, true}, // an unset payload reads as empty
		{`has(event.message)`, status, false},
		{`has(event.message.text)`, text(""), true},
		{`has(event.message.text.body)`, text(""), true},
		{`event.status.status == whatsapp.webhooks.v1.StatusState.STATUS_STATE_READ`, status, true},
		{`event.message.type == whatsapp.webhooks.v1.MessageType.MESSAGE_TYPE_IMAGE`, text(""), false},
		{`event.sequence > 6`, text(""), true},
		{`event.provider == eventrelay.v1.Provider.PROVIDER_META`, text(""), false},
		{`event.received_at < timestamp("2026-01-01T00:00:00Z")`, text(""), true},
		{`event.type.lowerAscii().matches("^meta\\.")`, text(""), true},
	} {
		f, err := Compile(c.expression)
		if err != nil {
			t.Errorf("%s: %v", c.expression, err)
			continue
		}
		got, err := f.Match(c.event)
		if err != nil || got != c.want {
			t.Errorf("%s = %t, %v; want %t", c.expression, got, err, c.want)
		}
	}
}

func TestAnExpressionThatDoesNotCompileIsToldWithItsPlace(t *testing.T) {
	for _, c := range []struct {
		expression   string
		line, column int
		message      string
	}{
		{"event.typ == 'x'", 1, 6, "undefined field 'typ'"},
		{"event.type ==\n  nonsense", 2, 3, "undeclared reference"},
		{"event.type", 0, 0, "must be true or false"},
		{"event.type.matches('(')", 0, 0, "regexp"},
		{"(", 1, 2, "Syntax error"},
	} {
		_, err := Compile(c.expression)
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%q: %v, want an InvalidError", c.expression, err)
			continue
		}
		if invalid.Line != c.line || invalid.Column != c.column || !strings.Contains(invalid.Message, c.message) {
			t.Errorf("%q: %d:%d %q, want %d:%d %q", c.expression, invalid.Line, invalid.Column, invalid.Message, c.line, c.column, c.message)
		}
	}
}

func TestAnEvaluationThatFailsOrCostsTooMuchIsAnErrorAndNoMatch(t *testing.T) {
	long := text(strings.Repeat("a", 5000))
	for range 5000 {
		long.UnknownFields = append(long.UnknownFields, "value.x")
	}
	for _, expression := range []string{
		`1 / (int(event.sequence) - 7) == 0`,
		`event.unknown_fields.all(a, event.unknown_fields.all(b, a == b))`,
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		if got, err := f.Match(long); err == nil || got {
			t.Errorf("%s = %t, %v; want an error", expression, got, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`event.type == "x"`, "(", "event.message.text.body.contains('hi')", "true", "[1].all(x, x > 0)"} {
		f.Add(seed)
	}
	event := text("hi")
	f.Fuzz(func(t *testing.T, expression string) {
		compiled, err := Compile(expression)
		if err != nil {
			return
		}
		if matched, err := compiled.Match(event); matched && err != nil {
			t.Errorf("%q matched with error %v", expression, err)
		}
	})
}
