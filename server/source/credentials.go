package source

import (
	"fmt"
	"log/slog"
	"maps"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Credentials are what calls to a source's provider are made with. Each is given out by a method, which counts as its use; no way of printing them shows one.
// The zero Credentials have none.
type Credentials struct {
	// Source is the name of the source.
	Source   string
	Provider eventrelayv1.Provider

	// whole returns the source with its secrets, which lie in a closure as those of an Endpoint do.
	whole func() *eventrelayv1.Source
	uses  []use
}

// AppID returns Meta's id of the app, which is no secret.
func (c Credentials) AppID() string { return c.source().GetAppId() }

// PartnerID returns 360dialog's id of the partner, which is no secret.
func (c Credentials) PartnerID() string { return c.source().GetPartnerId() }

// AppSecret returns the app secret, the newest where there are two.
func (c Credentials) AppSecret() string {
	secrets := c.source().GetAppSecrets()
	if len(secrets) == 0 {
		return ""
	}
	return c.used("app_secrets[0]", secrets[0])
}

// VerifyToken returns the token that the provider's handshake shows.
func (c Credentials) VerifyToken() string { return c.used("verify_token", c.source().GetVerifyToken()) }

// AccessToken returns the token that calls of the Graph API are made with.
func (c Credentials) AccessToken() string { return c.used("access_token", c.source().GetAccessToken()) }

// PartnerAPIKey returns the key of 360dialog's partner hub.
func (c Credentials) PartnerAPIKey() string {
	return c.used("partner_api_key", c.source().GetPartnerApiKey())
}

// ChannelAPIKey returns the key of a 360dialog number.
func (c Credentials) ChannelAPIKey() string {
	return c.used("channel_api_key", c.source().GetChannelApiKey())
}

// Headers returns what a 360dialog channel's notifications must show, by name. They are the caller's to change.
func (c Credentials) Headers() map[string]string {
	headers := maps.Clone(c.source().GetHeaders())
	for name, value := range headers {
		c.used(fmt.Sprintf("headers[%q]", name), value)
	}
	return headers
}

func (c Credentials) source() *eventrelayv1.Source {
	if c.whole == nil {
		return nil
	}
	return c.whole()
}

// used notes that a secret is used, and returns it.
func (c Credentials) used(field, value string) string {
	for _, u := range c.uses {
		if u.field == field {
			u.now()
		}
	}
	return value
}

// String names the source.
func (c Credentials) String() string { return "credentials of " + c.Source }

// GoString is String.
func (c Credentials) GoString() string { return c.String() }

// Format writes String whatever the verb and flags.
func (c Credentials) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(c.String())) }

// LogValue gives a log record what String shows.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText is String, for JSON and whatever else asks for a text.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
