package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"eventrelay/server/webhook"
)

// Whatever comes: no panic, at most one append, and a 200 to a POST if and only if the inbox took exactly the body, which was
// then signed JSON of a length as declared. No answer shows a secret.
func FuzzHandler(f *testing.F) {
	type seed struct {
		method, path, query, contentType, signature, body string
		declared                                          int
		signed, fails                                     bool
	}
	for _, s := range []seed{
		{"POST", "/webhooks/shop", "", "application/json", "", message, len(message), true, false},
		{"POST", "/webhooks/shop", "", "application/json", "", message, -1, true, false},
		{"POST", "/webhooks/shop", "", "application/json", "", message, len(message), true, true},
		{"POST", "/webhooks/shop", "", "application/json", "", message, len(message) - 1, true, false},
		{"POST", "/webhooks/shop", "", "application/json", "", message, len(message) + 1, true, false},
		{"POST", "/webhooks/shop", "", "application/json", "sha256=00", message, len(message), false, false},
		{"POST", "/webhooks/shop", "", "application/json", "", "", 0, true, false},
		{"POST", "/webhooks/shop", "", "application/json", "", "{", 1, true, false},
		{"POST", "/webhooks/closed", "", "application/json", "", message, len(message), true, false},
		{"POST", "/webhooks/../shop", "", "application/json", "", message, len(message), true, false},
		{"GET", "/webhooks/shop", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=" + shopToken, "", "", "", 0, false, false},
		{"GET", "/webhooks/shop", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=x", "", "", "", 0, false, false},
		{"PUT", "/webhooks/shop", "", "text/plain", "", "x", 1, false, false},
	} {
		f.Add(s.method, s.path, s.query, s.contentType, s.signature, []byte(s.body), s.declared, s.signed, s.fails)
	}
	const limit = 1000
	sources := testSources(f)
	f.Fuzz(func(t *testing.T, method, path, query, contentType, signature string, body []byte, declared int, signed, fails bool) {
		box := &inbox{}
		if fails {
			box.err = errors.New("not taken")
		}
		if signed {
			signature = sign(shopSecret, string(body))
		}
		request := &http.Request{
			Method:        method,
			URL:           &url.URL{Path: path, RawQuery: query},
			Header:        http.Header{jsonType: {contentType}, hubSignature: {signature}},
			Body:          io.NopCloser(bytes.NewReader(body)),
			ContentLength: int64(max(declared, -1)),
		}
		recorder := httptest.NewRecorder()
		webhook.New(webhook.Options{Sources: sources, Inbox: box, MaxBody: limit}).ServeHTTP(recorder, request)

		records := box.got()
		if len(records) > 1 {
			t.Fatalf("Append was called %d times", len(records))
		}
		stored := len(records) == 1
		if stored && !bytes.Equal(records[0].Body, body) {
			t.Fatalf("%q was stored of %q", records[0].Body, body)
		}
		authentic := path == "/webhooks/shop" && strings.EqualFold(strings.TrimPrefix(signature, "sha256="), strings.TrimPrefix(sign(shopSecret, string(body)), "sha256=")) ||
			strings.HasPrefix(path, "/webhooks/") && strings.EqualFold(signature, sign(oldSecret, string(body)))
		if stored && (method != "POST" || !authentic || !json.Valid(body) || len(body) > limit || declared >= 0 && declared != len(body)) {
			t.Fatalf("%s %q with %q and %q, declared %d: stored", method, path, signature, body, declared)
		}
		answered := recorder.Body.String()
		switch {
		case recorder.Code == 200 && method == "POST":
			if !stored || fails || answered != "" {
				t.Fatalf("200 with %q; stored %v, failed %v", answered, stored, fails)
			}
		case recorder.Code == 200 && method == "GET":
			values := (&url.URL{RawQuery: query}).Query()
			if stored || values.Get("hub.verify_token") != shopToken || answered != values.Get("hub.challenge") {
				t.Fatalf("a handshake with %q is answered %q", query, answered)
			}
		case recorder.Code == 200 || stored && !fails:
			t.Fatalf("%s is answered %d; stored %v", method, recorder.Code, stored)
		case strings.Contains(answered, "s3cr3t") || strings.Contains(answered, "t0ken") || strings.Count(answered, "\n") != 1:
			t.Fatalf("the refusal says %q", answered)
		}
	})
}
