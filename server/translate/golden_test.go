package translate

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// notify is a body as source shop receives it at a fixed moment.
func notify(body []byte) Notification {
	return Notification{
		Source: "shop", Provider: eventrelayv1.Provider_PROVIDER_META, Body: body,
		ReceivedAt: time.Date(2026, 11, 21, 9, 0, 0, 500, time.UTC),
	}
}

// decoded is an Event with its message.
type decoded struct {
	Event
	msg *eventrelayv1.Event
}

// head is the encoding of an event without raw, its last field.
func head(t testing.TB, ev Event) []byte {
	t.Helper()
	raw := (*eventrelayv1.Event)(nil).ProtoReflect().Descriptor().Fields().ByName("raw").Number()
	for at := 0; at < len(ev.Data); {
		number, _, n := protowire.ConsumeField(ev.Data[at:])
		if n < 0 {
			t.Fatalf("%s has no field at byte %d", ev.ID, at)
		}
		if number == raw {
			if at+n < len(ev.Data) {
				t.Fatalf("%s: %d bytes follow raw", ev.ID, len(ev.Data)-at-n)
			}
			return ev.Data[:at]
		}
		at += n
	}
	return ev.Data
}

// translated makes the events of a body and decodes them, checking what holds for every event.
func translated(t testing.TB, body string) []decoded {
	t.Helper()
	events := Translate(notify([]byte(body)))
	if len(events) == 0 {
		t.Fatalf("no event for %.200q", body)
	}
	var all []decoded
	for _, ev := range events {
		msg := &eventrelayv1.Event{}
		// The libraries of other languages refuse messages that lie deeper than 100 in each other; what wraps an event takes a few.
		if err := (proto.UnmarshalOptions{RecursionLimit: 95}).Unmarshal(ev.Data, msg); err != nil {
			t.Fatalf("%s is not an Event: %v", ev.ID, err)
		}
		if msg.GetId() != ev.ID || msg.GetType() != ev.Type || msg.GetOrderingKey() != ev.OrderingKey {
			t.Fatalf("event and its encoding differ: %+v and %v", ev, msg)
		}
		typed := &eventrelayv1.Event{}
		if err := proto.Unmarshal(head(t, ev), typed); err != nil || len(typed.GetRaw()) > 0 {
			t.Fatalf("%s without raw: %v, raw %q", ev.ID, err, typed.GetRaw())
		}
		all = append(all, decoded{ev, msg})
	}
	return all
}

// only is the one event of a body.
func only(t testing.TB, body string) decoded {
	t.Helper()
	events := translated(t, body)
	if len(events) != 1 {
		t.Fatalf("%d events, want 1, for %s", len(events), body)
	}
	return events[0]
}

// readable is the events as JSON that always looks the same.
func readable(t testing.TB, events []decoded) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, ev := range events {
		raw := ev.msg.GetRaw()
		ev.msg.Raw = nil
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(ev.msg)
		if err != nil {
			t.Fatal(err)
		}
		ev.msg.Raw = raw
		if err := json.Indent(&out, b, "", "  "); err != nil {
			t.Fatal(err)
		}
		shown := string(raw)
		if !utf8.Valid(raw) {
			shown = strconv.Quote(shown)
		}
		out.WriteString("\nraw: " + shown + "\n\n")
	}
	return out.Bytes()
}

// Each case is a body of one shape, kind or malformation, and the events that it makes.
func TestEachShapeMakesTheEventsOfItsGoldenFile(t *testing.T) {
	bodies, err := filepath.Glob("testdata/cases/*.json")
	if err != nil || len(bodies) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range bodies {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := readable(t, translated(t, string(body)))
			golden := strings.TrimSuffix(path, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("events differ from %s (run with -update and look at the difference):\n%s", golden, diff)
			}
		})
	}
}
