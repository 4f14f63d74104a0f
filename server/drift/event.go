package drift

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// event is what of an eventrelay.v1.Event is counted. The rest, payload and raw above all, is passed over without being read.
type event struct {
	id, typ       string
	object, field string // as sent, which the type is not
	receivedAt    *timestamppb.Timestamp
	unknownFields []string
}

// The numbers of the fields that are read.
var (
	idNumber            = numberOf("id")
	typeNumber          = numberOf("type")
	objectNumber        = numberOf("object")
	fieldNumber         = numberOf("field")
	receivedAtNumber    = numberOf("received_at")
	unknownFieldsNumber = numberOf("unknown_fields")
)

func numberOf(name protoreflect.Name) protowire.Number {
	return (*eventrelayv1.Event)(nil).ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// read reads a serialized event.
func read(data []byte) (event, error) {
	ev := event{receivedAt: &timestamppb.Timestamp{}}
	for len(data) > 0 {
		number, wireType, n := protowire.ConsumeTag(data)
		if n < 0 {
			return event{}, fmt.Errorf("read a tag: %w", protowire.ParseError(n))
		}
		data = data[n:]
		if wireType != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, wireType, data); n < 0 {
				return event{}, fmt.Errorf("read field %d: %w", number, protowire.ParseError(n))
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return event{}, fmt.Errorf("read field %d: %w", number, protowire.ParseError(n))
		}
		data = data[n:]
		switch number {
		case idNumber:
			ev.id = string(value)
		case typeNumber:
			ev.typ = string(value)
		case objectNumber:
			ev.object = string(value)
		case fieldNumber:
			ev.field = string(value)
		case unknownFieldsNumber:
			ev.unknownFields = append(ev.unknownFields, string(value))
		case receivedAtNumber:
			if err := proto.Unmarshal(value, ev.receivedAt); err != nil {
				return event{}, fmt.Errorf("read received_at: %w", err)
			}
		}
	}
	return ev, nil
}

// maskedType is the event's type without words that do not look like a provider's. In a type every character that a word should not have is `_` already, so it is the
// object and the field as sent that tell.
func (ev event) maskedType() string {
	words := strings.Split(ev.typ, ".")
	field := 1
	if words[0] == "meta" && len(words) > 1 {
		field = 2
		if ev.object != "" && maskKey(ev.object) == masked {
			words[1] = masked
		}
	}
	if len(words) > field && ev.field != "" && maskKey(ev.field) == masked {
		words[field] = masked
	}
	return maskPath(strings.Join(words, "."))
}
