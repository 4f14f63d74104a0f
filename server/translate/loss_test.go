package translate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// leaf is a scalar somewhere in a value: its path without indexes, and every form in which a typed field may hold it.
type leaf struct {
	path  string
	forms []string
}

// leaves are the scalars of a JSON value that are something.
func leaves(path string, v any) []leaf {
	var all []leaf
	switch v := v.(type) {
	case ordered:
		for _, m := range v {
			all = append(all, leaves(strings.TrimPrefix(path+"."+m.key, "."), m.value)...)
		}
	case []any:
		for _, e := range v {
			all = append(all, leaves(path+"[]", e)...)
		}
	case string:
		if v != "" {
			all = append(all, leaf{path, forms(v)})
		}
	case nil:
	default:
		all = append(all, leaf{path, forms(fmt.Sprint(v))})
	}
	return all
}

// forms are the texts that typed fields have for a scalar: as it is, as a number, a bool, a time, a word.
func forms(s string) []string {
	all := []string{s, strings.ToLower(s), string(normalWord(nil, []byte(s)))}
	if d, ok := parseDecimal(nil, []byte(s)); ok {
		all = append(all, string(d.append(nil)))
	}
	if m, ok := parseMoment([]byte(s)); ok {
		all = append(all, fmt.Sprint("at ", m.seconds, m.nanos))
	}
	return append(all, map[string]string{"1": "true", "0": "false"}[s])
}

// held collects the scalars of a message by path, as forms has them. Paths have no brackets, for one may stand for many.
func held(path string, m protoreflect.Message, all map[string][]string) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := strings.TrimPrefix(path+"."+string(fd.Name()), ".")
		if fd.IsList() {
			for i := range v.List().Len() {
				hold(at, fd, v.List().Get(i), all)
			}
			return true
		}
		hold(at, fd, v, all)
		return true
	})
}

func hold(at string, fd protoreflect.FieldDescriptor, v protoreflect.Value, all map[string][]string) {
	switch {
	case fd.Enum() != nil:
		name := string(fd.Enum().Values().ByNumber(v.Enum()).Name())
		for word := range enumWords(fd.Enum()) {
			if strings.HasSuffix(name, "_"+word) {
				all[at] = append(all[at], word)
			}
		}
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp":
		ts := v.Message().Interface().(*timestamppb.Timestamp)
		all[at] = append(all[at], fmt.Sprint("at ", ts.GetSeconds(), ts.GetNanos()))
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Struct":
		holdOpen(at, v.Message().Interface().(*structpb.Struct).AsMap(), all)
	case fd.Message() != nil:
		held(at, v.Message(), all)
	case fd.Kind() == protoreflect.StringKind:
		all[at] = append(all[at], v.String())
	default:
		text := fmt.Sprint(v.Interface())
		if d, ok := parseDecimal(nil, []byte(text)); ok {
			text = string(d.append(nil))
		}
		all[at] = append(all[at], text)
	}
}

// holdOpen collects the scalars of an open map.
func holdOpen(at string, v any, all map[string][]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			holdOpen(at+"."+key, member, all)
		}
	case []any:
		for _, element := range v {
			holdOpen(at, element, all)
		}
	default:
		all[at] = append(all[at], fmt.Sprint(v))
	}
}

// covered says whether a path, or one above it, is among the unknown ones; a word of an enum is told behind its path.
func covered(path string, unknown []string) bool {
	for _, u := range unknown {
		rest, ok := strings.CutPrefix(path, u)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') || strings.HasPrefix(u, path+"=") {
			return true
		}
	}
	return false
}

// generator makes JSON for a message: mostly what its fields hold, in the forms that providers send, and now and then something else.
type generator struct{ *rand.Rand }

func (g generator) message(md protoreflect.MessageDescriptor, depth int) ordered {
	object := ordered{}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if g.IntN(3) == 0 || depth > 4 {
			continue
		}
		key := string(fd.Name())
		if aliases := jsonAliases(fd); len(aliases) > 0 && g.IntN(2) == 0 {
			key = aliases[g.IntN(len(aliases))]
		}
		object = append(object, member{key, g.field(fd, depth)})
	}
	for range g.IntN(3) {
		object = append(object, member{fmt.Sprintf("novel_%d", g.IntN(5)), g.anything(depth)})
	}
	g.Shuffle(len(object), func(i, j int) { object[i], object[j] = object[j], object[i] })
	return object
}

func (g generator) field(fd protoreflect.FieldDescriptor, depth int) any {
	if g.IntN(6) == 0 {
		return g.anything(depth)
	}
	if fd.IsList() && g.IntN(4) > 0 {
		list := []any{}
		for range g.IntN(4) {
			if g.IntN(6) == 0 {
				list = append(list, g.anything(depth))
			} else {
				list = append(list, g.value(fd, depth))
			}
		}
		return list
	}
	return g.value(fd, depth)
}

func (g generator) value(fd protoreflect.FieldDescriptor, depth int) any {
	n := json.Number(strconv.Itoa(g.IntN(100)))
	switch {
	case fd.Enum() != nil:
		values := fd.Enum().Values()
		word := strings.TrimPrefix(string(values.Get(g.IntN(values.Len())).Name()), strings.TrimSuffix(string(values.Get(0).Name()), "UNSPECIFIED"))
		return []string{word, strings.ToLower(word), strings.ReplaceAll(word, "_", "-"), "NOVEL"}[g.IntN(4)]
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp":
		return []any{json.Number("1700000000"), "1700000001", json.Number("1700000002123"), "2024-01-02T03:04:05+0000", "2024-01-02"}[g.IntN(5)]
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Struct":
		return ordered{{"open", "text"}, {"list", []any{true, ordered{{"inner", n}}, json.Number("123456789012345678901")}}}
	case fd.Message() != nil:
		return g.message(fd.Message(), depth+1)
	case fd.Kind() == protoreflect.BoolKind:
		return []any{true, false, "true", json.Number("0"), "FALSE"}[g.IntN(5)]
	case fd.Kind() == protoreflect.StringKind:
		return []any{"text \u00e4", n, json.Number("123456789012345678901"), true, ""}[g.IntN(5)]
	default:
		return []any{n, n.String(), n + ".0", n + "e1"}[g.IntN(4)]
	}
}

func (g generator) anything(depth int) any {
	if depth > 4 {
		return nil
	}
	return []any{
		"word", json.Number("1.5"), json.Number("-3"), true, nil, "", []any{}, ordered{}, []any{"a", ordered{{"b", "c"}}}, ordered{{"x", []any{json.Number("1")}}},
	}[g.IntN(10)]
}

// Whatever a payload holds, in whatever form, each scalar of it is in the typed message or told as unknown.
func TestNoScalarIsLostSilently(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(7, 11))}
	for _, typ := range Types() {
		names := aliases(typ.Payload.Message(), map[string]string{}, map[protoreflect.FullName]bool{})
		for round := range 60 {
			body, path := g.body(typ)
			ev := only(t, string(writer{}.bytes(body)))
			if pattern, _ := PatternOf(ev.Type); pattern != typ.Pattern {
				t.Fatalf("%s is not a %s", writer{}.bytes(body), typ.Pattern)
			}
			m := ev.msg.ProtoReflect()
			payload := map[string][]string{}
			held(strings.ReplaceAll(path, "[]", ""), m.Get(typ.Payload).Message(), payload)
			held("value", ev.msg.GetContext().ProtoReflect(), payload)
			raw := decode(t, ev.msg.GetRaw())
			for _, l := range leaves("", raw) {
				if l.path == "field" || l.path == "event" || l.path == "id" || covered(l.path, ev.msg.GetUnknownFields()) {
					continue
				}
				if !take(payload, l, names) {
					t.Fatalf("round %d: %s (%q) is neither typed nor told\nraw %s\nevent %v", round, l.path, l.forms[0], ev.msg.GetRaw(), without(ev.msg))
				}
			}
		}
	}
}

func without(ev *eventrelayv1.Event) *eventrelayv1.Event {
	ev.Raw = nil
	return ev
}

// body is a notification whose one event is of a type, and the path of its payload.
func (g generator) body(typ Type) (ordered, string) {
	words := strings.Split(typ.Pattern, ".")
	value := g.message(typ.Payload.Message(), 0)
	if words[0] == "dialog360" {
		path := "data"
		if len(words) == 3 {
			for key, l := range itemWords {
				if l.word == words[2] {
					path, value = "data."+key+"[]", ordered{{key, []any{value}}}
				}
			}
		}
		return ordered{{"event", strings.Replace(words[1], "*", "history", 1)}, {"data", value}, {"id", "e1"}}, path
	}
	if len(words) == 4 && (words[2] == "messaging" || words[2] == "standby") {
		return ordered{{"object", "page"}, {"entry", []any{ordered{{"id", "1"}, {words[2], []any{value}}}}}}, ""
	}
	field := strings.Replace(words[2], "*", "photos", 1)
	path := "value"
	if len(words) == 4 {
		for key, l := range itemWords {
			if l.word == words[3] {
				field, path = "messages", "value."+key+"[]"
				if key == "events" {
					field = "tracking_events"
				}
				value = ordered{{"messaging_product", "whatsapp"}, {"metadata", ordered{{"phone_number_id", "5"}, {"novel", true}}}, {key, []any{value}}}
			}
		}
	}
	change := ordered{{"value", value}, {"field", field}}
	return ordered{{"object", words[1]}, {"entry", []any{ordered{{"id", "1"}, {"changes", []any{change}}}}}}, path
}

// take removes from what a message holds one scalar that a leaf may have become.
func take(payload map[string][]string, l leaf, names map[string]string) bool {
	words := strings.Split(strings.ReplaceAll(l.path, "[]", ""), ".")
	for i, word := range words {
		if name, ok := names[word]; ok {
			words[i] = name
		}
	}
	path := strings.Join(words, ".")
	// Plain text where a message is expected is in the sibling for it.
	for _, at := range []string{path, path + "_text"} {
		for i, v := range payload[at] {
			if slices.Contains(l.forms, v) {
				payload[at] = append(payload[at][:i:i], payload[at][i+1:]...)
				return true
			}
		}
	}
	return false
}

// aliases maps the other names of the fields of a message, and of those below it, to their own.
func aliases(md protoreflect.MessageDescriptor, names map[string]string, seen map[protoreflect.FullName]bool) map[string]string {
	if seen[md.FullName()] {
		return names
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		for _, alias := range jsonAliases(fd) {
			names[alias] = string(fd.Name())
		}
		if fd.Message() != nil {
			aliases(fd.Message(), names, seen)
		}
	}
	return names
}
