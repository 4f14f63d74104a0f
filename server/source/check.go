package source

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// ErrInvalid is what every error about a source's own content wraps.
var ErrInvalid = errors.New("invalid source")

// InvalidError says what is wrong with a source, or with a request to change one. It wraps ErrInvalid and never shows the value of a secret.
type InvalidError struct {
	Violations []Violation
}

// Violation is one thing that is wrong.
type Violation struct {
	// Field is the path of the field, "" for the whole.
	Field string
	// Description says what is asked for.
	Description string
}

// String names the field and the fix.
func (v Violation) String() string {
	if v.Field == "" {
		return v.Description
	}
	return v.Field + ": " + v.Description
}

// Error has all that is wrong.
func (e *InvalidError) Error() string {
	texts := make([]string, 0, len(e.Violations))
	for _, v := range e.Violations {
		texts = append(texts, v.String())
	}
	return ErrInvalid.Error() + ": " + strings.Join(texts, "; ")
}

// Unwrap returns ErrInvalid.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// invalid is the error for a single violation.
func invalid(field, description string) error {
	return &InvalidError{Violations: []Violation{{field, description}}}
}

// validName is the rule of the proto.
var validName = regexp.MustCompile("^" + namePrefix + "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")

// publicHeaders are those that prove nothing, because everybody sends them, that do not reach a handler, or that are kept with a notification and so are no place for a secret.
var publicHeaders = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Facebook-Api-Version", "Host", "Trailer", "Transfer-Encoding",
	"User-Agent", "X-360dialog-Signature", "X-Hub-Signature", "X-Hub-Signature-256",
}

// label names a source, the i-th of its list, in an error.
func label(src *eventrelayv1.Source, i int) string {
	if name := src.GetName(); validName.MatchString(name) {
		return name
	}
	return fmt.Sprintf("number %d (%.80q)", i+1, src.GetName())
}

// check returns what is wrong with a source. The rules stand in the proto; their messages speak of
// the rule, never of the value. clientCertificates says that the server can check one.
func check(src *eventrelayv1.Source, clientCertificates bool) []Violation {
	var problems []Violation
	err := protovalidate.Validate(src)
	var violations *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &violations):
		for _, v := range violations.Violations {
			problems = append(problems, describe(v.Proto))
		}
	default:
		// What a rule says that could not be evaluated is not ours to vouch for, so it is not repeated.
		problems = append(problems, Violation{"", "the rules for sources could not be evaluated"})
	}

	const space = "it starts or ends with white space; remove it"
	for i, secret := range src.GetAppSecrets() {
		if padded(secret) {
			problems = append(problems, Violation{fmt.Sprintf("app_secrets[%d]", i), space})
		}
	}
	for _, word := range []struct{ field, value, hint string }{
		{"verify_token", src.GetVerifyToken(), space + " here and where it is registered with the provider"},
		{"access_token", src.GetAccessToken(), space},
		{"partner_api_key", src.GetPartnerApiKey(), space},
		{"channel_api_key", src.GetChannelApiKey(), space},
	} {
		if padded(word.value) {
			problems = append(problems, Violation{word.field, word.hint})
		}
	}
	if src.GetRequireClientCertificate() && !clientCertificates {
		problems = append(problems, Violation{"require_client_certificate", "this server cannot check client certificates; leave it unset"})
	}
	return append(problems, checkHeaders(src.GetHeaders())...)
}

// checkHeaders returns what is wrong with the headers that a sender must show.
func checkHeaders(headers map[string]string) []Violation {
	var problems []Violation
	seen := make(map[string]bool, len(headers))
	for name, value := range headers {
		if !headerLike.MatchString(name) {
			continue // the rules of the proto have said so
		}
		canonical := http.CanonicalHeaderKey(name)
		field := fmt.Sprintf("headers[%q]", name)
		switch {
		case slices.Contains(publicHeaders, canonical):
			problems = append(problems, Violation{field, "it proves nothing; give 360dialog a header of your own, or Authorization, with the webhook's URL"})
		case seen[canonical]:
			problems = append(problems, Violation{field, "it is there twice, in another case; header names do not tell cases apart"})
		case padded(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			problems = append(problems, Violation{field, "its value starts or ends with white space, or has a character that is not visible ASCII; HTTP would not carry it unchanged"})
		}
		seen[canonical] = true
	}
	slices.SortFunc(problems, func(a, b Violation) int { return strings.Compare(a.Field, b.Field) })
	return problems
}

var headerLike = regexp.MustCompile("^[A-Za-z0-9-]{1,128}$")

// describe says what a violation asks for.
func describe(violation *validate.Violation) Violation {
	path := violation.GetField().GetElements()
	if len(path) == 0 {
		// A rule about the whole message names its field itself.
		field, text, ok := strings.Cut(violation.GetMessage(), ": ")
		if !ok {
			return Violation{"", violation.GetMessage()}
		}
		return Violation{field, text}
	}
	switch field := path[0].GetFieldName(); field {
	case "name":
		return Violation{field, "it must be sources/{id}, the id being 1 to 63 of a-z, 0-9 and -, with a letter or digit first and last"}
	case "provider":
		return Violation{field, "it must be PROVIDER_META, PROVIDER_DIALOG360_PARTNER or PROVIDER_DIALOG360_CHANNEL"}
	case "labels", "headers":
		return Violation{field, "a key or value " + violation.GetMessage()} // The path would show the key, which may be any text.
	default:
		return Violation{protovalidate.FieldPathString(violation.GetField()), violation.GetMessage()}
	}
}

// padded reports white space at an end, as a block scalar of YAML or a pasted line leaves it.
func padded(s string) bool { return strings.TrimFunc(s, unicode.IsSpace) != s }
