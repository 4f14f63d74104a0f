// Package source holds the configured endpoints that providers post to, and the secrets that prove who posts.
//
// A Set is made once from validated sources and never changes, so any number of goroutines may use it. What it gives out is of
// two kinds: the Source message without its secrets, for people, and the Endpoint, which can check a signature or a handshake
// token but cannot be made to show what it checks against: not by fmt, not by slog, not by encoding it.
//
// A source that could not check a sender is refused when the Set is made; there is no endpoint that accepts what it cannot check.
package source

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	namePrefix = "sources/"
	pathPrefix = "/webhooks/"
)

// validName is the rule of the proto, here only to decide how an error names the source.
var validName = regexp.MustCompile("^" + namePrefix + "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")

// ErrInvalid is what every error about a source's own content wraps.
var ErrInvalid = errors.New("invalid source")

// A Set is a fixed collection of sources. It is safe for concurrent use.
type Set struct {
	names     []string // sorted
	sources   map[string]*eventrelayv1.Source
	endpoints map[string]Endpoint
}

// NewSet validates the sources and makes a set of them. It keeps no reference to what it is given.
//
// The error wraps ErrInvalid and has a line for each thing that is wrong, with the source, the field and what is asked for; it
// never shows the value of a secret. A webhook_path in the input is ignored: it follows from the name.
func NewSet(sources []*eventrelayv1.Source) (*Set, error) {
	set := &Set{
		sources:   make(map[string]*eventrelayv1.Source, len(sources)),
		endpoints: make(map[string]Endpoint, len(sources)),
	}
	var problems []error
	for i, src := range sources {
		if src == nil {
			problems = append(problems, fmt.Errorf("%w number %d: it is empty", ErrInvalid, i+1))
			continue
		}
		if found := check(src, i); len(found) > 0 {
			problems = append(problems, found...)
			continue
		}
		name := src.GetName()
		if _, taken := set.sources[name]; taken {
			problems = append(problems, fmt.Errorf("%w %s: name: it is used twice; give every source a name of its own", ErrInvalid, name))
			continue
		}
		id := strings.TrimPrefix(name, namePrefix)
		shown := withoutSecrets(src)
		shown.WebhookPath = pathPrefix + id
		set.names = append(set.names, name)
		set.sources[name] = shown
		set.endpoints[id] = newEndpoint(id, src)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	slices.Sort(set.names)
	return set, nil
}

// Get returns a copy of the source of that name (`sources/{id}`), without its secrets and with webhook_path set.
func (s *Set) Get(name string) (*eventrelayv1.Source, bool) {
	src, ok := s.sources[name]
	if !ok {
		return nil, false
	}
	return proto.CloneOf(src), true
}

// List returns copies of all sources, by name, as Get returns them.
func (s *Set) List() []*eventrelayv1.Source {
	list := make([]*eventrelayv1.Source, 0, len(s.names))
	for _, name := range s.names {
		list = append(list, proto.CloneOf(s.sources[name]))
	}
	return list
}

// Endpoint returns what checks the senders of the source with that id, the last part of its name.
func (s *Set) Endpoint(id string) (Endpoint, bool) {
	e, ok := s.endpoints[id]
	return e, ok
}

// Ready reports whether the sources are known. Those of a Set always are.
func (s *Set) Ready() bool { return true }

// Dev returns the two sources for development. Their secrets are published, so they belong on a loopback address only.
func Dev() []*eventrelayv1.Source {
	return []*eventrelayv1.Source{
		{
			Name:        "sources/dev",
			Provider:    eventrelayv1.Provider_PROVIDER_META,
			DisplayName: "Development, Meta",
			AppSecrets:  []string{"dev-app-secret"},
			VerifyToken: "dev-verify-token",
		},
		{
			Name:        "sources/dev360",
			Provider:    eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER,
			DisplayName: "Development, 360dialog partner",
			AppSecrets:  []string{"dev-app-secret"},
		},
	}
}

// check returns what is wrong with one source, the i-th of its list. The rules stand in the proto; their messages speak of
// the rule, never of the value.
func check(src *eventrelayv1.Source, i int) []error {
	label := src.GetName()
	if !validName.MatchString(label) {
		label = fmt.Sprintf("number %d (%.80q)", i+1, label)
	}
	var problems []error
	report := func(text string) {
		problems = append(problems, fmt.Errorf("%w %s: %s", ErrInvalid, label, text))
	}

	err := protovalidate.Validate(src)
	var violations *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &violations):
		for _, v := range violations.Violations {
			report(describe(v.Proto))
		}
	default:
		// What a rule says that could not be evaluated is not ours to vouch for, so it is not repeated.
		report("the rules for sources could not be evaluated")
	}

	for j, secret := range src.GetAppSecrets() {
		if padded(secret) {
			report(fmt.Sprintf("app_secrets[%d]: it starts or ends with white space, which no provider's secret does; remove it", j))
		}
	}
	if padded(src.GetVerifyToken()) {
		report("verify_token: it starts or ends with white space; remove it here and where it is registered with the provider")
	}
	return problems
}

// describe says what a violation asks for.
func describe(violation *validate.Violation) string {
	path := violation.GetField().GetElements()
	if len(path) == 0 {
		return violation.GetMessage() // A rule about the whole message names its field itself.
	}
	switch field := path[0].GetFieldName(); field {
	case "name":
		return "name: it must be sources/{id}, the id being 1 to 63 of a-z, 0-9 and -, with a letter or digit first and last"
	case "provider":
		return "provider: it must be PROVIDER_META or PROVIDER_DIALOG360_PARTNER"
	case "labels":
		return "labels: a key or value " + violation.GetMessage() // The path would show the key, which may be any text.
	default:
		return protovalidate.FieldPathString(violation.GetField()) + ": " + violation.GetMessage()
	}
}

// padded reports white space at an end, as a block scalar of YAML or a pasted line leaves it.
func padded(s string) bool { return strings.TrimFunc(s, unicode.IsSpace) != s }

// withoutSecrets returns a copy in which every field that the proto marks debug_redact is unset, so that a secret added to
// the proto is covered without a change here.
func withoutSecrets(src *eventrelayv1.Source) *eventrelayv1.Source {
	out := proto.CloneOf(src)
	m := out.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		if field := m.Descriptor().Fields().Get(i); secret(field) {
			m.Clear(field)
		}
	}
	return out
}

func secret(field protoreflect.FieldDescriptor) bool {
	options, ok := field.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}
