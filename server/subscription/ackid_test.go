package subscription

import (
	"strings"
	"testing"
	"time"
)

var testKey = []byte(strings.Repeat("k", keySize))

func someAckID() ackID {
	return ackID{uid: "0123456789abcdef", generation: 3, replayed: true, sequence: 1 << 40, attempt: 7, delivered: time.Unix(1_795_000_000, 0), receipt: "$JS.ACK.EVENTS.sub.1.2.3.4.5"}
}

func TestAnAckIDComesBackAsItWasGivenOut(t *testing.T) {
	want := someAckID()
	if got, err := decodeAckID(testKey, want.encode(testKey)); err != nil || got != want {
		t.Fatalf("%+v, %v came back of %+v", got, err, want)
	}
}

func TestAnAckIDThatWasTouchedIsNotOurs(t *testing.T) {
	text := someAckID().encode(testKey)
	for i := range text {
		other := byte('A')
		if text[i] == other {
			other = 'B'
		}
		if _, err := decodeAckID(testKey, text[:i]+string(other)+text[i+1:]); err == nil {
			t.Fatalf("with another character at %d it is taken for ours", i)
		}
		if _, err := decodeAckID(testKey, text[:i]); err == nil {
			t.Fatalf("cut off at %d it is taken for ours", i)
		}
	}
	if _, err := decodeAckID([]byte(strings.Repeat("x", keySize)), text); err == nil {
		t.Error("an id of another log is taken for ours")
	}
}

func FuzzAckID(f *testing.F) {
	f.Add(someAckID().encode(testKey))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := decodeAckID(testKey, text); err == nil && id.encode(testKey) != text {
			t.Errorf("%q is taken for %+v", text, id)
		}
	})
}
