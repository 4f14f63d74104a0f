package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
)

// Each test is an attack: a body that somebody could send to make translation lose, mix up, hang or swell.

// total adds up what a body's events take.
func total(events []decoded) (data, raw int) {
	for _, ev := range events {
		data += len(ev.Data)
		raw += len(ev.msg.GetRaw())
	}
	return data, raw
}

func changed(object, field, value string) string {
	return fmt.Sprintf(`{"object":%q,"entry":[{"id":"1","changes":[{"field":%q,"value":%s}]}]}`, object, field, value)
}

func messages(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"id":"wamid.%d","from":"%d"}`, i, i))
	}
	return `"messages":[` + strings.Join(all, ",") + `]`
}

func TestWhatItemsShareIsNotMultipliedByThem(t *testing.T) {
	bulk := `"` + strings.Repeat("x", 200_000) + `"`
	for name, body := range map[string]string{
		"a key beside the items": changed(whatsappObject, "messages", `{"metadata":{"phone_number_id":"2"},"novelty":`+bulk+`,`+messages(1000)+`}`),
		"a key in the metadata":  changed(whatsappObject, "messages", `{"metadata":{"phone_number_id":`+bulk+`},`+messages(1000)+`}`),
		"errors beside them":     changed(whatsappObject, "messages", `{"errors":[{"code":1,"title":`+bulk+`}],`+messages(1000)+`}`),
		"a contact of all": changed(whatsappObject, "messages", `{"contacts":[{"wa_id":"7","profile":{"name":`+bulk+`}}],"messages":[`+
			strings.Repeat(`{"from":"7","id":"a"},`, 999)+`{"from":"7"}]}`),
		"contacts of nobody":         changed(whatsappObject, "messages", `{"contacts":[{"profile":{"name":`+bulk+`}}],`+messages(1000)+`}`),
		"a key of the body":          `{"novelty":` + bulk + `,` + changed(whatsappObject, "messages", `{`+messages(1000)+`}`)[1:],
		"a key of the entry":         `{"object":"whatsapp_business_account","entry":[{"novelty":` + bulk + `,"changes":[{"field":"messages","value":{` + messages(1000) + `}}]}]}`,
		"a key of the change":        `{"object":"whatsapp_business_account","entry":[{"changes":[{"novelty":` + bulk + `,"field":"messages","value":{` + messages(1000) + `}}]}]}`,
		"the object":                 `{"object":` + bulk + `,"entry":[{"changes":[{"field":"messages","value":{` + messages(1000) + `}}]}]}`,
		"the entry's id":             `{"object":"whatsapp_business_account","entry":[{"id":` + bulk + `,"changes":[{"field":"messages","value":{` + messages(1000) + `}}]}]}`,
		"the entry's uid":            `{"object":"whatsapp_business_account","entry":[{"uid":` + bulk + `,"changes":[{"field":"messages","value":{` + messages(1000) + `}}]}]}`,
		"an entry of changed fields": `{"object":"user","entry":[{"novelty":` + bulk + `,"changed_fields":["a"` + strings.Repeat(`,"b"`, 999) + `]}]}`,
		"the id of 360dialog's":      `{"id":` + bulk + `,"event":"history","data":{"history":[{}` + strings.Repeat(`,{}`, 999) + `]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			events := translated(t, body)
			if len(events) < 1000 {
				t.Fatalf("%d events, want 1000", len(events))
			}
			// An event of a message of 25 bytes has some 400 bytes of its own.
			if data, raw := total(events); raw > 8*len(body) || data > 12*len(body)+500*len(events) {
				t.Errorf("raws of %d and events of %d bytes from a body of %d", raw, data, len(body))
			}
			held := 0
			for _, ev := range events {
				if bytes.Contains(ev.Data, []byte(bulk[1:len(bulk)-1])) {
					held++
				}
			}
			if held == 0 {
				t.Error("no event holds what they share")
			}
		})
	}
}

func TestMetadataStaysWithEveryItem(t *testing.T) {
	body := changed(whatsappObject, "messages",
		`{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"bulk":"`+
			strings.Repeat("x", 100_000)+`",`+messages(1000)+`}`)
	for i, ev := range translated(t, body) {
		raw := decode(t, ev.msg.GetRaw())
		if lookup(lookup(lookup(raw, "value"), "metadata"), "phone_number_id") != "106540352242922" || ev.msg.GetContext().GetMetadata() == nil {
			t.Fatalf("item %d has no metadata: %s", i, ev.msg.GetRaw())
		}
		if bulk := lookup(lookup(raw, "value"), "bulk"); (bulk != nil) != (i == 0) || (len(ev.msg.GetUnknownFields()) == 1) != (i == 0) {
			t.Fatalf("item %d: bulk in raw %t, unknown %v", i, bulk != nil, ev.msg.GetUnknownFields())
		}
	}
}

func TestAnEventWithoutItsRawFitsAnyClient(t *testing.T) {
	text := strings.Repeat("y", 3<<20)
	for name, body := range map[string]string{
		"unknown payload": changed("page", "mood", `{"a":"`+text+`"}`),
		"typed payload":   changed(whatsappObject, "messages", `{"messages":[{"id":"1","text":{"body":"`+text+`"}}]}`),
		"context":         changed(whatsappObject, "messages", `{"contacts":[{"profile":{"name":"`+text+`"}}],"messages":[{"id":"1"}]}`),
		"envelope":        `{"novelty":"` + text + `",` + changed("page", "mood", `{"a":1}`)[1:],
		"swelling":        changed("page", "mood", `{"a":[`+strings.Repeat("1,", 1<<19)+`1]}`),
	} {
		t.Run(name, func(t *testing.T) {
			whole := 0
			for _, ev := range translated(t, body) {
				if n := len(head(t, ev.Event)); n > maxHead {
					t.Errorf("%d bytes without raw", n)
				}
				if json.Valid(ev.msg.GetRaw()) && len(ev.msg.GetRaw()) > 1<<20 {
					whole++
				}
			}
			if whole != 1 {
				t.Errorf("%d raws hold the text, want 1", whole)
			}
		})
	}
}

func TestUnknownPathsAreBounded(t *testing.T) {
	var keys []string
	for i := range 100_000 {
		keys = append(keys, fmt.Sprintf(`"novel_key_%d":{"a":[%d]}`, i, i))
	}
	ev := only(t, changed("application", "business_integration_update", "{"+strings.Join(keys, ",")+`,"business_manager_id":"5"}`))
	paths := ev.msg.GetUnknownFields()
	size := 0
	for _, p := range paths {
		size += len(p)
	}
	if len(paths) != maxPaths || paths[len(paths)-1] != morePaths || size > maxPathsBytes {
		t.Errorf("%d paths of %d bytes, the last %q", len(paths), size, paths[len(paths)-1])
	}
	if ev.msg.GetBusinessIntegrationUpdate().GetBusinessManagerId() != "5" {
		t.Error("what came behind the unknown keys is lost")
	}
}

func TestALongKeyIsToldByThePathAboveIt(t *testing.T) {
	ev := only(t, changed("application", "business_integration_update", `{"`+strings.Repeat("k", 5000)+`":1,"short":2}`))
	if got := fmt.Sprint(ev.msg.GetUnknownFields()); got != "[value value.short]" {
		t.Errorf("unknown %s", got)
	}
}

func TestAnyDepthIsTaken(t *testing.T) {
	deep := strings.Repeat(`{"m":[`, 100_000) + `"bottom"` + strings.Repeat(`]}`, 100_000)
	for name, body := range map[string]string{
		"the body":           strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000),
		"an unknown payload": changed("page", "mood", deep),
		"objects alone":      changed("page", "mood", strings.Repeat(`{"m":`, 100_000)+`1`+strings.Repeat(`}`, 100_000)),
		"arrays alone":       changed("page", "mood", strings.Repeat(`[`, 100_000)+`1`+strings.Repeat(`]`, 100_000)),
		"an odd depth":       changed("page", "mood", strings.Repeat(`{"m":[[`, 100_000)+`1`+strings.Repeat(`]]}`, 100_000)),
		"an unknown key":     changed("application", "business_integration_update", `{"business_manager_id":"1","x":`+deep+`}`),
		"a typed field":      changed(whatsappObject, "account_update", `{"ban_info":`+deep+`}`),
		"an item":            changed(whatsappObject, "messages", `{"contacts":[{"wa_id":"1"}],"messages":[{"id":"1","x":`+deep+`},{"id":"2","from":"1"}]}`),
		"the envelope":       `{"x":` + deep + `,` + changed("page", "mood", `{"a":1}`)[1:],
	} {
		t.Run(name, func(t *testing.T) {
			_, raw := total(translated(t, body))
			if raw < len(body)/2 {
				t.Errorf("raws of %d bytes from a body of %d", raw, len(body))
			}
		})
	}
}

func TestNestingCostsNoStack(t *testing.T) {
	// A stack that outgrows this ends the process, so the test is that it is still there.
	defer debug.SetMaxStack(debug.SetMaxStack(4 << 20))
	const n = 1_000_000
	for name, body := range map[string]string{
		"arrays":  strings.Repeat("[", n) + strings.Repeat("]", n),
		"objects": strings.Repeat(`{"m":`, n) + "1" + strings.Repeat("}", n),
		"both":    changed("page", "mood", strings.Repeat(`{"m":[`, n)+"1"+strings.Repeat("]}", n)),
		"no end":  strings.Repeat(`[{"m":`, n),
		"an item": changed(whatsappObject, "messages", `{"messages":[{"id":"1","x":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`},{"from":"1"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			if len(Translate(notify([]byte(body)))) == 0 {
				t.Error("no event")
			}
		})
	}
}

// What is too deep for a Struct is there as JSON text, so that its words can still be found.
func TestWhatIsTooDeepForAStructIsTextInIt(t *testing.T) {
	deep := strings.Repeat(`{"m":[`, 40) + `"bottom"` + strings.Repeat(`]}`, 40)
	ev := only(t, changed("page", "mood", deep))
	if b, err := ev.msg.GetUnknown().GetJson().MarshalJSON(); err != nil || !bytes.Contains(b, []byte("bottom")) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestNothingTakesTheSquareOfTheBody(t *testing.T) {
	const n = 50_000
	for name, value := range map[string]string{
		"twins":              `{` + strings.Repeat(`"business_manager_id":"1",`, n) + `"x":1}`,
		"twins of a struct":  `{"errors":[{` + strings.Repeat(`"a":"1",`, n) + `"x":1}]}`,
		"keys with escapes":  `{` + strings.Repeat(`"\u0061":"1",`, n) + `"x":1}`,
		"an alias over all":  `{"statuses":[{` + strings.Repeat(`"parent_recipient_user_id":"1",`, n) + `"recipient_parent_user_id":"2"}]}`,
		"an alias that fits": `{"statuses":[{` + strings.Repeat(`"parent_recipient_user_id":{"x":1},`, n) + `"id":"2"}]}`,
		"namesakes": `{"contacts":[{"wa_id":"1"}` + strings.Repeat(`,{"wa_id":"1"}`, n) + `],"messages":[{"from":"1"}` +
			strings.Repeat(`,{"from":"1"}`, n/10) + `]}`,
		"keys beside items": `{` + manyKeys(n) + `"messages":[{}` + strings.Repeat(`,{}`, n/2) + `]}`,
		"lists of one name": `{` + strings.Repeat(`"messages":[{}],`, n) + `"x":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			field := "messages"
			object := whatsappObject
			if strings.Contains(value, "business_manager_id") {
				object, field = "application", "business_integration_update"
			}
			if data, _ := total(translated(t, changed(object, field, value))); data > 200*len(value) {
				t.Errorf("%d bytes from %d", data, len(value))
			}
		})
	}
}

func manyKeys(n int) string {
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, `"novel_key_%d":1,`, i)
	}
	return all.String()
}

func TestABadItemCostsNoOther(t *testing.T) {
	events := translated(t, changed(whatsappObject, "messages",
		`{"messages":[{"id":"1","type":5,"text":"not an object","errors":7},null,[],{"id":{"not":"text"}},"x",{"id":"2","type":"text"}]}`))
	if len(events) != 5 {
		t.Fatalf("%d events, want 5", len(events))
	}
	if first, last := events[0].msg.GetMessage(), events[4].msg.GetMessage(); first.GetId() != "1" || last.GetId() != "2" {
		t.Errorf("first %v, last %v", first, last)
	}
}
