package main

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// consumeWorkers share a subscription, each with inFlight events at a time.
	consumeWorkers = 4
	inFlight       = 32
)

// dialRole connects to a relay.
func dialRole(b *testing.B, r *role) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// subscribeAll makes a subscription to all events, and returns its name.
func subscribeAll(b *testing.B, conn *grpc.ClientConn, filter string) string {
	b.Helper()
	sub, err := eventrelayv1.NewSubscriptionServiceClient(conn).CreateSubscription(b.Context(), &eventrelayv1.CreateSubscriptionRequest{
		SubscriptionId: "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36),
		Subscription:   &eventrelayv1.Subscription{Filter: filter, Start: &eventrelayv1.Subscription_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return sub.GetName()
}

// consumed counts what workers have acknowledged, and ends their work when it is all.
type consumed struct {
	mu      sync.Mutex // guards what follows
	left    int
	millis  []float64 // of each acknowledgement
	end     context.CancelFunc
	stopped context.Context
}

func newConsumed(b *testing.B, total int) *consumed {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	return &consumed{left: total, end: cancel, stopped: ctx}
}

func (c *consumed) note(n int, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.millis = append(c.millis, float64(time.Since(began).Microseconds())/1000)
	if c.left -= n; c.left <= 0 {
		c.end()
	}
}

// wait returns how long it took.
func (c *consumed) wait(b *testing.B, workers *sync.WaitGroup, began time.Time) time.Duration {
	b.Helper()
	workers.Wait()
	if c.left > 0 {
		b.Fatalf("%d events were not acknowledged", c.left)
	}
	return time.Since(began)
}

// consumeStreams has workers acknowledge all events of a new subscription: each has a stream, and acknowledges what a response has in one call, which it waits for.
func consumeStreams(b *testing.B, r *role, filter string, outstanding int32, total int) (time.Duration, []float64) {
	b.Helper()
	name := subscribeAll(b, dialRole(b, r), filter)
	c := newConsumed(b, total)
	var workers sync.WaitGroup
	began := time.Now()
	for range consumeWorkers {
		conn := dialRole(b, r)
		workers.Go(func() {
			stream, err := eventrelayv1.NewEventServiceClient(conn).Subscribe(c.stopped, &eventrelayv1.SubscribeRequest{Subscription: name, MaxOutstanding: outstanding})
			if err != nil {
				b.Error(err)
				return
			}
			for {
				response, err := stream.Recv()
				if err != nil {
					return // by the end, or what is missing tells
				}
				if len(response.GetEvents()) == 0 {
					continue
				}
				asked := time.Now()
				if _, err := eventrelayv1.NewSubscriptionServiceClient(conn).Acknowledge(b.Context(), &eventrelayv1.AcknowledgeRequest{Name: name, AckIds: ackIDs(response.GetEvents())}); err != nil {
					b.Error(err)
					return
				}
				c.note(len(response.GetEvents()), asked)
			}
		})
	}
	took := c.wait(b, &workers, began)
	subs := eventrelayv1.NewSubscriptionServiceClient(dialRole(b, r))
	for until := time.Now().Add(10 * time.Second); ; {
		sub, err := subs.GetSubscription(b.Context(), &eventrelayv1.GetSubscriptionRequest{Name: name})
		if err != nil {
			b.Fatal(err)
		}
		if sub.GetOutstanding() == 0 && (filter == "" || sub.GetBacklog() == 0) {
			break
		}
		if time.Now().After(until) {
			b.Fatalf("%d events are outstanding and %d wait when all is done", sub.GetOutstanding(), sub.GetBacklog())
		}
	}
	if _, err := subs.DeleteSubscription(b.Context(), &eventrelayv1.DeleteSubscriptionRequest{Name: name}); err != nil {
		b.Fatal(err)
	}
	return took, c.millis
}

// consumeBare has workers acknowledge all messages of a stream by a bare pull consumer with explicit acks: each fetches a batch and acknowledges every message of it, at once,
// and where confirmed is set waits for the server's word on each.
func consumeBare(b *testing.B, url string, batch, total int, confirmed bool) time.Duration {
	b.Helper()
	name := "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	dial := func() (jetstream.JetStream, *nats.Conn) {
		nc, err := nats.Connect(url)
		if err != nil {
			b.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		return js, nc
	}
	js, nc := dial()
	defer nc.Close()
	if _, err := js.CreateConsumer(b.Context(), "EVENTS", jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 20_000}); err != nil {
		b.Fatal(err)
	}
	c := newConsumed(b, total)
	var workers sync.WaitGroup
	began := time.Now()
	for range consumeWorkers {
		js, nc := dial()
		defer nc.Close()
		consumer, err := js.Consumer(b.Context(), "EVENTS", name)
		if err != nil {
			b.Fatal(err)
		}
		workers.Go(func() {
			for c.stopped.Err() == nil {
				messages, err := consumer.Fetch(batch, jetstream.FetchMaxWait(100*time.Millisecond))
				if err != nil {
					b.Error(err)
					return
				}
				asked, n := time.Now(), 0
				var acks sync.WaitGroup
				for m := range messages.Messages() {
					n++
					if !confirmed {
						m.Ack()
						continue
					}
					acks.Go(func() {
						if err := m.DoubleAck(b.Context()); err != nil {
							b.Error(err)
						}
					})
				}
				acks.Wait()
				c.note(n, asked)
			}
		})
	}
	took := c.wait(b, &workers, began)
	if err := js.DeleteConsumer(b.Context(), "EVENTS", name); err != nil {
		b.Fatal(err)
	}
	return took
}

// BenchmarkDurable consumes 20 000 events of a durable subscription with four workers, 32 events in flight each. The limit is a bare pull consumer of JetStream, as many workers
// with as much in flight, that waits for the confirmation of each acknowledgement, as ours do, on a server of its own. They take turns.
func BenchmarkDurable(b *testing.B) {
	const events = 20_000
	relay := startRole(b, "relay", relayArgs(b.TempDir())...)
	relay.ask("append %d", events)
	bare := startRole(b, "nats", strconv.Itoa(events), strconv.Itoa(len(samples()[0].Data)), b.TempDir())
	for b.Loop() {
		reportTurns(b, rounds, func() figures {
			theirs := events / consumeBare(b, bare.address, inFlight, events, true).Seconds()
			took, acks := consumeStreams(b, relay, "", inFlight, events)
			ours := events / took.Seconds()
			return figures{
				"events/s": ours, "limit/s": theirs, "of-limit": ours / theirs,
				"p50-ack-ms": quantile(acks, 0.5), "p99-ack-ms": quantile(acks, 0.99),
			}
		})
	}
}

// BenchmarkDurableFilter has a filter find 200 of 200 000 events. The limit is half as fast as a bare pull consumer with explicit acks over as many messages, whose workers fetch
// as much at a time as suits it. of-limit is how many times faster than that ours is.
func BenchmarkDurableFilter(b *testing.B) {
	const events = 200_000
	relay := startRole(b, "relay", relayArgs(b.TempDir())...)
	relay.tell("rare")
	relay.ask("append %d", events)
	bare := startRole(b, "nats", strconv.Itoa(events), strconv.Itoa(len(samples()[0].Data)), b.TempDir())
	for b.Loop() {
		reportTurns(b, rounds, func() figures {
			theirs := consumeBare(b, bare.address, 500, events, false).Seconds()
			took, _ := consumeStreams(b, relay, `event.message.text.body.startsWith("rare")`, 0, events/1000)
			return figures{"s": took.Seconds(), "bare-s": theirs, "of-limit": 2 * theirs / took.Seconds()}
		})
	}
}
