package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	// What the machine's environment says is not what these tests are about.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "EVENTRELAY_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// relay is an event service that answers each stream by a script of its own.
type relay struct {
	eventrelayv1.UnimplementedEventServiceServer

	script func(stream int, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error

	mu       sync.Mutex // guards the rest
	requests []*eventrelayv1.SubscribeRequest
	tokens   []string
}

func (r *relay) Subscribe(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	r.mu.Lock()
	md, _ := metadata.FromIncomingContext(out.Context())
	r.tokens = append(r.tokens, strings.Join(md.Get("authorization"), ","))
	r.requests = append(r.requests, request)
	stream := len(r.requests)
	r.mu.Unlock()
	return r.script(stream, out)
}

func (r *relay) request(t *testing.T) *eventrelayv1.SubscribeRequest {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) == 0 {
		t.Fatal("nothing was asked for")
	}
	return r.requests[0]
}

// sends makes a script that greets, sends the events in one response and then stays open.
func sends(events ...*eventrelayv1.Event) func(int, grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	return func(_ int, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
		if err := out.Send(&eventrelayv1.SubscribeResponse{Cursor: "c0", Backlog: uint64(len(events))}); err != nil {
			return err
		}
		if len(events) > 0 {
			if err := out.Send(&eventrelayv1.SubscribeResponse{Events: events, Cursor: "c9"}); err != nil {
				return err
			}
		}
		<-out.Context().Done()
		return nil
	}
}

// refuses makes a script that answers with an error.
func refuses(code codes.Code, text, reason string, metadata map[string]string) func(int, grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "eventrelay", Metadata: metadata})
	if err != nil {
		panic(err)
	}
	return func(int, grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error { return st.Err() }
}

// serve runs the relay on a port of this machine until the test ends.
func (r *relay) serve(t *testing.T) (address string) { return r.start(t) }

// serveTLS does so behind a certificate.
func (r *relay) serveTLS(t *testing.T, certificate *tls.Certificate) (address string) {
	return r.start(t, grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
}

func (r *relay) start(t *testing.T, options ...grpc.ServerOption) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	eventrelayv1.RegisterEventServiceServer(server, r)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String()
}

// result is what a run left behind.
type result struct {
	code     int
	out, err string
}

// eventrelay runs the command line.
func eventrelay(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, diag bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &out, &diag)
	if ctx.Err() != nil {
		t.Fatalf("eventrelay %v did not end; it said %s", args, diag.String())
	}
	return result{code, out.String(), diag.String()}
}

// golden compares with a file of testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s:\n%s", file, got)
	}
}
