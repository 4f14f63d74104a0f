package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"eventrelay/gen/openapi"
)

// description is the OpenAPI description, made stricter: a message may have no field that is not described.
var description = sync.OnceValues(func() (*openapi3.T, error) {
	api, err := openapi3.NewLoader().LoadFromData(openapi.YAML)
	if err != nil {
		return nil, err
	}
	for name, schema := range api.Components.Schemas {
		if name != "google.protobuf.Any" && len(schema.Value.Properties) > 0 {
			schema.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: new(false)}
		}
	}
	return api, nil
})

var pathParameter = regexp.MustCompile(`\\\{[^}]+\\\}`)

// describedRoute finds the operation that a request calls; nil if none is described.
func describedRoute(api *openapi3.T, req *http.Request) *routers.Route {
	for path, item := range api.Paths.Map() {
		pattern := "^" + pathParameter.ReplaceAllString(regexp.QuoteMeta(path), `[^/:]+`) + "$"
		if op := item.GetOperation(req.Method); op != nil && regexp.MustCompile(pattern).MatchString(req.URL.Path) {
			return &routers.Route{Spec: api, Path: path, PathItem: item, Method: req.Method, Operation: op}
		}
	}
	return nil
}

// asDescribed holds an answer of the REST API to its description: the body to its schema, and a refusal to the reasons that the operation names.
func (r *relay) asDescribed(resp *http.Response, body []byte) {
	r.t.Helper()
	api, err := description()
	if err != nil {
		r.t.Fatal(err)
	}
	call := resp.Request.Method + " " + resp.Request.URL.Path
	route := describedRoute(api, resp.Request)
	if route == nil {
		if resp.StatusCode != http.StatusNotFound {
			r.t.Errorf("%s is served, and not described", call)
		}
		return
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true}
	if err := openapi3filter.ValidateResponse(r.t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: resp.Request, Route: route, Options: options},
		Status:                 resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(body)), Options: options,
	}); err != nil {
		r.t.Errorf("%s is not answered as it is described: %v\n%s", call, err, body)
	}
	var refusal struct {
		Details []struct {
			Domain string `json:"domain"`
			Reason string `json:"reason"`
		} `json:"details"`
	}
	if resp.StatusCode == http.StatusOK || json.Unmarshal(body, &refusal) != nil {
		return
	}
	for _, detail := range refusal.Details {
		if detail.Domain != "eventrelay" {
			continue
		}
		described := route.Operation.Responses.Status(resp.StatusCode)
		if described == nil || described.Value.Content["application/json"].Examples[detail.Reason] == nil {
			r.t.Errorf("%s is refused with %d %s, which is not described", call, resp.StatusCode, detail.Reason)
		}
	}
}

// Every call of the other tests is held to the description, too; these are those that none of them makes.
func TestCallsAreAnsweredAsTheDescriptionSays(t *testing.T) {
	r := serve(t, t.TempDir())
	answered := func(want int, method, path, body string) map[string]any {
		t.Helper()
		code, answer := r.call(method, path, body)
		if code != want {
			t.Errorf("%s %s: %d %v", method, path, code, answer)
		}
		return answer
	}
	answered(200, "POST", "/v1/sources?source_id=shop", shop)
	answered(409, "POST", "/v1/sources?source_id=shop", shop)
	answered(400, "POST", "/v1/sources?source_id=other", `{"provider":"PROVIDER_META"}`)
	if code := r.postSigned("shop", "MARKER-app-secret", text("wamid.1", "hello")); code != http.StatusOK {
		t.Fatalf("a notification is answered %d", code)
	}
	if code := r.postSigned("shop", "MARKER-app-secret", []byte(`{"object":"page","entry":[{"id":"1","time":1,"changes":[{"field":"novelty","value":{"a":1}}]}]}`)); code != http.StatusOK {
		t.Fatalf("a notification is answered %d", code)
	}
	r.drained()

	answered(200, "GET", "/v1/sources/shop", "")
	answered(404, "GET", "/v1/sources/none", "")
	answered(200, "GET", "/v1/sources", "")
	answered(400, "GET", "/v1/sources?page_token=%21", "")
	answered(200, "PATCH", "/v1/sources/shop", `{"labels":{"team":"sales"},"subscriptions":{"objects":[{"object":"page","fields":["feed"]}]}}`)
	answered(409, "PATCH", "/v1/sources/shop", `{"paused":true,"etag":"stale"}`)
	answered(404, "PATCH", "/v1/sources/none", `{"paused":true}`)
	answered(200, "POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER-another"}`)
	for _, call := range []string{"DELETE /v1/sources/dev", "PATCH /v1/sources/dev", "POST /v1/sources/dev:rotateSecret"} {
		method, path, _ := strings.Cut(call, " ")
		answered(400, method, path, `{}`)
	}
	answered(400, "GET", "/v1/sources/dev:check", "")
	answered(400, "POST", "/v1/sources/dev:connect", `{}`)
	answered(404, "POST", "/v1/sources/none:connect", `{}`)

	listed := answered(200, "GET", "/v1/events?order_by=sequence&filter="+url.QueryEscape(`event.source == "sources/shop"`), "")
	events, _ := listed["events"].([]any)
	if len(events) != 2 {
		t.Fatalf("%d events: %v", len(events), listed)
	}
	id, none := events[0].(map[string]any)["id"].(string), strings.Repeat("a", 26)
	answered(400, "GET", "/v1/events?filter=evnt.source", "")
	answered(400, "GET", "/v1/events?page_token=none", "")
	answered(400, "GET", "/v1/events:subscribe?filter=evnt.source", "")
	answered(400, "GET", "/v1/events:subscribe?cursor=none", "")
	answered(400, "GET", "/v1/events:subscribe?fliter=true", "")
	answered(404, "GET", "/v1/events:subscribe?subscription=subscriptions/none", "")
	answered(200, "GET", "/v1/events/"+id+"?view=EVENT_VIEW_TYPED", "")
	answered(404, "GET", "/v1/events/"+none, "")
	answered(400, "GET", "/v1/events/1", "")
	answered(200, "GET", "/v1/events/"+id+":raw", "")
	answered(404, "GET", "/v1/events/"+none+":raw", "")
	answered(200, "GET", "/v1/eventTypes?page_size=3", "")
	answered(400, "GET", "/v1/eventTypes?page_token=%20", "")
	answered(200, "GET", "/v1/drift?seen_after=2026-01-01T00:00:00Z", "")
	answered(400, "GET", "/v1/drift?page_token=none", "")

	answered(400, "GET", "/v1/sources/shop/partnerWebhook", "") // of another provider
	answered(200, "DELETE", "/v1/sources/shop", "")
	answered(404, "DELETE", "/v1/sources/shop", "")
	for _, of := range []string{"appSubscriptions", "pages/1/subscribedApps", "instagramAccounts/1/subscribedApps", "phoneNumbers/1/webhookOverride", "channelWebhook"} {
		answered(404, "GET", "/v1/sources/shop/"+of, "")
	}
}
