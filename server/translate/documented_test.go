package translate

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Each body of testdata/documented.txt is written by hand from what is documented of a field, in all its variants; a line for each of its
// events follows: type, ordering key, second at which it happened. All of it is typed: nothing that is documented is unknown.
func TestEverythingDocumentedIsTyped(t *testing.T) {
	const path = "testdata/documented.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	patterns := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "> ") {
			continue
		}
		got.WriteString(line)
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, ev := range translated(t, line) {
			occurred := "-"
			if at := ev.msg.GetOccurredAt(); at != nil {
				occurred = strconv.FormatInt(at.GetSeconds(), 10)
			}
			fmt.Fprintf(&got, "> %s %s %s\n", ev.Type, ev.OrderingKey, occurred)
			if pattern, ok := PatternOf(ev.Type); ok {
				patterns[pattern] = true
			}
			if ev.msg.GetUnknown() != nil || len(ev.msg.GetUnknownFields()) > 0 {
				t.Errorf("%s is documented, and yet %v is unknown of %s", ev.Type, ev.msg.GetUnknownFields(), ev.msg.GetRaw())
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), got.String()); diff != "" {
		t.Errorf("events differ from %s (run with -update and look at the difference):\n%s", path, diff)
	}
	for _, typ := range Types() {
		if !patterns[typ.Pattern] {
			t.Errorf("%s has no body in %s", typ.Pattern, path)
		}
	}
}

var integer = regexp.MustCompile(`^[1-9][0-9]{0,14}$`)

// swapped is a JSON value with its numbers and bools as strings, its integers in strings as numbers, and lists of one as that one, but
// for the value of a change: there a list is another shape than its element.
func swapped(v any, key string) any {
	switch v := v.(type) {
	case ordered:
		made := ordered{}
		for _, m := range v {
			made = append(made, member{m.key, swapped(m.value, m.key)})
		}
		return made
	case []any:
		if len(v) == 1 && key != "value" {
			return swapped(v[0], key)
		}
		made := []any{}
		for _, e := range v {
			made = append(made, swapped(e, key))
		}
		return made
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case string:
		if integer.MatchString(v) {
			return json.Number(v)
		}
	}
	return v
}

// typedPart is an event without what depends on the form of its JSON: raw, id, and open maps, which keep the form.
func typedPart(ev *eventrelayv1.Event) *eventrelayv1.Event {
	ev = proto.CloneOf(ev)
	ev.Raw, ev.Id = nil, ""
	withoutMaps(ev.ProtoReflect())
	return ev
}

func withoutMaps(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				withoutMaps(v.List().Get(i).Message())
			}
		case fd.Message().FullName() == "google.protobuf.Struct":
			m.Clear(fd)
		default:
			withoutMaps(v.Message())
		}
		return true
	})
}

// Providers send ids and times now as numbers and now as strings, and a list of one as that one; what is documented reads the same then.
func TestWhatIsDocumentedReadsTheSameInWhateverForm(t *testing.T) {
	text, err := os.ReadFile("testdata/documented.txt")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.Lines(string(text)) {
		if line[0] != '{' { // an array of bodies is none of one
			continue
		}
		again := string(writer{}.bytes(swapped(decode(t, []byte(line)), "")))
		want, got := translated(t, line), translated(t, again)
		if len(got) != len(want) {
			t.Errorf("%d events of %s, want %d", len(got), again, len(want))
			continue
		}
		for i := range got {
			compared++
			if diff := cmp.Diff(typedPart(want[i].msg), typedPart(got[i].msg), protocmp.Transform()); diff != "" {
				t.Errorf("%s reads otherwise: %s", again, diff)
			}
		}
	}
	if compared < 200 {
		t.Errorf("only %d events were compared", compared)
	}
}
