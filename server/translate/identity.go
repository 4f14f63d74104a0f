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

// place begins an id with where the item belongs, each part with its length before it. What says the item follows in t.hash, then id.
//
// The id knows nothing of the schema: object and field are the words as sent, even where they are inferred for the event, and list is the
// key under which the item was sent, not the word that types have for it.
func (t *translator) place(sc *scope, field, list string) {
	t.hash = append(t.hash[:0], idVersion)
	for _, part := range [...]string{t.source, sc.sentObject, sc.entryID, sc.providerEventID, field, list} {
		t.hash = binary.AppendUvarint(t.hash, uint64(len(part)))
		t.hash = append(t.hash, part...)
	}
}

// placeItem is place for an item that may have no id of its own. Then what tells it from the same words said at another time or about
// another number belongs to it: the entry's time and the business number.
func (t *translator) placeItem(sc *scope, field, list string, own bool, number []byte) {
	t.place(sc, field, list)
	if own {
		t.hash = append(t.hash, 0)
		return
	}
	t.hash = append(t.hash, 1)
	var scratch [64]byte
	at := scratch[:0]
	if sc.time != none {
		at = t.canon.append(at, sc.time, 0)
	}
	for _, part := range [...][]byte{at, number} {
		t.hash = binary.AppendUvarint(t.hash, uint64(len(part)))
		t.hash = append(t.hash, part...)
	}
}

// id makes the id of what has been written to t.hash.
func (t *translator) id() string {
	sum := sha256.Sum256(t.hash)
	var id [32]byte
	idEncoding.Encode(id[:], sum[:20])
	return string(id[:idLength])
}

// idOf is the id of an item by its place, which is already in t.hash, and its canonical form.
func (t *translator) idOf(item int32) string {
	t.hash = t.canon.append(t.hash, item, 0)
	return t.id()
}

// hasID says whether a value has an id of its own: a scalar `id` that is not empty.
func (d *document) hasID(n int32) bool {
	return len(d.scalar(d.get(n, "id"))) > 0
}

// hasMessageID says whether a messaging element is itself named by a message id; elsewhere a `mid` is that of another message.
func (d *document) hasMessageID(n int32) bool {
	return len(d.scalar(d.get(d.get(n, "message"), "mid"))) > 0 || len(d.scalar(d.get(d.get(n, "postback"), "mid"))) > 0
}
