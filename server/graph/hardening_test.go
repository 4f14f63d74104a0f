package graph_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

// What an attacker who answers in Meta's place, or reads what is printed, is denied.

// A provider that repeats what it was sent, whole or in part, in every text of its answer.
func TestNoOperationLeaksWhatTheProviderRepeats(t *testing.T) {
	everything := strings.Join(secrets(), " and ") + " or " + userToken[:14] + "..., access_token=" + url.QueryEscape(appID+"|"+appSecret)
	for name := range operations(nil, "") {
		for _, status := range []int{400, 500} {
			synctest.Test(t, func(t *testing.T) {
				f := bubble(t)
				failure := upstreamtest.Failure{Status: status, Header: http.Header{"X-Fb-Trace-Id": {everything}, "Content-Type": {everything}}, Body: fmt.Sprintf(
					`{"error":{"message":%q,"type":%q,"code":131000,"error_subcode":1,"error_user_title":%q,"error_user_msg":%q,"fbtrace_id":%q,"error_data":%q}}`,
					everything, everything, everything, everything, everything, everything)}
				f.api.FailTimes(10, failure)
				got := f.refused(operations(f.client, "https://relay.example/")[name](t.Context(), secretive(name)))
				if !strings.Contains(got.Message, "[secret]") || !strings.Contains(got.UserMessage, "[secret]") {
					t.Errorf("%s: %+v", name, got)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				f := bubble(t)
				f.api.FailTimes(10, upstreamtest.Failure{Status: status, Body: everything, Header: http.Header{"Content-Type": {everything}}})
				f.clean(operations(f.client, "https://relay.example/")[name](t.Context(), secretive(name)))
			})
		}
		synctest.Test(t, func(t *testing.T) {
			f := bubble(t)
			f.connect(graph.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				return nil, fmt.Errorf("dial with %s %v: %s", r.URL, r.Header, everything)
			})})
			f.clean(operations(f.client, "https://relay.example/")[name](t.Context(), secretive(name)))
		})
	}
}

// secretive are credentials with which the provider could only repeat what this call has sent: of two tokens it knows one.
func secretive(name string) graph.Credentials {
	cred := credFor(name)
	cred.AccessToken = upstream.NewSecret(strings.Join([]string{userToken, pageToken, igToken, verifyToken, proof(userToken), proof(appID + "|" + appSecret)}, "."))
	return cred
}

func TestCredentialsDoNotPrint(t *testing.T) {
	type holder struct {
		hidden graph.Credentials
		Shown  graph.Credentials
	}
	h := &holder{hidden: user(), Shown: user()}
	for _, value := range []any{user(), h, *h, map[string]any{"x": user()}, []graph.Credentials{user()}, h.hidden.AccessToken, &h.hidden.AppSecret} {
		holdsNoSecret(t, "a value", dump(value))
	}
	if got := fmt.Sprint(user()); got != "{"+appID+" [secret] [secret]}" {
		t.Error(got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached int
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308, 300, 304} {
		f := start(t, graphtest.Options{})
		f.api.FailTimes(5, upstreamtest.Failure{Status: status, Header: http.Header{"Location": {elsewhere.URL + "/?access_token=" + userToken}}})
		_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
		if got := f.refused(err); got.HTTPStatus != status || !strings.Contains(got.Message, "redirect") {
			t.Errorf("%+v", got)
		}
	}
	if reached != 0 {
		t.Errorf("a redirect was followed")
	}
}

func TestAListWithoutEndEnds(t *testing.T) {
	next := func(after string) string {
		return fmt.Sprintf(`{"data":[],"paging":{"cursors":{"after":%q},"next":"https://graph.facebook.com/v24.0/1/subscribed_apps?access_token=%s&after=x"}}`, after, userToken)
	}
	many := `{"data":[` + strings.Repeat(`{},`, 10_000) + `{}],"paging":{"cursors":{"after":"1"},"next":"x"}}`
	n := 0
	for name, c := range map[string]struct {
		answer func() string
		want   string
		most   int
	}{
		"ever new pages":     {func() string { n++; return next(fmt.Sprint("c", n)) }, "100 pages", 100},
		"the same page":      {func() string { return next("same") }, "circle", 2},
		"two that alternate": {func() string { n++; return next(strconv.Itoa(n % 2)) }, "circle", 3},
		"no cursor":          {func() string { return `{"data":[],"paging":{"next":"https://x/?access_token=` + userToken + `"}}` }, "no cursor", 1},
		"an odd link":        {func() string { return `{"data":[],"paging":{"next":":%` + userToken + `"}}` }, "no cursor", 1},
		"too many entries":   {func() string { return many }, "10000 entries", 1},
	} {
		f := start(t, graphtest.Options{})
		calls := 0
		f.connect(graph.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			calls++
			if r.URL.Host != "graph.facebook.com" || r.URL.Query().Has("access_token") {
				t.Errorf("%s: called %s", name, r.URL)
			}
			return httpAnswer(200, c.answer()), nil
		})})
		_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
		if got := f.refused(err); !strings.Contains(got.Message, c.want) || calls > c.most {
			t.Errorf("%s: %+v after %d calls", name, got, calls)
		}
	}
}

func TestACursorIsTakenFromTheLinkWhereItIsOnlyThere(t *testing.T) {
	var queries []string
	f := start(t, graphtest.Options{})
	f.connect(graph.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		queries = append(queries, r.URL.Query().Get("after"))
		if len(queries) == 1 {
			return httpAnswer(200, `{"data":[],"paging":{"next":"https://elsewhere.example/?access_token=`+userToken+`&after=a%26b"}}`), nil
		}
		return httpAnswer(200, `{"data":[{"whatsapp_business_api_data":{"id":12}}]}`), nil
	})})
	apps, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
	if f.works(err); len(apps) != 1 || apps[0].ID != "12" || strings.Join(queries, ",") != ",a&b" {
		t.Errorf("%v with %q", apps, queries)
	}
}

// spaces is a body of a given length that counts what is read of it.
type spaces struct{ left, read int }

func (s *spaces) Read(p []byte) (int, error) {
	n := min(len(p), s.left)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = ' '
	}
	s.left, s.read = s.left-n, s.read+n
	return n, nil
}

func TestAnEndlessAnswerIsNotReadToItsEnd(t *testing.T) {
	f := start(t, graphtest.Options{})
	body := &spaces{left: 64 << 20}
	f.connect(graph.Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
	})})
	_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
	if got := f.refused(err); !strings.Contains(got.Message, "longer than") || body.read > 2<<20 {
		t.Errorf("%+v after %d bytes", got, body.read)
	}
}

func TestTheProofIsNotRepeated(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.api.Fail(graphtest.Failed(400, 100, 0, false, "bad appsecret_proof "+proof(userToken)), graphtest.Failed(400, 100, 0, false, "bad appsecret_proof "+proof(appID+"|"+appSecret)))
	_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
	f.refused(err)
	_, err = f.client.ListAppSubscriptions(t.Context(), user())
	f.refused(err)
}

func TestALongMessageIsCut(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.api.Fail(graphtest.Failed(400, 190, 0, false, strings.Repeat("ä", 100_000)))
	_, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba)
	if got := f.refused(err); len(got.Message) > 1100 || len(err.Error()) > 1500 {
		t.Errorf("%d bytes", len(got.Message))
	}
}

func TestManyMayCallAtOnce(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	f.api.SetHeader(appUsage, `{"call_count":7}`)
	f.api.SetHeader(businessUsage, `{"77":[{"type":"whatsapp","call_count":7}]}`)
	var all sync.WaitGroup
	for i := range 4 {
		for name, operation := range operations(f.client, back.at("/")) {
			if name == "SubscribeWABA" {
				continue // the others set overrides
			}
			all.Go(func() {
				if err := operation(context.Background(), credFor(name)); err != nil {
					t.Errorf("%s, %d: %v", name, i, err)
				}
			})
		}
	}
	all.Wait()
}
