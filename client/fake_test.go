package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// relay is an event service over a slice of events; event n has the cursor cn. The knobs are set before it serves, the rest under mu.
type relay struct {
	eventrelayv1.UnimplementedEventServiceServer

	killAfter  func(stream int) int // the stream is cut once it has sent so many events; negative or nil: never
	silent     func(stream int) bool
	refuse     func(stream int) error  // answers instead of a stream
	afterwards func(stream int) error  // ends a stream behind its greeting
	batch      int                     // events of one response; 0: all that wait
	wire       func(net.Conn) net.Conn // what a connection goes through

	mu       sync.Mutex
	events   []*eventrelayv1.Event
	bell     chan struct{} // closed and replaced when events grow
	earliest int           // events up to this one are gone
	streams  []attempt
	open     int
	tokens   []string
}

// errEnd makes the relay end a stream without an error.
var errEnd = errors.New("end")

// attempt is one call of Subscribe as the relay saw it.
type attempt struct {
	request *eventrelayv1.SubscribeRequest
	at      time.Time
}

func newRelay(events int) *relay {
	r := &relay{bell: make(chan struct{})}
	r.grow(events)
	return r
}

func (r *relay) grow(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range n {
		sequence := uint64(len(r.events) + 1)
		r.events = append(r.events, &eventrelayv1.Event{
			Id: fmt.Sprintf("event%d", sequence), Cursor: fmt.Sprintf("c%d", sequence), Sequence: sequence,
		})
	}
	close(r.bell)
	r.bell = make(chan struct{})
}

func (r *relay) expire(upTo int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.earliest = upTo
}

// starts lists where the streams were asked to start.
func (r *relay) starts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var starts []string
	for _, s := range r.streams {
		switch {
		case s.request.GetCursor() != "":
			starts = append(starts, s.request.GetCursor())
		case s.request.GetStartTime() != nil:
			starts = append(starts, s.request.GetStartTime().AsTime().Format(time.RFC3339))
		default:
			starts = append(starts, s.request.GetStartFrom().String())
		}
	}
	return starts
}

func (r *relay) attempts() []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]attempt(nil), r.streams...)
}

func (r *relay) openStreams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

func (r *relay) enter(ctx context.Context, request *eventrelayv1.SubscribeRequest) (stream int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	r.tokens = append(r.tokens, strings.Join(md.Get("authorization"), ","))
	r.streams = append(r.streams, attempt{proto.Clone(request).(*eventrelayv1.SubscribeRequest), time.Now()})
	r.open++
	return len(r.streams)
}

// from gives the place that a request starts behind.
func (r *relay) from(request *eventrelayv1.SubscribeRequest) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch start := request.GetStart().(type) {
	case *eventrelayv1.SubscribeRequest_Cursor:
		at, err := strconv.Atoi(strings.TrimPrefix(start.Cursor, "c"))
		if err != nil {
			return 0, refusal(codes.InvalidArgument, "CURSOR_MALFORMED", nil)
		}
		if at < r.earliest {
			return 0, refusal(codes.OutOfRange, "CURSOR_EXPIRED", map[string]string{"earliest_cursor": fmt.Sprintf("c%d", r.earliest)})
		}
		return at, nil
	case *eventrelayv1.SubscribeRequest_StartFrom:
		if start.StartFrom == eventrelayv1.StartFrom_START_FROM_EARLIEST {
			return r.earliest, nil
		}
	}
	return len(r.events), nil
}

// after gives the next events behind a place, how many are left behind them, and the bell to wait for when there are none.
func (r *relay) after(at, limit int) ([]*eventrelayv1.Event, int, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.events[at:]
	if limit > 0 && len(next) > limit {
		next = next[:limit]
	}
	return next, len(r.events) - at - len(next), r.bell
}

func (r *relay) Subscribe(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	stream := r.enter(out.Context(), request)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open--
	}()
	if r.silent != nil && r.silent(stream) {
		<-out.Context().Done()
		return out.Context().Err()
	}
	if r.refuse != nil {
		if err := r.refuse(stream); err != nil {
			return err
		}
	}
	at, err := r.from(request)
	if err != nil {
		return err
	}
	waiting, _, _ := r.after(at, 0)
	if err := out.Send(&eventrelayv1.SubscribeResponse{Cursor: fmt.Sprintf("c%d", at), Backlog: uint64(len(waiting))}); err != nil {
		return err
	}
	if r.afterwards != nil {
		if err := r.afterwards(stream); errors.Is(err, errEnd) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return r.serve(stream, at, request, out)
}

func (r *relay) serve(stream, at int, request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	left := -1
	if r.killAfter != nil {
		left = r.killAfter(stream)
	}
	for {
		limit := r.batch
		if left >= 0 && (limit == 0 || limit > left) {
			limit = left
		}
		if left == 0 {
			return status.Error(codes.Unavailable, "cut")
		}
		next, backlog, bell := r.after(at, limit)
		if len(next) == 0 {
			select {
			case <-bell:
				continue
			case <-out.Context().Done():
				return out.Context().Err()
			case <-time.After(request.GetCheckpointInterval().AsDuration()):
			}
		}
		at += len(next)
		left -= len(next)
		response := &eventrelayv1.SubscribeResponse{Events: next, Cursor: fmt.Sprintf("c%d", at), Backlog: uint64(backlog)}
		if err := out.Send(response); err != nil {
			return err
		}
	}
}

// refusal is an error as the service words it.
func refusal(code codes.Code, reason string, metadata map[string]string) error {
	st, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "eventrelay", Metadata: metadata})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// serve runs a relay in memory and connects a client to it; both end with the test.
func serve(t *testing.T, r *relay, options ...client.Option) *client.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	eventrelayv1.RegisterEventServiceServer(server, r)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := listener.DialContext(ctx)
		if err == nil && r.wire != nil {
			conn = r.wire(conn)
		}
		return conn, err
	}
	c, err := client.Dial("passthrough:///localhost", append(options, client.WithDialOptions(grpc.WithContextDialer(dialer)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
		server.Stop()
		<-done
	})
	return c
}

// patience bounds what a test waits for; reached only by a failure.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
