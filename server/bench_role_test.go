package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"eventrelay/server/eventlog"
	"eventrelay/server/hub"
	"eventrelay/server/rpc"
	"eventrelay/server/translate"
)

// Benchmarks put servers and those who call them into processes of their own, as they are in life: readers and writers are in the test, the servers are the test binary in
// one of the roles. A role serves until its standard input ends, and obeys the lines it reads there.

// role is a process in a role.
type role struct {
	b     *testing.B
	stdin io.WriteCloser
	lines *bufio.Scanner
	// address is where it serves streams, http where it takes posts; "-" where it does not.
	address, http string
}

// startRole starts a process in a role, which says where it serves before anything else.
func startRole(b *testing.B, name string, args ...string) *role {
	b.Helper()
	command := as(name, args...)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	r := &role{b: b, stdin: stdin, lines: bufio.NewScanner(stdout)}
	b.Cleanup(func() {
		stdin.Close()
		command.Wait()
	})
	if _, err := fmt.Sscan(r.answer(), &r.address, &r.http); err != nil {
		b.Fatalf("%s does not serve: %v", name, err)
	}
	return r
}

func (r *role) answer() string {
	r.b.Helper()
	if !r.lines.Scan() {
		r.b.Fatalf("the process ended: %v", r.lines.Err())
	}
	return r.lines.Text()
}

// tell gives an order; ask waits for the answer.
func (r *role) tell(format string, args ...any) { fmt.Fprintf(r.stdin, format+"\n", args...) }

func (r *role) ask(format string, args ...any) string {
	r.b.Helper()
	r.tell(format, args...)
	return r.answer()
}

// memory is how many bytes of heap and stacks the process uses after a collection.
func (r *role) memory() (n int64) {
	r.b.Helper()
	fmt.Sscan(r.ask("memory"), &n)
	return n
}

// obey answers orders until the standard input ends.
func obey(orders map[string]func(number int) string) {
	orders["memory"] = func(int) string {
		var m runtime.MemStats
		for range 3 { // pools are emptied by the second one
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return strconv.FormatUint(m.HeapAlloc+m.StackInuse, 10)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var order string
		var number int
		fmt.Sscan(lines.Text(), &order, &number)
		if answer := orders[order](number); answer != "" {
			fmt.Println(answer)
		}
	}
}

// relayRole is the whole server. What is appended comes from inside, so that an order for events costs the benchmark no HTTP and no translation; the log is the real one,
// on disk and synced.
func relayRole() {
	s := openRole()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(ctx) })
	fmt.Println(s.grpcListen.Addr(), s.webhookListener.Addr())
	f := &feeder{}
	f.add = func(first, n int) { appendEvents(s.log, first, n, f.rare) }
	obeyFeeder(f, s.hub)
	cancel()
	serving.Wait()
}

// readyRole is the server of streams over a log that holds one event, with a hub that goes on from there with events out of nothing. They are in its ring only, as those are
// that have just become durable: readers must not fall behind that.
func readyRole() {
	s := openRole()
	appendEvents(s.log, 1, 1, false)
	ready := &readyLog{Log: rpc.HubLog(s.log), fed: make(chan int)}
	ready.Framer, _ = ready.Log.(hub.Framer)
	logger := slog.New(slog.DiscardHandler)
	bell := hub.New(ready, logger)
	var err error
	s.grpc, err = rpc.NewServer(rpc.Services{
		Events:    rpc.NewEventService(s.log, s.index, bell, prometheus.NewRegistry(), logger),
		Sources:   rpc.NewSourceService(s.sources, s.providers),
		Schema:    rpc.NewSchemaService(s.drift, s.log),
		Meta:      rpc.NewMetaSubscriptionService(s.sources, s.providers.Graph),
		Dialog360: rpc.NewDialog360Service(s.sources, s.providers.Dialog360),
		Health:    s.health,
	}, s.callers.guard, logger)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { bell.Run(ctx) })
	serving.Go(func() { s.grpc.Serve(s.grpcListen) })
	fmt.Println(s.grpcListen.Addr(), "-")
	f := &feeder{add: func(_, n int) { ready.fed <- n }}
	f.appended.Store(1)
	obeyFeeder(f, bell)
	cancel()
	bell.Close()
	s.grpc.Stop()
	serving.Wait()
}

// readyLog is a log whose tail is made of samples, as many as it is fed.
type readyLog struct {
	hub.Log
	hub.Framer

	fed chan int
}

func (l *readyLog) Tail(ctx context.Context, after uint64) iter.Seq2[hub.Entry, error] {
	return func(yield func(hub.Entry, error) bool) {
		for {
			select {
			case n := <-l.fed:
				for ; n > 0; n-- {
					after++
					if !yield(hub.Entry{Sequence: after, Data: samples()[after%kinds].Data, More: n > 1}, nil) {
						return
					}
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// openRole opens a server as the arguments of the process say.
func openRole() *server {
	var c config
	parser, err := kong.New(&c)
	if err == nil {
		_, err = parser.Parse(os.Args[1:])
	}
	if err != nil {
		panic(err)
	}
	tune()
	s, err := open(context.Background(), c, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		panic(err)
	}
	return s
}

// obeyFeeder answers orders for events.
func obeyFeeder(f *feeder, bell *hub.Hub) {
	obey(map[string]func(int) string{
		"append": func(n int) string {
			f.append(n)
			for bell.Last() < uint64(f.appended.Load()) {
				time.Sleep(time.Millisecond)
			}
			return "done"
		},
		"feed": func(int) string { n := f.appended.Load(); f.feed(); return strconv.FormatInt(n, 10) },
		"read": func(n int) string { f.read.Store(int64(n)); return "" },
		"rare": func(int) string { f.rare = true; return "" },
		"stop": func(int) string { f.stop(); return strconv.FormatInt(f.appended.Load(), 10) },
	})
}

// feeder adds events to what is streamed.
type feeder struct {
	// add adds so many events. first is how many there are with the first of them.
	add            func(first, n int)
	appended, read atomic.Int64
	running        sync.WaitGroup
	stopped        atomic.Bool
	// rare has one event in a thousand be of a kind of its own.
	rare bool
}

const (
	// feedStep is how many events are appended at once; feedLead is how many more than the slowest reader has read may lie in the log: with fewer, all would wait for the
	// disk, with more, for the reading of it.
	feedStep = 250
	feedLead = 4000
)

// feed appends for as long as the slowest reader is not too far behind, until stop.
func (f *feeder) feed() {
	f.stopped.Store(false)
	f.read.Store(f.appended.Load())
	f.running.Go(func() {
		for !f.stopped.Load() {
			if f.appended.Load()-f.read.Load() < feedLead {
				f.append(feedStep)
			} else {
				time.Sleep(200 * time.Microsecond)
			}
		}
	})
}

func (f *feeder) stop() {
	f.stopped.Store(true)
	f.running.Wait()
}

// kinds are how many different events there are, for filters to tell apart.
const kinds = 10

// samples are events of each kind, as ingest makes them of a body of 1 KB.
var samples = sync.OnceValue(func() (events []translate.Event) {
	for kind := range kinds {
		events = append(events, translate.Translate(translate.Notification{Source: "dev", Body: body(fmt.Sprintf("wamid.%d", kind), kind)})[0])
	}
	return events
})

// rareSample is an event whose text begins with another word.
var rareSample = sync.OnceValue(func() translate.Event {
	return translate.Translate(translate.Notification{Source: "dev", Body: text("wamid.rare", "rare "+strings.Repeat("x", 600))})[0]
})

// body is a webhook of 1 KB with one text message.
func body(id string, kind int) []byte {
	mark := fmt.Sprintf("kind%d ", kind)
	return text(id, mark+strings.Repeat("x", 1024-len(text(id, mark))))
}

func (f *feeder) append(n int) {
	for ; n > 0; n -= feedStep {
		step := min(n, feedStep)
		f.add(int(f.appended.Add(int64(step)))-step+1, step)
	}
}

// appendEvents appends n events to the log. first is how many it holds then with the first of them. With rare, one in a thousand is of a kind of its own.
func appendEvents(log *eventlog.Log, first, n int, rare bool) {
	now := time.Now()
	var records []eventlog.Record
	for i := first; i < first+n; i++ {
		ev := samples()[i%kinds]
		if rare && i%1000 == 0 {
			ev = rareSample()
		}
		records = append(records, eventlog.Record{
			ID: fmt.Sprintf("%026d", i), Source: "dev", Type: ev.Type, OrderingKey: ev.OrderingKey, Time: now,
			Origin: eventlog.Origin{Journal: "bench", Record: uint64(i)}, Data: ev.Data,
		})
	}
	if _, err := log.Append(context.Background(), records); err != nil {
		panic(err)
	}
}

// relayArgs are the flags of a relay with its data in dir.
func relayArgs(dir string) []string {
	return args(dir, "--log-level", "error", "--data-dir", filepath.Join(dir, "data"))
}

// bareRole is grpc-go and nothing else: on each stream it sends the request's own bytes, ready made, again and again, as fast as the stream takes them; once, if they begin
// with a zero.
func bareRole() {
	handler := func(_ any, stream grpc.ServerStream) error {
		var message rawMessage
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		if message.bytes[0] == 0 {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
			<-stream.Context().Done()
			return nil
		}
		for {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}
	serveBare(handler, map[string]func(int) string{}, "-")
}

// serveBare serves one streaming method and obeys.
func serveBare(handler grpc.StreamHandler, orders map[string]func(int) string, http string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(newRawCodec()))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Bare", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: handler, ServerStreams: true}},
	}, nil)
	go server.Serve(listener)
	fmt.Println(listener.Addr(), http)
	obey(orders)
	server.Stop()
}

// rawMessage is a message that is neither encoded nor decoded.
type rawMessage struct {
	bytes []byte
	// taken gets what is received, instead of bytes, and must be done with it when it returns.
	taken func(mem.BufferSlice)
}

// rawCodec passes raw messages as they are.
type rawCodec struct{ encoding.CodecV2 }

func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2(protocodec.Name)} }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*rawMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(m.bytes)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*rawMessage)
	switch {
	case !ok:
		return c.CodecV2.Unmarshal(data, v)
	case m.taken != nil:
		m.taken(data)
	default:
		m.bytes = data.Materialize()
	}
	return nil
}
