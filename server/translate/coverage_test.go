package translate

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// strange are sample bodies that are broken, or of another platform, on purpose: nothing documents them, so nothing can type them.
var strange = []string{".none.", "notpage", "notinstagram", "unknown", "invalid_field", "foo.bar", "in_orbit", ".bare"}

func TestNearlyEverySampleLeafIsTypedAndTheRestIsNamed(t *testing.T) {
	corpus := os.Getenv("EVENTRELAY_CORPUS")
	if corpus == "" {
		t.Skip("EVENTRELAY_CORPUS is not set: it names the folder of sample bodies, with meta/ and dialog360/")
	}
	var total, typed, events, untyped int
	left := map[string]int{}
	for path, body := range bodies(t) {
		if !strings.HasPrefix(path, corpus) || slices.ContainsFunc(strange, func(s string) bool { return strings.Contains(path, s) }) {
			continue
		}
		for _, ev := range translated(t, string(body)) {
			events++
			all := leaves("", decode(t, ev.msg.GetRaw()))
			total += len(all)
			if ev.msg.GetUnknown() != nil { // the payload holds them as JSON, but no schema does
				untyped++
				left[ev.Type]++
				continue
			}
			for _, leaf := range all {
				if covered(leaf.path, ev.msg.GetUnknownFields()) {
					left[ev.Type+" "+leaf.path]++
				} else {
					typed++
				}
			}
		}
	}
	share := 100 * float64(typed) / float64(total)
	t.Logf("%d events, %d without a typed payload; %d of %d leaves typed: %.2f %%", events, untyped, typed, total, share)
	for what, n := range left {
		t.Logf("not typed: %s (%d)", what, n)
	}
	if share < 99 {
		t.Errorf("%.2f %% of the leaves are typed, want at least 99", share)
	}
}
