package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table gathers rows and prints them in columns. Cells that are empty show as a dash, and none steers the terminal.
type table struct {
	rows [][]string
}

// row adds a row.
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the rows, each with as much indent.
func (t *table) print(w io.Writer, indent string) error {
	var text bytes.Buffer
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		shown := make([]string, len(row))
		for i, cell := range row {
			shown[i] = visible(cmp.Or(cell, "-"))
		}
		// Neither a buffer nor what writes into it alone fails.
		_, _ = fmt.Fprintln(columns, indent+strings.Join(shown, "\t"))
	}
	_ = columns.Flush()
	if _, err := w.Write(text.Bytes()); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

// print writes a line of results.
func (o *output) print(format string, args ...any) error {
	if _, err := io.WriteString(o.out, visible(fmt.Sprintf(format, args...))+"\n"); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printJSON writes a message as one JSON object on a line. Fields that the schema marks as secret are left out: no server sends them, and none can have them printed.
func (o *output) printJSON(message proto.Message) error {
	public := proto.Clone(message)
	redact(public.ProtoReflect())
	text, err := jsonOf(public)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(o.out, text+"\n"); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// jsonOf gives a message as JSON that no terminal acts on.
func jsonOf(message proto.Message) (string, error) {
	text, err := protoNames.Marshal(message)
	if err != nil {
		return "", fmt.Errorf("%s as JSON: %w", message.ProtoReflect().Descriptor().Name(), err)
	}
	return visible(compact(text)), nil
}

// indented spreads JSON over lines, for people.
func indented(text string) string {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		return text
	}
	return b.String()
}

// redact clears every field of a message that the schema marks with debug_redact. (In events that marks what is personal, which whoever asks for an event asks for.)
func redact(message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		options, _ := field.Options().(*descriptorpb.FieldOptions)
		switch {
		case options.GetDebugRedact():
			message.Clear(field)
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, element protoreflect.Value) bool {
					redact(element.Message())
					return true
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				redact(value.List().Get(i).Message())
			}
		default:
			redact(value.Message())
		}
		return true
	})
}

// when gives a time as people and scripts read it; empty if it is unset.
func when(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return at.AsTime().UTC().Format(time.RFC3339)
}

// word gives an enum's value as flags and tables say it: without the prefix of the enum, in small letters, with dashes. Empty for the zero value.
func word(value protoreflect.Enum) string {
	values := value.Descriptor().Values()
	known := values.ByNumber(value.Number())
	switch {
	case value.Number() == 0:
		return ""
	case known == nil:
		return fmt.Sprintf("%d", value.Number()) // of a newer server
	}
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(known.Name()), prefix)), "_", "-")
}

// yesNo says a truth.
func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// pairs gives a map in the order of its keys, as `a=1, b=2`.
func pairs[V any](of map[string]V) string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for i, key := range keys {
		keys[i] = fmt.Sprintf("%s=%v", key, of[key])
	}
	return strings.Join(keys, ", ")
}
