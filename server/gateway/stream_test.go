package gateway

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script answers a subscription.
type script func(*eventrelayv1.SubscribeRequest, grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error

// service is an event service that answers by a script and keeps what it was asked.
type service struct {
	eventrelayv1.UnimplementedEventServiceServer

	script script

	mu       sync.Mutex // guards requests
	requests []*eventrelayv1.SubscribeRequest
}

func (s *service) Subscribe(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
	s.mu.Lock()
	s.requests = append(s.requests, request)
	s.mu.Unlock()
	return s.script(request, out)
}

func (s *service) asked() []*eventrelayv1.SubscribeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// serve runs the service and the gateway over it until the test ends.
func serve(t *testing.T, s *service, options ...grpc.DialOption) *httptest.Server {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	eventrelayv1.RegisterEventServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///memory", append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(handler)
	web.EnableHTTP2 = true
	web.StartTLS()
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
		conn.Close()
		server.Stop()
		<-done
	})
	return web
}

// open asks for the stream of a server.
func open(t *testing.T, web *httptest.Server, query string, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, web.URL+"/v1/events:subscribe"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := web.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// read gives the blocks of a stream up to its end, or as many as asked for. The parser is somebody else's; it gives a block that only has an id as one without data.
func read(t *testing.T, body io.Reader, atMost int) (all []sse.Event) {
	t.Helper()
	for event, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: 32 << 20}) {
		if err != nil {
			t.Fatalf("after %d blocks: %v", len(all), err)
		}
		if all = append(all, event); len(all) == atMost {
			break
		}
	}
	return all
}

// event is one with a cursor, and a text that a line of the stream must not be broken by.
func event(cursor string) *eventrelayv1.Event {
	return &eventrelayv1.Event{Id: "id-" + cursor, Cursor: cursor, Type: "meta.page.feed", EntryId: "a\nb\r\nc\u2028d\u0085", Raw: []byte("{\n}")}
}

// responses makes a script that sends these and then ends.
func responses(end error, all ...*eventrelayv1.SubscribeResponse) script {
	return func(_ *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
		for _, response := range all {
			if err := out.Send(response); err != nil {
				return err
			}
		}
		return end
	}
}

// refusal is an error as the service words it.
func refusal(code codes.Code, reason string) error {
	st, err := status.New(code, "told").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain, Metadata: map[string]string{"earliest_cursor": "c7"}})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestEventsAreBlocksWithTheirCursorTypeAndJSON(t *testing.T) {
	s := &service{script: responses(refusal(codes.Unavailable, "SHUTTING_DOWN"),
		&eventrelayv1.SubscribeResponse{Cursor: "c0", Backlog: 3},
		&eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{event("c1"), event("c2")}, Cursor: "c2"},
		&eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{event("c3")}, Cursor: "c5"},
		&eventrelayv1.SubscribeResponse{Cursor: "c6"},
	)}
	for _, encoding := range []string{"identity", "gzip"} {
		answer := open(t, serve(t, s), "", "Accept-Encoding", encoding)
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept-Encoding"} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		body := io.Reader(answer.Body)
		if encoding == "gzip" {
			if answer.Header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("not compressed: %v", answer.Header)
			}
			unpacked, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = unpacked
		}
		var got []string
		for _, block := range read(t, body, 0) {
			got = append(got, block.LastEventID+" "+block.Type)
			switch block.Type {
			case "meta.page.feed":
				var said eventrelayv1.Event
				if err := protojson.Unmarshal([]byte(block.Data), &said); err != nil || !proto.Equal(&said, event(block.LastEventID)) {
					t.Errorf("%s says %s (%v)", block.LastEventID, block.Data, err)
				}
				if !strings.Contains(block.Data, `"entry_id"`) {
					t.Errorf("not the names of the proto: %s", block.Data)
				}
			case "error":
				if !strings.Contains(strings.ReplaceAll(block.Data, " ", ""), `"code":14`) || !strings.Contains(block.Data, "SHUTTING_DOWN") || !json.Valid([]byte(block.Data)) {
					t.Errorf("the last word is %s", block.Data)
				}
			case "":
				if block.Data != "" {
					t.Errorf("a checkpoint with data %q", block.Data)
				}
			}
		}
		// The error moves nothing: what comes back goes on from the last checkpoint.
		want := []string{"c0 ", "c1 meta.page.feed", "c2 meta.page.feed", "c3 meta.page.feed", "c5 ", "c6 ", "c6 error"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", encoding, got, want)
		}
	}
}

func TestEachResponseArrivesWhileTheStreamIsSilentBehindIt(t *testing.T) {
	for _, encoding := range []string{"identity", "gzip"} {
		next := make(chan *eventrelayv1.SubscribeResponse)
		s := &service{script: func(_ *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
			for response := range next {
				if err := out.Send(response); err != nil {
					return err
				}
			}
			return nil
		}}
		web := serve(t, s)
		go func() { next <- &eventrelayv1.SubscribeResponse{Cursor: "c0"} }()
		answer := open(t, web, "", "Accept-Encoding", encoding)
		body := io.Reader(answer.Body)
		if encoding == "gzip" {
			unpacked, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = unpacked
		}
		lines := bufio.NewScanner(body)
		until := func(prefix string) {
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), prefix) {
					return
				}
			}
			t.Fatalf("%s: the stream ended before %q: %v", encoding, prefix, lines.Err())
		}
		until("id: c0")
		for range 3 { // the next is sent only when the one before has been read
			for _, response := range []*eventrelayv1.SubscribeResponse{{Events: []*eventrelayv1.Event{event("c1")}, Cursor: "c1"}, {Cursor: "c2"}} {
				select {
				case next <- response:
				case <-answer.Request.Context().Done():
					t.Fatal("the stream has ended")
				}
				until("id: " + response.GetCursor())
			}
		}
		close(next)
	}
}

func TestTheQueryHasTheFieldsOfTheRequest(t *testing.T) {
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	s := &service{script: responses(nil, &eventrelayv1.SubscribeResponse{Cursor: "c0"})}
	web := serve(t, s)
	for query, want := range map[string]*eventrelayv1.SubscribeRequest{
		"":                                    {},
		"?filter=event.type%20%3D%3D%20'a'":   {Filter: "event.type == 'a'"},
		"?cursor=c1&max_events=7&max_bytes=9": {Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: "c1"}, MaxEvents: 7, MaxBytes: 9},
		"?start_time=2026-11-21T09:00:00Z":    {Start: &eventrelayv1.SubscribeRequest_StartTime{StartTime: timestamppb.New(at)}},
		"?startTime=2026-11-21T09:00:00Z":     {Start: &eventrelayv1.SubscribeRequest_StartTime{StartTime: timestamppb.New(at)}},
		"?start_from=START_FROM_EARLIEST&view=EVENT_VIEW_TYPED&checkpoint_interval=1.5s": {
			Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST},
			View:  eventrelayv1.EventView_EVENT_VIEW_TYPED, CheckpointInterval: durationpb.New(1500 * time.Millisecond),
		},
		"?subscription=subscriptions/a&max_outstanding=3": {Subscription: "subscriptions/a", MaxOutstanding: 3},
	} {
		answer := open(t, web, query)
		read(t, answer.Body, 0)
		asked := s.asked()
		if got := asked[len(asked)-1]; answer.StatusCode != http.StatusOK || !proto.Equal(got, want) {
			t.Errorf("%s: %d, asked for %v", query, answer.StatusCode, got)
		}
	}
}

func TestLastEventIDGoesBeforeAnyStartOfTheQuery(t *testing.T) {
	s := &service{script: responses(nil, &eventrelayv1.SubscribeResponse{Cursor: "c0"})}
	web := serve(t, s)
	for _, query := range []string{"", "?cursor=c1", "?start_from=START_FROM_EARLIEST", "?start_time=2026-11-21T09:00:00Z"} {
		read(t, open(t, web, query, "Last-Event-ID", "c9").Body, 0)
		asked := s.asked()
		if got := asked[len(asked)-1].GetCursor(); got != "c9" {
			t.Errorf("%s: started at %q", query, got)
		}
	}
}

func TestAWrongParameterIsRefusedByItsName(t *testing.T) {
	s := &service{script: responses(nil)}
	web := serve(t, s)
	for query, want := range map[string]string{
		"?fliter=true":               "fliter: there is no such parameter; there are filter, cursor,",
		"?access_token=ert_x":        "access_token: there is no such parameter",
		"?max_events=many":           "max_events: it must be a whole number",
		"?view=half":                 "view: it must be one of EVENT_VIEW_FULL, EVENT_VIEW_TYPED, EVENT_VIEW_RAW",
		"?checkpoint_interval=often": "checkpoint_interval: it must be a duration such as 5s",
		"?start_time=yesterday":      "start_time: it must be a time such as 2026-11-21T09:00:00Z",
		"?filter=a&filter=b":         "filter: it is given more than once",
		"?start_time=2026-11-21T09:00:00Z&startTime=2026-11-21T09:00:00Z": "it is given by both of its names",
		"?cursor=c1&start_from=START_FROM_LATEST":                         "start_from: a stream has one start: give only one of cursor, start_time, start_from",
		"?filter=%ff":                    "filter: it is not UTF-8",
		"?filter=%zz":                    "query: it cannot be read",
		"?checkpoint_interval.seconds=5": "checkpoint_interval.seconds: there is no such parameter",
	} {
		answer := open(t, web, query)
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		var told struct {
			Code    int              `json:"code"`
			Message string           `json:"message"`
			Details []map[string]any `json:"details"`
		}
		if err := json.Unmarshal(body, &told); err != nil {
			t.Fatalf("%s: %v: %s", query, err, body)
		}
		if answer.StatusCode != http.StatusBadRequest || told.Code != int(codes.InvalidArgument) || !strings.Contains(told.Message, want) || told.Details[0]["reason"] != "INVALID_REQUEST" {
			t.Errorf("%s: %d %s, want %q", query, answer.StatusCode, body, want)
		}
	}
	if asked := s.asked(); len(asked) > 0 {
		t.Errorf("asked all the same: %v", asked)
	}
}

func TestAnErrorBeforeTheFirstByteIsAStatus(t *testing.T) {
	for reason, code := range map[string]codes.Code{"CURSOR_FOREIGN": codes.InvalidArgument, "TOKEN_MISSING": codes.Unauthenticated, "LOG_UNAVAILABLE": codes.Unavailable} {
		s := &service{script: responses(refusal(code, reason))}
		answer := open(t, serve(t, s), "", "Accept", "text/event-stream")
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := map[codes.Code]int{codes.InvalidArgument: 400, codes.Unauthenticated: 401, codes.Unavailable: 503}[code]
		if answer.StatusCode != want || !strings.Contains(string(body), reason) || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", reason, answer.StatusCode, answer.Header, body)
		}
		if challenge := answer.Header.Get("WWW-Authenticate"); (code == codes.Unauthenticated) != (challenge == "Bearer") {
			t.Errorf("%s: challenge %q", reason, challenge)
		}
	}
}

func TestAnExpiredCursorIsToldOnceAndThenEndsEventSource(t *testing.T) {
	expired := refusal(codes.OutOfRange, "CURSOR_EXPIRED")
	for name, s := range map[string]*service{
		"at the start": {script: responses(expired)},
		"on the way":   {script: responses(expired, &eventrelayv1.SubscribeResponse{Cursor: "c1"})},
	} {
		t.Run(name, func(t *testing.T) {
			web := serve(t, s)
			answer := open(t, web, "?cursor=c1", "Accept", "text/event-stream")
			blocks := read(t, answer.Body, 0)
			if len(blocks) == 0 || answer.StatusCode != http.StatusOK {
				t.Fatalf("%s with %d blocks", answer.Status, len(blocks))
			}
			last := blocks[len(blocks)-1]
			if last.Type != "error" || !strings.Contains(last.Data, "CURSOR_EXPIRED") || !strings.Contains(last.Data, "c7") {
				t.Errorf("told %+v", last)
			}
			again := open(t, web, "?cursor=c1", "Accept", "text/event-stream", "Last-Event-ID", last.LastEventID)
			if again.StatusCode != http.StatusNoContent || len(s.asked()) != 1 {
				t.Errorf("came back to %s, asked %d times", again.Status, len(s.asked()))
			}
		})
	}
	t.Run("one who fetches is answered with a status", func(t *testing.T) {
		answer := open(t, serve(t, &service{script: responses(expired)}), "?cursor=c1")
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "CURSOR_EXPIRED") {
			t.Errorf("%s %s (%v)", answer.Status, body, err)
		}
	})
}

func TestAnEventOfMegabytesIsOneLine(t *testing.T) {
	large := event("c1")
	large.Raw = []byte(`"` + strings.Repeat("x", 3<<20) + `"`)
	s := &service{script: responses(nil, &eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{large}, Cursor: "c1"})}
	answer := open(t, serve(t, s, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20))), "")
	blocks := read(t, answer.Body, 0)
	var said eventrelayv1.Event
	if len(blocks) != 1 {
		t.Fatalf("%d blocks", len(blocks))
	}
	if err := protojson.Unmarshal([]byte(blocks[0].Data), &said); err != nil || !proto.Equal(&said, large) {
		t.Errorf("%d bytes of data: %v", len(blocks[0].Data), err)
	}
}

func TestAClientThatGoesEndsItsStream(t *testing.T) {
	ended := make(chan error, 1)
	s := &service{script: func(_ *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
		err := out.Send(&eventrelayv1.SubscribeResponse{Cursor: "c0"})
		<-out.Context().Done()
		ended <- errors.Join(err, out.Context().Err())
		return out.Context().Err()
	}}
	answer := open(t, serve(t, s), "")
	read(t, answer.Body, 1)
	answer.Body.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream goes on")
	}
}

// What a client that does not read holds is bounded, and another on the same connection to gRPC does not notice.
func TestAClientThatDoesNotReadStopsItsOwnStreamOnly(t *testing.T) {
	const window = 256 << 10
	var mu sync.Mutex
	sent := map[string]int{}
	full := &eventrelayv1.SubscribeResponse{Cursor: "c", Events: []*eventrelayv1.Event{{Cursor: "c", Type: "meta.page.feed", Raw: make([]byte, 64<<10)}}}
	s := &service{script: func(request *eventrelayv1.SubscribeRequest, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
		for {
			if err := out.Send(full); err != nil {
				return err
			}
			mu.Lock()
			sent[request.GetFilter()] += 64 << 10
			mu.Unlock()
		}
	}}
	web := serve(t, s, grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(4*window))
	open(t, web, "?filter=stopped", "Accept-Encoding", "identity") // and never reads
	moving := open(t, web, "?filter=moving", "Accept-Encoding", "identity")
	// More than the buffers on the way of the stopped one have room for.
	if _, err := io.CopyN(io.Discard, moving.Body, 24<<20); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	// The window, what gRPC keeps for writing, and what HTTP/2 and the sockets take.
	if sent["stopped"] > 8<<20 || sent["moving"] < 16<<20 {
		t.Errorf("sent %v bytes", sent)
	}
}

func TestAStreamIsServedOverHTTP2AndHTTP1(t *testing.T) {
	s := &service{script: responses(nil, &eventrelayv1.SubscribeResponse{Cursor: "c0"})}
	web := serve(t, s)
	if answer := open(t, web, ""); answer.ProtoMajor != 2 || len(read(t, answer.Body, 0)) != 1 {
		t.Errorf("HTTP/2: %s", answer.Proto)
	}
	first := &http.Transport{TLSClientConfig: web.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	first.TLSClientConfig.NextProtos = nil
	defer first.CloseIdleConnections()
	web.Client().Transport = first
	if answer := open(t, web, ""); answer.ProtoMajor != 1 || len(read(t, answer.Body, 0)) != 1 {
		t.Errorf("HTTP/1.1: %s", answer.Proto)
	}
	answer, err := web.Client().Head(web.URL + "/v1/events:subscribe")
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %v, %v", answer, err)
	}
}
