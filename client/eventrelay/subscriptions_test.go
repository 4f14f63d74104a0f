package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// billing is a subscription with every field set.
func billing() *eventrelayv1.Subscription {
	return &eventrelayv1.Subscription{
		Name: "subscriptions/billing", Filter: `event.type.startsWith("meta.page.")`, Labels: map[string]string{"team": "sales"}, Ordering: eventrelayv1.Ordering_ORDERING_BY_KEY,
		AckDeadline: durationpb.New(30 * time.Second), MinRetryDelay: durationpb.New(time.Second), MaxRetryDelay: durationpb.New(10 * time.Minute), MaxDeliveryAttempts: 5,
		ExpireAfter: durationpb.New(24 * time.Hour), Etag: "e7", CreateTime: timestamppb.New(at), UpdateTime: timestamppb.New(at.Add(time.Hour)),
		Backlog: 12, Outstanding: 3, OldestUnackedTime: timestamppb.New(at), DeadLetterCount: 2, State: eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_EVENTS_LOST,
		LostEvents:       &eventrelayv1.LostEvents{FirstSequence: 4, LastSequence: 9, Count: 6, DetectTime: timestamppb.New(at)},
		LastActivityTime: timestamppb.New(at.Add(2 * time.Hour)),
		Stats:            &eventrelayv1.DeliveryStats{SinceTime: timestamppb.New(at), Deliveries: 20, Redeliveries: 5, Acknowledged: 9, DeadLettered: 2, FilterErrors: 1},
	}
}

func TestSubscriptionsAreListedAndDescribed(t *testing.T) {
	d := answers(&eventrelayv1.ListSubscriptionsResponse{Subscriptions: []*eventrelayv1.Subscription{billing(), {Name: "subscriptions/idle", State: eventrelayv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE}}})
	list := d.ask(t, "subscriptions", "list")
	described := answers(billing()).ask(t, "subscriptions", "describe", "billing")
	if list.code != exitDone || described.code != exitDone || list.err+described.err != "" {
		t.Errorf("exit %d, %d: %s%s", list.code, described.code, list.err, described.err)
	}
	golden(t, "subscriptions.golden", list.out+"\n"+described.out)
	var read eventrelayv1.Subscription
	if got := answers(billing()).ask(t, "subscriptions", "describe", "subscriptions/billing", "--json"); protojson.Unmarshal([]byte(got.out), &read) != nil || !proto.Equal(&read, billing()) {
		t.Errorf("printed %s", got.out)
	}
	if got := answers(&eventrelayv1.ListSubscriptionsResponse{}).ask(t, "subscriptions", "list"); got.code != exitDone || !strings.Contains(got.err, "subscriptions create ID") {
		t.Errorf("without any, exit %d: %s", got.code, got.err)
	}
}

func TestSubscriptionsAreCreatedSoughtAndDeletedAsTheFlagsSay(t *testing.T) {
	for _, c := range []struct {
		args   string
		answer proto.Message
		want   []proto.Message
	}{
		{
			"subscriptions create billing", billing(),
			[]proto.Message{&eventrelayv1.CreateSubscriptionRequest{SubscriptionId: "billing", Subscription: &eventrelayv1.Subscription{
				Start: &eventrelayv1.Subscription_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_LATEST},
			}}},
		},
		{
			"subscriptions create billing --filter event.test --from 2026-11-21T09:00:00Z --ack-deadline 1m --min-retry-delay 1s --max-retry-delay 5m --max-delivery-attempts 3 --ordered --expire-after 24h --label team=a",
			billing(),
			[]proto.Message{&eventrelayv1.CreateSubscriptionRequest{SubscriptionId: "billing", Subscription: &eventrelayv1.Subscription{
				Filter: "event.test", Start: &eventrelayv1.Subscription_StartTime{StartTime: timestamppb.New(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))},
				AckDeadline: durationpb.New(time.Minute), MinRetryDelay: durationpb.New(time.Second), MaxRetryDelay: durationpb.New(5 * time.Minute), MaxDeliveryAttempts: 3,
				Ordering: eventrelayv1.Ordering_ORDERING_BY_KEY, ExpireAfter: durationpb.New(24 * time.Hour), Labels: map[string]string{"team": "a"},
			}}},
		},
		{
			"subscriptions create billing --from c7", billing(),
			[]proto.Message{&eventrelayv1.CreateSubscriptionRequest{SubscriptionId: "billing", Subscription: &eventrelayv1.Subscription{Start: &eventrelayv1.Subscription_Cursor{Cursor: "c7"}}}},
		},
		{
			"subscriptions seek billing --to c7", billing(),
			[]proto.Message{&eventrelayv1.SeekRequest{Name: "subscriptions/billing", Target: &eventrelayv1.SeekRequest_Cursor{Cursor: "c7"}}},
		},
		{
			"subscriptions seek billing --to earliest", billing(),
			[]proto.Message{&eventrelayv1.SeekRequest{Name: "subscriptions/billing", Target: &eventrelayv1.SeekRequest_Time{Time: &timestamppb.Timestamp{}}}},
		},
		{
			"subscriptions seek billing --to latest", billing(),
			[]proto.Message{&eventrelayv1.SubscribeRequest{}, &eventrelayv1.SeekRequest{Name: "subscriptions/billing", Target: &eventrelayv1.SeekRequest_Cursor{Cursor: "end"}}},
		},
		{
			"subscriptions delete billing --yes --etag e7", &emptypb.Empty{},
			[]proto.Message{&eventrelayv1.DeleteSubscriptionRequest{Name: "subscriptions/billing", Etag: "e7"}},
		},
		{
			"subscriptions replay billing 7 9", &eventrelayv1.ReplayDeadLettersResponse{Replayed: 2},
			[]proto.Message{&eventrelayv1.ReplayDeadLettersRequest{Name: "subscriptions/billing", Ids: []string{"7", "9"}}},
		},
		{
			"subscriptions replay billing --all", &eventrelayv1.ReplayDeadLettersResponse{Replayed: 2},
			[]proto.Message{&eventrelayv1.ReplayDeadLettersRequest{Name: "subscriptions/billing"}},
		},
	} {
		t.Run(c.args, func(t *testing.T) {
			d := answers(c.answer)
			d.stream = []*eventrelayv1.SubscribeResponse{{Cursor: "end"}}
			if got := d.ask(t, strings.Fields(c.args)...); got.code != exitDone || got.err != "" || got.out == "" {
				t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
			}
			d.wants(t, c.want...)
		})
	}
}

func TestDeadLettersAreListedWithTheirReasons(t *testing.T) {
	dead := &eventrelayv1.DeadLetter{
		Id: "7", DeliveryAttempts: 5, LastError: "the till is closed\x1b[31m", DeadLetterTime: timestamppb.New(at), Event: &eventrelayv1.Event{Id: "event7", Type: "meta.page.feed"},
	}
	d := answers(&eventrelayv1.ListDeadLettersResponse{DeadLetters: []*eventrelayv1.DeadLetter{dead}})
	got := d.ask(t, "subscriptions", "dead-letters", "billing")
	if got.code != exitDone || !strings.Contains(got.out, "the till is closed") || strings.Contains(got.out, "\x1b") || !strings.Contains(got.out, "event7") {
		t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
	}
	if got := d.ask(t, "subscriptions", "dead-letters", "billing", "--json"); !strings.Contains(got.out, `"last_error":"the till is closed`) || strings.Count(got.out, "\n") != 1 {
		t.Errorf("printed %s%s", got.out, got.err)
	}
	if got := answers(&eventrelayv1.ListDeadLettersResponse{}).ask(t, "subscriptions", "dead-letters", "billing"); got.code != exitDone || got.out != "" || !strings.Contains(got.err, "no dead letters") {
		t.Errorf("without any, exit %d: %s%s", got.code, got.out, got.err)
	}
}

func TestTailOfASubscriptionAcknowledgesWhatItPrints(t *testing.T) {
	d := &desk{stream: []*eventrelayv1.SubscribeResponse{{Cursor: "c0"}, {Events: []*eventrelayv1.Event{
		{Id: "event1", Sequence: 1, AckId: "a1", Type: "meta.page.feed"}, {Id: "event2", Sequence: 2, AckId: "a2", Type: "meta.page.feed"}, {Id: "event3", Sequence: 3, AckId: "a3", Type: "meta.page.feed"},
	}}}}
	var acked, back []string
	d.answer = func(request proto.Message) (proto.Message, error) {
		switch r := request.(type) {
		case *eventrelayv1.AcknowledgeRequest:
			acked = append(acked, r.GetAckIds()...)
			return &eventrelayv1.AcknowledgeResponse{}, nil
		case *eventrelayv1.ModifyAckDeadlineRequest:
			back = append(back, r.GetAckIds()...)
			return &eventrelayv1.ModifyAckDeadlineResponse{}, nil
		}
		return billing(), nil
	}
	got := d.ask(t, "subscriptions", "tail", "billing", "--count", "2", "--json")
	if got.code != exitDone || strings.Count(got.out, "\n") != 2 || !strings.Contains(got.err, "is acknowledged") {
		t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
	}
	if strings.Join(acked, " ") != "a1 a2" || strings.Join(back, " ") != "a3" {
		t.Errorf("acknowledged %v, gave back %v", acked, back)
	}
}

func TestARefusalAboutASubscriptionSaysWhatToDo(t *testing.T) {
	about := map[string]string{"subscription": "subscriptions/billing", "id": "7"}
	for reason, c := range map[string]struct {
		code codes.Code
		says string
	}{
		"SUBSCRIPTION_NOT_FOUND": {codes.NotFound, `there is no subscription "billing": ` + "`eventrelay subscriptions list`"},
		"SUBSCRIPTION_EXISTS":    {codes.AlreadyExists, "subscriptions describe billing`"},
		"DEAD_LETTER_NOT_FOUND":  {codes.NotFound, `no dead letter "7"`},
		"EVENTS_LOST":            {codes.OutOfRange, "subscriptions seek billing --to earliest`"},
		"ETAG_STALE":             {codes.Aborted, "changed the subscription"},
		"CURSOR_FOREIGN":         {codes.InvalidArgument, "another log"},
		"CURSOR_EXPIRED":         {codes.OutOfRange, "removed by retention"},
	} {
		d := &desk{answer: func(proto.Message) (proto.Message, error) {
			return nil, refusal(c.code, "text", "eventrelay", reason, about)
		}}
		if got := d.ask(t, "subscriptions", "describe", "billing"); got.code != exitFailure || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: exit %d: %s", reason, got.code, got.err)
		}
		if reason != "EVENTS_LOST" {
			continue
		}
		if got := d.ask(t, "subscriptions", "tail", "billing"); got.code != exitFailure || !strings.Contains(got.err, c.says) {
			t.Errorf("tail, %s: exit %d: %s", reason, got.code, got.err)
		}
	}
	for _, args := range []string{"subscriptions describe Billing", "subscriptions replay billing", "subscriptions replay billing 7 --all", "subscriptions seek billing", "subscriptions delete billing"} {
		if got := answers(nil).ask(t, strings.Fields(args)...); got.code != exitUsage || got.out != "" {
			t.Errorf("%s: exit %d: %s%s", args, got.code, got.out, got.err)
		}
	}
}
