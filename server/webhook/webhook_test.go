package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/journal"
	"eventrelay/server/webhook"
)

func TestA200MeansThatTheInboxHasTheNotificationWhole(t *testing.T) {
	r := start(t, nil)
	got := r.do("POST", "/webhooks/shop", strings.NewReader(message),
		jsonType, "application/json", hubSignature, sign(shopSecret, message), "User-Agent", "facebookexternalua", "Facebook-API-Version", "v24.0")
	if got.code != 200 || got.body != "" || got.header.Get("Content-Length") != "0" {
		t.Errorf("answer is %+v; want 200 with an empty body", got)
	}
	records := r.inbox.got()
	if len(records) != 1 {
		t.Fatalf("the inbox was given %d records", len(records))
	}
	record := records[0]
	if record.Source != "shop" || record.Provider != int32(eventrelayv1.Provider_PROVIDER_META) || string(record.Body) != message {
		t.Errorf("the record is %+v", record)
	}
	if !record.ReceivedAt.Equal(testTime) || record.ReceivedAt.Location() != time.UTC {
		t.Errorf("received at %v; want %v in UTC", record.ReceivedAt, testTime)
	}
	want := http.Header{
		"Content-Type":         {"application/json"},
		"User-Agent":           {"facebookexternalua"},
		"X-Hub-Signature-256":  {sign(shopSecret, message)},
		"Facebook-Api-Version": {"v24.0"},
	}
	if !maps.EqualFunc(record.Header, want, slices.Equal) {
		t.Errorf("headers %v; want %v", record.Header, want)
	}
}

func TestCredentialsOfOthersAreNotKept(t *testing.T) {
	r := start(t, nil)
	r.do("POST", "/webhooks/agency", strings.NewReader("{}"), jsonType, "application/json", dialogSignature, sign(agencySecret, "{}"),
		"Authorization", "Basic eDp5", "Cookie", "a=b", "X-Forwarded-For", "192.0.2.1", "X-Api-Key", "k", "Proxy-Authorization", "p")
	records := r.inbox.got()
	if len(records) != 1 {
		t.Fatalf("%d records stored, want one", len(records))
	}
	for name := range records[0].Header {
		if !slices.Contains([]string{"Content-Type", "User-Agent", "X-360dialog-Signature"}, name) {
			t.Errorf("header %s is kept", name)
		}
	}
}

func TestPublishedVectorsAreReceived(t *testing.T) {
	r := start(t, nil)
	vectors := []struct{ body, digest string }{
		{`{"object":"whatsapp_business_account","entry":[]}`, "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"},
		{`{"object": "whatsapp_business_account", "entry": []}`, "56cbbaf4961c6cfdae48b7f116c047e5eb513d2c931baae63a2bc1afd26f803a"},
		{`{"object":"page","entry":[{"id":"1","time":1,"changes":[{"field":"feed","value":{"message":"\u00e4\u00f6\u00e5 \/ \u003C"}}]}]}`, "5c0cbc587309789a7ab81494b81c4a318845004b252090061e1bc37a63395368"},
		{`{"object":"page","entry":[{"id":"1","time":1,"changes":[{"field":"feed","value":{"message":"äöå / <"}}]}]}`, "a03bd5953a041250207036d83077c3b8923cfe0e18e843d4908fceb2d1b650a4"},
	}
	for i, v := range vectors {
		if got := r.do("POST", "/webhooks/vectors", strings.NewReader(v.body), jsonType, "application/json", hubSignature, "sha256="+v.digest); got.code != 200 {
			t.Errorf("%s: %+v", v.body, got)
		}
		if records := r.inbox.got(); len(records) != i+1 || string(records[i].Body) != v.body {
			t.Errorf("%s is not stored as it came", v.body)
		}
	}
}

func TestWhatIsSignedJSONIsReceivedWhateverItSays(t *testing.T) {
	r := start(t, nil)
	bodies := []string{`{}`, `[]`, `null`, `1`, `"x"`, ` {"a":1} ` + "\n", `{"object":"nobody","entry":[{"knows":["this"]}]}`, "[" + strings.Repeat("[", 500) + strings.Repeat("]", 501)}
	for i, body := range bodies {
		if got := r.post(shopSecret, body); got.code != 200 {
			t.Errorf("%s: %+v", body, got)
		}
		if records := r.inbox.got(); len(records) != i+1 || string(records[i].Body) != body {
			t.Errorf("%s is not stored as it came", body)
		}
	}
}

func TestBothSecretsAreAcceptedDuringARotation(t *testing.T) {
	r := start(t, nil)
	for _, secret := range []string{shopSecret, oldSecret} {
		if got := r.post(secret, message); got.code != 200 {
			t.Errorf("%s: %+v", secret, got)
		}
	}
}

func TestA360dialogPartnerMaySignWithOrWithoutPrefix(t *testing.T) {
	r := start(t, nil)
	signature := sign(agencySecret, message)
	for _, s := range []string{signature, strings.TrimPrefix(signature, "sha256=")} {
		if got := r.do("POST", "/webhooks/agency", strings.NewReader(message), jsonType, "application/json", dialogSignature, s); got.code != 200 {
			t.Errorf("%s: %+v", s, got)
		}
	}
	if records := r.inbox.got(); len(records) != 2 || records[0].Provider != int32(eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER) || records[0].Source != "agency" {
		t.Errorf("records: %+v", records)
	}
}

func TestTheHandshakeReturnsTheChallengeAndNothingElse(t *testing.T) {
	r := start(t, nil)
	for query, want := range map[string]string{
		"hub.mode=subscribe&hub.verify_token=" + shopToken + "&hub.challenge=1537258":                           "1537258",
		"tenant=7&hub.mode=subscribe&x=%zz&hub.challenge=a%20b%26c&hub.verify_token=" + shopToken + "&y=1;2":    "a b&c",
		"hub.challenge=%22x%22&hub.verify_token=" + shopToken + "&hub.mode=subscribe":                           `"x"`,
		"hub_mode=no&hub.mode=subscribe&hub.challenge=0&hub.verify_token=" + shopToken + "&hub_verify_token=no": "0",
	} {
		for _, id := range []string{"shop", "closed"} { // also while the source is paused
			got := r.do("GET", "/webhooks/"+id+"?"+query, nil)
			if got.code != 200 || got.body != want || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") || got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s?%s: %+v; want %q", id, query, got, want)
			}
		}
	}
	r.nothingStored()
}

// What is refused, by status, reason and text; nothing of it reaches the inbox.
func TestRefusals(t *testing.T) {
	good := func(extra ...string) []string {
		return append([]string{jsonType, "application/json", hubSignature, sign(shopSecret, message)}, extra...)
	}
	handshake := "hub.mode=subscribe&hub.challenge=1&hub.verify_token=" + shopToken
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		reason, text             string
	}{
		{"unknown source", "POST", "/webhooks/none", message, good(), 404, "unknown_source", "/webhooks/"},
		{"unknown source, GET", "GET", "/webhooks/none?" + handshake, "", nil, 404, "unknown_source", "/webhooks/"},
		{"unknown source, any method", "PURGE", "/webhooks/none", "", nil, 404, "unknown_source", "/webhooks/"},
		{"paused", "POST", "/webhooks/closed", message, good(), 503, "paused", "paused"},
		{"PUT", "PUT", "/webhooks/shop", message, good(), 405, "method", "POST"},
		{"HEAD", "HEAD", "/webhooks/shop?" + handshake, "", nil, 405, "method", ""},
		{"DELETE", "DELETE", "/webhooks/shop", "", nil, 405, "method", "POST"},
		{"GET for 360dialog", "GET", "/webhooks/agency?" + handshake, "", nil, 405, "method", "no handshake"},
		{"no query", "GET", "/webhooks/shop", "", nil, 403, "handshake_mode", "hub.mode"},
		{"wrong mode", "GET", "/webhooks/shop?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=" + shopToken, "", nil, 403, "handshake_mode", "hub.mode"},
		{"two modes", "GET", "/webhooks/shop?hub.mode=subscribe&" + handshake, "", nil, 403, "handshake_mode", "each once"},
		{"wrong token", "GET", "/webhooks/shop?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x", "", nil, 403, "handshake_token", "hub.verify_token"},
		{"empty token", "GET", "/webhooks/shop?hub.mode=subscribe&hub.challenge=1&hub.verify_token=", "", nil, 403, "handshake_token", "hub.verify_token"},
		{"no token", "GET", "/webhooks/shop?hub.mode=subscribe&hub.challenge=1", "", nil, 403, "handshake_token", "hub.verify_token"},
		{"a wrong token and the right one", "GET", "/webhooks/shop?hub.verify_token=x&" + handshake, "", nil, 403, "handshake_token", "each once"},
		{"the right token twice", "GET", "/webhooks/shop?" + handshake + "&hub.verify_token=" + shopToken, "", nil, 403, "handshake_token", "each once"},
		{"no challenge", "GET", "/webhooks/shop?hub.mode=subscribe&hub.verify_token=" + shopToken, "", nil, 403, "handshake_challenge", "hub.challenge"},
		{"two challenges", "GET", "/webhooks/shop?hub.challenge=2&" + handshake, "", nil, 403, "handshake_challenge", "each once"},
		{"form", "POST", "/webhooks/shop", "a=b", []string{jsonType, "application/x-www-form-urlencoded", hubSignature, sign(shopSecret, "a=b")}, 415, "content_type", "application/json"},
		{"text", "POST", "/webhooks/shop", message, []string{jsonType, "text/json-ish", hubSignature, sign(shopSecret, message)}, 415, "content_type", "application/json"},
		{"no type", "POST", "/webhooks/shop", message, []string{hubSignature, sign(shopSecret, message)}, 415, "content_type", "Content-Type"},
		{"two types", "POST", "/webhooks/shop", message, good(jsonType, "application/json"), 415, "content_type", "Content-Type"},
		{"gzip", "POST", "/webhooks/shop", message, good("Content-Encoding", "gzip"), 415, "content_encoding", "Content-Encoding"},
		{"gzip after identity", "POST", "/webhooks/shop", message, good("Content-Encoding", "identity", "Content-Encoding", "gzip"), 415, "content_encoding", "Content-Encoding"},
		{"no signature", "POST", "/webhooks/shop", message, []string{jsonType, "application/json"}, 401, "signature_missing", hubSignature},
		{"malformed signature", "POST", "/webhooks/shop", message, []string{jsonType, "application/json", hubSignature, "sha256=00"}, 401, "signature_malformed", hubSignature},
		{"wrong signature", "POST", "/webhooks/shop", message + " ", good(), 401, "signature_wrong", hubSignature},
		{"no signature, 360dialog", "POST", "/webhooks/agency", message, good(), 401, "signature_missing", dialogSignature},
		{"empty", "POST", "/webhooks/shop", "", []string{jsonType, "application/json", hubSignature, sign(shopSecret, "")}, 400, "empty", "empty"},
		{"not JSON", "POST", "/webhooks/shop", "a=b", []string{jsonType, "application/json", hubSignature, sign(shopSecret, "a=b")}, 400, "not_json", "not JSON"},
		{"JSON cut off", "POST", "/webhooks/shop", message[:20], []string{jsonType, "application/json", hubSignature, sign(shopSecret, message[:20])}, 400, "not_json", "not JSON"},
		{"two values", "POST", "/webhooks/shop", "{} {}", []string{jsonType, "application/json", hubSignature, sign(shopSecret, "{} {}")}, 400, "not_json", "one JSON value"},
		{"byte order mark", "POST", "/webhooks/shop", "\ufeff{}", []string{jsonType, "application/json", hubSignature, sign(shopSecret, "\ufeff{}")}, 400, "not_json", "not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, nil)
			got := r.do(c.method, c.path, strings.NewReader(c.body), c.headers...)
			if got.code != c.code || !strings.Contains(got.body, c.text) {
				t.Errorf("answer is %+v; want %d and %q", got, c.code, c.text)
			}
			if c.method != "HEAD" && (strings.Count(got.body, "\n") != 1 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain")) {
				t.Errorf("not one line of text: %+v", got)
			}
			if has := got.header.Get("Retry-After") != ""; has != (c.code == 503) {
				t.Errorf("Retry-After: %q", got.header.Get("Retry-After"))
			}
			if has := got.header.Get("Allow") != ""; has != (c.code == 405) {
				t.Errorf("Allow: %q", got.header.Get("Allow"))
			}
			r.nothingStored()

			id, _, _ := strings.Cut(strings.TrimPrefix(c.path, "/webhooks/"), "?")
			if id == "none" {
				id = ""
			}
			if got := r.counters("eventrelay_webhook_refused_total"); got[fmt.Sprintf("reason=%s source=%s", c.reason, id)] != 1 || len(got) != 1 {
				t.Errorf("refused_total is %v; want one of %s", got, c.reason)
			}
			if got := r.counters("eventrelay_webhook_requests_total"); got[fmt.Sprintf("code=%d source=%s", c.code, id)] != 1 || len(got) != 1 {
				t.Errorf("requests_total is %v; want one of %d", got, c.code)
			}
			if line := r.log.String(); !strings.Contains(line, "reason="+c.reason) || strings.Count(line, "\n") != 1 {
				t.Errorf("log: %s", line)
			}
		})
	}
}

func TestJSONByTypeIsTakenGenerously(t *testing.T) {
	r := start(t, nil)
	for _, value := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", "application/cloudevents+json", "application/json;charset", "application/json; charset=\"utf-8\""} {
		if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, value, hubSignature, sign(shopSecret, message), "Content-Encoding", "identity"); got.code != 200 {
			t.Errorf("%s: %+v", value, got)
		}
	}
}

func TestSourcesThatAreNotLoadedAre503Never404(t *testing.T) {
	r := start(t, func(_ *relay, o *webhook.Options) { o.Sources = unloaded{} })
	for _, method := range []string{"GET", "POST", "PUT"} {
		if got := r.do(method, "/webhooks/shop", strings.NewReader(message)); got.code != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

func TestTheLimitIsExact(t *testing.T) {
	const limit = 100_000
	r := start(t, func(_ *relay, o *webhook.Options) { o.MaxBody = limit })
	body := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	for _, chunked := range []bool{false, true} {
		for size, want := range map[int]int{limit - 1: 200, limit: 200, limit + 1: 413, 2 * limit: 413} {
			text := body(size)
			var reader io.Reader = strings.NewReader(text)
			if chunked {
				reader = io.MultiReader(reader)
			}
			before := len(r.inbox.got())
			got := r.do("POST", "/webhooks/shop", reader, jsonType, "application/json", hubSignature, sign(shopSecret, text))
			if got.code != want || want == 413 && !strings.Contains(got.body, "limit") {
				t.Errorf("%d bytes, chunked %v: %+v; want %d", size, chunked, got, want)
			}
			if stored := len(r.inbox.got()) - before; stored != map[int]int{200: 1, 413: 0}[want] {
				t.Errorf("%d bytes, chunked %v: %d stored", size, chunked, stored)
			}
		}
	}
}

func TestTheLimitIs4MiBUnlessSet(t *testing.T) {
	r := start(t, nil)
	for size, want := range map[int]int{4 << 20: 200, 4<<20 + 1: 413} {
		if got := r.post(shopSecret, `"`+strings.Repeat("x", size-2)+`"`); got.code != want {
			t.Errorf("%d bytes: %d; want %d", size, got.code, want)
		}
	}
}

func TestABodyOfAnySizeArrivesAsItWasSent(t *testing.T) {
	r := start(t, nil)
	for _, size := range []int{2, 3, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 1<<20 + 1} {
		for _, chunked := range []bool{false, true} {
			text := make([]byte, size)
			for i := range text {
				text[i] = 'a' + byte(i*i%23)
			}
			text[0], text[size-1] = '"', '"'
			var reader io.Reader = bytes.NewReader(text)
			if chunked {
				reader = io.MultiReader(reader)
			}
			if got := r.do("POST", "/webhooks/shop", reader, jsonType, "application/json", hubSignature, sign(shopSecret, string(text))); got.code != 200 {
				t.Fatalf("%d bytes, chunked %v: %+v", size, chunked, got)
			}
			records := r.inbox.got()
			if last := records[len(records)-1]; !bytes.Equal(last.Body, text) {
				t.Errorf("%d bytes, chunked %v: the record differs", size, chunked)
			}
		}
	}
}

func TestA200IsNeverSentWhenTheInboxDidNotTakeIt(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   int
		reason string
	}{
		{journal.ErrFull, 503, "inbox_full"},
		{fmt.Errorf("append: %w", journal.ErrFull), 503, "inbox_full"},
		{fmt.Errorf("append: %w", journal.ErrFailed), 503, "inbox_failed"},
		{journal.ErrClosed, 503, "inbox_closed"},
		{context.Canceled, 503, "inbox_failed"},
		{errors.New("anything else"), 503, "inbox_failed"},
		{journal.ErrTooLarge, 413, "too_large"},
	} {
		r := start(t, func(r *relay, _ *webhook.Options) { r.inbox.err = c.err })
		got := r.post(shopSecret, message)
		if got.code != c.code || (got.header.Get("Retry-After") != "") != (c.code == 503) || strings.Contains(got.body, c.err.Error()) {
			t.Errorf("%v: %+v", c.err, got)
		}
		if n := len(r.inbox.got()); n != 1 {
			t.Errorf("%v: Append was called %d times", c.err, n)
		}
		if got := r.counters("eventrelay_webhook_refused_total"); got["reason="+c.reason+" source=shop"] != 1 {
			t.Errorf("%v: refused_total is %v", c.err, got)
		}
		if !strings.Contains(r.log.String(), c.err.Error()) {
			t.Errorf("%v is not in the log: %s", c.err, r.log)
		}
	}
}

func TestA200IsNeverSentWhenTheInboxPanics(t *testing.T) {
	r := start(t, func(r *relay, _ *webhook.Options) { r.inbox.fail = "broken" })
	request, err := http.NewRequest("POST", "http://"+r.address+"/webhooks/shop", io.MultiReader(strings.NewReader(message))) // not repeated by the client
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(jsonType, "application/json")
	request.Header.Set(hubSignature, sign(shopSecret, message))
	if response, err := r.client.RoundTrip(request); err == nil {
		t.Errorf("there is an answer: %+v", read(t, response))
	}
}

func TestA200IsNotSentBeforeTheInboxHasTakenIt(t *testing.T) {
	r := start(t, func(r *relay, _ *webhook.Options) {
		r.inbox.inside, r.inbox.gate = make(chan struct{}), make(chan struct{})
	})
	conn, reader := r.dial()
	fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", hubSignature, sign(shopSecret, message), len(message), message)
	<-r.inbox.inside
	// Nothing comes for as long as Append has not returned; the server flushes nothing by itself in this time.
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := reader.Peek(1); err == nil {
		t.Errorf("an answer that starts with %q is there before Append has returned", b)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	close(r.inbox.gate)
	if got := r.answerOn(bufio.NewReader(conn)); got.code != 200 {
		t.Errorf("%+v", got)
	}
}

func TestANotificationIsKeptWhenItsSenderHangsUp(t *testing.T) {
	for name, framed := range map[string]string{
		"of a declared length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(message), message),
		"in chunks":            fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(message), message),
	} {
		requests := make(chan context.Context, 1)
		r := start(t, func(r *relay, _ *webhook.Options) {
			r.inbox.inside, r.inbox.gate = make(chan struct{}), make(chan struct{})
			r.config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { requests <- q.Context() })
		})
		conn, _ := r.dial()
		fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\n%s", hubSignature, sign(shopSecret, message), framed)
		<-r.inbox.inside
		conn.Close()
		if ctx := <-requests; ctx.Done() != nil { // as net/http tells who serves it, and the fast path does not
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
				t.Errorf("%s: the server does not notice that the sender is gone", name)
			}
		}
		r.inbox.mu.Lock()
		err := r.inbox.contexts[0].Err()
		r.inbox.mu.Unlock()
		if err != nil {
			t.Errorf("%s: the append is told to give up: %v", name, err)
		}
		close(r.inbox.gate)
		eventually(t, "the request ends as a 200", func() bool {
			return r.counters("eventrelay_webhook_requests_total")["code=200 source=shop"] == 1
		})
	}
}

func TestEveryRequestIsCountedUnderLabelsThatStrangersCannotChoose(t *testing.T) {
	r := start(t, nil)
	r.post(shopSecret, message)
	r.post(shopSecret, message)
	r.post("wrong", message)
	for i := range 20 {
		r.do("POST", fmt.Sprintf("/webhooks/guess-%d", i), strings.NewReader(message))
		r.do(fmt.Sprintf("METHOD%d", i), "/webhooks/shop", nil)
	}
	want := map[string]float64{"code=200 source=shop": 2, "code=401 source=shop": 1, "code=404 source=": 20, "code=405 source=shop": 20}
	if got := r.counters("eventrelay_webhook_requests_total"); !maps.Equal(got, want) {
		t.Errorf("requests_total is %v; want %v", got, want)
	}
	if got := r.counters("eventrelay_webhook_request_duration_seconds"); got[""] != 43 {
		t.Errorf("durations: %v", got)
	}
	if got := r.counters("eventrelay_webhook_body_bytes"); got[""] != 2 {
		t.Errorf("bodies: %v", got)
	}
}

func TestAFloodOfRefusalsIsOneLineASecondForEachKind(t *testing.T) {
	var mu sync.Mutex // guards now
	now := testTime
	r := start(t, func(_ *relay, o *webhook.Options) {
		o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	lines := func() []string { return strings.Split(strings.TrimSpace(r.log.String()), "\n") }
	for range 50 {
		r.post("wrong", message)
	}
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "left_out=0") {
		t.Fatalf("after 50 in no time: %s", r.log)
	}
	r.do("POST", "/webhooks/none", nil)
	if got := lines(); len(got) != 2 || !strings.Contains(got[1], "unknown_source") {
		t.Fatalf("another kind waits for the first: %s", r.log)
	}
	pass(999 * time.Millisecond)
	r.post("wrong", message)
	if got := lines(); len(got) != 2 {
		t.Fatalf("before the second is over: %s", r.log)
	}
	pass(time.Millisecond)
	r.post("wrong", message)
	if got := lines(); len(got) != 3 || !strings.Contains(got[2], "left_out=50") || !strings.Contains(got[2], "level=WARN") {
		t.Fatalf("after the second: %s", r.log)
	}
}

func TestOptionsMayBeLeftOut(t *testing.T) {
	box := &inbox{}
	for range 2 { // without a registry, two may stand side by side
		handler := webhook.New(webhook.Options{Sources: testSources(t), Inbox: box})
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest("POST", "/webhooks/shop", strings.NewReader(message))
		request.Header.Set(jsonType, "application/json")
		request.Header.Set(hubSignature, sign(shopSecret, message))
		handler.ServeHTTP(recorder, request)
		if recorder.Code != 200 {
			t.Errorf("%d %s", recorder.Code, recorder.Body)
		}
	}
	if got := box.got(); len(got) != 2 || time.Since(got[0].ReceivedAt) > time.Minute {
		t.Errorf("%+v", got)
	}
}

func TestItIsTheSameOverHTTP2(t *testing.T) {
	box := &inbox{}
	server := httptest.NewUnstartedServer(webhook.New(webhook.Options{Sources: testSources(t), Inbox: box, MaxBody: 100_000}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	large := `"` + strings.Repeat("x", 99_998) + `"`
	for _, c := range []struct {
		body, signature string
		code            int
	}{
		{message, sign(shopSecret, message), 200},
		{large, sign(shopSecret, large), 200},
		{large + " ", sign(shopSecret, large+" "), 413},
		{message, sign("wrong", message), 401},
		{message, "", 401},
		{message, sign(shopSecret, message), 200}, // after a refusal that ends the connection
	} {
		for _, declared := range []bool{true, false} {
			request, err := http.NewRequest("POST", server.URL+"/webhooks/shop", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if !declared {
				request.ContentLength = -1
			}
			request.Header.Set(jsonType, "application/json")
			request.Header.Set(hubSignature, c.signature)
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, response); got.code != c.code || response.ProtoMajor != 2 {
				t.Errorf("%d bytes, declared %v: %+v over %s; want %d", len(c.body), declared, got, response.Proto, c.code)
			}
		}
	}
	if got := len(box.got()); got != 6 {
		t.Errorf("%d stored", got)
	}
}
