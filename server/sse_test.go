package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
	"google.golang.org/protobuf/encoding/protojson"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// seen is an event as a reader noted it.
type seen struct {
	id, cursor string
	sequence   uint64
}

// overSSE reads so many events as server-sent events, behind a cursor or from the earliest.
func (r *relay) overSSE(ctx context.Context, cursor string, count int) (all []seen) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http+"/v1/events:subscribe?start_from=START_FROM_EARLIEST&max_events=7", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if cursor != "" {
		request.Header.Set("Last-Event-ID", cursor)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	for block, err := range sse.Read(answer.Body, &sse.ReadConfig{MaxEventSize: 16 << 20}) {
		if err != nil {
			r.t.Fatalf("after %d events: %v", len(all), err)
		}
		if block.Data == "" {
			continue // a checkpoint
		}
		event := &eventrelayv1.Event{}
		if err := protojson.Unmarshal([]byte(block.Data), event); err != nil {
			r.t.Fatalf("%s: %v", block.Data, err)
		}
		if event.GetCursor() != block.LastEventID || event.GetType() != block.Type {
			r.t.Errorf("%s at %s in a block of %s at %s", event.GetType(), event.GetCursor(), block.Type, block.LastEventID)
		}
		if all = append(all, seen{event.GetId(), event.GetCursor(), event.GetSequence()}); len(all) == count {
			break
		}
	}
	return all
}

// overGRPC reads so many events by gRPC, behind a cursor or from the earliest.
func (r *relay) overGRPC(ctx context.Context, cursor string, count int) (all []seen) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}, MaxEvents: 7}
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
			r.t.Fatalf("after %d events: %v", len(all), err)
		}
		for _, event := range response.GetEvents() {
			if all = append(all, seen{event.GetId(), event.GetCursor(), event.GetSequence()}); len(all) == count {
				return all
			}
		}
	}
}

func TestReadersOfSSEAndGRPCSeeTheSameAndHandEachOtherTheirCursor(t *testing.T) {
	const events = 60
	r := serve(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	written := make(chan struct{})
	go func() { // while both read
		defer close(written)
		for n := range events {
			r.post("dev", text(fmt.Sprint("wamid.", n), "hello"))
		}
	}()
	all := r.overGRPC(ctx, "", events)
	<-written
	if same := r.overSSE(ctx, "", events); !slices.Equal(same, all) {
		t.Fatalf("by server-sent events %v\nby gRPC %v", same, all)
	}
	// Three at a time, in turn, each from where the other stopped.
	var passed []seen
	for read := r.overSSE; len(passed) < events; {
		cursor := ""
		if len(passed) > 0 {
			cursor = passed[len(passed)-1].cursor
		}
		passed = append(passed, read(ctx, cursor, 3)...)
		if len(passed)/3%2 == 0 {
			read = r.overSSE
		} else {
			read = r.overGRPC
		}
	}
	if !slices.Equal(passed, all) {
		t.Errorf("handed over %v\nat a stretch %v", passed, all)
	}
}

func TestAShutdownEndsServerSentEventsWithTheirCursor(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.post("dev", text("wamid.1", "one"))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http+"/v1/events:subscribe?start_from=START_FROM_EARLIEST", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var last sse.Event
	for block, err := range sse.Read(answer.Body, nil) {
		if err != nil {
			t.Fatalf("behind %+v: %v", last, err)
		}
		if block.Data != "" && block.Type != "error" {
			go func() {
				r.post("dev", text("wamid.2", "two"))
				r.stop()
			}()
		}
		last = block
	}
	if last.Type != "error" || !strings.Contains(last.Data, "SHUTTING_DOWN") || last.LastEventID == "" {
		t.Fatalf("the last word is %+v", last)
	}
	r.stop()
	r = serve(t, dir)
	r.post("dev", text("wamid.3", "three"))
	all := r.overGRPC(ctx, "", 3)
	behind := slices.IndexFunc(all, func(s seen) bool { return s.cursor == last.LastEventID }) + 1
	if got := r.overSSE(ctx, last.LastEventID, 3-behind); behind == 0 || !slices.Equal(got, all[behind:]) {
		t.Errorf("went on from %s with %v of %v", last.LastEventID, got, all)
	}
}

func TestAnExpiredCursorIsToldOnceOverSSE(t *testing.T) {
	r := serve(t, t.TempDir(), "--retention-events", "2")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.post("dev", text("wamid.0", "first"))
	old := r.overGRPC(ctx, "", 1)[0].cursor
	for n := 1; n <= 5; n++ {
		r.post("dev", text(fmt.Sprint("wamid.", n), "more"))
	}
	r.drained()
	come := func(last string) (*http.Response, []string) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http+"/v1/events:subscribe", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Last-Event-ID", last)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var lines []string
		for scanner := bufio.NewScanner(answer.Body); scanner.Scan(); {
			lines = append(lines, scanner.Text())
		}
		return answer, lines
	}
	answer, lines := come(old)
	told := strings.Join(lines, "\n")
	if answer.StatusCode != http.StatusOK || !strings.Contains(told, "\nid: expired\nevent: error\ndata: {") || !strings.Contains(told, "CURSOR_EXPIRED") || !strings.Contains(told, "earliest_cursor") {
		t.Errorf("told %s:\n%s", answer.Status, told)
	}
	if answer, lines := come("expired"); answer.StatusCode != http.StatusNoContent || len(lines) != 0 {
		t.Errorf("told again: %s %v", answer.Status, lines)
	}
}
