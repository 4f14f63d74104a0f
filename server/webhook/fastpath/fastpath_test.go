package fastpath_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventrelay/server/webhook/fastpath"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a server of either kind.
type server interface {
	Serve(listener net.Listener) error
	Shutdown(ctx context.Context) error
}

// config is a server of net/http that says nothing.
func config(handler http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve serves on a loopback port until the test ends, and returns the address.
func serve(tb testing.TB, s server) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	serveOn(tb, s, listener)
	return listener.Addr().String()
}

func serveOn(tb testing.TB, s server, listener net.Listener) {
	tb.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			tb.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("serve: %v", err)
		}
	})
}

func TestWhatIsEncryptedIsServedByNetHTTP(t *testing.T) {
	for proto, protocol := range map[string]string{"HTTP/2.0": "h2", "HTTP/1.1": "http/1.1"} {
		// Only for its certificate, and a client that trusts it.
		helper := httptest.NewUnstartedServer(nil)
		helper.EnableHTTP2 = protocol == "h2"
		helper.StartTLS()
		defer helper.Close()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, fastpath.New(config(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil || !r.TLS.HandshakeComplete {
				w.WriteHeader(http.StatusTeapot)
			}
		}), quiet()), tls.NewListener(listener, &tls.Config{Certificates: helper.TLS.Certificates, NextProtos: []string{protocol}}))
		response, err := helper.Client().Post("https://"+listener.Addr().String()+"/a", "application/json", strings.NewReader("1"))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK || response.Proto != proto {
			t.Errorf("%s: answered %s over %s", proto, response.Status, response.Proto)
		}
		helper.Client().CloseIdleConnections()
	}
}

// A sender that has not sent all of its body when it is refused learns why.
func TestAnAnswerThatDoesNotWaitForTheBodyArrives(t *testing.T) {
	address := serve(t, fastpath.New(config(echo), quiet()))
	var client http.Transport
	defer client.CloseIdleConnections()
	body := make([]byte, 8<<20)
	var posting sync.WaitGroup
	for range 5 {
		posting.Go(func() {
			request, err := http.NewRequest(http.MethodPost, "http://"+address+"/unread", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			response, err := client.RoundTrip(request)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if text, err := io.ReadAll(response.Body); response.StatusCode != http.StatusUnauthorized || string(text) != "no\n" || err != nil {
				t.Errorf("answered %s, %q, %v", response.Status, text, err)
			}
		})
	}
	posting.Wait()
}

func TestAPanicIsLoggedAndEndsOneConnectionOnly(t *testing.T) {
	var logged bytes.Buffer
	s := fastpath.New(config(echo), slog.New(slog.NewTextHandler(&logged, nil)))
	address := serve(t, s)
	for _, path := range []string{"/panics", "/aborts"} { // the latter is how a handler gives up
		if got := say(t, address, post(path, "1")); len(got) > 0 {
			t.Errorf("%s is answered %q", path, got)
		}
	}
	if got := say(t, address, post("/a", "1")); len(got) != 1 {
		t.Errorf("then answered %q", got)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := logged.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "on demand") || !strings.Contains(text, "fastpath_test.echo(") {
		t.Errorf("logged %q", text)
	}
}
