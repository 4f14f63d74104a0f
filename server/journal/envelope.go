package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/segment"
)

// The envelope of a record, little endian:
//
//	 0  magic
//	 4  version (1)
//	 5  kind: 1 a record, 2 the place of one that was lost
//	 6  two zero bytes
//	 8  index
//	16  length of the payload
//	20  checksum of the payload
//	24  checksum of the bytes 0 to 24
//	28  four zero bytes
//	32  payload
//
// and of the payload: time (nanoseconds, 8 bytes), provider (4), then, each with
// its length as a varint in front, source, headers (a varint count of pairs) and
// body. The head has a checksum of its own so that a length is never believed
// untested, and so that the index can be set when the record's turn comes.
const (
	magic       = 0x314a5245 // "ERJ1"
	version     = 1
	kindRecord  = 1
	kindLost    = 2
	headLen     = 32
	sealedLen   = 24 // what the checksum of the head covers
	maxEnvelope = segment.MaxEntrySize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// keyedSum is a CRC-32C that starts from a random number of this journal. Bytes of
// another journal, or bytes that a sender laid out to look like a record, do not pass.
type keyedSum uint32

func (k keyedSum) of(b []byte) uint32 { return crc32.Update(uint32(k), castagnoli, b) }

// noTime stands for the zero Time, which has no count of nanoseconds.
const noTime = math.MinInt64

type head struct {
	kind   byte
	index  uint64
	length uint32
	sum    uint32
}

// head reads the head at the start of b; false when it is none of this journal.
func (k keyedSum) head(b []byte) (head, bool) {
	if len(b) < headLen ||
		binary.LittleEndian.Uint32(b) != magic ||
		binary.LittleEndian.Uint32(b[sealedLen:]) != k.of(b[:sealedLen]) ||
		binary.LittleEndian.Uint32(b[28:]) != 0 ||
		b[4] != version {
		return head{}, false
	}
	h := head{
		kind:   b[5],
		index:  binary.LittleEndian.Uint64(b[8:]),
		length: binary.LittleEndian.Uint32(b[16:]),
		sum:    binary.LittleEndian.Uint32(b[20:]),
	}
	return h, h.length <= maxEnvelope-headLen && (h.kind == kindRecord || h.kind == kindLost)
}

// stamp gives the envelope in b its index and closes its head.
func (k keyedSum) stamp(b []byte, index uint64) {
	binary.LittleEndian.PutUint64(b[8:], index)
	binary.LittleEndian.PutUint32(b[sealedLen:], k.of(b[:sealedLen]))
}

// lost is the envelope that keeps the place of a record that is gone.
func (k keyedSum) lost(index uint64) []byte {
	b := appendHead(nil, kindLost)
	binary.LittleEndian.PutUint32(b[20:], k.of(nil))
	k.stamp(b, index)
	return b
}

func appendHead(b []byte, kind byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = append(b, version, kind)
	return append(b, make([]byte, headLen-6)...)
}

// envelopeLen is the most bytes that the envelope of r takes. It is an int64 so that
// no sum of lengths can wrap.
func envelopeLen(r *Record) int64 {
	n := int64(headLen + 8 + 4 + binary.MaxVarintLen64)
	text := func(l int) { n += binary.MaxVarintLen64 + int64(l) }
	text(len(r.Source))
	for key, values := range r.Header {
		for _, v := range values {
			text(len(key))
			text(len(v))
		}
	}
	text(len(r.Body))
	return n
}

// encode appends the envelope of r to b, all but the index: stamp closes it.
func (k keyedSum) encode(b []byte, r *Record) []byte {
	start := len(b)
	b = appendHead(b, kindRecord)
	at := int64(noTime)
	if !r.ReceivedAt.IsZero() {
		at = r.ReceivedAt.UnixNano()
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Provider))
	b = appendText(b, r.Source)
	pairs := 0
	for _, values := range r.Header {
		pairs += len(values)
	}
	b = binary.AppendUvarint(b, uint64(pairs))
	for key, values := range r.Header {
		for _, v := range values {
			b = appendText(appendText(b, key), v)
		}
	}
	b = appendText(b, r.Body)

	payload := b[start+headLen:]
	binary.LittleEndian.PutUint32(b[start+16:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+20:], k.of(payload))
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// check returns the head and the payload of the envelope in b, which must hold
// nothing else and be that of record index.
func (k keyedSum) check(b []byte, index uint64) (head, []byte, error) {
	h, ok := k.head(b)
	if !ok {
		return head{}, nil, fmt.Errorf("%w: record %d has no valid head", ErrDamaged, index)
	}
	if h.index != index {
		return head{}, nil, fmt.Errorf("%w: record %d lies in place of record %d", ErrDamaged, h.index, index)
	}
	payload := b[headLen:]
	if uint64(len(payload)) != uint64(h.length) || k.of(payload) != h.sum {
		return head{}, nil, fmt.Errorf("%w: record %d does not match its checksum", ErrDamaged, index)
	}
	return h, payload, nil
}

// decode reads a checked payload. The record's Body is a part of it.
func decode(index uint64, payload []byte) (Record, error) {
	p := parser{b: payload}
	r := Record{Index: index}
	if at := int64(binary.LittleEndian.Uint64(p.take(8))); at != noTime {
		r.ReceivedAt = time.Unix(0, at).UTC()
	}
	r.Provider = int32(binary.LittleEndian.Uint32(p.take(4)))
	r.Source = string(p.text())
	for n := p.uvarint(); n > 0 && !p.bad; n-- {
		if r.Header == nil {
			r.Header = make(http.Header)
		}
		key := string(p.text())
		r.Header[key] = append(r.Header[key], string(p.text()))
	}
	if body := p.text(); len(body) > 0 {
		r.Body = slices.Clip(body)
	}
	if p.bad || len(p.b) > 0 {
		return Record{}, fmt.Errorf("%w: record %d is whole, but not of a form known here", ErrDamaged, index)
	}
	return r, nil
}

// A parser takes bytes from the front of b. Once they do not suffice it is bad and
// gives zeros.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return make([]byte, min(n, 8))
	}
	t := p.b[:n]
	p.b = p.b[n:]
	return t
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) text() []byte { return p.take(p.uvarint()) }

// envelopeCodec stores the bytes of raft.Log.Data as they are: the envelope says
// all there is to say.
type envelopeCodec struct{}

// codecID tells segments of this codec from the engine's own; any number from
// 1<<16 on is free to choose.
const codecID = magic

func (envelopeCodec) ID() uint64 { return codecID }

func (envelopeCodec) Encode(l *raft.Log, w io.Writer) error {
	if b, ok := w.(*bytes.Buffer); ok && b.Len() == 0 {
		*b = *bytes.NewBuffer(l.Data) // which the engine reads and lets go of before StoreLogs returns
		return nil
	}
	_, err := w.Write(l.Data)
	return err
}

// Decode copies b, which belongs to a pool of the engine.
func (envelopeCodec) Decode(b []byte, l *raft.Log) error {
	l.Data = bytes.Clone(b)
	return nil
}
