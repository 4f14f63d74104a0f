package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// subscriptionPage is how many subscriptions, or dead letters, are asked for at once.
const subscriptionPage = 1000

// subscriptions is the commands about durable subscriptions.
type subscriptions struct {
	Create      createSubscription   `cmd:"" help:"Create a durable subscription."`
	List        listSubscriptions    `cmd:"" help:"List the durable subscriptions."`
	Describe    describeSubscription `cmd:"" help:"Show all that is known of a subscription."`
	Tail        tailSubscription     `cmd:"" help:"Print the events of a subscription as they are due, and acknowledge what is printed."`
	Seek        seekSubscription     `cmd:"" help:"Send a subscription to another place of the log."`
	DeadLetters listDeadLetters      `cmd:"" help:"List the events that a subscription could not deliver, with the reasons."`
	Replay      replayDeadLetters    `cmd:"" help:"Have dead letters delivered once more."`
	Delete      deleteSubscription   `cmd:"" help:"Delete a subscription with its dead letters. Events stay."`
}

// subscriptionName gives the name of a subscription, and checks its id where it is typed: `billing` and `subscriptions/billing` are the same.
func subscriptionName(id string) (string, error) {
	short := strings.TrimPrefix(id, "subscriptions/")
	if !sourceID.MatchString(short) {
		return "", usagef("%q is no subscription: give its id, 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit", id)
	}
	return "subscriptions/" + short, nil
}

// createSubscription creates a subscription. None of its flags is read from the environment, where those of another command may stand.
type createSubscription struct {
	connection `embed:""`

	ID                  string        `arg:"" name:"id" help:"The id of the subscription."`
	Filter              string        `env:"-" placeholder:"CEL" help:"Only events for which this expression is true, such as 'event.type.startsWith(\"meta.page.\")'."`
	From                start         `env:"-" default:"latest" placeholder:"WHERE" help:"Where to start: latest, earliest, a time (RFC 3339), how long ago (10m), or the cursor of an event. Default: latest."`
	AckDeadline         time.Duration `env:"-" placeholder:"TIME" help:"How long a service has to acknowledge an event before it is delivered again: 1s to 10m. Default: 30s."`
	MinRetryDelay       time.Duration `env:"-" placeholder:"TIME" help:"How long an event rests before it is delivered again for the first time; it doubles with each attempt. Default: not at all."`
	MaxRetryDelay       time.Duration `env:"-" placeholder:"TIME" help:"The longest rest between two attempts. Default: 10m."`
	MaxDeliveryAttempts int32         `env:"-" placeholder:"N" help:"How often an event is delivered before it becomes a dead letter. Default: 5."`
	Ordered             bool          `env:"-" help:"Deliver the next event of a conversation only when the last one is acknowledged, or dead."`
	ExpireAfter         time.Duration `env:"-" placeholder:"TIME" help:"Delete the subscription when nobody has used it for so long. Default: never."`
	Label               []string      `env:"-" sep:"none" placeholder:"KEY=VALUE" help:"A label; may be repeated."`
	JSON                bool          `name:"json" help:"Print the subscription as one JSON object with the fields of eventrelay.v1.Subscription."`
}

// Run creates the subscription and prints it.
func (s *createSubscription) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(s.ID)
	if err != nil {
		return err
	}
	labels, err := keyValues("--label", s.Label)
	if err != nil {
		return err
	}
	spec := &eventrelayv1.Subscription{
		Filter: s.Filter, AckDeadline: length(s.AckDeadline), MinRetryDelay: length(s.MinRetryDelay), MaxRetryDelay: length(s.MaxRetryDelay),
		MaxDeliveryAttempts: s.MaxDeliveryAttempts, ExpireAfter: length(s.ExpireAfter), Labels: labels,
	}
	if s.Ordered {
		spec.Ordering = eventrelayv1.Ordering_ORDERING_BY_KEY
	}
	switch {
	case s.From.cursor != "":
		spec.Start = &eventrelayv1.Subscription_Cursor{Cursor: s.From.cursor}
	case !s.From.at.IsZero():
		spec.Start = &eventrelayv1.Subscription_StartTime{StartTime: timestamppb.New(s.From.at)}
	default:
		spec.Start = &eventrelayv1.Subscription_StartFrom{StartFrom: s.From.from}
	}
	var created *eventrelayv1.Subscription
	err = s.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		created, err = c.Subscriptions().CreateSubscription(ctx, &eventrelayv1.CreateSubscriptionRequest{SubscriptionId: strings.TrimPrefix(name, "subscriptions/"), Subscription: spec})
		return err
	})
	if err != nil {
		return err
	}
	return out.subscription(created, s.JSON)
}

// length gives a duration that was given, or nil.
func length(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// listSubscriptions prints a line per subscription.
type listSubscriptions struct {
	connection `embed:""`

	JSON bool `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.ListSubscriptionsResponse."`
}

// Run prints all subscriptions, however many pages they are.
func (l *listSubscriptions) Run(ctx context.Context, out *output) error {
	all := &eventrelayv1.ListSubscriptionsResponse{}
	err := l.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		return pages(func(token string) (string, error) {
			page, err := c.Subscriptions().ListSubscriptions(ctx, &eventrelayv1.ListSubscriptionsRequest{PageSize: subscriptionPage, PageToken: token})
			all.Subscriptions = append(all.Subscriptions, page.GetSubscriptions()...)
			return page.GetNextPageToken(), err
		})
	})
	switch {
	case err != nil:
		return err
	case l.JSON:
		return out.printJSON(all)
	case len(all.GetSubscriptions()) == 0:
		out.note("there are no durable subscriptions; make one with `eventrelay subscriptions create ID`")
		return nil
	}
	rows := table{}
	rows.row("NAME", "STATE", "BACKLOG", "OUTSTANDING", "DEAD LETTERS", "OLDEST", "LAST ACTIVITY")
	for _, s := range all.GetSubscriptions() {
		rows.row(s.GetName(), word(s.GetState()), strconv.FormatUint(s.GetBacklog(), 10), strconv.FormatUint(s.GetOutstanding(), 10),
			strconv.FormatUint(s.GetDeadLetterCount(), 10), when(s.GetOldestUnackedTime()), when(s.GetLastActivityTime()))
	}
	return rows.print(out.out, "")
}

// describeSubscription prints a subscription.
type describeSubscription struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The subscription."`
	JSON bool   `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.Subscription."`
}

// Run prints the subscription.
func (d *describeSubscription) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(d.ID)
	if err != nil {
		return err
	}
	var is *eventrelayv1.Subscription
	err = d.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		is, err = c.Subscriptions().GetSubscription(ctx, &eventrelayv1.GetSubscriptionRequest{Name: name})
		return err
	})
	if err != nil {
		return err
	}
	return out.subscription(is, d.JSON)
}

// subscription prints a subscription, as it is after a call.
func (o *output) subscription(s *eventrelayv1.Subscription, json bool) error {
	if json {
		return o.printJSON(s)
	}
	head := table{}
	head.row("name:", s.GetName())
	head.row("state:", word(s.GetState()))
	head.row("filter:", cmp.Or(s.GetFilter(), "all events"))
	head.row("ordering:", word(s.GetOrdering()))
	head.row("ack deadline:", s.GetAckDeadline().AsDuration().String())
	head.row("retry delay:", fmt.Sprintf("%s to %s", s.GetMinRetryDelay().AsDuration(), s.GetMaxRetryDelay().AsDuration()))
	head.row("delivery attempts:", strconv.Itoa(int(s.GetMaxDeliveryAttempts())))
	if s.GetExpireAfter() != nil {
		head.row("expires after:", s.GetExpireAfter().AsDuration().String())
	}
	head.row("labels:", pairs(s.GetLabels()))
	head.row("created:", when(s.GetCreateTime()))
	head.row("updated:", when(s.GetUpdateTime()))
	head.row("etag:", s.GetEtag())
	if err := head.print(o.out, ""); err != nil {
		return err
	}
	rows := table{}
	rows.row("backlog:", strconv.FormatUint(s.GetBacklog(), 10))
	rows.row("outstanding:", strconv.FormatUint(s.GetOutstanding(), 10))
	rows.row("oldest event:", when(s.GetOldestUnackedTime()))
	rows.row("dead letters:", strconv.FormatUint(s.GetDeadLetterCount(), 10))
	rows.row("last activity:", cmp.Or(when(s.GetLastActivityTime()), "never"))
	if lost := s.GetLostEvents(); lost != nil {
		rows.row("lost:", fmt.Sprintf("%d events, %d to %d, found out %s", lost.GetCount(), lost.GetFirstSequence(), lost.GetLastSequence(), when(lost.GetDetectTime())))
	}
	if err := o.section("progress", rows); err != nil {
		return err
	}
	stats := s.GetStats()
	rows = table{}
	rows.row("deliveries:", fmt.Sprintf("%d, %d of them again", stats.GetDeliveries(), stats.GetRedeliveries()))
	rows.row("acknowledged:", strconv.FormatUint(stats.GetAcknowledged(), 10))
	rows.row("dead lettered:", strconv.FormatUint(stats.GetDeadLettered(), 10))
	rows.row("filter errors:", strconv.FormatUint(stats.GetFilterErrors(), 10))
	return o.section("by this server since "+cmp.Or(when(stats.GetSinceTime()), "its start"), rows)
}

// seekSubscription sends a subscription elsewhere.
type seekSubscription struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The subscription."`
	To   start  `env:"-" required:"" placeholder:"WHERE" help:"Where to go on: latest, earliest, a time (RFC 3339), how long ago (10m), or the cursor of an event, behind which it goes on."`
	JSON bool   `name:"json" help:"Print the subscription as one JSON object with the fields of eventrelay.v1.Subscription."`
}

// Run sends the subscription elsewhere and prints it.
func (s *seekSubscription) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(s.ID)
	if err != nil {
		return err
	}
	request := &eventrelayv1.SeekRequest{Name: name}
	var sought *eventrelayv1.Subscription
	err = s.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		switch {
		case s.To.cursor != "":
			request.Target = &eventrelayv1.SeekRequest_Cursor{Cursor: s.To.cursor}
		case !s.To.at.IsZero():
			request.Target = &eventrelayv1.SeekRequest_Time{Time: timestamppb.New(s.To.at)}
		case s.To.from == eventrelayv1.StartFrom_START_FROM_EARLIEST:
			request.Target = &eventrelayv1.SeekRequest_Time{Time: &timestamppb.Timestamp{}} // nothing was received before
		default:
			// The end is where a stream that starts there is, by the server's clock and not by ours.
			reading, stop := context.WithCancel(ctx)
			defer stop()
			stream, err := c.Events().Subscribe(reading, &eventrelayv1.SubscribeRequest{})
			if err != nil {
				return err
			}
			first, err := stream.Recv()
			if err != nil {
				return err
			}
			request.Target = &eventrelayv1.SeekRequest_Cursor{Cursor: first.GetCursor()}
		}
		sought, err = c.Subscriptions().Seek(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	return out.subscription(sought, s.JSON)
}

// deleteSubscription deletes a subscription.
type deleteSubscription struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The subscription."`
	Etag string `env:"-" placeholder:"ETAG" help:"Delete the subscription only while this is its etag, as told by describe."`
	Yes  bool   `env:"-" short:"y" help:"Do not ask."`
}

// Run deletes the subscription, once somebody has said yes.
func (d *deleteSubscription) Run(ctx context.Context, out *output) error {
	name, err := subscriptionName(d.ID)
	if err != nil {
		return err
	}
	if !d.Yes {
		if err := out.sure(ctx, fmt.Sprintf("Delete %s of %s? Where it is, and its dead letters, are gone then.", name, d.Server)); err != nil {
			return err
		}
	}
	err = d.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		_, err := c.Subscriptions().DeleteSubscription(ctx, &eventrelayv1.DeleteSubscriptionRequest{Name: name, Etag: d.Etag})
		return err
	})
	if err != nil {
		return err
	}
	return out.print("deleted %s", name)
}
