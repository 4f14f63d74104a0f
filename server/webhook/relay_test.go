package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/journal"
	"eventrelay/server/source"
	"eventrelay/server/webhook"
	"eventrelay/server/webhook/fastpath"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shopSecret   = "s3cr3t-of-the-shop"
	oldSecret    = "s3cr3t-of-the-shop-before"
	shopToken    = "t0ken-of-the-shop"
	agencySecret = "s3cr3t-of-the-agency"
	vectorSecret = "test_app_secret"

	message = `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[]}]}`
)

// Not a round number, so that nothing else makes it by chance.
var testTime = time.Date(2026, 11, 21, 9, 17, 47, 123456789, time.FixedZone("", 3600))

func testSources(t testing.TB) *source.Set {
	t.Helper()
	set, err := source.NewSet([]*eventrelayv1.Source{
		{Name: "sources/shop", Provider: eventrelayv1.Provider_PROVIDER_META, AppSecrets: []string{shopSecret, oldSecret}, VerifyToken: shopToken},
		{Name: "sources/vectors", Provider: eventrelayv1.Provider_PROVIDER_META, AppSecrets: []string{vectorSecret}, VerifyToken: shopToken},
		{Name: "sources/closed", Provider: eventrelayv1.Provider_PROVIDER_META, AppSecrets: []string{shopSecret}, VerifyToken: shopToken, Paused: true},
		{Name: "sources/agency", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER, AppSecrets: []string{agencySecret}, VerifyToken: shopToken},
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// inbox is an Inbox that remembers what it was given. Its fields are set before it is used.
type inbox struct {
	err    error
	fail   any           // what Append panics with
	inside chan struct{} // gets a value when Append has begun
	gate   chan struct{} // lets Append end

	mu       sync.Mutex // guards what follows
	records  []journal.Record
	contexts []context.Context
}

func (i *inbox) Append(ctx context.Context, r journal.Record) (uint64, error) {
	i.mu.Lock()
	r.Body = bytes.Clone(r.Body)
	i.records = append(i.records, r)
	i.contexts = append(i.contexts, ctx)
	n := uint64(len(i.records))
	i.mu.Unlock()
	if i.inside != nil {
		i.inside <- struct{}{}
		<-i.gate
	}
	if i.fail != nil {
		panic(i.fail)
	}
	return n, i.err
}

func (i *inbox) got() []journal.Record {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.records)
}

// unloaded are sources that are not known yet.
type unloaded struct{}

func (unloaded) Endpoint(string) (source.Endpoint, bool) { return source.Endpoint{}, false }
func (unloaded) Ready() bool                             { return false }

// output is a buffer that a logger may write to while a test reads it.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// relay is a running webhook server with all that one can see of it.
type relay struct {
	t        testing.TB
	config   *http.Server
	address  string
	client   http.Transport
	inbox    *inbox
	registry *prometheus.Registry
	log      *output
}

// start serves a webhook on a loopback port until the test ends, as the relay does; change may alter what it is made of.
func start(t testing.TB, change func(*relay, *webhook.Options)) *relay {
	t.Helper()
	r := &relay{t: t, inbox: &inbox{}, registry: prometheus.NewRegistry(), log: &output{}}
	o := webhook.Options{
		Sources: testSources(t),
		Inbox:   r.inbox,
		Now:     func() time.Time { return testTime },
		Logger:  slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: r.registry,
	}
	r.config = &http.Server{ErrorLog: log.New(io.Discard, "", 0)}
	if change != nil {
		change(r, &o)
	}
	handler := webhook.New(o)
	if outer := r.config.Handler; outer != nil {
		inner := handler
		handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			outer.ServeHTTP(w, q)
			inner.ServeHTTP(w, q)
		})
	}
	r.config.Handler = handler
	r.address = serve(t, fastpath.New(r.config, slog.New(slog.DiscardHandler)))
	t.Cleanup(r.client.CloseIdleConnections)
	return r
}

// serve serves on a loopback port until the test ends, and returns the address.
func serve(t testing.TB, s *fastpath.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-served
	})
	return listener.Addr().String()
}

type answer struct {
	code   int
	header http.Header
	body   string
	closes bool // the server closes the connection after it
}

// do sends a request and returns the answer. The body is sent chunked if it is a plain reader.
func (r *relay) do(method, path string, body io.Reader, headers ...string) answer {
	r.t.Helper()
	request, err := http.NewRequest(method, "http://"+r.address+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := r.client.RoundTrip(request) // no redirects
	if err != nil {
		r.t.Fatal(err)
	}
	return read(r.t, response)
}

func read(t testing.TB, response *http.Response) answer {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body), response.Close}
}

// post sends a body to the shop, signed under secret.
func (r *relay) post(secret, body string) answer {
	r.t.Helper()
	return r.do("POST", "/webhooks/shop", strings.NewReader(body), jsonType, "application/json", hubSignature, sign(secret, body))
}

// dial opens a connection on which a test speaks HTTP by hand. It gives up after ten seconds.
func (r *relay) dial() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func (r *relay) answerOn(reader *bufio.Reader) answer {
	r.t.Helper()
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return read(r.t, response)
}

const (
	jsonType        = "Content-Type"
	hubSignature    = "X-Hub-Signature-256"
	dialogSignature = "X-360dialog-Signature"
)

func sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// counters returns the counter's values by its labels, as `source=shop code=200`.
func (r *relay) counters(name string) map[string]float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			var text []string
			for _, name := range slices.Sorted(maps.Keys(labels)) {
				text = append(text, name+"="+labels[name])
			}
			values[strings.Join(text, " ")] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
		time.Sleep(time.Millisecond) // between two looks, not in place of one
	}
}

func (r *relay) nothingStored() {
	r.t.Helper()
	if got := r.inbox.got(); len(got) > 0 {
		r.t.Errorf("the inbox was given %d records, the first %q", len(got), got[0].Body)
	}
}
