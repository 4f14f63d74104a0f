package store

import (
	"cmp"
	"encoding/binary"
	"errors"
)

// The server's files of a consumer: what it is, and where it stands.
const (
	consumerMeta  = "meta.inf"
	consumerState = "o.dat"
)

// Position is what the server writes down of a consumer, as far as it is of use: how many it was given, the sequence up to which all is settled, the place of each entry
// that is outstanding among what the consumer was given, and how often each was given that was given more than once.
type Position struct {
	Given    uint64
	Settled  uint64
	Pending  map[uint64]uint64
	Attempts map[uint64]int
}

// before tells whether a position is of an earlier time than another one of the same consumer.
func (p Position) before(other Position) bool {
	return cmp.Or(cmp.Compare(p.Given, other.Given), cmp.Compare(p.Settled, other.Settled), cmp.Compare(len(other.Pending), len(p.Pending))) < 0
}

// ErrUnknownFormat is returned for bytes that are no such file, or one of another version.
var ErrUnknownFormat = errors.New("not a file of a consumer that this version knows")

// Of the file: two bytes of head, and the version that is known.
const (
	positionMagic   = 22
	positionVersion = 2
)

// DecodePosition reads the file in which the server has where a consumer stands.
func DecodePosition(data []byte) (Position, error) {
	p := Position{Pending: map[uint64]uint64{}, Attempts: map[uint64]int{}}
	if len(data) < 2 || data[0] != positionMagic || data[1] != positionVersion {
		return p, ErrUnknownFormat
	}
	rest, broken := data[2:], false
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			broken, rest = true, nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	floor, settled := number(), number() // of what was given, and of the log
	p.Given, p.Settled = number(), settled
	_ = number() // the sequence to which it was given
	if n := number(); n > 0 {
		_ = number() // a time that others are relative to
		for ; n > 0 && !broken; n-- {
			sequence, place := number(), number()
			_ = number() // when
			p.Pending[settled+sequence] = floor + place
		}
	}
	for n := number(); n > 0 && !broken; n-- {
		sequence, times := number(), number()
		p.Attempts[settled+sequence] = int(times) + 1
	}
	if broken {
		return p, ErrUnknownFormat
	}
	return p, nil
}
