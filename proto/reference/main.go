// Command reference is a protoc plugin that writes the reference page of the events: every event type with its payload, every message with its fields, every enum with
// its words, all with the comments of the protos. `make generate` runs it.
package main

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"

	mappingv1 "eventrelay/gen/go/eventrelay/mapping/v1"
)

// root is the message whose oneof `payload` says which events there are.
const root = "eventrelay.v1.Event"

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		event := find(plugin)
		if event == nil {
			return fmt.Errorf("no message %s among the files", root)
		}
		p := &page{out: plugin.NewGeneratedFile("events.md", ""), seen: map[protoreflect.FullName]bool{}}
		p.write(event)
		return nil
	})
}

// find returns the message that events are.
func find(plugin *protogen.Plugin) *protogen.Message {
	for _, file := range plugin.Files {
		for _, message := range file.Messages {
			if message.Desc.FullName() == root {
				return message
			}
		}
	}
	return nil
}

// page is the reference in the making.
type page struct {
	out *protogen.GeneratedFile
	// pending holds the messages and enums that were named and are not written yet, in the order in which they were named.
	pending []named
	seen    map[protoreflect.FullName]bool
}

// named is a message or an enum; one of the two is set.
type named struct {
	message *protogen.Message
	enum    *protogen.Enum
}

func (p *page) write(event *protogen.Message) {
	p.out.P("# Events\n")
	p.out.P("Made from the protos by `make generate`; do not edit. In a type, `*` stands for any one word. A type that is not listed has the payload `unknown`.\n")
	p.out.P("| type | payload field | message |\n| --- | --- | --- |")
	var rows []string
	for _, field := range event.Fields {
		patterns, _ := proto.GetExtension(field.Desc.Options(), mappingv1.E_PayloadFor).([]string)
		for _, pattern := range patterns {
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s |", pattern, field.Desc.Name(), p.link(field)))
		}
	}
	slices.Sort(rows)
	p.out.P(strings.Join(rows, "\n"))
	p.message(event)
	for len(p.pending) > 0 {
		next := p.pending[0]
		p.pending = p.pending[1:]
		if next.message != nil {
			p.message(next.message)
		} else {
			p.enum(next.enum)
		}
	}
}

// message writes a message with its fields, each with the other keys under which it is sent.
func (p *page) message(m *protogen.Message) {
	p.seen[m.Desc.FullName()] = true
	p.heading(m.Desc, m.Comments)
	if len(m.Fields) == 0 {
		return
	}
	p.out.P("| field | type | meaning |\n| --- | --- | --- |")
	for _, field := range m.Fields {
		meaning := line(field.Comments)
		if aliases, _ := proto.GetExtension(field.Desc.Options(), mappingv1.E_JsonAlias).([]string); len(aliases) > 0 {
			meaning += " Also sent as `" + strings.Join(aliases, "`, `") + "`."
		}
		p.out.P("| `", field.Desc.Name(), "` | ", p.link(field), " | ", meaning, " |")
	}
	p.out.P()
}

// enum writes an enum with its words.
func (p *page) enum(e *protogen.Enum) {
	p.heading(e.Desc, e.Comments)
	p.out.P("| value | meaning |\n| --- | --- |")
	for _, value := range e.Values {
		p.out.P("| `", value.Desc.Name(), "` | ", line(value.Comments), " |")
	}
	p.out.P()
}

func (p *page) heading(d protoreflect.Descriptor, comments protogen.CommentSet) {
	p.out.P("\n## ", d.FullName(), "\n")
	for paragraph := range strings.SplitSeq(strings.TrimSpace(string(comments.Leading)), "\n\n") {
		p.out.P(strings.Join(strings.Fields(paragraph), " "), "\n")
	}
}

// link names the type of a field, and sees to it that what it names is written.
func (p *page) link(field *protogen.Field) string {
	text := field.Desc.Kind().String()
	switch {
	case field.Desc.IsMap():
		text = "map of " + field.Desc.MapValue().Kind().String()
	case field.Message != nil:
		text = p.reference(field.Message.Desc, named{message: field.Message})
	case field.Enum != nil:
		text = p.reference(field.Enum.Desc, named{enum: field.Enum})
	}
	if field.Desc.IsList() {
		return "list of " + text
	}
	return text
}

func (p *page) reference(d protoreflect.Descriptor, target named) string {
	if strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return string(d.Name())
	}
	if !p.seen[d.FullName()] {
		p.seen[d.FullName()] = true
		p.pending = append(p.pending, target)
	}
	anchor := strings.ToLower(strings.ReplaceAll(string(d.FullName()), ".", ""))
	return fmt.Sprintf("[%s](#%s)", d.Name(), anchor)
}

// line is a comment as one line of a table.
func line(comments protogen.CommentSet) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(string(comments.Leading)), " "), "|", "\\|")
}
