package translate

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth is how deep messages lie in each other below Event. Most protobuf libraries refuse more than 100, counting what an event
// is wrapped in; what lies deeper is told in unknown_fields or, inside a Struct, as JSON text.
const maxDepth = 90

// encoder walks values of a document and writes them to out as protobuf. It belongs to one goroutine.
type encoder struct {
	doc   *document
	out   []byte
	paths paths
	names [][]byte // scratch: the keys of the Structs being written
}

// open begins a length-delimited field and returns what shut needs to end it.
func (e *encoder) open(tag []byte) int {
	e.out = append(append(e.out, tag...), 0)
	return len(e.out)
}

// shut writes the length of the field that began at start. Lengths are minimal, as every other encoder's: contents of 128 bytes and
// more move to make room.
func (e *encoder) shut(start int) {
	n := len(e.out) - start
	if n < 0x80 {
		e.out[start-1] = byte(n)
		return
	}
	var length [10]byte
	size := binary.PutUvarint(length[:], uint64(n))
	e.out = append(e.out, length[1:size]...)
	copy(e.out[start+size-1:], e.out[start:start+n])
	copy(e.out[start-1:], length[:size])
}

// text writes a string node as a string field.
func (e *encoder) text(tag []byte, n int32) {
	t := &e.doc.nodes[n]
	s := e.doc.src[t.start+1 : t.end-1]
	if t.flags == 0 || t.flags == flagHigh && utf8.Valid(s) {
		e.bytes(tag, s)
		return
	}
	start := e.open(tag)
	e.out = appendText(e.out, s)
	e.shut(start)
}

func (e *encoder) bytes(tag, s []byte) {
	e.out = protowire.AppendBytes(append(e.out, tag...), s)
}

func appendString(dst, tag []byte, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(append(dst, tag...), s)
}

// appendMoment writes a google.protobuf.Timestamp with its tag.
func appendMoment(dst, tag []byte, m moment) []byte {
	const seconds, nanos = 1<<3 | byte(protowire.VarintType), 2<<3 | byte(protowire.VarintType)
	dst = append(append(dst, tag...), 0)
	start := len(dst)
	if m.seconds != 0 {
		dst = protowire.AppendVarint(append(dst, seconds), uint64(m.seconds))
	}
	if m.nanos != 0 {
		dst = protowire.AppendVarint(append(dst, nanos), uint64(m.nanos))
	}
	// Two varints of at most ten bytes each and their tags: the length always fits into its one byte.
	dst[start-1] = byte(len(dst) - start)
	return dst
}

// appendInt writes an integer in the encoding of its kind, if it fits.
func appendInt(dst []byte, k protoreflect.Kind, d decimal) ([]byte, bool) {
	switch k {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		n, ok := d.magnitude()
		if !ok || d.negative {
			return dst, false
		}
		return appendUnsigned(dst, k, n)
	}
	n, ok := d.signed()
	if !ok {
		return dst, false
	}
	return appendSigned(dst, k, n)
}

// appendFloat writes the nearest double or float to a number.
func appendFloat(dst []byte, k protoreflect.Kind, s []byte) ([]byte, bool) {
	f, ok := parseFloat(s)
	if k == protoreflect.FloatKind {
		single := float32(f)
		return protowire.AppendFixed32(dst, math.Float32bits(single)), ok && !math.IsInf(float64(single), 0)
	}
	return protowire.AppendFixed64(dst, math.Float64bits(f)), ok
}

func appendUnsigned(dst []byte, k protoreflect.Kind, n uint64) ([]byte, bool) {
	switch k {
	case protoreflect.Uint32Kind:
		return protowire.AppendVarint(dst, n), n <= math.MaxUint32
	case protoreflect.Fixed32Kind:
		return protowire.AppendFixed32(dst, uint32(n)), n <= math.MaxUint32
	case protoreflect.Fixed64Kind:
		return protowire.AppendFixed64(dst, n), true
	default:
		return protowire.AppendVarint(dst, n), true
	}
}

func appendSigned(dst []byte, k protoreflect.Kind, n int64) ([]byte, bool) {
	fits := n >= math.MinInt32 && n <= math.MaxInt32
	switch k {
	case protoreflect.Int32Kind:
		return protowire.AppendVarint(dst, uint64(n)), fits
	case protoreflect.Sint32Kind:
		return protowire.AppendVarint(dst, protowire.EncodeZigZag(n)), fits
	case protoreflect.Sfixed32Kind:
		return protowire.AppendFixed32(dst, uint32(n)), fits
	case protoreflect.Sint64Kind:
		return protowire.AppendVarint(dst, protowire.EncodeZigZag(n)), true
	case protoreflect.Sfixed64Kind:
		return protowire.AppendFixed64(dst, uint64(n)), true
	default:
		return protowire.AppendVarint(dst, uint64(n)), true
	}
}
