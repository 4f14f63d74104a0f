package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// numbered are the sequences from 1 to n, which is what the readers of a log without gaps see.
func numbered(n int) (all []uint64) {
	for i := range n {
		all = append(all, uint64(i+1))
	}
	return all
}

// aged reads one stream to its end, from the earliest or behind a cursor, and returns the events and the last cursor.
func (r *relay) aged(ctx context.Context, cursor string) (sequences []uint64, last string, err error) {
	r.t.Helper()
	request := &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}}
	if cursor != "" {
		request.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: cursor}
	}
	stream, err := r.events.Subscribe(ctx, request)
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return sequences, last, err
		}
		for _, event := range response.GetEvents() {
			sequences = append(sequences, event.GetSequence())
		}
		last = response.GetCursor()
	}
}

// agedSSE is aged over HTTP. It returns the data of the last block, which is an error.
func (r *relay) agedSSE(ctx context.Context, cursor string) (cursors []string, last, said string) {
	r.t.Helper()
	answer := r.subscribeSSE(ctx, cursor)
	defer answer.Body.Close()
	for block, err := range sse.Read(answer.Body, nil) {
		if err != nil {
			r.t.Fatal(err)
		}
		switch last = block.LastEventID; {
		case block.Type == "error":
			said = block.Data
		case block.Data != "":
			cursors = append(cursors, block.LastEventID)
		}
	}
	return cursors, last, said
}

// subscribeSSE opens a stream from the earliest or behind a cursor, with further headers: a name, its value, and so on.
func (r *relay) subscribeSSE(ctx context.Context, cursor string, headers ...string) *http.Response {
	r.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http+"/v1/events:subscribe?start_from=START_FROM_EARLIEST", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if cursor != "" {
		request.Header.Set("Last-Event-ID", cursor)
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

func TestAStreamThatHasLivedLongEnoughEndsWithItsCursorAndAReaderGoesOnWithoutGap(t *testing.T) {
	r := spawn(t, t.TempDir(), "--max-stream-age", "1s")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	posted, written := atomic.Int64{}, make(chan struct{})
	writing, stop := context.WithCancel(ctx)
	go func() { // while streams end
		defer close(written)
		for writing.Err() == nil {
			if code := r.post("dev", text(fmt.Sprint("wamid.", posted.Add(1)), "hello")); code != http.StatusOK {
				t.Errorf("answered %d", code)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()

	var followed []uint64
	var following sync.WaitGroup
	followCtx, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	end := atomic.Uint64{}
	following.Go(func() {
		c, err := client.Dial(r.grpc, client.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for event, err := range c.Follow(followCtx, client.FollowOptions{From: eventrelayv1.StartFrom_START_FROM_EARLIEST, CheckpointInterval: 100 * time.Millisecond}) {
			if err != nil {
				if followCtx.Err() == nil {
					t.Error(err)
				}
				return
			}
			if followed = append(followed, event.GetSequence()); event.GetSequence() == end.Load() {
				return
			}
		}
	})

	var seen []uint64
	cursor := ""
	for turn := range 2 {
		begun := time.Now()
		sequences, last, err := r.aged(ctx, cursor)
		if status.Code(err) != codes.Unavailable || client.Reason(err) != "STREAM_AGED" {
			t.Fatalf("stream %d ends with %v", turn, err)
		}
		if age := time.Since(begun); age < 850*time.Millisecond {
			t.Errorf("stream %d has lived for %s", turn, age)
		}
		if len(sequences) == 0 {
			t.Errorf("stream %d had no event", turn)
		}
		seen, cursor = append(seen, sequences...), last
	}
	if !slices.Equal(seen, numbered(len(seen))) {
		t.Errorf("streams that went on where the one before had ended saw %v", seen)
	}

	cursors, last, said := r.agedSSE(ctx, "")
	more, _, again := r.agedSSE(ctx, last)
	if !strings.Contains(said, "STREAM_AGED") || !strings.Contains(again, "STREAM_AGED") {
		t.Errorf("server-sent events end with %q and %q", said, again)
	}
	stop()
	<-written
	r.drained()
	all := r.overGRPC(ctx, "", int(posted.Load()))
	for i, got := range slices.Concat(cursors, more) {
		if got != all[i].cursor {
			t.Fatalf("event %d over server-sent events is at %s, want %s", i+1, got, all[i].cursor)
		}
	}
	if len(more) == 0 {
		t.Error("the second stream of server-sent events had no event")
	}

	// One more, so that there is an event for the follower to end at, wherever it is.
	end.Store(uint64(posted.Load()) + 1)
	r.accept(text("wamid.last", "hello"))
	following.Wait()
	if want := numbered(int(end.Load())); !slices.Equal(followed, want) {
		t.Errorf("a client that follows saw %d events, want %d, each once", len(followed), len(want))
	}
}

// open opens a stream by gRPC and returns how to close it, or the error that it is refused with.
func (r *relay) open(ctx context.Context) (leave func(), err error) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return cancel, nil
}

// openSSE does so over HTTP; a refusal is the status and the body.
func (r *relay) openSSE(ctx context.Context, headers ...string) (leave func(), code int, body string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	answer := r.subscribeSSE(ctx, "", headers...)
	if answer.StatusCode == http.StatusOK {
		return func() { cancel(); answer.Body.Close() }, answer.StatusCode, ""
	}
	defer cancel()
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return nil, answer.StatusCode, string(text)
}

// soon tries until it is done, for the server takes a moment to see that a client has gone.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestACallerHasSoManyStreamsOverGRPCAndHTTPTogetherAndAFreedPlaceIsGoodAgain(t *testing.T) {
	r := spawn(t, t.TempDir(), "--max-streams-per-caller", "2")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	refused := func() {
		t.Helper()
		_, err := r.open(ctx)
		if status.Code(err) != codes.ResourceExhausted || client.Reason(err) != "TOO_MANY_STREAMS" || client.Detail(err, "max_streams") != "2" {
			t.Errorf("one more over gRPC is answered %v", err)
		}
		if _, code, body := r.openSSE(ctx); code != http.StatusTooManyRequests || !strings.Contains(body, "TOO_MANY_STREAMS") {
			t.Errorf("one more over HTTP is answered %d %s", code, body)
		}
		if _, code, body := r.openSSE(ctx, "X-Forwarded-For", "192.0.2.8", "Grpc-Metadata-X-Forwarded-For", "192.0.2.9"); code != http.StatusTooManyRequests {
			t.Errorf("one more that says to come from elsewhere is answered %d %s", code, body)
		}
	}
	first, err := r.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	second, code, body := r.openSSE(ctx)
	if code != http.StatusOK {
		t.Fatalf("the second is answered %d %s", code, body)
	}
	refused()
	first()
	soon(t, "the place that a stream over gRPC had is free", func() bool {
		first, code, _ = r.openSSE(ctx)
		return code == http.StatusOK
	})
	refused()
	second()
	soon(t, "the place that a stream over HTTP had is free", func() bool {
		second, err = r.open(ctx)
		return err == nil
	})
	refused()
	first()
	second()
}

func TestCallersWithTokensAreToldApartByThemWhereverTheyCall(t *testing.T) {
	g := serveGuarded(t, "--max-streams-per-caller", "1")
	events := eventrelayv1.NewEventServiceClient(g.dial(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(token string) error {
		stream, err := events.Subscribe(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), &eventrelayv1.SubscribeRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	if err := open(readerToken); err != nil {
		t.Fatal(err)
	}
	if err := open(readerToken); client.Reason(err) != "TOO_MANY_STREAMS" {
		t.Errorf("one more over gRPC is answered %v", err)
	}
	answer, body := g.request(t, http.MethodGet, "https://"+g.http+"/v1/events:subscribe", "Bearer "+readerToken)
	if answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(body), "TOO_MANY_STREAMS") {
		t.Errorf("one more over HTTP is answered %s %s", answer.Status, body)
	}
	if err := open(operatorToken); err != nil {
		t.Errorf("another caller from the same address is answered %v", err)
	}
}
