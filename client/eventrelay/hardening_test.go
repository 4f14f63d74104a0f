package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

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
