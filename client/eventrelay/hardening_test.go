package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
)

// hostile holds an escape sequence, its C1 form, a line end, a reversal of direction, a line separator and a tag character beyond the basic plane.
const hostile = "a\x1b[2Jb\u009b31mc\r\nd\u202ee\u2028f\U000e0041g"

func TestSendersCannotSteerTheTerminal(t *testing.T) {
	sent := &eventrelayv1.Event{
		Id: "id" + hostile, Type: "type" + hostile, OrderingKey: "key" + hostile, Raw: []byte("\xff" + hostile),
		Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{Text: &whatsappv1.Text{Body: new(hostile)}}},
	}
	for _, args := range [][]string{{"tail", "--count", "2"}, {"tail", "--count", "2", "--json"}} {
		r := &relay{script: sends(sent, &eventrelayv1.Event{Raw: []byte("\xff" + hostile)})}
		got := eventrelay(t, append(args, "--server", r.serve(t))...)
		if strings.Count(got.out, "\n") != 2 {
			t.Errorf("%v: two events are not two lines: %q", args, got.out)
		}
		for _, c := range strings.ReplaceAll(got.out, "\n", "") {
			if !unicode.IsPrint(c) {
				t.Errorf("%v: %U is printed", args, c)
			}
		}
		if line, _, _ := strings.Cut(got.out, "\n"); strings.HasPrefix(line, "{") {
			var read eventrelayv1.Event
			if err := protojson.Unmarshal([]byte(line), &read); err != nil || !proto.Equal(&read, sent) {
				t.Errorf("the object reads back as %v (%v)", &read, err)
			}
		}
	}
}

func TestServersCannotSteerTheTerminalByTheirErrors(t *testing.T) {
	r := &relay{script: refuses(7, hostile, "", nil)}
	got := eventrelay(t, "tail", "--server", r.serve(t))
	if strings.Count(got.err, "\n") != 1 || strings.ContainsAny(got.err, "\x1b\u009b\r") {
		t.Errorf("printed %q", got.err)
	}
}

func TestLinesAreCutToTheTerminalAndNeverWithoutOne(t *testing.T) {
	text := strings.Repeat("ä", 500)
	event := events(t)[0]
	event.GetMessage().Text.Body = new(text)
	for width, want := range map[int]int{60: 240, 80: 240, 120: 240, 200: 200, 1000: 0, 0: 0} {
		whole := (&printer{}).line(event)
		got := (&printer{width: width}).line(event)
		if want == 0 {
			if got != whole || !strings.Contains(got, text) {
				t.Errorf("%d columns: cut to %q", width, got)
			}
			continue
		}
		if utf8.RuneCountInString(got) != want || !utf8.ValidString(got) || !strings.HasSuffix(got, "ä…") {
			t.Errorf("%d columns: %d of %q", width, utf8.RuneCountInString(got), got)
		}
	}
	r := &relay{script: sends(event)}
	if got := eventrelay(t, "tail", "--server", r.serve(t), "--count", "1"); !strings.Contains(got.out, text) {
		t.Errorf("a pipe got %q", got.out)
	}
}

func TestServersCannotSteerTheTerminalByTheirTables(t *testing.T) {
	text := "x" + hostile
	source := &eventrelayv1.Source{
		Name: text, DisplayName: text, Labels: map[string]string{text: text}, WebhookPath: text, AppId: text, Etag: text, Provider: eventrelayv1.Provider_PROVIDER_META,
		SecretUses: []*eventrelayv1.SecretUse{{Field: text}}, Stats: &eventrelayv1.SourceStats{RefusedNotifications: map[string]uint64{text: 1}},
		Subscriptions: &eventrelayv1.SourceSubscriptions{
			PublicBaseUrl: text, Objects: []*eventrelayv1.ObjectSubscription{{Object: text, Fields: []string{text}}},
			WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{{Id: text, OverrideCallbackUri: text}},
		},
	}
	for command, answer := range map[string]proto.Message{
		"sources list":                    &eventrelayv1.ListSourcesResponse{Sources: []*eventrelayv1.Source{source}},
		"sources describe x":              source,
		"sources connect x":               &eventrelayv1.ConnectResponse{CallbackUrl: text, Steps: []*eventrelayv1.ConnectStep{{Action: text, Target: text, Error: &statuspb.Status{Message: text}}}},
		"sources check x":                 &eventrelayv1.CheckSubscriptionsResponse{Findings: []*eventrelayv1.SubscriptionFinding{{Target: text, Field: text, Expected: text, Actual: text, Hint: text}}},
		"events get x":                    &eventrelayv1.Event{Id: text, Type: text},
		"events types":                    &eventrelayv1.ListEventTypesResponse{EventTypes: []*eventrelayv1.EventType{{Type: text, PayloadField: text, PayloadMessage: text}}},
		"events drift":                    &eventrelayv1.ListDriftResponse{Drift: []*eventrelayv1.Drift{{Type: text, Path: text, Word: text, SampleEventId: text}}},
		"meta waba list x 1":              &eventrelayv1.ListWhatsAppBusinessAccountSubscribedAppsResponse{SubscribedApps: []*eventrelayv1.SubscribedApp{{Id: text, Name: text, Link: text}}},
		"meta app list x":                 &eventrelayv1.ListAppSubscriptionsResponse{AppSubscriptions: []*eventrelayv1.AppSubscription{{Object: text, CallbackUrl: text}}},
		"meta page list x 1":              &eventrelayv1.ListAccountSubscribedAppsResponse{SubscribedApps: []*eventrelayv1.SubscribedApp{{Id: text, SubscribedFields: []string{text}}}},
		"meta phone get x 1":              &eventrelayv1.WebhookOverride{PhoneNumber: text, Application: text},
		"dialog360 channel-webhook get x": &eventrelayv1.ChannelWebhook{Url: text, HeaderNames: []string{text}},
	} {
		for _, form := range [][]string{nil, {"--json"}} {
			got := answers(answer).ask(t, append(strings.Fields(command), form...)...)
			if got.out == "" {
				t.Errorf("%s %v: exit %d printed nothing: %s", command, form, got.code, got.err)
			}
			for _, c := range strings.ReplaceAll(got.out+got.err, "\n", "") {
				if !unicode.IsPrint(c) {
					t.Errorf("%s %v: %U is printed", command, form, c)
				}
			}
			if lines := strings.Count(got.out, "\n"); strings.Contains(got.out, "\nd\\u202e") || (form != nil && lines != 1) {
				t.Errorf("%s %v: a text makes lines of its own:\n%s", command, form, got.out)
			}
		}
	}
}
