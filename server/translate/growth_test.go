package translate

import (
	"fmt"
	"strings"
	"testing"
)

// historyBody is a history as an app is sent it, of about so many bytes: chunks of threads of messages.
func historyBody(size int) []byte {
	const head = `{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":[{"value":{"messaging_product":"whatsapp",` +
		`"metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"history":[`
	const tail = `]},"field":"history"}]}]}`
	const threads, messages = 20, 20
	var body strings.Builder
	body.WriteString(head)
	for chunk := 0; body.Len() < size; chunk++ {
		if chunk > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"metadata":{"phase":0,"chunk_order":%d,"progress":%d},"threads":[`, chunk, chunk%100)
		for thread := range threads {
			if thread > 0 {
				body.WriteByte(',')
			}
			fmt.Fprintf(&body, `{"id":"1650555%04d","messages":[`, thread)
			for message := range messages {
				if message > 0 {
					body.WriteByte(',')
				}
				fmt.Fprintf(&body, `{"from":"1650555%04d","id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAz%04d%04d%04d","timestamp":"1749416383",`+
					`"type":"text","text":{"body":"Message number %d \u00e4\u00f6"},"history_context":{"status":"READ"}}`, thread, chunk, thread, message, message)
			}
			body.WriteString(`]}`)
		}
		body.WriteString(`]}`)
	}
	return []byte(body.String() + tail)
}

// repeated is one `item` after the other, numbered where it has a verb, about so many bytes long.
func repeated(size int, item string) string {
	var all strings.Builder
	numbered := strings.Contains(item, "%")
	for i := 0; all.Len() < size; i++ {
		if numbered {
			fmt.Fprintf(&all, item, i)
		} else {
			all.WriteString(item)
		}
	}
	return all.String()
}

// hostile are bodies of about so many bytes, by what is too much in them.
var hostile = []struct {
	name string
	body func(size int) string
}{
	{"unknown-keys", func(size int) string {
		return changed("application", "business_integration_update", `{`+repeated(size, `"unknown_key_number_%d":1,`)+`"business_manager_id":"1"}`)
	}},
	{"unknown-payload", func(size int) string {
		return changed("page", "feed", `{"list":[`+repeated(size, `{"a":"b","c":1.5},`)+`{}]}`)
	}},
	{"twin-keys", func(size int) string { return changed("page", "mood", `{`+repeated(size, `"a":1,`)+`"b":1}`) }},
	{"keys-beside-items", func(size int) string {
		return changed(whatsappObject, "messages", `{`+repeated(size/2, `"novel_key_%d":1,`)+`"messages":[`+repeated(size/2, `{"from":"%[1]d","id":"wamid.%[1]d"},`)+`{}]}`)
	}},
	{"contacts", contactsBody},
	{"namesakes", func(size int) string {
		return changed(whatsappObject, "messages", `{"contacts":[`+repeated(size/2, `{"wa_id":"1"},`)+`{}],"messages":[{"id":"1","x":[`+
			repeated(size/2, `{"from":"1"},`)+`{}]},{"from":"1"}]}`)
	}},
	{"escapes", func(size int) string {
		return changed(whatsappObject, "messages", `{"messages":[{"id":"1","text":{"body":"`+repeated(size, `\ud83d\ude00\n\"`)+`"}}]}`)
	}},
	{"digits", func(size int) string { return changed("page", "mood", `{"n":`+repeated(size, `1234567890`)+`}`) }},
	{"deep", func(size int) string {
		return changed("page", "mood", repeated(size*5/7, `{"m":`)+`1`+strings.Repeat(`}`, (size*5/7+4)/5))
	}},
	{"deep-item", func(size int) string {
		return changed(whatsappObject, "messages", `{"messages":[{"id":"1","x":`+repeated(size/2, `[`)+repeated(size/2, `]`)+`},{"id":"2","from":"1"}]}`)
	}},
	{"text-in-the-depth", func(size int) string {
		return changed("page", "mood", strings.Repeat(`{"m":`, 25)+`"`+repeated(size, `x`)+`"`+strings.Repeat(`}`, 25))
	}},
	{"small-items", func(size int) string {
		return changed(whatsappObject, "messages", `{"messages":[`+repeated(size, `{"id":"%d"},`)+`{}]}`)
	}},
	{"empty-items", func(size int) string {
		return changed(whatsappObject, "messages", `{"messages":[`+repeated(size, `{},`)+`{}]}`)
	}},
	{"empty-entries", func(size int) string { return `{"object":"page","entry":[` + repeated(size, `{},`) + `{}]}` }},
	{"changed-fields", func(size int) string {
		return `{"object":"user","entry":[{"id":"1","changed_fields":[` + repeated(size, `"a",`) + `"b"]}]}`
	}},
}

// contactsBody has some messages and many contacts.
func contactsBody(size int) string {
	return changed(whatsappObject, "messages", `{"contacts":[`+repeated(size, `{"wa_id":"%d"},`)+`{}],`+messages(100)+`}`)
}

// benchGrowth times a body in turns with a text message and, where there is one, with a tenth of itself, and reports what a byte takes in
// parts of what theirs take: of-small and of-tenth. of-tenth is about 1 where time is linear, and 10 where it is square.
func benchGrowth(b *testing.B, body, tenth []byte) {
	small := []byte(textBody)
	inBytes := func(body []byte, runs int) *work {
		n := notify(body)
		return &work{runs: runs, do: func() { Translate(n) }}
	}
	// A turn is of a million bytes, or of one body that is larger.
	runs := max(1_000_000/len(body), 1)
	whole, text := inBytes(body, runs), inBytes(small, max(runs*len(body)/len(small), 1))
	works := []*work{whole, text}
	if tenth != nil {
		works = append(works, inBytes(tenth, 10*runs))
	}
	inTurns(b, works...)
	perByte := whole.each() / float64(len(body))
	b.ReportMetric(whole.each(), "ns/op")
	b.ReportMetric(1e3/perByte, "MB/s")
	b.ReportMetric(perByte, "ns/byte")
	b.ReportMetric(whole.of(text)*float64(len(small))/float64(len(body)), "of-small")
	if tenth != nil {
		b.ReportMetric(whole.of(works[2])*float64(len(tenth))/float64(len(body)), "of-tenth")
	}
}

// What real notifications take for a byte: of-small is to be no more than 3.
func BenchmarkTranslateBytes(b *testing.B) {
	b.Run("small", func(b *testing.B) { benchGrowth(b, []byte(textBody), nil) })
	b.Run("batch-1000", func(b *testing.B) { benchGrowth(b, batchBody(1000), batchBody(100)) })
	b.Run("history-3MB", func(b *testing.B) { benchGrowth(b, historyBody(3_000_000), historyBody(300_000)) })
}

// What somebody could send to make a byte dear: of-tenth stays about 1. Where a body of few bytes makes many events, of-small tells of them.
func BenchmarkTranslateHostile(b *testing.B) {
	const size = 3_000_000
	for _, h := range hostile {
		b.Run(h.name, func(b *testing.B) { benchGrowth(b, []byte(h.body(size)), []byte(h.body(size/10))) })
	}
	b.Run("a-million-contacts", func(b *testing.B) {
		contacts := func(n int) []byte { return []byte(contactsBody(n * len(`{"wa_id":"123456"},`))) }
		benchGrowth(b, contacts(1_000_000), contacts(100_000))
	})
}
