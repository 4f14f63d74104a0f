// Package translate turns one webhook body into typed events. It is pure and total: the same notification always makes the same events,
// any bytes make at least one, and nothing that a provider sends is an error. The time it takes and the memory it needs grow with the body.
//
// Nothing is lost. The raws of a body's events hold what was sent, byte for byte; a value that the schema does not type is named in
// unknown_fields or stands in the unknown payload; what stands beside the events in the body is in context.envelope.
//
// # How it works
//
// The body is parsed once into a flat list of nodes with their places in the source (scan.go). The shapes of Meta, 360dialog and Threads
// say where in it the events are (shapes.go, entry.go); lists of WhatsApp items are split (split.go), each with its own raw (rewrite.go).
// A plan compiled from the descriptors of eventrelay.v1.Event (plan.go, routes.go) walks JSON and message side by side and writes the wire
// format directly (fields.go, structs.go, wire.go). So a new field, enum word, alias or payload is a change of a .proto and of nothing here.
// The memory for all that is used by one body after the other (reuse.go); events have their own.
//
// # What else holds
//
// Of two members with one key the first that fits is typed and the other is told as unknown. A value that holds nothing (null, "", [] or
// {}) in a field that is no string counts as not sent. Lists of items are read in the order of the body's keys. A word (object, field,
// entry id, event) is a string, number or bool of at most 256 bytes; anything else under such a key is told as any other value.
package translate

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Notification is one webhook body as it was received.
type Notification struct {
	// Source is the id of the source, without `sources/`.
	Source string
	// Provider is the route that the body came by; it does not decide how the body is read.
	Provider eventrelayv1.Provider
	// ReceivedAt becomes received_at.
	ReceivedAt time.Time
	// Body is only read, and no Event refers to it.
	Body []byte
}

// Event is one event, encoded.
type Event struct {
	// ID, Type and OrderingKey are the fields of eventrelay.v1.Event.
	ID, Type, OrderingKey string
	// Data is the serialized eventrelay.v1.Event without cursor and sequence. `raw` is its last field; what is before it is at most 3 MiB.
	Data []byte
}

// Translate makes the events of a body, in the order of the body and at least one. Any goroutine may call it.
func Translate(n Notification) []Event {
	t := newTranslator(n)
	if t.doc.parse(n.Body) {
		t.body(0)
	} else {
		t.unread(n.Body)
	}
	return t.release()
}

// Unknown makes one event of the whole body without reading it: for a body that is no JSON, or that Translate cannot be trusted with.
// Its id is a hash of the bytes. Any goroutine may call it.
func Unknown(n Notification) Event {
	t := newTranslator(n)
	t.unread(n.Body)
	return t.release()[0]
}

// repeatFactor is how many times over a body may be repeated in its events, by what its items share.
const repeatFactor = 4

// translator makes the events of one body. It belongs to one call at a time.
type translator struct {
	schema     *schema
	doc        *document // emptied and used again, as enc, canon and all scratch are
	source     string
	provider   eventrelayv1.Provider
	receivedAt moment

	enc        encoder
	canon      canonizer
	hash       []byte // scratch: what an id is made of
	head       []byte // scratch: the fields before the context
	raw        []byte // scratch: a raw that is not a part of the body
	room       room
	types      map[string]knownType // event types made before
	repeatable int                  // how many more bytes of envelopes may be repeated

	events []Event
	// chunk is what is left of memory that was made for the events of this body.
	chunk []byte
}

// chunkBytes is how much memory is made at a time for the second and further events of a body: for a notification of a thousand updates that is far cheaper than a
// piece for each, and whoever holds one event holds no more than that of others.
const chunkBytes = 16 << 10

// data makes room for one event. Nothing else will ever be written there.
func (t *translator) data(size int) []byte {
	if size > len(t.chunk) {
		if len(t.events) == 0 || size > chunkBytes/4 {
			return make([]byte, 0, size)
		}
		t.chunk = make([]byte, chunkBytes)
	}
	room := t.chunk[:0:size]
	t.chunk = t.chunk[size:]
	return room
}

// unread adds the event of a body that is not read. It needs no document.
func (t *translator) unread(body []byte) {
	t.begin()
	t.place(&scope{}, "", "bytes")
	t.hash = append(t.hash, body...)
	t.finish(&draft{scope: &scope{}, typ: "unknown", id: t.id()}, body)
}

// room is where what is being read at the moment lies; there is one of each at a time.
type room struct {
	body, entry scope
	change      change
	split       split
}

// draft is an event before it is encoded. Its context, payload and unknown paths lie in the encoder, context first.
type draft struct {
	scope       *scope
	typ         string
	route       *route
	field       string
	id          string
	orderingKey string
	occurredAt  moment
	occurred    bool
	contextEnd  int // where in the encoder's output the context ends and the payload begins
}

// begin readies the encoder for another event.
func (t *translator) begin() {
	t.enc.out = t.enc.out[:0]
	t.enc.paths.reset()
}

// maxHead is how large an event may be without raw, so that it fits into the 4 MiB that stock gRPC clients accept, whatever it is wrapped in.
const maxHead = 3 << 20

// finish encodes an event and adds it. What does not fit without raw gives up its typed payload, then its context: raw has both.
func (t *translator) finish(d *draft, raw []byte) {
	if d.orderingKey == "" {
		d.orderingKey = t.source
	}
	context, payload := t.enc.out[:d.contextEnd], t.enc.out[d.contextEnd:]
	paths := t.enc.paths.inOrder()
	pathsSize := 0
	for _, p := range paths {
		pathsSize += len(p.text) + 4
	}
	// 192 covers the id, and the tags, lengths and times of all fields; words are short.
	rest := 192 + len(sourcePrefix) + len(t.source) + pathsSize + len(d.typ) + len(d.orderingKey) +
		len(d.scope.object) + len(d.field) + len(d.scope.entryID) + len(d.scope.providerEventID)
	route := d.route
	if rest+len(context)+len(payload) > maxHead {
		route, payload = nil, nil
	}
	if rest+len(context) > maxHead {
		context = nil
	}
	t.head = t.appendHead(t.head[:0], d)
	// 32 covers the tags and lengths of context, payload and raw. More would be kept with the event for nothing.
	data := t.data(len(t.head) + pathsSize + len(context) + len(payload) + len(raw) + 32)
	data = append(data, t.head...)
	f := &t.schema.fields
	if len(context) > 0 {
		data = protowire.AppendBytes(append(data, f.context...), context)
	}
	for _, p := range paths {
		data = appendString(data, f.unknownFields, p.text)
	}
	if t.enc.paths.full {
		data = appendString(data, f.unknownFields, morePaths)
	}
	tag := f.unknown
	if route != nil {
		tag = route.tag
	}
	data = protowire.AppendBytes(append(data, tag...), payload)
	if len(raw) > 0 {
		data = protowire.AppendBytes(append(data, f.raw...), raw)
	}
	t.events = append(t.events, Event{ID: d.id, Type: d.typ, OrderingKey: d.orderingKey, Data: data})
}

// sourcePrefix makes of a source's id its resource name.
const sourcePrefix = "sources/"

// appendHead encodes the fields before the context.
func (t *translator) appendHead(data []byte, d *draft) []byte {
	f := &t.schema.fields
	data = appendString(data, f.id, d.id)
	data = protowire.AppendVarint(append(data, f.source...), uint64(len(sourcePrefix)+len(t.source)))
	data = append(append(data, sourcePrefix...), t.source...)
	if t.provider != 0 {
		data = protowire.AppendVarint(append(data, f.provider...), uint64(t.provider))
	}
	data = appendString(data, f.typ, d.typ)
	data = appendString(data, f.object, d.scope.object)
	data = appendString(data, f.field, d.field)
	data = appendString(data, f.entryID, d.scope.entryID)
	data = appendString(data, f.orderingKey, d.orderingKey)
	data = appendString(data, f.providerEventID, d.scope.providerEventID)
	if d.occurred {
		data = appendMoment(data, f.occurredAt, d.occurredAt)
	}
	data = appendMoment(data, f.receivedAt, t.receivedAt)
	if d.scope.test {
		data = append(append(data, f.test...), 1)
	}
	return data
}
