package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A link between protos: `[google.rpc.Code][google.rpc.Code]`.
var link = regexp.MustCompile(`\[([a-zA-Z.]+)\]\[[a-zA-Z.]+\]`)

// schemas completes the schemas of the messages by comments and rules of their fields.
func (d *document) schemas() error {
	for name, ref := range d.api.Components.Schemas {
		message := d.messages[name]
		if message == nil || strings.HasPrefix(name, "google.") { // of a proto that is not ours, whose comments link to what is not here
			for _, property := range ref.Value.Properties {
				property.Value.Description = link.ReplaceAllString(property.Value.Description, "`$1`")
			}
			continue
		}
		schema := ref.Value
		schema.Description = text(message.Comments)
		if len(schema.Properties) != len(message.Fields) {
			return fmt.Errorf("schema %s: %d properties for %d fields", name, len(schema.Properties), len(message.Fields))
		}
		for _, field := range message.Fields {
			property := schema.Properties[string(field.Desc.Name())]
			if property == nil {
				return fmt.Errorf("schema %s: no property for the field %s", name, field.Desc.Name())
			}
			d.property(property, field)
			// What is required of a resource differs from call to call; of a request it does not.
			if strings.HasSuffix(name, "Request") && mandatory(field) {
				schema.Required = append(schema.Required, string(field.Desc.Name()))
			}
		}
	}
	return nil
}

// property completes the schema of a field.
func (d *document) property(ref *openapi3.SchemaRef, field *protogen.Field) {
	if ref.Ref != "" { // a reference can have nothing beside it
		*ref = openapi3.SchemaRef{Value: &openapi3.Schema{AllOf: openapi3.SchemaRefs{openapi3.NewSchemaRef(ref.Ref, ref.Value)}}}
	}
	said := text(field.Comments)
	ref.Value.Description = said
	ref.Value.ReadOnly = strings.HasSuffix(said, "Output only.")
	ref.Value.WriteOnly = strings.HasSuffix(said, "Input only.")
	limit(ref.Value, field)
}

// rules are what protovalidate holds a field to.
func rules(field *protogen.Field) *validate.FieldRules {
	found, _ := proto.GetExtension(field.Desc.Options(), validate.E_Field).(*validate.FieldRules)
	return found
}

// limit says in a schema what the field may hold.
func limit(schema *openapi3.Schema, field *protogen.Field) {
	formats(schema)
	rules := rules(field)
	switch {
	case field.Desc.IsList():
		if list := rules.GetRepeated(); list != nil {
			schema.MinItems, schema.MaxItems, schema.UniqueItems = list.GetMinItems(), list.MaxItems, list.GetUnique()
			limitString(schema.Items.Value, list.GetItems().GetString())
		}
	case field.Desc.IsMap():
		if pairs := rules.GetMap(); pairs != nil {
			schema.MaxProps = pairs.MaxPairs
			limitString(schema.AdditionalProperties.Schema.Value, pairs.GetValues().GetString())
		}
	case field.Enum != nil:
		schema.Enum = slices.DeleteFunc(schema.Enum, func(word any) bool {
			value := field.Enum.Desc.Values().ByName(protoreflect.Name(fmt.Sprint(word)))
			return value != nil && slices.Contains(rules.GetEnum().GetNotIn(), int32(value.Number()))
		})
	default:
		limitString(schema, rules.GetString())
		if number := rules.GetInt32(); number != nil {
			if _, ok := number.GetGreaterThan().(*validate.Int32Rules_Gte); ok {
				schema.Min = new(float64(number.GetGte()))
			}
			if _, ok := number.GetLessThan().(*validate.Int32Rules_Lte); ok {
				schema.Max = new(float64(number.GetLte()))
			}
		}
	}
}

// formats keeps the formats that OpenAPI knows: base64 is `byte`, and neither a word of an enum nor a mask has one.
func formats(schema *openapi3.Schema) {
	if schema.Items != nil && schema.Items.Ref == "" {
		formats(schema.Items.Value)
	}
	switch schema.Format {
	case "bytes":
		schema.Format = "byte"
	case "enum", "field-mask":
		schema.Format = ""
	}
}

func limitString(schema *openapi3.Schema, rules *validate.StringRules) {
	if rules == nil {
		return
	}
	schema.MinLength, schema.MaxLength, schema.Pattern = rules.GetMinLen(), rules.MaxLen, rules.GetPattern()
	if rules.GetPrefix() != "" {
		schema.Pattern = "^" + regexp.QuoteMeta(rules.GetPrefix())
	}
	if rules.GetUri() {
		schema.Format = "uri"
	}
	for _, word := range rules.GetIn() {
		schema.Enum = append(schema.Enum, word)
	}
}

// mandatory reports whether a request without the field is refused: its rules refuse what it is then.
func mandatory(field *protogen.Field) bool {
	rules := rules(field)
	if rules.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED || field.Desc.HasOptionalKeyword() || field.Desc.ContainingOneof() != nil {
		return false
	}
	text := rules.GetString()
	if pattern := text.GetPattern(); pattern != "" && !regexp.MustCompile(pattern).MatchString("") {
		return true
	}
	return text.GetMinLen() > 0 || text.GetPrefix() != "" || rules.GetRepeated().GetMinItems() > 0 || slices.Contains(rules.GetEnum().GetNotIn(), 0)
}
