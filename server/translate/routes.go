package translate

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mappingv1 "eventrelay/gen/go/eventrelay/mapping/v1"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Type is a kind of event that has a payload of its own.
type Type struct {
	// Pattern is an event type in which `*` stands for exactly one word.
	Pattern string
	// Payload is the field of eventrelay.v1.Event that holds the payload.
	Payload protoreflect.FieldDescriptor
}

// Types lists what has a payload of its own, by pattern. Any goroutine may call it.
func Types() []Type {
	return slices.Clone(vocabulary().types)
}

// PatternOf returns which pattern of Types an event type matches, if any: there is a bounded number of patterns, but not of types. Any goroutine may call it.
func PatternOf(typ string) (pattern string, ok bool) {
	r := vocabulary().route(typ)
	if r == nil {
		return "", false
	}
	return r.pattern, true
}

// schema is all that the descriptors say, laid out for the walk. It is not changed once compiled.
type schema struct {
	types   []Type
	routes  map[string]*route
	context *messagePlan
	fields  eventFields
}

// route is where the payload of an event type goes.
type route struct {
	pattern string
	tag     []byte
	plan    *messagePlan
}

// eventFields are the tags of the fields of Event that are not payload, and of those inside that this package writes itself.
type eventFields struct {
	id, source, provider, typ, object, field, entryID, orderingKey, providerEventID []byte
	occurredAt, receivedAt, test, context, unknownFields, raw, unknown              []byte
	unknownJSON, contextUID, contextEnvelope                                        []byte
}

// vocabulary compiles the descriptors of Event at the first call.
var vocabulary = sync.OnceValue(func() *schema {
	return compile((*eventrelayv1.Event)(nil).ProtoReflect().Descriptor())
})

// compile reads the descriptors of an Event: payload routes, payload messages, context.
func compile(event protoreflect.MessageDescriptor) *schema {
	plans := planner{}
	s := &schema{routes: map[string]*route{}}
	payloads := event.Oneofs().ByName("payload").Fields()
	for i := range payloads.Len() {
		fd := payloads.Get(i)
		patterns, _ := proto.GetExtension(fd.Options(), mappingv1.E_PayloadFor).([]string)
		for _, pattern := range patterns {
			if s.routes[pattern] == nil {
				s.routes[pattern] = &route{pattern: pattern, tag: tagOf(event, fd.Name()), plan: plans.message(fd.Message())}
				s.types = append(s.types, Type{Pattern: pattern, Payload: fd})
			}
		}
	}
	slices.SortFunc(s.types, func(a, b Type) int { return cmp.Compare(a.Pattern, b.Pattern) })
	context := event.Fields().ByName("context").Message()
	s.context = plans.message(context)
	s.fields = eventFields{
		id: tagOf(event, "id"), source: tagOf(event, "source"), provider: tagOf(event, "provider"), typ: tagOf(event, "type"),
		object: tagOf(event, "object"), field: tagOf(event, "field"), entryID: tagOf(event, "entry_id"),
		orderingKey: tagOf(event, "ordering_key"), providerEventID: tagOf(event, "provider_event_id"),
		occurredAt: tagOf(event, "occurred_at"), receivedAt: tagOf(event, "received_at"), test: tagOf(event, "test"),
		context: tagOf(event, "context"), unknownFields: tagOf(event, "unknown_fields"), raw: tagOf(event, "raw"),
		unknown:         tagOf(event, "unknown"),
		unknownJSON:     tagOf(event.Fields().ByName("unknown").Message(), "json"),
		contextUID:      tagOf(context, "uid"),
		contextEnvelope: tagOf(context, "envelope"),
	}
	return s
}

func tagOf(md protoreflect.MessageDescriptor, name protoreflect.Name) []byte {
	fd := md.Fields().ByName(name)
	return protowire.AppendTag(nil, fd.Number(), wireType(fd.Kind()))
}

// maxTypeWords is how many words an event type has at most: provider, object, field and item.
const maxTypeWords = 4

// wildcards lists for each number of words which of them are `*`, as bits, in the order in which patterns go: fewer wildcards first,
// and among as many the later words first, so that what a type begins with counts more.
var wildcards = func() (masks [maxTypeWords + 1][]uint8) {
	for words := range masks {
		for mask := range uint8(1 << words) {
			masks[words] = append(masks[words], mask)
		}
		slices.SortFunc(masks[words], func(a, b uint8) int {
			return cmp.Or(cmp.Compare(bits.OnesCount8(a), bits.OnesCount8(b)), cmp.Compare(b, a))
		})
	}
	return masks
}()

// knownType is an event type and where its payload goes.
type knownType struct {
	typ   string
	route *route
}

// maxTypes is how many event types a translator remembers. There are fewer of real ones, but anybody can make up more.
const maxTypes = 256

// typ makes an event type of the provider's words and finds where its payload goes. Nearly all bodies are of the same few types, so it looks
// among those first that it has made before.
func (t *translator) typ(words ...string) (string, *route) {
	var scratch [maxType]byte
	b := appendType(scratch[:0], words)
	if known, ok := t.types[string(b)]; ok {
		return known.typ, known.route
	}
	typ := string(b)
	made := knownType{typ: typ, route: t.schema.route(typ)}
	if len(t.types) >= maxTypes {
		clear(t.types)
	}
	t.types[typ] = made
	return made.typ, made.route
}

// route is where the payload of an event type goes: by the pattern with the most literal words that matches, or nil.
func (s *schema) route(typ string) *route {
	var all [maxTypeWords]string
	words := all[:0]
	for word := range strings.SplitSeq(typ, ".") {
		if len(words) == maxTypeWords {
			return nil
		}
		words = append(words, word)
	}
	var scratch [maxType]byte
	for _, mask := range wildcards[len(words)] {
		pattern := scratch[:0]
		for i, word := range words {
			if i > 0 {
				pattern = append(pattern, '.')
			}
			if mask&(1<<i) != 0 {
				word = "*"
			}
			pattern = append(pattern, word...)
		}
		if r := s.routes[string(pattern)]; r != nil {
			return r
		}
	}
	return nil
}

// maxTypeWord is how long a word of an event type may be, and maxType all of one with their dots.
const (
	maxTypeWord = 64
	maxType     = maxTypeWords * (maxTypeWord + 1)
)

// joinType makes an event type of the provider's words: characters outside [A-Za-z0-9_-] become `_`, a word is cut at 64 characters,
// an empty one is `unknown`.
func joinType(words ...string) string {
	var scratch [maxType]byte
	return string(appendType(scratch[:0], words))
}

func appendType(b []byte, words []string) []byte {
	for i, word := range words {
		if i > 0 {
			b = append(b, '.')
		}
		start := len(b)
		for _, r := range word {
			if len(b)-start == maxTypeWord {
				break
			}
			if !isTypeRune(r) {
				r = '_'
			}
			b = append(b, byte(r))
		}
		if len(b) == start {
			b = append(b, "unknown"...)
		}
	}
	return b
}

func isTypeRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}
