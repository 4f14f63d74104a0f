package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// What stands in the bodies of this test in every place: nothing but the events themselves may show it.
const (
	privateText   = "private-7fK2"
	privateNumber = "4915755501234"
)

// shows says whether a text has what is private, in whatever case.
func shows(text string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(privateText)) || strings.Contains(text, privateNumber)
}

// filled is a JSON value with every text and number replaced by private ones. Unless all is set, the keys that say what a body is keep
// their values, so that it is understood as before.
func filled(v any, key string, all bool) any {
	switch v := v.(type) {
	case map[string]any:
		made := map[string]any{}
		for k, member := range v {
			made[k] = filled(member, k, all)
		}
		if len(v) > 0 && !all {
			made["new_"+privateText] = privateText
		}
		return made
	case []any:
		made := []any{}
		for _, element := range v {
			made = append(made, filled(element, key, all))
		}
		return made
	case string:
		if !all && slices.Contains([]string{"object", "field", "event", "type", "changed_fields"}, key) {
			return v
		}
		return privateText
	case json.Number, float64:
		return json.Number(privateNumber)
	default:
		return v
	}
}

// privateBodies are bodies of every kind with private values: understood ones, ones that fit nothing, and broken ones.
func privateBodies(t *testing.T) (whole, broken [][]byte) {
	t.Helper()
	cases, err := filepath.Glob("translate/testdata/cases/*.json")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	samples, err := filepath.Glob("../client/eventrelay/samples/*.json")
	if err != nil || len(samples) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	var batch [][]byte // several bodies in one post: each post waits for the disk
	for i, path := range append(cases, samples...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var body any
		if json.Unmarshal(text, &body) != nil {
			continue
		}
		for _, all := range []bool{false, true} {
			made, err := json.Marshal(filled(body, "", all))
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, made)
			if end := bytes.LastIndex(made, []byte(privateText)); end > 0 {
				broken = append(broken, made[:end+len(privateText)])
			}
		}
		if len(batch) >= 10 || i == len(cases)+len(samples)-1 {
			whole = append(whole, slices.Concat([]byte("["), bytes.Join(batch, []byte(",")), []byte("]")))
			batch = nil
		}
	}
	for _, text := range []string{
		`%q`, `{"object":%q}`, `{%q:%[1]q}`, `{"object":"page","entry":[{"id":%q,"messaging":[{%[1]q:{}}]}]}`, `[%q,[%[1]q]]`,
		`{"object":"page","entry":%q}`, `{"event":%q,"data":%[1]q}`, `{"values":{"field":%q,"value":%[1]q}}`,
	} {
		whole = append(whole, fmt.Appendf(nil, text, privateText))
	}
	for _, text := range []string{"%s", "{%s}", `{"a":%s}`, "\xff%s", `{"a":"%s`, `{"a":"%s"} x`, `{"a":"\%s"}`, "\"%s\n\""} {
		broken = append(broken, fmt.Appendf(nil, text, privateText))
	}
	return whole, broken
}

// Go's protobuf prints what is marked debug_redact like everything else, so that nothing may print an event, a body, or a part of one: not
// the log, at whatever level, and no answer to whoever sent it.
func TestNothingOfABodyIsInTheLogOrInAnAnswer(t *testing.T) {
	var told record
	r := serveTold(t, t.TempDir(), &told, "--log-level", "debug", "--max-body", "64KiB")
	whole, broken := privateBodies(t)
	for i, body := range whole {
		source := []string{"dev", "dev360"}[i%2]
		if code, answer := r.send("/webhooks/"+source, body, sign(devSecret, body)); code != http.StatusOK || answer != "" {
			t.Errorf("%s: answered %d %q", body, code, answer)
		}
	}
	refused := map[int]int{}
	for _, body := range broken {
		code, answer := r.send("/webhooks/dev", body, sign(devSecret, body))
		refused[code]++
		if shows(answer) {
			t.Errorf("the answer to %s is %d %q", body, code, answer)
		}
	}
	large := bytes.Repeat([]byte(privateText), 8<<10)
	for _, c := range []struct {
		path, signature string
		body            []byte
	}{
		{"/webhooks/dev", sign("another secret", whole[0]), whole[0]},
		{"/webhooks/dev", privateText, whole[0]},
		{"/webhooks/dev360", privateNumber, whole[0]},
		{"/webhooks/dev", sign(devSecret, large), large},
		{"/webhooks/" + url.PathEscape(privateText), "", whole[0]},
		{"/" + url.PathEscape(privateText), "", whole[0]},
		{"/webhooks/dev?hub.mode=" + privateText, "", whole[0]},
	} {
		code, answer := r.send(c.path, c.body, c.signature)
		refused[code]++
		if shows(answer) {
			t.Errorf("%s is answered %d %q", c.path, code, answer)
		}
	}
	if code, answer := r.fetch(r.webhooks + "/webhooks/dev?hub.mode=subscribe&hub.challenge=1&hub.verify_token=" + privateText); code != http.StatusForbidden || shows(answer) {
		t.Errorf("a handshake with a wrong token is answered %d %q", code, answer)
	}
	if refused[http.StatusBadRequest] < len(broken)/2 || refused[http.StatusUnauthorized] == 0 || refused[http.StatusRequestEntityTooLarge] == 0 {
		t.Errorf("refusals by status: %v", refused)
	}

	events := r.all()
	shown := 0
	for _, e := range events {
		if shows(string(e.GetRaw())) {
			shown++
		}
	}
	if len(events) < 200 || shown < len(events)/2 {
		t.Errorf("%d events, %d of them with private values: the test looks at nothing", len(events), shown)
	}
	readPrivately(t, r)
	r.stop()
	log := told.String()
	for _, want := range []string{"level=DEBUG", "reason=not_json", "reason=signature"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q: %.2000s", want, log)
		}
	}
	for line := range strings.Lines(log) {
		if shows(line) {
			t.Errorf("the log shows what is private: %s", line)
		}
	}
}

// readPrivately reads events in ways that fail because of what is in them.
func readPrivately(t *testing.T, r *relay) {
	t.Helper()
	for _, filter := range []string{`int(event.entry_id) < 0`, `timestamp(event.message.text.body) < timestamp(0)`, `event.message.text.body.matches(event.message.text.body + "(")`} {
		if code, answer := r.get("/v1/events?filter=" + url.QueryEscape(filter)); shows(answer) {
			t.Errorf("%s: %d %.300s", filter, code, answer)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{
			Filter: filter, CheckpointInterval: durationpb.New(100 * time.Millisecond),
			Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST},
		})
		for err == nil {
			var resp *eventrelayv1.SubscribeResponse
			if resp, err = stream.Recv(); err == nil && resp.GetBacklog() == 0 {
				break
			}
		}
		cancel()
		if err != nil && shows(err.Error()) {
			t.Errorf("%s ends with %v", filter, err)
		}
	}
}

// send posts a body with both kinds of signature and returns the answer.
func (r *relay) send(path string, body []byte, signature string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.webhooks+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+signature)
	req.Header.Set("X-360dialog-Signature", signature)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

func (r *relay) fetch(address string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}
