package rpc

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/connection"
	"eventrelay/server/upstream"
)

// Connect sets a source up with its provider, step by step. What the request gives is declared for the source before the first step: a step that fails then shows in a check.
func (s *SourceService) Connect(ctx context.Context, req *eventrelayv1.ConnectRequest) (*eventrelayv1.ConnectResponse, error) {
	current, err := s.sources.Get(req.GetName())
	if err != nil {
		return nil, err
	}
	if req.GetSubscriptions() != nil {
		declared := merge(current.GetSubscriptions(), req.GetSubscriptions())
		if !proto.Equal(declared, current.GetSubscriptions()) {
			current, err = s.sources.Update(ctx, &eventrelayv1.Source{Name: current.GetName(), Etag: current.GetEtag(), Subscriptions: declared}, []string{"subscriptions"})
			if err != nil {
				return nil, err
			}
		}
	}
	described, err := s.describe(current)
	if err != nil {
		return nil, err
	}
	steps, err := s.providers.Establish(ctx, described)
	if err != nil {
		return nil, err
	}
	resp := &eventrelayv1.ConnectResponse{Connected: true}
	if resp.CallbackUrl, err = described.CallbackURL(); err != nil {
		return nil, err
	}
	for _, step := range steps {
		shown := &eventrelayv1.ConnectStep{Action: step.Action, Target: step.Target, Outcome: step.Outcome}
		if step.Err != nil {
			shown.Error, resp.Connected = toStatus(step.Err).Proto(), false
		}
		resp.Steps = append(resp.Steps, shown)
	}
	return resp, nil
}

// CheckSubscriptions compares what a source declares with what its provider has.
func (s *SourceService) CheckSubscriptions(ctx context.Context, req *eventrelayv1.CheckSubscriptionsRequest) (*eventrelayv1.CheckSubscriptionsResponse, error) {
	current, err := s.sources.Get(req.GetName())
	if err != nil {
		return nil, err
	}
	described, err := s.describe(current)
	if err != nil {
		return nil, err
	}
	findings, err := s.providers.Check(ctx, described)
	if err != nil {
		return nil, err
	}
	callback, err := described.CallbackURL()
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.CheckSubscriptionsResponse{Findings: findings, InSync: len(findings) == 0, CallbackUrl: callback}, nil
}

// describe puts together what is known of a source and its credentials. Only those that its provider has a use for are taken out, for taking one counts as using it.
func (s *SourceService) describe(current *eventrelayv1.Source) (connection.Source, error) {
	cred, err := s.sources.Credentials(current.GetName())
	if err != nil {
		return connection.Source{}, err
	}
	described := connection.Source{
		Name: current.GetName(), Provider: current.GetProvider(), WebhookPath: current.GetWebhookPath(), Subscriptions: current.GetSubscriptions(),
	}
	switch current.GetProvider() {
	case eventrelayv1.Provider_PROVIDER_META:
		described.Meta, described.VerifyToken = metaCredentials(cred), upstream.NewSecret(cred.VerifyToken())
	case eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER:
		described.Partner = partnerCredentials(cred)
	case eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL:
		described.ChannelAPIKey, described.Headers = upstream.NewSecret(cred.ChannelAPIKey()), secrets(cred.Headers())
	}
	return described, nil
}

// merge adds what is to be set up to what a source declares: the address if there is one, objects and accounts by their names, the newer ones replacing the same older ones.
func merge(declared, added *eventrelayv1.SourceSubscriptions) *eventrelayv1.SourceSubscriptions {
	merged := proto.CloneOf(declared)
	if merged == nil {
		merged = &eventrelayv1.SourceSubscriptions{}
	}
	if added.GetPublicBaseUrl() != "" {
		merged.PublicBaseUrl = added.GetPublicBaseUrl()
	}
	for _, object := range added.GetObjects() {
		merged.Objects = put(merged.GetObjects(), object, (*eventrelayv1.ObjectSubscription).GetObject)
	}
	for _, account := range added.GetWhatsappBusinessAccounts() {
		merged.WhatsappBusinessAccounts = put(merged.GetWhatsappBusinessAccounts(), account, (*eventrelayv1.WhatsAppBusinessAccountSubscription).GetId)
	}
	return merged
}

// put replaces the element of the same key, or adds a new one.
func put[T any](list []T, element T, key func(T) string) []T {
	if i := slices.IndexFunc(list, func(e T) bool { return key(e) == key(element) }); i >= 0 {
		list[i] = element
		return list
	}
	return append(list, element)
}
