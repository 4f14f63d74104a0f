package dialog360

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"eventrelay/server/upstream"
)

const (
	// maxText bounds each text that is taken over from an answer, in bytes.
	maxText = 1000
	// maxWait bounds what a Retry-After can ask for.
	maxWait = 24 * time.Hour
	// quotaWindow is what 360dialog counts partners' requests in: five of them in 30 seconds.
	quotaWindow = 30 * time.Second
	// quotaWait is the wait after a 429 that says nothing of it.
	quotaWait = 2 * time.Second
)

// An Error is a call that 360dialog refused, or did not answer in a way that can be used. No text in it has a key or the value of a header.
type Error struct {
	Kind upstream.Kind
	// HTTPStatus is 0 where there was no answer. Where 360dialog says another one in the body, that counts.
	HTTPStatus int
	// Code is 360dialog's own, where it gives one: a number or a word.
	Code    string
	Message string
	// Details are what else it says, a line each.
	Details []string
	// RetryAfter is how long it wants no more calls; 0 unless Kind is ResourceExhausted.
	RetryAfter time.Duration

	// wait is the wait before the next attempt.
	wait time.Duration
}

func (e *Error) Error() string {
	text := "360dialog: " + e.Message
	if len(e.Details) > 0 {
		text += ": " + strings.Join(e.Details, "; ")
	}
	var about []string
	if e.Code != "" {
		about = append(about, "code "+e.Code)
	}
	if e.HTTPStatus != 0 {
		about = append(about, fmt.Sprintf("status %d", e.HTTPStatus))
	}
	if len(about) == 0 {
		return text
	}
	return text + " (" + strings.Join(about, ", ") + ")"
}

// Again reports whether the call may be repeated, and after how long.
func (e *Error) Again() (time.Duration, bool) {
	return e.wait, e.Kind == upstream.Unavailable || e.Kind == upstream.ResourceExhausted
}

// decode reads an answer into out, or into the error that it is.
func decode(answer upstream.Answer, out any, secrets []upstream.Secret) error {
	told := read(answer.Body)
	status := answer.Status
	if told.status >= http.StatusBadRequest && told.status < 600 && status < http.StatusBadRequest {
		status = told.status // some failures come as 200
	}
	if status < http.StatusBadRequest && !told.failed {
		if out == nil && (empty(answer.Body) || json.Valid(answer.Body)) {
			return nil
		}
		if out != nil && json.Unmarshal(answer.Body, out) == nil {
			return nil
		}
		told = failure{message: fmt.Sprintf("the answer has another shape than documented (%d bytes, content type %q)", len(answer.Body), answer.Header.Get("Content-Type"))}
	}
	if told.message == "" {
		told.message = "the answer says no more than its status"
	}
	failed := &Error{Kind: upstream.KindOfStatus(status), HTTPStatus: status, Code: scrub(told.code, secrets), Message: scrub(told.message, secrets)}
	for _, detail := range told.details {
		failed.Details = append(failed.Details, scrub(detail, secrets))
	}
	if failed.Kind == upstream.ResourceExhausted {
		failed.RetryAfter, failed.wait = quotaWindow, quotaWait
		if asked, ok := retryAfter(answer.Header); ok {
			failed.RetryAfter, failed.wait = asked, asked
		}
	}
	return failed
}

func scrub(text string, secrets []upstream.Secret) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return upstream.Scrub(text, secrets...)
}

// retryAfter reads the header of that name, seconds or a moment.
func retryAfter(header http.Header) (time.Duration, bool) {
	text := header.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if moment, err := http.ParseTime(text); err == nil {
		wait = time.Until(moment)
	} else {
		return 0, false
	}
	// A moment that has passed asks for no wait at all, which would be to ask in a loop.
	return min(max(wait, time.Second), maxWait), true
}

// A failure is what the body of an answer says of one.
type failure struct {
	// failed says that it is one whatever the status.
	failed        bool
	status        int
	code, message string
	details       []string
}

// maxDetails bounds how many details are taken over.
const maxDetails = 10

// read finds what a body says of a failure: the hub's `meta`, the channels' `error` as a text or an object, OAuth's error with its description, or plain text.
func read(body []byte) failure {
	var parts map[string]json.RawMessage
	if json.Unmarshal(body, &parts) != nil {
		text := strings.TrimSpace(string(body))
		if text == "" || strings.HasPrefix(text, "<") || json.Valid(body) {
			return failure{} // a page of HTML says nothing
		}
		return failure{message: text}
	}
	var meta struct {
		Success *bool             `json:"success"`
		Status  int               `json:"http_code"`
		Message string            `json:"developer_message"`
		Details []json.RawMessage `json:"details"`
		Data    struct {
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		} `json:"error_data"`
	}
	if raw, ok := parts["meta"]; ok {
		_ = json.Unmarshal(raw, &meta) // as far as it has that shape
		f := failure{failed: meta.Success != nil && !*meta.Success, status: meta.Status, code: text(meta.Data.Code), message: meta.Message}
		if f.message == "" {
			f.message = meta.Data.Message
		} else if meta.Data.Message != "" && meta.Data.Message != f.message {
			f.details = append(f.details, meta.Data.Message)
		}
		for _, detail := range meta.Details[:min(len(meta.Details), maxDetails)] {
			f.details = append(f.details, text(detail))
		}
		if f.failed || f.message != "" {
			return f
		}
	}
	if raw, ok := parts["error"]; ok && string(raw) != "null" {
		var object struct {
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		}
		f := failure{failed: true, message: text(raw)}
		if json.Unmarshal(raw, &object) == nil && object.Message != "" {
			f.message, f.code = object.Message, text(object.Code)
		}
		if description := text(parts["error_description"]); description != "" {
			f.details = []string{description}
		}
		return f
	}
	for _, name := range []string{"message", "detail"} {
		if said := text(parts[name]); said != "" {
			return failure{message: said}
		}
	}
	return failure{}
}

// text is a string of JSON as it reads, and anything else as it is written.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
