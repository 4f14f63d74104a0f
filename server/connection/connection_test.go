package connection

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/dialog360"
	"eventrelay/server/dialog360/dialog360test"
	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

const (
	appID, appSecret = "1234", "app-secret-0123456789"
	accessToken      = "access-token-0123456789"
	verifyToken      = "verify-token-0123456789"
	partnerKey       = "partner-key-0123456789"
	channelKey       = "channel-key-0123456789"
)

// world is a relay's callback, the stand-ins of the providers, and the clients of their APIs.
type world struct {
	t         *testing.T
	graph     *graphtest.Server
	dialog360 *dialog360test.Server
	providers Providers
	// base is the public address of the callback, which answers Meta's handshake.
	base string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("hub.verify_token") != verifyToken {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, r.FormValue("hub.challenge"))
	}))
	t.Cleanup(callback.Close)
	w := &world{
		t: t, base: strings.Replace(callback.URL, "http://", "https://", 1),
		graph: graphtest.NewServer(graphtest.Options{PlainLoopback: true, PageSize: 2}), dialog360: dialog360test.NewServer(),
	}
	t.Cleanup(w.graph.Close)
	t.Cleanup(w.dialog360.Close)
	w.graph.AddApp(appID, appSecret, "Relay")
	w.graph.AddToken(accessToken, appID, graphtest.UserToken)
	for _, waba := range []string{"101", "102", "103"} {
		w.graph.AddWABA(waba)
	}
	w.dialog360.AddPartner("PA1", partnerKey)
	w.dialog360.AddChannel(channelKey, "101")
	var err error
	if w.providers.Graph, err = graph.New(graph.Options{BaseURL: w.graph.URL}); err != nil {
		t.Fatal(err)
	}
	if w.providers.Dialog360, err = dialog360.New(dialog360.Options{HubURL: w.dialog360.URL, WABAURL: w.dialog360.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.providers.Graph.Close)
	t.Cleanup(w.providers.Dialog360.Close)
	return w
}

// meta is a source of Meta's that declares two objects and three accounts, one with an override.
func (w *world) meta() Source {
	return Source{
		Name: "sources/shop", Provider: eventrelayv1.Provider_PROVIDER_META, WebhookPath: "/webhooks/shop",
		Meta:        graph.Credentials{AppID: appID, AppSecret: upstream.NewSecret(appSecret), AccessToken: upstream.NewSecret(accessToken)},
		VerifyToken: upstream.NewSecret(verifyToken),
		Subscriptions: &eventrelayv1.SourceSubscriptions{
			PublicBaseUrl: w.base + "/",
			Objects: []*eventrelayv1.ObjectSubscription{
				{Object: "whatsapp_business_account", Fields: []string{"messages", "account_update"}},
				{Object: "page", Fields: []string{"feed"}},
			},
			WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{
				{Id: "101"}, {Id: "102", OverrideCallbackUri: w.base + "/webhooks/other"}, {Id: "103"},
			},
		},
	}
}

func (w *world) establish(s Source) []string {
	w.t.Helper()
	steps, err := w.providers.Establish(w.t.Context(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for _, step := range steps {
		lines = append(lines, fmt.Sprintf("%s %s %s", step.Action, step.Target, strings.TrimPrefix(step.Outcome.String(), "STEP_OUTCOME_")))
	}
	return lines
}

func (w *world) check(s Source) []string {
	w.t.Helper()
	findings, err := w.providers.Check(w.t.Context(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for _, f := range findings {
		if f.GetHint() == "" {
			w.t.Errorf("%v does not say what to do", f)
		}
		line := fmt.Sprintf("%s %s %s: %s -> %s", strings.TrimPrefix(f.GetKind().String(), "FINDING_KIND_"), f.GetTarget(), f.GetField(), f.GetExpected(), f.GetActual())
		lines = append(lines, strings.ReplaceAll(line, w.base, "BASE"))
	}
	return lines
}

func wantLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestConnectingSetsUpWhatIsDeclaredAndMayBeRepeated(t *testing.T) {
	w := newWorld(t)
	s := w.meta()
	wantLines(t, "before", w.check(s), []string{
		"MISSING appSubscriptions/whatsapp_business_account : BASE/webhooks/shop -> ",
		"MISSING appSubscriptions/page : BASE/webhooks/shop -> ",
		"MISSING whatsappBusinessAccounts/101 : BASE/webhooks/shop -> ",
		"MISSING whatsappBusinessAccounts/102 : BASE/webhooks/other -> ",
		"MISSING whatsappBusinessAccounts/103 : BASE/webhooks/shop -> ",
	})
	steps := []string{
		"CreateAppSubscription whatsapp_business_account", "CreateAppSubscription page",
		"SubscribeWhatsAppBusinessAccount 101", "SubscribeWhatsAppBusinessAccount 102", "SubscribeWhatsAppBusinessAccount 103",
	}
	with := func(outcome string) (lines []string) {
		for _, step := range steps {
			lines = append(lines, step+" "+outcome)
		}
		return lines
	}
	wantLines(t, "the first time", w.establish(s), with("DONE"))
	wantLines(t, "after it", w.check(s), nil)
	w.graph.Forget()
	wantLines(t, "the second time", w.establish(s), with("UNCHANGED"))
	for _, r := range w.graph.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("the second time changed something: %s %s", r.Method, r.Path)
		}
	}
}

func TestACheckFindsWhatMoved(t *testing.T) {
	w := newWorld(t)
	s := w.meta()
	w.establish(s)
	ctx := t.Context()
	elsewhere := w.base + "/elsewhere"
	for _, err := range []error{
		w.providers.Graph.CreateAppSubscription(ctx, s.Meta, "page", elsewhere, verifyToken, []string{"mention"}, true),
		w.providers.Graph.CreateAppSubscription(ctx, s.Meta, "instagram", elsewhere, verifyToken, []string{"comments"}, true),
		w.providers.Graph.DeleteAppSubscription(ctx, s.Meta, "whatsapp_business_account", []string{"account_update"}),
		w.providers.Graph.SetWABAOverride(ctx, s.Meta, "101", elsewhere, verifyToken),
		w.providers.Graph.ClearWABAOverride(ctx, s.Meta, "102"),
		w.providers.Graph.UnsubscribeWABA(ctx, s.Meta, "103"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"ELSEWHERE appSubscriptions/page : BASE/webhooks/shop -> BASE/elsewhere",
		"EXTRA appSubscriptions/page mention:  -> mention",
		"EXTRA appSubscriptions/instagram :  -> BASE/elsewhere",
		"MISSING appSubscriptions/whatsapp_business_account account_update: account_update -> ",
		"ELSEWHERE whatsappBusinessAccounts/101 : BASE/webhooks/shop -> BASE/elsewhere",
		"ELSEWHERE whatsappBusinessAccounts/102 : BASE/webhooks/other -> BASE/webhooks/shop",
		"MISSING whatsappBusinessAccounts/103 : BASE/webhooks/shop -> ",
	}
	got := w.check(s)
	slices.Sort(got)
	slices.Sort(want)
	wantLines(t, "after changes behind our back", got, want)

	// Connecting mends all but what it would have to take away.
	wantLines(t, "connecting again", w.establish(s), []string{
		"CreateAppSubscription whatsapp_business_account DONE", "CreateAppSubscription page DONE",
		"SubscribeWhatsAppBusinessAccount 101 FAILED", "SubscribeWhatsAppBusinessAccount 102 DONE", "SubscribeWhatsAppBusinessAccount 103 DONE",
	})
	got = w.check(s)
	slices.Sort(got)
	wantLines(t, "after connecting again", got, []string{
		"ELSEWHERE whatsappBusinessAccounts/101 : BASE/webhooks/shop -> BASE/elsewhere",
		"EXTRA appSubscriptions/instagram :  -> BASE/elsewhere",
		"EXTRA appSubscriptions/page mention:  -> mention",
	})
	if steps, _ := w.providers.Establish(ctx, s); !errors.Is(steps[2].Err, graph.ErrOverrideWouldBeLost) {
		t.Errorf("account 101: %v, want that its override would be lost", steps[2].Err)
	}
}

func TestAStepThatFailsCostsNoOther(t *testing.T) {
	w := newWorld(t)
	s := w.meta()
	s.VerifyToken = upstream.NewSecret("not what the callback expects")
	lines := w.establish(s)
	wantLines(t, "with a wrong verify token", lines, []string{
		"CreateAppSubscription whatsapp_business_account FAILED", "CreateAppSubscription page FAILED",
		"SubscribeWhatsAppBusinessAccount 101 DONE", "SubscribeWhatsAppBusinessAccount 102 FAILED", "SubscribeWhatsAppBusinessAccount 103 DONE",
	})
	w.graph.FailTimes(100, upstreamtest.Failure{Status: 500, Body: `{"error":{"message":"no","code":200}}`})
	got := w.check(w.meta())
	if len(got) != 4 || !strings.HasPrefix(got[0], "UNKNOWN appSubscriptions") || !strings.HasPrefix(got[3], "UNKNOWN whatsappBusinessAccounts/103") {
		t.Errorf("while lookups fail: %q", got)
	}
}

func TestA360dialogSourceIsConnectedAndChecked(t *testing.T) {
	w := newWorld(t)
	declared := &eventrelayv1.SourceSubscriptions{PublicBaseUrl: "https://hooks.example.com"}
	partner := Source{
		Name: "sources/partner", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER, WebhookPath: "/webhooks/partner", Subscriptions: declared,
		Partner: dialog360.PartnerCredentials{PartnerID: "PA1", PartnerAPIKey: upstream.NewSecret(partnerKey)},
	}
	wantLines(t, "partner, before", w.check(partner), []string{"MISSING partnerWebhook : https://hooks.example.com/webhooks/partner -> "})
	wantLines(t, "partner", w.establish(partner), []string{"SetPartnerWebhook partnerWebhook DONE"})
	wantLines(t, "partner, again", w.establish(partner), []string{"SetPartnerWebhook partnerWebhook UNCHANGED"})
	if err := w.providers.Dialog360.SetPartnerWebhook(t.Context(), partner.Partner, "https://other.example.com/x"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, "partner, moved", w.check(partner), []string{"ELSEWHERE partnerWebhook : https://hooks.example.com/webhooks/partner -> https://other.example.com/x"})

	channel := Source{
		Name: "sources/number", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL, WebhookPath: "/webhooks/number", Subscriptions: declared,
		ChannelAPIKey: upstream.NewSecret(channelKey), Headers: map[string]upstream.Secret{"Authorization": upstream.NewSecret("Basic c2VjcmV0OnNlY3JldA==")},
	}
	wantLines(t, "channel", w.establish(channel), []string{"SetChannelWebhook channelWebhook DONE"})
	wantLines(t, "channel, again", w.establish(channel), []string{"SetChannelWebhook channelWebhook UNCHANGED"})
	channel.Headers["authorization"] = upstream.NewSecret("Basic cm90YXRlZDpyb3RhdGVk")
	delete(channel.Headers, "Authorization")
	wantLines(t, "channel, another header", w.check(channel), []string{`MISSING channelWebhook headers["authorization"]:  -> `})
	wantLines(t, "channel, connected with it", w.establish(channel), []string{"SetChannelWebhook channelWebhook DONE"})
	wantLines(t, "channel, after it", w.check(channel), nil)
}

func TestWhatCannotBeSetUpIsAnErrorThatNamesTheField(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	undeclared := w.meta()
	undeclared.Subscriptions = nil
	nothing := w.meta()
	nothing.Subscriptions = &eventrelayv1.SourceSubscriptions{PublicBaseUrl: w.base}
	for _, s := range []Source{undeclared, nothing} {
		_, err := w.providers.Establish(ctx, s)
		_, checkErr := w.providers.Check(ctx, s)
		if !errors.Is(err, ErrNotDeclared) || !errors.Is(checkErr, ErrNotDeclared) {
			t.Errorf("nothing declared: %v and %v", err, checkErr)
		}
	}
	for _, base := range []string{"http://hooks.example.com", "hooks.example.com", "https://", "https://user:password@hooks.example.com", "https://hooks.example.com?x=1", "https://a b"} {
		s := w.meta()
		s.Subscriptions.PublicBaseUrl = base
		_, err := w.providers.Establish(ctx, s)
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "subscriptions.public_base_url" || strings.Contains(err.Error(), "password@") {
			t.Errorf("%s: %v", base, err)
		}
	}
	for field, take := range map[string]func(*Source){
		"app_id":       func(s *Source) { s.Meta.AppID = "" },
		"app_secrets":  func(s *Source) { s.Meta.AppSecret = upstream.Secret{} },
		"access_token": func(s *Source) { s.Meta.AccessToken = upstream.Secret{}; s.Subscriptions.Objects = nil },
	} {
		s := w.meta()
		take(&s)
		var missing *upstream.CredentialMissingError
		if _, err := w.providers.Check(ctx, s); !errors.As(err, &missing) || missing.Field != field {
			t.Errorf("without %s: %v", field, err)
		}
	}
}

func TestNoWayOfPrintingASourceShowsASecret(t *testing.T) {
	s := newWorld(t).meta()
	s.Partner.PartnerAPIKey, s.ChannelAPIKey = upstream.NewSecret(partnerKey), upstream.NewSecret(channelKey)
	for _, text := range []string{fmt.Sprintf("%v", s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s)} {
		for _, secret := range []string{appSecret, accessToken, verifyToken, partnerKey, channelKey} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", secret, text)
			}
		}
	}
}
