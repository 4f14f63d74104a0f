package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"eventrelay/server/upstream"
)

// ErrOverrideWouldBeLost says that subscribing would silently clear a callback override. The error that wraps it is an *OverrideError.
var ErrOverrideWouldBeLost = errors.New("an override would be lost")

// An OverrideError names the override that stands in the way of subscribing.
type OverrideError struct {
	URI string
}

func (e *OverrideError) Error() string {
	return fmt.Sprintf("%v: Meta clears an override when an app subscribes, and there is one to %s; clear it on purpose, or set it again with override_callback_uri", ErrOverrideWouldBeLost, e.URI)
}

// Unwrap returns ErrOverrideWouldBeLost.
func (*OverrideError) Unwrap() error { return ErrOverrideWouldBeLost }

// An Error is a call that the Graph API refused, or did not answer in a way that can be used. No text in it has a credential of the call.
type Error struct {
	Kind upstream.Kind
	// HTTPStatus is 0 where there was no answer, or no call: one that Meta would refuse for want of quota is not made.
	HTTPStatus int
	// Code and Subcode are Meta's; 0 where it gives none.
	Code, Subcode int
	// Type is a word such as OAuthException.
	Type    string
	Message string
	// UserTitle and UserMessage are for people, in the language of the token's owner.
	UserTitle, UserMessage string
	// TraceID is what Meta's support asks for.
	TraceID string
	// Transient is what Meta says of the failure itself.
	Transient bool
	// RetryAfter is how long there will be no more calls, 0 where that is unknown.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	var about []string
	if e.Code != 0 {
		about = append(about, fmt.Sprintf("code %d", e.Code))
	}
	if e.Subcode != 0 {
		about = append(about, fmt.Sprintf("subcode %d", e.Subcode))
	}
	if e.Type != "" {
		about = append(about, e.Type)
	}
	if e.HTTPStatus != 0 {
		about = append(about, fmt.Sprintf("status %d", e.HTTPStatus))
	}
	if e.TraceID != "" {
		about = append(about, "trace "+e.TraceID)
	}
	text := "Graph API: " + e.Message
	if e.UserMessage != "" && e.UserMessage != e.Message {
		text += ": " + e.UserMessage
	}
	if len(about) == 0 {
		return text
	}
	return text + " (" + strings.Join(about, ", ") + ")"
}

// Again reports whether the call may be repeated at once. Where there is no quota that makes matters worse, whatever Meta says.
func (e *Error) Again() (time.Duration, bool) {
	return 0, e.Kind != upstream.ResourceExhausted && (e.Kind == upstream.Unavailable || e.Transient || e.HTTPStatus >= 500)
}

// kindOf is the table of Meta's codes, for Meta answers most failures with status 400. A code of the table says more than is_transient, which Meta
// also sets when a quota is used up for an hour: the flag decides for all other codes. Without a code the status decides.
func kindOf(code, subcode, status int, transient bool) upstream.Kind {
	switch {
	case code == 102 || code == 190:
		return upstream.Unauthenticated
	case code == 3 || code == 10 || code >= 200 && code <= 299:
		return upstream.PermissionDenied
	case code == 100 && subcode == 33:
		return upstream.NotFound
	case code == 100:
		return upstream.InvalidArgument
	case code == 4 || code == 17 || code == 32 || code == 613 || code == 80007 || code == 80008 || code == 130429:
		return upstream.ResourceExhausted
	case code == 2200:
		return upstream.FailedPrecondition
	case code == 1 || code == 2 || transient:
		return upstream.Unavailable
	case code == 0:
		return upstream.KindOfStatus(status)
	case status >= 500:
		return upstream.Internal
	}
	return upstream.Unknown
}

// decode reads an answer into out, or into the error that it is. pause is how long there are to be no more calls.
func decode(answer upstream.Answer, out any, pause time.Duration, secrets []upstream.Secret) error {
	clean := func(text string) string {
		if len(text) > maxText {
			text = text[:maxText] + "..."
		}
		return upstream.Scrub(text, secrets...)
	}
	var envelope struct {
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(answer.Body, &envelope); err != nil {
		kind := upstream.KindOfStatus(answer.Status)
		return &Error{Kind: kind, HTTPStatus: answer.Status, RetryAfter: pauseFor(kind, pause), Message: "the answer is not a JSON object but " + clean(describe(answer))}
	}
	if len(envelope.Error) == 0 || bytes.Equal(envelope.Error, []byte("null")) {
		if answer.Status >= http.StatusBadRequest {
			kind := upstream.KindOfStatus(answer.Status)
			return &Error{Kind: kind, HTTPStatus: answer.Status, RetryAfter: pauseFor(kind, pause), Message: "the answer says no more than its status"}
		}
		if err := json.Unmarshal(answer.Body, out); err != nil {
			return &Error{Kind: upstream.Unknown, HTTPStatus: answer.Status, Message: "the answer has another shape than documented"}
		}
		return nil
	}
	told := readError(envelope.Error)
	if told.traceID == "" {
		told.traceID = word(answer.Header.Get("X-Fb-Trace-Id"))
	}
	if told.message == "" {
		told.message = "the answer is an error without a message"
	}
	kind := kindOf(int(told.code), int(told.subcode), answer.Status, bool(told.transient))
	return &Error{
		Kind: kind, HTTPStatus: answer.Status, Code: int(told.code), Subcode: int(told.subcode), Type: clean(string(told.kind)),
		Message: clean(string(told.message)), UserTitle: clean(string(told.userTitle)), UserMessage: clean(string(told.userMessage)),
		TraceID: clean(string(told.traceID)), Transient: bool(told.transient), RetryAfter: pauseFor(kind, pause),
	}
}

// told is an error as Meta writes it.
type told struct {
	message, kind, userTitle, userMessage, traceID word
	code, subcode                                  number
	transient                                      flag
}

// readError reads each part for itself, so that one of an unknown shape does not cost the others.
func readError(data []byte) told {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return told{message: word(strings.Trim(string(data), `"`))} // older answers of OAuth have a word here
	}
	var t told
	for name, part := range map[string]json.Unmarshaler{
		"message": &t.message, "type": &t.kind, "code": &t.code, "error_subcode": &t.subcode, "is_transient": &t.transient,
		"error_user_title": &t.userTitle, "error_user_msg": &t.userMessage, "fbtrace_id": &t.traceID,
	} {
		if value, ok := fields[name]; ok {
			_ = part.UnmarshalJSON(value)
		}
	}
	return t
}

// maxText bounds each text that is taken over from an answer, in bytes.
const maxText = 1000

func pauseFor(kind upstream.Kind, pause time.Duration) time.Duration {
	if kind != upstream.ResourceExhausted {
		return 0
	}
	return pause
}

// describe says what an answer is that is not what it should be. It does not quote it: a page of HTML says nothing.
func describe(answer upstream.Answer) string {
	if len(answer.Body) == 0 {
		return "empty"
	}
	kind := answer.Header.Get("Content-Type")
	if kind == "" {
		kind = "of no stated type"
	}
	return fmt.Sprintf("%d bytes %s", len(answer.Body), kind)
}
