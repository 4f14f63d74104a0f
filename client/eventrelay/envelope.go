package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// bodyOf gives a body as the provider would post it with this event alone: what the event was made from, byte for byte, with around it the envelope that its fields
// tell. Posted to another relay it makes the same event, with the same id where the sources have the same name. (The id is another where the original did not say its
// object, which is said now, or wrote its time in a form that Meta does not use and that belongs to the id of an item without one of its own.)
//
// What the envelope of the original had besides (`uid`, keys that nobody reads) stands in the entry; the entry's time is told where the event tells one.
func bodyOf(event *eventrelayv1.Event, raw []byte) []byte {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		members = nil // no object: an entry that is none
	}
	has := func(key string) bool { return len(members[key]) > 0 }
	switch field := event.GetField(); {
	case !strings.HasPrefix(event.GetType(), "meta."), has("entry"), event.GetObject() == "threads" && has("values"):
		return raw // a body of its own
	case members == nil, has("changed_fields"), !has("field") && !has("value") && field != "messaging" && field != "standby", isEntry(event, members):
		return envelope(event.GetObject(), raw)
	case !has("field") && (field == "messaging" || field == "standby"):
		return envelope(event.GetObject(), entry(event, field, raw))
	default:
		return envelope(event.GetObject(), entry(event, "changes", raw))
	}
}

// isEntry reports whether a change stands in the entry itself: then the entry's id stands beside it.
func isEntry(event *eventrelayv1.Event, members map[string]json.RawMessage) bool {
	id := string(bytes.Trim(members["id"], `"`))
	return id != "" && id == event.GetEntryId()
}

// envelope puts an entry into a body.
func envelope(object string, entry []byte) []byte {
	var body []byte
	if object != "" {
		body = append(append(append(body, `{"object":`...), quoted(object)...), `,"entry":[`...)
	} else {
		body = append(body, `{"entry":[`...)
	}
	return append(append(body, entry...), `]}`...)
}

// ownKeys are the keys of an entry that mean something, and so are never copied from the rest of an envelope.
var ownKeys = []string{"id", "time", "uid", "changes", "messaging", "standby", "field", "value", "changed_fields", "..."}

// entry makes the entry of a change or of an element of messaging or standby.
func entry(event *eventrelayv1.Event, list string, raw []byte) []byte {
	text := []byte{'{'}
	member := func(key string, value []byte) {
		text = append(append(append(append(text, quoted(key)...), ':'), value...), ',')
	}
	rest := event.GetContext().GetEnvelope().GetFields()
	if id := event.GetEntryId(); id != "" {
		member("id", quoted(id))
	}
	switch at := event.GetOccurredAt(); {
	case rest["time"] != nil: // another time than the event's, or none that could be read
		member("time", valueOf(rest["time"]))
	case at == nil:
	case at.GetNanos() == 0 && list == "changes": // Meta counts seconds there, and milliseconds around conversations
		member("time", strconv.AppendInt(nil, at.GetSeconds(), 10))
	default:
		member("time", strconv.AppendInt(nil, at.AsTime().UnixMilli(), 10))
	}
	if uid := event.GetContext().GetUid(); uid != "" {
		member("uid", quoted(uid))
	}
	for _, key := range sortedKeys(rest) {
		if !slices.Contains(ownKeys, key) {
			member(key, valueOf(rest[key]))
		}
	}
	text = append(append(append(text, quoted(list)...), ":["...), raw...)
	return append(text, "]}"...)
}

// sortedKeys gives the keys of a Struct in their order.
func sortedKeys(fields map[string]*structpb.Value) []string {
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// quoted gives a text as JSON.
func quoted(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // strings have no way to fail
	}
	return b
}

// valueOf gives a value of a Struct as JSON. Numbers are written out, for those of an envelope are times and ids.
func valueOf(value *structpb.Value) []byte {
	if number, ok := value.GetKind().(*structpb.Value_NumberValue); ok {
		return strconv.AppendFloat(nil, number.NumberValue, 'f', -1, 64)
	}
	text, err := value.MarshalJSON()
	if err != nil {
		return []byte("null") // a value of no kind
	}
	return text
}
