package translate

import (
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mappingv1 "eventrelay/gen/go/eventrelay/mapping/v1"
)

// shape is how a message is read from JSON.
type shape uint8

const (
	shapeFields    shape = iota // an object, key by key
	shapeTimestamp              // google.protobuf.Timestamp, from a number or text
	shapeStruct                 // google.protobuf.Struct, from any object
)

// messagePlan is what a message descriptor says about reading JSON, laid out for the walk.
type messagePlan struct {
	shape shape
	keys  map[string]keyPlan
	bits  int // how many fields and oneofs there are to keep track of
}

// keyPlan is what a JSON key means in a message.
type keyPlan struct {
	field *fieldPlan
	alias bool // the field has another name, which goes first
}

// fieldPlan is how the value of one JSON key is written.
type fieldPlan struct {
	name     string
	tag      []byte // of one value
	list     []byte // tag of all values of a packed field
	kind     protoreflect.Kind
	repeated bool
	isMap    bool
	presence bool             // a zero is written too
	bit      int              // of the field among those of its message
	oneof    int              // bit that the members of its oneof share, or -1
	words    map[string]int32 // enum: word, in capitals and underscores, to number
	message  *messagePlan     // message
	key      *fieldPlan       // map
	value    *fieldPlan       // map
	text     *fieldPlan       // string field that takes a scalar which does not fit
}

// planner makes each plan once, however often and through whatever loop its message is reached.
type planner map[protoreflect.FullName]*messagePlan

func (pl planner) message(md protoreflect.MessageDescriptor) *messagePlan {
	if p := pl[md.FullName()]; p != nil {
		return p
	}
	fields := md.Fields()
	p := &messagePlan{keys: make(map[string]keyPlan, fields.Len()), bits: fields.Len() + md.Oneofs().Len()}
	pl[md.FullName()] = p
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		p.shape = shapeTimestamp
		return p
	case "google.protobuf.Struct":
		p.shape = shapeStruct
		return p
	}
	for i := range fields.Len() {
		f := pl.field(fields.Get(i))
		p.keys[f.name] = keyPlan{field: f}
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		f := p.keys[string(fd.Name())].field
		f.text = p.textSibling(fd)
		for _, alias := range jsonAliases(fd) {
			if _, taken := p.keys[alias]; !taken {
				p.keys[alias] = keyPlan{field: f, alias: true}
			}
		}
	}
	return p
}

func (pl planner) field(fd protoreflect.FieldDescriptor) *fieldPlan {
	f := &fieldPlan{
		name:     string(fd.Name()),
		kind:     fd.Kind(),
		repeated: fd.IsList(),
		isMap:    fd.IsMap(),
		presence: fd.HasPresence() || fd.IsList(),
		bit:      fd.Index(),
		oneof:    -1,
		tag:      protowire.AppendTag(nil, fd.Number(), wireType(fd.Kind())),
	}
	if fd.IsPacked() {
		f.list = protowire.AppendTag(nil, fd.Number(), protowire.BytesType)
	}
	if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() {
		f.oneof = fd.ContainingMessage().Fields().Len() + od.Index()
	}
	switch {
	case fd.IsMap():
		f.key, f.value = pl.field(fd.MapKey()), pl.field(fd.MapValue())
		f.key.presence, f.value.presence = true, true
	case fd.Message() != nil:
		f.message = pl.message(fd.Message())
	case fd.Enum() != nil:
		f.words = enumWords(fd.Enum())
	}
	return f
}

// textSibling is the field `<name>_text`, if it is a string.
func (p *messagePlan) textSibling(fd protoreflect.FieldDescriptor) *fieldPlan {
	sibling := fd.ContainingMessage().Fields().ByName(fd.Name() + "_text")
	if sibling == nil || sibling.Kind() != protoreflect.StringKind || sibling.IsList() {
		return nil
	}
	return p.keys[string(sibling.Name())].field
}

func jsonAliases(fd protoreflect.FieldDescriptor) []string {
	aliases, _ := proto.GetExtension(fd.Options(), mappingv1.E_JsonAlias).([]string)
	return aliases
}

// enumWords maps the names of the values without the enum's prefix, which is what stands before UNSPECIFIED in its first value.
func enumWords(ed protoreflect.EnumDescriptor) map[string]int32 {
	values := ed.Values()
	prefix, found := strings.CutSuffix(string(values.Get(0).Name()), "UNSPECIFIED")
	if !found {
		prefix = upperSnake(string(ed.Name())) + "_"
	}
	words := make(map[string]int32, values.Len())
	for i := range values.Len() {
		word := strings.TrimPrefix(string(values.Get(i).Name()), prefix)
		if word != "UNSPECIFIED" {
			words[word] = int32(values.Get(i).Number())
		}
	}
	return words
}

func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	default:
		return protowire.VarintType
	}
}
