package gateway

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, httptest.NewRequest(http.MethodGet, path, nil))
}

// ask asks a gateway that has nobody behind it.
func ask(t *testing.T, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///nobody", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	handler, err := New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, r)
	return answer
}

// A page that loads its parts from elsewhere would be blank where there is no internet, and would trust whoever serves them.
func TestTheDocumentationPageLoadsNothingFromElsewhere(t *testing.T) {
	page := get(t, "/docs/")
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "/openapi.json") {
		t.Fatalf("/docs/: %d %s", page.Code, page.Body)
	}
	if !strings.Contains(page.Body.String(), "validatorUrl: null") {
		t.Error("the page has the description checked elsewhere")
	}
	parts := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page.Body.String(), -1)
	if len(parts) == 0 {
		t.Fatal("the page has no parts")
	}
	for _, part := range parts {
		if !strings.HasPrefix(part[1], "/docs/") {
			t.Errorf("the page loads %s", part[1])
		} else if got := get(t, part[1]); got.Code != http.StatusOK {
			t.Errorf("%s: %d", part[1], got.Code)
		}
	}
	if redirect := get(t, "/docs"); redirect.Code != http.StatusMovedPermanently || redirect.Header().Get("Location") != "/docs/" {
		t.Errorf("/docs: %d to %q", redirect.Code, redirect.Header().Get("Location"))
	}
}

func TestTheDescriptionOfTheAPIIsJSON(t *testing.T) {
	answer := get(t, "/openapi.json")
	var document struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.") || document.Paths["/v1/events"]["get"] == nil {
		t.Errorf("openapi %s with %d paths", document.OpenAPI, len(document.Paths))
	}
}

// What never becomes an RPC is refused as an RPC would be: with a status, a reason, and the name of what is wrong.
func TestWhatTheGatewayRefusesItselfHasAReason(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		code               int
		reason, text       string
	}{
		{"GET", "/v1/nope", "", 404, "ROUTE_NOT_FOUND", "/v1/nope"},
		{"PUT", "/v1/events", "", 405, "ROUTE_NOT_FOUND", "PUT"},
		{"GET", "/v1/events?filtr=true", "", 400, "INVALID_REQUEST", `unknown query parameter \"filtr\"`},
		{"GET", "/v1/events?page_size=x", "", 400, "INVALID_REQUEST", "page_size"},
		{"POST", "/v1/sources?source_id=shop", `{"app_secrets":["not told again"]`, 400, "INVALID_REQUEST", "the body cannot be read"},
		{"POST", "/v1/sources?source_id=shop", `{"app_secret":["not told again"]}`, 400, "INVALID_REQUEST", "app_secret"},
	} {
		answer := ask(t, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		var told struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Details []struct {
				Reason string `json:"reason"`
				Domain string `json:"domain"`
			} `json:"details"`
		}
		if err := json.Unmarshal(answer.Body.Bytes(), &told); err != nil {
			t.Errorf("%s %s: %v: %s", c.method, c.path, err, answer.Body)
			continue
		}
		if answer.Code != c.code || told.Code == 0 || len(told.Details) != 1 || told.Details[0].Reason != c.reason || told.Details[0].Domain != "eventrelay" ||
			!strings.Contains(answer.Body.String(), c.text) || strings.Contains(answer.Body.String(), "not told again") {
			t.Errorf("%s %s: %d %s, want %d %s with %q", c.method, c.path, answer.Code, answer.Body, c.code, c.reason, c.text)
		}
	}
}
