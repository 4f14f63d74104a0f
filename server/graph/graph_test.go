package graph_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// What nobody may ever see.
const (
	appID       = "1234567890"
	appSecret   = "0badc0de5ec4e7a99a5ec4e7deadbeef"
	userToken   = "EAAGuser7oken7hatIsL0ngEn0ugh"
	pageToken   = "EAAGpage7oken7hatIsL0ngEn0ugh"
	igToken     = "IGQVph0t0gram7oken7hatIsL0ng"
	verifyToken = "ver1fy/me+please"

	waba, phoneNumber, pageID, igID = "102290129340398", "106540352242922", "1755847768034402", "17841405309211844"
)

func secrets() []string {
	return []string{appSecret, userToken, pageToken, igToken, verifyToken, url.QueryEscape(verifyToken), proof(userToken), proof(appID + "|" + appSecret)}
}

// A callback answers handshakes that have the right token.
type callback struct {
	*httptest.Server
	mu    sync.Mutex
	asked []url.Values
}

func newCallback(t *testing.T) *callback {
	c := &callback{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r.URL.Query())
	if r.Method != http.MethodGet || r.URL.Query().Get("hub.mode") != "subscribe" || r.URL.Query().Get("hub.verify_token") != verifyToken {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, _ = w.Write([]byte(r.URL.Query().Get("hub.challenge")))
}

func (c *callback) at(path string) string { return strings.Replace(c.URL, "http:", "https:", 1) + path }

func (c *callback) handshakes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// A fixture is a client of a stand-in, with everything it logs and every error it gives out held against the secrets.
type fixture struct {
	t      *testing.T
	api    *graphtest.Server
	client *graph.Client
	log    *bytes.Buffer
}

func start(t *testing.T, opts graphtest.Options) *fixture {
	t.Helper()
	opts.PlainLoopback = true
	f := &fixture{t: t, api: graphtest.NewServer(opts)}
	t.Cleanup(f.api.Close)
	f.fill()
	f.connect(graph.Options{BaseURL: f.api.URL})
	return f
}

// bubble is the same without sockets, for tests that let time pass. Every address is a callback.
func bubble(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, api: graphtest.New(graphtest.Options{Callbacks: &http.Client{Transport: upstreamtest.Transport{Handler: &callback{}}}})}
	f.fill()
	f.connect(graph.Options{BaseURL: "http://graph.test", Transport: upstreamtest.Transport{Handler: f.api}})
	return f
}

func (f *fixture) fill() {
	f.api.AddApp(appID, appSecret, "Shop")
	f.api.AddApp("99", "another-app-secret", "Other")
	f.api.AddToken(userToken, appID, graphtest.UserToken)
	f.api.AddToken(pageToken, appID, graphtest.PageToken)
	f.api.AddToken(igToken, appID, graphtest.InstagramToken)
	f.api.AddToken("token-of-another-app", "99", graphtest.UserToken)
	f.api.AddWABA(waba, phoneNumber)
	f.api.AddPage(pageID)
	f.api.AddInstagramAccount(igID)
}

func (f *fixture) connect(opts graph.Options) {
	f.t.Helper()
	log := &bytes.Buffer{}
	f.log = log
	opts.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client, err := graph.New(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.client = client
	f.t.Cleanup(func() {
		client.Close()
		holdsNoSecret(f.t, "the log", log.String())
	})
}

func user() graph.Credentials {
	return graph.Credentials{AppID: appID, AppSecret: upstream.NewSecret(appSecret), AccessToken: upstream.NewSecret(userToken)}
}

func ofPage() graph.Credentials {
	cred := user()
	cred.AccessToken = upstream.NewSecret(pageToken)
	return cred
}

func ofInstagram() graph.Credentials {
	cred := user()
	cred.AccessToken = upstream.NewSecret(igToken)
	return cred
}

func holdsNoSecret(t *testing.T, what, text string) {
	t.Helper()
	for _, secret := range secrets() {
		for i := 0; i+8 <= len(secret); i++ {
			if strings.Contains(text, secret[i:i+8]) {
				t.Errorf("%s shows %q of a secret: %s", what, secret[i:i+8], text)
				return
			}
		}
	}
}

// dump is everything that fmt, JSON and slog make of a value.
func dump(value any) string {
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, format+"\n", value)
	}
	encoded, err := json.Marshal(value)
	fmt.Fprintf(&out, "%s %v\n", encoded, err)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("", "value", value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("", "value", value)
	return out.String()
}

// refused returns the error as an *Error, after a look at it and all that it wraps.
func (f *fixture) refused(err error) *graph.Error {
	f.t.Helper()
	f.clean(err)
	var refused *graph.Error
	if !errors.As(err, &refused) {
		f.t.Fatalf("%v is not an *Error", err)
	}
	return refused
}

func (f *fixture) clean(err error) {
	f.t.Helper()
	if err == nil {
		f.t.Fatal("no error")
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		holdsNoSecret(f.t, "an error", dump(e))
	}
}

func (f *fixture) works(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// What each operation sends: the documentation of the Graph API, written down once.
func TestEveryOperationIsCalledAsDocumented(t *testing.T) {
	type sent struct {
		Method, Path, Token string
		Query               url.Values
		ContentType, Body   string
		Form                url.Values
	}
	ctx := context.Background()
	back := newCallback(t)
	proven := func(token string, more ...string) url.Values {
		query := url.Values{"appsecret_proof": {proof(token)}}
		for i := 0; i < len(more); i += 2 {
			query.Set(more[i], more[i+1])
		}
		return query
	}
	const form, inJSON = "application/x-www-form-urlencoded", "application/json"
	wabaApps, appSubs := "/v24.0/"+waba+"/subscribed_apps", "/v24.0/"+appID+"/subscriptions"
	override := fmt.Sprintf(`{"override_callback_uri":%q,"verify_token":%q}`, back.at("/webhooks/shop"), verifyToken)
	for _, c := range []struct {
		name string
		call func(c *graph.Client) error
		want []sent
	}{
		{
			"list the apps of an account", func(c *graph.Client) error { _, err := c.ListWABASubscribedApps(ctx, user(), waba); return err },
			[]sent{{Method: "GET", Path: wabaApps, Token: "user", Query: proven(userToken)}},
		},
		{
			"subscribe to an account", func(c *graph.Client) error { return c.SubscribeWABA(ctx, user(), waba) },
			[]sent{{Method: "GET", Path: wabaApps, Token: "user", Query: proven(userToken)}, {Method: "POST", Path: wabaApps, Token: "user", Query: proven(userToken)}},
		},
		{"set the override of an account", func(c *graph.Client) error {
			return c.SetWABAOverride(ctx, user(), waba, back.at("/webhooks/shop"), verifyToken)
		}, []sent{{Method: "POST", Path: wabaApps, Token: "user", Query: proven(userToken), ContentType: inJSON, Body: override}}},
		{
			"clear the override of an account", func(c *graph.Client) error { return c.ClearWABAOverride(ctx, user(), waba) },
			[]sent{{Method: "POST", Path: wabaApps, Token: "user", Query: proven(userToken)}},
		},
		{
			"unsubscribe from an account", func(c *graph.Client) error { return c.UnsubscribeWABA(ctx, user(), waba) },
			[]sent{{Method: "DELETE", Path: wabaApps, Token: "user", Query: proven(userToken)}},
		},
		{
			"get the override of a number", func(c *graph.Client) error { _, err := c.GetPhoneOverride(ctx, user(), phoneNumber); return err },
			[]sent{{Method: "GET", Path: "/v24.0/" + phoneNumber, Token: "user", Query: proven(userToken, "fields", "webhook_configuration")}},
		},
		{"set the override of a number", func(c *graph.Client) error {
			return c.SetPhoneOverride(ctx, user(), phoneNumber, back.at("/webhooks/shop"), verifyToken)
		}, []sent{{Method: "POST", Path: "/v24.0/" + phoneNumber, Token: "user", Query: proven(userToken), ContentType: inJSON, Body: `{"webhook_configuration":` + override + `}`}}},
		{
			"clear the override of a number", func(c *graph.Client) error { return c.ClearPhoneOverride(ctx, user(), phoneNumber) },
			[]sent{{Method: "POST", Path: "/v24.0/" + phoneNumber, Token: "user", Query: proven(userToken), ContentType: inJSON, Body: `{"webhook_configuration":{"override_callback_uri":""}}`}},
		},
		{
			"list the subscriptions of the app", func(c *graph.Client) error { _, err := c.ListAppSubscriptions(ctx, user()); return err },
			[]sent{{Method: "GET", Path: appSubs, Token: "app", Query: proven(appID + "|" + appSecret)}},
		},
		{"subscribe the app", func(c *graph.Client) error {
			return c.CreateAppSubscription(ctx, user(), "whatsapp_business_account", back.at("/webhooks/shop"), verifyToken, []string{"messages", "account_update"}, true)
		}, []sent{{Method: "POST", Path: appSubs, Token: "app", Query: proven(appID + "|" + appSecret), ContentType: form, Form: url.Values{
			"object": {"whatsapp_business_account"}, "callback_url": {back.at("/webhooks/shop")}, "verify_token": {verifyToken}, "fields": {"messages,account_update"}, "include_values": {"true"},
		}}}},
		{
			"end a subscription of the app", func(c *graph.Client) error { return c.DeleteAppSubscription(ctx, user(), "page", nil) },
			[]sent{{Method: "DELETE", Path: appSubs, Token: "app", Query: proven(appID+"|"+appSecret, "object", "page")}},
		},
		{"take fields out of a subscription", func(c *graph.Client) error {
			return c.DeleteAppSubscription(ctx, user(), "page", []string{"feed", "name"})
		}, []sent{{Method: "DELETE", Path: appSubs, Token: "app", Query: proven(appID+"|"+appSecret, "object", "page", "fields", "feed,name")}}},
		{"list the apps of a page", func(c *graph.Client) error {
			_, err := c.ListSubscribedApps(ctx, ofPage(), graph.Page(pageID))
			return err
		}, []sent{{Method: "GET", Path: "/v24.0/" + pageID + "/subscribed_apps", Token: "page", Query: proven(pageToken)}}},
		{"subscribe to a page", func(c *graph.Client) error {
			return c.Subscribe(ctx, ofPage(), graph.Page(pageID), []string{"feed", "messages"})
		}, []sent{{Method: "POST", Path: "/v24.0/" + pageID + "/subscribed_apps", Token: "page", Query: proven(pageToken), ContentType: form, Form: url.Values{"subscribed_fields": {"feed,messages"}}}}},
		{
			"unsubscribe from a page", func(c *graph.Client) error { return c.Unsubscribe(ctx, ofPage(), graph.Page(pageID)) },
			[]sent{{Method: "DELETE", Path: "/v24.0/" + pageID + "/subscribed_apps", Token: "page", Query: proven(pageToken)}},
		},
		{"list the apps of an Instagram account", func(c *graph.Client) error {
			_, err := c.ListSubscribedApps(ctx, ofInstagram(), graph.InstagramAccount(igID))
			return err
		}, []sent{{Method: "GET", Path: "/v24.0/" + igID + "/subscribed_apps", Token: "instagram", Query: proven(igToken)}}},
		{"subscribe to an Instagram account", func(c *graph.Client) error {
			return c.Subscribe(ctx, ofInstagram(), graph.InstagramAccount(igID), []string{"comments"})
		}, []sent{{Method: "POST", Path: "/v24.0/" + igID + "/subscribed_apps", Token: "instagram", Query: proven(igToken), ContentType: form, Form: url.Values{"subscribed_fields": {"comments"}}}}},
		{"unsubscribe from an Instagram account", func(c *graph.Client) error {
			return c.Unsubscribe(ctx, ofInstagram(), graph.InstagramAccount(igID))
		}, []sent{{Method: "DELETE", Path: "/v24.0/" + igID + "/subscribed_apps", Token: "instagram", Query: proven(igToken)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, graphtest.Options{})
			f.works(c.call(f.client))
			var got []sent
			for _, r := range f.api.Requests() {
				s := sent{Method: r.Method, Path: r.Path, Token: f.api.TokenKind(r), Query: r.Query, ContentType: r.Header.Get("Content-Type"), Form: r.Form}
				if s.Form == nil {
					s.Body = r.Body
				}
				got = append(got, s)
				// The proof is no token; the tokens themselves are in the header alone.
				for _, secret := range []string{userToken, pageToken, igToken, appSecret} {
					if strings.Contains(r.Path+r.Query.Encode()+r.Body, secret) {
						t.Errorf("a token is outside of the header: %s?%s %s", r.Path, r.Query.Encode(), r.Body)
					}
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("sent other than documented (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithoutAnAppSecretThereIsNoProof(t *testing.T) {
	f := start(t, graphtest.Options{})
	_, err := f.client.ListWABASubscribedApps(t.Context(), graph.Credentials{AccessToken: upstream.NewSecret(userToken)}, waba)
	f.works(err)
	if got := f.api.Requests()[0].Query; len(got) != 0 {
		t.Errorf("sent %v", got)
	}
}

func TestAWrongAppSecretIsRefused(t *testing.T) {
	f := start(t, graphtest.Options{})
	cred := user()
	cred.AppSecret = upstream.NewSecret("fade" + appSecret[4:])
	_, err := f.client.ListWABASubscribedApps(t.Context(), cred, waba)
	if got := f.refused(err); got.Code != 100 || !strings.Contains(got.Message, "appsecret_proof") {
		t.Errorf("%+v", got)
	}
}

func TestInstagramHasAHostOfItsOwn(t *testing.T) {
	var hosts []string
	client, err := graph.New(graph.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		hosts = append(hosts, r.URL.Scheme+"://"+r.URL.Host)
		return httpAnswer(200, `{"data":[]}`), nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []graph.Account{graph.Page(pageID), graph.InstagramAccount(igID)} {
		if _, err := client.ListSubscribedApps(t.Context(), ofPage(), account); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"https://graph.facebook.com", "https://graph.instagram.com"}; !slices.Equal(hosts, want) {
		t.Errorf("called %v, not %v", hosts, want)
	}
}

func TestTheVersionIsPinned(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.connect(graph.Options{BaseURL: f.api.URL + "/", Version: "v25.0"})
	_, err := f.client.ListAppSubscriptions(t.Context(), user())
	f.works(err)
	if got := f.api.Requests()[0].Path; got != "/v25.0/"+appID+"/subscriptions" {
		t.Errorf("called %s", got)
	}
	for _, version := range []string{"24.0", "v24", "v24.0/", "v0.1", "latest", "v24.0?x"} {
		if _, err := graph.New(graph.Options{Version: version}); err == nil || !strings.Contains(err.Error(), "v24.0") {
			t.Errorf("version %q: %v", version, err)
		}
	}
	for _, base := range []string{"graph.facebook.com", "ftp://x", "https://user:pass@x", "https://x?y=1", "https://"} {
		if _, err := graph.New(graph.Options{BaseURL: base}); err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("base URL %q: %v", base, err)
		}
		if _, err := graph.New(graph.Options{InstagramURL: base}); err == nil {
			t.Errorf("Instagram's base URL %q is taken", base)
		}
	}
}

func TestTheWrongKindOfTokenIsTold(t *testing.T) {
	f := start(t, graphtest.Options{})
	_, err := f.client.ListSubscribedApps(t.Context(), user(), graph.Page(pageID))
	if got := f.refused(err); got.Kind != upstream.PermissionDenied || got.Code != 210 || got.Type != "OAuthException" {
		t.Errorf("%+v", got)
	}
	cred := user()
	cred.AccessToken = upstream.NewSecret("EAAGnobodys7oken")
	_, err = f.client.ListWABASubscribedApps(t.Context(), cred, waba)
	if got := f.refused(err); got.Kind != upstream.Unauthenticated || got.Subcode != 467 || got.TraceID == "" || strings.Contains(dump(err), "nobodys7oken") {
		t.Errorf("%+v", got)
	}
	_, err = f.client.ListWABASubscribedApps(t.Context(), user(), "404")
	if got := f.refused(err); got.Kind != upstream.NotFound {
		t.Errorf("%+v", got)
	}
}

func TestListsAreFollowedToTheirEnd(t *testing.T) {
	for _, opts := range []graphtest.Options{{PageSize: 2}, {PageSize: 2, EmptyPages: true}, {EmptyPages: true}} {
		f := start(t, opts)
		var want []string
		for i := range 7 {
			id := fmt.Sprintf("app%d", i)
			want = append(want, id)
			f.api.AddApp(id, "secret-of-"+id, id)
			f.api.AddToken("token-of-"+id, id, graphtest.UserToken)
			f.works(f.client.ClearWABAOverride(t.Context(), graph.Credentials{AccessToken: upstream.NewSecret("token-of-" + id)}, waba))
		}
		f.api.Forget()
		apps, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
		f.works(err)
		var got []string
		for _, app := range apps {
			got = append(got, app.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: got %v", opts, got)
		}
		for _, r := range f.api.Requests() {
			if r.Query.Has("access_token") {
				t.Errorf("%+v: the provider's own link was called: %v", opts, r.Query)
			}
		}
	}
}

func proof(token string) string {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func httpAnswer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// The value was made with openssl, for the test's own proof would agree with any mistake that the client shares.
func TestTheProofIsThatOfTheDocumentation(t *testing.T) {
	if got := proof(userToken); got != "7c080fd227479f484595e62d66d423af5bc147ef0f8076dcf94f04e12e97f466" {
		t.Error(got)
	}
}
