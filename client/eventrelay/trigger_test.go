package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mappingv1 "eventrelay/gen/go/eventrelay/mapping/v1"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// hook is a webhook port that keeps what it is sent.
type hook struct {
	answer func(http.ResponseWriter) // nil: 200

	mu    sync.Mutex // guards posts
	posts []post
}

type post struct {
	path   string
	header http.Header
	body   []byte
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost {
		http.Error(w, "no post", http.StatusInternalServerError)
		return
	}
	h.mu.Lock()
	h.posts = append(h.posts, post{r.URL.Path, r.Header, body})
	h.mu.Unlock()
	if h.answer != nil {
		h.answer(w)
	}
}

func (h *hook) serve(t *testing.T) (url string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// signed reports whether a post carries the provider's signature over its bytes, and no other's.
func signed(p post, provider, secret string) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(p.body)
	signature := hex.EncodeToString(mac.Sum(nil))
	meta, dialog360 := p.header.Get("X-Hub-Signature-256"), p.header.Get("X-360dialog-Signature")
	if provider == providerDialog360 {
		return dialog360 == signature && meta == ""
	}
	return meta == "sha256="+signature && dialog360 == ""
}

func TestTriggerPostsEverySampleSignedToItsSource(t *testing.T) {
	all, err := samples()
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	for _, s := range all {
		h := &hook{}
		url := h.serve(t)
		got := eventrelay(t, "trigger", s.eventType, "--url", url)
		if got.code != exitDone || len(h.posts) != 1 {
			t.Fatalf("%s: exit %d after %d posts: %s", s.eventType, got.code, len(h.posts), got.err)
		}
		p := h.posts[0]
		if !json.Valid(p.body) || bytes.Contains(p.body, []byte("{{")) || p.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: posts %s as %s", s.eventType, p.body, p.header.Get("Content-Type"))
		}
		if !signed(p, s.provider(), "dev-app-secret") {
			t.Errorf("%s: wrong signature in %v", s.eventType, p.header)
		}
		if want := map[string]string{providerMeta: "/webhooks/dev", providerDialog360: "/webhooks/dev360"}[s.provider()]; p.path != want {
			t.Errorf("%s: posted to %s", s.eventType, p.path)
		}
		printed.WriteString(strings.ReplaceAll(got.out, url, "URL"))
	}
	golden(t, "trigger.golden", printed.String())
}

func TestEachTriggerIsANewNotification(t *testing.T) {
	all, err := samples()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, s := range all {
		first, err := s.render("same", now)
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.render("same", now)
		if err != nil {
			t.Fatal(err)
		}
		// The entry's time is not all that differs: two within a second are two as well.
		if bytes.Equal(first, second) {
			t.Errorf("%s is the same twice: %s", s.eventType, first)
		}
	}
}

func TestTriggerTellsNowAsTheTime(t *testing.T) {
	s, err := findSample("message")
	if err != nil {
		t.Fatal(err)
	}
	body, err := s.render("hi", at)
	if err != nil || !bytes.Contains(body, fmt.Appendf(nil, `"timestamp":"%d"`, at.Unix())) {
		t.Errorf("%s (%v)", body, err)
	}
}

func TestTriggerBatchesRepeatsAndTurnsTheOrderOfTime(t *testing.T) {
	for provider, eventType := range map[string]string{providerMeta: "message", providerDialog360: "channel_live"} {
		h := &hook{}
		url := h.serve(t)
		if got := eventrelay(t, "trigger", eventType, "--url", url, "--batch", "3", "--count", "2", "--duplicate"); got.code != 0 {
			t.Fatalf("exit %d: %s", got.code, got.err)
		}
		if len(h.posts) != 4 || !bytes.Equal(h.posts[0].body, h.posts[1].body) || bytes.Equal(h.posts[0].body, h.posts[2].body) || !bytes.Equal(h.posts[2].body, h.posts[3].body) {
			t.Fatalf("%d posts, want two bodies, each twice", len(h.posts))
		}
		var envelope struct {
			Entry []json.RawMessage `json:"entry"`
		}
		var array []json.RawMessage
		if provider == providerMeta {
			json.Unmarshal(h.posts[0].body, &envelope)
		} else {
			json.Unmarshal(h.posts[0].body, &array)
		}
		if got := slices.Concat(envelope.Entry, array); len(got) != 3 || bytes.Equal(got[0], got[1]) || !signed(h.posts[0], provider, "dev-app-secret") {
			t.Errorf("%s: batch of %d: %s", eventType, len(got), h.posts[0].body)
		}
	}

	h := &hook{}
	if got := eventrelay(t, "trigger", "--url", h.serve(t), "--count", "3", "--out-of-order"); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	before := ""
	for _, p := range h.posts {
		_, at, _ := strings.Cut(string(p.body), `"timestamp":"`)
		at, _, _ = strings.Cut(at, `"`)
		if before != "" && at >= before {
			t.Errorf("%s is posted after %s", at, before)
		}
		before = at
	}
}

func TestTriggerListsItsSamples(t *testing.T) {
	got := eventrelay(t, "trigger", "--list")
	if got.code != exitDone {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	golden(t, "trigger.list.golden", got.out)
}

func TestTriggerTakesTheLastWordsOfAnEventType(t *testing.T) {
	for word, want := range map[string]string{
		"": defaultSample, "message": defaultSample, "messages.status": "meta.whatsapp_business_account.messages.status", "channel_live": "dialog360.channel_live",
		"photos": "meta.user.photos", "meta.user.photos": "meta.user.photos", "status": "meta.whatsapp_business_account.messages.status", "page.messaging.message": "meta.page.messaging.message", "unknown": "meta.whatsapp_business_account.unknown",
	} {
		h := &hook{}
		args := []string{"trigger", "--url", h.serve(t)}
		if word != "" {
			args = append(args, word)
		}
		if got := eventrelay(t, args...); !strings.HasPrefix(got.out, "sent "+want+" (") {
			t.Errorf("%q: %s%s", word, got.out, got.err)
		}
	}
}

func TestTriggerSaysTheTextItIsGiven(t *testing.T) {
	h := &hook{}
	text := "Grüße \"quoted\"\n{{wamid}} </script>"
	if got := eventrelay(t, "trigger", "--url", h.serve(t), "--text", text); got.code != exitDone {
		t.Fatal(got.err)
	}
	var body struct {
		Entry []struct {
			Changes []struct {
				Value struct {
					Messages []struct {
						ID   string            `json:"id"`
						Text map[string]string `json:"text"`
					} `json:"messages"`
				} `json:"value"`
			} `json:"changes"`
		} `json:"entry"`
	}
	if err := json.Unmarshal(h.posts[0].body, &body); err != nil {
		t.Fatal(err)
	}
	message := body.Entry[0].Changes[0].Value.Messages[0]
	if message.Text["body"] != text || !strings.HasPrefix(message.ID, "wamid.") {
		t.Errorf("says %q", message)
	}
}

func TestTriggerPostsAFileByteForByte(t *testing.T) {
	for name, c := range map[string]struct {
		body     string
		args     []string
		provider string
		path     string
	}{
		"meta":             {"{ \"object\": \"page\",\n\t\"entry\": [] }\n", nil, providerMeta, "/webhooks/dev"},
		"360dialog":        {`{"event": "channel_live", "data": {"id": "x"}}`, nil, providerDialog360, "/webhooks/dev360"},
		"both":             {`{"event": "x", "entry": []}`, nil, providerMeta, "/webhooks/dev"},
		"neither":          {`[not even JSON`, nil, providerMeta, "/webhooks/dev"},
		"another provider": {`{"entry":[]}`, []string{"--provider", "dialog360-partner", "--source", "shop-2", "--secret", "hush"}, providerDialog360, "/webhooks/shop-2"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "body.json")
			if err := os.WriteFile(file, []byte(c.body), 0o600); err != nil {
				t.Fatal(err)
			}
			h := &hook{}
			got := eventrelay(t, append([]string{"trigger", "--url", h.serve(t), "--count", "2", "--file", file}, c.args...)...)
			if got.code != exitDone || len(h.posts) != 2 {
				t.Fatalf("exit %d after %d posts: %s", got.code, len(h.posts), got.err)
			}
			secret := "dev-app-secret"
			if slices.Contains(c.args, "hush") {
				secret = "hush"
			}
			for _, p := range h.posts {
				if string(p.body) != c.body || p.path != c.path || !signed(p, c.provider, secret) {
					t.Errorf("posted %q to %s with %v", p.body, p.path, p.header)
				}
			}
			if strings.Contains(got.out+got.err, secret) {
				t.Errorf("the secret is printed: %s%s", got.out, got.err)
			}
		})
	}
}

func TestTriggerFailsOnAnyAnswerButOKAndShowsIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter)
		says   []string
	}{
		{"401", func(w http.ResponseWriter) { http.Error(w, "signature missing or wrong", 401) }, []string{"401 Unauthorized", "signature missing or wrong", "--secret"}},
		{"404", func(w http.ResponseWriter) { http.Error(w, "unknown source", 404) }, []string{"404 Not Found", "unknown source", "--source"}},
		{"503", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "journal is full\nmore", 503)
		}, []string{"503", "journal is full", "again in 7 s"}},
		{"202", func(w http.ResponseWriter) { w.WriteHeader(202) }, []string{"202 Accepted", "(no text)"}},
		{"302", func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) }, []string{"302 Found"}},
		{"hostile", func(w http.ResponseWriter) { http.Error(w, "\x1b[2J"+strings.Repeat("x", 1<<20), 500) }, []string{"500", `\u001b[2J`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &hook{answer: c.answer}
			got := eventrelay(t, "trigger", "--url", h.serve(t), "--count", "3")
			if got.code != exitFailure || len(h.posts) != 1 || strings.Count(got.out, "\n") != 1 || strings.Count(got.err, "\n") != 1 || len(got.err) > 5000 {
				t.Errorf("exit %d after %d posts:\n%s%.200s", got.code, len(h.posts), got.out, got.err)
			}
			for _, word := range c.says {
				if !strings.Contains(got.err, word) {
					t.Errorf("%q is not in: %.200s", word, got.err)
				}
			}
		})
	}
}

func TestTriggerFailsWithoutAServer(t *testing.T) {
	got := eventrelay(t, "trigger", "--url", "http://"+unused(t))
	if got.code != exitFailure || got.out != "" || !strings.Contains(got.err, "is the server running?") {
		t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
	}
}

func TestInterruptEndsTrigger(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	h := &hook{answer: func(http.ResponseWriter) { interrupt() }}
	var out, diag bytes.Buffer
	if code := run(ctx, []string{"trigger", "--url", h.serve(t), "--count", "1000000"}, strings.NewReader(""), &out, &diag); code != exitFailure {
		t.Errorf("exit %d", code)
	}
}

func TestWrongTriggersNameTheFlagAndTheFix(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"mesage"}, []string{`"mesage"`, "--list"}},
		{[]string{"messages"}, []string{`"messages"`, "meta.instagram.messages", "meta.page.messages", "--list"}},
		{[]string{"photos", "--text", "hi"}, []string{"--text", defaultSample}},
		{[]string{"photos", "--file", file}, []string{"--file", "event type"}},
		{[]string{"--text", "hi", "--file", file}, []string{"--file", "--text"}},
		{[]string{"--file", "/does/not/exist"}, []string{"--file"}},
		{[]string{"--url", "127.0.0.1:8080"}, []string{"--url", "http://"}},
		{[]string{"--url", "ftp://127.0.0.1"}, []string{"--url", "http://"}},
		{[]string{"--source", "../v1"}, []string{"--source", "dashes"}},
		{[]string{"--source", "Shop"}, []string{"--source", "lower-case"}},
		{[]string{"--secret", ""}, []string{"--secret"}},
		{[]string{"--count", "0"}, []string{"--count", "1 or more"}},
		{[]string{"--batch", "1001"}, []string{"--batch", "1000"}},
		{[]string{"--batch", "2", "--file", file}, []string{"--file", "--batch"}},
		{[]string{"--provider", "facebook"}, []string{"--provider", "meta", "dialog360-partner"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got := eventrelay(t, append([]string{"trigger"}, c.args...)...)
			if got.code != exitUsage || got.out != "" {
				t.Errorf("exit %d, printed %q", got.code, got.out)
			}
			for _, word := range c.says {
				if !strings.Contains(got.err, word) {
					t.Errorf("%q is not in: %s", word, got.err)
				}
			}
		})
	}
}

// item digs the part of a sample that becomes the payload out of its body.
func item(t *testing.T, s sample) any {
	t.Helper()
	rendered, err := s.render("hi", at)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(rendered, &body); err != nil {
		t.Fatal(err)
	}
	value := told(body)
	for _, beside := range []string{"messaging_product", "metadata", "contacts"} {
		delete(value, beside)
	}
	// A WhatsApp value that has items has nothing else, but the id that 360dialog adds.
	for _, list := range []string{
		"messages", "statuses", "errors", "calls", "message_echoes", "groups", "history", "state_sync", "automatic_events", "user_preferences",
		"user_id_update", "user_actions", "events",
	} {
		if items, ok := value[list].([]any); ok {
			return items[0]
		}
	}
	return value
}

// told digs what a body tells out of its envelope.
func told(body map[string]any) map[string]any {
	if data, ok := body["data"].(map[string]any); ok {
		return data
	}
	if values, ok := body["values"].(map[string]any); ok {
		return values["value"].(map[string]any)
	}
	entry := body["entry"].([]any)[0].(map[string]any)
	for _, list := range []string{"messaging", "standby"} {
		if items, ok := entry[list].([]any); ok {
			return items[0].(map[string]any)
		}
	}
	changes, ok := entry["changes"].([]any)
	if !ok { // changed_fields: nothing but names
		return nil
	}
	change := changes[0].(map[string]any)
	if value, ok := change["value"].(map[string]any); ok {
		return value
	}
	delete(change, "field")
	return change
}

// payload finds the message that the schema gives to an event type, nil where it has none.
func payload(eventType string) protoreflect.MessageDescriptor {
	words := strings.Split(eventType, ".")
	fields := (&eventrelayv1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("payload").Fields()
	for i := range fields.Len() {
		patterns, _ := proto.GetExtension(fields.Get(i).Options(), mappingv1.E_PayloadFor).([]string)
		for _, pattern := range patterns {
			if slices.EqualFunc(strings.Split(pattern, "."), words, func(p, w string) bool { return p == "*" || p == w }) {
				return fields.Get(i).Message()
			}
		}
	}
	return nil
}

func TestSamplesSayOnlyWhatTheSchemaTypes(t *testing.T) {
	all, err := samples()
	if err != nil {
		t.Fatal(err)
	}
	var untyped []string
	for _, s := range all {
		message := payload(s.eventType)
		if message == nil {
			untyped = append(untyped, s.eventType)
			continue
		}
		held := item(t, s)
		if message.FullName() == "whatsapp.webhooks.v1.NoItems" {
			delete(held.(map[string]any), "id") // of 360dialog's data: it is the event's entry_id
		}
		for _, path := range unfit(s.eventType, held, message) {
			t.Errorf("no field of the schema: %s", path)
		}
	}
	if want := []string{"meta.whatsapp_business_account.unknown"}; !slices.Equal(untyped, want) {
		t.Errorf("without a payload of their own: %v, want %v", untyped, want)
	}
}

// unfit walks JSON and a message side by side and gives the keys and words that the message has no place for.
func unfit(path string, value any, message protoreflect.MessageDescriptor) []string {
	var paths []string
	object, ok := value.(map[string]any)
	if !ok {
		return []string{path + " is no object"}
	}
	for key, value := range object {
		field := message.Fields().ByName(protoreflect.Name(key))
		if field == nil {
			paths = append(paths, path+"."+key)
			continue
		}
		if value == nil {
			continue
		}
		if field.IsList() {
			value = value.([]any)[0]
		}
		switch {
		case field.Enum() != nil:
			if !slices.Contains(words(field.Enum()), strings.ToUpper(fmt.Sprint(value))) {
				paths = append(paths, fmt.Sprintf("%s.%s=%v", path, key, value))
			}
		case field.Message() != nil && field.Message().ParentFile().Package() != "google.protobuf":
			paths = append(paths, unfit(path+"."+key, value, field.Message())...)
		}
	}
	return paths
}

// words gives an enum's words without the prefix that all its names share.
func words(enum protoreflect.EnumDescriptor) []string {
	prefix := strings.TrimSuffix(string(enum.Values().Get(0).Name()), "UNSPECIFIED")
	var all []string
	for i := range enum.Values().Len() {
		all = append(all, strings.TrimPrefix(string(enum.Values().Get(i).Name()), prefix))
	}
	return all
}
