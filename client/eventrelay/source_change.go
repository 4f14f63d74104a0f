package main

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// updateSource changes the fields whose flags are given, and no others. None of those flags is read from the environment: what is left there of another command would
// change this source too.
type updateSource struct {
	connection `embed:""`

	ID                       string   `arg:"" name:"id" help:"The source."`
	DisplayName              *string  `env:"-" placeholder:"TEXT" help:"A name for people; an empty one removes it."`
	Label                    []string `env:"-" sep:"none" placeholder:"KEY=VALUE" help:"Add or change a label; may be repeated."`
	RemoveLabel              []string `env:"-" sep:"none" placeholder:"KEY" help:"Remove a label; may be repeated."`
	Pause                    bool     `env:"-" xor:"paused" help:"Refuse notifications for the time being; the provider sends them again later."`
	Resume                   bool     `env:"-" xor:"paused" help:"Accept notifications again."`
	AppID                    *string  `env:"-" name:"app-id" placeholder:"ID" help:"Meta: the app's id."`
	VerifyToken              *secret  `env:"-" placeholder:"SECRET" help:"Meta: the token of the handshake. ${secret}."`
	AccessToken              *secret  `env:"-" placeholder:"SECRET" help:"Meta: the access token that calls about accounts, numbers and pages are made with. ${secret}."`
	RequireClientCertificate *bool    `env:"-" negatable:"" help:"Meta: ask for Meta's client certificate too."`
	PartnerID                *string  `env:"-" name:"partner-id" placeholder:"ID" help:"360dialog partner: the partner's id."`
	PartnerAPIKey            *secret  `env:"-" name:"partner-api-key" placeholder:"SECRET" help:"360dialog partner: the API key. ${secret}."`
	Header                   []secret `env:"-" sep:"none" placeholder:"'NAME: VALUE'" help:"360dialog channel: the headers that every notification must carry, in place of those before; may be repeated. ${secret}."`
	ChannelAPIKey            *secret  `env:"-" name:"channel-api-key" placeholder:"SECRET" help:"360dialog channel: the number's API key. ${secret}."`
	PublicURL                string   `env:"-" name:"public-url" placeholder:"URL" help:"Declare another public address of the webhook port."`
	Object                   []string `env:"-" sep:"none" placeholder:"OBJECT=FIELD,..." help:"Meta: the objects and fields to declare, in place of those before; may be repeated."`
	NamesOnly                bool     `env:"-" help:"Meta: with --object, notifications name what has changed and leave the new values out."`
	WABA                     []string `env:"-" name:"waba" sep:"none" placeholder:"ID[=URL]" help:"Meta: the WhatsApp business accounts to declare, in place of those before; may be repeated."`
	Undeclare                bool     `env:"-" help:"Declare nothing any more. What the provider has stays as it is."`
	Etag                     string   `env:"-" placeholder:"ETAG" help:"Change the source only while this is its etag, as told by describe."`
	JSON                     bool     `name:"json" help:"Print the source as one JSON object with the fields of eventrelay.v1.Source."`
}

// Run changes the source and prints it. Where a part of a field changes, the rest is read first, and the change is refused if somebody else is faster.
func (u *updateSource) Run(ctx context.Context, out *output) error {
	name, err := resource(u.ID)
	if err != nil {
		return err
	}
	change := &eventrelayv1.Source{Name: name, Etag: u.Etag}
	mask, err := u.fields(ctx, change, out)
	if err != nil {
		return err
	}
	labels, wishes := len(u.Label)+len(u.RemoveLabel) > 0, u.PublicURL != "" || len(u.Object)+len(u.WABA) > 0
	switch {
	case u.Undeclare && wishes:
		return usagef("--undeclare contradicts --public-url, --object and --waba: give one or the others")
	case u.NamesOnly && len(u.Object) == 0:
		return usagef("--names-only is about --object: give that too")
	case len(mask) == 0 && !labels && !wishes && !u.Undeclare:
		return usagef("nothing to change: give a flag such as --display-name TEXT, --label KEY=VALUE, --pause or --resume")
	}
	if u.Undeclare {
		mask = append(mask, "subscriptions")
	}
	var updated *eventrelayv1.Source
	err = u.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		if labels || wishes {
			before, err := c.Sources().GetSource(ctx, &eventrelayv1.GetSourceRequest{Name: name})
			if err != nil {
				return err
			}
			if u.Etag == "" {
				change.Etag = before.GetEtag()
			}
			if mask, err = u.parts(change, before, mask); err != nil {
				return err
			}
		}
		updated, err = c.Sources().UpdateSource(ctx, &eventrelayv1.UpdateSourceRequest{Source: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}})
		return err
	})
	if err != nil {
		return err
	}
	return out.source(updated, u.JSON)
}

// fields puts the fields that change as a whole into change, and gives their names.
func (u *updateSource) fields(ctx context.Context, change *eventrelayv1.Source, out *output) (mask []string, err error) {
	for _, field := range []struct {
		name  string
		given *string
		to    *string
	}{
		{"display_name", u.DisplayName, &change.DisplayName},
		{"app_id", u.AppID, &change.AppId},
		{"partner_id", u.PartnerID, &change.PartnerId},
	} {
		if field.given != nil {
			*field.to, mask = *field.given, append(mask, field.name)
		}
	}
	for _, field := range []struct {
		name, flag string
		given      *secret
		to         *string
	}{
		{"verify_token", "--verify-token", u.VerifyToken, &change.VerifyToken},
		{"access_token", "--access-token", u.AccessToken, &change.AccessToken},
		{"partner_api_key", "--partner-api-key", u.PartnerAPIKey, &change.PartnerApiKey},
		{"channel_api_key", "--channel-api-key", u.ChannelAPIKey, &change.ChannelApiKey},
	} {
		if field.given == nil {
			continue
		}
		if *field.to, err = field.given.read(ctx, field.flag, out); err != nil {
			return nil, err
		}
		mask = append(mask, field.name)
	}
	if len(u.Header) > 0 {
		if change.Headers, err = readHeaders(ctx, u.Header, out); err != nil {
			return nil, err
		}
		mask = append(mask, "headers")
	}
	if u.Pause || u.Resume {
		change.Paused, mask = u.Pause, append(mask, "paused")
	}
	if u.RequireClientCertificate != nil {
		change.RequireClientCertificate, mask = *u.RequireClientCertificate, append(mask, "require_client_certificate")
	}
	return mask, nil
}

// parts puts the fields of which a part changes into change, and adds their names to the mask.
func (u *updateSource) parts(change, before *eventrelayv1.Source, mask []string) ([]string, error) {
	if len(u.Label)+len(u.RemoveLabel) > 0 {
		labels, err := keyValues("--label", u.Label)
		if err != nil {
			return nil, err
		}
		for key, value := range before.GetLabels() {
			if _, changed := labels[key]; !changed && !slices.Contains(u.RemoveLabel, key) {
				labels[key] = value
			}
		}
		change.Labels, mask = labels, append(mask, "labels")
	}
	if u.PublicURL != "" || len(u.Object)+len(u.WABA) > 0 {
		kept := &eventrelayv1.SourceSubscriptions{PublicBaseUrl: before.GetSubscriptions().GetPublicBaseUrl()}
		if len(u.Object) == 0 {
			kept.Objects = before.GetSubscriptions().GetObjects()
		}
		if len(u.WABA) == 0 {
			kept.WhatsappBusinessAccounts = before.GetSubscriptions().GetWhatsappBusinessAccounts()
		}
		declared, err := (&wish{PublicURL: u.PublicURL, Object: u.Object, NamesOnly: u.NamesOnly, WABA: u.WABA}).declare(kept)
		if err != nil {
			return nil, err
		}
		change.Subscriptions, mask = declared, append(mask, "subscriptions")
	}
	return mask, nil
}

// rotateSecret begins or ends a rotation.
type rotateSecret struct {
	connection `embed:""`

	ID        string `arg:"" name:"id" help:"The source."`
	AppSecret secret `placeholder:"SECRET" help:"The new app secret, valid at once; the one before it stays valid until --end. ${secret}."`
	End       bool   `env:"-" help:"End the rotation: only the newest secret stays valid."`
	Etag      string `env:"-" placeholder:"ETAG" help:"Rotate only while this is the source's etag, as told by describe."`
	JSON      bool   `name:"json" help:"Print the source as one JSON object with the fields of eventrelay.v1.Source."`
}

// Run rotates the secret and prints the source, which tells when each of its secrets was used last.
func (r *rotateSecret) Run(ctx context.Context, out *output) error {
	name, err := resource(r.ID)
	if err != nil {
		return err
	}
	request := &eventrelayv1.RotateSecretRequest{Name: name, Etag: r.Etag}
	switch {
	case r.End && r.AppSecret != "":
		return usagef("--end takes no secret: leave --app-secret and EVENTRELAY_APP_SECRET away")
	case r.End:
	case r.AppSecret == "":
		return usagef("--app-secret is missing: give the new secret by @FILE, - for standard input or EVENTRELAY_APP_SECRET; or --end to end the rotation")
	default:
		if request.AppSecret, err = r.AppSecret.read(ctx, "--app-secret", out); err != nil {
			return err
		}
	}
	var rotated *eventrelayv1.Source
	err = r.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		rotated, err = c.Sources().RotateSecret(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	if !r.End {
		out.note("both secrets are accepted now. Change it at the provider, wait until `describe` shows the new one in use, then `eventrelay sources rotate %s --end`", r.ID)
	}
	return out.source(rotated, r.JSON)
}

// deleteSource deletes a source.
type deleteSource struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The source."`
	Etag string `env:"-" placeholder:"ETAG" help:"Delete the source only while this is its etag, as told by describe."`
	Yes  bool   `env:"-" short:"y" help:"Do not ask."`
}

// Run deletes the source, once somebody has said yes.
func (d *deleteSource) Run(ctx context.Context, out *output) error {
	name, err := resource(d.ID)
	if err != nil {
		return err
	}
	if !d.Yes {
		if err := out.sure(ctx, fmt.Sprintf("Delete %s of %s? Its webhook is answered 404 from then on.", name, d.Server)); err != nil {
			return err
		}
	}
	err = d.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		_, err := c.Sources().DeleteSource(ctx, &eventrelayv1.DeleteSourceRequest{Name: name, Etag: d.Etag})
		return err
	})
	if err != nil {
		return err
	}
	return out.print("deleted %s", name)
}
