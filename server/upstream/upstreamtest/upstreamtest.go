// Package upstreamtest stands in front of a stand-in for a provider's API: it keeps what was asked, and fails where a test wants that.
package upstreamtest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
)

// A Request is what came, as far as tests look at it.
type Request struct {
	Method string
	Host   string
	Path   string
	Query  url.Values
	Header http.Header
	// Body is as it came, Form and JSON as it reads; nil where it is neither.
	Body string
	Form url.Values
	JSON map[string]any
}

// A Failure is an answer instead of the real one.
type Failure struct {
	Status int
	Header http.Header
	Body   string
	// Cut breaks the connection in the middle of the answer.
	Cut bool
	// Hang answers nothing until the caller gives up.
	Hang bool
}

// A Front is an http.Handler before another. It is safe for concurrent use.
type Front struct {
	next http.Handler

	// mu guards the fields below it.
	mu       sync.Mutex
	requests []Request
	failures []Failure
	header   http.Header
}

// NewFront returns a Front before next.
func NewFront(next http.Handler) *Front { return &Front{next: next, header: http.Header{}} }

// Fail has the next calls answered with the failures, one each, in order.
func (f *Front) Fail(failures ...Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, failures...)
}

// FailTimes has the next n calls answered with the failure.
func (f *Front) FailTimes(n int, failure Failure) { f.Fail(slices.Repeat([]Failure{failure}, n)...) }

// SetHeader has every answer carry a header from now on, failures included; an empty value ends that.
func (f *Front) SetHeader(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if value == "" {
		f.header.Del(name)
		return
	}
	f.header.Set(name, value)
}

// Requests returns what was asked so far, in order.
func (f *Front) Requests() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// Forget drops what was asked so far.
func (f *Front) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	failure, fails := f.take(requestOf(r, body), w.Header())
	if !fails {
		f.next.ServeHTTP(w, r)
		return
	}
	if failure.Hang {
		<-r.Context().Done()
		return
	}
	for name, values := range failure.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(failure.Status)
	_, _ = io.WriteString(w, failure.Body)
	if failure.Cut {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// take keeps the request, sets the headers that every answer has, and returns how the call is to fail.
func (f *Front) take(request Request, header http.Header) (Failure, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, request)
	maps.Copy(header, f.header)
	if len(f.failures) == 0 {
		return Failure{}, false
	}
	failure := f.failures[0]
	f.failures = f.failures[1:]
	return failure, true
}

func requestOf(r *http.Request, body []byte) Request {
	got := Request{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone(), Body: string(body)}
	switch r.Header.Get("Content-Type") {
	case "application/x-www-form-urlencoded":
		got.Form, _ = url.ParseQuery(string(body))
	case "application/json":
		_ = json.Unmarshal(body, &got.JSON)
	}
	return got
}

// A Transport answers requests from a handler, without a network between them: what a test in a synctest bubble needs, where time does not pass while a goroutine waits for a socket.
// It cannot break a connection.
type Transport struct{ Handler http.Handler }

// RoundTrip serves the request.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	recorder := httptest.NewRecorder()
	inner := r.Clone(r.Context())
	inner.Host = r.URL.Host
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	t.Handler.ServeHTTP(recorder, inner)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := recorder.Result()
	answer.Request = r
	return answer, nil
}
