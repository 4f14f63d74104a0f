package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// sharedEvents names how many events TestConsumersShareASubscription is about; 5000 without it, 50 000 is what `make share` takes.
const sharedEvents = "EVENTRELAY_SHARED_EVENTS"

// door is a way to call SubscriptionService: a method and its path of REST, and what the call is in gRPC.
type door interface {
	create(id string, spec *eventrelayv1.Subscription)
	get(id string) *eventrelayv1.Subscription
	pull(id string, n int) []*eventrelayv1.Event
	ack(id string, events ...*eventrelayv1.Event)
	giveBack(id, reason string, events ...*eventrelayv1.Event)
	deadLetters(id string) []*eventrelayv1.DeadLetter
	replay(id string, ids ...string) uint64
}

// grpcDoor calls by gRPC.
type grpcDoor struct {
	r    *relay
	subs eventrelayv1.SubscriptionServiceClient
}

func overGRPC(r *relay) door {
	return grpcDoor{r, eventrelayv1.NewSubscriptionServiceClient(r.conn)}
}

// got returns an answer that is no error.
func got[T any](r *relay, answer T, err error) T {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

func (d grpcDoor) create(id string, spec *eventrelayv1.Subscription) {
	answer, err := d.subs.CreateSubscription(d.r.t.Context(), &eventrelayv1.CreateSubscriptionRequest{SubscriptionId: id, Subscription: spec})
	got(d.r, answer, err)
}

func (d grpcDoor) get(id string) *eventrelayv1.Subscription {
	answer, err := d.subs.GetSubscription(d.r.t.Context(), &eventrelayv1.GetSubscriptionRequest{Name: "subscriptions/" + id})
	return got(d.r, answer, err)
}

func (d grpcDoor) pull(id string, n int) []*eventrelayv1.Event {
	answer, err := d.subs.Pull(d.r.t.Context(), &eventrelayv1.PullRequest{Name: "subscriptions/" + id, MaxEvents: int32(n)})
	return got(d.r, answer, err).GetEvents()
}

func (d grpcDoor) ack(id string, events ...*eventrelayv1.Event) {
	answer, err := d.subs.Acknowledge(d.r.t.Context(), &eventrelayv1.AcknowledgeRequest{Name: "subscriptions/" + id, AckIds: ackIDs(events)})
	got(d.r, answer, err)
}

func (d grpcDoor) giveBack(id, reason string, events ...*eventrelayv1.Event) {
	answer, err := d.subs.ModifyAckDeadline(d.r.t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{
		Name: "subscriptions/" + id, AckIds: ackIDs(events), AckDeadline: durationpb.New(0), Reason: reason,
	})
	got(d.r, answer, err)
}

func (d grpcDoor) deadLetters(id string) []*eventrelayv1.DeadLetter {
	answer, err := d.subs.ListDeadLetters(d.r.t.Context(), &eventrelayv1.ListDeadLettersRequest{Name: "subscriptions/" + id})
	return got(d.r, answer, err).GetDeadLetters()
}

func (d grpcDoor) replay(id string, ids ...string) uint64 {
	answer, err := d.subs.ReplayDeadLetters(d.r.t.Context(), &eventrelayv1.ReplayDeadLettersRequest{Name: "subscriptions/" + id, Ids: ids})
	return got(d.r, answer, err).GetReplayed()
}

func ackIDs(events []*eventrelayv1.Event) (list []string) {
	for _, e := range events {
		list = append(list, e.GetAckId())
	}
	return list
}

// restDoor calls by REST; what it gets is held to the OpenAPI description.
type restDoor struct{ r *relay }

func overREST(r *relay) door { return restDoor{r} }

// call makes a call and reads its answer into a message.
func (d restDoor) call(method, path string, body any, into proto.Message) {
	d.r.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		d.r.t.Fatal(err)
	}
	if m, ok := body.(proto.Message); ok {
		if text, err = protojson.Marshal(m); err != nil {
			d.r.t.Fatal(err)
		}
	}
	answer, err := json.Marshal(d.r.must(method, path, string(text)))
	if err == nil {
		err = protojson.Unmarshal(answer, into)
	}
	if err != nil {
		d.r.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (d restDoor) create(id string, spec *eventrelayv1.Subscription) {
	d.call(http.MethodPost, "/v1/subscriptions?subscription_id="+id, spec, &eventrelayv1.Subscription{})
}

func (d restDoor) get(id string) *eventrelayv1.Subscription {
	sub := &eventrelayv1.Subscription{}
	d.call(http.MethodGet, "/v1/subscriptions/"+id, nil, sub)
	return sub
}

func (d restDoor) pull(id string, n int) []*eventrelayv1.Event {
	answer := &eventrelayv1.PullResponse{}
	d.call(http.MethodPost, "/v1/subscriptions/"+id+":pull", map[string]any{"max_events": n}, answer)
	return answer.GetEvents()
}

func (d restDoor) ack(id string, events ...*eventrelayv1.Event) {
	d.call(http.MethodPost, "/v1/subscriptions/"+id+":acknowledge", map[string]any{"ack_ids": ackIDs(events)}, &eventrelayv1.AcknowledgeResponse{})
}

func (d restDoor) giveBack(id, reason string, events ...*eventrelayv1.Event) {
	d.call(http.MethodPost, "/v1/subscriptions/"+id+":modifyAckDeadline", map[string]any{"ack_ids": ackIDs(events), "ack_deadline": "0s", "reason": reason}, &eventrelayv1.ModifyAckDeadlineResponse{})
}

func (d restDoor) deadLetters(id string) []*eventrelayv1.DeadLetter {
	answer := &eventrelayv1.ListDeadLettersResponse{}
	d.call(http.MethodGet, "/v1/subscriptions/"+id+"/deadLetters", nil, answer)
	return answer.GetDeadLetters()
}

func (d restDoor) replay(id string, ids ...string) uint64 {
	answer := &eventrelayv1.ReplayDeadLettersResponse{}
	d.call(http.MethodPost, "/v1/subscriptions/"+id+":replayDeadLetters", map[string]any{"ids": ids}, answer)
	return answer.GetReplayed()
}

// takeFrom pulls until it has n events.
func takeFrom(t *testing.T, d door, id string, n int) (events []*eventrelayv1.Event) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(events) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events came", len(events), n)
		}
		events = append(events, d.pull(id, n-len(events))...)
	}
	return events
}

// TestASubscriptionRemembersAcrossKill9: by every door, what was acknowledged is settled, and what was not comes again with its attempts counted, until it is a dead letter, and
// again when that is replayed.
func TestASubscriptionRemembersAcrossKill9(t *testing.T) {
	for name, over := range map[string]func(*relay) door{"REST": overREST, "gRPC": overGRPC} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := spawn(t, dir)
			d := over(r)
			d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(2 * time.Second), MaxDeliveryAttempts: 3})
			for n := range 3 {
				r.post("dev", text(fmt.Sprint("wamid.", n), "hello"))
			}
			r.drained()
			events := takeFrom(t, d, "billing", 3)
			d.ack("billing", events[:2]...)
			d.giveBack("billing", "the till is closed", events[2])
			again := takeFrom(t, d, "billing", 1)[0]
			if again.GetId() != events[2].GetId() || again.GetDeliveryAttempt() != 2 {
				t.Fatalf("given back, there came %s with attempt %d", again.GetId(), again.GetDeliveryAttempt())
			}

			r.kill()
			r = spawn(t, dir)
			d = over(r)
			if sub := d.get("billing"); sub.GetBacklog() != 1 || sub.GetOutstanding() != 1 {
				t.Fatalf("after the kill it stands at %v", sub)
			}
			last := takeFrom(t, d, "billing", 1)[0]
			if last.GetId() != events[2].GetId() || last.GetDeliveryAttempt() != 3 {
				t.Fatalf("after the kill there came %s with attempt %d, want %s with 3", last.GetId(), last.GetDeliveryAttempt(), events[2].GetId())
			}
			d.giveBack("billing", "", last)
			dead := d.deadLetters("billing")
			if len(dead) != 1 || dead[0].GetEvent().GetId() != events[2].GetId() || dead[0].GetDeliveryAttempts() != 3 || dead[0].GetLastError() != "the till is closed" {
				t.Fatalf("dead letters %v", dead)
			}

			r.kill()
			r = spawn(t, dir)
			d = over(r)
			if n := d.replay("billing", dead[0].GetId()); n != 1 {
				t.Fatalf("replayed %d", n)
			}
			back := takeFrom(t, d, "billing", 1)[0]
			if back.GetId() != events[2].GetId() || back.GetDeliveryAttempt() != 1 {
				t.Fatalf("replayed, there came %s with attempt %d", back.GetId(), back.GetDeliveryAttempt())
			}
			d.ack("billing", back)
			if sub := d.get("billing"); sub.GetBacklog() != 0 || sub.GetOutstanding() != 0 || sub.GetDeadLetterCount() != 0 {
				t.Fatalf("when all is done it stands at %v", sub)
			}
			r.stop()
			if events := over(spawn(t, dir)).pull("billing", 10); len(events) > 0 {
				t.Fatalf("after a restart %d events come again", len(events))
			}
		})
	}
}

// handledOnce is what one consumer has finished with.
type handledOnce struct {
	mu   sync.Mutex // guards seen
	seen map[uint64]int
}

func (h *handledOnce) note(e *eventrelayv1.Event) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[e.GetSequence()]++
	return len(h.seen)
}

// TestConsumersShareASubscription: three consumers of the Go client, of which one dies mid-way and one stalls for longer than the deadline, handle every event once, but for
// those that the dead one held.
func TestConsumersShareASubscription(t *testing.T) {
	total := 5000
	if n, err := strconv.Atoi(os.Getenv(sharedEvents)); err == nil {
		total = n
	}
	const concurrency, deadline = 32, 2 * time.Second
	r := spawn(t, t.TempDir())
	d := overGRPC(r)
	d.create("shared", &eventrelayv1.Subscription{AckDeadline: durationpb.New(deadline)})
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	var (
		records [3]*handledOnce
		died    = make(chan error, 1)
		stall   = sync.OnceFunc(func() { time.Sleep(2 * deadline) }) // all handlers of the one that stalls wait for it
	)
	for i := range records {
		records[i] = &handledOnce{seen: map[uint64]int{}}
		c, err := client.Dial(r.grpc)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		running.Go(func() {
			err := c.Consume(ctx, "subscriptions/shared", func(_ context.Context, e *eventrelayv1.Event) error {
				switch n := records[i].note(e); {
				case i == 0 && n == total/10: // it dies: of what it holds, nobody knows what it has finished with
					c.Close()
				case i == 1 && n > total/10:
					stall()
				}
				return nil
			}, client.ConsumeOptions{Concurrency: concurrency, MaxBackoff: 200 * time.Millisecond, DrainTimeout: time.Second})
			switch {
			case i == 0:
				died <- err
			case err != nil:
				t.Errorf("consumer %d: %v", i, err)
			}
		})
	}
	for posted := 0; posted < total; {
		var ids []string
		for range min(500, total-posted) {
			ids = append(ids, fmt.Sprint("wamid.", posted))
			posted++
		}
		if code := r.post("dev", many(ids)); code != http.StatusOK {
			t.Fatalf("answered %d", code)
		}
	}
	r.drained()
	for d.get("shared").GetBacklog() > 0 {
		if ctx.Err() != nil {
			t.Fatalf("it stands at %v", d.get("shared"))
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
	took := time.Since(began)
	if err := <-died; err == nil {
		t.Error("the consumer that was to die did not")
	}
	sub := d.get("shared")
	cancel()
	running.Wait()
	handled, again := map[uint64]int{}, 0
	for i, record := range records {
		for sequence, n := range record.seen {
			if i > 0 && n > 1 {
				t.Errorf("consumer %d handled event %d %d times", i, sequence, n)
			}
			handled[sequence] += n
		}
	}
	for sequence, n := range handled {
		if n == 1 {
			continue
		}
		if again++; records[0].seen[sequence] == 0 {
			t.Errorf("event %d was handled %d times, and the consumer that died had nothing of it", sequence, n)
		}
	}
	t.Logf("%d events in %s, %.0f/s; handled by the one that died %d, by the one that stalled %d, by the third %d; handled twice %d; the relay counts %d deliveries, %d of them again, %d acknowledged",
		total, took.Round(time.Millisecond), float64(total)/took.Seconds(), len(records[0].seen), len(records[1].seen), len(records[2].seen), again,
		sub.GetStats().GetDeliveries(), sub.GetStats().GetRedeliveries(), sub.GetStats().GetAcknowledged())
	if len(handled) != total || again > 2*concurrency || sub.GetDeadLetterCount() != 0 || sub.GetOutstanding() != 0 || slices.Contains([]int{len(records[1].seen), len(records[2].seen)}, 0) {
		t.Errorf("%d of %d events were handled, %d of them twice; it stands at %v", len(handled), total, again, sub)
	}
}

// conversations is a body with a message of each of so many people, the nth that each has written.
func conversations(people, n int) []byte {
	var b strings.Builder
	b.WriteString(`{"object":"whatsapp_business_account","entry":[{"id":"1001","time":1750000000,"changes":[{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"2002"},"messages":[`)
	for person := range people {
		if person > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"from":"49155500%04d","id":"wamid.%d.%d","timestamp":"1750000000","type":"text","text":{"body":"%d"}}`, person, person, n, n)
	}
	b.WriteString(`]}}]}]}`)
	return []byte(b.String())
}

// TestConversationsStayInOrderWhateverHappensToTheirConsumers: with ordering, a handler meets an event only when all before it of the same conversation are done, and never two of
// one at once; 32 handlers run, one event in ten is given back, and a consumer dies.
func TestConversationsStayInOrderWhateverHappensToTheirConsumers(t *testing.T) {
	const people, each = 40, 12
	r := spawn(t, t.TempDir())
	d := overGRPC(r)
	d.create("ordered", &eventrelayv1.Subscription{
		Ordering: eventrelayv1.Ordering_ORDERING_BY_KEY, AckDeadline: durationpb.New(2 * time.Second), MaxDeliveryAttempts: 100,
	})
	for n := 1; n <= each; n++ {
		if code := r.post("dev", conversations(people, n)); code != http.StatusOK {
			t.Fatalf("answered %d", code)
		}
	}
	r.drained()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var (
		mu      sync.Mutex // guards what follows
		done    = map[string]int{}
		running = map[string]int{} // handlers of consumers that live
		faults  []string
		handled int
		dead    bool
		all     sync.WaitGroup
	)
	for i := range 2 {
		c, err := client.Dial(r.grpc)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		random := rand.New(rand.NewPCG(uint64(i), 7))
		all.Go(func() {
			err := c.Consume(ctx, "subscriptions/ordered", func(_ context.Context, e *eventrelayv1.Event) error {
				key := e.GetOrderingKey()
				n, _ := strconv.Atoi(e.GetMessage().GetText().GetBody())
				mu.Lock()
				handled++
				if running[key] > 0 && !dead || done[key] < n-1 {
					faults = append(faults, fmt.Sprintf("%s: %d came when %d was done, and %d ran", key, n, done[key], running[key]))
				}
				running[key]++
				fails, dies := random.IntN(10) == 0, i == 0 && handled > people*each/4 && !dead
				dead = dead || dies
				mu.Unlock()
				if dies {
					c.Close() // what it holds is not acknowledged
				}
				runtime.Gosched()
				mu.Lock()
				defer mu.Unlock()
				running[key]--
				if fails {
					return errors.New("not now")
				}
				done[key] = max(done[key], n)
				return nil
			}, client.ConsumeOptions{Concurrency: 32, DrainTimeout: time.Second, MaxBackoff: 200 * time.Millisecond})
			if err != nil && i > 0 {
				t.Error(err)
			}
		})
	}
	for d.get("ordered").GetBacklog() > 0 {
		if ctx.Err() != nil {
			t.Fatalf("it stands at %v", d.get("ordered"))
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
	cancel()
	all.Wait()
	if len(faults) > 0 || len(done) != people || !dead {
		t.Errorf("%d faults, of which %q", len(faults), faults[:min(len(faults), 5)])
	}
	for key, n := range done {
		if n != each {
			t.Errorf("%s: %d of %d are done", key, n, each)
		}
	}
	t.Logf("%d events, handled %d times", people*each, handled)
}
