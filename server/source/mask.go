package source

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// outputOnly are the fields of a source that are not for callers to set. The name is one of them, for a source keeps it; the etag is a condition of a change, not a part of it.
var outputOnly = map[protoreflect.Name]bool{
	"name": true, "webhook_path": true, "etag": true, "origin": true, "create_time": true, "update_time": true, "secret_uses": true, "stats": true,
}

// clearOutput unsets what is output only, but for the name.
func clearOutput(src *eventrelayv1.Source) {
	m := src.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		if field := m.Descriptor().Fields().Get(i); outputOnly[field.Name()] && field.Name() != "name" {
			m.Clear(field)
		}
	}
}

// setFields returns the paths of the fields that are set in a source and can be changed.
func setFields(src *eventrelayv1.Source) []string {
	var paths []string
	src.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !outputOnly[field.Name()] {
			paths = append(paths, string(field.Name()))
		}
		return true
	})
	return paths
}

// apply sets the fields of a source that the paths name to what they are in another, unset ones included, and reports whether the paths name any that can be
// changed. A path is a field, a field of a message in it (`subscriptions.objects`) or a key of a map (`labels.team`, with other characters than letters, digits, - and _
// between backticks). What is output only is passed over, so that a source can be sent back as it was read; any other path is an InvalidError that names it.
func apply(paths []string, from, to *eventrelayv1.Source) (changed bool, err error) {
	var problems []Violation
	for _, path := range paths {
		first, _, _ := strings.Cut(path, ".")
		if outputOnly[protoreflect.Name(first)] {
			continue
		}
		if why := applyPath(path, from.ProtoReflect(), to.ProtoReflect()); why != "" {
			problems = append(problems, Violation{"update_mask", shownPath(path) + ": " + why})
		}
		changed = true
	}
	if len(problems) > 0 {
		return false, &InvalidError{Violations: problems}
	}
	return changed, nil
}

// applyPath sets what one path names. It returns what is wrong with the path.
func applyPath(path string, from, to protoreflect.Message) (why string) {
	name, rest, deeper := strings.Cut(path, ".")
	field := to.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case field == nil && path == "*":
		return "it would unset every secret that is not given again; name the fields"
	case field == nil:
		return "no such field; there are " + names(to.Descriptor())
	case !deeper:
		if from.Has(field) {
			to.Set(field, from.Get(field))
		} else {
			to.Clear(field)
		}
		return ""
	case field.IsMap():
		return applyKey(rest, field, from, to)
	case field.Message() != nil && !field.IsList():
		return applyPath(rest, from.Get(field).Message(), to.Mutable(field).Message())
	default:
		return name + " has no parts; name it as a whole"
	}
}

var plainKey = regexp.MustCompile("^[A-Za-z0-9_-]+$")

// applyKey sets one key of a map, or removes it.
func applyKey(text string, field protoreflect.FieldDescriptor, from, to protoreflect.Message) (why string) {
	name := text
	if quoted := len(text) > 2 && text[0] == '`' && text[len(text)-1] == '`'; quoted {
		name = text[1 : len(text)-1]
	} else if !plainKey.MatchString(text) {
		return fmt.Sprintf("put the key of %s between backticks", field.Name())
	}
	key := protoreflect.ValueOfString(name).MapKey()
	if value := from.Get(field).Map().Get(key); value.IsValid() {
		to.Mutable(field).Map().Set(key, value)
	} else if to.Has(field) {
		to.Mutable(field).Map().Clear(key)
	}
	return ""
}

var pathLike = regexp.MustCompile("^[A-Za-z0-9_.*`-]{1,100}$")

// shownPath shows a path if it may have been meant as one.
func shownPath(path string) string {
	if !pathLike.MatchString(path) {
		return "a path"
	}
	return path
}

// merged returns a copy of a source with the fields changed that the paths name; with no paths, those that are set in from. It also reports whether there was
// anything to change.
func merged(is, from *eventrelayv1.Source, paths []string) (_ *eventrelayv1.Source, changed bool, err error) {
	if len(paths) == 0 {
		paths = setFields(from)
	}
	// From is copied too: what is set from it is shared with it.
	to := proto.CloneOf(is)
	changed, err = apply(paths, proto.CloneOf(from), to)
	return to, changed, err
}
