package translate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
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

func readPlain(b *testing.B, body []byte) {
	var v plainBody
	if err := json.Unmarshal(body, &v); err != nil {
		b.Fatal(err)
	}
}

func benchPlain(b *testing.B, body []byte) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		readPlain(b, body)
	}
}

// protoBodies are what a JSON reader of protobuf would have to be sent to make the same typed events: each event as protojson itself writes
// it, under the names of the fields, without raw. So protojson reads the same words into the same messages, and is spared what is
// Translate's own work: to find the events in the body, to make their ids and to keep what was sent.
func protoBodies(b *testing.B, body []byte) [][]byte {
	var bodies [][]byte
	for _, ev := range Translate(notify(body)) {
		msg := &eventrelayv1.Event{}
		if err := proto.Unmarshal(head(b, ev), msg); err != nil {
			b.Fatal(err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(msg)
		if err != nil {
			b.Fatal(err)
		}
		bodies = append(bodies, text)
	}
	return bodies
}

func readProto(b *testing.B, bodies [][]byte) {
	for _, body := range bodies {
		msg := &eventrelayv1.Event{}
		if err := protojson.Unmarshal(body, msg); err != nil {
			b.Fatal(err)
		}
	}
}

func benchProto(b *testing.B, body []byte) {
	bodies := protoBodies(b, body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		readProto(b, bodies)
	}
}

// work is something to be timed in turns with others.
type work struct {
	runs int // in one turn
	do   func()
	took []float64 // nanoseconds of one run, turn by turn
}

// cpuTime is what the process has spent of its processors, the collector of garbage included. Unlike the clock it does not count the time
// in which another process had the processor.
func cpuTime(b *testing.B) time.Duration {
	var spent syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &spent); err != nil {
		b.Fatal(err)
	}
	return time.Duration(spent.Utime.Nano() + spent.Stime.Nano())
}

// inTurns times each work in turns with the others, so that whatever else the machine does slows all of them alike. A turn should take some
// ten milliseconds, so that each collects its own garbage.
func inTurns(b *testing.B, works ...*work) {
	for b.Loop() {
		for _, w := range works {
			start := cpuTime(b)
			for range w.runs {
				w.do()
			}
			w.took = append(w.took, float64((cpuTime(b)-start).Nanoseconds())/float64(w.runs))
		}
	}
}

// median leaves out the turns in which the machine did something else for one of two works.
func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// each is how many nanoseconds one run of the work took.
func (w *work) each() float64 { return median(w.took) }

// of is what a run took in parts of what one of the other took.
func (w *work) of(other *work) float64 {
	var ratios []float64
	for turn, took := range w.took {
		ratios = append(ratios, took/other.took[turn])
	}
	return median(ratios)
}

// benchLimit reports what Translate takes in parts of what encoding/json, protojson and the faster of both take: of-limit is to be no more
// than 1 for a text message. Its ns/op and MB/s are those of Translate.
func benchLimit(b *testing.B, body []byte, runs int) {
	n, bodies := notify(body), protoBodies(b, body)
	translate := &work{runs: runs, do: func() { Translate(n) }}
	plain := &work{runs: runs, do: func() { readPlain(b, body) }}
	typed := &work{runs: runs, do: func() { readProto(b, bodies) }}
	inTurns(b, translate, plain, typed)
	ofPlain, ofTyped := translate.of(plain), translate.of(typed)
	b.ReportMetric(translate.each(), "ns/op")
	b.ReportMetric(float64(len(body))/translate.each()*1e3, "MB/s")
	b.ReportMetric(ofPlain, "of-encoding-json")
	b.ReportMetric(ofTyped, "of-protojson")
	b.ReportMetric(max(ofPlain, ofTyped), "of-limit")
}

func BenchmarkTranslateText(b *testing.B) {
	body := []byte(textBody)
	b.Run("translate", func(b *testing.B) { benchTranslate(b, body, 1) })
	b.Run("encoding-json", func(b *testing.B) { benchPlain(b, body) })
	b.Run("protojson", func(b *testing.B) { benchProto(b, body) })
	b.Run("in-turns", func(b *testing.B) { benchLimit(b, body, 2000) })
}

func BenchmarkTranslateBatch1000(b *testing.B) {
	body := batchBody(1000)
	b.Run("translate", func(b *testing.B) { benchTranslate(b, body, 1000) })
	b.Run("encoding-json", func(b *testing.B) { benchPlain(b, body) })
	b.Run("protojson", func(b *testing.B) { benchProto(b, body) })
	b.Run("in-turns", func(b *testing.B) { benchLimit(b, body, 4) })
}
