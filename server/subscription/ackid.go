package subscription

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// ackID is what a delivery is acknowledged by, from anywhere. Its text is opaque, and authentic: with the receipt in it anything of the log could be settled.
type ackID struct {
	// uid is the subscription's.
	uid        string
	generation int
	// replayed says that it is a delivery of a replayed dead letter.
	replayed bool
	// sequence is the event's.
	sequence uint64
	attempt  int
	// delivered is when, to the second.
	delivered time.Time
	receipt   string
}

const (
	ackVersion = 1
	macSize    = 16
	uidSize    = 16
)

// errNotOurs is returned for text that is no id, or was not made with this key.
var errNotOurs = errors.New("not an ack_id")

// encode makes the text of an id.
func (a ackID) encode(key []byte) string {
	b := []byte{ackVersion, 0}
	if a.replayed {
		b[1] = 1
	}
	b = append(b, a.uid...)
	b = binary.AppendUvarint(b, uint64(a.generation))
	b = binary.AppendUvarint(b, a.sequence)
	b = binary.AppendUvarint(b, uint64(a.attempt))
	b = binary.AppendUvarint(b, uint64(a.delivered.Unix()))
	b = append(b, a.receipt...)
	return base64.RawURLEncoding.EncodeToString(append(b, ackMAC(key, b)...))
}

// ackMAC authenticates an id.
func ackMAC(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("eventrelay ack_id\x00"))
	h.Write(b)
	return h.Sum(nil)[:macSize]
}

// decodeAckID reads the text of an id. Nothing of it is looked at before it is known to be authentic.
func decodeAckID(key []byte, text string) (ackID, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 2+uidSize+macSize {
		return ackID{}, errNotOurs
	}
	b, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	if !hmac.Equal(mac, ackMAC(key, b)) || b[0] != ackVersion {
		return ackID{}, errNotOurs
	}
	a := ackID{replayed: b[1] == 1, uid: string(b[2 : 2+uidSize])}
	b = b[2+uidSize:]
	var numbers [4]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return ackID{}, errNotOurs
		}
		numbers[i], b = n, b[size:]
	}
	a.generation, a.sequence, a.attempt, a.delivered = int(numbers[0]), numbers[1], int(numbers[2]), time.Unix(int64(numbers[3]), 0)
	a.receipt = string(b)
	return a, nil
}
