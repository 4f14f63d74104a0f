package translate

// entry reads one entry of Meta's envelope: changes, messaging, standby, a flat field and value, changed_fields, in that order.
func (t *translator) entry(outer *scope, n int32) {
	d := t.doc
	sc := &t.room.entry
	*sc = *outer
	switch d.nodes[n].kind {
	case kindNull:
		return
	case kindObject:
	default:
		t.unknown(sc, joinType("meta", sc.object, ""), n)
		return
	}
	var id int32
	sc.entryID, id = t.wordUnder(n, "id")
	sc.test = sc.entryID == "0"
	_, uid := t.wordUnder(n, "uid")
	if uid != none {
		sc.uid = uid
	}
	t.setTime(sc, n)
	p := t.entryParts(n)
	sc.extras[0] = t.collect(n, id, uid, sc.toldTime(), p.changes, p.messaging, p.standby, p.field, p.value, p.words)
	if sc.extras[0].large || !p.any && len(sc.extras[0].keys) > 0 {
		sc.extras[0] = &noExtras
		t.unknown(sc, joinType("meta", sc.object, ""), n)
	}
	t.each(p.changes, func(c int32) { t.metaChange(sc, c) })
	t.each(p.messaging, func(c int32) { t.messaging(sc, "messaging", c) })
	t.each(p.standby, func(c int32) { t.messaging(sc, "standby", c) })
	if p.field != none || p.value != none {
		t.flat(sc, n, p)
	}
	if p.words != none {
		t.changedFields(sc, n, p)
	}
}

// entryParts are the values of an entry that hold events; none where there are none.
type entryParts struct {
	changes, messaging, standby, field, value, words int32
	any                                              bool
}

func (t *translator) entryParts(n int32) entryParts {
	list := func(key string) int32 {
		v := t.doc.get(n, key)
		if t.doc.kind(v) == kindArray || t.doc.kind(v) == kindObject {
			return v
		}
		return none
	}
	p := entryParts{
		changes:   list("changes"),
		messaging: list("messaging"),
		standby:   list("standby"),
		field:     t.firstWord(n, "field"),
		value:     t.doc.get(n, "value"),
		words:     t.doc.get(n, "changed_fields"),
	}
	if t.doc.isEmpty(p.value) {
		p.value = none
	}
	if t.doc.isEmpty(p.words) {
		p.words = none
	}
	held := func(v int32) bool { return v != none && !t.isBlank(v) }
	p.any = held(p.changes) || held(p.messaging) || held(p.standby) || p.field != none || p.value != none || p.words != none
	return p
}

// isBlank says whether a list of one or many has no element that is anything.
func (t *translator) isBlank(v int32) bool {
	if t.doc.nodes[v].kind == kindObject {
		return false
	}
	for c := v + 1; c < t.doc.nodes[v].next; c = t.doc.nodes[c].next {
		if t.doc.nodes[c].kind != kindNull {
			return false
		}
	}
	return true
}

// each calls do for each element of an array that is not null, or for the one value that stands in its place.
func (t *translator) each(v int32, do func(int32)) {
	switch t.doc.kind(v) {
	case kindNull:
	case kindArray:
		for c := v + 1; c < t.doc.nodes[v].next; c = t.doc.nodes[c].next {
			if t.doc.nodes[c].kind != kindNull {
				do(c)
			}
		}
	default:
		do(v)
	}
}

// metaChange reads one element of `changes`.
func (t *translator) metaChange(sc *scope, n int32) {
	if t.doc.nodes[n].kind != kindObject {
		t.unknown(sc, joinType("meta", sc.object, ""), n)
		return
	}
	field, value := t.firstWord(n, "field"), t.doc.get(n, "value")
	c := &t.room.change
	*c = change{scope: sc, root: n, fieldNode: field, value: value, path: newPath(), siblings: t.others(n, field, value), siblingsAt: n}
	if value != none {
		c.path = newPath(value - 1)
	}
	c.sentField, _ = t.doc.word(field)
	t.infer(c)
	t.change(c)
}

// flat reads a change that stands in the entry itself. What stands beside it belongs to the entry, not to the payload.
func (t *translator) flat(sc *scope, n int32, p entryParts) {
	c := &t.room.change
	*c = change{scope: sc, root: n, fieldNode: p.field, value: p.value, path: newPath(), siblingsAt: none}
	if p.value != none {
		c.path = newPath(p.value - 1)
	}
	c.sentField, _ = t.doc.word(p.field)
	for _, other := range [...]int32{p.changes, p.messaging, p.standby, p.words} {
		if other != none {
			c.others = append(c.others, other)
		}
	}
	t.infer(c)
	t.change(c)
}

// changedFields reads an entry that only names what has changed: one event for each word, whose raw is the entry with that word.
func (t *translator) changedFields(sc *scope, n int32, p entryParts) {
	form, words := t.wordForm(n, p), 0
	t.each(p.words, func(int32) { words++ })
	if words == 1 && !form.drops() {
		form = nil
	}
	next := pick{}
	t.each(p.words, func(word int32) {
		if t.doc.isEmpty(word) {
			return
		}
		next.item = word
		t.changedField(sc, n, form, next)
		if form != nil && next.level == levelAll {
			if next.level = form.levelFor(words - 1); next.level != levelAll {
				form = form.lean()
			}
		}
	})
}

func (t *translator) changedField(sc *scope, n int32, form *form, p pick) {
	word := p.item
	name, isWord := t.doc.word(word)
	inferred := *sc
	if inferred.object == "" {
		inferred.object = objectOf(name)
	}
	d := &draft{scope: &inferred, field: name}
	d.typ, d.route = t.typ("meta", inferred.object, name)
	if !isWord {
		d.route = nil
	}
	d.orderingKey, d.occurredAt, d.occurred = sc.entryID, sc.at, sc.timed
	t.begin()
	t.context(d, nil)
	switch {
	case !isWord:
		t.unknownPayload(word, nil)
	case d.route == nil:
		t.unknownPayload(none, nil)
	}
	t.placeItem(sc, "", "changed_fields", false, nil)
	d.id = t.idOf(word)
	raw := t.doc.raw(n)
	if form != nil {
		t.raw = form.append(t.raw[:0], p)
		raw = t.raw
	}
	t.finish(d, raw)
}

// messaging reads one element of `messaging` or `standby`.
func (t *translator) messaging(sc *scope, list string, n int32) {
	if t.doc.nodes[n].kind != kindObject {
		t.unknown(sc, joinType("meta", sc.object, ""), n)
		return
	}
	d := &draft{scope: sc, field: list}
	d.typ, d.route = t.typ("meta", sc.object, list, t.messagingKind(n))
	d.orderingKey = t.conversation(sc, n)
	t.happened(d, n, &facts{times: [2]int32{none, none}})
	t.begin()
	t.context(d, nil)
	if d.route != nil {
		t.enc.message(d.route.plan, n, 1)
	} else {
		t.unknownPayload(n, nil)
	}
	t.placeItem(sc, "", list, t.doc.hasID(n) || t.doc.hasMessageID(n), nil)
	d.id = t.idOf(n)
	t.finish(d, t.doc.raw(n))
}

// happened sets when an event happened: at the item's own timestamp, else at the value's, else at the entry's time.
func (t *translator) happened(d *draft, item int32, value *facts) {
	for _, n := range [...]int32{
		t.doc.get(item, "timestamp"), t.doc.get(t.doc.get(item, "metadata"), "timestamp"), value.times[0], value.times[1],
	} {
		if !t.doc.isScalar(n) {
			continue
		}
		if d.occurredAt, d.occurred = parseMoment(t.doc.scalar(n)); d.occurred {
			return
		}
	}
	d.occurredAt, d.occurred = d.scope.at, d.scope.timed
}
