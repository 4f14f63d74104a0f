package webhook_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"eventrelay/server/source"
	"eventrelay/server/webhook"
)

// What each attacker below is denied. The attack on the time that a comparison takes is in package source, where comparisons are.

func TestUnsignedIsRefused(t *testing.T) {
	r := start(t, nil)
	if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json"); got.code != 401 {
		t.Errorf("%+v", got)
	}
	r.nothingStored()
}

func TestForgedIsRefused(t *testing.T) {
	r := start(t, nil)
	signature := sign(shopSecret, message)
	for name, forged := range map[string][2]string{
		"guessed secret":          {sign("guess", message), message},
		"one digit off":           {signature[:70] + map[bool]string{true: "0", false: "1"}[signature[70] != '0'], message},
		"another body":            {signature, strings.Replace(message, `"1"`, `"2"`, 1)},
		"another body, same JSON": {signature, strings.Replace(message, `:`, `: `, 1)},
		"body and more":           {signature, message + "\n"},
		"no body":                 {signature, ""},
	} {
		if got := r.do("POST", "/webhooks/shop", strings.NewReader(forged[1]), jsonType, "application/json", hubSignature, forged[0]); got.code != 401 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	r.nothingStored()
}

func TestSHA1AloneIsRefused(t *testing.T) {
	r := start(t, nil)
	mac := hmac.New(sha1.New, []byte(shopSecret))
	mac.Write([]byte(message))
	signature := "sha1=" + hex.EncodeToString(mac.Sum(nil))
	for _, name := range []string{"X-Hub-Signature", hubSignature} {
		if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", name, signature); got.code != 401 {
			t.Errorf("in %s: %+v", name, got)
		}
	}
	r.nothingStored()
}

func TestTheSignatureOfAnotherSourceIsRefused(t *testing.T) {
	r := start(t, nil)
	signature := sign(agencySecret, message)
	if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", hubSignature, signature, dialogSignature, signature); got.code != 401 {
		t.Errorf("%+v", got)
	}
	signature = sign(shopSecret, message)
	if got := r.do("POST", "/webhooks/agency", strings.NewReader(message), jsonType, "application/json", hubSignature, signature, dialogSignature, signature); got.code != 401 {
		t.Errorf("%+v", got)
	}
	r.nothingStored()
}

func TestTheEmptySecretSignsNothing(t *testing.T) {
	r := start(t, nil)
	for _, secret := range []string{"", "\x00", strings.Repeat("\x00", 64)} {
		if got := r.post(secret, message); got.code != 401 {
			t.Errorf("%q: %+v", secret, got)
		}
	}
	r.nothingStored()
}

func TestTwoSignaturesAreRefusedEvenIfOneIsRight(t *testing.T) {
	r := start(t, nil)
	right, wrong := sign(shopSecret, message), sign("wrong", message)
	for _, pair := range [][2]string{{right, wrong}, {wrong, right}, {right, right}} {
		if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", hubSignature, pair[0], hubSignature, pair[1]); got.code != 401 {
			t.Errorf("%v: %+v", pair, got)
		}
	}
	r.nothingStored()
}

func TestAllWrongSignaturesGetTheSameAnswer(t *testing.T) {
	r := start(t, nil)
	var answers []string
	for _, headers := range [][]string{{}, {hubSignature, ""}, {hubSignature, "x"}, {hubSignature, sign("wrong", message)}, {hubSignature, "x", hubSignature, "y"}} {
		got := r.do("POST", "/webhooks/shop", strings.NewReader(message), append(headers, jsonType, "application/json")...)
		answers = append(answers, fmt.Sprint(got.code, got.body))
	}
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("%q differs from %q", a, answers[0])
		}
	}
}

// An unsigned sender must not be able to tell what is parsed, for nothing is.
func TestNothingIsParsedBeforeItIsAuthenticated(t *testing.T) {
	r := start(t, nil)
	for _, body := range []string{message, "", "{", strings.Repeat("[", 100_000)} {
		if got := r.post("wrong", body); got.code != 401 {
			t.Errorf("%.20s: %+v", body, got)
		}
	}
}

func TestDeepNestingIsNoDanger(t *testing.T) {
	r := start(t, nil)
	body := strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20)
	if got := r.post(shopSecret, body); got.code != 400 {
		t.Errorf("%+v", got)
	}
}

// The answer must be there although nothing of the body is, and no memory may have been taken on the sender's word.
func TestAHugeContentLengthIsRefusedAtOnce(t *testing.T) {
	r := start(t, nil)
	for _, size := range []string{"4194305", "1099511627776", "9223372036854775807"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		conn, reader := r.dial()
		fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %s\r\n\r\n", hubSignature, sign(shopSecret, message), size)
		if got := r.answerOn(reader); got.code != 413 {
			t.Errorf("%s: %+v", size, got)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", size, grown)
		}
	}
	r.nothingStored()
}

func TestAChunkedBodyOverTheLimitIsCutOff(t *testing.T) {
	r := start(t, func(_ *relay, o *webhook.Options) { o.MaxBody = 1000 })
	conn, reader := r.dial()
	fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n", hubSignature, sign(shopSecret, message))
	// The body never ends: the answer comes after the byte that is one too many.
	fmt.Fprintf(conn, "3e9\r\n%s\r\n", strings.Repeat("x", 1001))
	if got := r.answerOn(reader); got.code != 413 || !got.closes {
		t.Errorf("%+v", got)
	}
	r.nothingStored()
}

// Whoever does not even claim to be the provider is answered before the body, however slowly that comes, and without being
// asked to send it.
func TestAnUnsignedSenderIsNotWaitedFor(t *testing.T) {
	r := start(t, nil)
	for _, extra := range []string{"Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 1000\r\nExpect: 100-continue\r\n"} {
		conn, reader := r.dial()
		fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n", extra)
		if got := r.answerOn(reader); got.code != 401 || !got.closes {
			t.Errorf("%q: %+v", extra, got)
		}
	}
	r.nothingStored()
}

func TestASlowBodyEndsWithTheServersDeadline(t *testing.T) {
	r := start(t, func(r *relay, _ *webhook.Options) { r.config.ReadTimeout = 100 * time.Millisecond })
	conn, reader := r.dial()
	fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", hubSignature, sign(shopSecret, message), len(message), message[:10])
	if got := r.answerOn(reader); got.code != 408 {
		t.Errorf("%+v", got)
	}
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the connection stays open")
	}
	r.nothingStored()
}

func TestHalfABodyIsNeverStored(t *testing.T) {
	half := message[:len(message)/2]
	for name, request := range map[string]string{
		"declared":                  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(message), half),
		"declared, nothing sent":    fmt.Sprintf("Content-Length: %d\r\n\r\n", len(message)),
		"chunked":                   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(half), half),
		"chunked, all but the end":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(message), message),
		"chunked, broken chunk":     fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\nzz\r\n", len(message), message),
		"chunked, cut in a chunk":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(message), half),
		"chunked, cut in the end":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0", len(message), message),
		"declared, valid JSON part": "Content-Length: 100\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			// Signed as what has come, so that only its being incomplete speaks against it.
			_, body, _ := strings.Cut(request, "\r\n\r\n")
			if strings.Contains(request, "chunked") {
				body = message
			}
			conn, _ := r.dial()
			fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\n%s", hubSignature, sign(shopSecret, body), request)
			conn.Close()
			eventually(t, "the request is refused", func() bool {
				return r.counters("eventrelay_webhook_refused_total")["reason=incomplete source=shop"] == 1
			})
			r.nothingStored()
		})
	}
}

func TestLargeBodiesCannotTakeAllMemoryNorTheRoomOfSmallOnes(t *testing.T) {
	const limit = 1 << 20
	r := start(t, func(_ *relay, o *webhook.Options) { o.MaxBody, o.MaxBuffered = limit, limit })
	large := `"` + strings.Repeat("x", limit-2) + `"`

	// Two senders have sent enough to have the rest of their bodies allocated, and wait. There is room for one of them: the
	// other is refused, and once it is, the first is known to hold the room.
	type answered struct{ sender, code int }
	answers := make(chan answered, 2)
	var senders [2]net.Conn
	for i := range senders {
		conn, reader := r.dial()
		senders[i] = conn
		fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", hubSignature, sign(shopSecret, large), limit, large[:limit/2])
		go func() {
			code := 0 // of no answer
			if response, err := http.ReadResponse(reader, nil); err == nil {
				code = response.StatusCode
				response.Body.Close()
			}
			answers <- answered{i, code}
		}()
	}
	refused := <-answers
	if refused.code != 503 {
		t.Fatalf("the first to be answered while both wait: %d", refused.code)
	}
	if got := r.post(shopSecret, large); got.code != 503 {
		t.Errorf("a third large body: %+v", got)
	}
	if got := r.post(shopSecret, message); got.code != 200 {
		t.Errorf("a small body meanwhile: %+v", got)
	}
	fmt.Fprint(senders[1-refused.sender], large[limit/2:])
	if got := <-answers; got.code != 200 {
		t.Errorf("the one that had room: %d", got.code)
	}
	// Its room comes free when its handler ends, which is a moment after its answer.
	eventually(t, "large bodies are accepted again", func() bool { return r.post(shopSecret, large).code == 200 })
}

func TestACompressedBodyIsRefusedUnopened(t *testing.T) {
	r := start(t, nil)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, message)
	w.Close()
	for _, coding := range []string{"gzip", "deflate", "br", "identity, gzip", "x"} {
		got := r.do("POST", "/webhooks/shop", bytes.NewReader(packed.Bytes()), jsonType, "application/json", "Content-Encoding", coding, hubSignature, sign(shopSecret, packed.String()))
		if got.code != 415 {
			t.Errorf("%s: %+v", coding, got)
		}
	}
	r.nothingStored()
}

func TestOtherMethodsAreRefusedWithWhatIsAllowed(t *testing.T) {
	r := start(t, nil)
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "post", "GETT"} {
		for id, allow := range map[string]string{"shop": "GET, POST", "agency": "POST"} {
			got := r.do(method, "/webhooks/"+id, strings.NewReader(message), jsonType, "application/json", hubSignature, sign(shopSecret, message))
			if got.code != 405 || got.header.Get("Allow") != allow {
				t.Errorf("%s %s: %+v", method, id, got)
			}
		}
	}
	r.nothingStored()
}

func TestAMethodInAHeaderIsOfNoAccount(t *testing.T) {
	r := start(t, nil)
	got := r.do("PUT", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", hubSignature, sign(shopSecret, message), "X-HTTP-Method-Override", "POST")
	if got.code != 405 {
		t.Errorf("%+v", got)
	}
	r.nothingStored()
}

func TestAReflectedChallengeIsNoPage(t *testing.T) {
	r := start(t, nil)
	got := r.do("GET", "/webhooks/shop?hub.mode=subscribe&hub.verify_token="+shopToken+"&hub.challenge=%3Cscript%3Ealert(1)%3C/script%3E%0d%0aSet-Cookie:%20a=b", nil)
	if got.code != 200 || got.header.Get("Content-Type") != "text/plain; charset=utf-8" || got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("%+v", got)
	}
	if got.body != "<script>alert(1)</script>\r\nSet-Cookie: a=b" {
		t.Errorf("the challenge came back as %q", got.body)
	}
}

func TestAChallengeIsNotReflectedToWhoHasNoToken(t *testing.T) {
	r := start(t, nil)
	for _, query := range []string{"hub.mode=subscribe&hub.challenge=canary", "hub.mode=canary&hub.verify_token=canary&hub.challenge=canary", "canary=canary"} {
		if got := r.do("GET", "/webhooks/shop?"+query, nil); got.code != 403 || strings.Contains(got.body, "canary") {
			t.Errorf("%s: %+v", query, got)
		}
	}
}

func TestWeirdPathsAreNotFoundAndNotRedirected(t *testing.T) {
	r := start(t, nil)
	for _, path := range []string{
		"/", "*", "//", "/webhooks", "/webhooks/", "/webhooks//shop", "//webhooks/shop", "/webhooks/shop/", "/webhooks/shop/x", "/webhooks/./shop", "/webhooks/../webhooks/shop",
		"/webhooks/x/../shop", "/webhooks/..%2fshop", "/webhooks/%2e%2e/shop", "/webhooks/shop%00", "/webhooks/shop%0a", "/webhooks/shop%20", "/webhooks/Shop", "/webhooks/SHOP", "/Webhooks/shop",
		"/webhooks/sh%C3%B6p", "/webhooks/shop;a=b", "/webhooks/shop.json", "/webhooks/sources%2Fshop", "/webhooks/" + strings.Repeat("a", 64), "/webhooks/" + strings.Repeat("a", 5000), "/webhooks/%252e",
	} {
		conn, reader := r.dial()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", path, hubSignature, sign(shopSecret, message), len(message), message)
		if got := r.answerOn(reader); got.code != 404 || got.header.Get("Location") != "" {
			t.Errorf("%.60s: %+v", path, got)
		}
		conn.Close()
	}
	r.nothingStored()
}

// anySource has an endpoint for every id, and remembers what was asked for.
type anySource struct {
	endpoint source.Endpoint
	asked    []string
}

func (a *anySource) Ready() bool { return true }

func (a *anySource) Endpoint(id string) (source.Endpoint, bool) {
	a.asked = append(a.asked, id)
	return a.endpoint, true
}

func TestWhatCannotBeAnIDIsNeverLookedUp(t *testing.T) {
	shop, _ := testSources(t).Endpoint("shop")
	sources := &anySource{endpoint: shop}
	handler := webhook.New(webhook.Options{Sources: sources, Inbox: &inbox{}})
	longest := strings.Repeat("a", 63)
	for _, path := range []string{"/webhooks/", "/webhooks/..", "/webhooks/../shop", "/webhooks/Shop", "/webhooks/shop\x00", "/webhooks/shop/", "/webhooks/a_b", "/webhooks/a.b", "/webhooks/" + longest + "a", "/webhooks/" + longest, "shop", ""} {
		request := &http.Request{Method: "GET", URL: &url.URL{Path: path}, Body: http.NoBody}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if want := path == "/webhooks/"+longest; (recorder.Code != 404) != want {
			t.Errorf("%q: %d", path, recorder.Code)
		}
	}
	if len(sources.asked) != 1 || sources.asked[0] != longest {
		t.Errorf("looked up: %q", sources.asked)
	}
}

// Two lengths are how one request is smuggled in another. The server decides on one or refuses; what is stored has the one body.
func TestNothingIsSmuggledBetweenTwoLengths(t *testing.T) {
	for _, headers := range []string{
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
		"Transfer-Encoding: chunked\r\nContent-Length: 400\r\n",
		"Content-Length: 5\r\nContent-Length: 6\r\n",
		"Transfer-Encoding: chunked, identity\r\n",
		"Transfer-Encoding: gzip, chunked\r\n",
	} {
		r := start(t, nil)
		conn, reader := r.dial()
		hidden := fmt.Sprintf("POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", hubSignature, sign(shopSecret, message), len(message), message)
		fmt.Fprintf(conn, "POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\n%s\r\n0\r\n\r\n%s", hubSignature, sign("wrong", ""), headers, hidden)
		if got := r.answerOn(reader); got.code == 200 {
			t.Errorf("%q: %+v", headers, got)
		}
		// The second request is one of its own if the first one's end was clear; it is never part of the first.
		if response, err := http.ReadResponse(reader, nil); err == nil {
			_ = read(t, response)
		}
		for _, record := range r.inbox.got() {
			if string(record.Body) != message {
				t.Errorf("%q: %q was stored", headers, record.Body)
			}
		}
	}
}

func TestNeitherAnswersNorLogsShowASecretOrWhatWasSent(t *testing.T) {
	r := start(t, nil)
	var shown strings.Builder
	note := func(a answer) { fmt.Fprintf(&shown, "%d %v %s\n", a.code, a.header, a.body) }
	const canary = "canary"
	signature := sign("guess", canary)
	note(r.do("GET", "/webhooks/shop?hub.mode=subscribe&hub.verify_token="+canary+"&hub.challenge="+canary, nil))
	note(r.do("GET", "/webhooks/shop?hub.mode=subscribe&hub.verify_token="+shopToken, nil))
	note(r.do("GET", "/webhooks/"+canary+"?hub.verify_token="+shopToken, nil))
	note(r.do("POST", "/webhooks/closed?token="+shopToken, strings.NewReader(canary)))
	note(r.do("POST", "/webhooks/shop", strings.NewReader(canary), jsonType, "text/"+canary))
	note(r.do("POST", "/webhooks/shop", strings.NewReader(canary), jsonType, "application/json", hubSignature, canary))
	note(r.do("POST", "/webhooks/shop", strings.NewReader(canary), jsonType, "application/json", hubSignature, signature, "Authorization", canary))
	note(r.post(shopSecret, canary))
	note(r.post(shopSecret, ""))
	note(r.do(strings.ToUpper(canary), "/webhooks/shop", nil))

	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"an answer": shown.String(), "the log": r.log.String(), "the metrics": fmt.Sprint(families)} {
		for _, s := range []string{"s3cr3t", "t0ken", canary, "CANARY", signature[7:], sign(shopSecret, canary)[7:]} {
			if strings.Contains(text, s) {
				t.Errorf("%s shows %q:\n%s", name, s, text)
			}
		}
	}
	if strings.Count(r.log.String(), "\n") < 8 {
		t.Errorf("most of it is not logged at all, so this says nothing:\n%s", r.log)
	}
}

// partly is a set of sources of which more may be known later.
type partly struct{ *source.Set }

func (partly) Ready() bool { return false }

func TestAKnownSourceReceivesWhileOthersAreNotLoadedYet(t *testing.T) {
	box := &inbox{}
	handler := webhook.New(webhook.Options{Sources: partly{testSources(t)}, Inbox: box})
	for path, want := range map[string]int{"/webhooks/shop": http.StatusOK, "/webhooks/other": http.StatusServiceUnavailable, "/webhooks/Other": http.StatusNotFound} {
		mac := hmac.New(sha256.New, []byte(shopSecret))
		mac.Write([]byte(message))
		request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(message))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != want {
			t.Errorf("%s: %d, want %d", path, recorder.Code, want)
		}
	}
}

// broken has a source that cannot be used.
type broken struct{}

func (broken) Ready() bool { return true }
func (broken) Endpoint(id string) (source.Endpoint, bool) {
	return source.Endpoint{ID: id, Unusable: true}, true
}

func TestASourceThatCannotBeUsedAsksForARetry(t *testing.T) {
	handler := webhook.New(webhook.Options{Sources: broken{}, Inbox: &inbox{}})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(method, "/webhooks/shop", strings.NewReader(message)))
		if recorder.Code != http.StatusServiceUnavailable || recorder.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", method, recorder.Code, recorder.Header().Get("Retry-After"))
		}
	}
}
