// Package webhook receives the providers' notifications over HTTP.
//
// A 200 to a POST means that the notification is in the inbox: Append has returned without an error for exactly the bytes that
// were received. It is called at most once a request, never with a part of a body, and never before the sender has proved
// itself. Nothing of a body is parsed before that proof.
//
// The checks go from cheap to dear, and whatever can be known without the body is decided without it:
//
//	404  nothing that could be a source
//	503  the source is not known, and the sources are not loaded yet
//	404  no such source
//	503  the record of the source cannot be used
//	405  the provider has no use for the method
//	403  a handshake that does not show the mode, the source's token and a challenge, each once (GET)
//	503  the source is paused (POST, as all that follows)
//	403  no client certificate of the provider, where the source requires one
//	415  the body is not declared as JSON, or is compressed
//	413  the body is over the limit
//	401  no signature that could be one
//	503  too many large bodies are being received at once
//	400  the body ends early; 408, it did not come within the server's deadline
//	401  the signature is not of this body under a secret of this source
//	400  the body is empty or not JSON
//	503  the inbox did not take it; 413, it can never take so much
//	503  the inbox took it, but the log did not in time, where the answer waits for the log
//
// A refusal has one line of text that says what is wrong and what to do. It never repeats anything of the request, and it is the same
// for a signature that is missing, malformed or wrong.
package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"eventrelay/server/journal"
	"eventrelay/server/source"
)

const (
	pathPrefix = "/webhooks/"

	// Meta documents payloads of up to 3 MB; its messages of history come near to that.
	defaultMaxBody = 4 << 20

	// What bodies of more than trustedSize may hold together. Anybody can claim a signature and send a large body slowly, so
	// without a bound as many such senders as there are connections would take the process down with them.
	defaultMaxBuffered = 256 << 20

	defaultLogTimeout = 4 * time.Second
)

// Sources is where the endpoints are looked up. Both methods must be safe for concurrent use and fast.
type Sources interface {
	// Endpoint returns the endpoint of the source with that id.
	Endpoint(id string) (source.Endpoint, bool)
	// Ready reports whether the sources are known: while it is false a missing endpoint means nothing.
	Ready() bool
}

// Inbox is where notifications go. Append must be safe for concurrent use, must have stored the record durably when it returns
// nil, and may not keep the record's body or header.
type Inbox interface {
	Append(ctx context.Context, r journal.Record) (index uint64, err error)
}

// Log is where notifications go from the inbox. Await must be safe for concurrent use.
type Log interface {
	// Await returns nil once the log has everything of the record with that index, else the context's error.
	Await(ctx context.Context, index uint64) error
}

// ClientCertificate tells whether a request comes with the provider's client certificate. Check must be safe for concurrent use.
type ClientCertificate interface {
	// Check returns nil if it does, else why not, for the log.
	Check(r *http.Request) error
}

// Options are what New needs. Sources and Inbox are required.
type Options struct {
	Sources Sources
	Inbox   Inbox
	// ClientCertificate checks the senders of sources that require a client certificate. If nil, their notifications are refused.
	ClientCertificate ClientCertificate
	// Log, if not nil, is waited for before a notification is answered, LogTimeout at most.
	Log Log
	// LogTimeout is how long an answer waits for the log. If 0, 4 s: providers give up after five.
	LogTimeout time.Duration
	// MaxBody is the size of the largest body that is accepted, in bytes. If 0, 4 MiB.
	MaxBody int64
	// MaxBuffered bounds the memory of all bodies over 64 KiB that are in hand at one time, in bytes; beyond it large bodies
	// are answered 503 and small ones go on passing. If 0, 256 MiB; at least MaxBody.
	MaxBuffered int64
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Logger gets the refusals, at most one line a second for each source and reason. If nil, nothing is logged.
	Logger *slog.Logger
	// Metrics is where the metrics are registered. If nil, nowhere.
	Metrics prometheus.Registerer
}

// New returns the handler of /webhooks/{source}; any other path is answered 404. It is safe for concurrent use, and holds
// goroutines and memory only while it serves a request.
//
// The handler does not limit how slowly a request may come: the server's ReadHeaderTimeout and ReadTimeout do. It registers its
// metrics, so two handlers need two registries.
func New(o Options) http.Handler {
	h := &handler{
		sources:  o.Sources,
		inbox:    o.Inbox,
		client:   o.ClientCertificate,
		logged:   o.Log,
		patience: o.LogTimeout,
		maxBody:  o.MaxBody,
		now:      o.Now,
		metrics:  newMetrics(o.Metrics),
	}
	if h.maxBody <= 0 {
		h.maxBody = defaultMaxBody
	}
	if h.patience <= 0 {
		h.patience = defaultLogTimeout
	}
	buffered := o.MaxBuffered
	if buffered <= 0 {
		buffered = defaultMaxBuffered
	}
	h.large = semaphore.NewWeighted(max(buffered, h.maxBody))
	if h.now == nil {
		h.now = time.Now
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	h.log = &refusalLog{logger: logger}
	return h
}

type handler struct {
	sources  Sources
	inbox    Inbox
	client   ClientCertificate
	logged   Log           // nil if the answer depends on the inbox alone
	patience time.Duration // with the log
	maxBody  int64
	large    *semaphore.Weighted // bytes of bodies over trustedSize
	now      func() time.Time
	metrics  *metrics
	log      *refusalLog
}

// ServeHTTP answers one request, counts it, and logs it if it is refused.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.now()
	e, no := h.serve(w, r)
	if no != nil {
		no.write(w)
		e.Refused(no.reason)
		h.metrics.refused(e.ID, no.reason)
		h.log.refused(r.Context(), h.now(), e.ID, no)
	}
	h.metrics.answered(e.ID, no.code(), h.now().Sub(start))
}

// serve answers the request unless it returns a refusal. It also returns the endpoint, which is zero where there is no such
// source: what a stranger may choose does not become a label or a line in the log.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) (source.Endpoint, *refusal) {
	none := source.Endpoint{}
	id, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	if !ok || !validID(id) {
		return none, unknownSource.unread(r)
	}
	// Asked first: sources that become known in between may then be found, but not be missed.
	ready := h.sources.Ready()
	e, ok := h.sources.Endpoint(id)
	switch {
	case !ok && !ready:
		return none, notReady.unread(r)
	case !ok:
		return none, unknownSource.unread(r)
	case e.Unusable:
		return e, unusable.unread(r)
	case r.Method == http.MethodPost:
		return e, h.receive(w, r, e)
	case r.Method == http.MethodGet && e.Handshake():
		return e, handshake(w, r, e)
	case e.Handshake():
		return e, methodGetPost.unread(r)
	default:
		return e, methodPost.unread(r)
	}
}

// validID reports whether id can be the id of a source, so that nothing else is ever looked up.
func validID(id string) bool {
	if id == "" || len(id) > 63 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
