package main

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
)

// binding is a route by which REST serves a method.
type binding struct {
	verb, template, body string
	additional           bool
}

// bindings returns the routes of a method, from its option google.api.http, and that of the stream.
func bindings(method *protogen.Method) []binding {
	if method.Desc.FullName() == streamMethod {
		return []binding{{verb: "GET", template: streamPath}}
	}
	rule, _ := proto.GetExtension(method.Desc.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	found := []binding{newBinding(rule, false)}
	for _, more := range rule.GetAdditionalBindings() {
		found = append(found, newBinding(more, true))
	}
	return found
}

func newBinding(rule *annotations.HttpRule, additional bool) binding {
	b := binding{body: rule.GetBody(), additional: additional}
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.verb, b.template = "GET", pattern.Get
	case *annotations.HttpRule_Put:
		b.verb, b.template = "PUT", pattern.Put
	case *annotations.HttpRule_Post:
		b.verb, b.template = "POST", pattern.Post
	case *annotations.HttpRule_Delete:
		b.verb, b.template = "DELETE", pattern.Delete
	case *annotations.HttpRule_Patch:
		b.verb, b.template = "PATCH", pattern.Patch
	}
	return b
}

var (
	// A variable of a template: `{id}` or `{name=sources/*}`.
	variable = regexp.MustCompile(`\{([a-z_.]+)(?:=([^}]+))?\}`)
	// A parameter of a path of the description: `{source}`.
	placeholder = regexp.MustCompile(`\{[^}]+\}`)
)

// shape is the template with all that varies as `*`.
func (b binding) shape() string {
	return variable.ReplaceAllStringFunc(b.template, func(found string) string {
		if pattern := variable.FindStringSubmatch(found)[2]; pattern != "" {
			return pattern
		}
		return "*"
	})
}

// find returns the route of a method that a path of the description is.
func find(method *protogen.Method, path, verb string) (binding, error) {
	for _, b := range bindings(method) {
		if b.verb == verb && b.shape() == placeholder.ReplaceAllString(path, "*") {
			return b, nil
		}
	}
	return binding{}, fmt.Errorf("%s is not served here", method.Desc.FullName())
}

// place is a `*` of a route, and so a parameter of its path.
type place struct {
	// field is the top-level field of the request that it is a part of, and below the field of that message where the route says so (`source.name`).
	field, below string
	// collection is the word in front of it, for a part of a name; empty where the field is the whole of it.
	collection string
	// words are those of the variable, and index is its own among them.
	words []string
	index int
}

// places returns the parameters of a route, in the order of its path.
func (b binding) places() []place {
	var found []place
	for _, match := range variable.FindAllStringSubmatch(b.template, -1) {
		field, below, _ := strings.Cut(match[1], ".")
		if match[2] == "" {
			found = append(found, place{field: field, below: below, words: []string{"*"}})
			continue
		}
		words := strings.Split(match[2], "/")
		for i, word := range words {
			if word == "*" {
				found = append(found, place{field: field, below: below, collection: words[i-1], words: words, index: i})
			}
		}
	}
	return found
}

// pattern is the rule of the field for this part of it, or empty if it cannot be told apart.
func (p place) pattern(method *protogen.Method) string {
	field := fieldOf(method.Input, p.field)
	if field != nil && p.below != "" {
		field = fieldOf(field.Message, p.below)
	}
	if field == nil {
		return ""
	}
	whole := rules(field).GetString().GetPattern()
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(whole, "^"), "$"), "/")
	if whole == "" || len(parts) != len(p.words) {
		return ""
	}
	return "^" + parts[p.index] + "$"
}

// value takes this part from a request, given as JSON.
func (p place) value(request map[string]any) (string, error) {
	value := request[p.field]
	if inner, ok := value.(map[string]any); ok && p.below != "" {
		value = inner[p.below]
	}
	whole, _ := value.(string)
	parts := strings.Split(whole, "/")
	if whole == "" || len(parts) != len(p.words) {
		return "", fmt.Errorf("%s: %q is not %s", p.field, whole, strings.Join(p.words, "/"))
	}
	for i, word := range p.words {
		if word != "*" && word != parts[i] {
			return "", fmt.Errorf("%s: %q is not %s", p.field, whole, strings.Join(p.words, "/"))
		}
	}
	return parts[p.index], nil
}

// fieldOf returns a field by its name, nil if there is none.
func fieldOf(message *protogen.Message, name string) *protogen.Field {
	for _, field := range message.Fields {
		if string(field.Desc.Name()) == name {
			return field
		}
	}
	return nil
}
