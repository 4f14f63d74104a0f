package main

import (
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/translate"
)

func TestEverySampleOfTriggerIsAnEventOfItsType(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "eventrelay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "../client/eventrelay").CombinedOutput(); err != nil {
		t.Fatalf("build the command line: %v\n%s", err, out)
	}
	list, err := exec.CommandContext(t.Context(), tool, "trigger", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, t.TempDir())
	types := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		eventType, _, _ := strings.Cut(line, " ")
		types[eventType] = true
		// Twice, for each trigger is to be a new event.
		if out, err := exec.CommandContext(t.Context(), tool, "trigger", eventType, "--count", "2", "--url", r.webhooks).CombinedOutput(); err != nil {
			t.Errorf("trigger %s: %v\n%s", eventType, err, out)
		}
	}
	count := map[string]int{}
	for _, e := range r.all() {
		count[e.GetType()]++
		if _, unknown := e.GetPayload().(*eventrelayv1.Event_Unknown); unknown && !strings.HasSuffix(e.GetType(), ".unknown") {
			t.Errorf("%s has no typed payload: %s", e.GetType(), e.GetRaw())
		}
		if len(e.GetUnknownFields()) > 0 {
			t.Errorf("%s: the schema does not know %v", e.GetType(), e.GetUnknownFields())
		}
	}
	for eventType := range types {
		if count[eventType] != 2 {
			t.Errorf("two triggers of %s make %d events of that type", eventType, count[eventType])
		}
		delete(count, eventType)
	}
	for _, known := range translate.Types() {
		pattern := regexp.MustCompile("^" + strings.NewReplacer(".", `\.`, "*", "[^.]+").Replace(known.Pattern) + "$")
		if !slices.ContainsFunc(slices.Collect(maps.Keys(types)), pattern.MatchString) {
			t.Errorf("%s has no sample", known.Pattern)
		}
	}
	if code, _ := r.call("GET", "/v1/events?page_size=1000", ""); code != http.StatusOK { // which holds each to the OpenAPI description
		t.Errorf("list all: %d", code)
	}
	if len(count) > 0 {
		t.Errorf("samples make events of other types than they say: %v", count)
	}
}
