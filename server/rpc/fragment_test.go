package rpc

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
	"eventrelay/server/hub"
	"eventrelay/server/translate"
)

func testFramer() framer {
	return framer{&cursors{logID: func() string { return "log" }}}
}

// unframe decodes a fragment as a client does: as a part of a response.
func unframe(t *testing.T, wire []byte) *eventrelayv1.Event {
	t.Helper()
	resp := &eventrelayv1.SubscribeResponse{}
	if err := proto.Unmarshal(wire, resp); err != nil {
		t.Fatal(err)
	}
	if len(resp.GetEvents()) != 1 || resp.GetCursor() != "" || len(resp.ProtoReflect().GetUnknown()) != 0 {
		t.Fatalf("a fragment is %v", resp)
	}
	return resp.GetEvents()[0]
}

// checkFragments holds every view of an entry against the event that is decoded, changed and encoded again.
func checkFragments(t *testing.T, entry hub.Entry) {
	t.Helper()
	f := testFramer()
	framed, data := f.Frame([]byte("before"), entry)
	if !bytes.HasPrefix(framed, []byte("before")) {
		t.Fatal("a frame writes over what is before it")
	}
	if len(entry.Data) <= maxEventBytes && !bytes.Equal(framed[data:], entry.Data) {
		t.Error("a frame does not hold what is stored")
	}
	for view := range eventrelayv1.EventView_EVENT_VIEW_RAW + 1 {
		want := &eventrelayv1.Event{}
		if err := proto.Unmarshal(entry.Data, want); err != nil {
			t.Fatal(err)
		}
		want.Sequence, want.Cursor = entry.Sequence, cursor("log", entry.Sequence)
		switch view {
		case eventrelayv1.EventView_EVENT_VIEW_TYPED:
			want.Raw = nil
		case eventrelayv1.EventView_EVENT_VIEW_RAW:
			want.Payload = nil
		}
		if len(entry.Data) > maxEventBytes && len(want.GetRaw()) > 0 {
			want.Raw, want.RawOmitted = nil, true
		}
		parts, ok := f.cut(entry, view)
		if !ok {
			t.Fatalf("%v: taken for no event", view)
		}
		wire := bytes.Join(parts, nil)
		if got := unframe(t, wire); !proto.Equal(got, want) {
			t.Errorf("%v: got %.300v, want %.300v", view, got, want)
		}
		if view <= eventrelayv1.EventView_EVENT_VIEW_FULL && !bytes.Equal(framed[len("before"):], wire) {
			t.Errorf("%v: the frame differs from the view cut", view)
		}
	}
}

func TestEveryViewIsTheEventThatWasStored(t *testing.T) {
	event := &eventrelayv1.Event{
		Id: id(1), Source: "sources/shop", Type: "meta.x", ReceivedAt: timestamppb.New(began), UnknownFields: []string{"a", "b"},
		Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{Text: &whatsappv1.Text{Body: new("hi")}}},
		Raw:     []byte(`{"a":1}`),
	}
	for what, change := range map[string]func(*eventrelayv1.Event){
		"as it is":    func(*eventrelayv1.Event) {},
		"no raw":      func(e *eventrelayv1.Event) { e.Raw = nil },
		"no payload":  func(e *eventrelayv1.Event) { e.Payload = nil },
		"nothing":     func(e *eventrelayv1.Event) { proto.Reset(e) },
		"large":       func(e *eventrelayv1.Event) { e.Raw = bytes.Repeat([]byte("x"), maxEventBytes+1) },
		"large typed": func(e *eventrelayv1.Event) { e.Source, e.Raw = strings.Repeat("x", maxEventBytes), nil },
	} {
		e := proto.CloneOf(event)
		change(e)
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(what, func(t *testing.T) {
			for _, sequence := range []uint64{1, 127, 128, 1 << 40, 1<<64 - 1} {
				checkFragments(t, hub.Entry{Sequence: sequence, Data: data})
			}
		})
	}
}

// What the view without raw keeps of an event is one piece of the stored bytes.
func TestTheTypedViewOfATranslatedEventIsAPrefixOfIt(t *testing.T) {
	body := `{"object":"page","entry":[{"id":"1","changes":[{"field":"feed","value":{"item":"post","verb":"add"}}]}]}`
	for _, event := range translate.Translate(translate.Notification{Source: "shop", Body: []byte(body)}) {
		parts, ok := testFramer().cut(hub.Entry{Sequence: 7, Data: event.Data}, eventrelayv1.EventView_EVENT_VIEW_TYPED)
		whole := &eventrelayv1.Event{}
		if err := proto.Unmarshal(event.Data, whole); err != nil {
			t.Fatal(err)
		}
		before := len(event.Data) - protowire.SizeTag(rawNumber) - protowire.SizeBytes(len(whole.GetRaw()))
		if !ok || len(parts) != 2 || &parts[1][0] != &event.Data[0] || len(parts[1]) != before {
			t.Errorf("%d parts, want a head and the first %d bytes of the event themselves", len(parts), before)
		}
		checkFragments(t, hub.Entry{Sequence: 7, Data: event.Data})
	}
}

func FuzzFragment(f *testing.F) {
	for _, event := range translate.Translate(translate.Notification{Source: "shop", Body: []byte(`{"object":"user","entry":[{"id":"1","changed_fields":["photos"]}]}`)}) {
		f.Add(event.Data, uint64(1))
	}
	f.Add([]byte{0x8a, 0x01, 0x02, 'a', 'b', 0x8a, 0x01, 0x00, 0xf2, 0x01, 0x00}, uint64(300))
	f.Add([]byte("garbage"), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, sequence uint64) {
		entry := hub.Entry{Sequence: sequence, Data: data}
		event := &eventrelayv1.Event{}
		if err := proto.Unmarshal(data, event); err == nil && event.GetCursor() == "" && event.GetSequence() == 0 && len(event.ProtoReflect().GetUnknown()) == 0 {
			checkFragments(t, entry)
			return
		}
		framed, at := testFramer().Frame(nil, entry)
		if (len(framed) == 0) != !wellFormed(data) || at >= 0 && !bytes.Equal(framed[at:], data) {
			t.Errorf("framed as %x at %d", framed, at)
		}
		for view := range eventrelayv1.EventView_EVENT_VIEW_RAW + 1 {
			if parts, ok := testFramer().cut(entry, view); ok != wellFormed(data) {
				t.Errorf("view %v: %d parts, %v", view, len(parts), ok)
			} else if ok {
				if _, n := protowire.ConsumeBytes(bytes.Join(parts, nil)[1:]); n < 0 {
					t.Errorf("view %v is no element of a response", view)
				}
			}
		}
	})
}
