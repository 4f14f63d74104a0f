package dialog360

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"eventrelay/server/upstream"
)

// Whatever an answer says: no panic, an error has a message, a bounded wait and no secret, and a status of failure is never a success.
func FuzzAnswer(f *testing.F) {
	const key = "ChannelKey0123456789ghijkl"
	f.Add(404, `{"meta":{"success":false,"http_code":404,"developer_message":"`+key+`","details":["a"],"error_data":{"code":1,"message":"m"}}}`, "")
	f.Add(429, `{"error":{"message":"m","code":"c"},"error_description":"d"}`, "3")
	f.Add(200, `{"url":"https://x","headers":{"A":"b"}}`, "Fri, 31 Dec 1999 23:59:59 GMT")
	f.Add(403, "Forbidden "+key, "-1")
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		for _, out := range []any{nil, &struct{ URL string }{}} {
			err := decode(upstream.Answer{Status: status, Body: []byte(body), Header: http.Header{"Retry-After": {after}}}, out, []upstream.Secret{upstream.NewSecret(key)})
			if err == nil {
				if status >= 400 {
					t.Fatalf("status %d is no error", status)
				}
				continue
			}
			var refused *Error
			if !errors.As(err, &refused) || refused.Message == "" || refused.RetryAfter < 0 || refused.RetryAfter > maxWait || len(refused.Details) > maxDetails+1 {
				t.Fatalf("%+v", err)
			}
			for i := 0; i+8 <= len(key); i++ {
				if text := fmt.Sprintf("%v %+v", err, *refused); strings.Contains(text, key[i:i+8]) {
					t.Fatal(text)
				}
			}
		}
	})
}
