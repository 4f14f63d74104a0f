package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// textBody is a notification of one text message, as Meta sends it.
const textBody = `{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":[{"value":{"messaging_product":"whatsapp",` +
	`"metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"contacts":[{"profile":{"name":"Sheena Nelson"},` +
	`"wa_id":"16505551234"}],"messages":[{"from":"16505551234","id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA=",` +
	`"timestamp":"1749416383","type":"text","text":{"body":"Does it come in another color?"}}]},"field":"messages"}]}]}`

// batchBody is a notification of n updates in one change: statuses and messages in turns, and the contacts of the messages.
func batchBody(n int) []byte {
	var contacts, messages, statuses []string
	for i := range n {
		number := fmt.Sprintf("1650555%04d", i)
		if i%2 == 0 {
			contacts = append(contacts, fmt.Sprintf(`{"profile":{"name":"Person %d"},"wa_id":%q}`, i, number))
			messages = append(messages, fmt.Sprintf(
				`{"from":%q,"id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAz%08d","timestamp":"1749416383","type":"text","text":{"body":"Message number %d \u00e4\u00f6"}}`,
				number, i, i))
			continue
		}
		statuses = append(statuses, fmt.Sprintf(
			`{"id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5%08d","status":"delivered","timestamp":"1750030073","recipient_id":%q,"pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":"marketing"}}`,
			i, number))
	}
	return []byte(`{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":[{"value":{"messaging_product":"whatsapp",` +
		`"metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"contacts":[` + strings.Join(contacts, ",") +
		`],"messages":[` + strings.Join(messages, ",") + `],"statuses":[` + strings.Join(statuses, ",") + `]},"field":"messages"}]}]}`)
}

// What encoding/json needs as Go structs for the same bodies.
type plainBody struct {
	Object string `json:"object"`
	Entry  []struct {
		ID      string `json:"id"`
		Changes []struct {
			Field string     `json:"field"`
			Value plainValue `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

type plainValue struct {
	MessagingProduct string `json:"messaging_product"`
	Metadata         struct {
		DisplayPhoneNumber string `json:"display_phone_number"`
		PhoneNumberID      string `json:"phone_number_id"`
	} `json:"metadata"`
	Contacts []struct {
		Profile struct {
			Name string `json:"name"`
		} `json:"profile"`
		WaID string `json:"wa_id"`
	} `json:"contacts"`
	Messages []struct {
		From      string `json:"from"`
		ID        string `json:"id"`
		Timestamp string `json:"timestamp"`
		Type      string `json:"type"`
		Text      *struct {
			Body string `json:"body"`
		} `json:"text"`
	} `json:"messages"`
	Statuses []struct {
		ID          string `json:"id"`
		Status      string `json:"status"`
		Timestamp   string `json:"timestamp"`
		RecipientID string `json:"recipient_id"`
		Pricing     *struct {
			Billable     bool   `json:"billable"`
			PricingModel string `json:"pricing_model"`
			Type         string `json:"type"`
			Category     string `json:"category"`
		} `json:"pricing"`
	} `json:"statuses"`
}

func benchTranslate(b *testing.B, body []byte, want int) {
	n := notify(body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if got := len(Translate(n)); got != want {
			b.Fatalf("%d events, want %d", got, want)
		}
	}
}

func benchPlain(b *testing.B, body []byte) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var v plainBody
		if err := json.Unmarshal(body, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTranslateText(b *testing.B) {
	b.Run("translate", func(b *testing.B) { benchTranslate(b, []byte(textBody), 1) })
	b.Run("encoding-json", func(b *testing.B) { benchPlain(b, []byte(textBody)) })
}

func BenchmarkTranslateBatch1000(b *testing.B) {
	body := batchBody(1000)
	b.Run("translate", func(b *testing.B) { benchTranslate(b, body, 1000) })
	b.Run("encoding-json", func(b *testing.B) { benchPlain(b, body) })
}

// The bytes per second of one row should not fall from size to size: the work is linear in the body.
func BenchmarkTranslateGrowth(b *testing.B) {
	shapes := map[string]func(n int) ([]byte, int){
		"updates": func(n int) ([]byte, int) { return batchBody(n), n },
		"unknown-keys": func(n int) ([]byte, int) {
			var body bytes.Buffer
			body.WriteString(`{"object":"application","entry":[{"id":"1","changes":[{"field":"business_integration_update","value":{`)
			for i := range n {
				fmt.Fprintf(&body, `"unknown_key_number_%d":%d,`, i, i)
			}
			body.WriteString(`"business_manager_id":"1"}}]}]}`)
			return body.Bytes(), 1
		},
		"items-beside-keys": func(n int) ([]byte, int) {
			return []byte(changed(whatsappObject, "messages", `{`+manyKeys(n)+messages(n)+`}`)), n
		},
		"unknown-payload": func(n int) ([]byte, int) {
			return []byte(`{"object":"page","entry":[{"id":"1","changes":[{"field":"feed","value":{"list":[` +
				strings.Repeat(`{"a":"b","c":1.5},`, n) + `{}]}}]}]}`), 1
		},
	}
	for name, build := range shapes {
		for _, n := range []int{100, 1000, 10000} {
			body, events := build(n)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { benchTranslate(b, body, events) })
		}
	}
}
