package graph

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"eventrelay/server/upstream"
)

// Whatever the headers say: no panic, no call is put off for more than a day, and what is remembered stays bounded.
func FuzzUsage(f *testing.F) {
	f.Add(`{"call_count":16,"total_cputime":15,"total_time":12}`, `{"call_count":100}`, `{"77":[{"type":"whatsapp","call_count":1,"estimated_time_to_regain_access":9}]}`)
	f.Add(`{"call_count":1e400}`, `null`, `{"":[null,{}],"1":[{"estimated_time_to_regain_access":-1}]}`)
	f.Add(``, `[]`, `{`)
	s := scopes{app: "app 1", page: "page 2", asker: "page by token"}
	f.Fuzz(func(t *testing.T, app, page, business string) {
		u := newUsage()
		header := http.Header{"X-App-Usage": {app}, "X-Page-Usage": {page}, "X-Business-Use-Case-Usage": {business}}
		readings, unread := readUsage(header)
		pause, _ := u.note(s, header)
		if len(readings) > maxBusinesses+2 || len(unread) > 3 || len(u.until) > maxBusinesses+2 {
			t.Fatalf("%d readings, %d kept, %d unread", len(readings), len(u.until), len(unread))
		}
		reached := false
		for _, r := range readings {
			reached = reached || r.reached()
		}
		var refused *Error
		switch err := u.check(s); {
		case (pause > 0) != reached || pause < 0 || pause > maxPause:
			t.Fatalf("pause %v, reached %v", pause, reached)
		case err == nil && pause > time.Second:
			t.Fatalf("there is a pause of %v and no refusal", pause)
		case err != nil && (!errors.As(err, &refused) || refused.RetryAfter <= 0 || refused.RetryAfter > maxPause || !reached):
			t.Fatalf("%+v", err)
		}
	})
}

// Whatever an answer says: no panic, an error has a kind of the table, and no text of it has a secret.
func FuzzAnswer(f *testing.F) {
	const token = "EAAGuser7oken7hatIsL0ngEn0ugh"
	f.Add(200, `{"data":[{"whatsapp_business_api_data":{"id":"1"}}],"paging":{"cursors":{"after":"x"},"next":"y"}}`)
	f.Add(400, `{"error":{"message":"`+token+`","type":"OAuthException","code":190,"error_subcode":"463","is_transient":false,"fbtrace_id":"A"}}`)
	f.Add(200, `{"success":"true"}`)
	f.Add(500, `<html>`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		secrets := []upstream.Secret{upstream.NewSecret(token)}
		for _, out := range []any{&page[AppSubscription]{}, &struct {
			Success *flag `json:"success"`
		}{}} {
			err := decode(upstream.Answer{Status: status, Body: []byte(body), Header: http.Header{}}, out, 0, secrets)
			var refused *Error
			if err != nil && (!errors.As(err, &refused) || strings.HasPrefix(refused.Kind.String(), "kind") || refused.Message == "") {
				t.Fatalf("%+v", err)
			}
			for i := 0; err != nil && i+8 <= len(token); i++ {
				if text := fmt.Sprintf("%v %+v", err, *refused); strings.Contains(text, token[i:i+8]) {
					t.Fatalf("%s", text)
				}
			}
			if err == nil && status >= 400 {
				t.Fatalf("status %d is no error", status)
			}
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	u := newUsage()
	for i := range 3 * maxScopes {
		s := scopes{app: fmt.Sprint("app ", i), page: fmt.Sprint("page ", i), asker: fmt.Sprint("asker ", i)}
		u.note(s, http.Header{
			"X-App-Usage": {`{"call_count":100}`}, "X-Page-Usage": {`{"call_count":100}`},
			"X-Business-Use-Case-Usage": {fmt.Sprintf(`{"b%d":[{"type":"pages","call_count":100}]}`, i)},
		})
		if u.check(s) == nil {
			t.Fatalf("the limit of %d is forgotten at once", i)
		}
	}
	if len(u.until) > maxScopes || len(u.businesses) > maxScopes {
		t.Errorf("%d limits and %d askers are remembered", len(u.until), len(u.businesses))
	}
}

// What would not fit is left out, but not what matters.
func TestAReachedLimitIsFoundAmongManyBusinesses(t *testing.T) {
	var parts []string
	for i := range 200 {
		parts = append(parts, fmt.Sprintf(`"a%03d":[{"type":"pages","call_count":1}]`, i))
	}
	parts = append(parts, `"z":[{"type":"pages","call_count":100}]`)
	u, s := newUsage(), scopes{app: "app 1", asker: "x"}
	u.note(s, http.Header{"X-Business-Use-Case-Usage": {"{" + strings.Join(parts, ",") + "}"}})
	if u.check(s) == nil {
		t.Error("it is not")
	}
}

func TestAPassedLimitIsForgottenFirst(t *testing.T) {
	u := newUsage()
	for i := range maxScopes - 1 {
		u.until[fmt.Sprint("passed ", i)] = time.Now().Add(-time.Second)
	}
	u.until["app 1"] = time.Now().Add(time.Minute)
	u.note(scopes{app: "app 2"}, http.Header{"X-App-Usage": {`{"call_count":100}`}})
	if len(u.until) != 2 || u.check(scopes{app: "app 1"}) == nil {
		t.Errorf("%d limits are left", len(u.until))
	}
}
