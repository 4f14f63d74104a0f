package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// What one relay forwards is what another makes the same events of: of the samples, of what the providers document, and of every way to write an entry.
func TestWhatIsForwardedMakesTheSameEvents(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "eventrelay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "../client/eventrelay").CombinedOutput(); err != nil {
		t.Fatalf("build the command line: %v\n%s", err, out)
	}
	// Bodies with an object that is not said, or a time that is written as Meta does not: an id is made of what is said, and an event does not keep how.
	var unusual []byte
	unusualTime := regexp.MustCompile(`"time":("|[0-9]{10}000)`)
	from, to := serve(t, t.TempDir()), serve(t, t.TempDir())
	documented, err := os.ReadFile("translate/testdata/documented.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(documented) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' {
			continue
		}
		if !bytes.Contains(line, []byte(`"object"`)) || unusualTime.Match(line) {
			unusual = append(unusual, line...)
		}
		source := "dev"
		if bytes.Contains(line, []byte(`"event"`)) && !bytes.Contains(line, []byte(`"entry"`)) {
			source = "dev360"
		}
		if code := from.post(source, line); code != http.StatusOK {
			t.Fatalf("answered %d to %s", code, line)
		}
	}
	for i, body := range []string{
		`{"object":"page","entry":[{"id":"1","time":1750000000123,"messaging":[{"sender":{"id":"2"},"recipient":{"id":"1"},"timestamp":1750000000100,"message":{"mid":"m","text":"hi"}},{"sender":{"id":"2"},"recipient":{"id":"1"},"timestamp":1750000000101,"read":{"watermark":5}}],"standby":[{"sender":{"id":"2"},"recipient":{"id":"1"},"timestamp":3,"postback":{"payload":"x"}}],"hop_context":[{"app_id":1}]}]}`,
		`{"object":"user","entry":[{"id":"1","uid":"1","time":1750000000,"changed_fields":["photos","feed"]}]}`,
		`{"object":"user","entry":[{"id":"1","time":1750000000,"field":"photos","value":{"verb":"update","object_id":"9"}}]}`,
		`{"object":"whatsapp_business_account","entry":[{"id":"1","time":1750000001,"changes":[{"field":"account_update","value":{"event":"VERIFIED_ACCOUNT"}}, {"field":"security","value":{"event":"PIN_CHANGED"},"verb":"x"}]}]}`,
		`{"object":"brand_new","entry":[{"id":"1","time":7,"changes":[{"field":"f","value":[1,"a"]}]}]}`,
		`{"object":"brand_new","entry":[{"id":"1","nothing":"known"}, 7]}`,
		`{"object":"brand_new","entry":[]}`,
		`{"neither":"nor"}`,
		`{"app_id":"1","topic":"t","target_id":"3","time":1750000002,"values":{"field":"replies","value":{"id":"8","text":"hi"}}}`,
	} {
		if code := from.post("dev", []byte(body)); code != http.StatusOK {
			t.Fatalf("body %d is answered %d", i, code)
		}
	}
	sent := from.all()
	for _, source := range []string{"dev", "dev360"} {
		forward := exec.CommandContext(t.Context(), tool, "forward", "--server", from.grpc, "--from", "earliest", "--no-follow", "--secret", devSecret,
			"--filter", fmt.Sprintf("event.source == %q", "sources/"+source), "--to", to.webhooks+"/webhooks/"+source)
		if out, err := forward.CombinedOutput(); err != nil {
			t.Fatalf("forward: %v\n%s", err, out)
		}
	}
	byID, byRaw := map[string]*eventrelayv1.Event{}, map[string]*eventrelayv1.Event{}
	for _, event := range to.all() {
		byID[event.GetId()], byRaw[event.GetType()+string(event.GetRaw())] = event, event
	}
	if len(sent) < 100 || len(byID) > len(sent) {
		t.Errorf("%d events are forwarded as %d", len(sent), len(byID))
	}
	for _, want := range sent {
		event := byID[want.GetId()]
		if same := byRaw[want.GetType()+string(want.GetRaw())]; event == nil && same != nil && bytes.Contains(unusual, want.GetRaw()) {
			event, want.Id = same, same.GetId()
		}
		if event == nil {
			t.Errorf("no event has the id of %s made from %.300s", want.GetType(), want.GetRaw())
			continue
		}
		for _, e := range []*eventrelayv1.Event{want, event} {
			e.Cursor, e.Sequence, e.ReceivedAt, e.Context = "", 0, nil, nil
		}
		if !proto.Equal(event, want) {
			t.Errorf("%s\n%s is forwarded as\n%s", want.GetRaw(), strings.TrimSpace(want.String()), event.String())
		}
	}
}
