package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func TestEachProviderCommandIsOneCall(t *testing.T) {
	const waba, callback = "sources/shop/whatsappBusinessAccounts/100", "https://o.example.com/x"
	override := &eventrelayv1.WebhookOverride{Name: "sources/shop/phoneNumbers/5", PhoneNumber: callback, Application: "https://hooks.example.com/webhooks/shop"}
	apps := []*eventrelayv1.SubscribedApp{{Id: "7", Name: "The app", Link: "https://app.example.com", OverrideCallbackUri: callback, Category: "Business", SubscribedFields: []string{"feed", "messages"}}}
	var printed strings.Builder
	for _, c := range []struct {
		args   string
		want   proto.Message
		answer proto.Message
	}{
		{
			"meta waba list shop 100", &eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsRequest{Parent: waba},
			&eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse{SubscribedApps: apps},
		},
		{"meta waba subscribe shop 100", &eventrelayv1.SubscribeWhatsAppBusinessAccountRequest{Parent: waba}, &eventrelayv1.SubscribeWhatsAppBusinessAccountResponse{}},
		{"meta waba unsubscribe sources/shop 100", &eventrelayv1.UnsubscribeWhatsAppBusinessAccountRequest{Parent: waba}, &emptypb.Empty{}},
		{
			"meta waba override shop 100 --url " + callback + " --verify-token -",
			&eventrelayv1.SubscribeWhatsAppBusinessAccountRequest{Parent: waba, OverrideCallbackUri: callback, VerifyToken: hush}, &eventrelayv1.SubscribeWhatsAppBusinessAccountResponse{},
		},
		{"meta waba clear-override shop 100", &eventrelayv1.ClearWhatsAppBusinessAccountOverrideRequest{Parent: waba}, &eventrelayv1.ClearWhatsAppBusinessAccountOverrideResponse{}},
		{"meta phone get shop 5", &eventrelayv1.GetWebhookOverrideRequest{Name: override.GetName()}, override},
		{
			"meta phone set shop 5 --url " + callback + " --verify-token -",
			&eventrelayv1.SetWebhookOverrideRequest{Name: override.GetName(), OverrideCallbackUri: callback, VerifyToken: hush}, override,
		},
		{"meta phone clear shop 5", &eventrelayv1.ClearWebhookOverrideRequest{Name: override.GetName()}, &emptypb.Empty{}},
		{
			"meta app list shop", &eventrelayv1.ListAppSubscriptionsRequest{Parent: "sources/shop"},
			&eventrelayv1.ListAppSubscriptionsResponse{AppSubscriptions: []*eventrelayv1.AppSubscription{
				{Object: "page", Active: true, CallbackUrl: callback, Fields: []*eventrelayv1.SubscribedField{{Name: "feed", Version: "v24.0"}, {Name: "messages"}}},
				{Object: "user"},
			}},
		},
		{
			"meta app create shop page --url " + callback + " --verify-token - --field feed,messages --field leadgen --include-values",
			&eventrelayv1.CreateAppSubscriptionRequest{
				Parent: "sources/shop", Object: "page", CallbackUrl: callback, VerifyToken: hush, Fields: []string{"feed", "messages", "leadgen"}, IncludeValues: new(true),
			},
			&eventrelayv1.CreateAppSubscriptionResponse{},
		},
		{
			"meta app create shop page --url " + callback + " --verify-token - --field feed",
			&eventrelayv1.CreateAppSubscriptionRequest{Parent: "sources/shop", Object: "page", CallbackUrl: callback, VerifyToken: hush, Fields: []string{"feed"}},
			&eventrelayv1.CreateAppSubscriptionResponse{},
		},
		{"meta app delete shop page --yes", &eventrelayv1.DeleteAppSubscriptionRequest{Parent: "sources/shop", Object: "page"}, &emptypb.Empty{}},
		{
			"meta app delete shop page --field feed,messages -y",
			&eventrelayv1.DeleteAppSubscriptionRequest{Parent: "sources/shop", Object: "page", Fields: []string{"feed", "messages"}}, &emptypb.Empty{},
		},
		{
			"meta page list shop 9", &eventrelayv1.ListAccountSubscribedAppsRequest{Parent: "sources/shop/pages/9"},
			&eventrelayv1.ListAccountSubscribedAppsResponse{SubscribedApps: apps},
		},
		{
			"meta page subscribe shop 9 --instagram --field comments",
			&eventrelayv1.SubscribeAccountRequest{Parent: "sources/shop/instagramAccounts/9", SubscribedFields: []string{"comments"}}, &eventrelayv1.SubscribeAccountResponse{},
		},
		{"meta page unsubscribe shop 9", &eventrelayv1.UnsubscribeAccountRequest{Parent: "sources/shop/pages/9"}, &emptypb.Empty{}},
		{
			"dialog360 partner-webhook get shop", &eventrelayv1.GetPartnerWebhookRequest{Name: "sources/shop/partnerWebhook"},
			&eventrelayv1.PartnerWebhook{Name: "sources/shop/partnerWebhook"},
		},
		{
			"dialog360 partner-webhook set shop --url " + callback, &eventrelayv1.SetPartnerWebhookRequest{Name: "sources/shop/partnerWebhook", WebhookUrl: callback},
			&eventrelayv1.PartnerWebhook{WebhookUrl: callback},
		},
		{
			"dialog360 channel-webhook get shop", &eventrelayv1.GetChannelWebhookRequest{Name: "sources/shop/channelWebhook"},
			&eventrelayv1.ChannelWebhook{Url: callback, HeaderNames: []string{"Authorization"}},
		},
		{
			"dialog360 channel-webhook set shop --header - --url " + callback,
			&eventrelayv1.SetChannelWebhookRequest{Name: "sources/shop/channelWebhook", Url: callback, Headers: map[string]string{"Authorization": hush}},
			&eventrelayv1.ChannelWebhook{Url: callback, HeaderNames: []string{"Authorization"}},
		},
		{
			"dialog360 waba-webhook set shop --override-all --header - --url " + callback,
			&eventrelayv1.SetWabaWebhookRequest{Name: "sources/shop/wabaWebhook", Url: callback, Headers: map[string]string{"Authorization": hush}, OverrideAll: true},
			&eventrelayv1.SetWabaWebhookResponse{Url: callback, HeaderNames: []string{"Authorization"}},
		},
	} {
		t.Run(c.args, func(t *testing.T) {
			input := hush
			if strings.Contains(c.args, "--header") {
				input = "Authorization: " + hush
			}
			d := answers(c.answer)
			got := d.askWith(t, strings.NewReader(input), strings.Fields(c.args)...)
			if got.code != exitDone || got.err != "" {
				t.Fatalf("exit %d: %s", got.code, got.err)
			}
			d.wants(t, c.want)
			printed.WriteString("$ " + c.args + "\n" + got.out)
		})
	}
	golden(t, "providers.golden", printed.String())
	if strings.Contains(printed.String(), hush) {
		t.Error("a secret is shown")
	}
}
