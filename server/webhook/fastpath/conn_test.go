package fastpath

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAConnectionThatIsGoneIsForgotten(t *testing.T) {
	s := New(&http.Server{Handler: http.NotFoundHandler()}, slog.New(slog.DiscardHandler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	for _, text := range []string{"", "POST ", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"} {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	held := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns)
	}
	for deadline := time.Now().Add(10 * time.Second); held() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are held", held())
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestAConnectionThatTheShutdownHasClosedIsNotHandedOver(t *testing.T) {
	_, theirs := net.Pipe()
	r := &rest{handed: make(chan accepted, 1)}
	c := newConn(theirs, New(&http.Server{}, slog.New(slog.DiscardHandler)), r)
	c.closeIdle()
	c.handOver()
	if len(r.handed) > 0 {
		t.Error("net/http gets a connection that is closed")
	}
}

// hooked is a connection that has something happen before it writes.
type hooked struct {
	net.Conn

	before func()
}

func (h hooked) Write(p []byte) (int, error) {
	h.before()
	return h.Conn.Write(p)
}

func TestAShutdownThatBeginsWhileAnAnswerIsSentDoesNotWaitForAnotherRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(&http.Server{Handler: http.NotFoundHandler(), IdleTimeout: time.Hour}, slog.New(slog.DiscardHandler))
		ours, theirs := net.Pipe()
		down := make(chan error, 1)
		c := newConn(hooked{theirs, func() {
			go func() { down <- s.Shutdown(t.Context()) }()
			synctest.Wait() // until it waits for this connection
		}}, s, &rest{})
		if !s.start(c) {
			t.Fatal("not started")
		}
		begun := time.Now()
		go io.WriteString(ours, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if text, err := io.ReadAll(ours); !strings.HasPrefix(string(text), "HTTP/1.1 404 ") || err != nil {
			t.Errorf("answered %q, %v", text, err)
		}
		if err := <-down; err != nil || time.Since(begun) > 0 {
			t.Errorf("shut down after %v, %v", time.Since(begun), err)
		}
	})
}

func TestTheDateIsThatOfGreenwich(t *testing.T) {
	var out bytes.Buffer
	new(response).write(&out, time.Date(2026, 11, 22, 1, 30, 0, 0, time.FixedZone("", 2*3600)), false)
	if text := out.String(); !strings.Contains(text, "\r\nDate: Sat, 21 Nov 2026 23:30:00 GMT\r\n") {
		t.Errorf("%q", text)
	}
}
