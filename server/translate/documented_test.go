package translate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
			patterns[ev.Pattern] = true
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
