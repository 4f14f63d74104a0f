package translate

import "strings"

// maxWord is how long an object, field, id or event may be. Each event of an entry repeats them; real ones have some forty bytes.
const maxWord = 256

// word is a scalar that is not empty and short enough to be a name or an id, as text.
func (d *document) word(n int32) (string, bool) {
	s := d.wordBytes(n)
	return string(s), s != nil
}

// wordBytes is a word as bytes, nil if the node is none.
func (d *document) wordBytes(n int32) []byte {
	s := d.scalar(n)
	if len(s) == 0 || len(s) > maxWord {
		return nil
	}
	return s
}

// scope is what the events of one entry share, or of one body where there are no entries.
type scope struct {
	prefix          string // first word of the type
	object          string // as sent, else inferred
	sentObject      string
	entryID         string
	providerEventID string
	test            bool
	whatsapp        bool // values may hold lists of WhatsApp items
	uid             int32
	time            int32  // the entry's time as sent, or none
	at              moment // time, where it is one
	timed           bool
	extras          [2]*extras // of the entry and of the body
}

// body reads the whole body.
func (t *translator) body(root int32) {
	if t.doc.nodes[root].kind == kindArray {
		for c := root + 1; c < t.doc.nodes[root].next; c = t.doc.nodes[c].next {
			if t.doc.nodes[c].kind != kindNull {
				t.envelope(c)
			}
		}
	} else {
		t.envelope(root)
	}
	if len(t.events) == 0 {
		t.unknown(&scope{uid: none, time: none}, "unknown", root)
	}
}

// envelope reads the body, or one element of a body that is an array, by its shape.
func (t *translator) envelope(root int32) {
	if t.doc.nodes[root].kind == kindObject {
		if entry := t.doc.get(root, "entry"); t.doc.kind(entry) >= kindArray {
			t.meta(root, entry)
			return
		}
		event := t.firstWord(root, "event", "type")
		data := t.first(root, "data", "payload", "channel")
		if event != none && data != none {
			t.dialog360(root, event, data)
			return
		}
		if values := t.doc.get(root, "values"); t.firstWord(values, "field") != none {
			t.threads(root, values)
			return
		}
	}
	t.unknown(&scope{uid: none, time: none}, "unknown", root)
}

// first is the value under the first of the keys that has one.
func (t *translator) first(obj int32, keys ...string) int32 {
	for _, key := range keys {
		if v := t.doc.get(obj, key); v != none {
			return v
		}
	}
	return none
}

// firstWord is the value under the first of the keys that has a word.
func (t *translator) firstWord(obj int32, keys ...string) int32 {
	for _, key := range keys {
		if v := t.doc.get(obj, key); t.doc.wordBytes(v) != nil {
			return v
		}
	}
	return none
}

// meta reads Meta's envelope. One without events makes one unknown event.
func (t *translator) meta(root, entry int32) {
	object := t.doc.get(root, "object")
	name, ok := t.doc.word(object)
	if !ok {
		object = none
	}
	outer := &t.room.body
	*outer = scope{prefix: "meta", object: name, sentObject: name, uid: none, time: none}
	before := len(t.events)
	rest := t.collect(root, object, entry)
	outer.extras[1] = rest
	if rest.large {
		t.unknown(outer, joinType("meta", name, ""), root)
	}
	if t.doc.nodes[entry].kind == kindArray {
		for c := entry + 1; c < t.doc.nodes[entry].next; c = t.doc.nodes[c].next {
			t.entry(outer, c)
		}
	} else {
		t.entry(outer, entry)
	}
	if len(t.events) == before {
		outer.extras = [2]*extras{}
		t.unknown(outer, joinType("meta", name, ""), root)
	}
}

// dialog360 reads an event of 360dialog.
func (t *translator) dialog360(root, event, data int32) {
	d := t.doc
	field, _ := d.word(event)
	sc := &scope{prefix: "dialog360", uid: none, time: none}
	sc.whatsapp = field == "history" || strings.HasPrefix(field, "smb_")
	var id int32
	sc.providerEventID, id = t.wordUnder(root, "id")
	sc.entryID, _ = t.wordUnder(data, "id")
	if field == "client_created" && sc.entryID == "" {
		sc.entryID, _ = t.wordUnder(d.get(data, "client"), "id")
	}
	sc.extras[1] = t.collect(root, id, event, data)
	if sc.extras[1].large {
		t.unknown(sc, joinType("dialog360", field), root)
	}
	t.change(&change{
		scope: sc, root: root, field: field, sentField: field, fieldNode: event, value: data, path: newPath(data - 1),
		siblingsAt: none, whatsapp: sc.whatsapp,
	})
}

// threads reads an event of Threads: one change without entries.
func (t *translator) threads(root, values int32) {
	d := t.doc
	sc := &scope{prefix: "meta", object: "threads", sentObject: "threads", uid: none, time: none}
	var id int32
	sc.entryID, id = t.wordUnder(root, "target_id")
	sc.test = sc.entryID == "0"
	t.setTime(sc, root)
	sc.extras[1] = t.collect(root, id, sc.toldTime(), values)
	if sc.extras[1].large {
		t.unknown(sc, joinType("meta", "threads", ""), root)
	}
	field := t.firstWord(values, "field")
	name, _ := d.word(field)
	value := d.get(values, "value")
	c := &change{scope: sc, root: root, field: name, sentField: name, fieldNode: field, value: value, path: newPath(values - 1)}
	if value != none {
		c.path = newPath(values-1, value-1)
	}
	c.siblings, c.siblingsAt = t.others(values, field, value), values
	t.change(c)
}

// wordUnder is the word under a key and where it stands.
func (t *translator) wordUnder(obj int32, key string) (string, int32) {
	n := t.doc.get(obj, key)
	word, ok := t.doc.word(n)
	if !ok {
		return "", none
	}
	return word, n
}

// setTime notes the time of an entry; a time that is none stays among its extras.
func (t *translator) setTime(sc *scope, entry int32) {
	n := t.doc.get(entry, "time")
	if n == none || !t.doc.isScalar(n) || t.doc.isEmpty(n) {
		return
	}
	sc.time = n
	sc.at, sc.timed = parseMoment(t.doc.scalar(n))
}

// toldTime is the node of the entry's time, if it is a time; else it is an extra like any other.
func (sc *scope) toldTime() int32 {
	if sc.timed {
		return sc.time
	}
	return none
}

// others are the keys of an object's members but those whose values are given, and but nulls.
func (t *translator) others(obj int32, but ...int32) []int32 {
	var keys []int32
	d := t.doc
members:
	for k := obj + 1; k < d.nodes[obj].next; k = d.nodes[k+1].next {
		if d.nodes[k+1].kind == kindNull {
			continue
		}
		for _, v := range but {
			if v == k+1 {
				continue members
			}
		}
		keys = append(keys, k)
	}
	return keys
}

// unknown adds an event of a shape, or of an entry or element, that nobody knows: raw is the node, and so is the payload.
func (t *translator) unknown(sc *scope, typ string, n int32) {
	t.begin()
	d := &draft{scope: sc, typ: typ, orderingKey: sc.entryID, occurredAt: sc.at, occurred: sc.timed}
	t.context(d, nil)
	t.unknownPayload(n, nil)
	t.placeItem(sc, "", "unknown", false, nil)
	d.id = t.idOf(n)
	t.finish(d, t.doc.raw(n))
}

// unknownPayload writes the inside of an UnknownPayload: an object as it is, an array as `values`, a scalar as `value`, and the members
// that stand beside it.
func (t *translator) unknownPayload(n int32, siblings []int32) {
	e := &t.enc
	json := e.open(t.schema.fields.unknownJSON)
	names := e.newNames()
	switch t.doc.kind(n) {
	case kindNull:
	case kindObject:
		for k := n + 1; k < t.doc.nodes[n].next; k = t.doc.nodes[k+1].next {
			e.structMember(&names, k, 2)
		}
	case kindArray:
		e.addName(&names, []byte("values"))
		e.structField([]byte("values"), n, 2)
	default:
		e.addName(&names, []byte("value"))
		e.structField([]byte("value"), n, 2)
	}
	at := e.paths.at
	e.paths.at = nil
	for _, k := range siblings {
		e.structMember(&names, k, 2)
	}
	e.paths.at = at
	e.dropNames(names)
	e.shut(json)
}
