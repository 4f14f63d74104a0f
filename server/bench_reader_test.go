package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// readers are streams, each on a connection of its own, that are read as fast as they come.
type readers struct {
	b       *testing.B
	all     []*streamReader
	running sync.WaitGroup
	cancel  context.CancelFunc
	conns   []*grpc.ClientConn
}

// streamReader is one of them.
type streamReader struct {
	events, responses atomic.Int64
	// paused holds the reader up while it is held.
	paused sync.Mutex
}

// what is a call of a streaming method.
type what struct {
	method string
	// request is sent first.
	request any
	// each is how many events a message of the bare server stands for; 0 counts those of a SubscribeResponse.
	each int64
	// decode is whether messages are decoded, as SubscribeResponse, or passed over.
	decode bool
	// oneConnection is whether all streams share a connection.
	oneConnection bool
	// got is told of each message that is decoded, if it is set. Many readers call it at once.
	got func(*eventrelayv1.SubscribeResponse)
}

const (
	subscribeMethod = eventrelayv1.EventService_Subscribe_FullMethodName
	bareMethod      = "/bench.Bare/Stream"
)

// openReaders opens n streams and returns when each has got a message.
func openReaders(b *testing.B, address string, n int, w func(i int) what) *readers {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &readers{b: b, cancel: cancel}
	var first sync.WaitGroup
	for i := range n {
		if len(r.conns) == 0 || !w(i).oneConnection {
			conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			r.conns = append(r.conns, conn)
		}
		conn := r.conns[len(r.conns)-1]
		reader := &streamReader{}
		r.all = append(r.all, reader)
		first.Add(1)
		r.running.Go(func() {
			once := sync.OnceFunc(first.Done)
			defer once()
			if err := reader.read(ctx, conn, w(i), once); err != nil && ctx.Err() == nil {
				b.Errorf("reader %d: %v", i, err)
			}
		})
	}
	first.Wait()
	return r
}

func (r *streamReader) read(ctx context.Context, conn *grpc.ClientConn, w what, first func()) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, w.method, grpc.ForceCodecV2(newRawCodec()))
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(w.request), stream.CloseSend()); err != nil {
		return err
	}
	message := &rawMessage{taken: func(data mem.BufferSlice) { r.count(w, data) }}
	for {
		if err := r.receive(stream, w, message); err != nil {
			return err
		}
		first()
		r.responses.Add(1)
		r.paused.Lock()
		r.paused.Unlock() //nolint:staticcheck // waits while a benchmark holds it
	}
}

func (r *streamReader) receive(stream grpc.ClientStream, w what, message *rawMessage) error {
	if !w.decode {
		return stream.RecvMsg(message)
	}
	resp := &eventrelayv1.SubscribeResponse{}
	if err := stream.RecvMsg(resp); err != nil {
		return err
	}
	r.events.Add(int64(len(resp.GetEvents())))
	if w.got != nil {
		w.got(resp)
	}
	return nil
}

// count counts the events of a message that is not decoded, by stepping over its fields.
func (r *streamReader) count(w what, data mem.BufferSlice) {
	if w.each > 0 {
		r.events.Add(w.each)
		return
	}
	const eventsTag = 1<<3 | 2
	events := int64(0)
	reader := data.Reader()
	defer reader.Close()
	for {
		tag, err := reader.ReadByte()
		if err != nil || tag != eventsTag { // cursor and backlog come behind the events
			break
		}
		size, shift := 0, 0
		for {
			part, err := reader.ReadByte()
			if err != nil {
				panic(err)
			}
			size |= int(part&0x7f) << shift
			if shift += 7; part < 0x80 {
				break
			}
		}
		if _, err := reader.Discard(size); err != nil {
			panic(err)
		}
		events++
	}
	r.events.Add(events)
}

// sum is how many events and responses all readers have got, and how many events the slowest of them.
func (r *readers) sum() (events, responses, least int64) {
	for i, reader := range r.all {
		n := reader.events.Load()
		if i == 0 || n < least {
			least = n
		}
		events += n
		responses += reader.responses.Load()
	}
	return events, responses, least
}

// close ends the streams.
func (r *readers) close() {
	r.cancel()
	r.running.Wait()
	for _, conn := range r.conns {
		conn.Close()
	}
}

// rates is what was measured in a while.
type rates struct {
	// events is deliveries a second, batch the events of a response.
	events, batch float64
}

// measure lets the readers run warm, then counts for a while. tick is called every few milliseconds.
func (r *readers) measure(warm, d time.Duration, tick func()) rates {
	r.b.Helper()
	pass := func(d time.Duration) time.Duration {
		begin := time.Now()
		for time.Since(begin) < d {
			time.Sleep(2 * time.Millisecond)
			tick()
		}
		return time.Since(begin)
	}
	pass(warm)
	events, responses, _ := r.sum()
	took := pass(d)
	events2, responses2, _ := r.sum()
	return rates{float64(events2-events) / took.Seconds(), float64(events2-events) / float64(max(responses2-responses, 1))}
}

// bareRate is what the bare server does with a message that stands for so many events.
func bareRate(b *testing.B, bare *role, subscribers int, message []byte, each int, decode bool) rates {
	b.Helper()
	r := openReaders(b, bare.address, subscribers, func(int) what {
		return what{method: bareMethod, request: &rawMessage{bytes: message}, each: int64(each), decode: decode}
	})
	defer r.close()
	return r.measure(warmUp, measured, func() {})
}

// oneResponse is the first response with an event that a relay sends, as bytes, with that one event alone.
func oneResponse(b *testing.B, relay *role, request *eventrelayv1.SubscribeRequest) []byte {
	b.Helper()
	conn, err := grpc.NewClient(relay.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request = proto.CloneOf(request)
	request.Start, request.MaxEvents = &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}, 1
	stream, err := eventrelayv1.NewEventServiceClient(conn).Subscribe(ctx, request)
	for err == nil {
		var resp *eventrelayv1.SubscribeResponse
		if resp, err = stream.Recv(); err == nil && len(resp.GetEvents()) == 1 {
			resp.Backlog = 0
			message, err := proto.Marshal(resp)
			if err != nil {
				b.Fatal(err)
			}
			return message
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.Fatal(err)
	return nil
}
