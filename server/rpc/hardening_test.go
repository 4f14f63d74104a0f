package rpc

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	durable "eventrelay/server/subscription"
)

// refused wants an answer of a code and reason whose text names a field, if it is to.
func refused(t *testing.T, what string, err error, code codes.Code, reason, names string) {
	t.Helper()
	if got, _ := reasonOf(err); status.Code(err) != code || got != reason || !strings.Contains(err.Error(), names) {
		t.Errorf("%s: %v, want %s %s that names %q", what, err, code, reason, names)
	}
}

func (d *desk) tryAck(name string, ids ...string) error {
	_, err := d.subs.Acknowledge(d.t.Context(), &eventrelayv1.AcknowledgeRequest{Name: "subscriptions/" + name, AckIds: ids})
	return err
}

func (d *desk) tryNack(name string, deadline *durationpb.Duration, ids ...string) error {
	_, err := d.subs.ModifyAckDeadline(d.t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{Name: "subscriptions/" + name, AckIds: ids, AckDeadline: deadline})
	return err
}

func TestNoAlteredAckIDSettlesAnything(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	d.event("meta.page.feed", "a", 1)
	id := d.take("billing", 1)[0].GetAckId()
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			altered := bytes.Clone(raw)
			altered[i] ^= bit
			forged := base64.RawURLEncoding.EncodeToString(altered)
			refused(t, "byte altered", d.tryAck("billing", forged), codes.InvalidArgument, "ACK_ID_INVALID", "ack_ids[0]")
		}
	}
	for what, forged := range map[string]string{"cut": id[:len(id)-4], "longer": id + "AAAA", "twice": id + id, "padded": id + "=", "empty": "", "a receipt": "$JS.ACK.EVENTS.sub.1.1.1.0.0"} {
		refused(t, what, d.tryAck("billing", forged), codes.InvalidArgument, "ACK_ID_INVALID", "ack_ids[0]")
		refused(t, what, d.tryNack("billing", durationpb.New(0), forged), codes.InvalidArgument, "ACK_ID_INVALID", "ack_ids[0]")
	}
	if sub := d.get("billing"); sub.GetOutstanding() != 1 || sub.GetBacklog() != 1 {
		t.Errorf("after all that it stands at %v", sub)
	}
	d.ack("billing", &eventrelayv1.Event{AckId: id})
}

func TestAnAckIDOfADeletedSubscriptionSaysNothingOfItsSuccessor(t *testing.T) {
	d := newDesk(t)
	d.create("billing", fromEarliest())
	d.event("meta.page.feed", "a", 1)
	id := d.take("billing", 1)[0].GetAckId()
	if _, err := d.subs.DeleteSubscription(t.Context(), &eventrelayv1.DeleteSubscriptionRequest{Name: "subscriptions/billing"}); err != nil {
		t.Fatal(err)
	}
	refused(t, "of what is deleted", d.tryAck("billing", id), codes.NotFound, "SUBSCRIPTION_NOT_FOUND", "billing")
	d.create("billing", fromEarliest())
	d.take("billing", 1)
	refused(t, "of what was there before", d.tryAck("billing", id), codes.InvalidArgument, "ACK_ID_INVALID", "ack_ids[0]")
	if sub := d.get("billing"); sub.GetOutstanding() != 1 {
		t.Errorf("it stands at %v", sub)
	}
}

func TestAnAckIDOfALogsOtherKeyIsForeign(t *testing.T) {
	one, two := newDesk(t), newDesk(t)
	for _, d := range []*desk{one, two} {
		d.create("billing", nil)
		d.event("meta.page.feed", "a", 1)
	}
	refused(t, "of another log", two.tryAck("billing", one.take("billing", 1)[0].GetAckId()), codes.InvalidArgument, "ACK_ID_INVALID", "ack_ids[0]")
}

func TestAnAcknowledgementAfterTheDeadlineSettlesWhatNothingElseHas(t *testing.T) {
	d := newDesk(t)
	d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(time.Second)})
	d.event("meta.page.feed", "a", 2)
	late := d.take("billing", 2)
	again := d.take("billing", 2) // their deadlines have passed
	d.ack("billing", late[0])     // by its first delivery
	d.ack("billing", again...)    // both once more, one of them settled
	d.ack("billing", late...)
	if sub := d.get("billing"); sub.GetBacklog() != 0 || sub.GetOutstanding() != 0 || sub.GetDeadLetterCount() != 0 {
		t.Errorf("it stands at %v", sub)
	}
}

func TestWhoLostAnEventCannotTakeItFromWhoHasItNow(t *testing.T) {
	d := newDesk(t)
	d.create("billing", &eventrelayv1.Subscription{AckDeadline: durationpb.New(time.Second)})
	d.event("meta.page.feed", "a", 1)
	lost := d.take("billing", 1)[0]
	now := d.take("billing", 1)[0] // the deadline has passed
	resp, err := d.subs.ModifyAckDeadline(t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{Name: "subscriptions/billing", AckIds: []string{lost.GetAckId()}, AckDeadline: durationpb.New(0)})
	if err != nil || len(resp.GetStaleAckIds()) != 1 {
		t.Errorf("given back by who lost it: %v, %v", resp, err)
	}
	d.none("billing")
	d.nack("billing", "", now)
	if again := d.take("billing", 1); again[0].GetDeliveryAttempt() != 3 {
		t.Errorf("there came %v", again)
	}
}

func TestGiantRequestsAreRefusedByField(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	giant := strings.Repeat("a", 10_000)
	many := make([]string, 1001)
	for i := range many {
		many[i] = "x"
	}
	get := func(name string) error {
		_, err := d.subs.GetSubscription(t.Context(), &eventrelayv1.GetSubscriptionRequest{Name: name})
		return err
	}
	create := func(id string, spec *eventrelayv1.Subscription) error {
		_, err := d.subs.CreateSubscription(t.Context(), &eventrelayv1.CreateSubscriptionRequest{SubscriptionId: id, Subscription: spec})
		return err
	}
	replay := func(ids ...string) error {
		_, err := d.subs.ReplayDeadLetters(t.Context(), &eventrelayv1.ReplayDeadLettersRequest{Name: "subscriptions/billing", Ids: ids})
		return err
	}
	const invalid, reason = codes.InvalidArgument, "INVALID_REQUEST"
	refused(t, "name", get("subscriptions/"+giant), invalid, reason, "name")
	refused(t, "name with a path", get("subscriptions/../_key"), invalid, reason, "name")
	refused(t, "name of the key", get("subscriptions/_key"), invalid, reason, "name")
	refused(t, "wildcard", get("subscriptions/*"), invalid, reason, "name")
	refused(t, "id", create(giant, nil), invalid, reason, "subscription_id")
	refused(t, "id of the key", create("_key", nil), invalid, reason, "subscription_id")
	refused(t, "filter", create("x", &eventrelayv1.Subscription{Filter: giant}), invalid, reason, "filter")
	refused(t, "label", create("x", &eventrelayv1.Subscription{Labels: map[string]string{"a": giant}}), invalid, reason, "labels")
	refused(t, "cursor", create("x", &eventrelayv1.Subscription{Start: &eventrelayv1.Subscription_Cursor{Cursor: giant}}), invalid, "CURSOR_MALFORMED", "")
	refused(t, "ack_id", d.tryAck("billing", giant), invalid, reason, "ack_ids[0]")
	refused(t, "ack_ids", d.tryAck("billing", many...), invalid, reason, "ack_ids")
	refused(t, "no ack_ids", d.tryAck("billing"), invalid, reason, "ack_ids")
	refused(t, "dead letter", replay(giant), invalid, reason, "ids[0]")
	refused(t, "number of a dead letter", replay("99999999999999999999"), codes.NotFound, "DEAD_LETTER_NOT_FOUND", "99999999999999999999")
	if _, err := d.subs.ModifyAckDeadline(t.Context(), &eventrelayv1.ModifyAckDeadlineRequest{
		Name: "subscriptions/billing", AckIds: []string{"x"}, AckDeadline: durationpb.New(0), Reason: giant,
	}); err != nil {
		refused(t, "reason", err, invalid, reason, "reason")
	} else {
		t.Error("a giant reason is taken")
	}
	if err := create("x", &eventrelayv1.Subscription{Filter: strings.Repeat("a", 2<<20)}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of 2 MiB: %v", err)
	}
}

func TestWrongDeadlinesAreRefusedByField(t *testing.T) {
	d := newDesk(t)
	d.create("billing", nil)
	d.event("meta.page.feed", "a", 1)
	id := d.take("billing", 1)[0].GetAckId()
	for what, deadline := range map[string]*durationpb.Duration{
		"none": nil, "negative": durationpb.New(-time.Second), "longer than ten minutes": durationpb.New(601 * time.Second), "out of range": {Seconds: 1 << 60},
	} {
		if err := d.tryNack("billing", deadline, id); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "ack_deadline") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, spec := range map[string]*eventrelayv1.Subscription{
		"ack_deadline":    {AckDeadline: &durationpb.Duration{Seconds: 1 << 60}},
		"min_retry_delay": {MinRetryDelay: &durationpb.Duration{Seconds: -1}},
		"max_retry_delay": {MaxRetryDelay: durationpb.New(25 * time.Hour)},
		"expire_after":    {ExpireAfter: durationpb.New(599 * time.Second)},
	} {
		_, err := d.subs.CreateSubscription(t.Context(), &eventrelayv1.CreateSubscriptionRequest{SubscriptionId: "x", Subscription: spec})
		refused(t, what, err, codes.InvalidArgument, "INVALID_REQUEST", what)
	}
	if sub := d.get("billing"); sub.GetOutstanding() != 1 {
		t.Errorf("it stands at %v", sub)
	}
}

func TestAStreamThatAsksForNonsenseIsRefusedByField(t *testing.T) {
	d := newDesk(t)
	d.create("billing", fromEarliest())
	for names, tune := range map[string]func(*eventrelayv1.SubscribeRequest){
		"max_outstanding":       func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstanding = -1 },
		"max_outstanding_bytes": func(r *eventrelayv1.SubscribeRequest) { r.MaxOutstandingBytes = -1 },
		"leave filter":          func(r *eventrelayv1.SubscribeRequest) { r.Filter = "true" },
		"cursor":                func(r *eventrelayv1.SubscribeRequest) { r.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: "c"} },
		"subscription":          func(r *eventrelayv1.SubscribeRequest) { r.Subscription = strings.Repeat("a", 257) },
	} {
		refused(t, names, d.consume("billing", tune).ended(), codes.InvalidArgument, "INVALID_REQUEST", names)
	}
	for _, name := range []string{"../billing", "_key", "*", "BILLING"} {
		refused(t, name, d.consume(name, nil).ended(), codes.InvalidArgument, "INVALID_REQUEST", "subscription")
	}
	d.event("meta.page.feed", "a", 3)
	d.consume("billing", func(r *eventrelayv1.SubscribeRequest) {
		r.MaxOutstanding, r.MaxOutstandingBytes, r.MaxEvents = 1<<31-1, 1<<63-1, 1<<31-1
	}).take(3)
}

// locked is a buffer for many writers.
type locked struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestNeitherReasonsNorAckIDsAreLogged(t *testing.T) {
	said := &locked{}
	d := openDesk(t, eventlog.Options{Dir: t.TempDir()}, func(o *durable.Options) {
		o.Logger = slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	d.create("billing", &eventrelayv1.Subscription{MaxDeliveryAttempts: 1})
	d.event("meta.page.feed", "a", 1)
	event := d.take("billing", 1)[0]
	d.nack("billing", "Ada Lovelace has no credit", event)
	if len(d.deadLetters("billing")) != 1 {
		t.Fatal("it is no dead letter")
	}
	d.stop()
	if text := said.String(); !strings.Contains(text, "became a dead letter") || strings.Contains(text, "Lovelace") || strings.Contains(text, event.GetAckId()) {
		t.Errorf("logged: %s", text)
	}
}
