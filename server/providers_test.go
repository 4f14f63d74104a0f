package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"eventrelay/server/dialog360/dialog360test"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream/upstreamtest"
)

// What an operator of the tests has from the providers.
const (
	shopAppID, shopSecret, shopNextSecret = "4711", "shop-app-secret-1", "shop-app-secret-2"
	shopToken                             = "EAAshop-access-token"
	shopVerifyToken                       = "shop-verify-token"
	partnerKey                            = "partner-api-key-0001"
	channelKey                            = "channel-api-key-0001"
)

// provided is a relay whose providers are stand-ins.
type provided struct {
	*relay
	graph     *graphtest.Server
	dialog360 *dialog360test.Server
	// public is the address that providers reach the webhooks at; the stand-in takes loopback for what a proxy with a certificate would be.
	public string
	log    record
}

func serveProvided(t *testing.T) *provided {
	t.Helper()
	p := &provided{graph: graphtest.NewServer(graphtest.Options{PlainLoopback: true, PageSize: 1}), dialog360: dialog360test.NewServer()}
	t.Cleanup(p.graph.Close)
	t.Cleanup(p.dialog360.Close)
	p.graph.AddApp(shopAppID, shopSecret, "Shop")
	p.graph.AddToken(shopToken, shopAppID, graphtest.UserToken)
	p.graph.AddToken("EAApage-access-token", shopAppID, graphtest.PageToken)
	p.graph.AddWABA("1001", "2001")
	p.graph.AddWABA("1002")
	p.graph.AddPage("3001")
	p.dialog360.AddPartner("PA0001", partnerKey)
	p.dialog360.AddChannel(channelKey, "1001")
	p.relay = serveTold(t, t.TempDir(), &p.log, "--graph-url", p.graph.URL, "--dialog360-hub-url", p.dialog360.URL, "--dialog360-waba-url", p.dialog360.URL, "--log-level", "debug")
	p.public = strings.Replace(p.webhooks, "http://", "https://", 1)
	return p
}

// shop creates a source of Meta's.
func (p *provided) shop() {
	p.t.Helper()
	p.must("POST", "/v1/sources?source_id=shop", fmt.Sprintf(
		`{"provider":"PROVIDER_META","app_id":%q,"app_secrets":[%q],"verify_token":%q,"access_token":%q}`, shopAppID, shopSecret, shopVerifyToken, shopToken))
}

func TestAnOperatorConnectsAnAppOverREST(t *testing.T) {
	p := serveProvided(t)
	p.shop()
	connect := fmt.Sprintf(`{"subscriptions":{"public_base_url":%q,"objects":[{"object":"whatsapp_business_account","fields":["messages","account_update"]}],
		"whatsapp_business_accounts":[{"id":"1001"},{"id":"1002"}]}}`, p.public)
	for turn, outcome := range []string{"DONE", "UNCHANGED"} {
		answer := p.must("POST", "/v1/sources/shop:connect", connect)
		if answer["connected"] != true || answer["callback_url"] != p.public+"/webhooks/shop" || strings.Count(mustJSON(answer), "STEP_OUTCOME_"+outcome) != 3 {
			t.Errorf("turn %d: %s", turn, mustJSON(answer))
		}
	}
	// The handshake came to our own webhook, and was answered by the source's verify token.
	used := mustJSON(p.must("GET", "/v1/sources/shop", ""))
	if !strings.Contains(used, `"field":"verify_token","last_used_time":"2`) {
		t.Errorf("the handshake has not arrived: %s", used)
	}

	answer := mustJSON(p.must("GET", "/v1/sources/shop/appSubscriptions", ""))
	for _, want := range []string{`"object":"whatsapp_business_account"`, `"callback_url":"` + p.public + `/webhooks/shop"`, `"active":true`, `"name":"messages"`, `"name":"account_update"`} {
		if !strings.Contains(answer, want) {
			t.Errorf("app subscriptions have no %s: %s", want, answer)
		}
	}
	const apps = "/v1/sources/shop/whatsappBusinessAccounts/1001/subscribedApps"
	if answer := mustJSON(p.must("GET", apps, "")); !strings.Contains(answer, `"id":"4711"`) || strings.Contains(answer, `"override_callback_uri":"h`) {
		t.Errorf("subscribed apps: %s", answer)
	}
	if answer := p.must("GET", "/v1/sources/shop:check", ""); answer["in_sync"] != true {
		t.Errorf("check after connect: %s", mustJSON(answer))
	}

	// Somebody moves an account's messages: the check says so, and nothing loses the override by accident.
	p.must("POST", apps, fmt.Sprintf(`{"override_callback_uri":%q,"verify_token":%q}`, p.public+"/webhooks/shop?moved=1", shopVerifyToken))
	checked := p.must("GET", "/v1/sources/shop:check", "")
	if checked["in_sync"] == true || !strings.Contains(mustJSON(checked), `"kind":"FINDING_KIND_ELSEWHERE","target":"whatsappBusinessAccounts/1001"`) {
		t.Errorf("check of a moved override: %s", mustJSON(checked))
	}
	if code, answer := p.call("POST", apps, `{}`); code != 400 || reasonOf(answer) != "OVERRIDE_WOULD_BE_LOST" {
		t.Errorf("a subscription that would lose the override: %d %s", code, mustJSON(answer))
	}
	p.must("POST", apps+":clearOverride", `{}`)
	if answer := p.must("GET", "/v1/sources/shop:check", ""); answer["in_sync"] != true {
		t.Errorf("check after clearing: %s", mustJSON(answer))
	}

	// Both secrets are good while they overlap, and the provider's API goes on with the newest.
	p.must("POST", "/v1/sources/shop:rotateSecret", fmt.Sprintf(`{"app_secret":%q}`, shopNextSecret))
	for i, secret := range []string{shopSecret, shopNextSecret} {
		if code := p.postSigned("shop", secret, text(fmt.Sprintf("wamid.%d", i), "hi")); code != 200 {
			t.Errorf("secret %d: %d", i, code)
		}
	}
	p.must("POST", "/v1/sources/shop:rotateSecret", `{}`)
	if code := p.postSigned("shop", shopSecret, text("wamid.9", "hi")); code != 401 {
		t.Errorf("the retired secret: %d", code)
	}

	p.must("DELETE", "/v1/sources/shop", "")
	if code, answer := p.call("GET", "/v1/sources/shop:check", ""); code != 404 || reasonOf(answer) != "SOURCE_NOT_FOUND" {
		t.Errorf("check of a deleted source: %d %s", code, mustJSON(answer))
	}
}

func TestEveryOperationOfTheProvidersIsOneCall(t *testing.T) {
	p := serveProvided(t)
	p.shop()
	p.must("POST", "/v1/sources?source_id=pages", fmt.Sprintf(
		`{"provider":"PROVIDER_META","app_id":%q,"app_secrets":[%q],"verify_token":%q,"access_token":"EAApage-access-token"}`, shopAppID, shopSecret, shopVerifyToken))
	p.must("POST", "/v1/sources?source_id=partner", fmt.Sprintf(
		`{"provider":"PROVIDER_DIALOG360_PARTNER","app_secrets":["platform-secret-1"],"partner_id":"PA0001","partner_api_key":%q}`, partnerKey))
	p.must("POST", "/v1/sources?source_id=number", fmt.Sprintf(
		`{"provider":"PROVIDER_DIALOG360_CHANNEL","headers":{"Authorization":"Basic bnVtYmVyOnNlY3JldA=="},"channel_api_key":%q}`, channelKey))
	callback := p.public + "/webhooks/shop"
	override := fmt.Sprintf(`{"override_callback_uri":%q,"verify_token":%q}`, callback, shopVerifyToken)
	for _, c := range []struct {
		method, path, body string
		want               string // part of the answer
		upstream           string // the provider's request: method, path
	}{
		{"POST", "shop/whatsappBusinessAccounts/1001/subscribedApps", `{}`, `{}`, "POST /v24.0/1001/subscribed_apps"},
		{"POST", "shop/whatsappBusinessAccounts/1001/subscribedApps", override, `{}`, "POST /v24.0/1001/subscribed_apps"},
		{"GET", "shop/whatsappBusinessAccounts/1001/subscribedApps", "", `"override_callback_uri":"` + callback, "GET /v24.0/1001/subscribed_apps"},
		{"POST", "shop/whatsappBusinessAccounts/1001/subscribedApps:clearOverride", `{}`, `{}`, "POST /v24.0/1001/subscribed_apps"},
		{"DELETE", "shop/whatsappBusinessAccounts/1001/subscribedApps", "", `{}`, "DELETE /v24.0/1001/subscribed_apps"},
		{"PUT", "shop/phoneNumbers/2001/webhookOverride", override, `"phone_number":"` + callback, "POST /v24.0/2001"},
		{"GET", "shop/phoneNumbers/2001/webhookOverride", "", `"phone_number":"` + callback, "GET /v24.0/2001"},
		{"DELETE", "shop/phoneNumbers/2001/webhookOverride", "", `{}`, "POST /v24.0/2001"},
		{"POST", "shop/appSubscriptions", fmt.Sprintf(`{"object":"page","callback_url":%q,"verify_token":%q,"fields":["feed","mention"],"include_values":true}`, callback, shopVerifyToken), `{}`, "POST /v24.0/4711/subscriptions"},
		{"GET", "shop/appSubscriptions", "", `"name":"feed"`, "GET /v24.0/4711/subscriptions"},
		{"DELETE", "shop/appSubscriptions?object=page&fields=feed,mention", "", `{}`, "DELETE /v24.0/4711/subscriptions"},
		{"POST", "pages/pages/3001/subscribedApps", `{"subscribed_fields":["feed"]}`, `{}`, "POST /v24.0/3001/subscribed_apps"},
		{"GET", "pages/pages/3001/subscribedApps", "", `"subscribed_fields":["feed"]`, "GET /v24.0/3001/subscribed_apps"},
		{"DELETE", "pages/pages/3001/subscribedApps", "", `{}`, "DELETE /v24.0/3001/subscribed_apps"},
		{"PUT", "partner/partnerWebhook", `{"webhook_url":"https://hooks.example.com/webhooks/partner"}`, `"webhook_url":"https://hooks.example.com/webhooks/partner"`, "POST /api/v2/partners/PA0001/webhook_url"},
		{"GET", "partner/partnerWebhook", "", `"webhook_url":"https://hooks.example.com/webhooks/partner"`, "GET /api/v2/partners/PA0001/webhook_url"},
		{"PUT", "number/channelWebhook", `{"url":"https://hooks.example.com/webhooks/number","headers":{"X-Show":"a-secret-value"}}`, `"header_names":["X-Show"]`, "POST /v1/configs/webhook"},
		{"GET", "number/channelWebhook", "", `"url":"https://hooks.example.com/webhooks/number"`, "GET /v1/configs/webhook"},
		{"PUT", "number/wabaWebhook", `{"url":"https://hooks.example.com/webhooks/number","headers":{"X-Show":"a-secret-value"},"override_all":true}`, `"header_names":["X-Show"]`, "POST /waba_webhook"},
	} {
		p.graph.Forget()
		p.dialog360.Forget()
		answer := mustJSON(p.must(c.method, "/v1/sources/"+c.path, c.body))
		if !strings.Contains(answer, c.want) || strings.Contains(answer, "secret") {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, answer, c.want)
		}
		var asked []string
		for _, r := range append(p.graph.Requests(), p.dialog360.Requests()...) {
			asked = append(asked, r.Method+" "+r.Path)
		}
		if !strings.Contains(strings.Join(asked, "\n")+"\n", c.upstream+"\n") {
			t.Errorf("%s %s asked the provider %q, want %s", c.method, c.path, asked, c.upstream)
		}
	}
}

func TestWhatAProviderRefusesKeepsItsCodesAndShowsNoSecret(t *testing.T) {
	p := serveProvided(t)
	p.shop()
	for _, c := range []struct {
		code, subcode int
		transient     bool
		http          int
		status        string
	}{
		{190, 463, false, 401, "UNAUTHENTICATED"},
		{10, 0, false, 403, "PERMISSION_DENIED"},
		{200, 0, false, 403, "PERMISSION_DENIED"},
		{100, 0, false, 400, "INVALID_ARGUMENT"},
		{100, 33, false, 404, "NOT_FOUND"},
		{80008, 0, false, 429, "RESOURCE_EXHAUSTED"},
		{2200, 0, false, 400, "FAILED_PRECONDITION"},
		{506, 0, false, 500, "UNKNOWN or INTERNAL"},
	} {
		p.graph.Fail(graphtest.Failed(400, c.code, c.subcode, c.transient, "no: "+shopToken))
		code, answer := p.call("GET", "/v1/sources/shop/whatsappBusinessAccounts/1001/subscribedApps", "")
		text := mustJSON(answer)
		if code != c.http || !strings.Contains(text, `"domain":"graph.facebook.com"`) || !strings.Contains(text, fmt.Sprintf(`"code":"%d"`, c.code)) ||
			!strings.Contains(text, `"fbtrace_id":"`) || !strings.Contains(text, `"is_transient":"false"`) || strings.Contains(text, shopToken) {
			t.Errorf("code %d: %d %s, want %d (%s)", c.code, code, text, c.http, c.status)
		}
	}
	p.dialog360.Fail(upstreamtest.Failure{Status: 403, Body: `{"meta":{"success":false,"http_code":403,"developer_message":"no ` + partnerKey + `"}}`})
	p.must("POST", "/v1/sources?source_id=partner", fmt.Sprintf(
		`{"provider":"PROVIDER_DIALOG360_PARTNER","app_secrets":["platform-secret-1"],"partner_id":"PA0001","partner_api_key":%q}`, partnerKey))
	if code, answer := p.call("GET", "/v1/sources/partner/partnerWebhook", ""); code != 403 || !strings.Contains(mustJSON(answer), `"domain":"360dialog.io"`) || strings.Contains(mustJSON(answer), partnerKey) {
		t.Errorf("360dialog refuses: %d %s", code, mustJSON(answer))
	}

	for _, c := range []struct {
		method, path, body string
		want               int
		reason, text       string
	}{
		{"DELETE", "shop/appSubscriptions", "", 400, "INVALID_REQUEST", "object"},
		{"POST", "shop/whatsappBusinessAccounts/1001/subscribedApps", `{"override_callback_uri":"https://a.example"}`, 400, "INVALID_REQUEST", "verify_token"},
		{"POST", "shop/whatsappBusinessAccounts/1001/subscribedApps", fmt.Sprintf(`{"override_callback_uri":%q,"verify_token":"t"}`, "http://a.example"), 400, "INVALID_REQUEST", "override_callback_uri"},
		{"GET", "shop/whatsappBusinessAccounts/abc/subscribedApps", "", 400, "INVALID_REQUEST", "parent"},
		{"GET", "none/appSubscriptions", "", 404, "SOURCE_NOT_FOUND", "none"},
		{"GET", "partner/appSubscriptions", "", 400, "CREDENTIALS_MISSING", "PROVIDER_META"},
		{"GET", "shop/partnerWebhook", "", 400, "CREDENTIALS_MISSING", "PROVIDER_DIALOG360_PARTNER"},
		{"GET", "dev/appSubscriptions", "", 400, "CREDENTIALS_MISSING", "app_id"},
		{"GET", "shop:check", "", 400, "SUBSCRIPTIONS_NOT_DECLARED", "public_base_url"},
		{"POST", "shop:connect", `{"subscriptions":{"public_base_url":"http://plain.example","objects":[{"object":"page","fields":["feed"]}]}}`, 400, "INVALID_REQUEST", "public_base_url"},
		{"POST", "dev:connect", `{"subscriptions":{"public_base_url":"https://a.example","objects":[{"object":"page","fields":["feed"]}]}}`, 400, "SOURCE_READ_ONLY", "dev"},
	} {
		code, answer := p.call(c.method, "/v1/sources/"+c.path, c.body)
		if code != c.want || reasonOf(answer) != c.reason || !strings.Contains(mustJSON(answer), c.text) {
			t.Errorf("%s %s: %d %s, want %d %s with %q", c.method, c.path, code, mustJSON(answer), c.want, c.reason, c.text)
		}
	}
	p.stop()
	for _, secret := range []string{shopToken, shopSecret, shopVerifyToken, partnerKey, url.QueryEscape(shopAppID + "|" + shopSecret)} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// reasonOf is the reason of the ErrorInfo in an answer.
func reasonOf(answer map[string]any) string {
	details, _ := answer["details"].([]any)
	for _, d := range details {
		if reason, ok := d.(map[string]any)["reason"].(string); ok {
			return reason
		}
	}
	return ""
}
