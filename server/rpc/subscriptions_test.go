package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/eventlog/natstest"
	durable "eventrelay/server/subscription"
)

func TestAnEventIsDeliveredUntilItIsAcknowledgedOrDead(t *testing.T) {
	options := eventlog.Options{Dir: t.TempDir()}
	d := openDesk(t, options, nil)
	d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(time.Second), MaxDeliveryAttempts: 3})
	d.event("meta.page.feed", "a", 3)
	events := d.take("billing", 3)
	wantObjects(t, events, "1", "2", "3")
	for _, e := range events {
		if e.GetDeliveryAttempt() != 1 || e.GetCursor() == "" || e.GetSequence() == 0 {
			t.Fatalf("first delivery %v", e)
		}
	}
	d.ack("billing", events[0], events[1])
	d.nack("billing", "the till is closed", events[2])
	again := d.take("billing", 1)
	if wantObjects(t, again, "3"); again[0].GetDeliveryAttempt() != 2 {
		t.Fatalf("given back, it is attempt %d", again[0].GetDeliveryAttempt())
	}
	if sub := d.get("billing"); sub.GetBacklog() != 1 || sub.GetOutstanding() != 1 || !sub.GetOldestUnackedTime().AsTime().Equal(began.Add(3*time.Second)) {
		t.Fatalf("with one outstanding it stands at %v", sub)
	}

	d.stop() // nobody acknowledges: another relay, or the same after a restart, delivers it when its deadline has passed
	d = openDesk(t, options, nil)
	last := d.take("billing", 1)
	if wantObjects(t, last, "3"); last[0].GetDeliveryAttempt() != 3 {
		t.Fatalf("after a restart it is attempt %d", last[0].GetDeliveryAttempt())
	}
	d.ack("billing", events[0]) // ids hold across restarts
	d.nack("billing", "", last[0])
	d.none("billing")
	dead := d.deadLetters("billing")
	if len(dead) != 1 || dead[0].GetEvent().GetObject() != "3" || dead[0].GetDeliveryAttempts() != 3 || dead[0].GetLastError() != "the till is closed" ||
		dead[0].GetDeadLetterTime() == nil || dead[0].GetLastErrorTime() == nil || dead[0].GetLastDeliveryTime() == nil {
		t.Fatalf("dead letters %v", dead)
	}
	if sub := d.get("billing"); sub.GetBacklog() != 0 || sub.GetDeadLetterCount() != 1 {
		t.Fatalf("with a dead letter it stands at %v", sub)
	}
	replayed, err := d.subs.ReplayDeadLetters(t.Context(), &eventrelayv1.ReplayDeadLettersRequest{Name: "subscriptions/billing"})
	if err != nil || replayed.GetReplayed() != 1 {
		t.Fatalf("ReplayDeadLetters = %v, %v", replayed, err)
	}
	back := d.take("billing", 1)
	if wantObjects(t, back, "3"); back[0].GetDeliveryAttempt() != 1 || back[0].GetSequence() != 3 || back[0].GetCursor() != events[2].GetCursor() {
		t.Fatalf("replayed, it is %v", back[0])
	}
	if sub := d.get("billing"); sub.GetBacklog() != 1 || sub.GetDeadLetterCount() != 0 {
		t.Fatalf("with a replay outstanding it stands at %v", sub)
	}
	d.ack("billing", back[0])
	if sub := d.get("billing"); sub.GetBacklog() != 0 || sub.GetOutstanding() != 0 || sub.GetDeadLetterCount() != 0 || sub.GetOldestUnackedTime() != nil {
		t.Fatalf("when all is done it stands at %v", sub)
	}
}

func TestTheWholeLifeOfAnEventOverREST(t *testing.T) {
	d := newDesk(t)
	want := func(code int, method, path string, body any) map[string]any {
		t.Helper()
		got, answer := d.call(method, path, body)
		if got != code {
			t.Fatalf("%s %s = %d %v", method, path, got, answer)
		}
		return answer
	}
	type object = map[string]any
	created := want(200, "POST", "/v1/subscriptions?subscription_id=billing", object{"max_delivery_attempts": 2, "labels": object{"team": "a"}})
	if created["name"] != "subscriptions/billing" || created["ack_deadline"] != "30s" || created["max_retry_delay"] != "600s" || created["state"] != "SUBSCRIPTION_STATE_ACTIVE" {
		t.Fatalf("created %v", created)
	}
	d.event("meta.page.feed", "a", 2)
	pull := func() []any {
		t.Helper()
		events, _ := want(200, "POST", "/v1/subscriptions/billing:pull", object{"max_events": 10})["events"].([]any)
		return events
	}
	var events []any
	for len(events) < 2 {
		events = append(events, pull()...)
	}
	ack := func(i int) string { return events[i].(object)["ack_id"].(string) }
	want(200, "POST", "/v1/subscriptions/billing:acknowledge", object{"ack_ids": []string{ack(0)}})
	want(200, "POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ack(1)}, "ack_deadline": "30s"})
	want(200, "POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ack(1)}, "ack_deadline": "0s", "reason": "no paper"})
	events = pull()
	if len(events) != 1 || events[0].(object)["delivery_attempt"] != 2.0 {
		t.Fatalf("given back, there came %v", events)
	}
	want(200, "POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ack(0)}, "ack_deadline": "0s", "reason": "no ink"})
	dead := want(200, "GET", "/v1/subscriptions/billing/deadLetters", nil)["dead_letters"].([]any)
	if len(dead) != 1 || dead[0].(object)["last_error"] != "no ink" {
		t.Fatalf("dead letters %v", dead)
	}
	want(200, "POST", "/v1/subscriptions/billing:replayDeadLetters", object{"ids": []any{dead[0].(object)["id"]}})
	events = pull()
	want(200, "POST", "/v1/subscriptions/billing:acknowledge", object{"ack_ids": []string{ack(0)}})
	if is := want(200, "GET", "/v1/subscriptions/billing", nil); is["backlog"] != nil && is["backlog"] != "0" {
		t.Fatalf("when all is done it stands at %v", is)
	}
	changed := want(200, "PATCH", "/v1/subscriptions/billing", object{"labels": object{"team": "b"}, "ack_deadline": "60s"})
	if changed["ack_deadline"] != "60s" || changed["max_delivery_attempts"] != 2.0 || changed["etag"] == created["etag"] {
		t.Fatalf("changed %v", changed)
	}
	if code, answer := d.call("PATCH", "/v1/subscriptions/billing", object{"paused": true, "etag": created["etag"]}); code != 409 || !strings.Contains(fmt.Sprint(answer), "ETAG_STALE") {
		t.Fatalf("a stale etag is answered %d %v", code, answer)
	}
	if list := want(200, "GET", "/v1/subscriptions", nil)["subscriptions"].([]any); len(list) != 1 {
		t.Fatalf("listed %v", list)
	}
	want(200, "POST", "/v1/subscriptions/billing:seek", object{"time": "2026-11-21T00:00:00Z"})
	if events = pull(); len(events) != 2 {
		t.Fatalf("after a seek to the beginning there came %v", events)
	}
	want(200, "POST", "/v1/subscriptions/billing:purgeDeadLetters", object{"all": true})
	want(200, "DELETE", "/v1/subscriptions/billing", nil)
	want(404, "GET", "/v1/subscriptions/billing", nil)
}

func TestBadInputNamesTheFieldAndTheFix(t *testing.T) {
	d := newDesk(t)
	d.event("meta.page.feed", "a", 1)
	d.create("billing", fromEarliest())
	d.create("other", fromEarliest())
	foreign := d.take("other", 1)[0].GetAckId()
	ours := d.take("billing", 1)[0].GetAckId()
	other := "A"
	if ours[20] == 'A' {
		other = "B"
	}
	forged := ours[:20] + other + ours[21:]
	type object = map[string]any
	ids := func(list ...string) object { return object{"ack_ids": list, "ack_deadline": "10s"} }
	for _, c := range []struct {
		method, path string
		body         any
		code         int
		says         string
	}{
		{"GET", "/v1/subscriptions/nobody", nil, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"DELETE", "/v1/subscriptions/nobody", nil, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"PATCH", "/v1/subscriptions/nobody", object{"paused": true}, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions/nobody:pull", object{}, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions/nobody:acknowledge", object{"ack_ids": []string{ours}}, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions/nobody:modifyAckDeadline", ids(ours), 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions/nobody:seek", object{"time": "2026-11-21T00:00:00Z"}, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"GET", "/v1/subscriptions/nobody/deadLetters", nil, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions/nobody:replayDeadLetters", object{}, 404, "SUBSCRIPTION_NOT_FOUND"},
		{"POST", "/v1/subscriptions?subscription_id=billing", object{}, 409, "SUBSCRIPTION_EXISTS"},
		{"POST", "/v1/subscriptions?subscription_id=No%20Name", object{}, 400, "subscription_id"},
		{"POST", "/v1/subscriptions", object{}, 400, "subscription_id"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"ack_deadline": "0.5s"}, 400, "ack_deadline"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"ack_deadline": "601s"}, 400, "ack_deadline"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"min_retry_delay": "-1s"}, 400, "min_retry_delay"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"min_retry_delay": "20s", "max_retry_delay": "10s"}, 400, "max_retry_delay"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"max_delivery_attempts": -1}, 400, "max_delivery_attempts"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"expire_after": "1s"}, 400, "expire_after"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"filter": "event.nothing"}, 400, "FILTER_INVALID"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"cursor": "garbage"}, 400, "CURSOR_MALFORMED"},
		{"POST", "/v1/subscriptions?subscription_id=x", object{"cursor": cursor("other log", 1)}, 400, "CURSOR_FOREIGN"},
		{"PATCH", "/v1/subscriptions/billing", object{"ordering": "ORDERING_BY_KEY"}, 400, "ordering"},
		{"PATCH", "/v1/subscriptions/billing", object{"start_from": "START_FROM_LATEST"}, 400, "start_from"},
		{"PATCH", "/v1/subscriptions/billing", object{"ack_deadline": "0s"}, 400, "ack_deadline"},
		{"PATCH", "/v1/subscriptions/billing?update_mask=nothing", object{}, 400, "update_mask"},
		{"DELETE", "/v1/subscriptions/billing?etag=old", nil, 409, "ETAG_STALE"},
		{"POST", "/v1/subscriptions/billing:pull", object{"max_events": -1}, 400, "max_events"},
		{"POST", "/v1/subscriptions/billing:acknowledge", object{}, 400, "ack_ids"},
		{"POST", "/v1/subscriptions/billing:acknowledge", object{"ack_ids": []string{"garbage"}}, 400, "ack_ids[0]"},
		{"POST", "/v1/subscriptions/billing:acknowledge", object{"ack_ids": []string{foreign}}, 400, "ACK_ID_INVALID"},
		{"POST", "/v1/subscriptions/billing:acknowledge", object{"ack_ids": []string{forged}}, 400, "ACK_ID_INVALID"},
		{"POST", "/v1/subscriptions/billing:modifyAckDeadline", ids("garbage"), 400, "ack_ids[0]"},
		{"POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ours}}, 400, "ack_deadline"},
		{"POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ours}, "ack_deadline": "-1s"}, 400, "ack_deadline"},
		{"POST", "/v1/subscriptions/billing:modifyAckDeadline", object{"ack_ids": []string{ours}, "ack_deadline": "700s"}, 400, "ack_deadline"},
		{"POST", "/v1/subscriptions/billing:seek", object{}, 400, "target"},
		{"POST", "/v1/subscriptions/billing:seek", object{"cursor": "garbage"}, 400, "CURSOR_MALFORMED"},
		{"POST", "/v1/subscriptions/billing:replayDeadLetters", object{"ids": []string{"x"}}, 400, "ids[0]"},
		{"POST", "/v1/subscriptions/billing:replayDeadLetters", object{"ids": []string{"4711"}}, 404, "DEAD_LETTER_NOT_FOUND"},
		{"POST", "/v1/subscriptions/billing:purgeDeadLetters", object{}, 400, "all"},
		{"GET", "/v1/subscriptions?page_token=%25", nil, 400, "PAGE_TOKEN_INVALID"},
		{"GET", "/v1/subscriptions/billing/deadLetters?page_token=x", nil, 400, "PAGE_TOKEN_INVALID"},
	} {
		code, answer := d.call(c.method, c.path, c.body)
		if code != c.code || !strings.Contains(fmt.Sprint(answer), c.says) {
			t.Errorf("%s %s %v = %d %v, want %d and %s", c.method, c.path, c.body, code, answer, c.code, c.says)
		}
	}
	// Among ids that are ours, those that are not are told, and the others are settled.
	resp, err := d.subs.Acknowledge(t.Context(), &eventrelayv1.AcknowledgeRequest{Name: "subscriptions/billing", AckIds: []string{"garbage", ours, foreign}})
	if err != nil || !slices.Equal(resp.GetUnknownAckIds(), []string{"garbage", foreign}) || d.get("billing").GetBacklog() != 0 {
		t.Fatalf("Acknowledge = %v, %v", resp, err)
	}
	if d.get("other").GetOutstanding() != 1 {
		t.Error("an ack_id settled an event of another subscription than it was sent to")
	}
}

func TestSeekDeliversExactlyWhatLiesBehindItsPlace(t *testing.T) {
	d := newDesk(t)
	d.event("meta.page.feed", "a", 30)
	for _, ordering := range []eventrelayv1.Ordering{eventrelayv1.Ordering_ORDERING_NONE, eventrelayv1.Ordering_ORDERING_BY_KEY} {
		name := strings.ReplaceAll(strings.ToLower(ordering.String()), "_", "-")
		spec := fromEarliest()
		spec.Ordering = ordering
		d.create(name, spec)
		drain := func() (events []*eventrelayv1.Event) {
			t.Helper()
			for d.get(name).GetBacklog() > 0 {
				some := d.pull(name, 100)
				if len(some) > 0 {
					d.ack(name, some...)
				}
				events = append(events, some...)
			}
			return events
		}
		all := drain()
		if len(all) != 30 {
			t.Fatalf("%s: %d events came", name, len(all))
		}
		held := all[20] // acknowledged before
		if _, err := d.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/" + name, Target: &eventrelayv1.SeekRequest_Cursor{Cursor: held.GetCursor()}}); err != nil {
			t.Fatal(err)
		}
		var want []string
		for n := int(held.GetSequence()) + 1; n <= 30; n++ {
			want = append(want, strconv.Itoa(n))
		}
		wantObjects(t, drain(), want...)
		outstanding := d.take(name, 0)
		if _, err := d.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/" + name, Target: &eventrelayv1.SeekRequest_Time{Time: timestamppb.New(began.Add(26 * time.Second))}}); err != nil {
			t.Fatal(err)
		}
		resp, err := d.subs.Acknowledge(t.Context(), &eventrelayv1.AcknowledgeRequest{Name: "subscriptions/" + name, AckIds: []string{held.GetAckId()}})
		if err != nil || !slices.Equal(resp.GetStaleAckIds(), []string{held.GetAckId()}) {
			t.Fatalf("an id of before the seek: %v, %v", resp, err)
		}
		wantObjects(t, append(drain(), outstanding...), "26", "27", "28", "29", "30")
	}
}

func TestAnyRelayAcknowledgesWhatAnotherDelivered(t *testing.T) {
	server := natstest.NewServer(t)
	server.Start()
	options := eventlog.Options{URL: server.URL()}
	one, two := openDesk(t, options, nil), openDesk(t, options, nil)
	one.create("billing", nil)
	one.event("meta.page.feed", "a", 4)
	events := one.take("billing", 4)
	two.ack("billing", events[:2]...)
	two.nack("billing", "by the other", events[2])
	wantObjects(t, two.take("billing", 1), objects(events[2:3])...)
	if sub := one.get("billing"); sub.GetBacklog() != 2 || sub.GetOutstanding() != 2 {
		t.Fatalf("it stands at %v", sub)
	}
	// A seek by one relay holds for the other at once.
	if _, err := two.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/billing", Target: &eventrelayv1.SeekRequest_Cursor{Cursor: events[2].GetCursor()}}); err != nil {
		t.Fatal(err)
	}
	wantObjects(t, one.take("billing", 1), "4")
	if _, err := two.subs.DeleteSubscription(t.Context(), &eventrelayv1.DeleteSubscriptionRequest{Name: "subscriptions/billing"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the deletion is known to the other relay", func() bool {
		_, err := one.subs.Pull(t.Context(), &eventrelayv1.PullRequest{Name: "subscriptions/billing"})
		return status.Code(err) == codes.NotFound
	})
}

func TestAFilterLeavesNothingOutstandingBehind(t *testing.T) {
	d := newDesk(t)
	spec := fromEarliest()
	spec.Filter = `event.object == "1000"`
	d.create("rare", spec)
	ordered := fromEarliest()
	ordered.Filter, ordered.Ordering = spec.GetFilter(), eventrelayv1.Ordering_ORDERING_BY_KEY
	d.create("rare-ordered", ordered)
	narrow := fromEarliest()
	narrow.Filter = `event.type == "meta.page.mention" && event.object != "1"`
	d.create("narrow", narrow)
	for range 4 {
		d.event("meta.page.feed", strconv.Itoa(d.n), 250)
	}
	d.event("meta.page.mention", "b", 1)
	for _, name := range []string{"rare", "rare-ordered"} {
		events := d.take(name, 1)
		wantObjects(t, events, "1000")
		until(t, "only what matches is outstanding", func() bool { return d.get(name).GetOutstanding() == 1 })
		d.ack(name, events...)
		d.none(name)
		until(t, "nothing is left", func() bool { s := d.get(name); return s.GetOutstanding() == 0 && s.GetBacklog() == 0 })
	}
	if n := d.get("narrow").GetBacklog(); n != 1 {
		t.Errorf("the log hands %d events to a subscription to one type", n)
	}
	wantObjects(t, d.take("narrow", 1), "1001")
}

func TestNoMoreIsDeliveredThanWasAskedFor(t *testing.T) {
	d := newDesk(t)
	d.create("plain", nil)
	d.create("ordered", &eventrelayv1.Subscription{Ordering: eventrelayv1.Ordering_ORDERING_BY_KEY})
	for n := range 40 {
		d.event("meta.page.feed", strconv.Itoa(n), 1)
	}
	for _, name := range []string{"plain", "ordered"} {
		held := 0
		for _, n := range []int{1, 3, 5} {
			events := d.pull(name, n)
			held += len(events)
			if len(events) > n || d.get(name).GetOutstanding() != uint64(held) {
				t.Fatalf("%s: a pull of %d gave %d; %d are outstanding, %d were delivered", name, n, len(events), d.get(name).GetOutstanding(), held)
			}
		}
	}
}

// TestTheNextEventOfAKeyWaitsForTheLast: whatever is given back and whoever goes away.
func TestTheNextEventOfAKeyWaitsForTheLast(t *testing.T) {
	const keys, each, workers = 20, 15, 8
	d := newDesk(t)
	d.create("ordered", &eventrelayv1.Subscription{
		Ordering: eventrelayv1.Ordering_ORDERING_BY_KEY, AckDeadline: durationpb.New(time.Second), MaxDeliveryAttempts: 100,
	})
	for range each {
		for key := range keys {
			d.event("meta.page.feed", "key "+strconv.Itoa(key), 1)
		}
	}
	var (
		mu      sync.Mutex
		last    = map[string]int{} // by key, the newest that was acknowledged
		done    int
		faults  []string
		running sync.WaitGroup
	)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for worker := range workers {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for ctx.Err() == nil {
				resp, err := d.subs.Pull(ctx, &eventrelayv1.PullRequest{Name: "subscriptions/ordered", MaxEvents: 4})
				if err != nil {
					continue
				}
				for _, e := range resp.GetEvents() {
					n, _ := strconv.Atoi(e.GetObject())
					mu.Lock()
					// What comes again because its acknowledgement came late is behind; what is ahead came too soon.
					if prior := last[e.GetOrderingKey()]; prior == 0 && n > keys || prior > 0 && n > prior+keys {
						faults = append(faults, fmt.Sprintf("%s: %d came after %d", e.GetOrderingKey(), n, prior))
					}
					mu.Unlock()
					switch {
					case random.IntN(10) == 0:
						d.store.GiveBack(ctx, "subscriptions/ordered", []string{e.GetAckId()}, "")
						continue
					case worker == 0 && random.IntN(20) == 0:
						continue // it is lost with its consumer, and comes again after its deadline
					}
					mu.Lock()
					if n > last[e.GetOrderingKey()] {
						last[e.GetOrderingKey()] = n // before it is settled, for the next one may come at once
						done++
					}
					over := done == keys*each
					mu.Unlock()
					if _, _, err := d.store.Acknowledge(context.WithoutCancel(ctx), "subscriptions/ordered", []string{e.GetAckId()}); err != nil {
						t.Error(err)
					}
					if over {
						cancel()
					}
				}
			}
		})
	}
	running.Wait()
	if len(faults) > 0 || done != keys*each {
		t.Fatalf("%d of %d events were acknowledged; out of order: %v", done, keys*each, faults)
	}
	until(t, "nothing is left", func() bool { return d.get("ordered").GetBacklog() == 0 })
}

func TestRetentionThatOvertakesIsToldUntilASeek(t *testing.T) {
	d := openDesk(t, eventlog.Options{Dir: t.TempDir(), MaxEvents: 10}, nil)
	d.create("slow", fromEarliest())
	d.event("meta.page.feed", "a", 5)
	d.ack("slow", d.take("slow", 2)...)
	held := d.take("slow", 1) // the third is outstanding
	d.event("meta.page.feed", "a", 13)
	until(t, "what was lost is known", func() bool { return d.get("slow").GetLostEvents().GetFirstSequence() == 3 })
	sub := d.get("slow")
	if l := sub.GetLostEvents(); sub.GetState() != eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_EVENTS_LOST || l.GetLastSequence() != 8 || l.GetCount() != 6 {
		t.Fatalf("it stands at %v", sub)
	}
	_ = held
	resp, err := d.subs.Pull(t.Context(), &eventrelayv1.PullRequest{Name: "subscriptions/slow", MaxEvents: 100})
	if err != nil || resp.GetLostEvents().GetCount() != 6 {
		t.Fatalf("Pull = %v, %v", resp.GetLostEvents(), err)
	}
	wantObjects(t, resp.GetEvents(), "9", "10", "11", "12", "13", "14", "15", "16", "17", "18")
	sub, err = d.subs.Seek(t.Context(), &eventrelayv1.SeekRequest{Name: "subscriptions/slow", Target: &eventrelayv1.SeekRequest_Time{Time: timestamppb.New(began)}})
	if err != nil || sub.GetState() != eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE || sub.GetLostEvents() != nil || sub.GetBacklog() != 10 {
		t.Fatalf("after a seek it stands at %v, %v", sub, err)
	}
}

// TestWhatRetentionTookWhileNoRelayWatchedIsTold: also of a subscription to a part of the log, of which a gap alone says nothing.
func TestWhatRetentionTookWhileNoRelayWatchedIsTold(t *testing.T) {
	for _, ordering := range []eventrelayv1.Ordering{eventrelayv1.Ordering_ORDERING_NONE, eventrelayv1.Ordering_ORDERING_BY_KEY} {
		options := eventlog.Options{Dir: t.TempDir(), MaxEvents: 10}
		d := openDesk(t, options, nil)
		d.create("narrow", &eventrelayv1.Subscription{Filter: `event.type == "meta.page.mention"`, Ordering: ordering})
		d.create("content", &eventrelayv1.Subscription{Filter: `event.type == "meta.page.feed"`, Ordering: ordering})
		d.event("meta.page.mention", "a", 3)
		d.get("narrow")
		d.stop()

		log, err := eventlog.Open(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			if _, err := log.Append(t.Context(), []eventlog.Record{{ID: id(1000 + n), Source: "shop", Type: "meta.page.other", OrderingKey: "a", Time: began, Data: []byte{}}}); err != nil {
				t.Fatal(err)
			}
		}
		log.Close()

		d = openDesk(t, options, nil)
		if sub := d.get("narrow"); sub.GetState() != eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_EVENTS_LOST || sub.GetLostEvents().GetFirstSequence() != 1 {
			t.Errorf("%s: it stands at %v", ordering, sub)
		}
		if sub := d.get("content"); sub.GetState() != eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE {
			t.Errorf("%s: that nothing waited for stands at %v", ordering, sub)
		}
		d.stop()
	}
}

func TestASubscriptionWithoutProgressIsFlagged(t *testing.T) {
	d := openDesk(t, eventlog.Options{Dir: t.TempDir()}, func(o *durable.Options) { o.StallAfter, o.Look = 100*time.Millisecond, 10*time.Millisecond })
	d.create("stuck", nil)
	d.event("meta.page.feed", "a", 1)
	until(t, "it is flagged", func() bool {
		return d.get("stuck").GetState() == eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_STALLED
	})
	d.ack("stuck", d.take("stuck", 1)...)
	until(t, "it is not any more", func() bool {
		return d.get("stuck").GetState() == eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE
	})
}

func TestAnEventRestsLongerWithEachAttempt(t *testing.T) {
	d := newDesk(t)
	d.create("patient", &eventrelayv1.Subscription{MinRetryDelay: durationpb.New(200 * time.Millisecond), MaxRetryDelay: durationpb.New(600 * time.Millisecond), MaxDeliveryAttempts: 10})
	d.event("meta.page.feed", "a", 1)
	events := d.take("patient", 1)
	for _, least := range []time.Duration{200, 400, 600, 600} {
		began := time.Now()
		d.nack("patient", "", events...)
		events = d.take("patient", 1)
		if took := time.Since(began); took < least*time.Millisecond || took > (least+2000)*time.Millisecond {
			t.Errorf("attempt %d came after %s, not after %dms", events[0].GetDeliveryAttempt(), took, least)
		}
	}
}

func TestAPausedSubscriptionDeliversNothingAndTakesAcknowledgements(t *testing.T) {
	d := newDesk(t)
	d.create("night", nil)
	d.event("meta.page.feed", "a", 2)
	first := d.take("night", 1)
	pause := func(paused bool) {
		t.Helper()
		if _, err := d.subs.UpdateSubscription(t.Context(), &eventrelayv1.UpdateSubscriptionRequest{
			Subscription: &eventrelayv1.Subscription{Name: "subscriptions/night", Paused: paused}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"paused"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	d.none("night")
	d.ack("night", first...)
	if sub := d.get("night"); sub.GetState() != eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_PAUSED || sub.GetBacklog() != 1 {
		t.Fatalf("it stands at %v", sub)
	}
	pause(false)
	wantObjects(t, d.take("night", 1), "2")
}

func TestAPullEndsAtOnceWhenTheServerGoesDown(t *testing.T) {
	d := newDesk(t)
	d.create("idle", nil)
	began := time.Now()
	time.AfterFunc(50*time.Millisecond, d.store.Close)
	if events := d.pull("idle", 1); len(events) > 0 || time.Since(began) > pullWait-time.Second {
		t.Errorf("it gave %v after %s", objects(events), time.Since(began))
	}
}
