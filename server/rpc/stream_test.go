package rpc

import (
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// sink is a stream whose client takes what it is sent when it likes, as the other end of a connection does. It keeps the bytes by reference, and how they looked at first.
type sink struct {
	grpc.ServerStream
	ctx context.Context
	// take is called for every response; its error ends the stream.
	take func(resp *eventrelayv1.SubscribeResponse, wire mem.BufferSlice) error
}

func (s *sink) Context() context.Context                   { return s.ctx }
func (s *sink) Send(*eventrelayv1.SubscribeResponse) error { panic("responses are ready bytes") }
func (s *sink) SetHeader(metadata.MD) error                { return nil }
func (s *sink) SendMsg(m any) error {
	wire := m.(*ready).wire
	resp := &eventrelayv1.SubscribeResponse{}
	if err := proto.Unmarshal(wire.Materialize(), resp); err != nil {
		return err
	}
	return s.take(resp, wire)
}

// What gRPC holds after SendMsg must stay as it is while the ring moves on: other streams, and the client at the other end, read the same bytes.
func TestWhatWasSentNeverChanges(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	const total = 600
	var readers sync.WaitGroup
	for i, view := range []eventrelayv1.EventView{1, 2, 3, 1, 2, 3} {
		readers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var sent []mem.BufferSlice
			var sums []uint32
			got := 0
			err := r.service.Subscribe(&eventrelayv1.SubscribeRequest{View: view, Start: earliest, MaxEvents: int32(i * 7)}, &sink{ctx: ctx, take: func(resp *eventrelayv1.SubscribeResponse, wire mem.BufferSlice) error {
				sent, sums = append(sent, wire), append(sums, crc32.ChecksumIEEE(wire.Materialize()))
				if got += len(resp.GetEvents()); got == total {
					cancel()
				}
				return nil
			}})
			if ctx.Err() == nil {
				t.Errorf("the stream ended with %v", err)
			}
			for n, wire := range sent {
				if crc32.ChecksumIEEE(wire.Materialize()) != sums[n] {
					t.Fatalf("view %v: response %d was changed after it was sent", view, n)
				}
			}
		})
	}
	for n := 1; n <= total; n += 3 {
		r.append(strings.Repeat("a", 3000), strings.Repeat("b", 100), strings.Repeat("c", 70<<10))
	}
	readers.Wait()
}

// Readers of every kind over a log that is many times what is kept in memory: whoever reads from the log, joins the ring and falls behind again sees every event once.
func TestThereIsNoGapAtTheSeamOfLogAndRing(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	const total = 1500
	big := strings.Repeat("x", 40<<10) // 60 MB in all, where the ring has 16
	var readers sync.WaitGroup
	appended := make(chan struct{})
	for i := range 8 {
		readers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			next := uint64(1)
			if i%2 == 1 {
				<-appended // begins far behind
			}
			request := &eventrelayv1.SubscribeRequest{Start: earliest, View: eventrelayv1.EventView(1 + i%3)}
			if i >= 6 {
				request.Filter = "event.sequence % 3u == 0u" // the positions move past the others
			}
			r.service.Subscribe(request, &sink{ctx: ctx, take: func(resp *eventrelayv1.SubscribeResponse, _ mem.BufferSlice) error {
				if i == 2 && next < 200 {
					time.Sleep(time.Millisecond) // a slow client; what it delays is the test alone
				}
				for _, e := range resp.GetEvents() {
					if i >= 6 && next%3 != 0 {
						next += 3 - next%3
					}
					if e.GetSequence() != next {
						cancel()
						return fmt.Errorf("event %d came, not %d", e.GetSequence(), next)
					}
					next++
				}
				at, err := decodeToken(cursorToken, r.log.ID(), resp.GetCursor())
				if err != nil || at.sequence+1 < next || at.sequence+1 > next && i < 6 {
					cancel()
					return fmt.Errorf("cursor at %d behind %d, %w", at.sequence, next-1, err)
				}
				if at.sequence >= total {
					cancel()
				}
				return nil
			}})
			if next < total {
				t.Errorf("reader %d came to %d", i, next-1)
			}
		})
	}
	for n := 0; n < total; n += 50 {
		texts := make([]string, 50)
		for k := range texts {
			texts[k] = big
		}
		r.append(texts...)
	}
	close(appended)
	readers.Wait()
}

func TestAResponseKeepsAtMostAMebibyteOfMemory(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	for range 40 {
		texts := make([]string, 100)
		for k := range texts {
			texts[k] = strings.Repeat("x", 1000)
		}
		r.append(texts...)
	}
	if err := r.hub.Wait(t.Context(), 3999); err != nil {
		t.Fatal(err)
	}
	// One in a hundred: each keeps a chunk of its own.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := 0
	r.service.Subscribe(&eventrelayv1.SubscribeRequest{Start: earliest, Filter: "event.sequence % 100u == 0u"}, &sink{ctx: ctx, take: func(resp *eventrelayv1.SubscribeResponse, _ mem.BufferSlice) error {
		if n := len(resp.GetEvents()); n > 16 {
			t.Errorf("%d chunks of 64 KiB are kept", n)
		}
		if got += len(resp.GetEvents()); got == 40 {
			cancel()
		}
		return nil
	}})
	if got != 40 {
		t.Errorf("%d events", got)
	}
}

func TestAResponseIsNoLargerThanAskedForWithAllThatIsInIt(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 200)...)
	for view := range eventrelayv1.EventView_EVENT_VIEW_RAW + 1 {
		for _, limit := range []int32{1, 200, 1000, 4096} {
			s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest, View: view, MaxBytes: limit})
			for read := 0; read < 200; {
				resp := s.next()
				if size := proto.Size(resp); size > int(limit) && len(resp.GetEvents()) > 1 {
					t.Fatalf("%v: %d events in %d bytes, want at most %d", view, len(resp.GetEvents()), size, limit)
				}
				read += len(resp.GetEvents())
			}
			s.cancel()
		}
	}
}

// An event that no filter needs to look into is not decoded, and one that many do is decoded once.
func TestAnEventIsDecodedOnceForAllFilters(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	var streams []*subscription
	for n := range 10 {
		for range 2 {
			s := r.subscribe(&eventrelayv1.SubscribeRequest{Filter: fmt.Sprintf("event.sequence %% 10u == %du", n)})
			s.next()
			streams = append(streams, s)
		}
	}
	plain := r.subscribe(&eventrelayv1.SubscribeRequest{})
	plain.next()
	r.append(numbers(1, 100)...)
	plain.read(100)
	for n, s := range streams {
		var want []string
		for k := 1; k <= 100; k++ {
			if k%10 == n/2 {
				want = append(want, strconv.Itoa(k))
			}
		}
		if got := bodies(s.read(10)); !slices.Equal(got, want) {
			t.Errorf("filter %d: %v", n/2, got)
		}
	}
	if n := r.service.decoded.made; n != 100 {
		t.Errorf("100 events were decoded %d times", n)
	}
}

func TestAStreamThatIsOldEndsWithItsCursorAndACodeToComeBackOn(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.service.Limit(Limits{MaxAge: 200 * time.Millisecond})
	r.append("1")
	s := r.subscribe(&eventrelayv1.SubscribeRequest{Start: earliest})
	e := s.read(1)[0]
	wantReason(t, s.failure(), codes.Unavailable, "STREAM_AGED")
	if s.last.GetCursor() != e.GetCursor() {
		t.Errorf("the last word is %q, want %q", s.last.GetCursor(), e.GetCursor())
	}
	busy := r.subscribe(&eventrelayv1.SubscribeRequest{CheckpointInterval: durationpb.New(time.Minute)})
	busy.next()
	for {
		r.append("more") // a stream that always has something to send is no exception
		resp, err := busy.stream.Recv()
		if err != nil {
			wantReason(t, err, codes.Unavailable, "STREAM_AGED")
			break
		}
		busy.last = resp
	}
	again := r.subscribe(&eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: busy.last.GetCursor()}})
	if next := again.next(); next.GetCursor() != busy.last.GetCursor() {
		t.Error("the last cursor is not where to go on")
	}
}

func TestStreamsThatBeganTogetherDoNotEndTogether(t *testing.T) {
	limits := Limits{MaxAge: time.Hour}
	begin := time.Now()
	var first, last time.Duration
	for i := range 1000 {
		age := limits.end().Sub(begin)
		if age < 54*time.Minute || age > 66*time.Minute+time.Second {
			t.Fatalf("a stream lives %s", age)
		}
		if i == 0 {
			first, last = age, age
		}
		first, last = min(first, age), max(last, age)
	}
	if last-first < 10*time.Minute {
		t.Errorf("streams end within %s", last-first)
	}
	if !(Limits{}).end().IsZero() {
		t.Error("without a maximum a stream has an end")
	}
}

func TestACallerHasSoManyStreamsAndNotMore(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.service.Limit(Limits{MaxPerCaller: 2})
	first, second := r.subscribe(&eventrelayv1.SubscribeRequest{}), r.subscribe(&eventrelayv1.SubscribeRequest{})
	first.next()
	second.next()
	got := wantReason(t, r.subscribe(&eventrelayv1.SubscribeRequest{}).failure(), codes.ResourceExhausted, "TOO_MANY_STREAMS")
	if got["max_streams"] != "2" {
		t.Errorf("metadata %v", got)
	}
	first.cancel()
	for { // as soon as the server has noticed
		s := r.subscribe(&eventrelayv1.SubscribeRequest{})
		if _, err := s.stream.Recv(); err == nil {
			break
		}
	}
}

func TestCallersAreToldApartByTheirAddressesWhereThereAreNoTokens(t *testing.T) {
	var open admission
	from := func(address string) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{Addr: addr(address)})
	}
	leave, err := open.enter(from("192.0.2.1:1000"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.enter(from("192.0.2.1:2000"), 1); err == nil {
		t.Error("another port is taken for another caller")
	}
	if _, err := open.enter(from("192.0.2.2:1000"), 1); err != nil {
		t.Errorf("another caller is refused: %v", err)
	}
	leave()
	if _, err := open.enter(from("192.0.2.1:1000"), 1); err != nil {
		t.Errorf("a caller that has left is refused: %v", err)
	}
}

func TestCallersOverHTTPAreThoseThatTheGatewaySaysAndNobodyElseMaySay(t *testing.T) {
	for _, c := range []struct {
		what, want string
		peer       net.Addr
		forwarded  []string
	}{
		{"over HTTP", "192.0.2.7", inMemory{}, []string{"192.0.2.7"}},
		{"over HTTP, and says to be another", "192.0.2.7", inMemory{}, []string{"192.0.2.8", "192.0.2.9, 192.0.2.7", "192.0.2.7"}},
		{"over gRPC, and says to be another", "192.0.2.7", addr("192.0.2.7:1000"), []string{"192.0.2.8"}},
		{"in memory, and is nobody", "bufconn", inMemory{}, nil},
	} {
		ctx := peer.NewContext(metadata.NewIncomingContext(t.Context(), metadata.MD{"x-forwarded-for": c.forwarded}), &peer.Peer{Addr: c.peer})
		if got := callerOf(ctx); got != c.want {
			t.Errorf("who calls %s is %s, want %s", c.what, got, c.want)
		}
	}
}

// inMemory is the address of the gateway's connection.
type inMemory struct{}

func (inMemory) Network() string { return "bufconn" }
func (inMemory) String() string  { return "bufconn" }

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
