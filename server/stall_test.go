package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog/natstest"
)

// answered posts a message and returns the answer's status and Retry-After.
func (r *relay) answered(id, body string) (code int, retryAfter string) {
	r.t.Helper()
	signed := text(id, body)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.webhooks+"/webhooks/dev", strings.NewReader(string(signed)))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+sign(devSecret, signed))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// accepts waits until webhooks are answered 200 again, with messages that are numbered from first on, and returns the number of the one that was.
func (r *relay) accepts(name string, first int) int {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); first++ {
		if code, _ := r.answered(fmt.Sprintf("wamid.%s.%d", name, first), "again"); code == http.StatusOK {
			return first
		}
	}
	r.t.Fatal("webhooks are not accepted again within a minute")
	return 0
}

func TestAFullJournalIsAnswered503UntilTheLogGoesOnAndLosesNothing(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start()
	proxy := natstest.NewProxy(t, nats.Address())
	r := serve(t, t.TempDir(), "--nats-url", proxy.URL(), "--journal-max-bytes", "256KiB")
	r.receive("a", 1, 10)
	r.drained()
	proxy.Stall()
	padding := strings.Repeat("x", 10<<10)
	accepted := 0
	for {
		code, retryAfter := r.answered(fmt.Sprintf("wamid.b.%d", accepted+1), padding)
		if code == http.StatusOK {
			accepted++
			continue
		}
		if code != http.StatusServiceUnavailable || retryAfter == "" {
			t.Errorf("a full journal is answered %d with Retry-After %q", code, retryAfter)
		}
		break
	}
	if accepted < 15 || accepted > 30 {
		t.Errorf("%d notifications of 10 KiB fit into a journal of 256 KiB", accepted)
	}
	if code, said := r.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(said, "full") {
		t.Errorf("/readyz: %d %s", code, said)
	}
	proxy.Resume()
	last := r.accepts("c", 1)
	events := r.all()
	wantMessages(t, events, "a", 10)
	wantMessages(t, events, "b", accepted)
	if got, want := len(events), 10+accepted+1; got != want {
		t.Errorf("%d events, want %d: those that were answered 200, the last of them c.%d", got, want, last)
	}
	if code, said := r.get("/readyz"); code != http.StatusOK || said != "ok\n" {
		t.Errorf("/readyz: %d %s", code, said)
	}
}

func TestADiskThatIsNearlyFullIsAnswered503BeforeAnythingIsStored(t *testing.T) {
	r := serve(t, t.TempDir(), "--min-free-bytes", "1EiB")
	if code, retryAfter := r.answered("wamid.1", "hello"); code != http.StatusServiceUnavailable || retryAfter == "" {
		t.Errorf("answered %d with Retry-After %q", code, retryAfter)
	}
	if events := r.all(); len(events) > 0 {
		t.Errorf("%d events of a notification that was refused", len(events))
	}
	if code, said := r.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(said, "free") {
		t.Errorf("/readyz: %d %s", code, said)
	}
}

// Where the log's next block belongs is a folder, so the embedded server meets a write error, and stores nothing more until it is restarted inside the process.
func TestAWriteErrorOfTheLogIsOvercomeByItselfAndDelaysNoWebhook(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, dir, "--max-body", "2MiB")
	trap := filepath.Join(dir, "data", filepath.FromSlash(blocks), "2.blk")
	r.receive("a", 1, 1)
	r.drained()
	if err := os.Mkdir(trap, 0o700); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 1<<20)
	for n := range 20 { // more than a block holds
		if code, _ := r.answered(fmt.Sprintf("wamid.b.%d", n+1), large); code != http.StatusOK {
			t.Fatalf("message %d is answered %d", n+1, code)
		}
	}
	r.failures()
	r.receive("c", 1, 10)
	if code, said := r.get("/readyz"); code != http.StatusOK || !strings.Contains(said, "notifications behind") {
		t.Errorf("/readyz: %d %s", code, said)
	}
	// Only while it is the trap: a log that was recovered before this has a block of that name.
	if err := syscall.Rmdir(trap); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	events := r.all()
	wantMessages(t, events, "b", 20)
	wantMessages(t, events, "c", 10)
	if len(events) != 31 {
		t.Errorf("%d events of 31 messages", len(events))
	}
}

// failures waits until a step into the log has failed.
func (r *relay) failures() {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\neventrelay_ingest_failures_total 0\n") {
			return
		}
	}
	r.t.Fatal("no step has failed within a minute")
}

func TestAThousandReadersThatStandStillDelayNoWebhookAndNoLog(t *testing.T) {
	readers := 1000
	if testing.Short() {
		readers = 50
	}
	r := serve(t, t.TempDir())
	large := strings.Repeat("x", 100<<10)
	post := func(name string, messages int) time.Duration {
		t.Helper()
		var took []time.Duration
		for n := range messages {
			begun := time.Now()
			if code, _ := r.answered(fmt.Sprintf("wamid.%s.%d", name, n+1), large); code != http.StatusOK {
				t.Fatalf("message %d is answered %d", n+1, code)
			}
			took = append(took, time.Since(begun))
		}
		return percentile(took, .5)
	}
	before := post("before", 50)
	r.drained()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Windows that grow would take in megabytes for each of them, which is no standing still.
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range readers {
		stream, err := eventrelayv1.NewEventServiceClient(conn).Subscribe(ctx, &eventrelayv1.SubscribeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil { // the start cursor, and nothing after it
			t.Fatal(err)
		}
	}
	post("a", 100) // what waits for a reader is soon more than a connection holds
	r.drained()
	// An answer that waited for a reader would take for ever. Twice and a little is the noise of a machine with other work.
	if after := post("b", 50); after > 2*before+10*time.Millisecond {
		t.Errorf("answers take %s, and took %s when there was no reader", after, before)
	}
	r.drained()
}

func TestAnAnswerAfterTheLogMeansThatTheLogHasTheEvents(t *testing.T) {
	nats := natstest.NewServer(t)
	nats.Start()
	proxy := natstest.NewProxy(t, nats.Address())
	r := serve(t, t.TempDir(), "--nats-url", proxy.URL(), "--ack-after", "log")
	for n := range 20 {
		r.receive("a", n+1, 1)
		if _, said := r.get("/readyz"); said != "ok\n" {
			t.Fatalf("after the answer to message %d the log is behind: %s", n+1, said)
		}
	}
	proxy.Stall()
	code, retryAfter := r.answered("wamid.b.1", "while the log is stalled")
	if code != http.StatusServiceUnavailable || retryAfter == "" {
		t.Errorf("while the log is stalled: %d with Retry-After %q", code, retryAfter)
	}
	proxy.Resume()
	for deadline := time.Now().Add(time.Minute); ; { // as the provider repeats it
		if code, _ := r.answered("wamid.b.1", "while the log is stalled"); code == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy is not accepted within a minute")
		}
	}
	events := r.all()
	wantMessages(t, events, "a", 20)
	wantMessages(t, events, "b", 1)
}
