package subscription

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// outputOnly are the fields that are not for callers to set.
var outputOnly = map[protoreflect.Name]bool{
	"name": true, "etag": true, "create_time": true, "update_time": true, "backlog": true, "outstanding": true, "oldest_unacked_time": true, "dead_letter_count": true,
	"state": true, "lost_events": true, "last_activity_time": true, "stats": true,
}

// fixed are the fields that are set once.
var fixed = map[protoreflect.Name]string{
	"cursor": "the start cannot be changed; Seek goes elsewhere", "start_time": "the start cannot be changed; Seek goes elsewhere",
	"start_from": "the start cannot be changed; Seek goes elsewhere", "ordering": "it cannot be changed; create another subscription",
}

// clearOutput unsets what is output only.
func clearOutput(spec *eventrelayv1.Subscription) {
	m := spec.ProtoReflect()
	for name := range outputOnly {
		m.Clear(m.Descriptor().Fields().ByName(name))
	}
}

// merge sets the fields that the paths name to what they are in another, unset ones included; without paths, those that are set there. It reports whether there was anything to
// change. What is output only is passed over; any other path that cannot be set is an InvalidError that names it.
func merge(to, from *eventrelayv1.Subscription, paths []string) (changed bool, err error) {
	source, target := proto.CloneOf(from).ProtoReflect(), to.ProtoReflect()
	if len(paths) == 0 {
		source.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			paths = append(paths, string(field.Name()))
			return true
		})
	}
	var problems []Violation
	for _, path := range paths {
		name, key, deeper := strings.Cut(path, ".")
		field := target.Descriptor().Fields().ByName(protoreflect.Name(name))
		switch {
		case outputOnly[protoreflect.Name(name)]:
			continue
		case field == nil:
			problems = append(problems, Violation{"update_mask", "a path names no field of a subscription; there are " + fieldNames()})
			continue
		case deeper && name == "labels":
			if value, ok := from.GetLabels()[strings.Trim(key, "`")]; ok {
				if to.Labels == nil {
					to.Labels = map[string]string{}
				}
				to.Labels[strings.Trim(key, "`")] = value
			} else {
				delete(to.GetLabels(), strings.Trim(key, "`"))
			}
		case deeper:
			problems = append(problems, Violation{"update_mask", name + " has no parts; name it as a whole"})
		case fixed[field.Name()] != "":
			if source.Has(field) != target.Has(field) || !source.Get(field).Equal(target.Get(field)) {
				problems = append(problems, Violation{name, fixed[field.Name()]})
			}
			continue
		case source.Has(field):
			target.Set(field, source.Get(field))
		default:
			target.Clear(field)
		}
		changed = true
	}
	if len(problems) > 0 {
		return false, &InvalidError{problems}
	}
	return changed, nil
}

// fieldNames are the fields that can be changed.
func fieldNames() string {
	var names []string
	fields := (&eventrelayv1.Subscription{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).Name(); !outputOnly[name] && fixed[name] == "" {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
