package translate

import "slices"

// role is what becomes of a member when an object is written anew around one item.
type role uint8

const (
	roleKeep     role = iota // always there
	roleCore                 // there unless so large that it cannot be repeated
	roleRest                 // bulky as it may be: where it is too much to repeat, only the first item has it
	roleItems                // a list of items: there with the one item
	roleContacts             // there with the contacts that the item names
	roleInner                // an object that is itself written anew
	roleDrop                 // never there: it is another event's
)

// part is one member of an object to be written anew.
type part struct {
	lead  int32 // where its text begins: behind the brace or comma before its key
	value int32 // node of its value
	role  role
	list  int   // roleItems: which list
	inner *form // roleInner
}

// form is an object of which some members change from one raw to the next. What does not change is copied as it was received, the white
// space around it included.
type form struct {
	doc        *document
	parts      []part
	tail       int32 // where the text behind the last member begins
	start, end int32
}

// newForm makes a form of an object; assign says what becomes of the member whose key it is given.
func newForm(d *document, obj int32, assign func(k int32, p *part)) *form {
	f := &form{doc: d, tail: d.nodes[obj].start + 1, start: d.nodes[obj].start, end: d.nodes[obj].end}
	for k := obj + 1; k < d.nodes[obj].next; k = d.nodes[k+1].next {
		lead := f.tail
		if len(f.parts) > 0 {
			lead = int32(skipSpace(d.src, int(lead))) + 1
		}
		p := part{lead: lead, value: k + 1}
		assign(k, &p)
		f.parts = append(f.parts, p)
		f.tail = d.nodes[k+1].end
	}
	return f
}

// size adds up the members of a role, in bytes.
func (f *form) size(r role) int {
	n := 0
	for _, p := range f.parts {
		switch {
		case p.role == r:
			n += int(f.doc.nodes[p.value].end - p.lead)
		case p.inner != nil:
			n += p.inner.size(r)
		}
	}
	return n
}

// coreFactor is how many times over a change may be repeated by the metadata beside its items: far more than real ones need, for items of
// any sense are longer than a tenth of it.
const coreFactor = 32

// levelFor says how much of what the items share is repeated for so many more of them, so that all raws together stay within a multiple of
// the object.
func (f *form) levelFor(more int) level {
	size, core := int(f.end-f.start), f.size(roleCore)
	switch {
	case more*(core+f.size(roleRest)) <= repeatFactor*size:
		return levelAll
	case more*core <= coreFactor*size:
		return levelCore
	default:
		return levelBare
	}
}

// pick is what one raw is made with.
type pick struct {
	list     int
	item     int32
	contacts []int32 // nodes
	level    level
}

// level is how much of what items share one of them has.
type level uint8

const (
	levelAll  level = iota // everything
	levelCore              // metadata and the like, not the bulk
	levelBare              // nothing
)

// lean is the form without its bulk, for the items that do not have it: it costs them nothing to leave it out.
func (f *form) lean() *form {
	l := *f
	l.parts = nil
	for _, p := range f.parts {
		if p.role == roleRest {
			continue
		}
		if p.inner != nil {
			p.inner = p.inner.lean()
		}
		l.parts = append(l.parts, p)
	}
	return &l
}

// drops says whether the object has members that are another event's.
func (f *form) drops() bool {
	return slices.ContainsFunc(f.parts, func(p part) bool { return p.role == roleDrop })
}

// append writes the object with the one item.
func (f *form) append(dst []byte, p pick) []byte {
	dst = append(dst, '{')
	first := true
	for i := range f.parts {
		part := &f.parts[i]
		if !part.isIn(p) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		v := &f.doc.nodes[part.value]
		dst = append(dst, f.doc.src[part.lead:v.start]...)
		switch {
		case part.role == roleInner:
			dst = part.inner.append(dst, p)
		case part.role == roleItems && v.kind == kindArray:
			dst = append(append(append(dst, '['), f.doc.raw(p.item)...), ']')
		case part.role == roleContacts:
			dst = append(dst, '[')
			for i, c := range p.contacts {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = append(dst, f.doc.raw(c)...)
			}
			dst = append(dst, ']')
		default:
			dst = append(dst, f.doc.src[v.start:v.end]...)
		}
	}
	return append(dst, f.doc.src[f.tail:f.end]...)
}

func (part *part) isIn(p pick) bool {
	switch part.role {
	case roleCore:
		return p.level < levelBare
	case roleRest:
		return p.level == levelAll
	case roleItems:
		return part.list == p.list
	case roleContacts:
		return len(p.contacts) > 0
	case roleDrop:
		return false
	default:
		return true
	}
}

// wordForm is the form of an entry for one of its changed fields.
func (t *translator) wordForm(n int32, parts entryParts) *form {
	f := t.entryForm(n, parts.changes, parts.messaging, parts.standby, parts.field, parts.value)
	for i := range f.parts {
		if f.parts[i].value == parts.words {
			f.parts[i].role = roleItems
		}
	}
	return f
}

// entryForm is the form of an entry without some of its members.
func (t *translator) entryForm(n int32, without ...int32) *form {
	return newForm(t.doc, n, func(k int32, p *part) {
		switch {
		case slices.Contains(without, k+1):
			p.role = roleDrop
		case t.doc.isKey(k, "id") || t.doc.isKey(k, "time") || t.doc.isKey(k, "uid"):
			p.role = roleCore
		default:
			p.role = roleRest
		}
	})
}
