package graph_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

func TestEveryCodeHasItsKind(t *testing.T) {
	type row struct {
		code, subcode, status int
		transient             bool
		want                  upstream.Kind
	}
	rows := []row{
		{code: 102, want: upstream.Unauthenticated},
		{code: 190, want: upstream.Unauthenticated},
		{code: 190, subcode: 463, want: upstream.Unauthenticated},
		{code: 3, want: upstream.PermissionDenied},
		{code: 10, want: upstream.PermissionDenied},
		{code: 100, want: upstream.InvalidArgument},
		{code: 100, subcode: 2388001, want: upstream.InvalidArgument},
		{code: 100, subcode: 33, want: upstream.NotFound},
		{code: 1, want: upstream.Unavailable},
		{code: 2, want: upstream.Unavailable},
		{code: 999, transient: true, want: upstream.Unavailable},
		{code: 368, transient: true, want: upstream.Unavailable},
		{code: 2200, want: upstream.FailedPrecondition},
		{code: 199, want: upstream.Unknown},
		{code: 300, want: upstream.Unknown},
		{code: 368, want: upstream.Unknown},
		{code: 131000, status: 500, want: upstream.Internal},
		// A code of the table says more than the flag, and both say more than the status.
		{code: 4, transient: true, want: upstream.ResourceExhausted},
		{code: 190, transient: true, want: upstream.Unauthenticated},
		{code: 100, status: 500, want: upstream.InvalidArgument},
		{code: 999, transient: true, status: 403, want: upstream.Unavailable},
		// Without a code there is the status.
		{status: 401, want: upstream.Unauthenticated},
		{status: 403, want: upstream.PermissionDenied},
		{status: 404, want: upstream.NotFound},
		{status: 429, want: upstream.ResourceExhausted},
		{status: 503, want: upstream.Unavailable},
		{status: 200, want: upstream.Unknown},
	}
	for code := 200; code <= 299; code++ {
		rows = append(rows, row{code: code, want: upstream.PermissionDenied})
	}
	for _, code := range []int{4, 17, 32, 613, 80007, 80008, 130429} {
		rows = append(rows, row{code: code, want: upstream.ResourceExhausted})
	}
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		for _, r := range rows {
			if r.status == 0 {
				r.status = 400
			}
			f.api.FailTimes(20, graphtest.Failed(r.status, r.code, r.subcode, r.transient, "what went wrong"))
			_, err := f.client.ListAppSubscriptions(t.Context(), user())
			for { // what was not asked for again is still there to be given out
				if _, err := f.client.ListAppSubscriptions(t.Context(), user()); err == nil {
					break
				}
			}
			got := f.refused(err)
			if got.Kind != r.want {
				t.Errorf("code %d, subcode %d, status %d, transient %v is %v; want %v", r.code, r.subcode, r.status, r.transient, got.Kind, r.want)
			}
			got.Kind = 0
			want := graph.Error{
				HTTPStatus: r.status, Code: r.code, Subcode: r.subcode, Transient: r.transient, Type: "OAuthException", Message: "what went wrong",
				UserTitle: "Title for people", UserMessage: "Message for people", TraceID: "Afailed",
			}
			if *got != want {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		}
	})
}

// Errors are not always as documented: what can be read of one counts.
func TestErrorsOfOtherShapesAreUnderstood(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		body    string
		kind    upstream.Kind
		code    int
		message string
	}{
		{"a page of HTML", 400, "<!DOCTYPE html><html>Sorry, something went wrong " + userToken, upstream.InvalidArgument, 0, "not a JSON object"},
		{"nothing", 400, "", upstream.InvalidArgument, 0, "empty"},
		{"HTML with 200", 200, "<html>", upstream.Unknown, 0, "not a JSON object"},
		{"a list", 200, "[]", upstream.Unknown, 0, "not a JSON object"},
		{"half of it", 200, `{"data":[`, upstream.Unknown, 0, "not a JSON object"},
		{"another shape", 200, `{"data":"x"}`, upstream.Unknown, 0, "another shape"},
		{"an error with 200", 200, `{"error":{"message":"m","code":190}}`, upstream.Unauthenticated, 190, "m"},
		{"a word", 401, `{"error":"invalid_token"}`, upstream.Unauthenticated, 0, "invalid_token"},
		{"codes in quotes", 400, `{"error":{"message":"m","code":"100","error_subcode":"33","is_transient":"false"}}`, upstream.NotFound, 100, "m"},
		{"parts of unknown shape", 400, `{"error":{"message":"m","code":190,"error_user_msg":{"x":1},"error_subcode":[],"error_data":"d","fbtrace_id":null}}`, upstream.Unauthenticated, 190, "m"},
		{"no error", 403, `{"x":1}`, upstream.PermissionDenied, 0, "no more than its status"},
		{"a null error", 404, `{"error":null}`, upstream.NotFound, 0, "no more than its status"},
		{"no message", 400, `{"error":{"code":3}}`, upstream.PermissionDenied, 3, "without a message"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, graphtest.Options{})
			f.api.Fail(upstreamtest.Failure{Status: c.status, Body: c.body, Header: http.Header{"X-Fb-Trace-Id": {"Aheader"}}})
			_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
			got := f.refused(err)
			if got.Kind != c.kind || got.Code != c.code || got.HTTPStatus != c.status || !strings.Contains(got.Message, c.message) {
				t.Errorf("%+v", got)
			}
			if got.Code != 0 && got.TraceID != "Aheader" {
				t.Errorf("trace %q", got.TraceID)
			}
		})
	}
}

func TestSuccessIsUnderstoodAndItsAbsenceToo(t *testing.T) {
	for body, works := range map[string]bool{
		`{"success":true}`: true, `{"success":"true"}`: true, `{"success":true,"new":{"key":1}}`: true, `{"success":false}`: false, `{"success":"false"}`: false, `{"success":null}`: false, `{}`: false,
	} {
		f := start(t, graphtest.Options{})
		f.api.Fail(upstreamtest.Failure{Status: 200, Body: body})
		err := f.client.UnsubscribeWABA(t.Context(), user(), waba)
		if works {
			f.works(err)
		} else if got := f.refused(err); got.Kind != upstream.Unknown || !strings.Contains(got.Message, "succe") {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

// Every operation that there is, for what holds of all.
func operations(c *graph.Client, uri string) map[string]func(ctx context.Context, cred graph.Credentials) error {
	return map[string]func(ctx context.Context, cred graph.Credentials) error{
		"ListWABASubscribedApps": func(ctx context.Context, cred graph.Credentials) error {
			_, err := c.ListWABASubscribedApps(ctx, cred, waba)
			return err
		},
		"SubscribeWABA": func(ctx context.Context, cred graph.Credentials) error { return c.SubscribeWABA(ctx, cred, waba) },
		"SetWABAOverride": func(ctx context.Context, cred graph.Credentials) error {
			return c.SetWABAOverride(ctx, cred, waba, uri, verifyToken)
		},
		"ClearWABAOverride": func(ctx context.Context, cred graph.Credentials) error { return c.ClearWABAOverride(ctx, cred, waba) },
		"UnsubscribeWABA":   func(ctx context.Context, cred graph.Credentials) error { return c.UnsubscribeWABA(ctx, cred, waba) },
		"GetPhoneOverride": func(ctx context.Context, cred graph.Credentials) error {
			_, err := c.GetPhoneOverride(ctx, cred, phoneNumber)
			return err
		},
		"SetPhoneOverride": func(ctx context.Context, cred graph.Credentials) error {
			return c.SetPhoneOverride(ctx, cred, phoneNumber, uri, verifyToken)
		},
		"ClearPhoneOverride": func(ctx context.Context, cred graph.Credentials) error {
			return c.ClearPhoneOverride(ctx, cred, phoneNumber)
		},
		"ListAppSubscriptions": func(ctx context.Context, cred graph.Credentials) error {
			_, err := c.ListAppSubscriptions(ctx, cred)
			return err
		},
		"CreateAppSubscription": func(ctx context.Context, cred graph.Credentials) error {
			return c.CreateAppSubscription(ctx, cred, "page", uri, verifyToken, []string{"feed"}, true)
		},
		"DeleteAppSubscription": func(ctx context.Context, cred graph.Credentials) error {
			return c.DeleteAppSubscription(ctx, cred, "page", nil)
		},
		"ListSubscribedApps": func(ctx context.Context, cred graph.Credentials) error {
			_, err := c.ListSubscribedApps(ctx, cred, graph.Page(pageID))
			return err
		},
		"Subscribe": func(ctx context.Context, cred graph.Credentials) error {
			return c.Subscribe(ctx, cred, graph.Page(pageID), []string{"feed"})
		},
		"Unsubscribe": func(ctx context.Context, cred graph.Credentials) error {
			return c.Unsubscribe(ctx, cred, graph.Page(pageID))
		},
	}
}

// credFor returns the credentials that an operation works with.
func credFor(name string) graph.Credentials {
	if strings.HasSuffix(name, "SubscribedApps") && !strings.Contains(name, "WABA") || name == "Subscribe" || name == "Unsubscribe" {
		return ofPage()
	}
	return user()
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for name := range operations(nil, "") {
		for _, failure := range []upstreamtest.Failure{
			graphtest.Failed(400, 2, 0, false, "Service temporarily unavailable"), graphtest.Failed(400, 1, 0, false, "m"), graphtest.Failed(400, 368, 0, true, "m"),
			graphtest.Failed(500, 131000, 0, false, "m"),
			{Status: 502, Body: "<html>"},
			{Hang: true},
		} {
			synctest.Test(t, func(t *testing.T) {
				f := bubble(t)
				if failure.Hang && (strings.HasPrefix(name, "Set") || strings.HasPrefix(name, "Create")) {
					return // there is no time left after one that may be waiting for a callback
				}
				f.api.Fail(failure)
				if err := operations(f.client, "https://relay.example/")[name](t.Context(), credFor(name)); err != nil {
					t.Errorf("%s after %+v: %v", name, failure, err)
				}
				if n := len(f.api.Requests()); n < 2 {
					t.Errorf("%s after %+v: %d requests", name, failure, n)
				}
			})
		}
	}
}

func TestAnAnswerThatIsCutShortIsAskedForAgain(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.api.Fail(upstreamtest.Failure{Status: 200, Body: `{"data":[`, Cut: true})
	if apps, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba); err != nil || len(apps) != 0 || len(f.api.Requests()) != 2 {
		t.Errorf("%v, %v after %d requests", apps, err, len(f.api.Requests()))
	}
}

func TestWhatLastsIsNotTriedAgain(t *testing.T) {
	f := start(t, graphtest.Options{})
	for _, failure := range []upstreamtest.Failure{
		graphtest.Failed(400, 190, 0, false, "m"), graphtest.Failed(400, 4, 0, true, "m"), graphtest.Failed(400, 80008, 0, false, "m"), graphtest.Failed(400, 368, 0, false, "m"),
		graphtest.Failed(400, 2200, 0, false, "m"),
		{Status: 403, Body: "{}"},
		{Status: 429, Body: "{}"},
		{Status: 302, Header: http.Header{"Location": {"https://elsewhere.example/"}}},
	} {
		f.api.Forget()
		f.api.Fail(failure)
		f.refused(f.client.ClearPhoneOverride(t.Context(), user(), phoneNumber))
		if n := len(f.api.Requests()); n != 1 {
			t.Errorf("%s: %d requests", failure.Body, n)
		}
	}
}

// The look and the POST belong together: after a failed POST there is another look.
func TestSubscribingLooksAgainBeforeItPostsAgain(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
	for _, n := range []int{0, 1} { // the look fails, then the POST
		f.api.Forget()
		if n == 1 {
			f.connect(graph.Options{BaseURL: f.api.URL, Transport: failingOnce(http.MethodPost)})
		} else {
			f.api.Fail(graphtest.Failed(500, 2, 0, true, "later"))
		}
		f.works(f.client.SubscribeWABA(t.Context(), user(), waba))
		var methods []string
		for _, r := range f.api.Requests() {
			methods = append(methods, r.Method)
		}
		if got := strings.Join(methods, " "); got != "GET GET POST" {
			t.Errorf("sent %s", got)
		}
	}
}

// failingOnce loses the first request of that method on its way.
func failingOnce(method string) roundTrip {
	failed := false
	return func(r *http.Request) (*http.Response, error) {
		if r.Method == method && !failed {
			failed = true
			return nil, errors.New("connection reset by peer")
		}
		return http.DefaultTransport.RoundTrip(r)
	}
}

func TestNothingIsTriedForMoreThanFiveSeconds(t *testing.T) {
	for name, failure := range map[string]upstreamtest.Failure{"refuses": {Status: 503, Body: "{}"}, "hangs": {Hang: true}} {
		synctest.Test(t, func(t *testing.T) {
			f := bubble(t)
			f.api.FailTimes(100, failure)
			began := time.Now()
			_, err := f.client.ListAppSubscriptions(t.Context(), user())
			if got := f.refused(err); got.Kind != upstream.Unavailable || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %+v", name, got)
			}
			if took := time.Since(began); took > upstream.RetryBudget {
				t.Errorf("%s: it took %v", name, took)
			}
			if n := len(f.api.Requests()); n < 2 || n > 8 {
				t.Errorf("%s: %d requests", name, n)
			}
		})
	}
}

func TestAHandshakeMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		f.connect(graph.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(upstream.HandshakeTimeout - time.Second):
				return httpAnswer(200, `{"success":true}`), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})})
		f.works(f.client.SetWABAOverride(t.Context(), user(), waba, "https://relay.example/", verifyToken))
		if got := f.refused(f.client.UnsubscribeWABA(t.Context(), user(), waba)); got.Kind != upstream.Unavailable {
			t.Errorf("%+v", got)
		}
	})
}

func TestTheCallersDeadlineIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		for _, failure := range []upstreamtest.Failure{{Hang: true}, {Status: 503, Body: "{}"}} {
			f.api.FailTimes(3, failure)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/10)
			err := f.client.SubscribeWABA(ctx, user(), waba)
			f.clean(err)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			cancel()
			err = f.client.SubscribeWABA(ctx, user(), waba)
			if f.clean(err); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestArgumentsThatMetaNeverTakesAreNotSent(t *testing.T) {
	f := start(t, graphtest.Options{})
	ctx, c, cred := t.Context(), f.client, user()
	long := "https://relay.example/" + strings.Repeat("x", 200-len("https://relay.example/"))
	for _, a := range []struct {
		field string
		err   error
	}{
		{"waba", c.SubscribeWABA(ctx, cred, "")},
		{"waba", c.UnsubscribeWABA(ctx, cred, "1/../2")},
		{"waba", c.ClearWABAOverride(ctx, cred, "1?x=1")},
		{"phone_number", c.ClearPhoneOverride(ctx, cred, "1#")},
		{"page", c.Unsubscribe(ctx, cred, graph.Page("a b"))},
		{"instagram_account", c.Unsubscribe(ctx, cred, graph.InstagramAccount(""))},
		{"app_id", c.DeleteAppSubscription(ctx, graph.Credentials{AppID: "1/2", AppSecret: cred.AppSecret}, "page", nil)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, "", verifyToken)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, "http://relay.example/", verifyToken)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, "relay.example", verifyToken)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, "https:///x", verifyToken)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, "https://user:pass@relay.example/", verifyToken)},
		{"override_callback_uri", c.SetWABAOverride(ctx, cred, waba, long+"x", verifyToken)},
		{"override_callback_uri", c.SetPhoneOverride(ctx, cred, phoneNumber, "https://relay.example/#x", verifyToken)},
		{"verify_token", c.SetPhoneOverride(ctx, cred, phoneNumber, long, "")},
		{"verify_token", c.SetWABAOverride(ctx, cred, waba, long, "")},
		{"callback_url", c.CreateAppSubscription(ctx, cred, "page", "http://x", verifyToken, nil, false)},
		{"object", c.CreateAppSubscription(ctx, cred, "", "https://x", verifyToken, nil, false)},
		{"fields[1]", c.CreateAppSubscription(ctx, cred, "page", "https://x", verifyToken, []string{"feed", "a,b"}, false)},
		{"object", c.DeleteAppSubscription(ctx, cred, "", nil)},
		{"object", c.DeleteAppSubscription(ctx, cred, " ", []string{"feed"})},
		{"fields[0]", c.DeleteAppSubscription(ctx, cred, "page", []string{""})},
		{"subscribed_fields", c.Subscribe(ctx, cred, graph.Page(pageID), nil)},
		{"subscribed_fields[0]", c.Subscribe(ctx, cred, graph.Page(pageID), []string{" feed"})},
	} {
		f.clean(a.err)
		var invalid *upstream.InvalidError
		if !errors.As(a.err, &invalid) || invalid.Field != a.field || strings.Contains(a.err.Error(), "pass@") {
			t.Errorf("%v is not about %s", a.err, a.field)
		}
	}
	for name, operation := range operations(c, "https://relay.example/") {
		err := operation(ctx, graph.Credentials{AppSecret: upstream.NewSecret(appSecret)})
		if f.clean(err); !errors.Is(err, upstream.ErrCredentialMissing) {
			t.Errorf("%s without credentials: %v", name, err)
		}
	}
	_, err := c.ListAppSubscriptions(ctx, graph.Credentials{AppID: appID, AccessToken: upstream.NewSecret(userToken)})
	if f.clean(err); !errors.Is(err, upstream.ErrCredentialMissing) || !strings.Contains(err.Error(), "app_secrets") {
		t.Errorf("without an app secret: %v", err)
	}
	if n := len(f.api.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if err := c.SetWABAOverride(ctx, cred, waba, long, verifyToken); !strings.Contains(fmt.Sprint(err), "2200") {
		t.Errorf("200 characters are not sent: %v", err)
	}
}
