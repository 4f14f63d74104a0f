package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/hub"
)

// A fragment is the wire bytes of one element of SubscribeResponse.events: tag, length, then the event's sequence and cursor and what is stored of it. It is made once, and
// every reader is sent the same bytes.

// The fields that are written here by hand.
var (
	eventsTag     = fieldTag((*eventrelayv1.SubscribeResponse)(nil), "events", protowire.BytesType)
	respCursorTag = fieldTag((*eventrelayv1.SubscribeResponse)(nil), "cursor", protowire.BytesType)
	backlogTag    = fieldTag((*eventrelayv1.SubscribeResponse)(nil), "backlog", protowire.VarintType)
	cursorTag     = fieldTag((*eventrelayv1.Event)(nil), "cursor", protowire.BytesType)
	sequenceTag   = fieldTag((*eventrelayv1.Event)(nil), "sequence", protowire.VarintType)
	omittedTag    = fieldTag((*eventrelayv1.Event)(nil), "raw_omitted", protowire.VarintType)
)

// rawNumber is the field that the typed view leaves out, payloadNumbers those that the raw view does.
var (
	rawNumber      = fieldNumber((*eventrelayv1.Event)(nil), "raw")
	payloadNumbers = numbersOf((*eventrelayv1.Event)(nil), "payload")
)

func fieldNumber(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

func fieldTag(m proto.Message, name protoreflect.Name, kind protowire.Type) []byte {
	return protowire.AppendTag(nil, fieldNumber(m, name), kind)
}

// numbersOf returns the members of a oneof.
func numbersOf(m proto.Message, name protoreflect.Name) map[protowire.Number]bool {
	numbers := map[protowire.Number]bool{}
	fields := m.ProtoReflect().Descriptor().Oneofs().ByName(name).Fields()
	for i := range fields.Len() {
		numbers[fields.Get(i).Number()] = true
	}
	return numbers
}

func isRaw(number protowire.Number) bool     { return number == rawNumber }
func isPayload(number protowire.Number) bool { return payloadNumbers[number] }
func isNothing(protowire.Number) bool        { return false }

// framer makes the fragments of a log's events.
type framer struct{ cursors *cursors }

// Frame appends the fragment of an entry in the full view, or nothing if the entry is no event.
func (f framer) Frame(dst []byte, entry hub.Entry) (framed []byte, data int) {
	if len(entry.Data) > maxEventBytes {
		parts, ok := f.cut(entry, eventrelayv1.EventView_EVENT_VIEW_FULL)
		if !ok {
			return dst, -1
		}
		for _, part := range parts {
			dst = append(dst, part...)
		}
		return dst, -1
	}
	if !wellFormed(entry.Data) {
		return dst, -1
	}
	dst = f.appendHead(dst, entry.Sequence, len(entry.Data))
	return append(dst, entry.Data...), len(dst)
}

// appendHead appends what stands before the stored bytes of an event, of which there are size, and before fields that it names itself.
func (f framer) appendHead(dst []byte, sequence uint64, size int) []byte {
	dst = append(dst, eventsTag...)
	dst = protowire.AppendVarint(dst, uint64(len(sequenceTag)+protowire.SizeVarint(sequence)+len(cursorTag)+protowire.SizeBytes(tokenText)+size))
	dst = protowire.AppendVarint(append(dst, sequenceTag...), sequence)
	dst = protowire.AppendVarint(append(dst, cursorTag...), tokenText)
	return f.cursors.append(dst, sequence)
}

// cut returns the fragment of an entry in a view as parts to be sent one behind the other, which are its head and pieces of the entry's data. It is false if the entry is no
// event.
//
// The data ends with `raw`, as a rule, so the view without it is the head and a prefix.
func (f framer) cut(entry hub.Entry, view eventrelayv1.EventView) (parts [][]byte, ok bool) {
	large := len(entry.Data) > maxEventBytes
	drop := isNothing
	switch {
	case view == eventrelayv1.EventView_EVENT_VIEW_RAW && large:
		drop = func(number protowire.Number) bool { return isRaw(number) || isPayload(number) }
	case view == eventrelayv1.EventView_EVENT_VIEW_RAW:
		drop = isPayload
	case view == eventrelayv1.EventView_EVENT_VIEW_TYPED || large:
		drop = isRaw
	}
	parts = make([][]byte, 1, 4) // the head comes last
	hasRaw := false
	from, at, size := 0, 0, 0
	keep := func() {
		if from < at {
			parts, size = append(parts, entry.Data[from:at:at]), size+at-from
		}
	}
	for at < len(entry.Data) {
		number, n := nextField(entry.Data[at:])
		if n < 0 {
			return nil, false
		}
		hasRaw = hasRaw || isRaw(number)
		if drop(number) {
			keep()
			from = at + n
		}
		at += n
	}
	keep()
	if large && hasRaw && view != eventrelayv1.EventView_EVENT_VIEW_TYPED {
		omitted := append(append([]byte{}, omittedTag...), 1)
		parts, size = append(parts, omitted), size+len(omitted)
	}
	parts[0] = f.appendHead(make([]byte, 0, hub.FrameRoom), entry.Sequence, size)
	return parts, true
}

// nextField returns the number of the first field and the length of tag and value; negative if the bytes are none.
func nextField(b []byte) (protowire.Number, int) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, n
	}
	m := protowire.ConsumeFieldValue(number, kind, b[n:])
	if m < 0 {
		return 0, m
	}
	return number, n + m
}

// wellFormed reports whether the bytes are fields of a message, one behind the other. What is in the fields was written by us.
func wellFormed(b []byte) bool {
	for len(b) > 0 {
		_, n := nextField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
