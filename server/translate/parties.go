package translate

import (
	"bytes"
	"slices"
	"strings"
)

// counterpartKeys name the other party of an item, the likeliest first. A group is the conversation, whoever speaks in it.
var counterpartKeys = [...]string{
	"group_id", "recipient_id", "recipient_user_id", "from", "from_user_id", "to", "to_user_id", "wa_id", "user_id",
}

// echoKeys are counterpartKeys for what the business itself has sent.
var echoKeys = [...]string{"group_id", "to", "to_user_id", "recipient_id", "recipient_user_id", "from", "from_user_id"}

// itemConversation is the ordering key of an item: business number and counterpart, or nothing where one of them is not said.
func (t *translator) itemConversation(value *facts, list string, item int32) string {
	d, number := t.doc, value.number
	if number == nil {
		return ""
	}
	keys := counterpartKeys[:]
	if list == "message_echoes" {
		keys = echoKeys[:]
	}
	for _, key := range keys {
		party := d.wordBytes(d.get(item, key))
		if party != nil && !bytes.Equal(party, number) && !sameNumber(party, value.display) {
			both := make([]byte, 0, 2*maxWord+1)
			return string(append(append(append(both, number...), '/'), party...))
		}
	}
	return ""
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
	if sc.entryID == "" || other == "" {
		return sc.entryID
	}
	return sc.entryID + "/" + other
}

// book is the contacts of a change and which of them each of its items names.
type book struct {
	nodes []int32   // the contacts
	named [][]int32 // of each item, the contacts that it names; the first item also has those that none names
}

// newBook looks up whom each item names. A contact that many items name counts with each; where that is too much to repeat, only the
// first that names it has it.
func (t *translator) newBook(contacts int32, items []item, budget int) *book {
	d := t.doc
	b := &book{named: make([][]int32, len(items))}
	if len(items) == 1 {
		t.each(contacts, func(c int32) { b.named[0] = append(b.named[0], c) })
		return b
	}
	ids := map[string][]int32{}
	t.each(contacts, func(c int32) {
		at := int32(len(b.nodes))
		b.nodes = append(b.nodes, c)
		for _, key := range [...]string{"wa_id", "user_id", "parent_user_id"} {
			if id := d.scalar(d.get(c, key)); len(id) > 0 {
				if known := ids[string(id)]; len(known) < maxNamesakes {
					ids[string(id)] = append(known, at)
				}
			}
		}
	})
	lastItem := make([]int32, len(b.nodes)) // 1 + the last item that has the contact
	for i, it := range items {
		t.parties(it.node, 0, func(id []byte) {
			for _, at := range ids[string(id)] {
				size := int(d.nodes[b.nodes[at]].end - d.nodes[b.nodes[at]].start)
				if lastItem[at] == int32(i)+1 || lastItem[at] > 0 && size > budget {
					continue
				}
				if lastItem[at] > 0 {
					budget -= size
				}
				lastItem[at] = int32(i) + 1
				b.named[i] = append(b.named[i], b.nodes[at])
			}
		})
	}
	for at, c := range b.nodes {
		if lastItem[at] == 0 {
			b.named[0] = append(b.named[0], c)
		}
	}
	for _, named := range b.named {
		slices.Sort(named)
	}
	return b
}

// maxNamesakes is how many contacts may have one id; more than two have never been seen, and each is looked at for each item.
const maxNamesakes = 4

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
