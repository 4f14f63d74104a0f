package main

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// warmUp is how long streams run before they are measured, for windows to open and buffers to grow; measured is how long they are.
	warmUp   = 500 * time.Millisecond
	measured = 1200 * time.Millisecond
	// rounds is how many turns of ours and the limits count; what is reported are medians, of the ratios too, so that what else the machine does hits both.
	rounds = 3
)

// BenchmarkFanout delivers events to many readers, from the moment at which they are durable: the server's ring is filled while the slowest reader is less than 4000 events
// behind. What it takes to make them durable is in BenchmarkFanoutLive.
//
// The limit is bare grpc-go that sends one ready message of the same size (that of a response with one event of a body of 1 KB) at a time, and that batched is the same with as
// many of them in a message as a response of ours had events. All three are measured in turn. With decode=false readers pass over the bytes, here and there; with decode=true
// both decode every event.
func BenchmarkFanout(b *testing.B) { benchmarkFanout(b, "ready") }

// BenchmarkFanoutLive is BenchmarkFanout of events that a feeder in the server's process appends to the real log, in steps of 250 that are synced. Appending goes on throughout
// and costs its share of the machine; with few readers it is all there is to wait for, so deliveries are as many times what the log appends, and the limits say little.
func BenchmarkFanoutLive(b *testing.B) { benchmarkFanout(b, "relay") }

func benchmarkFanout(b *testing.B, role string) {
	b.Helper()
	for _, subscribers := range []int{1, 10, 100, 1000} {
		for _, view := range []eventrelayv1.EventView{eventrelayv1.EventView_EVENT_VIEW_FULL, eventrelayv1.EventView_EVENT_VIEW_TYPED} {
			for _, decode := range []bool{false, true} {
				b.Run(fmt.Sprintf("subscribers=%d/view=%s/decode=%t", subscribers, view.String()[len("EVENT_VIEW_"):], decode), func(b *testing.B) {
					for b.Loop() {
						fanout(b, role, subscribers, &eventrelayv1.SubscribeRequest{View: view}, decode)
					}
				})
			}
		}
	}
}

func fanout(b *testing.B, role string, subscribers int, request *eventrelayv1.SubscribeRequest, decode bool) {
	b.Helper()
	relay, bare := startRole(b, role, relayArgs(b.TempDir())...), startRole(b, "bare")
	relay.ask("append 1")
	message := oneResponse(b, relay, request)
	ours := openReaders(b, relay.address, subscribers, func(int) what { return what{method: subscribeMethod, request: request, decode: decode} })
	defer ours.close()
	reportTurns(b, rounds, func() figures {
		limit := bareRate(b, bare, subscribers, message, 1, decode)
		got := ours.measureFed(relay, 1)
		batch := max(1, int(got.batch+0.5))
		batched := bareRate(b, bare, subscribers, repeat(message, batch), batch, decode)
		return figures{
			"deliveries/s": got.events, "events/response": got.batch, "limit/s": limit.events,
			"of-limit": got.events / limit.events, "of-batched": got.events / batched.events,
		}
	})
}

// measureFed measures readers while a relay is fed, and returns when they have read all. Each of them gets one of so many events.
func (r *readers) measureFed(relay *role, oneOf int64) rates {
	r.b.Helper()
	var appended int64
	fmt.Sscan(relay.ask("feed"), &appended)
	_, _, first := r.sum()
	got := r.measure(warmUp, measured, func() {
		_, _, least := r.sum()
		relay.tell("read %d", appended+(least-first)*oneOf)
	})
	var end int64
	fmt.Sscan(relay.ask("stop"), &end)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		switch _, _, least := r.sum(); {
		case least-first >= (end-appended)/oneOf:
			return got
		case time.Now().After(deadline):
			r.b.Fatalf("the slowest reader has %d of %d events", least-first, (end-appended)/oneOf)
		}
	}
}

// repeat puts a message n times into one. Of a protobuf message that is the merge of them: the events of all.
func repeat(message []byte, n int) (all []byte) {
	for range n {
		all = append(all, message...)
	}
	return all
}

func median(of []float64) float64 { return quantile(of, 0.5) }

func quantile(of []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// BenchmarkStoppedReader reads with 100 readers, then lets one of them stand still for as long again. others is the rate of the others beside the rate of before, memory what
// the server's memory grew by when all was read but by the one. The events are those of BenchmarkFanout, for a log and an index that grow meanwhile are not the reader's doing.
func BenchmarkStoppedReader(b *testing.B) {
	for b.Loop() {
		reportTurns(b, rounds, func() figures {
			relay := startRole(b, "ready", relayArgs(b.TempDir())...)
			r := openReaders(b, relay.address, 100, func(int) what { return what{method: subscribeMethod, request: &eventrelayv1.SubscribeRequest{}} })
			var read int64
			for read < ringEvents { // so that the ring does not grow any more
				r.measureFed(relay, 1)
				_, _, read = r.sum()
			}
			stopped := r.all[0]
			r.all = r.all[1:]
			before := r.measureFed(relay, 1)
			held := relay.memory()
			stopped.paused.Lock()
			during := r.measureFed(relay, 1)
			grown := relay.memory() - held
			r.cancel()
			stopped.paused.Unlock()
			r.close()
			return figures{"others": during.events / before.events, "memory-B": float64(grown)}
		})
	}
}

// ringEvents is more events than the ring holds.
const ringEvents = 14_000

// BenchmarkFilter reads with 1000 readers and 10 filters, each of which wants one event in ten. checked is how many times a second a reader was spared or given an event.
func BenchmarkFilter(b *testing.B) {
	const subscribers = 1000
	relay, bare := startRole(b, "relay", relayArgs(b.TempDir())...), startRole(b, "bare")
	relay.ask("append 1")
	message := oneResponse(b, relay, &eventrelayv1.SubscribeRequest{})
	for b.Loop() {
		reportTurns(b, rounds, func() figures {
			limit := bareRate(b, bare, subscribers, message, 1, false)
			r := openReaders(b, relay.address, subscribers, func(i int) what {
				return what{method: subscribeMethod, request: &eventrelayv1.SubscribeRequest{Filter: fmt.Sprintf(`event.message.text.body.startsWith("kind%d ")`, i%kinds)}}
			})
			got := r.measureFed(relay, kinds)
			r.close()
			return figures{"deliveries/s": got.events, "checked/s": kinds * got.events, "of-limit": got.events / limit.events}
		})
	}
}

// BenchmarkIdleStream is the memory, heap and stacks, that the server has for a stream on which nothing happens, beside that of a bare grpc-go stream that has sent one message.
func BenchmarkIdleStream(b *testing.B) {
	const streams = 1000
	for _, own := range []bool{true, false} {
		b.Run(fmt.Sprintf("connections=%d", map[bool]int{true: streams, false: 1}[own]), func(b *testing.B) {
			for b.Loop() {
				relay, bare := startRole(b, "relay", relayArgs(b.TempDir())...), startRole(b, "bare")
				relay.ask("append 1")
				ours := idle(b, relay, own, what{method: subscribeMethod, request: &eventrelayv1.SubscribeRequest{}}, streams)
				limit := idle(b, bare, own, what{method: bareMethod, request: &rawMessage{bytes: make([]byte, 40)}, each: 1}, streams)
				b.ReportMetric(ours, "B/stream")
				b.ReportMetric(limit, "bare-B/stream")
				b.ReportMetric(ours-limit, "above-bare-B")
			}
		})
	}
}

func idle(b *testing.B, server *role, own bool, w what, streams int) float64 {
	b.Helper()
	w.oneConnection = !own
	first := openReaders(b, server.address, 10, func(int) what { return w }) // what is made once is there
	first.close()
	before := server.memory()
	r := openReaders(b, server.address, streams, func(int) what { return w })
	defer r.close()
	return float64(server.memory()-before) / float64(streams)
}

// BenchmarkCatchUp reads 200 000 events that lie in the log, with one reader from the earliest. The limit is an ordered consumer of the JetStream client that reads the same
// number of messages of the same size from a server of its own, over a socket as ours does. Neither decodes what it reads, unless decode=true, for ours alone.
func BenchmarkCatchUp(b *testing.B) {
	const events = 200_000
	relay := startRole(b, "relay", relayArgs(b.TempDir())...)
	relay.ask("append %d", events)
	stream := startRole(b, "nats", strconv.Itoa(events), strconv.Itoa(len(samples()[0].Data)), b.TempDir())
	for _, decode := range []bool{false, true} {
		b.Run(fmt.Sprintf("decode=%t", decode), func(b *testing.B) {
			for b.Loop() {
				reportTurns(b, rounds, func() figures {
					consumer := orderedConsumer(b, stream.address, events)
					begin := time.Now()
					r := openReaders(b, relay.address, 1, func(int) what {
						return what{method: subscribeMethod, decode: decode, request: &eventrelayv1.SubscribeRequest{
							Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST},
						}}
					})
					for n := int64(0); n < events; n, _, _ = r.sum() {
						time.Sleep(time.Millisecond)
					}
					ours := events / time.Since(begin).Seconds()
					r.close()
					return figures{"events/s": ours, "limit/s": consumer, "of-limit": ours / consumer}
				})
			}
		})
	}
}

// BenchmarkLatency posts 200 events a second, each at its time whatever became of those before, and takes the time from then to the receipt by each of 100 readers, who decode
// what they get. The limit is the least that does the same: net/http, the check of the signature, one write that is synced, and a message handed to each of 100 bare streams.
// p99-of-limit is the median of the ratios of the turns.
func BenchmarkLatency(b *testing.B) { benchmarkLatency(b, 200, 100) }

// BenchmarkLatencyBusy is BenchmarkLatency with 1500 events a second, a rate at which the log rests between its steps, and 4 readers.
func BenchmarkLatencyBusy(b *testing.B) { benchmarkLatency(b, 1500, 4) }

func benchmarkLatency(b *testing.B, rate, readers int) {
	relay, bare := startRole(b, "relay", relayArgs(b.TempDir())...), startRole(b, "fanout", b.TempDir())
	for b.Loop() {
		calm, all := takeTurns(b, latencyTurns, func() (t latencyTurn) {
			t.limit = latencies(b, bare, rate, readers, what{method: bareMethod, request: &rawMessage{bytes: []byte{1}}, decode: true})
			t.ours = latencies(b, relay, rate, readers, what{method: subscribeMethod, request: &eventrelayv1.SubscribeRequest{}, decode: true})
			return t
		})
		var ours, limit []float64
		for _, t := range calm {
			ours, limit = append(ours, t.of.ours...), append(limit, t.of.limit...)
		}
		for _, q := range []struct {
			name string
			q    float64
		}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}} {
			b.ReportMetric(quantile(ours, q.q), q.name+"-ms")
			b.ReportMetric(quantile(limit, q.q), q.name+"-limit-ms")
		}
		ratio := func(t turn[latencyTurn]) float64 { return quantile(t.of.ours, 0.99) / quantile(t.of.limit, 0.99) }
		b.ReportMetric(medianOf(calm, ratio), "p99-of-limit")
		b.ReportMetric(medianOf(all, ratio), "all-p99-of-limit")
		reportStolen(b, calm, all)
	}
}

// latencyTurns is how many times a while of each is measured for latency: what else the machine does shows in the slowest of a hundred more than anywhere.
const latencyTurns = 7

// latencyTurn is the milliseconds to each receipt, in one turn.
type latencyTurn struct{ ours, limit []float64 }

// latencies posts for a while and returns the milliseconds to each receipt.
func latencies(b *testing.B, server *role, rate, readers int, w what) (all []float64) {
	b.Helper()
	posts := int(measured.Seconds() * float64(rate))
	mark := strconv.FormatInt(time.Now().UnixNano(), 36)
	var (
		mu       sync.Mutex
		due      = make([]time.Time, posts)
		received atomic.Int64
	)
	w.got = func(resp *eventrelayv1.SubscribeResponse) {
		now := time.Now()
		for _, event := range resp.GetEvents() {
			from, number, _ := strings.Cut(event.GetMessage().GetId(), ".")
			n, err := strconv.Atoi(number)
			if from != mark || err != nil {
				continue
			}
			mu.Lock()
			all = append(all, float64(now.Sub(due[n]))/1e6)
			mu.Unlock()
			received.Add(1)
		}
	}
	r := openReaders(b, server.address, readers, func(int) what { return w })
	defer r.close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var posting sync.WaitGroup
	begin := time.Now().Add(50 * time.Millisecond)
	for n := range posts {
		at := begin.Add(time.Duration(n) * time.Second / time.Duration(rate))
		mu.Lock()
		due[n] = at
		mu.Unlock()
		time.Sleep(time.Until(at))
		posting.Go(func() {
			data := body(fmt.Sprintf("%s.%d", mark, n), 0)
			req, err := http.NewRequest(http.MethodPost, "http://"+server.http+"/webhooks/dev", bytes.NewReader(data))
			if err != nil {
				panic(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Hub-Signature-256", "sha256="+sign(devSecret, data))
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			if resp.Body.Close(); resp.StatusCode != http.StatusOK {
				b.Errorf("answered %d", resp.StatusCode)
			}
		})
	}
	posting.Wait()
	for deadline := time.Now().Add(10 * time.Second); received.Load() < int64(posts*readers) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := received.Load(); n != int64(posts*readers) {
		b.Fatalf("%d receipts of %d", n, posts*readers)
	}
	return all
}
