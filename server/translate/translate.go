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
	// Known says that the schema has a payload for Type.
	Known bool
	// Pattern is by which of Types it has one, else empty. There is a bounded number of patterns, but not of types.
	Pattern string
	// Data is the serialized eventrelay.v1.Event without cursor and sequence. `raw` is its last field.
	Data []byte
	// RawStart is where in Data the field `raw` begins: Data[:RawStart] is the event without it, and at most 3 MiB.
	RawStart int
}

// Translate makes the events of a body, in the order of the body and at least one. Any goroutine may call it.
func Translate(n Notification) []Event {
	doc, ok := parse(n.Body)
	if !ok {
		return []Event{Unknown(n)}
	}
	t := newTranslator(n, doc)
	t.body(0)
	return t.events
}

// Unknown makes one event of the whole body without reading it: for a body that is no JSON, or that Translate cannot be trusted with.
// Its id is a hash of the bytes. Any goroutine may call it.
func Unknown(n Notification) Event {
	t := newTranslator(n, &document{src: n.Body})
	t.place(&scope{}, "", "bytes")
	t.hash = append(t.hash, n.Body...)
	t.finish(&draft{scope: &scope{}, typ: "unknown", id: t.id()}, n.Body)
	return t.events[0]
}

// repeatFactor is how many times over a body may be repeated in its events, by what its items share.
const repeatFactor = 4

// translator makes the events of one body. It belongs to one call.
type translator struct {
	schema     *schema
	doc        *document
	source     string
	sourceName string
	provider   eventrelayv1.Provider
	receivedAt moment

	enc        encoder
	canon      canonizer
	hash       []byte // scratch: what an id is made of
	raw        []byte // scratch: a raw that is not a part of the body
	repeatable int    // how many more bytes of envelopes may be repeated

	events []Event
}

func newTranslator(n Notification, doc *document) *translator {
	at := n.ReceivedAt
	t := &translator{
		schema:     vocabulary(),
		doc:        doc,
		source:     n.Source,
		sourceName: "sources/" + n.Source,
		provider:   n.Provider,
		receivedAt: moment{seconds: at.Unix(), nanos: int32(at.Nanosecond())},
		enc:        encoder{doc: doc},
		canon:      canonizer{doc: doc},
		repeatable: repeatFactor * len(n.Body),
	}
	// Room for a message of some length, in one allocation; what outgrows its part moves away by itself.
	room := make([]byte, 896)
	t.enc.out, t.hash, t.enc.paths.at = room[:0:320], room[320:320:832], room[832:832:896]
	t.canon.members = make([]canonMember, 0, 12)
	return t
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

// route finds where the payload of the draft's type goes.
func (t *translator) route(d *draft) *route {
	d.route = t.schema.route(d.typ)
	return d.route
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
	rest := 192 + len(t.sourceName) + pathsSize + len(d.typ) + len(d.orderingKey) +
		len(d.scope.object) + len(d.field) + len(d.scope.entryID) + len(d.scope.providerEventID)
	route := d.route
	if rest+len(context)+len(payload) > maxHead {
		route, payload = nil, nil
	}
	if rest+len(context) > maxHead {
		context = nil
	}
	data := make([]byte, 0, rest+len(context)+len(payload)+len(raw)+16)
	data = t.head(data, d)
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
	start := len(data)
	if len(raw) > 0 {
		data = protowire.AppendBytes(append(data, f.raw...), raw)
	}
	ev := Event{ID: d.id, Type: d.typ, OrderingKey: d.orderingKey, Data: data, RawStart: start}
	if d.route != nil {
		ev.Known, ev.Pattern = true, d.route.pattern
	}
	t.events = append(t.events, ev)
}

// head encodes the fields before the context.
func (t *translator) head(data []byte, d *draft) []byte {
	f := &t.schema.fields
	data = appendString(data, f.id, d.id)
	data = appendString(data, f.source, t.sourceName)
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
