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
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer
}

// A page that loads its parts from elsewhere would be blank where there is no internet, and would trust whoever serves them.
func TestTheDocumentationPageLoadsNothingFromElsewhere(t *testing.T) {
	page := get(t, "/docs/")
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "/openapi.json") {
		t.Fatalf("/docs/: %d %s", page.Code, page.Body)
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
