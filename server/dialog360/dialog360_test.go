package dialog360_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventrelay/server/dialog360"
	"eventrelay/server/dialog360/dialog360test"
	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	partnerID   = "aBc123PA"
	partnerKey  = "PartnerKey0123456789abcdef"
	channelKey  = "ChannelKey0123456789ghijkl"
	otherKey    = "OtherChannelKey0123456789"
	headerValue = "Basic dXNlcjpwYXNzd29yZA=="
	address     = "https://relay.example/webhooks/agency"
)

func secrets() []string { return []string{partnerKey, channelKey, headerValue} }

type fixture struct {
	t      *testing.T
	api    *dialog360test.Server
	client *dialog360.Client
}

// start makes a client of a stand-in without sockets between them.
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, api: dialog360test.New()}
	f.api.AddPartner(partnerID, partnerKey)
	f.api.AddChannel(channelKey, "waba")
	f.api.AddChannel(otherKey, "waba")
	f.connect(dialog360.Options{Transport: upstreamtest.Transport{Handler: f.api}})
	return f
}

func (f *fixture) connect(opts dialog360.Options) {
	f.t.Helper()
	log := &bytes.Buffer{}
	opts.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client, err := dialog360.New(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.client = client
	f.t.Cleanup(func() {
		client.Close()
		holdsNoSecret(f.t, "the log", log.String())
	})
}

func partner() dialog360.PartnerCredentials {
	return dialog360.PartnerCredentials{PartnerID: partnerID, PartnerAPIKey: upstream.NewSecret(partnerKey)}
}

func key() upstream.Secret { return upstream.NewSecret(channelKey) }

func webhook() dialog360.Webhook {
	return dialog360.Webhook{URL: address, Headers: map[string]upstream.Secret{"Authorization": upstream.NewSecret(headerValue)}}
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
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&out, format+"\n", value)
	}
	encoded, err := json.Marshal(value)
	fmt.Fprintf(&out, "%s %v\n", encoded, err)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("", "value", value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("", "value", value)
	return out.String()
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

func (f *fixture) refused(err error) *dialog360.Error {
	f.t.Helper()
	f.clean(err)
	var refused *dialog360.Error
	if !errors.As(err, &refused) {
		f.t.Fatalf("%v is not an *Error", err)
	}
	return refused
}

func (f *fixture) works(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// Every operation that there is, for what holds of all.
func operations(c *dialog360.Client) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"GetPartnerWebhook": func(ctx context.Context) error { _, err := c.GetPartnerWebhook(ctx, partner()); return err },
		"SetPartnerWebhook": func(ctx context.Context) error { return c.SetPartnerWebhook(ctx, partner(), address) },
		"GetChannelWebhook": func(ctx context.Context) error { _, err := c.GetChannelWebhook(ctx, key()); return err },
		"SetChannelWebhook": func(ctx context.Context) error { return c.SetChannelWebhook(ctx, key(), webhook()) },
		"SetWABAWebhook":    func(ctx context.Context) error { return c.SetWABAWebhook(ctx, key(), webhook(), true) },
	}
}

// What each operation sends: the documentation of 360dialog, written down once.
func TestEveryOperationIsCalledAsDocumented(t *testing.T) {
	type sent struct{ Method, URL, PartnerKey, ChannelKey, ContentType, Body string }
	const hub, waba = "https://hub.360dialog.io", "https://waba-v2.360dialog.io"
	setting := fmt.Sprintf(`"headers":{"Authorization":%q}`, headerValue)
	for name, want := range map[string]sent{
		"GetPartnerWebhook": {Method: "GET", URL: hub + "/api/v2/partners/" + partnerID + "/webhook_url", PartnerKey: partnerKey},
		"SetPartnerWebhook": {Method: "POST", URL: hub + "/api/v2/partners/" + partnerID + "/webhook_url", PartnerKey: partnerKey, ContentType: "application/json", Body: fmt.Sprintf(`{"webhook_url":%q}`, address)},
		"GetChannelWebhook": {Method: "GET", URL: waba + "/v1/configs/webhook", ChannelKey: channelKey},
		"SetChannelWebhook": {Method: "POST", URL: waba + "/v1/configs/webhook", ChannelKey: channelKey, ContentType: "application/json", Body: fmt.Sprintf(`{%s,"url":%q}`, setting, address)},
		"SetWABAWebhook":    {Method: "POST", URL: waba + "/waba_webhook", ChannelKey: channelKey, ContentType: "application/json", Body: fmt.Sprintf(`{%s,"override_all":true,"url":%q}`, setting, address)},
	} {
		f := start(t)
		f.works(operations(f.client)[name](t.Context()))
		var got []sent
		for _, r := range f.api.Requests() {
			got = append(got, sent{r.Method, "https://" + r.Host + r.Path, r.Header.Get("X-Api-Key"), r.Header.Get("D360-Api-Key"), r.Header.Get("Content-Type"), r.Body})
			if len(r.Query) != 0 {
				t.Errorf("%s has a query: %v", name, r.Query)
			}
		}
		if diff := cmp.Diff([]sent{want}, got); diff != "" {
			t.Errorf("%s is sent other than documented (-want +got):\n%s", name, diff)
		}
	}
}

func TestSettingsComeBackAsTheyWereSet(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	if got, err := f.client.GetPartnerWebhook(ctx, partner()); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	f.works(f.client.SetPartnerWebhook(ctx, partner(), address))
	if got, err := f.client.GetPartnerWebhook(ctx, partner()); err != nil || got != address || f.api.PartnerWebhook(partnerID) != address {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := f.client.GetChannelWebhook(ctx, key()); err != nil || got.URL != "" || len(got.Headers) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	f.works(f.client.SetChannelWebhook(ctx, key(), webhook()))
	got, err := f.client.GetChannelWebhook(ctx, key())
	if err != nil || got.URL != address || len(got.Headers) != 1 || got.Headers["Authorization"].Reveal() != headerValue {
		t.Errorf("%v, %v", got, err)
	}
	holdsNoSecret(t, "a webhook", dump(got)+dump(&got)+dump(partner()))

	f.works(f.client.SetChannelWebhook(ctx, key(), dialog360.Webhook{URL: address + "/2"}))
	if got := f.api.Effective(channelKey); got.URL != address+"/2" || len(got.Headers) != 0 {
		t.Errorf("headers of before are kept: %v", got)
	}
}

func TestTheSettingOfAnAccountIsBehindThatOfANumberUnlessItOverrides(t *testing.T) {
	f := start(t)
	f.works(f.client.SetChannelWebhook(t.Context(), key(), webhook()))
	waba := dialog360.Webhook{URL: "https://relay.example/waba"}
	f.works(f.client.SetWABAWebhook(t.Context(), key(), waba, false))
	if f.api.Effective(channelKey).URL != address || f.api.Effective(otherKey).URL != waba.URL {
		t.Errorf("%v and %v", f.api.Effective(channelKey), f.api.Effective(otherKey))
	}
	f.works(f.client.SetWABAWebhook(t.Context(), key(), waba, true))
	if f.api.Effective(channelKey).URL != waba.URL {
		t.Errorf("%v", f.api.Effective(channelKey))
	}
}

func TestTheWrongKeyIsTold(t *testing.T) {
	f := start(t)
	_, err := f.client.GetChannelWebhook(t.Context(), upstream.NewSecret(partnerKey))
	if got := f.refused(err); got.Kind != upstream.Unauthenticated || got.Message != "Invalid API key [secret]" {
		t.Errorf("%+v", got)
	}
	_, err = f.client.GetPartnerWebhook(t.Context(), dialog360.PartnerCredentials{PartnerID: partnerID, PartnerAPIKey: key()})
	if got := f.refused(err); got.Kind != upstream.PermissionDenied || got.Message != "Forbidden" {
		t.Errorf("%+v", got)
	}
	_, err = f.client.GetPartnerWebhook(t.Context(), dialog360.PartnerCredentials{PartnerID: "nobody", PartnerAPIKey: key()})
	if got := f.refused(err); got.Kind != upstream.NotFound {
		t.Errorf("%+v", got)
	}
}

func TestWhat360dialogNeverTakesIsNotSent(t *testing.T) {
	f := start(t)
	ctx, c := t.Context(), f.client
	with := func(name, value string) dialog360.Webhook {
		return dialog360.Webhook{URL: address, Headers: map[string]upstream.Secret{name: upstream.NewSecret(value)}}
	}
	for _, a := range []struct {
		field, fix string
		err        error
	}{
		{"webhook_url", "empty", c.SetPartnerWebhook(ctx, partner(), "")},
		{"webhook_url", "https://", c.SetPartnerWebhook(ctx, partner(), "http://relay.example/")},
		{"webhook_url", "https://", c.SetPartnerWebhook(ctx, partner(), "relay.example")},
		{"webhook_url", "underscore", c.SetPartnerWebhook(ctx, partner(), "https://my_relay.example/")},
		{"webhook_url", "port", c.SetPartnerWebhook(ctx, partner(), "https://relay.example:443/")},
		{"url", "port", c.SetChannelWebhook(ctx, key(), dialog360.Webhook{URL: "https://relay.example:/"})},
		{"url", "user", c.SetChannelWebhook(ctx, key(), dialog360.Webhook{URL: "https://user:word@relay.example/"})},
		{"url", "underscore", c.SetWABAWebhook(ctx, key(), dialog360.Webhook{URL: "https://a_b.relay.example"}, false)},
		{`headers["X_Secret"]`, "hyphen", c.SetChannelWebhook(ctx, key(), with("X_Secret", headerValue))},
		{`headers["X Secret"]`, "name", c.SetWABAWebhook(ctx, key(), with("X Secret", headerValue), true)},
		{`headers[""]`, "name", c.SetWABAWebhook(ctx, key(), with("", headerValue), true)},
		{`headers["X-Secret"]`, "line break", c.SetChannelWebhook(ctx, key(), with("X-Secret", headerValue+"\r\nX: y"))},
		{"partner_id", "id", c.SetPartnerWebhook(ctx, dialog360.PartnerCredentials{PartnerID: "a/../b", PartnerAPIKey: key()}, address)},
	} {
		f.clean(a.err)
		var invalid *upstream.InvalidError
		if !errors.As(a.err, &invalid) || invalid.Field != a.field || !strings.Contains(invalid.Problem, a.fix) || strings.Contains(a.err.Error(), "word@") {
			t.Errorf("%v is not about %s", a.err, a.field)
		}
	}
	for field, err := range map[string]error{
		"partner_api_key": c.SetPartnerWebhook(ctx, dialog360.PartnerCredentials{PartnerID: partnerID}, address),
		"partner_id":      c.SetPartnerWebhook(ctx, dialog360.PartnerCredentials{PartnerAPIKey: key()}, address),
		"channel_api_key": c.SetChannelWebhook(ctx, upstream.Secret{}, webhook()),
	} {
		if f.clean(err); !errors.Is(err, upstream.ErrCredentialMissing) || !strings.Contains(err.Error(), field) {
			t.Errorf("without %s: %v", field, err)
		}
	}
	if n := len(f.api.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	f.works(c.SetChannelWebhook(ctx, key(), dialog360.Webhook{URL: "https://relay.example/with_underscore?x=1:2"}))
	for _, base := range []string{"hub", "https://user:pass@x"} {
		for _, opts := range []dialog360.Options{{HubURL: base}, {WABAURL: base}} {
			if _, err := dialog360.New(opts); err == nil || strings.Contains(err.Error(), "pass") {
				t.Errorf("%+v: %v", opts, err)
			}
		}
	}
}

func TestEveryShapeOfErrorIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		name                string
		status              int
		body                string
		kind                upstream.Kind
		code, text, details string
		shown               int
	}{
		{"the hub's", 404, `{"meta":{"success":false,"http_code":404,"developer_message":"Partner not found","details":["a",{"b":1}],"error_data":{"code":17,"message":"no such"}}}`, upstream.NotFound, "17", "Partner not found", `no such|a|{"b":1}`, 404},
		{"the hub's, with 200", 200, `{"meta":{"success":false,"http_code":403,"developer_message":"Forbidden"}}`, upstream.PermissionDenied, "", "Forbidden", "", 403},
		{"the hub's, of little", 200, `{"meta":{"success":false}}`, upstream.Unknown, "", "no more than its status", "", 200},
		{"the hub's, by data", 400, `{"meta":{"error_data":{"code":"E1","message":"bad"}}}`, upstream.InvalidArgument, "E1", "bad", "", 400},
		{"the hub's, of other types", 400, `{"meta":{"success":"no","http_code":"400","developer_message":"bad","details":"x","error_data":"y"}}`, upstream.InvalidArgument, "", "bad", "", 400},
		{"the channels'", 401, `{"error":"Unauthorized"}`, upstream.Unauthenticated, "", "Unauthorized", "", 401},
		{"the channels', with 200", 200, `{"error":"no"}`, upstream.Unknown, "", "no", "", 200},
		{"the channels', as an object", 400, `{"error":{"message":"(#100) m","code":100,"type":"OAuthException"}}`, upstream.InvalidArgument, "100", "(#100) m", "", 400},
		{"OAuth's", 401, `{"error":"invalid_client","error_description":"d"}`, upstream.Unauthenticated, "", "invalid_client", "d", 401},
		{"a conflict", 409, `{"error":"too many destinations"}`, upstream.FailedPrecondition, "", "too many destinations", "", 409},
		{"a message", 403, `{"message":"no"}`, upstream.PermissionDenied, "", "no", "", 403},
		{"a detail", 422, `{"detail":"bad"}`, upstream.InvalidArgument, "", "bad", "", 422},
		{"plain text", 403, "Forbidden\n", upstream.PermissionDenied, "", "Forbidden", "", 403},
		{"a page of HTML", 404, "<html>Not found</html>", upstream.NotFound, "", "no more than its status", "", 404},
		{"nothing", 400, "", upstream.InvalidArgument, "", "no more than its status", "", 400},
		{"a list", 400, "[1]", upstream.InvalidArgument, "", "no more than its status", "", 400},
		{"HTML with 200", 200, "<html>", upstream.Unknown, "", "another shape", "", 200},
		{"another shape", 200, `{"webhook_url":1}`, upstream.Unknown, "", "another shape", "", 200},
	} {
		f := start(t)
		f.api.Fail(upstreamtest.Failure{Status: c.status, Body: c.body})
		_, err := f.client.GetPartnerWebhook(t.Context(), partner())
		got := f.refused(err)
		if got.Kind != c.kind || got.Code != c.code || got.HTTPStatus != c.shown || !strings.Contains(got.Message, c.text) || strings.Join(got.Details, "|") != c.details || got.RetryAfter != 0 {
			t.Errorf("%s: %+v", c.name, got)
		}
		if !strings.Contains(got.Error(), c.text) || !strings.Contains(got.Error(), fmt.Sprint("status ", c.shown)) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestASettingMayBeAnsweredWithNothing(t *testing.T) {
	for body, works := range map[string]bool{"": true, "{}": true, `{"meta":{"success":true}}`: true, `"ok"`: true, "<html>": false} {
		f := start(t)
		f.api.Fail(upstreamtest.Failure{Status: 200, Body: body})
		if err := f.client.SetChannelWebhook(t.Context(), key(), webhook()); (err == nil) != works {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for name := range operations(nil) {
		for _, failure := range []upstreamtest.Failure{
			{Status: 502, Body: "<html>"}, {Status: 503, Body: `{"error":"later"}`}, {Status: 429, Body: "{}"}, {Status: 429, Header: http.Header{"Retry-After": {"3"}}}, {Hang: true},
		} {
			synctest.Test(t, func(t *testing.T) {
				f := start(t)
				f.api.Fail(failure)
				if err := operations(f.client)[name](t.Context()); err != nil || len(f.api.Requests()) != 2 {
					t.Errorf("%s after %+v: %v, %d requests", name, failure, err, len(f.api.Requests()))
				}
			})
		}
	}
}

func TestTooManyRequestsSayWhenToComeBack(t *testing.T) {
	for after, want := range map[string]time.Duration{"": 30 * time.Second, "7": 7 * time.Second, "x": 30 * time.Second, "-1": 30 * time.Second, "999999999": 24 * time.Hour, "moment": 90 * time.Second, "passed": time.Second} {
		synctest.Test(t, func(t *testing.T) {
			switch after {
			case "moment":
				after = time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
			case "passed":
				after = time.Now().Add(-90 * time.Second).UTC().Format(http.TimeFormat)
			}
			f := start(t)
			f.api.FailTimes(100, upstreamtest.Failure{Status: 429, Header: http.Header{"Retry-After": {after}}, Body: `{"error":"slow down"}`})
			began := time.Now()
			_, err := f.client.GetChannelWebhook(t.Context(), key())
			got := f.refused(err)
			// 360dialog counts five requests in half a minute: not all of them are for repetitions.
			if got.Kind != upstream.ResourceExhausted || got.RetryAfter != want || time.Since(began) > upstream.RetryBudget || want > time.Second && len(f.api.Requests()) > 3 {
				t.Errorf("%q: %+v after %v and %d requests", after, got, time.Since(began), len(f.api.Requests()))
			}
		})
	}
}

func TestNothingIsTriedForMoreThanFiveSeconds(t *testing.T) {
	for _, failure := range []upstreamtest.Failure{{Status: 500, Body: "{}"}, {Hang: true}} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t)
			f.api.FailTimes(100, failure)
			began := time.Now()
			err := f.client.SetChannelWebhook(t.Context(), key(), webhook())
			if got := f.refused(err); got.Kind != upstream.Unavailable || time.Since(began) > upstream.RetryBudget {
				t.Errorf("%+v after %v", got, time.Since(began))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := f.client.SetChannelWebhook(ctx, key(), webhook()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
}
