package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// desk is a server that keeps every request and answers it by a function.
type desk struct {
	eventrelayv1.UnimplementedEventServiceServer
	eventrelayv1.UnimplementedSourceServiceServer
	eventrelayv1.UnimplementedSchemaServiceServer
	eventrelayv1.UnimplementedMetaSubscriptionServiceServer
	eventrelayv1.UnimplementedDialog360ServiceServer
	eventrelayv1.UnimplementedSubscriptionServiceServer

	answer func(request proto.Message) (proto.Message, error)
	raw    [][]byte                          // the parts of an event's raw JSON
	stream []*eventrelayv1.SubscribeResponse // the answer to Subscribe, which then stays open
	torn   error                             // what the raw JSON ends with instead of its end

	mu       sync.Mutex // guards requests
	requests []proto.Message
}

// answers makes a desk that has one answer to everything.
func answers(message proto.Message) *desk {
	return &desk{answer: func(proto.Message) (proto.Message, error) { return message, nil }}
}

// refusal makes an error as the server's: with a reason and its metadata.
func refusal(code codes.Code, text, domain, reason string, metadata map[string]string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: metadata}
	st, err := status.New(code, text).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (d *desk) keep(request proto.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, request)
}

// asked gives the requests so far.
func (d *desk) asked() []proto.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]proto.Message(nil), d.requests...)
}

func (d *desk) GetEventRaw(request *eventrelayv1.GetEventRawRequest, out grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	d.keep(request)
	for _, part := range d.raw {
		if err := out.Send(&httpbody.HttpBody{ContentType: "application/json", Data: part}); err != nil {
			return err
		}
	}
	return d.torn
}

func (d *desk) Subscribe(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	d.keep(request)
	for _, response := range d.stream {
		if err := out.Send(response); err != nil {
			return err
		}
	}
	<-out.Context().Done()
	return out.Context().Err()
}

// serve runs the desk on a port of this machine until the test ends.
func (d *desk) serve(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(_ context.Context, request any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		d.keep(request.(proto.Message))
		answer, err := d.answer(request.(proto.Message))
		if err != nil {
			return nil, err
		}
		return answer, nil
	}))
	eventrelayv1.RegisterEventServiceServer(server, d)
	eventrelayv1.RegisterSourceServiceServer(server, d)
	eventrelayv1.RegisterSchemaServiceServer(server, d)
	eventrelayv1.RegisterMetaSubscriptionServiceServer(server, d)
	eventrelayv1.RegisterDialog360ServiceServer(server, d)
	eventrelayv1.RegisterSubscriptionServiceServer(server, d)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String()
}

// ask runs a command against the desk.
func (d *desk) ask(t *testing.T, args ...string) result {
	t.Helper()
	return d.askWith(t, strings.NewReader(""), args...)
}

// askWith does so with something to read from standard input.
func (d *desk) askWith(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, diag bytes.Buffer
	code := run(ctx, append(args, "--server", d.serve(t)), stdin, &out, &diag)
	if ctx.Err() != nil {
		t.Fatalf("eventrelay %v did not end; it said %s", args, diag.String())
	}
	return result{code, out.String(), diag.String()}
}

// wants checks that these requests were made, and no others.
func (d *desk) wants(t *testing.T, want ...proto.Message) {
	t.Helper()
	got := d.asked()
	if len(got) != len(want) {
		t.Fatalf("%d requests instead of %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("asked for %v, not %v", show(got[i]), show(want[i]))
		}
	}
}

// show gives a message with its secrets, which the message's own text leaves out.
func show(message proto.Message) string { return string(must(protoNames.Marshal(message))) }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// file makes a file for the test and gives its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "given")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
