// Package upstream makes calls to a provider's HTTP API: bounded in time and size, tried again where that can help, and without
// a credential in anything that comes back.
//
// The rooms above it know what to ask and what an answer means. A Caller sends one request at a time (Once) and repeats what
// failed for a passing reason (Retry). A Secret holds what must never be printed, Scrub takes it out of what a provider
// says, and a Kind is the little that whoever called has to know of a failure.
package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

const (
	// AttemptTimeout is how long one request and its answer may take. Providers answer in some hundred milliseconds.
	AttemptTimeout = 3 * time.Second
	// HandshakeTimeout is the same for requests during which the provider calls somebody else before it answers.
	HandshakeTimeout = 15 * time.Second
	// maxAnswer bounds the body of an answer; a page of a list has some kilobytes.
	maxAnswer = 1 << 20
	// maxAnswerHeader bounds the headers of an answer, which may carry a figure for each of many businesses.
	maxAnswerHeader = 256 << 10
)

// errPatience is the cause of a context that ended because we would not wait any longer, as opposed to who called.
var errPatience = errors.New("waited long enough")

// Options of a Caller. The zero value works.
type Options struct {
	// Transport takes the requests, http.DefaultTransport's settings by default. It must not follow redirects.
	Transport http.RoundTripper
	// Logger is told of attempts that are repeated. By default nobody is.
	Logger *slog.Logger
}

// A Caller calls an API. It is safe for concurrent use, and keeps connections: there should be one for each API.
type Caller struct {
	client *http.Client
	logger *slog.Logger
}

// New returns a Caller.
func New(opts Options) *Caller {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Transport == nil {
		opts.Transport = defaultTransport()
	}
	return &Caller{
		logger: opts.Logger,
		client: &http.Client{
			Transport: opts.Transport,
			// Where a redirect leads nobody has vouched for, and the request carries credentials.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func defaultTransport() http.RoundTripper {
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	own := shared.Clone()
	own.MaxResponseHeaderBytes = maxAnswerHeader
	return own
}

// Close drops the connections that are kept for later. Calls that are under way go on.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// A Request is one call of an API.
type Request struct {
	Method string
	// URL is the whole address. Credentials do not belong into it.
	URL    string
	Header http.Header
	// Body is sent as it is; nil sends none.
	Body []byte
	// Timeout bounds the request and its answer, AttemptTimeout if 0.
	Timeout time.Duration
	// Secrets are taken out of every error.
	Secrets []Secret
}

// An Answer is what the provider said, whatever its status, redirects excepted.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Once sends the request once. If ctx ends first the error wraps ctx's own; every other error is an *Error. The answer's body has
// been read whole.
func (c *Caller) Once(ctx context.Context, req Request) (Answer, error) {
	timeout := req.Timeout
	if timeout == 0 {
		timeout = AttemptTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errPatience)
	defer cancel()

	r, err := http.NewRequestWithContext(ctx, req.Method, req.URL, bytes.NewReader(req.Body))
	if err != nil {
		return Answer{}, &Error{Kind: Internal, Message: Scrub("request cannot be made: "+withoutURL(err), req.Secrets...)}
	}
	if req.Header != nil {
		r.Header = req.Header.Clone()
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return Answer{}, c.unanswered(ctx, req, "no answer: ", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return Answer{}, &Error{
			Kind: Unknown, Status: resp.StatusCode,
			Message: fmt.Sprintf("answered with a redirect (%d), which is not followed, for it would take the credentials elsewhere; check the base URL", resp.StatusCode),
		}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return Answer{}, c.unanswered(ctx, req, "the answer was cut short: ", err)
	}
	if len(body) > maxAnswer {
		return Answer{}, &Error{Kind: Unknown, Status: resp.StatusCode, Message: fmt.Sprintf("the answer is longer than %d bytes", maxAnswer)}
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// unanswered is the error for a request without a whole answer.
func (c *Caller) unanswered(ctx context.Context, req Request, what string, err error) error {
	if ctx.Err() == nil {
		return &Error{Kind: Unavailable, Message: Scrub(what+withoutURL(err), req.Secrets...)}
	}
	if errors.Is(context.Cause(ctx), errPatience) {
		return &Error{Kind: Unavailable, Message: what + "it took too long"}
	}
	return ctx.Err()
}

// withoutURL is the text of an error of net/http less the address, which names no more than the caller knows.
func withoutURL(err error) string {
	if about, ok := errors.AsType[*url.Error](err); ok {
		return about.Err.Error()
	}
	return err.Error()
}
