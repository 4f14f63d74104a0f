package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// createSource makes a source of a file, of flags, or of both: a file without secrets can be kept with other configuration.
type createSource struct {
	connection `embed:""`

	ID   string `arg:"" optional:"" name:"id" help:"The id of the new source: its webhook is at /webhooks/ID. Not needed if --file has a name."`
	File string `type:"existingfile" placeholder:"FILE" help:"Take the source from this YAML file, - for standard input: the fields of eventrelay.v1.Source, as in an entry of the server's sources file. Flags go before it."`

	Provider                 string   `enum:",meta,dialog360-partner,dialog360-channel" default:"" placeholder:"NAME" help:"Who posts: meta, dialog360-partner or dialog360-channel."`
	DisplayName              string   `placeholder:"TEXT" help:"A name for people."`
	Label                    []string `sep:"none" placeholder:"KEY=VALUE" help:"A label; may be repeated."`
	Paused                   bool     `help:"Refuse notifications for the time being; the provider sends them again later."`
	AppID                    string   `name:"app-id" placeholder:"ID" help:"Meta: the app's id."`
	AppSecret                []secret `sep:"none" placeholder:"SECRET" help:"Meta: the app secret. 360dialog partner: the platform secret. Twice while a rotation overlaps. ${secret}."`
	VerifyToken              secret   `placeholder:"SECRET" help:"Meta: the token of the handshake. If absent, one is made. ${secret}."`
	AccessToken              secret   `placeholder:"SECRET" help:"Meta: the access token that calls about accounts, numbers and pages are made with. ${secret}."`
	RequireClientCertificate bool     `help:"Meta: ask for Meta's client certificate too."`
	PartnerID                string   `name:"partner-id" placeholder:"ID" help:"360dialog partner: the partner's id."`
	PartnerAPIKey            secret   `name:"partner-api-key" placeholder:"SECRET" help:"360dialog partner: the API key. ${secret}."`
	Header                   []secret `sep:"none" placeholder:"'NAME: VALUE'" help:"360dialog channel: a header that every notification must carry; may be repeated. ${secret}."`
	ChannelAPIKey            secret   `name:"channel-api-key" placeholder:"SECRET" help:"360dialog channel: the number's API key. ${secret}."`
	wish                     `embed:""`

	JSON bool `name:"json" help:"Print the source as one JSON object with the fields of eventrelay.v1.Source."`
}

// Run creates the source and prints it. A verify token that was made here is told once, beside the results.
func (n *createSource) Run(ctx context.Context, out *output) error {
	source := &eventrelayv1.Source{}
	if n.File != "" {
		if err := readSource(ctx, n.File, source, out); err != nil {
			return err
		}
	}
	if err := n.apply(ctx, source, out); err != nil {
		return err
	}
	name, err := resource(cmp.Or(n.ID, source.GetName()))
	switch {
	case n.ID == "" && source.GetName() == "":
		return usagef("the id of the new source is missing: `eventrelay sources create ID --provider meta ...`")
	case err != nil:
		return err
	case n.ID != "" && source.GetName() != "" && source.GetName() != name:
		return usagef("--file is about %s, not %s: leave one of the two away", source.GetName(), name)
	case source.GetProvider() == eventrelayv1.Provider_PROVIDER_UNSPECIFIED:
		return usagef("--provider is missing: give meta, dialog360-partner or dialog360-channel")
	}
	source.Name = name
	made := ""
	if source.GetProvider() == eventrelayv1.Provider_PROVIDER_META && source.GetVerifyToken() == "" {
		made = rand.Text()
		source.VerifyToken = made
	}
	var created *eventrelayv1.Source
	err = n.call(ctx, callTimeout, func(ctx context.Context, c *client.Client) error {
		created, err = c.Sources().CreateSource(ctx, &eventrelayv1.CreateSourceRequest{SourceId: strings.TrimPrefix(name, "sources/"), Source: source})
		return err
	})
	if err != nil {
		return err
	}
	if made != "" {
		out.note("the verify token is %s; it is not shown again. `sources connect` gives it to Meta by itself: keep it only if you enter the callback in Meta's app dashboard by hand", made)
	}
	return out.source(created, n.JSON)
}

// apply puts what the flags say into the source.
func (n *createSource) apply(ctx context.Context, source *eventrelayv1.Source, out *output) error {
	if n.Provider != "" {
		source.Provider = providers[n.Provider]
	}
	labels, err := keyValues("--label", n.Label)
	if err != nil {
		return err
	}
	for key, value := range labels {
		if source.Labels == nil {
			source.Labels = make(map[string]string)
		}
		source.Labels[key] = value
	}
	source.DisplayName = cmp.Or(n.DisplayName, source.GetDisplayName())
	source.AppId = cmp.Or(n.AppID, source.GetAppId())
	source.PartnerId = cmp.Or(n.PartnerID, source.GetPartnerId())
	source.Paused = source.GetPaused() || n.Paused
	source.RequireClientCertificate = source.GetRequireClientCertificate() || n.RequireClientCertificate
	if source.Subscriptions, err = n.declare(source.GetSubscriptions()); err != nil {
		return err
	}
	for _, field := range []struct {
		flag  string
		given secret
		to    *string
	}{
		{"--verify-token", n.VerifyToken, &source.VerifyToken},
		{"--access-token", n.AccessToken, &source.AccessToken},
		{"--partner-api-key", n.PartnerAPIKey, &source.PartnerApiKey},
		{"--channel-api-key", n.ChannelAPIKey, &source.ChannelApiKey},
	} {
		if field.given == "" {
			continue
		}
		if *field.to, err = field.given.read(ctx, field.flag, out); err != nil {
			return err
		}
	}
	if len(n.AppSecret) > 0 {
		if source.AppSecrets, err = readAll(ctx, "--app-secret", n.AppSecret, out); err != nil {
			return err
		}
	}
	if len(n.Header) > 0 {
		source.Headers, err = readHeaders(ctx, n.Header, out)
	}
	return err
}

// providers are the words of --provider.
var providers = map[string]eventrelayv1.Provider{
	providerMeta:             eventrelayv1.Provider_PROVIDER_META,
	providerDialog360:        eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER,
	providerDialog360Channel: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL,
}

// readSource reads a source from a YAML file. No error repeats what stands in the file, which may be a secret.
func readSource(ctx context.Context, path string, source *eventrelayv1.Source, out *output) error {
	var (
		text string
		err  error
	)
	if path == "-" {
		text, err = out.secretInput(ctx, "--file")
	} else {
		text, err = secret("@"+path).text(ctx, "--file", out)
	}
	if err != nil {
		return err
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&document); err != nil {
		return usagef("--file: %s", unquoted(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return usagef("--file: it has more than one YAML document; give one source")
	}
	if err := plain(&document); err != nil {
		return err
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || (len(root.Content) > 0 && root.Content[0].Value == "sources") {
		return usagef("--file: give the fields of one source at the top, as in an entry of the list of the server's sources file")
	}
	if err := (protoyaml.UnmarshalOptions{Path: "--file"}).Unmarshal([]byte(text), source); err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n") // the lines below quote the file
		return usagef("%s", quote.ReplaceAllStringFunc(line, func(text string) string {
			if fieldLike.MatchString(text) {
				return text
			}
			return "(not shown)"
		}))
	}
	return nil
}

// quote matches what protoyaml repeats of a file, and fieldLike what of that may have been meant as the name of a field or the word of an enum, and may be shown.
var (
	quote     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	fieldLike = regexp.MustCompile(`^"(?:[A-Za-z_]{1,30}|PROVIDER_[A-Z0-9_]{1,30})"$`)
)

// plain finds what protoyaml would read as something else than it says: a key that is given twice adds to a list, null is the word null, an alias repeats a value.
func plain(node *yaml.Node) error {
	seen := make(map[string]bool)
	for i, child := range node.Content {
		at := fmt.Sprintf("--file:%d:%d", child.Line, child.Column)
		switch {
		case child.Kind == yaml.AliasNode:
			return usagef("%s an alias; write the value itself, in quotes if it starts with *", at)
		case child.Kind == yaml.ScalarNode && child.Tag == "!!null":
			return usagef("%s there is no value; write one, or leave the key away", at)
		case node.Kind == yaml.MappingNode && i%2 == 0:
			if seen[child.Value] {
				return usagef("%s a key that is given twice", at)
			}
			seen[child.Value] = true
		}
		if err := plain(child); err != nil {
			return err
		}
	}
	return nil
}

// unquoted gives what the YAML parser says, without what it cites: a secret that starts with * and has no quotes reads as an alias.
func unquoted(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty; give the fields of a source"
	case strings.HasPrefix(text, "unknown anchor"):
		return "it refers to an anchor that is not there; put a value that starts with * in quotes"
	}
	return text
}
