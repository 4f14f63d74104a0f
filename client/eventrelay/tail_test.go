package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	dialog360v1 "eventrelay/gen/go/dialog360/webhooks/v1"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	metav1 "eventrelay/gen/go/meta/webhooks/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
)

var at = time.Date(2026, 11, 21, 9, 30, 15, 250e6, time.UTC)

// events gives an event of each kind that differs on a line.
func events(t *testing.T) []*eventrelayv1.Event {
	t.Helper()
	unknown, err := structpb.NewStruct(map[string]any{"reference": "7", "inside": map[string]any{"figure": 42}})
	if err != nil {
		t.Fatal(err)
	}
	events := []*eventrelayv1.Event{
		{
			Type: "meta.whatsapp_business_account.messages.message", OrderingKey: "100000000000002:15550100101", EntryId: "100000000000001",
			Raw: []byte(`{"field": "messages"}`),
			Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{
				From: new("15550100101"), Id: new("wamid.A"), Timestamp: timestamppb.New(at),
				Type: whatsappv1.MessageType_MESSAGE_TYPE_TEXT, Text: &whatsappv1.Text{Body: new("Grüße 👋 “quoted”\nand a second line")},
			}},
		},
		{
			Type: "meta.whatsapp_business_account.messages.status", OrderingKey: "100000000000002:15550100101",
			Payload: &eventrelayv1.Event_Status{Status: &whatsappv1.Status{
				Id: new("wamid.B"), Status: whatsappv1.StatusState_STATUS_STATE_DELIVERED, Timestamp: timestamppb.New(at), RecipientId: new("15550100101"),
			}},
		},
		{
			Type: "meta.whatsapp_business_account.messages.error", EntryId: "100000000000001",
			Payload: &eventrelayv1.Event_Error{Error: &whatsappv1.Error{Title: new("Rate limit hit"), Code: proto.Int32(130429)}},
		},
		{
			Type: "meta.user.photos", EntryId: "100000000000004",
			Payload: &eventrelayv1.Event_User{User: &metav1.UserChange{ObjectId: new("5"), Verb: metav1.Verb_VERB_UPDATE}},
		},
		{
			Type: "dialog360.channel_live", EntryId: "channel",
			Payload: &eventrelayv1.Event_ChannelLive{ChannelLive: &dialog360v1.Channel{Id: new("channel"), IsOba: new(false)}},
		},
		{Type: "meta.page.unknown", Payload: &eventrelayv1.Event_Unknown{Unknown: &eventrelayv1.UnknownPayload{Json: unknown}}},
		{Type: "meta.page.feed", EntryId: "raw-view", Raw: []byte(`{"field": "feed", "value": {"item": "post"}}`)},
		{Type: "meta.page.feed", EntryId: "neither"},
	}
	for i, event := range events {
		event.Id = strings.Repeat("abcdefgh"[i:i+1], 26)
		event.Cursor = "c" + string(rune('1'+i))
		event.Sequence = uint64(i + 1)
		event.ReceivedAt = timestamppb.New(at.Add(time.Duration(i) * time.Second))
	}
	events[7].ReceivedAt, events[7].OccurredAt = nil, timestamppb.New(at)
	return events
}

func TestTailPrintsALinePerEvent(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	got := eventrelay(t, "tail", "--server", r.serve(t), "--count", "8")
	if got.code != exitDone {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	golden(t, "tail.golden", got.out)
}

func TestTailPrintsAnObjectPerEventThatReadsBackAsTheEvent(t *testing.T) {
	sent := events(t)
	r := &relay{script: sends(sent...)}
	got := eventrelay(t, "tail", "--json", "--server", r.serve(t), "--count", "8")
	golden(t, "tail.json.golden", got.out)
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(lines) != len(sent) {
		t.Fatalf("%d lines for %d events", len(lines), len(sent))
	}
	for i, line := range lines {
		var read eventrelayv1.Event
		if err := protojson.Unmarshal([]byte(line), &read); err != nil || !proto.Equal(&read, sent[i]) {
			t.Errorf("line %d reads back as %v (%v)", i+1, &read, err)
		}
	}
}

func TestTailEndsAfterSoManyEvents(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	got := eventrelay(t, "tail", "--server", r.serve(t), "--count", "3")
	if got.code != exitDone || strings.Count(got.out, "\n") != 3 {
		t.Errorf("exit %d after\n%s", got.code, got.out)
	}
}

func TestTailEndsWhenItHasCaughtUp(t *testing.T) {
	for name, waiting := range map[string][]*eventrelayv1.Event{"something waits": events(t), "nothing waits": nil} {
		t.Run(name, func(t *testing.T) {
			r := &relay{script: sends(waiting...)}
			got := eventrelay(t, "tail", "--no-follow", "--from", "earliest", "--server", r.serve(t))
			if got.code != exitDone || strings.Count(got.out, "\n") != len(waiting) {
				t.Errorf("exit %d after\n%s%s", got.code, got.out, got.err)
			}
		})
	}
}

func TestTailHoldsNothingBack(t *testing.T) {
	r := &relay{script: sends(events(t)[0])} // and then nothing more
	ctx, interrupt := context.WithTimeout(t.Context(), 10*time.Second)
	defer interrupt()
	var out, diag bytes.Buffer
	code := run(ctx, []string{"tail", "--server", r.serve(t)}, strings.NewReader(""), writer(func(p []byte) (int, error) { interrupt(); return out.Write(p) }), &diag)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || code != exitDone || out.Len() == 0 {
		t.Errorf("exit %d (%v): %s", code, ctx.Err(), diag.String())
	}
}

func TestTailThatShallEndGivesUpOnAServerThatIsNotThere(t *testing.T) {
	got := eventrelay(t, "tail", "--no-follow", "--server", unused(t))
	if got.code != exitFailure || !strings.Contains(got.err, "did not answer 5 times") || strings.Count(got.err, "cannot reach") != 1 {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

// unused gives an address that nobody listens on.
func unused(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(nil)
	defer server.Close()
	return server.Listener.Addr().String()
}

func TestInterruptEndsTailCleanly(t *testing.T) {
	for name, address := range map[string]string{"while it waits for events": (&relay{script: sends()}).serve(t), "while it looks for the server": unused(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var out bytes.Buffer
			// The first note is the sign that it runs.
			code := run(ctx, []string{"tail", "--server", address}, strings.NewReader(""), &out, writer(func(p []byte) (int, error) { interrupt(); return len(p), nil }))
			if code != exitDone || out.Len() != 0 {
				t.Errorf("exit %d, printed %q", code, out.String())
			}
		})
	}
}

// writer makes a writer of a function.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestTailTellsOnceThatTheServerIsLostAndOnceThatItIsBack(t *testing.T) {
	sent := events(t)
	r := &relay{}
	r.script = func(stream int, out grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error {
		switch stream {
		case 1:
			if err := out.Send(&eventrelayv1.SubscribeResponse{Cursor: "c0", Backlog: 1}); err != nil {
				return err
			}
			if err := out.Send(&eventrelayv1.SubscribeResponse{Events: sent[:1], Cursor: "c1"}); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "going down")
		case 2, 3:
			return status.Error(codes.Unavailable, "still down")
		default:
			return sends(sent[1:]...)(stream, out)
		}
	}
	address := r.serve(t)
	got := eventrelay(t, "tail", "--server", address, "--count", "8")
	want := "eventrelay: reading from ADDRESS, starting at latest\n" +
		"eventrelay: lost ADDRESS: going down; trying again\n" +
		"eventrelay: connected to ADDRESS again\n"
	if told := strings.ReplaceAll(got.err, address, "ADDRESS"); told != want {
		t.Errorf("told:\n%s", told)
	}
	golden(t, "tail.golden", got.out)
	if cursor := r.requests[3].GetCursor(); cursor != "c1" {
		t.Errorf("went on from %q", cursor)
	}
}

func TestTailAsksForWhatTheFlagsSay(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		check func(*eventrelayv1.SubscribeRequest) bool
	}{
		{"nothing", nil, func(q *eventrelayv1.SubscribeRequest) bool {
			return q.GetStartFrom() == eventrelayv1.StartFrom_START_FROM_LATEST && q.GetView() == eventrelayv1.EventView_EVENT_VIEW_FULL && q.GetFilter() == ""
		}},
		{"filter", []string{"--filter", "has(event.message)"}, func(q *eventrelayv1.SubscribeRequest) bool { return q.GetFilter() == "has(event.message)" }},
		{"typed", []string{"--view", "typed"}, func(q *eventrelayv1.SubscribeRequest) bool {
			return q.GetView() == eventrelayv1.EventView_EVENT_VIEW_TYPED
		}},
		{"raw", []string{"--view=raw"}, func(q *eventrelayv1.SubscribeRequest) bool {
			return q.GetView() == eventrelayv1.EventView_EVENT_VIEW_RAW
		}},
		{"earliest", []string{"--from", "earliest"}, func(q *eventrelayv1.SubscribeRequest) bool {
			return q.GetStartFrom() == eventrelayv1.StartFrom_START_FROM_EARLIEST
		}},
		{"cursor", []string{"--from", "AbC-12_="}, func(q *eventrelayv1.SubscribeRequest) bool { return q.GetCursor() == "AbC-12_=" }},
		{"time", []string{"--from", "2026-11-21T10:30:15+01:00"}, func(q *eventrelayv1.SubscribeRequest) bool {
			return q.GetStartTime().AsTime().Equal(at.Truncate(time.Second))
		}},
		{"ago", []string{"--from", "10m ago"}, func(q *eventrelayv1.SubscribeRequest) bool {
			age := time.Since(q.GetStartTime().AsTime())
			return age >= 10*time.Minute && age < 11*time.Minute
		}},
		{"duration", []string{"--from", "1h30m"}, func(q *eventrelayv1.SubscribeRequest) bool {
			age := time.Since(q.GetStartTime().AsTime())
			return age >= 90*time.Minute && age < 91*time.Minute
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &relay{script: sends()}
			got := eventrelay(t, append([]string{"tail", "--no-follow", "--server", r.serve(t)}, c.args...)...)
			if got.code != exitDone || !c.check(r.request(t)) {
				t.Errorf("exit %d, asked for %v %s", got.code, r.request(t), got.err)
			}
		})
	}
}

func TestEveryFlagIsReadFromTheEnvironment(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	for name, value := range map[string]string{
		"SERVER": r.serve(t), "TOKEN": "hush-hush", "FILTER": "event.test", "FROM": "c7", "VIEW": "typed", "COUNT": "2", "NO_FOLLOW": "true", "JSON": "true",
	} {
		t.Setenv("EVENTRELAY_"+name, value)
	}
	got := eventrelay(t, "tail")
	request := r.request(t)
	if got.code != exitDone || strings.Count(got.out, "\n") != 2 || !strings.HasPrefix(got.out, "{") {
		t.Errorf("exit %d after\n%s", got.code, got.out)
	}
	if request.GetFilter() != "event.test" || request.GetCursor() != "c7" || request.GetView() != eventrelayv1.EventView_EVENT_VIEW_TYPED {
		t.Errorf("asked for %v", request)
	}
	if !slices.Equal(r.tokens, []string{"Bearer hush-hush"}) {
		t.Errorf("showed %q", r.tokens)
	}
	for _, args := range [][]string{{"tail", "--help"}, {"--help"}, {"tail", "--from", "x y"}} {
		if shown := eventrelay(t, args...); strings.Contains(shown.out+shown.err, "hush-hush") {
			t.Errorf("%v shows the token:\n%s%s", args, shown.out, shown.err)
		}
	}
}

func TestTailSaysWhatToDoAboutARefusal(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(int, grpc.ServerStreamingServer[eventrelayv1.SubscribeResponse]) error
		code   int
		says   string
	}{
		{
			"filter", refuses(codes.InvalidArgument, "filter: line 1, column 7: undeclared reference", "FILTER_INVALID", map[string]string{"line": "1", "column": "7"}),
			exitUsage, "--filter, line 1, column 7: undeclared reference",
		},
		{"no cursor", refuses(codes.InvalidArgument, "no", "CURSOR_MALFORMED", nil), exitUsage, `--from "earlist" is no cursor of`},
		{"foreign cursor", refuses(codes.InvalidArgument, "no", "CURSOR_FOREIGN", nil), exitFailure, "start with --from earliest or --from latest"},
		{
			"expired cursor", refuses(codes.OutOfRange, "no", "CURSOR_EXPIRED", map[string]string{"earliest_cursor": "c6"}),
			exitFailure, "go on with what is left by --from c6",
		},
		{"no token", refuses(codes.Unauthenticated, "no token", "", nil), exitFailure, "EVENTRELAY_TOKEN or --token: no token"},
		{"anything else", refuses(codes.PermissionDenied, "not for readers", "", nil), exitFailure, "not for readers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &relay{script: c.script}
			got := eventrelay(t, "tail", "--server", r.serve(t), "--from", "earlist")
			if got.code != c.code || !strings.Contains(got.err, c.says) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("exit %d: %s", got.code, got.err)
			}
		})
	}
}

func TestWrongFlagsNameThemselvesAndTheFix(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says []string
	}{
		{nil, []string{`"tail", "trigger"`, "--help"}},
		{[]string{"sources"}, []string{"create", "list", "--help"}},
		{[]string{"tial"}, []string{"tial", "--help"}},
		{[]string{"tail", "--form", "latest"}, []string{"--form", "--from"}},
		{[]string{"tail", "--from", "ten minutes ago"}, []string{"--from", "10m", "earliest"}},
		{[]string{"tail", "--from=-10m"}, []string{"--from", "10m"}},
		{[]string{"tail", "--from", strings.Repeat("x", 257)}, []string{"--from"}},
		{[]string{"tail", "--view", "half"}, []string{"--view", "full", "typed", "raw"}},
		{[]string{"tail", "--count", "-1"}, []string{"--count"}},
		{[]string{"tail", "--server", "relay.example:9090"}, []string{"--server relay.example:9090", "--tls", "--insecure"}},
		{[]string{"tail", "--server", ""}, []string{"--server"}},
		{[]string{"tail", "--tls", "--insecure"}, []string{"--insecure", "--tls"}},
		{[]string{"tail", "--ca-file", "/does/not/exist"}, []string{"--ca-file"}},
		{[]string{"tail", "--ca-file", empty}, []string{"--ca-file", "PEM"}},
		{[]string{"tail", "--token", "two words"}, []string{"--token"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got := eventrelay(t, c.args...)
			if got.code != exitUsage || got.out != "" {
				t.Errorf("exit %d, printed %q", got.code, got.out)
			}
			for _, word := range c.says {
				if !strings.Contains(got.err, word) {
					t.Errorf("%q is not in: %s", word, got.err)
				}
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"tail", "--help"}, {"trigger", "--help"}} {
		if got := eventrelay(t, args...); got.code != exitDone || !strings.HasPrefix(got.out, "Usage: eventrelay") || got.err != "" {
			t.Errorf("%v: exit %d\n%s%s", args, got.code, got.out, got.err)
		}
	}
}

func TestTailFailsWhenItCannotPrint(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	full := errors.New("no space left")
	var diag bytes.Buffer
	code := run(t.Context(), []string{"tail", "--server", r.serve(t)}, strings.NewReader(""), writer(func([]byte) (int, error) { return 0, full }), &diag)
	if code != exitFailure || !strings.Contains(diag.String(), "no space left") {
		t.Errorf("exit %d: %s", code, diag.String())
	}
}

func TestTailSpeaksTLSToACertificateOfItsOwnAuthority(t *testing.T) {
	issuer := httptest.NewTLSServer(nil) // for its certificate only
	defer issuer.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &relay{script: sends(events(t)...)}
	address := r.serveTLS(t, &issuer.TLS.Certificates[0])
	if got := eventrelay(t, "tail", "--server", address, "--ca-file", file, "--count", "1"); got.code != exitDone || got.out == "" {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	if got := eventrelay(t, "tail", "--server", address, "--tls", "--no-follow"); got.code != exitFailure || !strings.Contains(got.err, x509.UnknownAuthorityError{}.Error()) {
		t.Errorf("an unknown authority: exit %d: %s", got.code, got.err)
	}
}

func TestTailColoursOnlyWhereAPersonWantsIt(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	address := r.serve(t)
	always := eventrelay(t, "tail", "--server", address, "--count", "8", "--color", "always")
	if !strings.Contains(always.out, "\x1b[32mmeta.whatsapp_business_account.messages.message\x1b[0m") || !strings.Contains(always.out, "\x1b[31mmeta.page.unknown\x1b[0m") {
		t.Errorf("--color always prints %q", always.out)
	}
	// What is coloured is the same text.
	golden(t, "tail.golden", regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(always.out, ""))
	for _, args := range [][]string{{}, {"--color", "never"}, {"--json", "--color", "always"}} {
		if got := eventrelay(t, append([]string{"tail", "--server", address, "--count", "8"}, args...)...); got.code != exitDone || strings.Contains(got.out, "\x1b") {
			t.Errorf("%v prints %q", args, got.out)
		}
	}
}

func TestSinceIsAPlaceToStart(t *testing.T) {
	r := &relay{script: sends(events(t)...)}
	got := eventrelay(t, "tail", "--server", r.serve(t), "--count", "1", "--since", "2026-11-21T09:00:00Z")
	if got.code != exitDone || r.request(t).GetStartTime().AsTime() != time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC) {
		t.Errorf("exit %d, asked for %v: %s", got.code, r.request(t), got.err)
	}
	if got := eventrelay(t, "tail", "--since", "5m", "--from", "earliest"); got.code != exitUsage || !strings.Contains(got.err, "--since and --from") {
		t.Errorf("both: exit %d: %s", got.code, got.err)
	}
}
