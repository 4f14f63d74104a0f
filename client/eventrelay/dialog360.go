package main

import (
	"cmp"
	"context"
	"strings"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// dialog360 is the commands about 360dialog's own webhook settings, each one call.
type dialog360 struct {
	PartnerWebhook struct {
		Get getPartnerWebhook `cmd:"" help:"Show the webhook of the partner account."`
		Set setPartnerWebhook `cmd:"" help:"Set the webhook of the partner account, for all its clients and events."`
	} `cmd:"" help:"The webhook of a partner account."`
	ChannelWebhook struct {
		Get getChannelWebhook `cmd:"" help:"Show the webhook of the number."`
		Set setChannelWebhook `cmd:"" help:"Set the webhook of the number."`
	} `cmd:"" help:"The webhook of a number."`
	WABAWebhook struct {
		Set setWABAWebhook `cmd:"" help:"Set the webhook of all numbers of the account. 360dialog offers no way to read it."`
	} `cmd:"" name:"waba-webhook" help:"The webhook of a WhatsApp business account."`
}

// webhook prints where notifications go, and the names of the headers that are sent along.
func (o *output) webhook(url string, headers []string) error {
	rows := table{}
	rows.row("webhook:", cmp.Or(url, "none"))
	if len(headers) > 0 {
		rows.row("headers:", strings.Join(headers, ", "))
	}
	return rows.print(o.out, "")
}

// target is an address that 360dialog posts to, and what it sends along, as flags.
type target struct {
	URL    string   `name:"url" required:"" placeholder:"URL" help:"Where notifications go: https, no port, no underscore in the host's name."`
	Header []secret `sep:"none" placeholder:"'NAME: VALUE'" help:"A header to send along; may be repeated. ${secret}."`
}

type getPartnerWebhook struct {
	onSource `embed:""`
}

// Run prints the webhook.
func (g *getPartnerWebhook) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &g.onSource, "/partnerWebhook", func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.PartnerWebhook, error) {
		return c.Dialog360().GetPartnerWebhook(ctx, &eventrelayv1.GetPartnerWebhookRequest{Name: name})
	}, func(answer *eventrelayv1.PartnerWebhook) error { return out.webhook(answer.GetWebhookUrl(), nil) })
}

type setPartnerWebhook struct {
	onSource `embed:""`

	URL string `name:"url" required:"" placeholder:"URL" help:"Where partner events go, https."`
}

// Run sets the webhook.
func (s *setPartnerWebhook) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &s.onSource, "/partnerWebhook", func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.PartnerWebhook, error) {
		return c.Dialog360().SetPartnerWebhook(ctx, &eventrelayv1.SetPartnerWebhookRequest{Name: name, WebhookUrl: s.URL})
	}, func(answer *eventrelayv1.PartnerWebhook) error { return out.webhook(answer.GetWebhookUrl(), nil) })
}

type getChannelWebhook struct {
	onSource `embed:""`
}

// Run prints the webhook.
func (g *getChannelWebhook) Run(ctx context.Context, out *output) error {
	return ask(ctx, out, &g.onSource, "/channelWebhook", func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.ChannelWebhook, error) {
		return c.Dialog360().GetChannelWebhook(ctx, &eventrelayv1.GetChannelWebhookRequest{Name: name})
	}, func(answer *eventrelayv1.ChannelWebhook) error {
		return out.webhook(answer.GetUrl(), answer.GetHeaderNames())
	})
}

type setChannelWebhook struct {
	onSource `embed:""`
	target   `embed:""`
}

// Run sets the webhook.
func (s *setChannelWebhook) Run(ctx context.Context, out *output) error {
	headers, err := readHeaders(ctx, s.Header, out)
	if err != nil {
		return err
	}
	return ask(ctx, out, &s.onSource, "/channelWebhook", func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.ChannelWebhook, error) {
		return c.Dialog360().SetChannelWebhook(ctx, &eventrelayv1.SetChannelWebhookRequest{Name: name, Url: s.URL, Headers: headers})
	}, func(answer *eventrelayv1.ChannelWebhook) error {
		return out.webhook(answer.GetUrl(), answer.GetHeaderNames())
	})
}

type setWABAWebhook struct {
	onSource `embed:""`
	target   `embed:""`

	OverrideAll bool `env:"-" help:"Numbers that have a webhook of their own lose it. Otherwise they keep it."`
}

// Run sets the webhook.
func (s *setWABAWebhook) Run(ctx context.Context, out *output) error {
	headers, err := readHeaders(ctx, s.Header, out)
	if err != nil {
		return err
	}
	return ask(ctx, out, &s.onSource, "/wabaWebhook", func(ctx context.Context, c *client.Client, name string) (*eventrelayv1.SetWabaWebhookResponse, error) {
		return c.Dialog360().SetWabaWebhook(ctx, &eventrelayv1.SetWabaWebhookRequest{Name: name, Url: s.URL, Headers: headers, OverrideAll: s.OverrideAll})
	}, func(answer *eventrelayv1.SetWabaWebhookResponse) error {
		return out.webhook(answer.GetUrl(), answer.GetHeaderNames())
	})
}
