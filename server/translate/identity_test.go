package translate

import (
	"fmt"
	"regexp"
	"testing"
)

var idForm = regexp.MustCompile(`^[a-z2-7]{26}$`)

func TestTheSameItemHasTheSameID(t *testing.T) {
	base := changed(whatsappObject, "messages", `{"metadata":{"phone_number_id":"2"},"messages":[{"id":"a","n":10,"text":{"body":"\u00e4/\"b"},"image":{"id":"9","mime_type":"image/png","url":"https://one"}}]}`)
	for name, again := range map[string]string{
		"numbers":    changed(whatsappObject, "messages", `{"messages":[{"id":"a","n":1.0e1,"text":{"body":"ä\/\u0022b"},"image":{"id":"9","mime_type":"image/png","url":"https://two"}}]}`),
		"context":    changed(whatsappObject, "messages", `{"contacts":[{"wa_id":"5"}],"novelty":1,"messages":[{"image":{"mime_type":"image/png","id":"9"},"text":{"body":"ä/\"b"},"n":1e1,"id":"a"}]}`),
		"provider":   base,
		"entry time": `{"object":"whatsapp_business_account","entry":[{"id":1,"time":5,"changes":[{"field":"messages","value":{"messages":[{"id":"a","n":10,"text":{"body":"ä/\"b"},"image":{"id":"9","mime_type":"image/png"}}]}}]}]}`,
	} {
		if want, got := only(t, base).ID, only(t, again).ID; got != want {
			t.Errorf("%s: id %s, want %s", name, got, want)
		}
	}
}

func TestDifferentFactsHaveDifferentIDs(t *testing.T) {
	seen := map[string]string{}
	for _, body := range []string{
		changed(whatsappObject, "messages", `{"statuses":[{"id":"a","status":"sent"}]}`),
		changed(whatsappObject, "messages", `{"statuses":[{"id":"a","status":"read"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","status":"read"}]}`),
		changed(whatsappObject, "calls", `{"statuses":[{"id":"a","status":"read"}]}`),
		changed("page", "calls", `{"statuses":[{"id":"a","status":"read"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"\ud800"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"\ud801"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"\ufffd"}]}`),
		changed(whatsappObject, "messages", "{\"messages\":[{\"id\":\"\xff\"}]}"),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","x":1,"x":2}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","x":2,"x":1}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","n":9007199254740993}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","n":9007199254740992}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","n":"9007199254740992"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","url":"https://one"}]}`),
		changed(whatsappObject, "messages", `{"messages":[{"id":"a","url":"https://two"}]}`),
		changed("user", "email", `"a"`),
		changed("user", "email", `["a"]`),
		changed("user", "email", `{"value":"a"}`),
		changed("user", "email", `null`),
		`{"object":"user","entry":[{"id":"1","changed_fields":["email"]}]}`,
		`{"object":"user","entry":[{"id":"1","messaging":[{"email":"a"}]}]}`,
		`{"object":"user","entry":[{"id":"1","standby":[{"email":"a"}]}]}`,
		`{"object":"user","entry":[{"id":"1","changes":[{"field":"email","verb":"add"}]}]}`,
		`{"object":"user","entry":[{"id":"1","changes":[{"field":"email","verb":"remove"}]}]}`,
		`{"object":"user","entry":[{"id":"1","time":1,"changes":[{"field":"email","verb":"remove"}]}]}`,
		`{"object":"user","entry":[{"id":"1","time":2,"changes":[{"field":"email","verb":"remove"}]}]}`,
		`{"event":"channel_live","data":{"id":"c"}}`,
		`{"event":"channel_live","data":{"id":"c"},"id":"e1"}`,
		`{"event":"channel_live","data":{"id":"c"},"id":"e2"}`,
		changed(whatsappObject, "messages", `{"metadata":{"phone_number_id":"1"},"errors":[{"code":130429}]}`),
		changed(whatsappObject, "messages", `{"metadata":{"phone_number_id":"2"},"errors":[{"code":130429}]}`),
		`{"a":1}`, `{"a":"1"}`, `1`, `{`, `{"`,
	} {
		ev := only(t, body)
		if other, ok := seen[ev.ID]; ok {
			t.Errorf("one id for %s and %s", body, other)
		}
		if !idForm.MatchString(ev.ID) {
			t.Errorf("id %q", ev.ID)
		}
		seen[ev.ID] = body
	}
	elsewhere := notify([]byte(`{"a":1}`))
	elsewhere.Source = "other"
	if _, ok := seen[Translate(elsewhere)[0].ID]; ok {
		t.Error("one id for two sources")
	}
}

func TestAConversationHasOneOrderingKey(t *testing.T) {
	metadata := `"metadata":{"display_phone_number":"+1 555-000-1111","phone_number_id":"2"}`
	for body, want := range map[string]string{
		changed(whatsappObject, "messages", `{`+metadata+`,"messages":[{"from":"49155"}]}`):                                      "2/49155",
		changed(whatsappObject, "messages", `{`+metadata+`,"messages":[{"from_user_id":"US.1"}]}`):                               "2/US.1",
		changed(whatsappObject, "messages", `{`+metadata+`,"statuses":[{"recipient_id":"49155"}]}`):                              "2/49155",
		changed(whatsappObject, "messages", `{`+metadata+`,"messages":[{"from":"49155","group_id":"g"}]}`):                       "2/g",
		changed(whatsappObject, "calls", `{`+metadata+`,"calls":[{"from":"15550001111","to":"49155"}]}`):                         "2/49155",
		changed(whatsappObject, "smb_message_echoes", `{`+metadata+`,"message_echoes":[{"from":"15550001111","to":"49155"}]}`):   "2/49155",
		changed(whatsappObject, "smb_message_echoes", `{"metadata":{"phone_number_id":2},"message_echoes":[{"from":1,"to":5}]}`): "2/5",
		changed(whatsappObject, "messages", `{"messages":[{"from":"49155"}]}`):                                                   "1",
		changed(whatsappObject, "messages", `{`+metadata+`,"errors":[{"code":1}]}`):                                              "1",
		`{"object":"page","entry":[{"id":"P","messaging":[{"sender":{"id":"U"},"recipient":{"id":"P"}}]}]}`:                      "P/U",
		`{"object":"page","entry":[{"id":"P","messaging":[{"sender":{"id":"P"},"recipient":{"id":"U"}}]}]}`:                      "P/U",
		`{"object":"page","entry":[{"id":"P","messaging":[{}]}]}`:                                                                "P",
		`{"event":"history","data":{"metadata":{"phone_number_id":"2"},"history":[{}]}}`:                                         "2",
		`{}`: "shop",
	} {
		if got := only(t, body).OrderingKey; got != want {
			t.Errorf("%s is ordered by %q, want %q", body, got, want)
		}
	}
}

func TestAWordOfATypeIsCutAndCleaned(t *testing.T) {
	long := fmt.Sprintf("%0100d", 7)
	for field, want := range map[string]string{
		"photos": "photos", "e mail": "e_mail", "ünïcode": "_n_code", "a.b*c>": "a_b_c_", long: long[:64], "A-b_9": "A-b_9",
	} {
		ev := only(t, changed("user", field, `{}`))
		if ev.Type != "meta.user."+want || ev.msg.GetField() != field {
			t.Errorf("field %q: type %q, field %q", field, ev.Type, ev.msg.GetField())
		}
	}
}
