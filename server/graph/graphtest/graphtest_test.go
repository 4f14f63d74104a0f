package graphtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"eventrelay/server/graph/graphtest"
)

const app = "1|app-secret"

// start returns a stand-in and a function that asks it something and returns the status with the answer.
func start(t *testing.T, opts graphtest.Options) (*graphtest.Server, func(method, path, token, form string) (int, map[string]any)) {
	t.Helper()
	s := graphtest.NewServer(opts)
	t.Cleanup(s.Close)
	s.AddApp("1", "app-secret", "One")
	s.AddToken("user-token", "1", graphtest.UserToken)
	s.AddWABA("10", "11")
	return s, func(method, path, token, form string) (int, map[string]any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		if form != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
}

func echo(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Query().Get("hub.challenge"))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// The trap that the client keeps its users from is there.
func TestADeleteWithoutAnObjectEndsAllSubscriptions(t *testing.T) {
	_, ask := start(t, graphtest.Options{PlainLoopback: true})
	back := echo(t)
	for _, object := range []string{"page", "user"} {
		if status, answer := ask("POST", "/v24.0/1/subscriptions", app, "object="+object+"&callback_url="+back+"&verify_token=x&fields=feed"); status != 200 || answer["success"] != "true" {
			t.Fatalf("%d %v", status, answer)
		}
	}
	if _, answer := ask("GET", "/v24.0/1/subscriptions", app, ""); len(answer["data"].([]any)) != 2 {
		t.Errorf("%v", answer)
	}
	ask("DELETE", "/v24.0/1/subscriptions", app, "")
	if _, answer := ask("GET", "/v24.0/1/subscriptions", app, ""); len(answer["data"].([]any)) != 0 {
		t.Errorf("%v", answer)
	}
}

func TestErrorsAreWordedAsMetaDoes(t *testing.T) {
	_, ask := start(t, graphtest.Options{})
	for _, c := range []struct {
		method, path, token, form string
		code, subcode             float64
	}{
		{"GET", "/v24.0/10/subscribed_apps", "", "", 104, 0},
		{"GET", "/v24.0/10/subscribed_apps", "nobody's", "", 190, 467},
		{"GET", "/v24.0/10/subscribed_apps", app, "", 200, 0},
		{"GET", "/v24.0/10/subscribed_apps?appsecret_proof=00", "user-token", "", 100, 0},
		{"GET", "/v24.0/404/subscribed_apps", "user-token", "", 100, 33},
		{"GET", "/v24.0/404", "user-token", "", 100, 33},
		{"GET", "/10/subscribed_apps", "user-token", "", 2500, 0},
		{"GET", "/v24.0/10/other", "user-token", "", 100, 0},
		{"GET", "/v24.0/1/subscriptions", "user-token", "", 15, 0},
		{"POST", "/v24.0/1/subscriptions", app, "object=page", 100, 0},
		{"POST", "/v24.0/10/subscribed_apps", "user-token", "override_callback_uri=https://x", 100, 0},
		{"POST", "/v24.0/10/subscribed_apps", "user-token", "verify_token=x&override_callback_uri=http://127.0.0.1:1/", 2200, 0},
	} {
		status, answer := ask(c.method, c.path, c.token, c.form)
		failed, _ := answer["error"].(map[string]any)
		subcode, _ := failed["error_subcode"].(float64)
		if status != 400 || failed["code"] != c.code || subcode != c.subcode || failed["fbtrace_id"] == "" || failed["message"] == "" || failed["type"] == "" {
			t.Errorf("%s %s: %d %v", c.method, c.path, status, answer)
		}
	}
}

func TestALinkToTheNextPageHasTheToken(t *testing.T) {
	s, ask := start(t, graphtest.Options{PageSize: 1})
	s.AddApp("2", "x", "Two")
	s.AddToken("user-token-2", "2", graphtest.UserToken)
	ask("POST", "/v24.0/10/subscribed_apps", "user-token", "")
	ask("POST", "/v24.0/10/subscribed_apps", "user-token-2", "")
	_, answer := ask("GET", "/v24.0/10/subscribed_apps", "user-token", "")
	next, _ := answer["paging"].(map[string]any)["next"].(string)
	if len(answer["data"].([]any)) != 1 || !strings.Contains(next, "access_token=user-token") {
		t.Fatalf("%v", answer)
	}
	_, answer = ask("GET", strings.TrimPrefix(next, s.URL), "", "")
	if data, ok := answer["data"].([]any); !ok || len(data) != 1 || answer["paging"].(map[string]any)["next"] != nil {
		t.Errorf("%v", answer)
	}
}
