package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// tortureTime names how long TestTorture runs; without it the test is skipped.
	tortureTime = "EVENTRELAY_TORTURE"
	// tortureWriters post at once, tortureRate items a second together: enough to keep server and readers busy, and little enough to hold all of it in memory.
	tortureWriters = 8
	tortureRate    = 1500
	// tortureEvery is the longest time that a server lives, and tortureCalm how long everything may take to arrive once nobody is killed any more.
	tortureEvery = 3 * time.Second
	tortureCalm  = 3 * time.Minute
	// marked is what the text of one message in three says, for the readers with a filter.
	marked = "mark"
)

// torture is one run: a server that is killed again and again, those who write to it, and those who read.
type torture struct {
	t *testing.T
	// server is the one that lives, or the last that did.
	server atomic.Pointer[relay]
	// calm is set when nobody writes any more: readers then hurry to the end.
	calm atomic.Bool

	mu    sync.Mutex // guards acked
	acked []string   // items of notifications that were answered 200
	// redelivered, refused count posts.
	redelivered, refused atomic.Int64
}

// tortured is an event as a reader saw it.
type tortured struct{ sequence, id uint64 }

// torturedReader is a reader that must see every event that it wants, once, in order.
type torturedReader struct {
	name   string
	marked bool // wants marked events only
	run    func(ctx context.Context, see func(*eventrelayv1.Event))

	mu   sync.Mutex // guards seen
	seen []tortured
}

func (r *torturedReader) see(event *eventrelayv1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, noted(event))
}

func (r *torturedReader) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) == 0 {
		return 0
	}
	return r.seen[len(r.seen)-1].sequence
}

// noted is what is kept of an event.
func noted(event *eventrelayv1.Event) tortured {
	sum := fnv.New64a()
	sum.Write([]byte(event.GetId()))
	return tortured{event.GetSequence(), sum.Sum64()}
}

// TestTorture kills the server at random while providers post and readers read, and then holds what providers were told against what readers saw. Providers do what they
// do: repeat what was not answered, and at random what was, batched anew. `make torture DURATION=5m` runs it.
func TestTorture(t *testing.T) {
	if os.Getenv(tortureTime) == "" {
		t.Skipf("%s does not say for how long", tortureTime)
	}
	length, err := time.ParseDuration(os.Getenv(tortureTime))
	if err != nil {
		t.Fatalf("%s: %v", tortureTime, err)
	}
	dir := t.TempDir()
	x := &torture{t: t}
	// The log's own window is as short as it can be, so that it is the index that knows redeliveries, however short the run.
	start := func() { x.server.Store(spawn(t, dir, "--duplicate-window", "100ms")) }
	start()

	readers := x.readers()
	reading, stopReading := context.WithCancel(t.Context())
	defer stopReading()
	var all sync.WaitGroup
	defer all.Wait()
	for _, r := range readers {
		all.Go(func() { r.run(reading, r.see) })
	}
	writing, stopWriting := context.WithTimeout(t.Context(), length)
	defer stopWriting()
	var writers sync.WaitGroup
	for w := range tortureWriters {
		writers.Go(func() { x.write(writing, w) })
	}
	kills, stops := 0, 0
	for writing.Err() == nil {
		select {
		case <-writing.Done():
		case <-time.After(time.Second/2 + rand.N(tortureEvery)):
		}
		if rand.IntN(8) == 0 {
			x.server.Load().stop()
			stops++
		} else {
			x.server.Load().kill()
			kills++
		}
		start()
	}
	x.calm.Store(true)
	writers.Wait() // each until its last notification is answered 200

	log := x.server.Load().all()
	missing := x.wait(readers, log)
	stopReading()
	all.Wait()
	duplicates, gaps := x.compareLog(log)
	delivered := 0
	for _, r := range readers {
		d, g := r.compare(t, log)
		duplicates, gaps, delivered = duplicates+d, gaps+g, delivered+len(r.seen)
		t.Logf("%-32s %d events", r.name, len(r.seen))
	}
	t.Logf("acked %d, redelivered %d, posts without an answer of 200 %d, stored %d, delivered %d, duplicates %d, gaps %d, kills %d, stops %d",
		len(x.acked), x.redelivered.Load(), x.refused.Load(), len(log), delivered, duplicates, gaps, kills, stops)
	if duplicates+gaps > 0 || missing != "" || len(x.acked) == 0 || kills == 0 || delivered == 0 {
		t.Fatal("what readers saw is not what writers were told", missing)
	}
}

// wait waits until every reader is where the log ends, and names one that does not get there.
func (x *torture) wait(readers []*torturedReader, log []*eventrelayv1.Event) string {
	deadline := time.Now().Add(tortureCalm)
	for _, r := range readers {
		end := uint64(0)
		for _, event := range log {
			if r.wants(event) {
				end = event.GetSequence()
			}
		}
		for r.last() < end {
			if time.Now().After(deadline) {
				return fmt.Sprintf("%s is at %d of %d", r.name, r.last(), end)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return ""
}

// write posts new items, one at a time or up to a thousand, each body again until it is answered 200, and now and then items that were answered before.
func (x *torture) write(ctx context.Context, writer int) {
	made := 0
	var own []string // answered
	for ctx.Err() == nil {
		count := 1
		switch dice := rand.IntN(100); {
		case dice < 3:
			count = 200 + rand.IntN(800)
		case dice < 20:
			count = 2 + rand.IntN(48)
		}
		var fresh []string
		for range count {
			fresh = append(fresh, fmt.Sprintf("wamid.%d.%d", writer, made))
			made++
		}
		items := slices.Clone(fresh)
		if len(own) > 0 && rand.IntN(4) == 0 { // a redelivery, in other company
			for range 1 + rand.IntN(20) {
				items = append(items, own[rand.IntN(len(own))])
			}
			x.redelivered.Add(int64(len(items) - len(fresh)))
		}
		rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		for x.server.Load().post("dev", many(items)) != http.StatusOK {
			x.refused.Add(1)
			if x.t.Context().Err() != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
			if rand.IntN(2) == 0 { // a retry is batched anew
				rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
			}
		}
		own = append(own, fresh...)
		x.mu.Lock()
		x.acked = append(x.acked, fresh...)
		x.mu.Unlock()
		time.Sleep(time.Duration(len(items)) * time.Second * tortureWriters / tortureRate)
	}
}

// many is a body with a message for each id.
func many(ids []string) []byte {
	var b strings.Builder
	b.WriteString(`{"object":"whatsapp_business_account","entry":[{"id":"1001","time":1750000000,"changes":[{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"2002"},"messages":[`)
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		said := "hello"
		if strings.HasSuffix(id, "0") || strings.HasSuffix(id, "5") {
			said = marked
		}
		fmt.Fprintf(&b, `{"from":"4915550002222","id":%q,"timestamp":"1750000000","type":"text","text":{"body":%q}}`, id, said)
	}
	b.WriteString(`]}}]}]}`)
	return []byte(b.String())
}

// wants reports whether a reader is to see an event.
func (r *torturedReader) wants(event *eventrelayv1.Event) bool {
	return !r.marked || event.GetMessage().GetText().GetBody() == marked
}

// compareLog counts the items that are in the log more than once, and those that were acknowledged and are not there.
func (x *torture) compareLog(log []*eventrelayv1.Event) (duplicates, gaps int) {
	count := map[string]int{}
	for i, event := range log {
		if event.GetSequence() != uint64(i+1) {
			gaps++
		}
		if count[event.GetMessage().GetId()]++; count[event.GetMessage().GetId()] > 1 {
			duplicates++
		}
	}
	for _, item := range x.acked {
		if count[item] == 0 {
			gaps++
		}
	}
	return duplicates, gaps
}

// compare counts what a reader saw twice or out of order, and what it should have seen and did not.
func (r *torturedReader) compare(t *testing.T, log []*eventrelayv1.Event) (duplicates, gaps int) {
	var want []tortured
	for _, event := range log {
		if r.wants(event) {
			want = append(want, noted(event))
		}
	}
	if slices.Equal(want, r.seen) {
		return 0, 0
	}
	saw := map[tortured]bool{}
	before := uint64(0)
	for _, event := range r.seen {
		if saw[event] || event.sequence <= before {
			duplicates++
		}
		saw[event], before = true, event.sequence
	}
	for _, event := range want {
		if !saw[event] {
			if gaps++; gaps == 1 {
				t.Logf("%s did not see event %d first", r.name, event.sequence)
			}
		}
		delete(saw, event)
	}
	return duplicates + len(saw), gaps // what is left is in no log
}

// readers are those of every kind.
func (x *torture) readers() []*torturedReader {
	const earliest = eventrelayv1.StartFrom_START_FROM_EARLIEST
	filter := fmt.Sprintf("event.message.text.body == %q", marked)
	quick := client.FollowOptions{From: earliest, CheckpointInterval: time.Second, MaxBackoff: 500 * time.Millisecond}
	typed, slow := quick, quick
	typed.Filter, typed.View = filter, eventrelayv1.EventView_EVENT_VIEW_TYPED
	slow.MaxEvents = 10
	lag := func() {
		if !x.calm.Load() {
			time.Sleep(2 * time.Millisecond)
		}
	}
	return []*torturedReader{
		{name: "gRPC, fast", run: x.follow(quick, nil, 0)},
		{name: "gRPC, filtered, without raw", marked: true, run: x.follow(typed, nil, 0)},
		{name: "gRPC, slow", run: x.follow(slow, lag, 0)},
		{name: "gRPC, reconnecting", run: x.follow(quick, nil, 3000)},
		{name: "SSE, fast", run: x.alternate("?start_from=START_FROM_EARLIEST", nil, 0, false)},
		{name: "SSE, filtered, reconnecting", marked: true, run: x.alternate("?start_from=START_FROM_EARLIEST&checkpoint_interval=0.1s&filter="+strings.ReplaceAll(filter, " ", "%20"), nil, 500, false)},
		{name: "SSE, slow", run: x.alternate("?start_from=START_FROM_EARLIEST&max_events=10", lag, 0, false)},
		{name: "SSE and gRPC in turn", run: x.alternate("?start_from=START_FROM_EARLIEST", nil, 2000, true)},
	}
}

// follow reads by the Go client. It does something after each event, and begins anew with its cursor after up to so many.
func (x *torture) follow(o client.FollowOptions, after func(), atMost int) func(context.Context, func(*eventrelayv1.Event)) {
	return func(ctx context.Context, see func(*eventrelayv1.Event)) {
		c, err := client.Dial("passthrough:///127.0.0.1:1", client.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", x.server.Load().grpc)
		})), client.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			x.t.Error(err)
			return
		}
		defer c.Close()
		for ctx.Err() == nil {
			left := rand.IntN(max(atMost, 1)) + 1
			for event, err := range c.Follow(ctx, o) {
				if err != nil {
					x.t.Errorf("a reader ends: %v", err)
					return
				}
				see(event)
				if after != nil {
					after()
				}
				o.From, o.Cursor = eventrelayv1.StartFrom_START_FROM_UNSPECIFIED, event.GetCursor()
				if left--; atMost > 0 && left == 0 {
					break
				}
			}
		}
	}
}

// alternate reads by server-sent events and comes back with the last id, or by turns with gRPC, each going on from where the other stopped.
func (x *torture) alternate(query string, after func(), atMost int, turns bool) func(context.Context, func(*eventrelayv1.Event)) {
	return func(ctx context.Context, see func(*eventrelayv1.Event)) {
		cursor := ""
		note := func(event *eventrelayv1.Event) {
			see(event)
			if after != nil {
				after()
			}
		}
		for turn := 0; ctx.Err() == nil; turn++ {
			left := 1 << 62
			if atMost > 0 {
				left = 1 + rand.IntN(atMost)
			}
			part, cancel := context.WithCancel(ctx)
			var err error
			if turns && turn%2 == 1 {
				cursor, err = x.grpcPart(part, cursor, left, note)
			} else {
				cursor, err = x.ssePart(part, query, cursor, left, note)
			}
			cancel()
			if err != nil { // the server is away
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

var errTorturePart = errors.New("the stream ended")

// ssePart reads up to so many events and returns where to go on.
func (x *torture) ssePart(ctx context.Context, query, cursor string, left int, see func(*eventrelayv1.Event)) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, x.server.Load().http+"/v1/events:subscribe"+query, nil)
	if err != nil {
		return cursor, err
	}
	if cursor != "" {
		request.Header.Set("Last-Event-ID", cursor)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return cursor, err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 && answer.StatusCode < 500 {
		x.t.Errorf("server-sent events: %s", answer.Status)
	}
	if answer.StatusCode != http.StatusOK {
		return cursor, errTorturePart
	}
	for block, err := range sse.Read(answer.Body, &sse.ReadConfig{MaxEventSize: 16 << 20}) {
		switch {
		case err != nil:
			return cursor, err
		case block.Type == "error":
			return cursor, errTorturePart
		case block.Data != "":
			event := &eventrelayv1.Event{}
			if err := protojson.Unmarshal([]byte(block.Data), event); err != nil {
				return cursor, err // cut off in the middle
			}
			see(event)
			left--
		}
		if cursor = block.LastEventID; left == 0 {
			return cursor, nil
		}
	}
	return cursor, errTorturePart
}

// grpcPart does so by gRPC.
func (x *torture) grpcPart(ctx context.Context, cursor string, left int, see func(*eventrelayv1.Event)) (string, error) {
	conn, err := grpc.NewClient(x.server.Load().grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return cursor, err
	}
	defer conn.Close()
	request := &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}}
	if cursor != "" {
		request.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: cursor}
	}
	stream, err := eventrelayv1.NewEventServiceClient(conn).Subscribe(ctx, request)
	if err != nil {
		return cursor, err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return cursor, err
		}
		for _, event := range response.GetEvents() {
			see(event)
			cursor = event.GetCursor()
			if left--; left == 0 {
				return cursor, nil
			}
		}
		cursor = response.GetCursor()
	}
}
