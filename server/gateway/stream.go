package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// expiredID is the id of the error that tells of an expired cursor. A client that comes back with it has been told, and is answered 204: that is how "once" is known
	// without keeping anything. No cursor looks like it.
	expiredID = "expired"
	// minRetry and maxRetry bound, in milliseconds, after what pause a client is told to come back: at random, so that a restart is not followed by everybody at once.
	minRetry, maxRetry = 1000, 3000
	// writeBytes is how much text is gathered before it is written. A response of large events is then not held twice as a whole.
	writeBytes = 64 << 10
	// keptBytes is how large a buffer may be that a stream keeps for its next response.
	keptBytes = 256 << 10
)

// eventStream serves `GET /v1/events:subscribe`: EventService.Subscribe as server-sent events, over the same gRPC connection as every other call, so that tokens, rules,
// filters, cursors and errors are those of gRPC.
//
// A block of the stream is an event: `id` is its cursor, `event` its type, `data` its JSON in one line, however long. A response without events, and the part of one behind
// its last event, is a comment and an `id` without data: that dispatches nothing and yet moves the id that EventSource comes back with, past what the filter left out. (A
// client that only notes the ids of what it dispatches comes back further behind, which costs a second look and loses nothing.) The first such block comes at once.
//
// A response is read from gRPC when the one before has been written, and flushed as a whole. A client that does not read stops its own gRPC stream by flow control; at most
// that stream's window and one response are held for it.
type eventStream struct {
	events eventrelayv1.EventServiceClient
	mux    *runtime.ServeMux // for metadata and errors as the other calls have them
}

// newEventStream returns the handler. It compresses where the client accepts gzip, without a memory of what went before: a window for each of a thousand silent
// streams would cost more than it saves.
func newEventStream(events eventrelayv1.EventServiceClient, mux *runtime.ServeMux) (http.Handler, error) {
	compressed, err := gzhttp.NewWrapper(gzhttp.MinSize(0), gzhttp.EnableZstd(false), gzhttp.CompressionLevel(gzip.StatelessCompression))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return compressed(&eventStream{events: events, mux: mux}), nil
}

// ServeHTTP streams until the client goes or the stream ends. What goes wrong before the first byte is an HTTP status, and later a last event `error`.
func (s *eventStream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Last-Event-ID") == expiredID {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stream, first, err := s.open(ctx, r)
	if err != nil && !(isExpired(err) && isEventSource(r)) {
		_, outbound := runtime.MarshalerForRequest(s.mux, r)
		runtime.HTTPError(ctx, s.mux, outbound, w, r, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	if r.Method == http.MethodHead {
		return
	}
	out := &blocks{w: w, flush: http.NewResponseController(w).Flush}
	out.buffer = fmt.Appendf(out.buffer, "retry: %d\n", minRetry+rand.IntN(maxRetry-minRetry))
	for response := first; err == nil; response, err = stream.Recv() {
		if err = out.response(response); err != nil {
			break
		}
	}
	if ctx.Err() == nil && !errors.Is(err, io.EOF) {
		_ = out.failure(err) // a client that has gone needs no reason
	}
}

// open makes the request of an HTTP request and waits for the first response, which comes at once: until it is there nothing has been said to the client.
func (s *eventStream) open(ctx context.Context, r *http.Request) (eventrelayv1.EventService_SubscribeClient, *eventrelayv1.SubscribeResponse, error) {
	ctx, err := runtime.AnnotateContext(ctx, s.mux, r, eventrelayv1.EventService_Subscribe_FullMethodName)
	if err != nil {
		return nil, nil, err
	}
	request, err := subscribeRequest(r)
	if err != nil {
		return nil, nil, err
	}
	stream, err := s.events.Subscribe(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	first, err := stream.Recv()
	return stream, first, err
}

// isEventSource reports whether a client speaks server-sent events, as opposed to one that merely fetches an address. EventSource tells its page nothing of a status, so
// that what the page can act on must be an event.
func isEventSource(r *http.Request) bool {
	return r.Header.Get("Last-Event-ID") != "" || strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// isExpired reports whether an error tells of an expired cursor.
func isExpired(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain && info.GetReason() == reason(eventrelayv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED) {
			return true
		}
	}
	return false
}

// blocks writes the blocks of a stream.
type blocks struct {
	w      io.Writer
	flush  func() error
	buffer []byte
}

// jsonOptions are those of the other REST calls.
var jsonOptions = protojson.MarshalOptions{UseProtoNames: true}

// response writes the events of a response and flushes them, or a heartbeat where there is none.
func (b *blocks) response(response *eventrelayv1.SubscribeResponse) error {
	at := ""
	for _, event := range response.GetEvents() {
		block, err := jsonOptions.MarshalAppend(append(b.buffer, "id: "+event.GetCursor()+"\nevent: "+event.GetType()+"\ndata: "...), event)
		if err != nil {
			return status.Errorf(codes.Internal, "event %s cannot be told as JSON; gRPC has it", event.GetId())
		}
		b.buffer, at = block, event.GetCursor()
		b.buffer = append(b.buffer, "\n\n"...)
		if len(b.buffer) >= writeBytes {
			if err := b.write(); err != nil {
				return err
			}
		}
	}
	if response.GetCursor() != at {
		b.buffer = fmt.Appendf(b.buffer, ": backlog %d\nid: %s\n\n", response.GetBacklog(), response.GetCursor())
	}
	return b.send()
}

// failure writes the last event of a stream. Without an id of its own it leaves the client's where it is: there it may go on.
func (b *blocks) failure(err error) error {
	text, marshalErr := jsonOptions.Marshal(status.Convert(err).Proto())
	if marshalErr != nil {
		return marshalErr
	}
	if isExpired(err) {
		b.buffer = append(b.buffer, "id: "+expiredID+"\n"...)
	}
	b.buffer = append(append(append(b.buffer, "event: error\ndata: "...), text...), "\n\n"...)
	return b.send()
}

// send writes what is gathered and flushes it.
func (b *blocks) send() error {
	if err := b.write(); err != nil {
		return err
	}
	return b.flush()
}

// write hands on what is gathered.
func (b *blocks) write() error {
	_, err := b.w.Write(b.buffer)
	if b.buffer = b.buffer[:0]; cap(b.buffer) > keptBytes {
		b.buffer = nil
	}
	return err
}
