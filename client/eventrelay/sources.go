package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// sourcePage is how many sources are asked for at once.
const sourcePage = 1000

// sources is the commands about sources.
type sources struct {
	Create   createSource   `cmd:"" help:"Create a source."`
	List     listSources    `cmd:"" help:"List the sources."`
	Describe describeSource `cmd:"" help:"Show all that can be read of a source."`
	Update   updateSource   `cmd:"" help:"Change fields of a source."`
	Rotate   rotateSecret   `cmd:"" help:"Begin or end the rotation of a source's app secret."`
	Connect  connectSource  `cmd:"" help:"Set a source up with its provider, in one call. Safe to repeat."`
	Check    checkSource    `cmd:"" help:"Compare what a source declares with what its provider has; exits with 1 if they differ."`
	Delete   deleteSource   `cmd:"" help:"Delete a source. Its events stay."`
}

// listSources prints a line per source.
type listSources struct {
	connection `embed:""`

	JSON bool `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.ListSourcesResponse."`
}

// Run prints all sources, however many pages they are.
func (l *listSources) Run(ctx context.Context, out *output) error {
	all := &eventrelayv1.ListSourcesResponse{}
	err := l.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		return pages(func(token string) (string, error) {
			page, err := c.Sources().ListSources(ctx, &eventrelayv1.ListSourcesRequest{PageSize: sourcePage, PageToken: token})
			all.Sources = append(all.Sources, page.GetSources()...)
			return page.GetNextPageToken(), err
		})
	})
	switch {
	case err != nil:
		return err
	case l.JSON:
		return out.printJSON(all)
	case len(all.GetSources()) == 0:
		out.note("there are no sources; make one with `eventrelay sources create ID --provider meta ...`")
		return nil
	}
	rows := table{}
	rows.row("NAME", "PROVIDER", "STATE", "ORIGIN", "ACCEPTED", "LAST NOTIFICATION")
	for _, s := range all.GetSources() {
		rows.row(s.GetName(), word(s.GetProvider()), state(s), word(s.GetOrigin()),
			strconv.FormatUint(s.GetStats().GetAcceptedNotifications(), 10), when(s.GetStats().GetLastNotificationTime()))
	}
	return rows.print(out.out, "")
}

// pages asks for page after page until there are no more. A server that answers with the token it was asked with would never come to an end.
func pages(next func(token string) (string, error)) error {
	for token := ""; ; {
		following, err := next(token)
		switch {
		case err != nil:
			return err
		case following == "":
			return nil
		case following == token:
			return errors.New("the server's list does not go on: it gives the same page token again")
		}
		token = following
	}
}

// state says whether a source accepts notifications.
func state(s *eventrelayv1.Source) string {
	if s.GetPaused() {
		return "paused"
	}
	return "active"
}

// describeSource prints a source.
type describeSource struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The source."`
	JSON bool   `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.Source."`
}

// Run prints the source.
func (d *describeSource) Run(ctx context.Context, out *output) error {
	name, err := resource(d.ID)
	if err != nil {
		return err
	}
	var source *eventrelayv1.Source
	err = d.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		source, err = c.Sources().GetSource(ctx, &eventrelayv1.GetSourceRequest{Name: name})
		return err
	})
	if err != nil {
		return err
	}
	return out.source(source, d.JSON)
}

// source prints a source, as it is after a call.
func (o *output) source(s *eventrelayv1.Source, json bool) error {
	if json {
		return o.printJSON(s)
	}
	head := table{}
	head.row("name:", s.GetName())
	head.row("provider:", word(s.GetProvider()))
	head.row("display name:", s.GetDisplayName())
	head.row("labels:", pairs(s.GetLabels()))
	head.row("state:", state(s))
	head.row("origin:", word(s.GetOrigin()))
	head.row("webhook path:", s.GetWebhookPath())
	switch s.GetProvider() {
	case eventrelayv1.Provider_PROVIDER_META:
		head.row("app id:", s.GetAppId())
		head.row("client certificate:", map[bool]string{true: "required", false: "not required"}[s.GetRequireClientCertificate()])
	case eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER:
		head.row("partner id:", s.GetPartnerId())
	}
	head.row("created:", when(s.GetCreateTime()))
	head.row("updated:", when(s.GetUpdateTime()))
	head.row("etag:", s.GetEtag())
	if err := head.print(o.out, ""); err != nil {
		return err
	}
	if err := o.secretUses(s.GetSecretUses()); err != nil {
		return err
	}
	if err := o.stats(s.GetStats()); err != nil {
		return err
	}
	return o.declared(s.GetSubscriptions())
}

// secretUses prints which credentials are set, and when each was last of use.
func (o *output) secretUses(uses []*eventrelayv1.SecretUse) error {
	if len(uses) == 0 {
		return nil
	}
	rows := table{}
	rows.row("SECRET", "LAST USED")
	for _, use := range uses {
		rows.row(use.GetField(), cmp.Or(when(use.GetLastUsedTime()), "never"))
	}
	return o.section("secrets", rows)
}

// stats prints what has come in.
func (o *output) stats(s *eventrelayv1.SourceStats) error {
	if s == nil {
		return nil
	}
	rows := table{}
	rows.row("accepted:", strconv.FormatUint(s.GetAcceptedNotifications(), 10))
	rows.row("refused:", cmp.Or(pairs(s.GetRefusedNotifications()), "0"))
	rows.row("last accepted:", when(s.GetLastNotificationTime()))
	rows.row("events:", strconv.FormatUint(s.GetEvents(), 10))
	rows.row("duplicate events:", strconv.FormatUint(s.GetDuplicateEvents(), 10))
	return o.section("notifications since "+cmp.Or(when(s.GetSinceTime()), "the server's start"), rows)
}

// declared prints what the provider should have subscribed.
func (o *output) declared(s *eventrelayv1.SourceSubscriptions) error {
	if s == nil {
		return nil
	}
	rows := table{}
	rows.row("public address:", s.GetPublicBaseUrl())
	for _, object := range s.GetObjects() {
		fields := strings.Join(object.GetFields(), ",")
		if object.IncludeValues != nil && !object.GetIncludeValues() {
			fields += " (names only)"
		}
		rows.row("object "+object.GetObject()+":", fields)
	}
	for _, account := range s.GetWhatsappBusinessAccounts() {
		rows.row("account "+account.GetId()+":", cmp.Or(account.GetOverrideCallbackUri(), "no override"))
	}
	return o.section("declared subscriptions", rows)
}

// section prints a table below a heading.
func (o *output) section(heading string, rows table) error {
	if _, err := fmt.Fprintf(o.out, "\n%s:\n", visible(heading)); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return rows.print(o.out, "  ")
}
