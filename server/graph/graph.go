// Package graph is a client of the part of Meta's Graph API that says which app hears of what: the apps subscribed to a WhatsApp
// Business account, callback overrides of accounts and phone numbers, the webhook subscriptions of an app, and the apps subscribed to
// a page or an Instagram account.
//
// Credentials come with each call and go out in headers; they are in no URL, in no error and in no log. Meta's page links carry the token,
// so they are neither called nor handed on: a list is followed by its cursor.
//
// Everything here is fit to be done twice. Reads are, and what a DELETE has ended a second one does not end again. The POSTs set a state instead of
// adding to it: an app is subscribed or not, an override has one value, a subscription to an object is replaced and its fields are a set. So
// all of them are repeated for up to five seconds where a failure looks passing; SubscribeWABA repeats its look along with its POST.
package graph

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"eventrelay/server/upstream"
)

const (
	// DefaultBaseURL is where the Graph API is.
	DefaultBaseURL = "https://graph.facebook.com"
	// DefaultInstagramURL is where it is for accounts of Instagram that logged in there instead of on Facebook.
	DefaultInstagramURL = "https://graph.instagram.com"
	// DefaultVersion is the version called. Without one Meta takes the oldest that the app may use, whose answers differ.
	DefaultVersion = "v24.0"
)

var (
	validVersion = regexp.MustCompile(`^v[1-9][0-9]?\.[0-9]$`)
	// validID keeps an id from being read as more than one element of a path. Meta's are digits; `me` is an alias.
	validID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// Options of a Client. The zero value is for production.
type Options struct {
	// BaseURL is DefaultBaseURL if empty.
	BaseURL string
	// InstagramURL is DefaultInstagramURL if empty, but BaseURL where that is set: what is pointed at a stand-in has no business with the real one.
	InstagramURL string
	// Version is DefaultVersion if empty.
	Version string
	// Transport takes the requests; by default one with the settings of http.DefaultTransport.
	Transport http.RoundTripper
	// Logger is told, at debug level, of attempts that are repeated and of usage headers that cannot be read. By default nobody is.
	Logger *slog.Logger
}

// A Client calls the Graph API. It is safe for concurrent use. It remembers which app, page or business has used up its calls, so
// there should be one for the whole process.
type Client struct {
	baseURL, instagramURL string
	version               string
	caller                *upstream.Caller
	logger                *slog.Logger
	usage                 *usage
}

// New returns a Client. The error names the option that cannot be used.
func New(opts Options) (*Client, error) {
	c := &Client{version: opts.Version, logger: opts.Logger, usage: newUsage()}
	if c.version == "" {
		c.version = DefaultVersion
	}
	if !validVersion.MatchString(c.version) {
		return nil, fmt.Errorf("version of the Graph API %q: it must look like %s", c.version, DefaultVersion)
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if opts.InstagramURL == "" {
		opts.InstagramURL = opts.BaseURL
		if opts.BaseURL == "" {
			opts.InstagramURL = DefaultInstagramURL
		}
	}
	if opts.BaseURL == "" {
		opts.BaseURL = DefaultBaseURL
	}
	var err error
	if c.baseURL, err = upstream.BaseURL(opts.BaseURL); err != nil {
		return nil, fmt.Errorf("base URL of the Graph API: %w", err)
	}
	if c.instagramURL, err = upstream.BaseURL(opts.InstagramURL); err != nil {
		return nil, fmt.Errorf("base URL of Instagram's Graph API: %w", err)
	}
	c.caller = upstream.New(upstream.Options{Transport: opts.Transport, Logger: c.logger})
	return c, nil
}

// Close drops the connections kept for later calls. Calls that are under way go on.
func (c *Client) Close() { c.caller.Close() }

// Credentials are what a call is made with. A call uses the access token, those for the subscriptions of an app use app id and secret. With
// an app secret, every call proves by appsecret_proof that it has it. No way of printing credentials shows a secret.
type Credentials struct {
	AppID       string
	AppSecret   upstream.Secret
	AccessToken upstream.Secret
}

// appToken is the app access token, for which Meta takes id and secret as they are.
func (c Credentials) appToken() (upstream.Secret, error) {
	if c.AppID == "" {
		return upstream.Secret{}, &upstream.CredentialMissingError{Field: "app_id", Use: "Meta wants an app access token here, made of app id and app secret"}
	}
	if c.AppSecret.Empty() {
		return upstream.Secret{}, &upstream.CredentialMissingError{Field: "app_secrets", Use: "Meta wants an app access token here, made of app id and app secret"}
	}
	return upstream.NewSecret(c.AppID + "|" + c.AppSecret.Reveal()), nil
}

func (c Credentials) userToken() (upstream.Secret, error) {
	if c.AccessToken.Empty() {
		return upstream.Secret{}, &upstream.CredentialMissingError{Field: "access_token", Use: "Meta wants that of a system user, a page or an Instagram account here"}
	}
	return c.AccessToken, nil
}

func checkID(field, id string) error {
	if !validID.MatchString(id) {
		return &upstream.InvalidError{Field: field, Problem: fmt.Sprintf("%.80q is not an id of Meta's, which has 1 to 64 digits, letters, - and _", id)}
	}
	return nil
}

// maxOverride is Meta's limit for the address of an override, in characters.
const maxOverride = 200

// checkCallback checks what Meta checks first of a callback, so that the error can name the field.
func checkCallback(field, address, verifyToken string, limit int) error {
	parsed, err := url.Parse(address)
	switch {
	case address == "":
		return &upstream.InvalidError{Field: field, Problem: "it is empty; Meta wants the https address of a callback"}
	case err != nil || !upstream.Callable(parsed):
		return &upstream.InvalidError{Field: field, Problem: "it must be an absolute https:// address; Meta calls nothing else"}
	case parsed.User != nil || parsed.Fragment != "" || strings.HasSuffix(address, "#"):
		return &upstream.InvalidError{Field: field, Problem: "it must not have a user, a password or a fragment; remove them"}
	case limit > 0 && len([]rune(address)) > limit:
		return &upstream.InvalidError{Field: field, Problem: fmt.Sprintf("it has %d characters, Meta takes up to %d; use a shorter path", len([]rune(address)), limit)}
	case verifyToken == "":
		return &upstream.InvalidError{Field: "verify_token", Problem: "it is empty; Meta sends it to the callback, which must expect it"}
	}
	return nil
}

// checkFields checks names that are sent as a list with commas.
func checkFields(field string, names []string) error {
	for i, name := range names {
		if name == "" || strings.ContainsAny(name, ", \t\r\n") {
			return &upstream.InvalidError{Field: fmt.Sprintf("%s[%d]", field, i), Problem: fmt.Sprintf("%.80q is not the name of a field; give one name in each element", name)}
		}
	}
	return nil
}
