package translate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
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

// What a provider reports later of the same thing is another event, though both have the thing's id or no id at all.
func TestWhatIsReportedLaterIsAnotherEvent(t *testing.T) {
	whole := func(time int, field, value string) string {
		return fmt.Sprintf(`{"object":"whatsapp_business_account","entry":[{"id":"1","time":%d,"changes":[{"field":%q,"value":%s}]}]}`, time, field, value)
	}
	payment := `{"statuses":[{"id":"wamid.1","type":"payment","status":"captured","timestamp":"1750000000","payment":{"reference_id":"r","transaction":{"id":"o","status":"success"%s}}}]}`
	call := `{"calls":[{"id":"wacid.1","from":"31","event":%q,"timestamp":"1750000000"}]}`
	for what, pair := range map[string][2]string{
		"a refund": {
			whole(5, "messages", fmt.Sprintf(payment, "")),
			whole(5, "messages", fmt.Sprintf(payment, `,"refunds":[{"id":"rf","status":"pending"}]`)),
		},
		"the settlement of a refund": {
			whole(5, "messages", fmt.Sprintf(payment, `,"refunds":[{"id":"rf","status":"pending"}]`)),
			whole(5, "messages", fmt.Sprintf(payment, `,"refunds":[{"id":"rf","status":"success"}]`)),
		},
		"another status of a message": {
			whole(5, "messages", `{"statuses":[{"id":"wamid.1","status":"delivered","timestamp":"1750000000"}]}`),
			whole(5, "messages", `{"statuses":[{"id":"wamid.1","status":"read","timestamp":"1750000000"}]}`),
		},
		"the same status of another member of the group": {
			whole(5, "messages", `{"statuses":[{"id":"wamid.1","status":"read","recipient_id":"G","recipient_participant_id":"31"}]}`),
			whole(5, "messages", `{"statuses":[{"id":"wamid.1","status":"read","recipient_id":"G","recipient_participant_id":"32"}]}`),
		},
		"the next stage of a call": {whole(5, "calls", fmt.Sprintf(call, "connect")), whole(5, "calls", fmt.Sprintf(call, "terminate"))},
		"the same change of an account at another time": {
			whole(1750000000, "account_update", `{"event":"ACCOUNT_VIOLATION","violation_info":{"violation_type":"SPAM"}}`),
			whole(1750000001, "account_update", `{"event":"ACCOUNT_VIOLATION","violation_info":{"violation_type":"SPAM"}}`),
		},
		"the same preference at another time": {
			whole(1750000000, "user_preferences", `{"user_preferences":[{"wa_id":"31","value":"stop"}]}`),
			whole(1750000001, "user_preferences", `{"user_preferences":[{"wa_id":"31","value":"stop"}]}`),
		},
		"the content of a placeholder": {
			whole(5, "history", `{"messages":[{"id":"wamid.1","from":"31","type":"media_placeholder"}]}`),
			whole(5, "history", `{"messages":[{"id":"wamid.1","from":"31","type":"image","image":{"id":"9"}}]}`),
		},
	} {
		if before, after := only(t, pair[0]).ID, only(t, pair[1]).ID; before == after {
			t.Errorf("%s has the id of what was before it", what)
		}
	}
}

// A schema that knows less, as an earlier version of this program did, makes the same ids of the same items: an upgrade changes none.
func TestAnIDDoesNotDependOnWhatTheSchemaKnows(t *testing.T) {
	known := vocabulary()
	noTypes := *known
	noTypes.routes = map[string]*route{}
	noFields := *known
	noFields.routes = map[string]*route{}
	for pattern, r := range known.routes {
		noFields.routes[pattern] = &route{pattern: pattern, tag: r.tag, plan: &messagePlan{keys: map[string]keyPlan{}, bits: r.plan.bits}}
	}
	noContext := *known
	noContext.context = &messagePlan{keys: map[string]keyPlan{"contacts": known.context.keys["contacts"]}, bits: known.context.bits}
	for path, body := range bodies(t) {
		want := ids(translated(t, string(body)))
		for what, poorer := range map[string]*schema{"no type": &noTypes, "no field": &noFields, "no context": &noContext} {
			tr := newTranslator(notify(body)) // and is not given back, for no other body is to be read by this schema
			if !tr.doc.parse(body) {
				t.Fatalf("%s is no JSON", path)
			}
			tr.schema, tr.types = poorer, map[string]knownType{}
			tr.body(0)
			var got []string
			for _, ev := range tr.events {
				got = append(got, ev.ID)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: a schema that knows %s makes the ids %v, want %v", path, what, got, want)
			}
		}
	}
}

// Elements of a conversation, words of changed_fields and whole envelopes have the same ids however many come at once.
func TestAnElementHasTheSameIDBesideOthers(t *testing.T) {
	messaging := `{"object":"page","entry":[{"id":"5","time":%s,"%s":[%s]}]}`
	one := `{"sender":{"id":"1"},"recipient":{"id":"5"},"timestamp":1750000000456,"message":{"mid":"m1","text":"a"}}`
	two := `{"sender":{"id":"1"},"recipient":{"id":"5"},"timestamp":1750000000457,"delivery":{"watermark":1750000000456}}`
	for _, list := range []string{"messaging", "standby"} {
		want := append(ids(translated(t, fmt.Sprintf(messaging, "7", list, one))), ids(translated(t, fmt.Sprintf(messaging, "7", list, two)))...)
		slices.Sort(want)
		if got := ids(translated(t, fmt.Sprintf(messaging, "7", list, two+","+one))); !slices.Equal(got, want) {
			t.Errorf("%s: ids %v of two at once, %v of one after the other", list, got, want)
		}
	}
	names := `{"object":"payments","entry":[{"id":"5","time":7,"changed_fields":[%s]}]}`
	want := append(ids(translated(t, fmt.Sprintf(names, `"actions"`))), ids(translated(t, fmt.Sprintf(names, `"disputes"`)))...)
	slices.Sort(want)
	if got := ids(translated(t, fmt.Sprintf(names, `"disputes","actions"`))); !slices.Equal(got, want) {
		t.Errorf("ids %v of two words at once, %v of one after the other", got, want)
	}
	beside := fmt.Sprintf(messaging, "7", "messaging", one)
	for path, body := range bodies(t) {
		if kind := strings.TrimSpace(string(body)); kind[0] != '{' {
			continue // an array is such a batch already, and what is no object no envelope
		}
		want := append(ids(translated(t, string(body))), ids(translated(t, beside))...)
		slices.Sort(want)
		if got := ids(translated(t, "["+beside+","+string(body)+"]")); !slices.Equal(got, want) {
			t.Errorf("%s: ids %v in an array, %v alone", path, got, want)
		}
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
