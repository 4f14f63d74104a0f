package translate

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
)

// idVersion is the first byte of what an id is made of: another way to make ids would have another.
const idVersion = 1

// idLength is how many characters of the hash an id is: 130 bits.
const idLength = 26

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// identify makes an id of where an item belongs, each part with its length before it, and of what lies in t.hash: the item. It leaves
// t.hash empty.
//
// The id knows nothing of the schema: object and field are the words as sent, even where they are inferred for the event, and list is the
// key under which the item was sent, not the word that types have for it.
func (t *translator) identify(object, entryID, providerEventID, field, list string, apart ...[]byte) string {
	h := sha256.New()
	var scratch [256]byte
	b := append(scratch[:0], idVersion)
	for _, part := range [...]string{t.source, object, entryID, providerEventID, field, list} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	b = binary.AppendUvarint(b, uint64(len(apart)))
	for _, part := range apart {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	h.Write(b)
	h.Write(t.hash)
	t.hash = t.hash[:0]
	sum := h.Sum(scratch[:0])
	var id [32]byte
	idEncoding.Encode(id[:], sum[:20])
	return string(id[:idLength])
}

// identifyItem makes the id of an item in a scope whose canonical form lies in t.hash. Where the provider gave it no id of its own, what
// tells it from the same words said at another time or about another number belongs to it: the entry's time and the business number.
func (t *translator) identifyItem(sc *scope, field, list string, own bool, value int32) string {
	if own {
		return t.identify(sc.sentObject, sc.entryID, sc.providerEventID, field, list)
	}
	var at []byte
	if sc.time != none {
		at = t.canon.append(nil, sc.time, 0)
	}
	number := t.doc.scalar(t.doc.get(t.doc.get(value, "metadata"), "phone_number_id"))
	return t.identify(sc.sentObject, sc.entryID, sc.providerEventID, field, list, at, number)
}

// hasID says whether a value has an id of its own: a scalar `id` that is not empty.
func (d *document) hasID(n int32) bool {
	return len(d.scalar(d.get(n, "id"))) > 0
}

// hasMessageID says whether a messaging element is itself named by a message id; elsewhere a `mid` is that of another message.
func (d *document) hasMessageID(n int32) bool {
	return len(d.scalar(d.get(d.get(n, "message"), "mid"))) > 0 || len(d.scalar(d.get(d.get(n, "postback"), "mid"))) > 0
}
