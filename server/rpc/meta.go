package rpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/graph"
	"eventrelay/server/source"
	"eventrelay/server/upstream"
)

// Credentials gives out what calls to a source's provider are made with.
type Credentials interface {
	Credentials(name string) (source.Credentials, error)
}

// MetaSubscriptionService serves eventrelay.v1.MetaSubscriptionService: each RPC is one operation of the Graph API.
type MetaSubscriptionService struct {
	eventrelayv1.UnimplementedMetaSubscriptionServiceServer
	credentials Credentials
	graph       *graph.Client
}

// NewMetaSubscriptionService returns the service over a client of the Graph API.
func NewMetaSubscriptionService(credentials Credentials, client *graph.Client) *MetaSubscriptionService {
	return &MetaSubscriptionService{credentials: credentials, graph: client}
}

// about splits the name of something of a provider's, `sources/{source}/{collection}/{id}`, and finds the source's credentials.
func (s *MetaSubscriptionService) about(name string) (graph.Credentials, string, error) {
	sourceName, id := splitName(name)
	cred, err := s.credentials.Credentials(sourceName)
	if err != nil {
		return graph.Credentials{}, "", err
	}
	if cred.Provider != eventrelayv1.Provider_PROVIDER_META {
		return graph.Credentials{}, "", &otherProviderError{source: sourceName, is: cred.Provider, wants: eventrelayv1.Provider_PROVIDER_META}
	}
	return metaCredentials(cred), id, nil
}

// splitName takes `sources/{source}` from the front of a name, and the last word from its end.
func splitName(name string) (sourceName, id string) {
	words := strings.Split(name, "/")
	return strings.Join(words[:min(2, len(words))], "/"), words[len(words)-1]
}

func metaCredentials(cred source.Credentials) graph.Credentials {
	return graph.Credentials{AppID: cred.AppID(), AppSecret: upstream.NewSecret(cred.AppSecret()), AccessToken: upstream.NewSecret(cred.AccessToken())}
}

// ListWhatsAppBusinessAccountSubscribedApps lists the apps that hear of an account.
func (s *MetaSubscriptionService) ListWhatsAppBusinessAccountSubscribedApps(ctx context.Context, req *eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsRequest) (*eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse, error) {
	cred, waba, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	apps, err := s.graph.ListWABASubscribedApps(ctx, cred, waba)
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse{SubscribedApps: subscribedApps(apps)}, nil
}

func subscribedApps(apps []graph.SubscribedApp) []*eventrelayv1.SubscribedApp {
	list := make([]*eventrelayv1.SubscribedApp, len(apps))
	for i, app := range apps {
		list[i] = &eventrelayv1.SubscribedApp{
			Id: app.ID, Name: app.Name, Link: app.Link, OverrideCallbackUri: app.OverrideCallbackURI, SubscribedFields: app.Fields,
		}
	}
	return list
}

// SubscribeWhatsAppBusinessAccount subscribes the app, with an override if one is given.
func (s *MetaSubscriptionService) SubscribeWhatsAppBusinessAccount(ctx context.Context, req *eventrelayv1.SubscribeWhatsAppBusinessAccountRequest) (*eventrelayv1.SubscribeWhatsAppBusinessAccountResponse, error) {
	cred, waba, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	if req.GetOverrideCallbackUri() != "" {
		err = s.graph.SetWABAOverride(ctx, cred, waba, req.GetOverrideCallbackUri(), req.GetVerifyToken())
	} else {
		err = s.graph.SubscribeWABA(ctx, cred, waba)
	}
	return &eventrelayv1.SubscribeWhatsAppBusinessAccountResponse{}, err
}

// UnsubscribeWhatsAppBusinessAccount unsubscribes the app.
func (s *MetaSubscriptionService) UnsubscribeWhatsAppBusinessAccount(ctx context.Context, req *eventrelayv1.UnsubscribeWhatsAppBusinessAccountRequest) (*emptypb.Empty, error) {
	cred, waba, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.graph.UnsubscribeWABA(ctx, cred, waba)
}

// ClearWhatsAppBusinessAccountOverride sends an account's messages to the app's own callback again.
func (s *MetaSubscriptionService) ClearWhatsAppBusinessAccountOverride(ctx context.Context, req *eventrelayv1.ClearWhatsAppBusinessAccountOverrideRequest) (*eventrelayv1.ClearWhatsAppBusinessAccountOverrideResponse, error) {
	cred, waba, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ClearWhatsAppBusinessAccountOverrideResponse{}, s.graph.ClearWABAOverride(ctx, cred, waba)
}

// GetWebhookOverride returns the callbacks of a phone number.
func (s *MetaSubscriptionService) GetWebhookOverride(ctx context.Context, req *eventrelayv1.GetWebhookOverrideRequest) (*eventrelayv1.WebhookOverride, error) {
	return s.webhookOverride(ctx, req.GetName())
}

func (s *MetaSubscriptionService) webhookOverride(ctx context.Context, name string) (*eventrelayv1.WebhookOverride, error) {
	cred, phone, err := s.about(name)
	if err != nil {
		return nil, err
	}
	override, err := s.graph.GetPhoneOverride(ctx, cred, phone)
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.WebhookOverride{
		Name: name, PhoneNumber: override.PhoneNumber, WhatsappBusinessAccount: override.WABA, Application: override.Application,
	}, nil
}

// SetWebhookOverride sets the callback of a phone number, and returns what Meta has then.
func (s *MetaSubscriptionService) SetWebhookOverride(ctx context.Context, req *eventrelayv1.SetWebhookOverrideRequest) (*eventrelayv1.WebhookOverride, error) {
	cred, phone, err := s.about(req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.graph.SetPhoneOverride(ctx, cred, phone, req.GetOverrideCallbackUri(), req.GetVerifyToken()); err != nil {
		return nil, err
	}
	return s.webhookOverride(ctx, req.GetName())
}

// ClearWebhookOverride clears the callback of a phone number.
func (s *MetaSubscriptionService) ClearWebhookOverride(ctx context.Context, req *eventrelayv1.ClearWebhookOverrideRequest) (*emptypb.Empty, error) {
	cred, phone, err := s.about(req.GetName())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.graph.ClearPhoneOverride(ctx, cred, phone)
}

// ListAppSubscriptions lists what the app is subscribed to, by object.
func (s *MetaSubscriptionService) ListAppSubscriptions(ctx context.Context, req *eventrelayv1.ListAppSubscriptionsRequest) (*eventrelayv1.ListAppSubscriptionsResponse, error) {
	cred, _, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	subscriptions, err := s.graph.ListAppSubscriptions(ctx, cred)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(subscriptions, func(a, b graph.AppSubscription) int { return strings.Compare(a.Object, b.Object) })
	resp := &eventrelayv1.ListAppSubscriptionsResponse{}
	for _, subscription := range subscriptions {
		listed := &eventrelayv1.AppSubscription{Object: subscription.Object, CallbackUrl: subscription.CallbackURL, Active: subscription.Active}
		for _, field := range subscription.Fields {
			listed.Fields = append(listed.Fields, &eventrelayv1.SubscribedField{Name: field.Name, Version: field.Version})
		}
		resp.AppSubscriptions = append(resp.AppSubscriptions, listed)
	}
	return resp, nil
}

// CreateAppSubscription subscribes the app to fields of an object.
func (s *MetaSubscriptionService) CreateAppSubscription(ctx context.Context, req *eventrelayv1.CreateAppSubscriptionRequest) (*eventrelayv1.CreateAppSubscriptionResponse, error) {
	cred, _, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	err = s.graph.CreateAppSubscription(ctx, cred, req.GetObject(), req.GetCallbackUrl(), req.GetVerifyToken(), req.GetFields(), req.GetIncludeValues())
	return &eventrelayv1.CreateAppSubscriptionResponse{}, err
}

// DeleteAppSubscription ends the subscription of an object or of some of its fields.
func (s *MetaSubscriptionService) DeleteAppSubscription(ctx context.Context, req *eventrelayv1.DeleteAppSubscriptionRequest) (*emptypb.Empty, error) {
	cred, _, err := s.about(req.GetParent())
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, some := range req.GetFields() { // in a URL a list is as often written with commas
		fields = append(fields, strings.Split(some, ",")...)
	}
	return &emptypb.Empty{}, s.graph.DeleteAppSubscription(ctx, cred, req.GetObject(), fields)
}

// account is the page or Instagram account that a name ends with, with the credentials of its source.
func (s *MetaSubscriptionService) account(name string) (graph.Credentials, graph.Account, error) {
	cred, id, err := s.about(name)
	if err != nil {
		return graph.Credentials{}, graph.Account{}, err
	}
	if strings.Contains(name, "/instagramAccounts/") {
		return cred, graph.InstagramAccount(id), nil
	}
	return cred, graph.Page(id), nil
}

// ListAccountSubscribedApps lists the apps that hear of a page or Instagram account.
func (s *MetaSubscriptionService) ListAccountSubscribedApps(ctx context.Context, req *eventrelayv1.ListAccountSubscribedAppsRequest) (*eventrelayv1.ListAccountSubscribedAppsResponse, error) {
	cred, account, err := s.account(req.GetParent())
	if err != nil {
		return nil, err
	}
	apps, err := s.graph.ListSubscribedApps(ctx, cred, account)
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.ListAccountSubscribedAppsResponse{SubscribedApps: subscribedApps(apps)}, nil
}

// SubscribeAccount subscribes the app to fields of a page or Instagram account.
func (s *MetaSubscriptionService) SubscribeAccount(ctx context.Context, req *eventrelayv1.SubscribeAccountRequest) (*eventrelayv1.SubscribeAccountResponse, error) {
	cred, account, err := s.account(req.GetParent())
	if err != nil {
		return nil, err
	}
	return &eventrelayv1.SubscribeAccountResponse{}, s.graph.Subscribe(ctx, cred, account, req.GetSubscribedFields())
}

// UnsubscribeAccount unsubscribes the app from a page or Instagram account.
func (s *MetaSubscriptionService) UnsubscribeAccount(ctx context.Context, req *eventrelayv1.UnsubscribeAccountRequest) (*emptypb.Empty, error) {
	cred, account, err := s.account(req.GetParent())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.graph.Unsubscribe(ctx, cred, account)
}
