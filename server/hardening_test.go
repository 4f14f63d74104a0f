package main

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// attack makes an HTTP request over TLS with these headers.
func (g *guarded) attack(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.roots}}
	t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+g.http+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := transport.RoundTrip(req) // a redirect is an answer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestATokenIsNotSmuggledPastTheOneThatIsShown(t *testing.T) {
	g := serveGuarded(t)
	for what, headers := range map[string][]string{
		"as metadata beside a wrong one": {"Authorization", "Bearer ert_wrong", "Grpc-Metadata-Authorization", "Bearer " + readerToken},
		"beside a wrong one":             {"Authorization", "Bearer ert_wrong", "Authorization", "Bearer " + readerToken},
		"under another name":             {"X-Authorization", "Bearer " + readerToken},
		"by the gateway's own name":      {"Grpcgateway-Authorization", "Bearer " + readerToken},
		"as a cookie":                    {"Cookie", "authorization=Bearer " + readerToken},
	} {
		for _, path := range []string{"/v1/events", "/v1/events:subscribe", "/metrics"} {
			if resp := g.attack(t, http.MethodGet, path, nil, headers...); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s answers %s", what, path, resp.Status)
			}
		}
	}
	// An address ends up in logs and histories.
	if resp := g.attack(t, http.MethodGet, "/v1/events?access_token="+readerToken+"&authorization=Bearer%20"+readerToken, nil); resp.StatusCode == http.StatusOK {
		t.Errorf("in the address: %s", resp.Status)
	}
}

func TestNoSpellingOfAPathGetsPastTheGuard(t *testing.T) {
	g := serveGuarded(t)
	for _, path := range []string{
		"/metrics/", "//metrics", "/./metrics", "/healthz/../metrics", "/healthz/..%2fmetrics", "/%6detrics", "/metrics?x=/healthz", "/METRICS", "/openapi.json/", "//openapi.json",
		"//v1/events", "/v1//events", "/v1/./events", "/healthz/../v1/events", "/v1/events/", "/v1/%65vents", "/v1/events%3asubscribe", "/v1/events:subscribe/", "/v1/sources/dev%2f..",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, "PROPFIND"} {
			resp := g.attack(t, method, path, nil, "X-Http-Method-Override", "GET")
			if resp.StatusCode < 300 {
				t.Errorf("%s %s answers %s", method, path, resp.Status)
			}
		}
	}
}

func TestAStrangerCannotMakeTheServerReadALargeBody(t *testing.T) {
	g := serveGuarded(t)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		endless := &counted{}
		resp := g.attack(t, method, "/v1/events", io.LimitReader(endless, 256<<20), "Content-Type", "application/json")
		if resp.StatusCode < 400 || endless.read.Load() > 32<<20 { // what is on its way counts too
			t.Errorf("%s is answered %s after %d bytes", method, resp.Status, endless.read.Load())
		}
	}
}

// counted is an endless string of JSON.
type counted struct{ read atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if c.read.Load() == 0 {
		p[0] = '"'
	}
	c.read.Add(int64(len(p)))
	return len(p), nil
}

func TestTokensAppearInNoLogAndNoMetric(t *testing.T) {
	const wrong = "ert_wrong-but-perhaps-once-right"
	g := serveGuarded(t)
	events := eventrelayv1.NewEventServiceClient(g.dial(t))
	for _, token := range []string{readerToken, operatorToken, wrong} {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), 30*time.Second)
		_, err := events.ListEvents(ctx, &eventrelayv1.ListEventsRequest{})
		cancel()
		if (status.Code(err) == codes.Unauthenticated) != (token == wrong) || strings.Contains(status.Convert(err).String(), token) {
			t.Errorf("%s: %v", token, err)
		}
		for _, path := range []string{"/v1/events", "/metrics", "/nowhere"} {
			if _, body := g.request(t, http.MethodGet, "https://"+g.http+path, "Bearer "+token); strings.Contains(string(body), token) {
				t.Errorf("%s shows a token", path)
			}
		}
	}
	log := g.log.String()
	if !strings.Contains(log, "caller=reader") || !strings.Contains(log, "reason=token_invalid") {
		t.Errorf("the log has neither who called nor who was refused: %s", log)
	}
	for _, token := range []string{readerToken, operatorToken, wrong} {
		if strings.Contains(log, token) {
			t.Errorf("the log has %s", token)
		}
	}
}
