package translate

import "sync"

// translators are those that no call holds. What a translator works with is used again by the next body, for most of the time that a small
// body takes would else go into making room and collecting it; what it hands out, events and all that they refer to, is always new.
var translators sync.Pool

// newTranslator readies a translator for the notification. Whoever takes one releases it or, where something panics, forgets it.
func newTranslator(n Notification) *translator {
	t, ok := translators.Get().(*translator)
	if !ok {
		doc := &document{}
		t = &translator{schema: vocabulary(), types: map[string]knownType{}, doc: doc, enc: encoder{doc: doc}, canon: canonizer{doc: doc}}
	}
	t.source, t.provider = n.Source, n.Provider
	t.receivedAt = moment{seconds: n.ReceivedAt.Unix(), nanos: int32(n.ReceivedAt.Nanosecond())}
	t.repeatable = repeatFactor * len(n.Body)
	return t
}

// What of a translator's room is kept for the next body: enough for a notification of a thousand updates. What outgrows it is let go, so that
// a large body does not hold memory for good.
const (
	keptBytes = 64 << 10
	keptNodes = 64 << 10
	keptParts = 64 // of what refers to the body or to strings, and so has to be wiped each time
)

// release gives the translator back and returns its events. It is not used any more, and it refers to nothing of the notification.
func (t *translator) release() []Event {
	events := t.events
	t.events, t.chunk, t.source = nil, nil, ""
	t.doc.src, t.doc.nodes = nil, kept(t.doc.nodes, keptNodes)
	t.hash, t.head, t.raw = kept(t.hash, keptBytes), kept(t.head, keptBytes), kept(t.raw, keptBytes)
	t.enc.out, t.enc.names = kept(t.enc.out, keptBytes), wiped(t.enc.names)
	t.enc.paths = paths{at: t.enc.paths.at[:0], found: wiped(t.enc.paths.found)}
	t.canon.members, t.canon.keys = wiped(t.canon.members), kept(t.canon.keys, keptBytes)
	t.room.release()
	translators.Put(t)
	return events
}

func (r *room) release() {
	r.body, r.entry, r.change = scope{}, scope{}, change{}
	s := &r.split
	s.change, s.form, s.lean = nil, nil, nil
	s.lists, s.items, s.book = wiped(s.lists), kept(s.items, keptNodes), book{nodes: kept(s.book.nodes, keptNodes)}
	for l := range s.shared {
		s.shared[l].context, s.shared[l].found = kept(s.shared[l].context, keptBytes), wiped(s.shared[l].found)
	}
}

// kept is the room of s, empty, unless it is larger than limit.
func kept[T any](s []T, limit int) []T {
	if cap(s) > limit {
		return nil
	}
	return s[:0]
}

// wiped is the room of s, empty and referring to nothing, unless it is large.
func wiped[T any](s []T) []T {
	s = kept(s, keptParts)
	clear(s[:cap(s)])
	return s
}
