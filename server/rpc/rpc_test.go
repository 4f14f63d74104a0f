package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

func TestTheFirstResponseComesAtOnceWithTheStartCursor(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append("before")
	s := r.subscribe(&eventrelayv1.SubscribeRequest{})
	first := s.next()
	if len(first.GetEvents()) != 0 || first.GetCursor() == "" {
		t.Fatalf("first response %v, want a cursor without events", first)
	}
	s.cancel()
	r.append("missed meanwhile")
	again := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: first.GetCursor()}})
	if got := bodies(again.read(1)); !slices.Equal(got, []string{"missed meanwhile"}) {
		t.Errorf("read %v", got)
	}
}

// When the log has just come back, a reader may be there before the hub has seen it.
func TestAHubThatHasNotBegunIsNotTakenForAnEmptyLog(t *testing.T) {
	r := newSilentRelay(t, eventlog.Options{})
	r.append("one", "two", "three")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetBacklog() != 3 {
		t.Fatalf("the backlog is %d, %v; three events wait", first.GetBacklog(), err)
	}
	second, err := stream.Recv()
	if err != nil || len(second.GetEvents()) != 3 {
		t.Errorf("%d events, %v", len(second.GetEvents()), err)
	}
}

func TestAStreamServesPastAndPresentInOrderWithoutAGap(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	const total = 400
	r.append(numbers(1, 100)...)
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	for n := 101; n <= total; n += 3 {
		r.append(numbers(n, n+2)...)
	}
	events := s.read(total)
	if got := bodies(events)[:total]; !slices.Equal(got, numbers(1, total)) {
		t.Errorf("read %v", got)
	}
	for i, e := range events {
		if e.GetSequence() != uint64(i+1) || e.GetCursor() == "" {
			t.Fatalf("event %d has sequence %d and cursor %q", i, e.GetSequence(), e.GetCursor())
		}
	}
	if s.last.GetCursor() != events[len(events)-1].GetCursor() || s.last.GetBacklog() != 0 {
		t.Errorf("the last response says %q and backlog %d", s.last.GetCursor(), s.last.GetBacklog())
	}
}

func TestAnyCursorBringsBackExactlyWhatLiesBehindIt(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 20)...)
	for i, e := range r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest}).read(20)[:19] {
		s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: e.GetCursor()}})
		if got := bodies(s.read(19 - i)); !slices.Equal(got, numbers(i+2, 20)) {
			t.Errorf("behind event %d: %v", i+1, got)
		}
		s.cancel()
	}
}

func TestAStreamStartsAtTheFirstEventReceivedAtATime(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 10)...)
	for _, c := range []struct {
		at   time.Time
		want int
	}{{began, 1}, {began.Add(4 * time.Second), 4}, {began.Add(4*time.Second + 1), 5}} {
		s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartTime{StartTime: timestamppb.New(c.at)}})
		if got := bodies(s.read(11 - c.want)); !slices.Equal(got, numbers(c.want, 10)) {
			t.Errorf("at %s: %v", c.at, got)
		}
		s.cancel()
	}
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartTime{StartTime: timestamppb.New(began.Add(time.Hour))}})
	s.next()
	r.append("later")
	if got := bodies(s.read(1)); got[0] != "later" {
		t.Errorf("behind the end: %v", got)
	}
}

func TestACheckpointMovesPastWhatDoesNotMatchAndIsNeverAheadOfDelivery(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	s := r.subscribe(&eventrelayv1.SubscribeRequest{
		Filter: `event.message.text.body.endsWith("7")`, CheckpointInterval: durationpb.New(100 * time.Millisecond),
	})
	s.next()
	var appending sync.WaitGroup
	appending.Go(func() {
		for n := range 50 {
			r.append(numbers(n*10+1, n*10+10)...)
		}
	})
	// What a checkpoint covers must have been delivered, so each one is compared with what has come until then.
	delivered := map[string]bool{}
	for checked := false; !checked; {
		resp := s.next()
		for _, e := range resp.GetEvents() {
			delivered[e.GetMessage().GetText().GetBody()] = true
		}
		at, err := decodeToken(cursorToken, r.log.ID(), resp.GetCursor())
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(7); n <= at.sequence; n += 10 {
			if !delivered[strconv.FormatUint(n, 10)] {
				t.Fatalf("cursor at %d, but %d was not delivered", at.sequence, n)
			}
		}
		checked = at.sequence == 500 // 498 to 500 do not match: only a checkpoint can say so
	}
	appending.Wait()
	if len(delivered) != 50 {
		t.Errorf("%d events delivered, want 50", len(delivered))
	}
}

func TestASlowReaderDelaysNobodyAndLosesNothing(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	slow := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	fast := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	big := strings.Repeat("x", 100<<10)
	const total = 200 // 20 MB: more than any window between server and client holds
	for n := range total {
		r.append(strconv.Itoa(n+1) + " " + big)
		fast.read(1)
	}
	events := slow.read(total)
	for i, e := range events {
		if e.GetSequence() != uint64(i+1) {
			t.Fatalf("slow reader: event %d has sequence %d", i, e.GetSequence())
		}
	}
}

func TestALaggingReaderGetsLargerResponsesWithinItsBounds(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 100)...)
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	s.next()
	if got := len(s.next().GetEvents()); got != 100 {
		t.Errorf("%d events in a response, want all 100 that wait", got)
	}
	s = r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest, MaxEvents: 30})
	s.next()
	for _, want := range []int{30, 30, 30, 10} {
		if got := len(s.next().GetEvents()); got != want {
			t.Errorf("%d events in a response, want %d", got, want)
		}
	}
	s = r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest, MaxBytes: 500})
	s.next()
	for read := 0; read < 100; {
		resp := s.next()
		size := 0
		for _, e := range resp.GetEvents() {
			size += proto.Size(e)
		}
		if size > 500 {
			t.Fatalf("%d bytes of events in a response, want at most 500", size)
		}
		read += len(resp.GetEvents())
	}
}

func TestACursorThatRetentionOvertookIsReportedWithTheEarliest(t *testing.T) {
	r := newRelay(t, eventlog.Options{MaxEvents: 10})
	r.append("1")
	old := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest}).read(1)[0].GetCursor()
	for n := 2; n <= 30; n++ {
		r.append(strconv.Itoa(n))
	}
	err := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: old}}).failure()
	from := wantReason(t, err, codes.OutOfRange, "CURSOR_EXPIRED")["earliest_cursor"]
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: from}})
	if got := bodies(s.read(10)); !slices.Equal(got, numbers(21, 30)) {
		t.Errorf("from the earliest cursor: %v", got)
	}
}

func TestAReaderThatRetentionOvertakesIsToldAndSkipsNothing(t *testing.T) {
	r := newRelay(t, eventlog.Options{MaxEvents: 20})
	s := r.subscribe(&eventrelayv1.SubscribeRequest{MaxEvents: 1})
	s.next()
	big := strings.Repeat("x", 1<<20)
	for n := 1; n <= 60; n++ { // far more than fits between server and a client that does not read, or into memory
		r.append(strconv.Itoa(n) + " " + big)
	}
	want := uint64(1)
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			wantReason(t, err, codes.OutOfRange, "CURSOR_EXPIRED")
			return
		}
		for _, e := range resp.GetEvents() {
			if e.GetSequence() != want {
				t.Fatalf("event %d after %d", e.GetSequence(), want-1)
			}
			want++
		}
		if want > 60 {
			t.Fatal("nothing was overtaken: the test does not test what it says")
		}
	}
}

func TestForeignAndMalformedCursorsAreRefused(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append("1")
	good := cursor(r.log.ID(), 1)
	flipped := "A" + good[1:]
	if flipped == good {
		flipped = "B" + good[1:]
	}
	for _, c := range []struct{ cursor, reason string }{
		{cursor("another log", 1), "CURSOR_FOREIGN"},
		{cursor(r.log.ID(), 2), "CURSOR_FOREIGN"}, // this log never came that far
		{"nonsense", "CURSOR_MALFORMED"},
		{good[:20], "CURSOR_MALFORMED"},
		{good + "A", "CURSOR_MALFORMED"},
		{flipped, "CURSOR_MALFORMED"},
		{token{kind: pageToken, sequence: 1}.encode(r.log.ID()), "CURSOR_MALFORMED"},
	} {
		err := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: c.cursor}}).failure()
		wantReason(t, err, codes.InvalidArgument, c.reason)
	}
}

func TestBadRequestsNameTheFieldAndTheFix(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	for _, c := range []struct {
		request         *eventrelayv1.SubscribeRequest
		reason, message string
		code            codes.Code
	}{
		{&eventrelayv1.SubscribeRequest{Filter: "event.typ"}, "FILTER_INVALID", "column 6", codes.InvalidArgument},
		{&eventrelayv1.SubscribeRequest{MaxBytes: -1}, "INVALID_REQUEST", "max_bytes", codes.InvalidArgument},
		{&eventrelayv1.SubscribeRequest{CheckpointInterval: durationpb.New(time.Millisecond)}, "INVALID_REQUEST", "checkpoint_interval", codes.InvalidArgument},
		{&eventrelayv1.SubscribeRequest{View: 17}, "INVALID_REQUEST", "view", codes.InvalidArgument},
		{&eventrelayv1.SubscribeRequest{Subscription: "subscriptions/x", Filter: "true"}, "INVALID_REQUEST", "leave filter", codes.InvalidArgument},
		{&eventrelayv1.SubscribeRequest{Subscription: "subscriptions/x"}, "SUBSCRIPTION_NOT_FOUND", "subscriptions/x", codes.NotFound},
	} {
		err := r.subscribe(c.request).failure()
		wantReason(t, err, c.code, c.reason)
		if !strings.Contains(status.Convert(err).Message(), c.message) {
			t.Errorf("%v: message %q does not name %q", c.request, status.Convert(err).Message(), c.message)
		}
	}
	_, err := r.events.GetEvent(t.Context(), &eventrelayv1.GetEventRequest{Id: "UPPER"})
	wantReason(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	_, err = r.events.GetEvent(t.Context(), &eventrelayv1.GetEventRequest{Id: id(99)})
	wantReason(t, err, codes.NotFound, "EVENT_NOT_INDEXED")
	_, err = r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{OrderBy: "id"})
	wantReason(t, err, codes.InvalidArgument, "INVALID_REQUEST")
}

func TestViewsLeaveOutWhatTheySay(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append("hello")
	for view, want := range map[eventrelayv1.EventView][2]bool{ // payload, raw
		eventrelayv1.EventView_EVENT_VIEW_UNSPECIFIED: {true, true},
		eventrelayv1.EventView_EVENT_VIEW_FULL:        {true, true},
		eventrelayv1.EventView_EVENT_VIEW_TYPED:       {true, false},
		eventrelayv1.EventView_EVENT_VIEW_RAW:         {false, true},
	} {
		// The filter sees the whole event, whatever is sent of it.
		s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest, View: view, Filter: `event.message.text.body == "hello" && size(event.raw) == 5`})
		e := s.read(1)[0]
		if got := [2]bool{e.GetPayload() != nil, len(e.GetRaw()) > 0}; got != want || e.GetRawOmitted() {
			t.Errorf("%v: payload, raw = %v, want %v", view, got, want)
		}
	}
}

func TestALargeEventComesWithoutItsRawWhichCanBeFetched(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	raw := strings.Repeat("0123456789", 350_000)
	r.append(raw)
	e := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest}).read(1)[0]
	if !e.GetRawOmitted() || len(e.GetRaw()) != 0 {
		t.Fatalf("raw_omitted %t with %d bytes of raw", e.GetRawOmitted(), len(e.GetRaw()))
	}
	stream, err := r.events.GetEventRaw(t.Context(), &eventrelayv1.GetEventRawRequest{Id: e.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part.GetData()...)
	}
	if string(got) != raw {
		t.Errorf("fetched %d bytes, want the %d that were received", len(got), len(raw))
	}
}

func TestShutdownEndsAStreamWithItsCursor(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append("1")
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	e := s.read(1)[0]
	r.hub.Close()
	err := s.failure()
	wantReason(t, err, codes.Unavailable, "SHUTTING_DOWN")
	if s.last.GetCursor() != e.GetCursor() {
		t.Errorf("the last word is %q, want %q", s.last.GetCursor(), e.GetCursor())
	}
}

func FuzzDecodeToken(f *testing.F) {
	f.Add(cursor("log", 1))
	f.Add("")
	f.Add(token{kind: pageToken, sequence: 9, scope: 4}.encode("log"))
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := decodeToken(cursorToken, "log", text); err == nil && got.encode("log") != text {
			t.Errorf("%q decodes to %+v, which is %q", text, got, got.encode("log"))
		}
	})
}
