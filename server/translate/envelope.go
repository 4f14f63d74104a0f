package translate

// extras are the members of a body or of an entry that have no place of their own; they go into context.envelope.
type extras struct {
	keys  []int32
	size  int  // bytes of the source
	told  bool // whether an event has them already
	large bool // too large for an envelope: an unknown event of their own tells them
}

// maxExtras is how large extras may be to stand in an envelope.
const maxExtras = 256 << 10

// noExtras are the extras of nearly every entry and body. They are never told, for there is nothing to tell.
var noExtras extras

// collect makes extras of the members of an object but those whose values are given.
func (t *translator) collect(obj int32, but ...int32) *extras {
	keys := t.others(obj, but...)
	if len(keys) == 0 {
		return &noExtras
	}
	x := &extras{keys: keys}
	for _, k := range x.keys {
		x.size += int(t.doc.nodes[k+1].end - t.doc.nodes[k].start)
	}
	if x.large = x.size > maxExtras; x.large {
		x.keys = nil
	}
	return x
}

// moreKeys is the key of an envelope under which members stand whose key is taken: one that stands both in entry and body, or twice in
// either. Each is an object of one member.
const moreKeys = "..."

// context writes what is said beside the item: shared, which is already encoded, and what scope and body add.
func (t *translator) context(d *draft, shared []byte) {
	e, sc := &t.enc, d.scope
	e.out = append(e.out, shared...)
	if sc.uid != none {
		e.bytes(t.schema.fields.contextUID, t.doc.scalar(sc.uid))
	}
	var keys []int32
	for _, x := range sc.extras {
		if x != nil && len(x.keys) > 0 && t.mayTell(x) {
			keys = append(keys, x.keys...)
		}
	}
	// A time that occurred_at does not tell would be lost otherwise: raw is made of the change.
	if sc.timed && (!d.occurred || d.occurredAt != sc.at) {
		keys = append(keys, sc.time-1)
	}
	if len(keys) > 0 {
		t.envelopeStruct(keys)
	}
	d.contextEnd = len(e.out)
}

// mayTell says whether another event may have these extras. The first always has them; to repeat them costs of what is repeatable, so
// that a large envelope around many events does not multiply.
func (t *translator) mayTell(x *extras) bool {
	if !x.told {
		x.told = true
		return true
	}
	if x.size > t.repeatable {
		return false
	}
	t.repeatable -= x.size
	return true
}

// envelopeStruct writes context.envelope: a Struct at depth 2.
func (t *translator) envelopeStruct(keys []int32) {
	e := &t.enc
	envelope := e.open(t.schema.fields.contextEnvelope)
	names := e.newNames()
	e.addName(&names, []byte(moreKeys))
	var more []int32
	for _, k := range keys {
		name := t.doc.text(k)
		if !e.addName(&names, name) {
			more = append(more, k)
			continue
		}
		e.structField(name, k+1, 2)
	}
	e.dropNames(names)
	if len(more) > 0 {
		entry := e.open(tagStructFields)
		e.bytes(tagEntryKey, []byte(moreKeys))
		value := e.open(tagEntryValue)
		list := e.open(tagValueList)
		for _, k := range more {
			element := e.open(tagListValues)
			object := e.open(tagValueStruct)
			e.structField(t.doc.text(k), k+1, 7)
			e.shut(object)
			e.shut(element)
		}
		e.shut(list)
		e.shut(value)
		e.shut(entry)
	}
	e.shut(envelope)
}
