package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/compiler/protogen"
)

// reason is a word of eventrelay.v1.ErrorReason with what its comment says: `CODE: text`, and an example of its ErrorInfo.
type reason struct {
	word string
	code codes.Code
	text string
	info map[string]any
}

// newReason reads a word of the enum.
func newReason(value *protogen.EnumValue) (reason, error) {
	comment := string(value.Comments.Leading)
	said, example, found := strings.Cut(comment, "\n\n")
	code, meaning, colon := strings.Cut(strings.Join(strings.Fields(said), " "), ": ")
	r := reason{word: strings.TrimPrefix(string(value.Desc.Name()), "ERROR_REASON_"), text: meaning}
	if !found || !colon {
		return r, fmt.Errorf("%s: its comment is not `CODE: text` and an ErrorInfo", value.Desc.Name())
	}
	if err := r.code.UnmarshalJSON([]byte(strconv.Quote(code))); err != nil {
		return r, fmt.Errorf("%s: %w", value.Desc.Name(), err)
	}
	if err := json.Unmarshal([]byte(example), &r.info); err != nil {
		return r, fmt.Errorf("%s: the ErrorInfo in its comment: %w", value.Desc.Name(), err)
	}
	if r.info["reason"] != r.word {
		return r, fmt.Errorf("%s: the ErrorInfo in its comment has the reason %v", value.Desc.Name(), r.info["reason"])
	}
	return r, nil
}

// status is an example of the google.rpc.Status that tells of the reason, with further details behind its ErrorInfo.
func (r reason) status(more ...any) map[string]any {
	info := map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo"}
	maps.Copy(info, r.info)
	message, _ := sentence(r.text)
	return map[string]any{"code": int(r.code), "message": message, "details": append([]any{info}, more...)}
}

// reasons are the words of the enum by themselves.
type reasons map[string]reason

var (
	grouped = regexp.MustCompile(`\b([A-Z][A-Z_]+) \(([^)]*)\)`)
	capital = regexp.MustCompile(`\b[A-Z][A-Z0-9_]+\b`)
)

// mentioned returns the reasons that a comment names, each once, in the order of the text. `CODE (REASON, REASON where this or that)` must be true of each reason in it.
func (rs reasons) mentioned(comment string) ([]reason, error) {
	for _, group := range grouped.FindAllStringSubmatch(comment, -1) {
		var code codes.Code
		if code.UnmarshalJSON([]byte(strconv.Quote(group[1]))) != nil {
			continue // another word in capitals
		}
		for _, word := range capital.FindAllString(group[2], -1) {
			if r, known := rs[word]; !known || r.code != code {
				return nil, fmt.Errorf("%q: %s is no reason of %s", group[0], word, group[1])
			}
		}
	}
	var found []reason
	seen := map[string]bool{}
	for _, word := range capital.FindAllString(comment, -1) {
		if r, known := rs[word]; known && !seen[word] {
			seen[word] = true
			found = append(found, r)
		}
	}
	return found, nil
}
