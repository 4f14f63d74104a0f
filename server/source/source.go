// Package source holds the configured endpoints that providers post to, and the secrets that prove who posts.
//
// A Store has those of a file, which never change, and those that are created by calls. The latter lie, encrypted, in a bucket of the log, which all relays that share the log
// watch, and in a snapshot on this disk, so that their webhooks are accepted while the log is away. What the webhook asks for it reads from a Set, a fixed view that is
// replaced by the next whenever a source changes: it never waits for a change, nor for the log.
//
// What is given out is of two kinds: the Source message without its secrets, for people, and the Endpoint, which can check a signature or a handshake
// token but cannot be made to show what it checks against: not by fmt, not by slog, not by encoding it. Credentials, for calls to a provider, are the one exception, and
// have to be asked for each by its name.
//
// A source that could not check a sender is refused; there is no endpoint that accepts what it cannot check.
package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	namePrefix = "sources/"
	pathPrefix = "/webhooks/"
)

// A Set is a fixed collection of sources. It is safe for concurrent use.
type Set struct {
	names []string // of those that can be shown, sorted
	items map[string]*item
}

// item is one source of a Set, by its id.
type item struct {
	// shown is the source without its secrets; nil for one whose record cannot be used, which has an endpoint that refuses.
	shown    *eventrelayv1.Source
	endpoint Endpoint
	tally    *tally
	uses     []use
	// whole returns the source with its secrets. They live in a closure, for nothing that goes through a value by reflection sees into one.
	whole func() *eventrelayv1.Source
}

// newItem makes an item of a valid source, which it takes over.
func newItem(src *eventrelayv1.Source, counted *tally) *item {
	id := strings.TrimPrefix(src.GetName(), namePrefix)
	shown := withoutSecrets(src)
	shown.WebhookPath = pathPrefix + id
	uses := counted.uses(src)
	return &item{shown: shown, endpoint: newEndpoint(id, src, counted, uses), tally: counted, uses: uses, whole: func() *eventrelayv1.Source { return src }}
}

// NewSet validates the sources and makes a set of them. It keeps no reference to what it is given.
//
// The error wraps ErrInvalid and has a line for each thing that is wrong, with the source, the field and what is asked for; it
// never shows the value of a secret. A webhook_path in the input is ignored: it follows from the name.
func NewSet(sources []*eventrelayv1.Source) (*Set, error) {
	items, err := newItems(sources, &tallies{}, false)
	if err != nil {
		return nil, err
	}
	return setOf(items), nil
}

// newItems validates the sources and makes items of copies of them.
func newItems(sources []*eventrelayv1.Source, counted *tallies, clientCertificates bool) (map[string]*item, error) {
	items := make(map[string]*item, len(sources))
	var problems []error
	for i, src := range sources {
		if src == nil {
			problems = append(problems, fmt.Errorf("%w number %d: it is empty", ErrInvalid, i+1))
			continue
		}
		if found := check(src, clientCertificates); len(found) > 0 {
			for _, v := range found {
				problems = append(problems, fmt.Errorf("%w %s: %s", ErrInvalid, label(src, i), v))
			}
			continue
		}
		id := strings.TrimPrefix(src.GetName(), namePrefix)
		if items[id] != nil {
			problems = append(problems, fmt.Errorf("%w %s: name: it is used twice; give every source a name of its own", ErrInvalid, src.GetName()))
			continue
		}
		items[id] = newItem(proto.CloneOf(src), counted.of(id))
	}
	return items, errors.Join(problems...)
}

// setOf makes a set of items, which it takes over.
func setOf(items map[string]*item) *Set {
	set := &Set{items: items}
	for _, it := range items {
		if it.shown != nil {
			set.names = append(set.names, it.shown.GetName())
		}
	}
	slices.Sort(set.names)
	return set
}

// Get returns a copy of the source of that name (`sources/{id}`), without its secrets and with webhook_path set.
func (s *Set) Get(name string) (*eventrelayv1.Source, bool) {
	it := s.find(name)
	if it == nil || it.shown == nil {
		return nil, false
	}
	return proto.CloneOf(it.shown), true
}

// List returns copies of all sources, by name, as Get returns them.
func (s *Set) List() []*eventrelayv1.Source {
	list := make([]*eventrelayv1.Source, 0, len(s.names))
	for _, name := range s.names {
		list = append(list, proto.CloneOf(s.find(name).shown))
	}
	return list
}

// find returns the item of that name, or nil.
func (s *Set) find(name string) *item {
	id, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return nil
	}
	return s.items[id]
}

// Endpoint returns what checks the senders of the source with that id, the last part of its name.
func (s *Set) Endpoint(id string) (Endpoint, bool) {
	it, ok := s.items[id]
	if !ok {
		return Endpoint{}, false
	}
	return it.endpoint, true
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
