package translate

import "slices"

// change is one change of Meta, or what corresponds to it elsewhere: a field and its value, in what raw is made of.
type change struct {
	scope     *scope
	root      int32 // what raw is made of
	field     string
	sentField string // field as sent, empty where it is inferred
	fieldNode int32  // its value, or none
	value     int32  // or none
	path      path   // from root to value
	// siblings are the keys beside field and value that belong to the payload, in the object siblingsAt; none where there is no such.
	siblings   []int32
	siblingsAt int32
	others     []int32 // members of root that are other events
	whatsapp   bool    // the value may hold lists of items
	facts      facts
}

// facts are what the events of a value need of it, looked up once however many they are.
type facts struct {
	number, display []byte // the business number's id and, for people, its digits
	hasID           bool
	times           [2]int32 // its timestamp and its created_time
}

func (d *document) facts(value int32) facts {
	metadata := d.get(value, "metadata")
	return facts{
		number:  d.wordBytes(d.get(metadata, "phone_number_id")),
		display: d.scalar(d.get(metadata, "display_phone_number")),
		hasID:   d.hasID(value),
		times:   [2]int32{d.get(value, "timestamp"), d.get(value, "created_time")},
	}
}

// change makes the events of a change: one for each of its items or, where it has none, one.
func (t *translator) change(c *change) {
	c.facts = t.doc.facts(c.value)
	if c.whatsapp && !isWhole(c.field) {
		if s := t.newSplit(c); s != nil {
			s.events(t)
			return
		}
	}
	t.whole(c)
}

// changeType is the event type of the change itself or, with its word, of an item of it, and where the payload of such events goes.
func (t *translator) changeType(c *change, item ...string) (string, *route) {
	var all [maxTypeWords]string
	words := append(all[:0], c.scope.prefix)
	if c.scope.prefix != "dialog360" {
		words = append(words, c.scope.object)
	}
	return t.typ(append(append(words, c.field), item...)...)
}

// path are the keys that lead from the root of raw to a value: two, or as many before the first that is none.
type path [2]int32

func newPath(keys ...int32) path {
	p := path{none, none}
	copy(p[:], keys)
	return p
}

// whole makes one event of a change: its payload is the value.
func (t *translator) whole(c *change) {
	d := &draft{scope: c.scope, field: c.field}
	d.typ, d.route = t.changeType(c)
	d.orderingKey = t.wholeConversation(c)
	if d.orderingKey == "" {
		d.orderingKey = c.scope.entryID
	}
	t.happened(d, c.value, &c.facts)
	t.begin()
	if c.whatsapp {
		t.wholeContext(c, d.route)
	}
	t.context(d, nil)
	t.wholePayload(c, d.route)
	d.id = t.identifyWhole(c)
	if len(c.others) > 0 {
		t.raw = t.entryForm(c.root, c.others...).append(t.raw[:0], pick{})
		t.finish(d, t.raw)
		return
	}
	t.finish(d, t.doc.raw(c.root))
}

// pushPath goes down to the value and returns what popPath needs.
func (t *translator) pushPath(keys path) (marks [len(path{})]int) {
	for i, k := range keys {
		if k != none {
			marks[i] = t.enc.paths.push(t.doc.text(k))
		}
	}
	return marks
}

func (t *translator) popPath(keys path, marks [len(path{})]int) {
	for i, k := range slices.Backward(keys[:]) {
		if k != none {
			t.enc.paths.pop(marks[i])
		}
	}
}

// wholePayload writes the value, and what stands beside it, as payload.
func (t *translator) wholePayload(c *change, route *route) {
	e := &t.enc
	marks := t.pushPath(c.path)
	if route == nil {
		t.unknownPayload(c.value, c.siblings)
		t.popPath(c.path, marks)
		return
	}
	f := newFrame(route.plan)
	switch v := c.value; t.doc.kind(v) {
	case kindNull:
	case kindObject:
		inner := t.wholeInner(c, route)
		for k := v + 1; k < t.doc.nodes[v].next; k = t.doc.nodes[k+1].next {
			switch {
			case k+1 == inner:
				mark := e.paths.push(t.doc.text(k))
				t.wholeMembers(c, route, &f, inner)
				e.paths.pop(mark)
			case !c.whatsapp || !t.isBeside(k, route) && !t.isSpent(c, k, route):
				e.member(&f, v, k, 1)
			}
		}
	default:
		t.plainValue(&f, v)
	}
	t.popPath(c.path, marks)
	for _, k := range c.siblings {
		e.member(&f, c.siblingsAt, k, 1)
	}
}

// wholeMembers writes what stands inside the object `standby` of a value without items.
func (t *translator) wholeMembers(c *change, route *route, f *frame, inner int32) {
	for k := inner + 1; k < t.doc.nodes[inner].next; k = t.doc.nodes[k+1].next {
		if !t.isBeside(k, route) && !t.isSpent(c, k, route) {
			t.enc.member(f, inner, k, 1)
		}
	}
}

// wholeInner is the object `standby` in a value of the field standby, which has context and lists like the value; none where it is payload.
func (t *translator) wholeInner(c *change, route *route) int32 {
	if !c.whatsapp || c.field != "standby" || route == nil || route.plan.keys["standby"].field != nil {
		return none
	}
	if inner := t.doc.get(c.value, "standby"); t.doc.kind(inner) == kindObject {
		return inner
	}
	return none
}

// isSpent says whether a member of a WhatsApp value without items needs no telling, for the payload has no place for it and it says
// nothing more: a list of items that is empty, the id that is the event's entry_id.
func (t *translator) isSpent(c *change, k int32, route *route) bool {
	if _, taken := route.plan.keys[string(t.doc.text(k))]; taken {
		return false
	}
	if _, ok := listOf(c.field, t.doc.text(k)); ok && t.doc.kind(k+1) >= kindArray && !t.hasItems(k+1) {
		return true
	}
	return c.isEntryID(t.doc, k)
}

// isEntryID says whether a member of the data of 360dialog is the id that the event has as its entry_id.
func (c *change) isEntryID(d *document, k int32) bool {
	return c.scope.prefix == "dialog360" && c.scope.entryID != "" && d.isKey(k, "id") && string(d.wordBytes(k+1)) == c.scope.entryID
}

// plainValue writes a value that is no object: an array is the payload field `values`, a scalar the field `value`. The walk stands at it.
func (t *translator) plainValue(f *frame, v int32) {
	e, name, result := &t.enc, "value", misfit
	if t.doc.kind(v) == kindArray {
		name = "values"
	}
	kp, known := f.plan.keys[name]
	switch {
	case !known || kp.alias:
		result = misfitUnlessEmpty(t.doc, v)
	case t.doc.kind(v) == kindArray && kp.field.repeated:
		f.set(kp.field.bit)
		mark := e.paths.pushElements()
		for c := v + 1; c < t.doc.nodes[v].next; c = t.doc.nodes[c].next {
			e.element(kp.field, c, 1)
		}
		e.paths.pop(mark)
		result = fits
	case t.doc.isScalar(v):
		result = e.memberField(f, kp.field, nil, v, 1)
	}
	if result == misfit {
		e.paths.add(t.doc.nodes[v].start)
	}
}

// isContext says whether a key of a WhatsApp value is one of the context's.
func (t *translator) isContext(k int32) bool {
	_, ok := t.schema.context.keys[string(t.doc.text(k))]
	return ok && !t.doc.isKey(k, "uid") && !t.doc.isKey(k, "envelope")
}

// isBeside says whether a key of a value without items is context: it is unless the payload has a field for it. Errors belong to the value.
func (t *translator) isBeside(k int32, route *route) bool {
	if t.doc.isKey(k, "errors") || !t.isContext(k) {
		return false
	}
	if route == nil {
		return true
	}
	_, taken := route.plan.keys[string(t.doc.text(k))]
	return !taken
}

// wholeContext writes the context of a WhatsApp value without items. An unknown payload has these keys as well, and so tells them in full.
func (t *translator) wholeContext(c *change, route *route) {
	if t.doc.kind(c.value) != kindObject {
		return
	}
	marks := t.pushPath(c.path)
	t.enc.paths.muted = route == nil
	f := newFrame(t.schema.context)
	inner := t.wholeInner(c, route)
	for k := c.value + 1; k < t.doc.nodes[c.value].next; k = t.doc.nodes[k+1].next {
		if k+1 == inner {
			mark := t.enc.paths.push(t.doc.text(k))
			t.besides(&f, inner, route)
			t.enc.paths.pop(mark)
		} else if t.isBeside(k, route) {
			t.enc.member(&f, c.value, k, 1)
		}
	}
	t.enc.paths.muted = false
	t.popPath(c.path, marks)
}

// besides writes the members of an object that are context.
func (t *translator) besides(f *frame, obj int32, route *route) {
	for k := obj + 1; k < t.doc.nodes[obj].next; k = t.doc.nodes[k+1].next {
		if t.isBeside(k, route) {
			t.enc.member(f, obj, k, 1)
		}
	}
}

// wholeConversation is the ordering key of a value without items that is about a conversation: it names the number in `metadata` or
// `recipient`, and the other party in `sender` or as items do.
func (t *translator) wholeConversation(c *change) string {
	if !c.whatsapp {
		return ""
	}
	d := t.doc
	if key := t.itemConversation(&c.facts, "", c.value); key != "" {
		return key
	}
	number, ok := d.word(d.get(d.get(c.value, "recipient"), "phone_number_id"))
	party, named := d.word(t.first(d.get(c.value, "sender"), "phone_number", "wa_id", "user_id"))
	if !ok || !named {
		return ""
	}
	return number + "/" + party
}

// identifyWhole makes the id of a change without items: of all that the change says but its field, which is part of every id.
func (t *translator) identifyWhole(c *change) string {
	t.placeItem(c.scope, c.sentField, "", c.hasOwnID(t.doc, c.value), c.facts.number)
	if c.siblingsAt != none {
		t.hash = t.canon.object(t.hash, c.siblingsAt, 0, c.fieldNode)
	} else {
		t.hash = append(t.hash, `{"value":`...)
		if c.value == none {
			t.hash = append(t.hash, "null"...)
		} else {
			t.hash = t.canon.append(t.hash, c.value, 1)
		}
		t.hash = append(t.hash, '}')
	}
	return t.id()
}

// hasOwnID says whether an item, the value around it or the notification has an id of its own. The id in the data of 360dialog is that of
// a channel or account.
func (c *change) hasOwnID(d *document, item int32) bool {
	if c.scope.prefix == "dialog360" {
		return c.scope.providerEventID != "" || item != c.value && d.hasID(item)
	}
	return c.facts.hasID || d.hasID(item)
}
