package connection

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/dialog360"
	"eventrelay/server/upstream"
)

// The targets of findings and steps of 360dialog sources.
const (
	partnerTarget = "partnerWebhook"
	channelTarget = "channelWebhook"
)

func (p Providers) partnerTasks(s Source, callback string) []task {
	return []task{{action: "SetPartnerWebhook", target: partnerTarget, do: func(ctx context.Context) (bool, error) {
		if current, err := p.Dialog360.GetPartnerWebhook(ctx, s.Partner); err != nil || current == callback {
			return false, err
		}
		return true, p.Dialog360.SetPartnerWebhook(ctx, s.Partner, callback)
	}}}
}

func (p Providers) channelTasks(s Source, callback string) []task {
	return []task{{action: "SetChannelWebhook", target: channelTarget, do: func(ctx context.Context) (bool, error) {
		current, err := p.Dialog360.GetChannelWebhook(ctx, s.ChannelAPIKey)
		if err != nil || current.URL == callback && len(unsent(s, current)) == 0 {
			return false, err
		}
		return true, p.Dialog360.SetChannelWebhook(ctx, s.ChannelAPIKey, dialog360.Webhook{URL: callback, Headers: s.Headers})
	}}}
}

// unsent are the names of the headers that the source wants to see and the webhook does not send, or with another value. Names of headers have no case.
func unsent(s Source, webhook dialog360.Webhook) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		sent := false
		for other, value := range webhook.Headers {
			sent = sent || strings.EqualFold(name, other) && value.Reveal() == s.Headers[name].Reveal()
		}
		if !sent {
			names = append(names, name)
		}
	}
	return names
}

func (p Providers) checkPartner(ctx context.Context, s Source, callback string) ([]*eventrelayv1.SubscriptionFinding, error) {
	current, err := p.Dialog360.GetPartnerWebhook(ctx, s.Partner)
	if err != nil {
		return lookupFailed(partnerTarget, err)
	}
	return compareAddress(partnerTarget, callback, current), nil
}

func (p Providers) checkChannel(ctx context.Context, s Source, callback string) ([]*eventrelayv1.SubscriptionFinding, error) {
	current, err := p.Dialog360.GetChannelWebhook(ctx, s.ChannelAPIKey)
	if err != nil {
		return lookupFailed(channelTarget, err)
	}
	findings := compareAddress(channelTarget, callback, current.URL)
	if current.URL == "" {
		return findings, nil
	}
	for _, name := range unsent(s, current) {
		findings = append(findings, &eventrelayv1.SubscriptionFinding{
			Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: channelTarget, Field: fmt.Sprintf("headers[%q]", name),
			Hint: "360dialog does not send this header, or another value of it, so notifications are refused; connect the source",
		})
	}
	return findings, nil
}

// lookupFailed makes a finding of a lookup that failed; that the call could not even be made is an error.
func lookupFailed(target string, err error) ([]*eventrelayv1.SubscriptionFinding, error) {
	if errors.Is(err, upstream.ErrCredentialMissing) {
		return nil, err
	}
	return []*eventrelayv1.SubscriptionFinding{unknown(target, err)}, nil
}

// compareAddress compares where a webhook should go with where it goes.
func compareAddress(target, callback, current string) []*eventrelayv1.SubscriptionFinding {
	switch current {
	case callback:
		return nil
	case "":
		return []*eventrelayv1.SubscriptionFinding{{
			Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: target, Expected: callback, Hint: "nothing is reported; connect the source",
		}}
	default:
		return []*eventrelayv1.SubscriptionFinding{{
			Kind: eventrelayv1.FindingKind_FINDING_KIND_ELSEWHERE, Target: target, Expected: callback, Actual: current,
			Hint: "somebody else receives the notifications; connecting the source takes them over",
		}}
	}
}
