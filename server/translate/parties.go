package translate

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
)

// counterpartKeys name the other party of an item, the likeliest first. A group is the conversation, whoever speaks in it.
var counterpartKeys = [...]string{
	"group_id", "recipient_id", "recipient_user_id", "from", "from_user_id", "to", "to_user_id", "wa_id", "user_id",
}

// echoKeys are counterpartKeys for what the business itself has sent.
var echoKeys = [...]string{"group_id", "to", "to_user_id", "recipient_id", "recipient_user_id", "from", "from_user_id"}

// sentKeys are counterpartKeys for a message as it was given to the messages endpoint, which an echo in standby holds.
var sentKeys = [...]string{"to", "recipient"}

// itemConversation is the ordering key of an item: business number and counterpart, or nothing where one of them is not said.
func (t *translator) itemConversation(value *facts, list string, item int32) string {
	if value.number == nil {
		return ""
	}
	var party []byte
	if list == "message_echoes" {
		if party = t.counterpart(value, item, echoKeys[:]); party == nil {
			party = t.counterpart(value, t.doc.get(item, "message"), sentKeys[:])
		}
	} else {
		party = t.counterpart(value, item, counterpartKeys[:])
	}
	if party == nil {
		return ""
	}
	both := make([]byte, 0, 2*maxWord+1)
	return string(append(append(append(both, value.number...), '/'), party...))
}

// counterpart is what an object says under the first of the keys that has a word, unless that is the business number itself.
func (t *translator) counterpart(value *facts, obj int32, keys []string) []byte {
	for _, key := range keys {
		party := t.doc.wordBytes(t.doc.get(obj, key))
		if party != nil && !bytes.Equal(party, value.number) && !sameNumber(party, value.display) {
			return party
		}
	}
	return nil
}

// sameNumber says whether a display number is this number: its digits count, not a plus or spaces.
func sameNumber(number, display []byte) bool {
	i := 0
	for _, c := range display {
		if c-'0' > 9 {
			continue
		}
		if i == len(number) || number[i] != c {
			return false
		}
		i++
	}
	return i > 0 && i == len(number)
}

// conversation is the ordering key of a messaging element: the page or account and whoever it speaks with.
func (t *translator) conversation(sc *scope, n int32) string {
	d := t.doc
	party := func(key string) string {
		p := d.get(n, key)
		for _, id := range [...]string{"id", "user_ref"} {
			if word, ok := d.word(d.get(p, id)); ok {
				return word
			}
		}
		return ""
	}
	sender, recipient := party("sender"), party("recipient")
	echo := string(d.scalar(d.get(d.get(n, "message"), "is_echo"))) == "true"
	other := sender
	if other == "" || other == sc.entryID || echo && recipient != sc.entryID {
		other = recipient
	}
	if sc.entryID == "" || other == "" || other == sc.entryID {
		return sc.entryID
	}
	return sc.entryID + "/" + other
}

// book is the contacts of a change and which of them each of its items names.
type book struct {
	nodes   []int32 // the contacts
	entries []bookEntry
	heads   map[uint64]int32 // by the hash of an id: 1 + its first entry
	first   []int32          // what the first item has: whom it names, and whom none names
	named   []int32          // whom the other items name, item after item
	ends    []int32          // where in named those of each item end
}

// bookEntry is one id of a contact.
type bookEntry struct {
	id      []byte
	contact int32 // among the nodes of the book
	next    int32 // 1 + the next entry of this hash, or 0
}

// bookSeed keeps others from choosing ids of one hash.
var bookSeed = maphash.MakeSeed()

// look finds whom each item names. A contact that many items name counts with each; where that is too much to repeat, only the first that
// names it has it.
func (b *book) look(t *translator, items []item, budget int) {
	if len(items) == 1 {
		b.first = b.nodes
		return
	}
	b.fill(t.doc)
	b.ends = make([]int32, len(items))
	lastItem := make([]int32, len(b.nodes)) // 1 + the last item that has the contact
	for i, it := range items {
		start := len(b.named)
		t.parties(it.node, 0, func(id []byte) {
			for at := range b.namesakes(id) {
				size := len(t.doc.raw(b.nodes[at]))
				if lastItem[at] == int32(i)+1 || lastItem[at] > 0 && size > budget {
					continue
				}
				if lastItem[at] > 0 {
					budget -= size
				}
				lastItem[at] = int32(i) + 1
				b.named = append(b.named, b.nodes[at])
			}
		})
		slices.Sort(b.named[start:])
		b.ends[i] = int32(len(b.named))
	}
	b.first = slices.Clone(b.named[:b.ends[0]])
	for at, c := range b.nodes {
		if lastItem[at] == 0 {
			b.first = append(b.first, c)
		}
	}
	slices.Sort(b.first)
}

// of is whom an item has, as nodes in the order of the source.
func (b *book) of(i int) []int32 {
	if i == 0 {
		return b.first
	}
	return b.named[b.ends[i-1]:b.ends[i]]
}

// maxNamesakes is how many contacts may have one id; more than two have never been seen, and each is looked at for each item.
const maxNamesakes = 4

// fill enters the contacts by each of their ids.
func (b *book) fill(d *document) {
	b.heads = make(map[uint64]int32, len(b.nodes))
	b.entries = make([]bookEntry, 0, len(b.nodes))
	for at, c := range b.nodes {
		for _, key := range [...]string{"wa_id", "user_id", "parent_user_id"} {
			if id := d.scalar(d.get(c, key)); len(id) > 0 {
				b.enter(bookEntry{id: id, contact: int32(at)})
			}
		}
	}
}

// enter adds an entry behind those of its hash, unless there are enough of its id.
func (b *book) enter(e bookEntry) {
	hash, same, last := maphash.Bytes(bookSeed, e.id), 0, int32(0)
	for at := b.heads[hash]; at > 0; at = b.entries[at-1].next {
		if last = at; bytes.Equal(b.entries[at-1].id, e.id) {
			same++
		}
	}
	if same == maxNamesakes {
		return
	}
	b.entries = append(b.entries, e)
	if added := int32(len(b.entries)); last > 0 {
		b.entries[last-1].next = added
	} else {
		b.heads[hash] = added
	}
}

// namesakes are the contacts that have an id.
func (b *book) namesakes(id []byte) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for at := b.heads[maphash.Bytes(bookSeed, id)]; at > 0; at = b.entries[at-1].next {
			if e := &b.entries[at-1]; bytes.Equal(e.id, id) && !yield(e.contact) {
				return
			}
		}
	}
}

// maxPartyDepth is how deep in an item people are looked for; the messages of a history stand four levels deep.
const maxPartyDepth = 32

// parties calls do with whatever an item says under a key that names a person.
func (t *translator) parties(n int32, depth int, do func(id []byte)) {
	if depth > maxPartyDepth {
		return
	}
	d := t.doc
	inObject := d.nodes[n].kind == kindObject
	for c := n + 1; c < d.nodes[n].next; {
		v := c
		if inObject {
			v = c + 1
		}
		switch d.nodes[v].kind {
		case kindObject, kindArray:
			t.parties(v, depth+1, do)
		case kindString, kindNumber:
			if inObject && namesParty(d.text(c)) {
				do(d.scalar(v))
			}
		}
		c = d.nodes[v].next
	}
}

// namesParty says whether a key holds the id of a person.
func namesParty(key []byte) bool {
	switch s := string(key); s {
	case "from", "to", "wa_id", "input", "previous", "current":
		return true
	default:
		return strings.HasSuffix(s, "user_id") || strings.HasSuffix(s, "recipient_id") || strings.HasSuffix(s, "participant_id")
	}
}
