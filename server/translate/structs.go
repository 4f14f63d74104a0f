package translate

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Tags inside google.protobuf.Struct, Value and ListValue.
var (
	tagStructFields = []byte{1<<3 | byte(protowire.BytesType)}
	tagEntryKey     = []byte{1<<3 | byte(protowire.BytesType)}
	tagEntryValue   = []byte{2<<3 | byte(protowire.BytesType)}
	tagListValues   = []byte{1<<3 | byte(protowire.BytesType)}
	tagValueString  = []byte{3<<3 | byte(protowire.BytesType)}
	tagValueStruct  = []byte{5<<3 | byte(protowire.BytesType)}
	tagValueList    = []byte{6<<3 | byte(protowire.BytesType)}
)

const (
	tagValueNull   = 1<<3 | byte(protowire.VarintType)
	tagValueNumber = 2<<3 | byte(protowire.Fixed64Type)
	tagValueBool   = 4<<3 | byte(protowire.VarintType)
)

// A Struct holds any JSON but three things, and holds these as strings, so that nothing is lost: a number that a double does not
// hold exactly, as sent; an object in which a key stands twice, and whatever lies deeper than maxDepth, as their JSON text.

// structFields writes the members of an object as the fields of a Struct that itself lies at depth. A key that stands twice keeps its
// first value, and the path of the later one is told.
func (e *encoder) structFields(obj int32, depth int) {
	names := e.newNames()
	for k := obj + 1; k < e.doc.nodes[obj].next; k = e.doc.nodes[k+1].next {
		e.structMember(&names, k, depth)
	}
	e.dropNames(names)
}

// structMember writes one member, unless its name is taken, which is told as unknown.
func (e *encoder) structMember(names *nameSet, k int32, depth int) {
	name := e.doc.text(k)
	if !e.addName(names, name) {
		mark := e.paths.push(name)
		e.paths.add(e.doc.nodes[k].start)
		e.paths.pop(mark)
		return
	}
	e.structField(name, k+1, depth)
}

// structField writes one entry of a Struct that lies at depth.
func (e *encoder) structField(name []byte, v int32, depth int) {
	entry := e.open(tagStructFields)
	e.bytes(tagEntryKey, name)
	value := e.open(tagEntryValue)
	e.structValue(v, depth+2)
	e.shut(value)
	e.shut(entry)
}

// structValue writes what is inside a Value that lies at depth.
func (e *encoder) structValue(v int32, depth int) {
	switch e.doc.kind(v) {
	case kindNull:
		e.out = append(e.out, tagValueNull, 0)
	case kindBool:
		e.out = append(e.out, tagValueBool, boolByte(e.doc.src[e.doc.nodes[v].start] == 't'))
	case kindString:
		e.text(tagValueString, v)
	case kindNumber:
		if f, ok := exactFloat(e.doc.raw(v)); ok {
			e.out = protowire.AppendFixed64(append(e.out, tagValueNumber), math.Float64bits(f))
		} else {
			e.bytes(tagValueString, e.doc.raw(v))
		}
	case kindArray:
		if depth+2 > maxDepth {
			e.structText(v)
			return
		}
		list := e.open(tagValueList)
		for c := v + 1; c < e.doc.nodes[v].next; c = e.doc.nodes[c].next {
			value := e.open(tagListValues)
			e.structValue(c, depth+2)
			e.shut(value)
		}
		e.shut(list)
	case kindObject:
		if depth+3 > maxDepth || e.hasTwins(v) {
			e.structText(v)
			return
		}
		object := e.open(tagValueStruct)
		for k := v + 1; k < e.doc.nodes[v].next; k = e.doc.nodes[k+1].next {
			e.structField(e.doc.text(k), k+1, depth+1)
		}
		e.shut(object)
	}
}

// structText writes a value as a string of its JSON text.
func (e *encoder) structText(v int32) {
	start := e.open(tagValueString)
	e.out = appendValid(e.out, e.doc.raw(v))
	e.shut(start)
}

// hasTwins says whether a key stands twice in an object.
func (e *encoder) hasTwins(obj int32) bool {
	names := e.newNames()
	defer func() { e.dropNames(names) }()
	for k := obj + 1; k < e.doc.nodes[obj].next; k = e.doc.nodes[k+1].next {
		if !e.addName(&names, e.doc.text(k)) {
			return true
		}
	}
	return false
}

// nameSet is the set of names of one Struct: the end of the encoder's stack of names and, once there are many, a map.
type nameSet struct {
	base int
	many map[string]struct{}
}

// manyNames is from how many names on a map is quicker than comparing each.
const manyNames = 24

func (e *encoder) newNames() nameSet { return nameSet{base: len(e.names)} }

func (e *encoder) dropNames(s nameSet) { e.names = e.names[:s.base] }

// addName adds a name to the set and reports whether it was new.
func (e *encoder) addName(s *nameSet, name []byte) bool {
	if s.many != nil {
		if _, ok := s.many[string(name)]; ok {
			return false
		}
		s.many[string(name)] = struct{}{}
		return true
	}
	for _, other := range e.names[s.base:] {
		if len(other) == len(name) && string(other) == string(name) {
			return false
		}
	}
	e.names = append(e.names, name)
	if len(e.names)-s.base == manyNames {
		s.many = make(map[string]struct{}, 4*manyNames)
		for _, other := range e.names[s.base:] {
			s.many[string(other)] = struct{}{}
		}
	}
	return true
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
