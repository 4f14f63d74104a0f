package translate

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// isRedacted says whether a field is marked as one that debug output must not show.
//
// The libraries of C++, Java and Python heed the mark, those of Go do not: there a printed event shows everything, so nothing may print one.
func isRedacted(fd protoreflect.FieldDescriptor) bool {
	options, _ := fd.Options().(*descriptorpb.FieldOptions)
	return options.GetDebugRedact()
}

// isOpen says whether a field can hold whatever the provider sends: text, bytes or free JSON.
func isOpen(fd protoreflect.FieldDescriptor) bool {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return true
	case protoreflect.MessageKind:
		name := fd.Message().FullName()
		return fd.IsMap() || name == "google.protobuf.Any" || strings.HasPrefix(string(name), "google.protobuf.Struct") ||
			name == "google.protobuf.Value" || name == "google.protobuf.ListValue"
	default:
		return false
	}
}

// openFields are the open fields of a message and of all below it, by full name.
func openFields(md protoreflect.MessageDescriptor, all map[protoreflect.FullName]protoreflect.FieldDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[md.FullName()] {
		return
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		switch {
		case isOpen(fd):
			all[fd.FullName()] = fd
		case fd.Message() != nil && fd.Message().FullName() != "google.protobuf.Timestamp":
			openFields(fd.Message(), all, seen)
		}
	}
}

// plainFields are the fields that testdata/plain_fields.txt lists under the reason why they hold nothing of a person.
func plainFields(t *testing.T) map[protoreflect.FullName]string {
	t.Helper()
	text, err := os.ReadFile("testdata/plain_fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	plain, reason := map[protoreflect.FullName]string{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name := protoreflect.FullName(line)
		switch after, isReason := strings.CutPrefix(line, "# "); {
		case isReason:
			reason = after
		case line == "":
			reason = ""
		case reason == "" || plain[name] != "":
			t.Errorf("%s stands under no reason, or twice", name)
		default:
			plain[name] = reason
		}
	}
	return plain
}

func TestEveryFieldThatMayTellOfAPersonIsRedacted(t *testing.T) {
	open := map[protoreflect.FullName]protoreflect.FieldDescriptor{}
	openFields((*eventrelayv1.Event)(nil).ProtoReflect().Descriptor(), open, map[protoreflect.FullName]bool{})
	plain := plainFields(t)
	for name, fd := range open {
		switch reason := plain[name]; {
		case !isRedacted(fd) && reason == "":
			t.Errorf("%s can hold anything: mark it debug_redact, or list it in testdata/plain_fields.txt under the reason why it tells nothing of a person", name)
		case isRedacted(fd) && reason != "":
			t.Errorf("%s is redacted and yet listed as one of the %s", name, reason)
		case !isRedacted(fd) && fd.Kind() != protoreflect.StringKind:
			t.Errorf("%s is free JSON or bytes: no reason makes that plain", name)
		}
	}
	for name := range plain {
		if open[name] == nil {
			t.Errorf("testdata/plain_fields.txt lists %s, which no event has", name)
		}
	}
	if len(open) < 400 {
		t.Errorf("only %d open fields were found", len(open))
	}
}

// personal are keys whose values are of a person wherever they stand in the cases of this package.
var personal = []string{
	"alt_text", "birthday", "body", "caption", "city", "client_user_agent", "contact_email", "contact_name", "contact_phone", "display_phone_number", "email",
	"emoji", "filename", "first_name", "formatted_name", "from", "from_parent_user_id", "from_user_id", "full_name", "input", "invite_link",
	"last_four_digits", "last_name", "latitude", "longitude", "message_id", "new_wa_id", "original_message_id", "parent_user_id", "phone", "phone_number",
	"postal_code", "previous", "current", "recipient_id", "recipient_user_id", "response_json", "review_text", "reviewer_id", "reviewer_name", "sdp", "sender_id", "sender_name",
	"street", "street_1", "subject", "to", "to_user_id", "uid", "user_id", "user_ref", "username", "vcard", "wa_id", "zip",
}

// withheld removes from a message what is redacted.
func withheld(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case isRedacted(fd):
			m.Clear(fd)
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				withheld(v.List().Get(i).Message())
			}
		default:
			withheld(v.Message())
		}
		return true
	})
}

// personalValues are the scalars under the personal keys.
func personalValues(v any, under bool, all []string) []string {
	switch v := v.(type) {
	case ordered:
		for _, m := range v {
			all = personalValues(m.value, slices.Contains(personal, m.key), all)
		}
	case []any:
		for _, e := range v {
			all = personalValues(e, under, all)
		}
	default:
		for _, l := range leaves("", v) {
			if under && len(l.forms[0]) > 3 {
				all = append(all, l.forms[0])
			}
		}
	}
	return all
}

func TestWhatIsNotRedactedTellsNothingOfAPerson(t *testing.T) {
	found := 0
	for path, body := range bodies(t) {
		for _, ev := range translated(t, string(body)) {
			shown := proto.CloneOf(ev.msg)
			withheld(shown.ProtoReflect())
			text := prototext.Format(shown)
			for _, value := range personalValues(decode(t, ev.msg.GetRaw()), false, nil) {
				if value == ev.msg.GetContext().GetMetadata().GetPhoneNumberId() { // samples that have one placeholder for both
					continue
				}
				found++
				if strings.Contains(text, `"`+value+`"`) {
					t.Errorf("%s: %q of a person is in a field that is not redacted: %s", path, value, text)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d personal values were looked for", found)
	}
}
