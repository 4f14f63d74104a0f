package translate

import "slices"

// split is a WhatsApp value whose lists of items become an event each.
type split struct {
	change   *change
	inner    int32 // the object `standby` in a value of the field standby, or none
	lists    []list
	items    []item
	errors   bool // errors stand beside other items, so they are context
	contacts int32
	book     book
	form     *form // nil where raw is the change as it is
	level    level // of all items but the first
	lean     *form // form of theirs, where that is not everything
	shared   [levelBare + 1]shared
}

// begin makes s the split of a change that has not been looked at, in the room of the one before.
func (s *split) begin(c *change) {
	before := *s
	*s = split{change: c, inner: none, contacts: none, lists: before.lists[:0], items: before.items[:0], book: book{nodes: before.book.nodes[:0]}}
	for l := range s.shared {
		s.shared[l].context, s.shared[l].found = before.shared[l].context[:0], before.shared[l].found[:0]
	}
}

// list is a list of items: an array, or the one item itself.
type list struct {
	key   string
	node  int32
	inner bool
	typ   string
	route *route
}

type item struct {
	list int
	node int32
}

// shared is what the items of a change have in common, encoded: context, and the paths that are unknown in it and beside it.
type shared struct {
	made    bool
	context []byte
	found   []unknownPath
	full    bool
}

// newSplit finds the items of a value; nil if it has none.
func (t *translator) newSplit(c *change) *split {
	if t.doc.kind(c.value) != kindObject {
		return nil
	}
	s := &t.room.split
	s.begin(c)
	if c.field == "standby" {
		if inner := t.doc.get(c.value, "standby"); t.doc.kind(inner) == kindObject {
			s.inner = inner
		}
	}
	var errors []list
	t.eachKey(s.objects(), func(k int32, inner bool) {
		if !t.hasItems(k + 1) {
			return
		}
		key, ok := listOf(c.field, t.doc.text(k))
		if !ok || s.hasList(key, inner) {
			return
		}
		if l := (list{key: key, node: k + 1, inner: inner}); key == "errors" {
			errors = append(errors, l)
		} else {
			s.lists = append(s.lists, l)
		}
	})
	s.errors = len(s.lists) > 0
	if !s.errors {
		s.lists = errors
	}
	for i := range s.lists {
		s.addItems(t, i)
	}
	if len(s.items) == 0 {
		return nil
	}
	s.prepare(t)
	return s
}

// objects are where lists of items may stand.
func (s *split) objects() [2]int32 { return [2]int32{s.change.value, s.inner} }

// eachKey calls do for each member of the objects that is not null.
func (t *translator) eachKey(objects [2]int32, do func(k int32, inner bool)) {
	for i, obj := range objects {
		if obj == none {
			continue
		}
		for k := obj + 1; k < t.doc.nodes[obj].next; k = t.doc.nodes[k+1].next {
			if t.doc.nodes[k+1].kind != kindNull {
				do(k, i == 1)
			}
		}
	}
}

// hasItems says whether a value is a list with something in it, or an item in a list's place.
func (t *translator) hasItems(v int32) bool {
	k := t.doc.kind(v)
	return k >= kindArray && !t.isBlank(v)
}

func (s *split) hasList(key string, inner bool) bool {
	for _, l := range s.lists {
		if l.key == key && l.inner == inner {
			return true
		}
	}
	return false
}

func (s *split) addItems(t *translator, i int) {
	l := &s.lists[i]
	word := itemWords[l.key].word
	l.typ, l.route = t.changeType(s.change, word)
	t.each(l.node, func(n int32) { s.items = append(s.items, item{list: i, node: n}) })
}

// prepare looks up the contacts of the items and decides how their raws are made.
func (s *split) prepare(t *translator) {
	t.eachKey(s.objects(), func(k int32, inner bool) {
		if t.doc.isKey(k, "contacts") && t.doc.kind(k+1) >= kindArray && (s.contacts == none || inner) {
			s.contacts = k + 1
		}
	})
	if s.contacts != none {
		t.each(s.contacts, func(c int32) { s.book.nodes = append(s.book.nodes, c) })
		s.book.look(t, s.items, repeatFactor*len(t.doc.raw(s.change.root)))
	}
	if len(s.items) == 1 && len(s.change.others) == 0 {
		return
	}
	s.form = s.newForm(t)
	if s.level = s.form.levelFor(len(s.items) - 1); s.level != levelAll {
		s.lean = s.form.lean()
	}
}

// newForm says of each member of the change what becomes of it in the raw of one item.
func (s *split) newForm(t *translator) *form {
	c := s.change
	return newForm(t.doc, c.root, func(k int32, p *part) {
		p.role = roleRest
		for _, other := range c.others {
			if other == k+1 {
				p.role = roleDrop
			}
		}
		isName := t.doc.isKey(k, "id") || t.doc.isKey(k, "time") || t.doc.isKey(k, "uid")
		switch {
		case k+1 == c.value:
			p.role, p.inner = roleInner, s.valueForm(t, c.value)
		case k+1 == c.fieldNode, isName && t.doc.wordBytes(k+1) != nil:
			p.role = roleKeep
		}
	})
}

func (s *split) valueForm(t *translator, obj int32) *form {
	return newForm(t.doc, obj, func(k int32, p *part) {
		p.role = roleRest
		switch {
		case k+1 == s.contacts:
			p.role = roleContacts
		case k+1 == s.inner:
			p.role, p.inner = roleInner, s.valueForm(t, s.inner)
		case t.isCore(k):
			p.role = roleCore
		}
		for i := range s.lists {
			if s.lists[i].node == k+1 {
				p.role, p.list = roleItems, i
			}
		}
	})
}

// isCore says whether a key is of those that every item is understood by.
func (t *translator) isCore(k int32) bool {
	return t.doc.isKey(k, "messaging_product") || t.doc.isKey(k, "metadata")
}

// events makes the event of each item.
func (s *split) events(t *translator) {
	t.events = slices.Grow(t.events, len(s.items))
	for i := range s.items {
		s.event(t, i)
	}
}

func (s *split) event(t *translator, i int) {
	c, it := s.change, s.items[i]
	l := &s.lists[it.list]
	d := &draft{scope: c.scope, typ: l.typ, route: l.route, field: c.field}
	d.orderingKey = t.itemConversation(&c.facts, l.key, it.node)
	if d.orderingKey == "" {
		d.orderingKey = c.scope.entryID
	}
	if d.orderingKey == "" {
		d.orderingKey = string(c.facts.number)
	}
	t.happened(d, it.node, &c.facts)
	p := pick{list: it.list, item: it.node}
	if i > 0 {
		p.level = s.level
	}
	if s.contacts != none {
		p.contacts = s.book.of(i)
	}
	sh := s.share(t, p.level)
	t.begin()
	t.enc.paths.merge(sh.found, sh.full)
	s.writeContacts(t, p.contacts)
	t.context(d, sh.context)
	s.payload(t, l, it.node)
	t.placeItem(c.scope, c.sentField, l.key, c.hasOwnID(t.doc, it.node), c.facts.number)
	d.id = t.idOf(it.node)
	if s.form == nil {
		t.finish(d, t.doc.raw(c.root))
		return
	}
	form := s.form
	if p.level != levelAll {
		form = s.lean
	}
	t.raw = form.append(t.raw[:0], p)
	t.finish(d, t.raw)
}

// payload writes one item. The walk goes down to it.
func (s *split) payload(t *translator, l *list, n int32) {
	e := &t.enc
	path := s.pathTo(l.inner)
	marks := t.pushPath(path)
	mark := e.paths.push(t.doc.text(l.node - 1))
	elements, inList := 0, t.doc.nodes[l.node].kind == kindArray
	if inList {
		elements = e.paths.pushElements()
	}
	switch {
	case l.route == nil:
		t.unknownPayload(n, nil)
	case t.doc.kind(n) == kindObject:
		e.message(l.route.plan, n, 1)
	default:
		e.paths.add(t.doc.nodes[n].start)
	}
	if inList {
		e.paths.pop(elements)
	}
	e.paths.pop(mark)
	t.popPath(path, marks)
}

// pathTo are the keys from the root of raw to the value, or to what is inside it.
func (s *split) pathTo(inner bool) path {
	if inner {
		return newPath(s.change.path[0], s.inner-1)
	}
	return s.change.path
}

// writeContacts writes context.contacts.
func (s *split) writeContacts(t *translator, contacts []int32) {
	if len(contacts) == 0 {
		return
	}
	e, k := &t.enc, s.contacts-1
	path := s.pathTo(s.inner != none && k > s.inner && k < t.doc.nodes[s.inner].next)
	marks := t.pushPath(path)
	mark := e.paths.push(t.doc.text(k))
	elements, inList := 0, t.doc.nodes[s.contacts].kind == kindArray
	if inList {
		elements = e.paths.pushElements()
	}
	field := t.schema.context.keys["contacts"].field
	for _, c := range contacts {
		e.element(field, c, 1)
	}
	if inList {
		e.paths.pop(elements)
	}
	e.paths.pop(mark)
	t.popPath(path, marks)
}

// share encodes, once, what the items of a level have in common. It uses the encoder, so it comes before an event is begun.
func (s *split) share(t *translator, l level) *shared {
	sh := &s.shared[l]
	if sh.made {
		return sh
	}
	t.begin()
	f := newFrame(t.schema.context)
	for i, obj := range s.objects() {
		if obj == none || l == levelBare {
			continue
		}
		path := s.pathTo(i == 1)
		marks := t.pushPath(path)
		for k := obj + 1; k < t.doc.nodes[obj].next; k = t.doc.nodes[k+1].next {
			if s.isShared(t, k, l) {
				s.shareMember(t, &f, obj, k)
			}
		}
		t.popPath(path, marks)
	}
	if l == levelAll {
		for _, k := range s.change.siblings {
			mark := t.enc.paths.push(t.doc.text(k))
			t.enc.paths.add(t.doc.nodes[k].start)
			t.enc.paths.pop(mark)
		}
	}
	sh.made, sh.full = true, t.enc.paths.full
	sh.context = append(sh.context, t.enc.out...)
	sh.found = append(sh.found, t.enc.paths.found...)
	return sh
}

// isShared says whether the raws of a level have a member of the value, and whether it is anything: not an item list, the contacts or what
// is itself looked into.
func (s *split) isShared(t *translator, k int32, l level) bool {
	if t.doc.kind(k+1) == kindNull || k+1 == s.contacts || k+1 == s.inner || l == levelCore && !t.isCore(k) {
		return false
	}
	for i := range s.lists {
		if s.lists[i].node == k+1 {
			return false
		}
	}
	if s.change.isEntryID(t.doc, k) {
		return false
	}
	if t.doc.kind(k+1) >= kindArray && !t.hasItems(k+1) {
		_, ok := listOf(s.change.field, t.doc.text(k))
		return !ok
	}
	return true
}

func (s *split) shareMember(t *translator, f *frame, obj, k int32) {
	if t.isContext(k) {
		t.enc.member(f, obj, k, 1)
		return
	}
	mark := t.enc.paths.push(t.doc.text(k))
	t.enc.paths.add(t.doc.nodes[k].start)
	t.enc.paths.pop(mark)
}
