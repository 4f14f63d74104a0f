package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
	"eventrelay/server/auth"
)

func TestASignedWebhookIsATypedEventOnTheStreamAndOverREST(t *testing.T) {
	r := serve(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{Filter: `event.message.text.body.contains("hi")`})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the start cursor: from now on nothing is missed
		t.Fatal(err)
	}
	body := text("wamid.1", "hi there")
	if code := r.post("dev", body); code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	var event *eventrelayv1.Event
	for event == nil {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetEvents()) > 0 {
			event = resp.GetEvents()[0]
		}
	}
	if event.GetType() != "meta.whatsapp_business_account.messages.message" || event.GetMessage().GetText().GetBody() != "hi there" ||
		event.GetMessage().GetType() != whatsappv1.MessageType_MESSAGE_TYPE_TEXT || event.GetSource() != "sources/dev" || event.GetEntryId() != "1001" ||
		event.GetProvider() != eventrelayv1.Provider_PROVIDER_META || event.GetContext().GetMetadata().GetPhoneNumberId() != "2002" || event.GetSequence() != 1 ||
		event.GetOccurredAt().GetSeconds() != 1750000000 || len(event.GetUnknownFields()) != 0 {
		t.Errorf("event %v", event)
	}
	if !bytes.Contains(body, event.GetRaw()) || !bytes.HasPrefix(event.GetRaw(), []byte(`{"field":"messages"`)) {
		t.Errorf("raw %s", event.GetRaw())
	}

	for _, path := range []string{"/v1/events/" + event.GetId(), "/v1/events"} {
		code, answer := r.get(path)
		got := &eventrelayv1.Event{}
		if path == "/v1/events" {
			list := &eventrelayv1.ListEventsResponse{}
			if err := protojson.Unmarshal([]byte(answer), list); err != nil || len(list.GetEvents()) != 1 {
				t.Fatalf("%s: %d, %v: %s", path, code, err, answer)
			}
			got = list.GetEvents()[0]
		} else if err := protojson.Unmarshal([]byte(answer), got); err != nil {
			t.Fatalf("%s: %d, %v: %s", path, code, err, answer)
		}
		if code != http.StatusOK || !proto.Equal(got, event) || !strings.Contains(answer, `"phone_number_id"`) {
			t.Errorf("%s: %d %s, want what the stream sent, with the provider's keys", path, code, answer)
		}
	}
	if code, raw := r.get("/v1/events/" + event.GetId() + ":raw"); code != http.StatusOK || raw != string(event.GetRaw()) {
		t.Errorf("raw over REST: %d %q", code, raw)
	}
	if code, answer := r.get("/v1/events/" + strings.Repeat("a", 26) + ":raw"); code != http.StatusNotFound || !strings.HasPrefix(answer, `{"code":5`) || !strings.Contains(answer, "EVENT_NOT_INDEXED") {
		t.Errorf("raw of no event: %d %s", code, answer)
	}
}

func TestReceivingKeepsItsContract(t *testing.T) {
	r := serve(t, t.TempDir(), "--max-body", "100KiB")
	body := text("wamid.1", "hello")
	signed := "sha256=" + sign(devSecret, body)
	for _, c := range []struct {
		what, method, path, contentType, signature string
		body                                       []byte
		want                                       int
	}{
		{"handshake", "GET", "/webhooks/dev?hub.mode=subscribe&hub.verify_token=dev-verify-token&hub.challenge=42", "", "", nil, 200},
		{"handshake with a wrong token", "GET", "/webhooks/dev?hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=42", "", "", nil, 403},
		{"handshake with a wrong mode", "GET", "/webhooks/dev?hub.mode=x&hub.verify_token=dev-verify-token&hub.challenge=42", "", "", nil, 403},
		{"handshake of an unknown source", "GET", "/webhooks/none?hub.mode=subscribe&hub.verify_token=dev-verify-token&hub.challenge=42", "", "", nil, 404},
		{"unsigned", "POST", "/webhooks/dev", "application/json", "", body, 401},
		{"forged", "POST", "/webhooks/dev", "application/json", "sha256=" + sign("another secret", body), body, 401},
		{"not JSON", "POST", "/webhooks/dev", "application/json", "sha256=" + sign(devSecret, []byte("{")), []byte("{"), 400},
		{"not JSON by type", "POST", "/webhooks/dev", "text/plain", signed, body, 415},
		{"oversize", "POST", "/webhooks/dev", "application/json", signed, make([]byte, 101<<10), 413},
		{"unknown source", "POST", "/webhooks/none", "application/json", signed, body, 404},
		{"signed", "POST", "/webhooks/dev", "application/json", signed, body, 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, r.webhooks+c.path, bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		if c.signature != "" {
			req.Header.Set("X-Hub-Signature-256", c.signature)
		}
		if got := r.do(req); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	unknown := []byte(`{"object":"something_new","entry":[{"id":"1","changes":[{"field":"f","value":{"a":[1,{"b":true}]}}]}]}`)
	if code := r.post("dev", unknown); code != http.StatusOK {
		t.Errorf("an unknown object is answered %d", code)
	}
	events := r.all()
	if len(events) != 2 {
		t.Fatalf("%d events stored, want the signed message and the unknown object", len(events))
	}
	if got := events[1].GetUnknown().GetJson().GetFields()["a"].GetListValue().GetValues()[0].GetNumberValue(); events[1].GetObject() != "something_new" || got != 1 {
		t.Errorf("unknown object stored as %v", events[1])
	}
}

func TestEveryAcknowledgedNotificationSurvivesKill9Once(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	var before []*eventrelayv1.Event
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		// Every stop is longer than the log's own window: what tells the records that are read again from new ones is their place.
		r := spawn(t, dir, "--duplicate-window", "100ms")
		// What was there before the kill has the same ids and cursors after it.
		events := r.all()
		if len(events) < len(before) {
			t.Fatalf("round %d: %d events, %d before the kill", round, len(events), len(before))
		}
		for i, e := range before {
			if e.GetId() != events[i].GetId() || e.GetCursor() != events[i].GetCursor() {
				t.Fatalf("round %d: event %d is %s at %s, was %s at %s before the kill", round, i, events[i].GetId(), events[i].GetCursor(), e.GetId(), e.GetCursor())
			}
		}
		before = events

		var writers sync.WaitGroup
		var answers atomic.Int64
		killAfter := 1 + rand.Int64N(60)
		for w := range 4 {
			writers.Go(func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("wamid.%d.%d.%d", round, w, n)
					if r.post("dev", text(id, "hello")) != http.StatusOK {
						return
					}
					mu.Lock()
					acknowledged[id] = true
					mu.Unlock()
					if answers.Add(1) == killAfter { // right after the answer
						r.kill()
					}
				}
			})
		}
		writers.Wait()
	}
	seen := map[string]int{}
	for _, e := range spawn(t, dir).all() {
		seen[e.GetMessage().GetId()]++
	}
	for id := range acknowledged {
		if seen[id] == 0 {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	for id, n := range seen {
		if n > 1 {
			t.Errorf("%s appears %d times", id, n)
		}
	}
	t.Logf("%d acknowledged, %d stored, %d kills", len(acknowledged), len(seen), rounds)
}

func TestARedeliveryIsAcknowledgedAndStoredOnce(t *testing.T) {
	r := serve(t, t.TempDir())
	one, two := text("wamid.1", "one"), text("wamid.2", "two")
	both := []byte(`[` + string(two) + `,` + string(one) + `]`) // the same items, batched differently
	for _, body := range [][]byte{one, two, one, both} {
		if code := r.post("dev", body); code != http.StatusOK {
			t.Fatalf("answered %d", code)
		}
	}
	var got []string
	for _, e := range r.all() {
		got = append(got, e.GetMessage().GetId())
	}
	if !slices.Equal(got, []string{"wamid.1", "wamid.2"}) {
		t.Errorf("stored %v", got)
	}
}

func TestEveryBodyOfTheCorpusIsAcceptedAndYieldsItsItems(t *testing.T) {
	corpus := os.Getenv("EVENTRELAY_CORPUS")
	if corpus == "" {
		t.Skip("EVENTRELAY_CORPUS names no folder with sample bodies")
	}
	files, err := filepath.Glob(filepath.Join(corpus, "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no bodies in %s: %v", corpus, err)
	}
	r := serve(t, t.TempDir())
	var bodies [][]byte
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
		source := "dev"
		if filepath.Base(filepath.Dir(file)) == "dialog360" {
			source = "dev360"
		}
		if code := r.post(source, body); code != http.StatusOK {
			t.Errorf("%s: answered %d", filepath.Base(file), code)
		}
	}
	events := r.all()
	typed := 0
	for _, e := range events {
		if !json.Valid(e.GetRaw()) {
			t.Errorf("%s: raw is not JSON: %.200s", e.GetType(), e.GetRaw())
		}
		if e.GetUnknown() == nil {
			typed++
		}
	}
	if len(events) < len(bodies)-len(bodies)/5 { // some bodies are copies of others
		t.Errorf("%d events of %d bodies", len(events), len(bodies))
	}
	t.Logf("%d bodies, %d events, %d of them typed", len(bodies), len(events), typed)
}

func TestReflectionHealthReadinessMetricsAndOpenAPIAreServed(t *testing.T) {
	r := serve(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	health, err := healthv1.NewHealthClient(r.conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", health, err)
	}
	stream, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, s := range list.GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	for _, want := range []string{"eventrelay.v1.EventService", "eventrelay.v1.SourceService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, want) {
			t.Errorf("reflection lists %v without %s", services, want)
		}
	}
	r.post("dev", text("wamid.1", "hello"))
	r.drained()
	for path, want := range map[string]string{
		"/healthz":      "ok",
		"/readyz":       "ok",
		"/metrics":      "eventrelay_ingest_events_total 1",
		"/openapi.json": `"/v1/events/{id}"`,
		"/v1/sources":   `"webhook_path":"/webhooks/dev360"`,
	} {
		if code, body := r.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d without %q: %.300s", path, code, want, body)
		}
	}
	if _, body := r.get("/v1/sources"); strings.Contains(body, devSecret) || strings.Contains(body, "dev-verify-token") {
		t.Errorf("a secret is shown: %s", body)
	}
}

func TestRESTErrorsCarryCodeReasonAndField(t *testing.T) {
	r := serve(t, t.TempDir())
	r.accept(text("wamid.1", "hello")) // by then it is known which ids there are
	for _, c := range []struct {
		path string
		code int
		want []string
	}{
		{"/v1/events/aaaaaaaaaaaaaaaaaaaaaaaaaa", 404, []string{"EVENT_NOT_INDEXED"}},
		{"/v1/events?filter=event.typ", 400, []string{"FILTER_INVALID", "undefined field", `"field":"filter"`}},
		{"/v1/events?page_size=-1", 400, []string{"INVALID_REQUEST", "page_size"}},
		{"/v1/events?page_token=x", 400, []string{"PAGE_TOKEN_INVALID"}},
		{"/v1/sources/none", 404, []string{"SOURCE_NOT_FOUND", "sources/none"}},
		{"/v1/nothing", 404, nil},
	} {
		code, body := r.get(c.path)
		if code != c.code {
			t.Errorf("%s: %d, want %d: %s", c.path, code, c.code, body)
		}
		for _, want := range c.want {
			if !strings.Contains(strings.ReplaceAll(body, `": "`, `":"`), want) {
				t.Errorf("%s: no %q in %s", c.path, want, body)
			}
		}
	}
}

func TestShutdownEndsStreamsAndANextStartGoesOnFromTheCursor(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, dir)
	stream, err := r.events.Subscribe(t.Context(), &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}})
	if err != nil {
		t.Fatal(err)
	}
	r.post("dev", text("wamid.1", "one"))
	var cursor string
	for seen := 0; seen == 0; {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		seen, cursor = len(resp.GetEvents()), resp.GetCursor()
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 20 {
		r.post("dev", text(fmt.Sprint("wamid.", rand.Int64()), "two"))
	}
	r.stop()
	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}

	r = serve(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: cursor}})
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(2); want <= 21; {
		resp, err := again.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEvents() {
			if e.GetSequence() != want {
				t.Fatalf("event %d, want %d", e.GetSequence(), want)
			}
			want++
		}
	}
}

func TestReadinessSaysWhyWebhooksAreRefused(t *testing.T) {
	s := &server{}
	s.stopping.Store(true)
	if err := s.ready(); err == nil || !strings.Contains(err.Error(), "going down") {
		t.Errorf("ready = %v", err)
	}
	handler := operations(http.NotFoundHandler(), auth.NewGuard(nil, nil, slog.New(slog.DiscardHandler)), prometheus.NewRegistry(), func() error { return errors.New("the journal is full") }, func() uint64 { return 3 })
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "the journal is full") {
		t.Errorf("/readyz = %d %s", w.Code, w.Body)
	}
}

func TestWhatTheSchemaDoesNotKnowIsListedOverRESTAndOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, dir)
	body := bytes.Replace(text("wamid.1", "hi"), []byte(`"type":"text"`), []byte(`"type":"hologram","depth_of_field":{"name":"Ada Lovelace"}`), 1)
	if code := r.post("dev", body); code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	if code := r.post("dev", []byte(`{"object":"brand_new","entry":[{"id":"1","changes":[{"field":"f","value":{"a":"Ada Lovelace"}}]}]}`)); code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	listed := func(r *relay) string {
		for {
			code, answer := r.get("/v1/drift")
			if code != http.StatusOK {
				t.Fatalf("/v1/drift: %d %s", code, answer)
			}
			if strings.Contains(answer, "brand_new") {
				return answer
			}
		}
	}
	answer := listed(r)
	for _, want := range []string{
		`"kind":"DRIFT_KIND_WORD","type":"meta.whatsapp_business_account.messages.message","path":"value.messages[].type","word":"hologram","count":"1"`,
		`"kind":"DRIFT_KIND_PATH","type":"meta.whatsapp_business_account.messages.message","path":"value.messages[].depth_of_field"`,
		`"kind":"DRIFT_KIND_OBJECT","type":"meta.brand_new.f"`,
	} {
		if !strings.Contains(strings.ReplaceAll(answer, " ", ""), want) {
			t.Errorf("%s is not in %s", want, answer)
		}
	}
	if strings.Contains(answer, "Lovelace") {
		t.Errorf("a name is told: %s", answer)
	}
	if code, metrics := r.get("/metrics"); code != http.StatusOK || !strings.Contains(metrics, `eventrelay_drift_total{kind="object",type="unknown"} 1`) {
		t.Errorf("/metrics has no drift: %d", code)
	}
	r.stop()
	if again := listed(serve(t, dir)); again != answer {
		t.Errorf("after a restart %s, want %s", again, answer)
	}
}
