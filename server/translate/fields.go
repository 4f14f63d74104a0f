package translate

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// fit says how a value went into its field.
type fit uint8

const (
	misfit fit = iota // nothing was written: the value is not what the field holds
	absent            // nothing was written: there is nothing in the value, or it has already been told where it does not fit
	fits              // written
)

// frame is one message being written: which of its fields and oneofs are set. Keys may come from several objects.
type frame struct {
	plan *messagePlan
	few  [4]uint64
	more []uint64
	// named says of the fields met under an alias whether their own name stands in the same object; nil until there is one.
	named map[*fieldPlan]bool
}

func newFrame(p *messagePlan) frame {
	f := frame{plan: p}
	if p.bits > len(f.few)*64 {
		f.more = make([]uint64, p.bits/64+1)
	}
	return f
}

func (f *frame) word(bit int) *uint64 {
	if f.more != nil {
		return &f.more[bit/64]
	}
	return &f.few[bit/64]
}

func (f *frame) isSet(bit int) bool { return bit >= 0 && *f.word(bit)&(1<<(bit%64)) != 0 }

func (f *frame) set(bit int) {
	if bit >= 0 {
		*f.word(bit) |= 1 << (bit % 64)
	}
}

// taken says whether the field, or another of its oneof, is set.
func (f *frame) taken(field *fieldPlan) bool { return f.isSet(field.bit) || f.isSet(field.oneof) }

// message writes the fields of an object that itself lies at depth.
func (e *encoder) message(p *messagePlan, obj int32, depth int) {
	f := newFrame(p)
	for k := obj + 1; k < e.doc.nodes[obj].next; k = e.doc.nodes[k+1].next {
		e.member(&f, obj, k, depth)
	}
}

// member writes the member of obj whose key is k. What cannot be written is told: an unknown key, a key whose field is already set (so
// the first of two wins), an alias whose field stands in the same object under its own name, a value that does not fit.
func (e *encoder) member(f *frame, obj, k int32, depth int) {
	v := k + 1
	if e.doc.nodes[v].kind == kindNull {
		return
	}
	key := e.doc.text(k)
	kp, known := f.plan.keys[string(key)]
	if known && !(kp.alias && e.hasOwnKey(f, obj, kp.field)) {
		taken := f.taken(kp.field)
		if e.memberField(f, kp.field, key, v, depth) != misfit {
			return
		}
		if word := e.unknownWord(kp.field, v); word != nil && !taken {
			mark := e.paths.push(key)
			e.paths.addWord(e.doc.nodes[k].start, word)
			e.paths.pop(mark)
			return
		}
	}
	mark := e.paths.push(key)
	e.paths.add(e.doc.nodes[k].start)
	e.paths.pop(mark)
}

// hasOwnKey says whether obj has the field under its own name too. It looks once for each field, however often the alias stands there.
func (e *encoder) hasOwnKey(f *frame, obj int32, field *fieldPlan) bool {
	named, looked := f.named[field]
	if !looked {
		if f.named == nil {
			f.named = map[*fieldPlan]bool{}
		}
		named = e.doc.get(obj, field.name) != none
		f.named[field] = named
	}
	return named
}

// memberField writes a value to its field, or to the text field beside it.
func (e *encoder) memberField(f *frame, field *fieldPlan, key []byte, v int32, depth int) fit {
	if f.taken(field) {
		return misfitUnlessEmpty(e.doc, v)
	}
	var result fit
	switch {
	case field.isMap:
		result = e.entries(field, key, v, depth)
	case field.repeated:
		result = e.elements(field, key, v, depth)
	default:
		if result = e.single(field, key, v, depth); result == misfit && field.words != nil {
			result = e.loneWord(field, v)
		}
	}
	if result == fits {
		f.set(field.bit)
		f.set(field.oneof)
	}
	if text := field.text; result == misfit && text != nil && e.doc.isScalar(v) && !f.taken(text) {
		e.scalarText(text, v)
		f.set(text.bit)
		f.set(text.oneof)
		return fits
	}
	return result
}

// loneWord writes the one word of an array, for Meta has some words now bare and now in a list; of several none is the one.
func (e *encoder) loneWord(field *fieldPlan, v int32) fit {
	if e.doc.nodes[v].kind != kindArray || e.doc.nodes[v].next == v+1 || e.doc.nodes[v+1].next != e.doc.nodes[v].next {
		return misfit
	}
	return e.single(field, nil, v+1, 0)
}

func misfitUnlessEmpty(d *document, v int32) fit {
	if d.isEmpty(v) {
		return absent
	}
	return misfit
}

// unknownWord is the word of a scalar that an enum does not know; nil for every other misfit.
func (e *encoder) unknownWord(field *fieldPlan, v int32) []byte {
	if field.words == nil || !e.doc.isScalar(v) {
		return nil
	}
	return e.doc.scalar(v)
}

// elements writes an array to a repeated field, or a single value as its one element. An element that does not fit is told and costs
// no other.
func (e *encoder) elements(field *fieldPlan, key []byte, v int32, depth int) fit {
	list := 0
	before := len(e.out)
	if field.list != nil {
		list = e.open(field.list)
	}
	written := len(e.out)
	result := absent
	if e.doc.nodes[v].kind != kindArray {
		result = e.single(field, key, v, depth)
	} else {
		key := e.paths.push(key)
		mark := e.paths.pushElements()
		for c := v + 1; c < e.doc.nodes[v].next; c = e.doc.nodes[c].next {
			e.element(field, c, depth)
		}
		e.paths.pop(mark)
		e.paths.pop(key)
	}
	if len(e.out) == written {
		e.out = e.out[:before]
		return result
	}
	if field.list != nil {
		e.shut(list)
	}
	return fits
}

// element writes one element; the walk stands at it already.
func (e *encoder) element(field *fieldPlan, c int32, depth int) {
	if e.single(field, nil, c, depth) != misfit {
		return
	}
	if word := e.unknownWord(field, c); word != nil {
		e.paths.addWord(e.doc.nodes[c].start, word)
		return
	}
	e.paths.add(e.doc.nodes[c].start)
}

// entries writes an object to a map field. Values of maps are scalars or enums; a message there is not read and told as unknown.
func (e *encoder) entries(field *fieldPlan, key []byte, v int32, depth int) fit {
	if e.doc.nodes[v].kind != kindObject || field.value.message != nil {
		return misfitUnlessEmpty(e.doc, v)
	}
	mark := e.paths.push(key)
	names := e.newNames()
	written := len(e.out)
	for k := v + 1; k < e.doc.nodes[v].next; k = e.doc.nodes[k+1].next {
		if e.doc.nodes[k+1].kind != kindNull {
			e.entry(field, &names, k, depth)
		}
	}
	e.dropNames(names)
	e.paths.pop(mark)
	if len(e.out) == written {
		return absent
	}
	return fits
}

func (e *encoder) entry(field *fieldPlan, names *nameSet, k int32, depth int) {
	name, result := e.doc.text(k), misfit
	if e.addName(names, name) {
		before := len(e.out)
		start := e.open(field.tag)
		if result = e.single(field.key, nil, k, depth); result != misfit {
			result = e.single(field.value, nil, k+1, depth+1)
		}
		e.shut(start)
		if result != fits {
			e.out = e.out[:before]
		}
	}
	if result == misfit {
		mark := e.paths.push(name)
		e.paths.add(e.doc.nodes[k].start)
		e.paths.pop(mark)
	}
}

// single writes one value. Where key is nil the walk stands at the value already.
func (e *encoder) single(field *fieldPlan, key []byte, v int32, depth int) fit {
	switch field.kind {
	case protoreflect.MessageKind:
		return e.submessage(field, key, v, depth)
	case protoreflect.StringKind, protoreflect.BytesKind:
		if !e.doc.isScalar(v) {
			return misfitUnlessEmpty(e.doc, v)
		}
		e.scalarText(field, v)
		return fits
	}
	if e.doc.isEmpty(v) {
		return absent
	}
	if !e.doc.isScalar(v) {
		return misfit
	}
	switch field.kind {
	case protoreflect.BoolKind:
		return e.boolean(field, v)
	case protoreflect.EnumKind:
		return e.enum(field, v)
	default:
		return e.number(field, v)
	}
}

// submessage writes an object to a message field; a Timestamp takes a scalar, a Struct any object.
func (e *encoder) submessage(field *fieldPlan, key []byte, v int32, depth int) fit {
	if field.message.shape == shapeTimestamp {
		if !e.doc.isScalar(v) || e.doc.kind(v) == kindBool {
			return misfitUnlessEmpty(e.doc, v)
		}
		m, ok := parseMoment(e.doc.scalar(v))
		if !ok {
			return misfitUnlessEmpty(e.doc, v)
		}
		e.out = appendMoment(e.out, field.tag, m)
		return fits
	}
	if e.doc.nodes[v].kind != kindObject {
		return misfitUnlessEmpty(e.doc, v)
	}
	if depth+1 > maxDepth || field.message.shape == shapeStruct && depth+4 > maxDepth {
		return misfit
	}
	mark, keyed := 0, key != nil
	if keyed {
		mark = e.paths.push(key)
	}
	start := e.open(field.tag)
	if field.message.shape == shapeStruct {
		e.structFields(v, depth+1)
	} else {
		e.message(field.message, v, depth+1)
	}
	e.shut(start)
	if keyed {
		e.paths.pop(mark)
	}
	return fits
}

// scalarText writes a scalar as text: a string decoded, a number digit for digit, a bool as its word.
func (e *encoder) scalarText(field *fieldPlan, v int32) {
	if !field.presence && e.doc.isEmpty(v) {
		return
	}
	if e.doc.nodes[v].kind == kindString {
		e.text(field.tag, v)
		return
	}
	e.bytes(field.tag, e.doc.raw(v))
}

// tagged begins a value that is not length-delimited; in a packed list the list has the tag.
func (e *encoder) tagged(field *fieldPlan) {
	if field.list == nil {
		e.out = append(e.out, field.tag...)
	}
}

// boolean writes true and false, as such or as a word in any case, and 0 and 1.
func (e *encoder) boolean(field *fieldPlan, v int32) fit {
	s := e.doc.scalar(v)
	var b bool
	switch {
	case equalFold(s, "true"), string(s) == "1":
		b = true
	case equalFold(s, "false"), string(s) == "0":
	default:
		return misfit
	}
	if b || field.presence {
		e.tagged(field)
		e.out = append(e.out, boolByte(b))
	}
	return fits
}

// equalFold compares with a word in lower case letters.
func equalFold(s []byte, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i, c := range s {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// enum writes the number of a word. A number is looked up as a word, for values are named after numbers where providers send those.
func (e *encoder) enum(field *fieldPlan, v int32) fit {
	s := e.doc.scalar(v)
	var scratch [maxToldWord]byte
	n, ok := field.words[string(normalWord(scratch[:0], s))]
	if !ok && e.doc.kind(v) != kindBool {
		var digits [64]byte
		if d, isNumber := parseDecimal(digits[:], s); isNumber {
			if i, integral := d.signed(); integral {
				n, ok = field.words[string(strconv.AppendInt(scratch[:0], i, 10))]
			}
		}
	}
	if !ok {
		return misfit
	}
	if n != 0 || field.presence {
		e.tagged(field)
		e.out = protowire.AppendVarint(e.out, uint64(int64(n)))
	}
	return fits
}

// number writes an integer exactly or not at all, and a float as the nearest there is.
func (e *encoder) number(field *fieldPlan, v int32) fit {
	s := e.doc.scalar(v)
	var scratch [64]byte
	if e.doc.kind(v) == kindBool {
		return misfit
	}
	d, ok := parseDecimal(scratch[:], s)
	if !ok {
		return misfit
	}
	if len(d.digits) == 0 && !field.presence {
		return fits
	}
	before := len(e.out)
	e.tagged(field)
	if field.kind == protoreflect.DoubleKind || field.kind == protoreflect.FloatKind {
		e.out, ok = appendFloat(e.out, field.kind, s)
	} else {
		e.out, ok = appendInt(e.out, field.kind, d)
	}
	if !ok {
		e.out = e.out[:before]
		return misfit
	}
	return fits
}
