// Package dialog360 is a client of the part of 360dialog's APIs that says where webhooks go: that of a partner account (the hub), of a
// number's channel, and of a WhatsApp Business account.
//
// Keys come with each call and go out in headers. They, and the values of the headers that 360dialog is to send with its webhooks, are in no
// error and in no log. Every call reads a setting or replaces one, so all are fit to be done twice and are repeated for up to five seconds where
// a failure looks passing; after a 429 with more room in between, for 360dialog counts in half minutes.
package dialog360

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"eventrelay/server/upstream"
)

const (
	// DefaultHubURL is where partners manage their account.
	DefaultHubURL = "https://hub.360dialog.io"
	// DefaultWABAURL is where channels are managed, by their own keys.
	DefaultWABAURL = "https://waba-v2.360dialog.io"
)

// validPartnerID keeps an id from being read as more than one element of a path.
var validPartnerID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Options of a Client. The zero value is for production.
type Options struct {
	// HubURL is DefaultHubURL if empty, without the /api/v2 that follows.
	HubURL string
	// WABAURL is DefaultWABAURL if empty.
	WABAURL string
	// Transport takes the requests; by default one with the settings of http.DefaultTransport.
	Transport http.RoundTripper
	// Logger is told, at debug level, of attempts that are repeated. By default nobody is.
	Logger *slog.Logger
}

// A Client calls the APIs. It is safe for concurrent use; there should be one for the whole process.
type Client struct {
	hubURL, wabaURL string
	caller          *upstream.Caller
}

// New returns a Client. The error names the option that cannot be used.
func New(opts Options) (*Client, error) {
	if opts.HubURL == "" {
		opts.HubURL = DefaultHubURL
	}
	if opts.WABAURL == "" {
		opts.WABAURL = DefaultWABAURL
	}
	c := &Client{caller: upstream.New(upstream.Options{Transport: opts.Transport, Logger: opts.Logger})}
	var err error
	if c.hubURL, err = upstream.BaseURL(opts.HubURL); err != nil {
		return nil, fmt.Errorf("base URL of 360dialog's hub: %w", err)
	}
	if c.wabaURL, err = upstream.BaseURL(opts.WABAURL); err != nil {
		return nil, fmt.Errorf("base URL of 360dialog's channels: %w", err)
	}
	return c, nil
}

// Close drops the connections kept for later calls. Calls that are under way go on.
func (c *Client) Close() { c.caller.Close() }

// PartnerCredentials are those of a partner account. They work on the hub only.
type PartnerCredentials struct {
	PartnerID     string
	PartnerAPIKey upstream.Secret
}

// A Webhook is where 360dialog sends what it reports, and the headers that it sends along. The values of headers prove the sender, so they are secrets.
type Webhook struct {
	URL     string
	Headers map[string]upstream.Secret
}

// GetPartnerWebhook returns the one address to which 360dialog reports what happens to all clients of the partner; empty if there is none.
func (c *Client) GetPartnerWebhook(ctx context.Context, cred PartnerCredentials) (string, error) {
	var got struct {
		WebhookURL string `json:"webhook_url"`
	}
	if err := c.partner(ctx, cred, http.MethodGet, nil, &got); err != nil {
		return "", fmt.Errorf("get webhook of partner %.80s: %w", cred.PartnerID, err)
	}
	return got.WebhookURL, nil
}

// SetPartnerWebhook replaces that address. 360dialog documents no way to remove it.
func (c *Client) SetPartnerWebhook(ctx context.Context, cred PartnerCredentials, webhookURL string) error {
	err := checkURL("webhook_url", webhookURL)
	if err == nil {
		err = c.partner(ctx, cred, http.MethodPost, map[string]string{"webhook_url": webhookURL}, nil)
	}
	if err != nil {
		return fmt.Errorf("set webhook of partner %.80s: %w", cred.PartnerID, err)
	}
	return nil
}

// partner calls the one path of the hub that is about the webhook.
func (c *Client) partner(ctx context.Context, cred PartnerCredentials, method string, in, out any) error {
	switch {
	case cred.PartnerAPIKey.Empty():
		return &upstream.CredentialMissingError{Field: "partner_api_key", Use: "360dialog's hub takes no other"}
	case cred.PartnerID == "":
		return &upstream.CredentialMissingError{Field: "partner_id", Use: "360dialog's hub shows it under Integration"}
	case !validPartnerID.MatchString(cred.PartnerID):
		return &upstream.InvalidError{Field: "partner_id", Problem: fmt.Sprintf("%.80q is not an id of 360dialog's, which has 1 to 64 letters, digits, - and _", cred.PartnerID)}
	}
	return c.do(ctx, call{
		method: method, address: c.hubURL + "/api/v2/partners/" + cred.PartnerID + "/webhook_url", keyHeader: "X-Api-Key", key: cred.PartnerAPIKey,
	}, in, out)
}

// GetChannelWebhook returns where 360dialog sends what it reports of the number that the key belongs to.
func (c *Client) GetChannelWebhook(ctx context.Context, channelKey upstream.Secret) (Webhook, error) {
	var got struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
	}
	if err := c.channel(ctx, http.MethodGet, "/v1/configs/webhook", channelKey, Webhook{}, nil, &got); err != nil {
		return Webhook{}, fmt.Errorf("get webhook of channel: %w", err)
	}
	webhook := Webhook{URL: got.URL, Headers: make(map[string]upstream.Secret, len(got.Headers))}
	for name, value := range got.Headers {
		webhook.Headers[name] = upstream.NewSecret(value)
	}
	return webhook, nil
}

// SetChannelWebhook replaces the address and the headers of the number that the key belongs to.
func (c *Client) SetChannelWebhook(ctx context.Context, channelKey upstream.Secret, webhook Webhook) error {
	err := checkWebhook(webhook)
	if err == nil {
		err = c.channel(ctx, http.MethodPost, "/v1/configs/webhook", channelKey, webhook, body(webhook), nil)
	}
	if err != nil {
		return fmt.Errorf("set webhook of channel: %w", err)
	}
	return nil
}

// SetWABAWebhook replaces the address and the headers of the WhatsApp Business account of the number that the key belongs to. Numbers with a webhook of their own keep it
// unless overrideAll is set.
func (c *Client) SetWABAWebhook(ctx context.Context, channelKey upstream.Secret, webhook Webhook, overrideAll bool) error {
	err := checkWebhook(webhook)
	if err == nil {
		in := body(webhook)
		in["override_all"] = overrideAll
		err = c.channel(ctx, http.MethodPost, "/waba_webhook", channelKey, webhook, in, nil)
	}
	if err != nil {
		return fmt.Errorf("set webhook of WhatsApp Business account: %w", err)
	}
	return nil
}

func (c *Client) channel(ctx context.Context, method, path string, key upstream.Secret, webhook Webhook, in map[string]any, out any) error {
	if key.Empty() {
		return &upstream.CredentialMissingError{Field: "channel_api_key", Use: "360dialog has one for each number"}
	}
	sent := call{method: method, address: c.wabaURL + path, keyHeader: "D360-Api-Key", key: key}
	for _, value := range webhook.Headers {
		sent.secrets = append(sent.secrets, value)
	}
	if in == nil { // a nil map in an interface is not nil
		return c.do(ctx, sent, nil, out)
	}
	return c.do(ctx, sent, in, out)
}

// body is what 360dialog is told. Without headers it is told that there are none, or it would keep those of before.
func body(webhook Webhook) map[string]any {
	headers := make(map[string]string, len(webhook.Headers))
	for name, value := range webhook.Headers {
		headers[name] = value.Reveal()
	}
	return map[string]any{"url": webhook.URL, "headers": headers}
}

// A call is one request to either API.
type call struct {
	method, address string
	keyHeader       string
	key             upstream.Secret
	// secrets are those that the call carries beside the key.
	secrets []upstream.Secret
}

// do makes the call, repeated where that may help, and decodes the answer into out unless that is nil.
func (c *Client) do(ctx context.Context, call call, in, out any) error {
	request := upstream.Request{
		Method: call.method, URL: call.address, Secrets: append([]upstream.Secret{call.key}, call.secrets...),
		Header: http.Header{call.keyHeader: {call.key.Reveal()}, "Accept": {"application/json"}},
	}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		request.Body = body
		request.Header.Set("Content-Type", "application/json")
	}
	return c.caller.Retry(ctx, func(ctx context.Context) error {
		answer, err := c.caller.Once(ctx, request)
		if failure, ok := errors.AsType[*upstream.Error](err); ok {
			return &Error{Kind: failure.Kind, HTTPStatus: failure.Status, Message: failure.Message}
		}
		if err != nil {
			return err
		}
		return decode(answer, out, request.Secrets)
	})
}

func checkWebhook(webhook Webhook) error {
	if err := checkURL("url", webhook.URL); err != nil {
		return err
	}
	for name, value := range webhook.Headers {
		if err := checkHeader(name, value); err != nil {
			return err
		}
	}
	return nil
}

// checkURL holds an address to the rules of 360dialog, which drops webhooks to others without a word.
func checkURL(field, address string) error {
	invalid := func(problem string) error { return &upstream.InvalidError{Field: field, Problem: problem} }
	parsed, err := url.Parse(address)
	switch {
	case address == "":
		return invalid("it is empty; 360dialog wants the https address of a webhook")
	case err != nil || !upstream.Callable(parsed):
		return invalid("it must be an absolute https:// address; 360dialog calls nothing else")
	case strings.Contains(parsed.Host, "_"):
		return invalid("its host has an underscore, which 360dialog does not call; use a host name without")
	case (parsed.Port() != "" || strings.HasSuffix(parsed.Host, ":")) && !upstream.Loopback(parsed):
		return invalid("its host has a port, which 360dialog does not call; serve it at 443 and leave the port out")
	case parsed.User != nil || parsed.Fragment != "" || strings.HasSuffix(address, "#"):
		return invalid("it must not have a user, a password or a fragment; remove them")
	}
	return nil
}

var validHeaderName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^`|~-]+$")

func checkHeader(name string, value upstream.Secret) error {
	invalid := func(problem string) error {
		return &upstream.InvalidError{Field: fmt.Sprintf("headers[%.80q]", name), Problem: problem}
	}
	switch {
	case strings.Contains(name, "_"):
		return invalid("its name has an underscore, which 360dialog does not send; use a hyphen")
	case !validHeaderName.MatchString(name):
		return invalid("it is not the name of an HTTP header; use letters, digits and hyphens")
	case strings.ContainsAny(value.Reveal(), "\r\n\x00"):
		return invalid("its value has a line break or a zero byte, which no HTTP header can have; remove it")
	}
	return nil
}

// empty reports an answer without content, which a setting may be answered with.
func empty(body []byte) bool { return len(bytes.TrimSpace(body)) == 0 }
