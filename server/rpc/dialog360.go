package rpc

import (
	"context"
	"maps"
	"slices"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/dialog360"
	"eventrelay/server/source"
	"eventrelay/server/upstream"
)

// Dialog360Service serves eventrelay.v1.Dialog360Service: each RPC is one operation of 360dialog's APIs.
type Dialog360Service struct {
	eventrelayv1.UnimplementedDialog360ServiceServer
	credentials Credentials
	dialog360   *dialog360.Client
}

// NewDialog360Service returns the service over a client of 360dialog's APIs.
func NewDialog360Service(credentials Credentials, client *dialog360.Client) *Dialog360Service {
	return &Dialog360Service{credentials: credentials, dialog360: client}
}

// of finds the credentials of the source that a name begins with, which must be of the provider that the call is for.
func (s *Dialog360Service) of(name string, wants eventrelayv1.Provider) (source.Credentials, error) {
	sourceName, _ := splitName(name)
	cred, err := s.credentials.Credentials(sourceName)
	if err == nil && cred.Provider != wants {
		err = &otherProviderError{source: sourceName, is: cred.Provider, wants: wants}
	}
	return cred, err
}

func (s *Dialog360Service) partner(name string) (dialog360.PartnerCredentials, error) {
	cred, err := s.of(name, eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER)
	if err != nil {
		return dialog360.PartnerCredentials{}, err
	}
	return partnerCredentials(cred), nil
}

func partnerCredentials(cred source.Credentials) dialog360.PartnerCredentials {
	return dialog360.PartnerCredentials{PartnerID: cred.PartnerID(), PartnerAPIKey: upstream.NewSecret(cred.PartnerAPIKey())}
}

func (s *Dialog360Service) channelKey(name string) (upstream.Secret, error) {
	cred, err := s.of(name, eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL)
	if err != nil {
		return upstream.Secret{}, err
	}
	return upstream.NewSecret(cred.ChannelAPIKey()), nil
}

// GetPartnerWebhook returns the webhook of a partner account.
func (s *Dialog360Service) GetPartnerWebhook(ctx context.Context, req *eventrelayv1.GetPartnerWebhookRequest) (*eventrelayv1.PartnerWebhook, error) {
	cred, err := s.partner(req.GetName())
	if err != nil {
		return nil, err
	}
	address, err := s.dialog360.GetPartnerWebhook(ctx, cred)
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.PartnerWebhook{Name: req.GetName(), WebhookUrl: address}, nil
}

// SetPartnerWebhook sets the webhook of a partner account.
func (s *Dialog360Service) SetPartnerWebhook(ctx context.Context, req *eventrelayv1.SetPartnerWebhookRequest) (*eventrelayv1.PartnerWebhook, error) {
	cred, err := s.partner(req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.dialog360.SetPartnerWebhook(ctx, cred, req.GetWebhookUrl()); err != nil {
		return nil, err
	}
	return &eventrelayv1.PartnerWebhook{Name: req.GetName(), WebhookUrl: req.GetWebhookUrl()}, nil
}

// GetChannelWebhook returns the webhook of a number, without the values of its headers.
func (s *Dialog360Service) GetChannelWebhook(ctx context.Context, req *eventrelayv1.GetChannelWebhookRequest) (*eventrelayv1.ChannelWebhook, error) {
	key, err := s.channelKey(req.GetName())
	if err != nil {
		return nil, err
	}
	webhook, err := s.dialog360.GetChannelWebhook(ctx, key)
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ChannelWebhook{Name: req.GetName(), Url: webhook.URL, HeaderNames: slices.Sorted(maps.Keys(webhook.Headers))}, nil
}

// SetChannelWebhook sets the webhook of a number.
func (s *Dialog360Service) SetChannelWebhook(ctx context.Context, req *eventrelayv1.SetChannelWebhookRequest) (*eventrelayv1.ChannelWebhook, error) {
	key, err := s.channelKey(req.GetName())
	if err != nil {
		return nil, err
	}
	webhook := dialog360.Webhook{URL: req.GetUrl(), Headers: secrets(req.GetHeaders())}
	if err := s.dialog360.SetChannelWebhook(ctx, key, webhook); err != nil {
		return nil, err
	}
	return &eventrelayv1.ChannelWebhook{Name: req.GetName(), Url: webhook.URL, HeaderNames: slices.Sorted(maps.Keys(webhook.Headers))}, nil
}

// SetWabaWebhook sets the webhook of all numbers of an account.
func (s *Dialog360Service) SetWabaWebhook(ctx context.Context, req *eventrelayv1.SetWabaWebhookRequest) (*eventrelayv1.SetWabaWebhookResponse, error) {
	key, err := s.channelKey(req.GetName())
	if err != nil {
		return nil, err
	}
	webhook := dialog360.Webhook{URL: req.GetUrl(), Headers: secrets(req.GetHeaders())}
	if err := s.dialog360.SetWABAWebhook(ctx, key, webhook, req.GetOverrideAll()); err != nil {
		return nil, err
	}
	return &eventrelayv1.SetWabaWebhookResponse{Url: webhook.URL, HeaderNames: slices.Sorted(maps.Keys(webhook.Headers))}, nil
}

// secrets wraps the values of headers, so that nothing prints them from here on.
func secrets(headers map[string]string) map[string]upstream.Secret {
	wrapped := make(map[string]upstream.Secret, len(headers))
	for name, value := range headers {
		wrapped[name] = upstream.NewSecret(value)
	}
	return wrapped
}
