package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// runAs makes the test binary be something else: the server, so that tests can kill it, or one of those that benchmarks talk to.
const runAs = "EVENTRELAY_TEST_RUN_AS"

// roles are what the test binary can be, by the value of runAs.
var roles = map[string]func(){"server": main, "relay": relayRole, "ready": readyRole, "bare": bareRole, "receiver": receiverRole, "fanout": fanoutRole, "nats": natsRole}

// as is the test binary in a role.
func as(role string, args ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], args...)
	command.Env = append(os.Environ(), runAs+"="+role)
	return command
}

func TestMain(m *testing.M) {
	if role := os.Getenv(runAs); role != "" {
		roles[role]()
		return
	}
	goleak.VerifyTestMain(m,
		// A NATS server that is stopped in the moment it creates a stream forgets to stop that stream's store. Those of the tests come and go; the embedded one, which
		// must not leak, is held to it by the tests of eventlog.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// devSecret is what the development sources are signed with.
const devSecret = "dev-app-secret"

// record keeps what several goroutines write, for instance a log.
type record struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// relay is a running server, in this process or in another.
type relay struct {
	t                    testing.TB
	webhooks, http, grpc string
	events               eventrelayv1.EventServiceClient
	conn                 *grpc.ClientConn
	// stop ends it as SIGTERM would; kill ends it as SIGKILL does (another process only).
	stop, kill func()
}

// args are the flags of a server for development on free ports, with its data in dir.
func args(dir string, more ...string) []string {
	return append([]string{
		"--dev", "--data-dir", filepath.Join(dir, "data"), "--webhook-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0",
		"--min-free-bytes", "1MiB", "--secrets-key-file", filepath.Join(dir, "secrets.keys"),
	}, more...)
}

var servingLine = regexp.MustCompile(`msg=serving webhooks=(\S+) http=(\S+) grpc=(\S+)`)

// serve starts a server in this process and waits until it serves.
func serve(t *testing.T, dir string, more ...string) *relay {
	t.Helper()
	return serveTold(t, dir, io.Discard, more...)
}

// serveTold is serve with a copy of all that the server prints, its log included. It must allow writes at once.
func serveTold(t *testing.T, dir string, told io.Writer, more ...string) *relay {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- start(ctx, args(dir, more...), told, io.MultiWriter(told, writer))
		writer.Close()
	}()
	r := connect(t, reader)
	r.stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the server stopped with code %d", code)
		}
		r.conn.Close() // last, so that it is the server that ends the streams
	})
	t.Cleanup(r.stop)
	return r
}

// spawn starts a server in another process and waits until it serves.
func spawn(t testing.TB, dir string, more ...string) *relay {
	t.Helper()
	command := as("server", args(dir, more...)...)
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	end := func(signal os.Signal) func() {
		return sync.OnceFunc(func() {
			command.Process.Signal(signal)
			command.Wait()
		})
	}
	kill, stop := end(syscall.SIGKILL), end(syscall.SIGTERM)
	t.Cleanup(kill)
	r := connect(t, stderr)
	t.Cleanup(func() { r.conn.Close() })
	r.kill, r.stop = kill, stop
	return r
}

// connect reads the log of a server until it says where it serves. The rest of the log is read and thrown away.
func connect(t testing.TB, log io.Reader) *relay {
	t.Helper()
	var seen strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		at := servingLine.FindStringSubmatch(lines.Text())
		if at == nil {
			continue
		}
		go io.Copy(io.Discard, log)
		conn, err := grpc.NewClient(at[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		return &relay{t: t, webhooks: "http://" + at[1], http: "http://" + at[2], grpc: at[3], conn: conn, events: eventrelayv1.NewEventServiceClient(conn)}
	}
	t.Fatalf("the server does not serve:\n%s", seen.String())
	return nil
}

func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// post posts a body to a development source, signed as its provider does, and returns the status; 0 if there was no answer.
func (r *relay) post(source string, body []byte) int {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.webhooks+"/webhooks/"+source, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if source == "dev360" {
		req.Header.Set("X-360dialog-Signature", sign(devSecret, body))
	} else {
		req.Header.Set("X-Hub-Signature-256", "sha256="+sign(devSecret, body))
	}
	return r.do(req)
}

func (r *relay) do(req *http.Request) int {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// get fetches a path of the management port.
func (r *relay) get(path string) (int, string) {
	r.t.Helper()
	resp, err := http.Get(r.http + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// drained waits until the log has every acknowledged notification.
func (r *relay) drained() {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, metrics := r.get("/metrics"); strings.Contains(metrics, "\neventrelay_ingest_lag_records 0\n") {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("not drained within 30 s")
		}
	}
}

// all returns every event that the log holds, by Subscribe from the earliest.
func (r *relay) all() (events []*eventrelayv1.Event) {
	r.t.Helper()
	r.drained()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_StartFrom{StartFrom: eventrelayv1.StartFrom_START_FROM_EARLIEST}})
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		events = append(events, resp.GetEvents()...)
		if resp.GetBacklog() == 0 {
			return events
		}
	}
}

// text is the body of a webhook with one text message.
func text(id, body string) []byte {
	return fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"1001","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",`+
		`"metadata":{"display_phone_number":"15550001111","phone_number_id":"2002"},"contacts":[{"profile":{"name":"A Name"},"wa_id":"4915550002222"}],`+
		`"messages":[{"from":"4915550002222","id":%q,"timestamp":"1750000000","type":"text","text":{"body":%q}}]}}]}]}`, id, body)
}
