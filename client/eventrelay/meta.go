package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// onSource is the flags of every command that has the server call a provider with the credentials of a source.
type onSource struct {
	connection `embed:""`

	Source string `arg:"" help:"The source whose credentials are used."`
	JSON   bool   `name:"json" help:"Print the answer as one JSON object with the fields of its proto message."`
}

// ask makes a call about what stands below the source, such as `/phoneNumbers/5`, and prints the answer: as JSON if that is asked for, else by show.
func ask[M proto.Message](ctx context.Context, out *output, s *onSource, below string, call func(context.Context, *client.Client, string) (M, error), show func(M) error) error {
	name, err := resource(s.Source)
	if err != nil {
		return err
	}
	var answer M
	err = s.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		answer, err = call(ctx, c, name+below)
		return err
	})
	switch {
	case err != nil:
		return err
	case s.JSON:
		return out.printJSON(answer)
	default:
		return show(answer)
	}
}

// says makes what shows an answer that says nothing but that it is done.
func says[M proto.Message](out *output, format string, args ...any) func(M) error {
	return func(M) error { return out.print(format, args...) }
}

// metaSubscriptions is the commands about Meta's own subscriptions, each one call.
type metaSubscriptions struct {
	WABA struct {
		List          listWABA          `cmd:"" help:"List the apps that the account sends notifications to."`
		Subscribe     subscribeWABA     `cmd:"" help:"Subscribe the app to the account, without an override. Refused where that would clear one."`
		Unsubscribe   unsubscribeWABA   `cmd:"" help:"Unsubscribe the app from the account."`
		Override      overrideWABA      `cmd:"" help:"Subscribe the app, and set the callback that the account's messages go to instead of the app's own."`
		ClearOverride clearWABAOverride `cmd:"" help:"Clear the override: messages go to the app's own callback again."`
	} `cmd:"" name:"waba" help:"A WhatsApp business account's subscribed apps and override."`
	Phone struct {
		Get   getPhone   `cmd:"" help:"Show the callbacks that the number's notifications can go to."`
		Set   setPhone   `cmd:"" help:"Set the number's own callback."`
		Clear clearPhone `cmd:"" help:"Clear the number's own callback."`
	} `cmd:"" help:"The callback of a phone number."`
	App struct {
		List   listApp   `cmd:"" help:"List what the app is subscribed to."`
		Create createApp `cmd:"" help:"Subscribe the app to fields of an object, or to more of them."`
		Delete deleteApp `cmd:"" help:"End the subscription of an object, or of some of its fields."`
	} `cmd:"" help:"The app's own subscriptions, by object."`
	Page struct {
		List        listPage        `cmd:"" help:"List the apps that the page or account sends notifications to."`
		Subscribe   subscribePage   `cmd:"" help:"Subscribe the app to fields of the page or account."`
		Unsubscribe unsubscribePage `cmd:"" help:"Unsubscribe the app from the page or account."`
	} `cmd:"" help:"The subscribed apps of a page or an Instagram account."`
}

// waba is a WhatsApp business account as an argument.
type waba struct {
	onSource `embed:""`

	Account string `arg:"" help:"The id of the WhatsApp business account."`
}

func (w *waba) below() string { return "/whatsappBusinessAccounts/" + w.Account }

// callback is a callback and the token of its handshake, as flags.
type callback struct {
	URL         string `name:"url" required:"" placeholder:"URL" help:"The callback, https. Meta sends its handshake to it during the call."`
	VerifyToken secret `required:"" placeholder:"SECRET" help:"The token that Meta shows in that handshake. ${secret}."`
}

type listWABA struct {
	waba `embed:""`
}

// Run prints the subscribed apps.
func (l *listWABA) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &l.onSource, l.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse, error) {
		return c.MetaSubscriptions().ListWhatsAppBusinessAccountSubscribedApps(ctx, &eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsRequest{Parent: parent})
	}, func(answer *eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse) error {
		rows := table{}
		rows.row("APP", "NAME", "LINK", "OVERRIDE")
		for _, app := range answer.GetSubscribedApps() {
			rows.row(app.GetId(), app.GetName(), app.GetLink(), app.GetOverrideCallbackUri())
		}
		return rows.print(out.out, "")
	})
}

type subscribeWABA struct {
	waba `embed:""`
}

// Run subscribes the app.
func (s *subscribeWABA) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &s.onSource, s.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.SubscribeWhatsAppBusinessAccountResponse, error) {
		return c.MetaSubscriptions().SubscribeWhatsAppBusinessAccount(ctx, &eventrelayv1.SubscribeWhatsAppBusinessAccountRequest{Parent: parent})
	}, says[*eventrelayv1.SubscribeWhatsAppBusinessAccountResponse](out, "subscribed to account %s", s.Account))
}

type overrideWABA struct {
	waba     `embed:""`
	callback `embed:""`
}

// Run subscribes the app with an override.
func (o *overrideWABA) Run(ctx context.Context, out *output) error {
	token, err := o.VerifyToken.read(ctx, "--verify-token", out)
	if err != nil {
		return err
	}
	return ask(ctx, out, &o.onSource, o.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.SubscribeWhatsAppBusinessAccountResponse, error) {
		return c.MetaSubscriptions().SubscribeWhatsAppBusinessAccount(ctx, &eventrelayv1.SubscribeWhatsAppBusinessAccountRequest{
			Parent: parent, OverrideCallbackUri: o.URL, VerifyToken: token,
		})
	}, says[*eventrelayv1.SubscribeWhatsAppBusinessAccountResponse](out, "subscribed to account %s, whose messages go to %s", o.Account, o.URL))
}

type clearWABAOverride struct {
	waba `embed:""`
}

// Run clears the override.
func (o *clearWABAOverride) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &o.onSource, o.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.ClearWhatsAppBusinessAccountOverrideResponse, error) {
		return c.MetaSubscriptions().ClearWhatsAppBusinessAccountOverride(ctx, &eventrelayv1.ClearWhatsAppBusinessAccountOverrideRequest{Parent: parent})
	}, says[*eventrelayv1.ClearWhatsAppBusinessAccountOverrideResponse](out, "account %s has no override", o.Account))
}

type unsubscribeWABA struct {
	waba `embed:""`
}

// Run unsubscribes the app.
func (u *unsubscribeWABA) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &u.onSource, u.below(), func(ctx context.Context, c *client.Client, parent string) (*emptypb.Empty, error) {
		return c.MetaSubscriptions().UnsubscribeWhatsAppBusinessAccount(ctx, &eventrelayv1.UnsubscribeWhatsAppBusinessAccountRequest{Parent: parent})
	}, says[*emptypb.Empty](out, "unsubscribed from account %s", u.Account))
}

// phone is a phone number as an argument.
type phone struct {
	onSource `embed:""`

	Number string `arg:"" help:"The id of the phone number."`
}

func (p *phone) below() string { return "/phoneNumbers/" + p.Number }

// show prints where a number's notifications can go, the most specific first.
func (p *phone) show(out *output) func(*eventrelayv1.WebhookOverride) error {
	return func(answer *eventrelayv1.WebhookOverride) error {
		rows := table{}
		rows.row("phone number:", answer.GetPhoneNumber())
		rows.row("account:", answer.GetWhatsappBusinessAccount())
		rows.row("app:", answer.GetApplication())
		return rows.print(out.out, "")
	}
}

type getPhone struct {
	phone `embed:""`
}

// Run prints the callbacks.
func (g *getPhone) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &g.onSource, g.below(), func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.WebhookOverride, error) {
		return c.MetaSubscriptions().GetWebhookOverride(ctx, &eventrelayv1.GetWebhookOverrideRequest{Name: name})
	}, g.show(out))
}

type setPhone struct {
	phone    `embed:""`
	callback `embed:""`
}

// Run sets the number's callback.
func (s *setPhone) Run(ctx context.Context, out *output) error {
	token, err := s.VerifyToken.read(ctx, "--verify-token", out)
	if err != nil {
		return err
	}
	return ask(ctx, out, &s.onSource, s.below(), func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.WebhookOverride, error) {
		return c.MetaSubscriptions().SetWebhookOverride(ctx, &eventrelayv1.SetWebhookOverrideRequest{Name: name, OverrideCallbackUri: s.URL, VerifyToken: token})
	}, s.show(out))
}

type clearPhone struct {
	phone `embed:""`
}

// Run clears the number's callback.
func (p *clearPhone) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &p.onSource, p.below(), func(ctx context.Context, c *client.Client, name string) (*emptypb.Empty, error) {
		return c.MetaSubscriptions().ClearWebhookOverride(ctx, &eventrelayv1.ClearWebhookOverrideRequest{Name: name})
	}, says[*emptypb.Empty](out, "phone number %s has no callback of its own", p.Number))
}

type listApp struct {
	onSource `embed:""`
}

// Run prints the app's subscriptions.
func (l *listApp) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &l.onSource, "", func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.ListAppSubscriptionsResponse, error) {
		return c.MetaSubscriptions().ListAppSubscriptions(ctx, &eventrelayv1.ListAppSubscriptionsRequest{Parent: parent})
	}, func(answer *eventrelayv1.ListAppSubscriptionsResponse) error {
		rows := table{}
		rows.row("OBJECT", "ACTIVE", "CALLBACK", "FIELDS")
		for _, s := range answer.GetAppSubscriptions() {
			var fields []string
			for _, field := range s.GetFields() {
				fields = append(fields, field.GetName())
			}
			rows.row(s.GetObject(), yesNo(s.GetActive()), s.GetCallbackUrl(), strings.Join(fields, ","))
		}
		return rows.print(out.out, "")
	})
}

type createApp struct {
	onSource `embed:""`

	Object        string   `arg:"" help:"The object, such as whatsapp_business_account, page or instagram."`
	Field         []string `required:"" placeholder:"FIELD,..." help:"The fields to be told about."`
	IncludeValues *bool    `env:"-" negatable:"" help:"Notifications hold the new values. By itself, Meta names what has changed only."`
	callback      `embed:""`
}

// Run subscribes the app to an object.
func (n *createApp) Run(ctx context.Context, out *output) error {
	token, err := n.VerifyToken.read(ctx, "--verify-token", out)
	if err != nil {
		return err
	}
	return ask(ctx, out, &n.onSource, "", func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.CreateAppSubscriptionResponse, error) {
		return c.MetaSubscriptions().CreateAppSubscription(ctx, &eventrelayv1.CreateAppSubscriptionRequest{
			Parent: parent, Object: n.Object, CallbackUrl: n.URL, VerifyToken: token, Fields: n.Field, IncludeValues: n.IncludeValues,
		})
	}, says[*eventrelayv1.CreateAppSubscriptionResponse](out, "the app is subscribed to %s of %s, at %s", strings.Join(n.Field, ","), n.Object, n.URL))
}

type deleteApp struct {
	onSource `embed:""`

	Object string   `arg:"" help:"The object."`
	Field  []string `env:"-" placeholder:"FIELD,..." help:"The fields to end. Without it, all of the object end."`
	Yes    bool     `env:"-" short:"y" help:"Do not ask."`
}

// Run ends a subscription of the app, once somebody has said yes.
func (d *deleteApp) Run(ctx context.Context, out *output) error {
	what := "everything"
	if len(d.Field) > 0 {
		what = strings.Join(d.Field, ",")
	}
	if !d.Yes {
		if err := out.sure(ctx, fmt.Sprintf("End the app's subscription to %s of %s?", what, d.Object)); err != nil {
			return err
		}
	}
	return ask(ctx, out, &d.onSource, "", func(ctx context.Context, c *client.Client, parent string) (*emptypb.Empty, error) {
		return c.MetaSubscriptions().DeleteAppSubscription(ctx, &eventrelayv1.DeleteAppSubscriptionRequest{Parent: parent, Object: d.Object, Fields: d.Field})
	}, says[*emptypb.Empty](out, "the app's subscription to %s of %s has ended", what, d.Object))
}

// page is a page or an Instagram account as an argument.
type page struct {
	onSource `embed:""`

	Account   string `arg:"" help:"The id of the page or Instagram account."`
	Instagram bool   `env:"-" help:"It is an Instagram account."`
}

func (p *page) below() string {
	if p.Instagram {
		return "/instagramAccounts/" + p.Account
	}
	return "/pages/" + p.Account
}

type listPage struct {
	page `embed:""`
}

// Run prints the subscribed apps.
func (l *listPage) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &l.onSource, l.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.ListAccountSubscribedAppsResponse, error) {
		return c.MetaSubscriptions().ListAccountSubscribedApps(ctx, &eventrelayv1.ListAccountSubscribedAppsRequest{Parent: parent})
	}, func(answer *eventrelayv1.ListAccountSubscribedAppsResponse) error {
		rows := table{}
		rows.row("APP", "NAME", "CATEGORY", "FIELDS")
		for _, app := range answer.GetSubscribedApps() {
			rows.row(app.GetId(), app.GetName(), app.GetCategory(), strings.Join(app.GetSubscribedFields(), ","))
		}
		return rows.print(out.out, "")
	})
}

type subscribePage struct {
	page `embed:""`

	Field []string `required:"" placeholder:"FIELD,..." help:"The fields to be told about, such as feed, messages or leadgen."`
}

// Run subscribes the app.
func (s *subscribePage) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &s.onSource, s.below(), func(ctx context.Context, c *client.Client, parent string) (*eventrelayv1.SubscribeAccountResponse, error) {
		return c.MetaSubscriptions().SubscribeAccount(ctx, &eventrelayv1.SubscribeAccountRequest{Parent: parent, SubscribedFields: s.Field})
	}, says[*eventrelayv1.SubscribeAccountResponse](out, "subscribed to %s of %s", strings.Join(s.Field, ","), s.Account))
}

type unsubscribePage struct {
	page `embed:""`
}

// Run unsubscribes the app.
func (u *unsubscribePage) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &u.onSource, u.below(), func(ctx context.Context, c *client.Client, parent string) (*emptypb.Empty, error) {
		return c.MetaSubscriptions().UnsubscribeAccount(ctx, &eventrelayv1.UnsubscribeAccountRequest{Parent: parent})
	}, says[*emptypb.Empty](out, "unsubscribed from %s", u.Account))
}
