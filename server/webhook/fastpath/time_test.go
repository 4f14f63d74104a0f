package fastpath_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventrelay/server/webhook/fastpath"
)

// pipes is a listener whose connections are in memory, for a clock that a test holds.
type pipes struct {
	accepted chan any // a net.Conn or an error
	closed   chan struct{}
}

func newPipes() *pipes { return &pipes{accepted: make(chan any), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case a := <-p.accepted:
		if err, failed := a.(error); failed {
			return nil, err
		}
		return a.(net.Conn), nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.accepted <- theirs
	return ours
}

// ends returns what comes before the server closes the connection, and how long that takes.
func ends(t *testing.T, c net.Conn) (string, time.Duration) {
	t.Helper()
	begun := time.Now()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(text), time.Since(begun)
}

func TestWhoSaysNothingIsCutOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		serveOn(t, fastpath.New(config(echo), quiet()), p)

		if text, took := ends(t, p.dial()); text != "" || took != 5*time.Second {
			t.Errorf("nothing at all: %q after %v", text, took)
		}

		hello := p.dial() // of TLS, in which net/http sees at the first end of a line that it is no HTTP
		go io.WriteString(hello, "\x16\x03\x01\n")
		if text, took := ends(t, hello); !strings.HasPrefix(text, "HTTP/1.1 400 ") || took != 0 {
			t.Errorf("what will never be a request: %q after %v", text, took)
		}

		c := p.dial()
		_, _ = io.WriteString(c, post("/nothing", "1"))
		answerOn(t, bufio.NewReader(c))
		if text, took := ends(t, c); text != "" || took != 2*time.Minute {
			t.Errorf("after a request: %q after %v", text, took)
		}

		slow := p.dial()
		go func() {
			for _, letter := range post("/nothing", "1") {
				time.Sleep(time.Second)
				if _, err := io.WriteString(slow, string(letter)); err != nil {
					return
				}
			}
		}()
		if text, took := ends(t, slow); text != "" || took != 6*time.Second {
			t.Errorf("a head by the letter: %q after %v", text, took)
		}

		c = p.dial()
		_, _ = io.WriteString(c, strings.TrimSuffix(post("/a", "12"), "2"))
		if text, took := ends(t, c); !strings.Contains(text, "timeout") || took != 30*time.Second {
			t.Errorf("half a body: %q after %v", text, took)
		}

		c = p.dial()
		_, _ = io.WriteString(c, post("/a", "1"))
		time.Sleep(2 * time.Minute)
		if text, err := io.ReadAll(c); len(text) > 0 || err != nil {
			t.Errorf("an answer that nobody takes is still there after two minutes: %q, %v", text, err)
		}
	})
}

func answerOn(t *testing.T, reader *bufio.Reader) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func TestShutdownEndsWhatIsIdleAndAnswersTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan struct{})
		s := fastpath.New(config(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			entered <- struct{}{}
			<-leave
		}), quiet())
		p, served := newPipes(), make(chan error, 1)
		go func() { served <- s.Serve(p) }()
		fresh, begun, kept, busy := p.dial(), p.dial(), p.dial(), p.dial()
		go io.WriteString(begun, "POST /a HT")
		go io.WriteString(kept, post("/a", ""))
		<-entered
		leave <- struct{}{}
		answerOn(t, bufio.NewReader(kept))
		go io.WriteString(busy, post("/a", "1")+post("/b", "2"))
		<-entered
		synctest.Wait()

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a request that is not answered: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		for name, c := range map[string]net.Conn{"without a request": fresh, "in a head": begun, "after a request": kept} {
			if text, took := ends(t, c); text != "" || took != 0 {
				t.Errorf("%s: %q after %v", name, text, took)
			}
		}

		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		leave <- struct{}{}
		reader := bufio.NewReader(busy)
		if got := answerOn(t, reader); got.StatusCode != http.StatusOK || !got.Close {
			t.Errorf("answered %s, last %v", got.Status, got.Close)
		}
		if more, _ := io.ReadAll(reader); len(more) > 0 {
			t.Errorf("then %q", more)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

// late is a listener that has accepted one more connection when it is closed.
type late struct {
	*pipes

	last chan net.Conn
}

func (l late) Accept() (net.Conn, error) {
	<-l.closed
	select {
	case c := <-l.last:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func TestAConnectionThatComesDuringTheShutdownIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		l := late{newPipes(), make(chan net.Conn, 1)}
		l.last <- theirs
		s, served := fastpath.New(config(echo), quiet()), make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		synctest.Wait()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
		if text, took := ends(t, ours); text != "" || took != 0 {
			t.Errorf("%q after %v", text, took)
		}
	})
}

// passing is an error of a listener that passes, as that of a process that has no more files.
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func TestErrorsOfTheListenerAreMetAsByNetHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p, served := fastpath.New(config(echo), quiet()), newPipes(), make(chan error, 1)
		go func() { served <- s.Serve(p) }()
		for range 3 {
			p.accepted <- passing{errors.New("too many files")}
		}
		c := p.dial()
		go io.WriteString(c, post("/nothing", ""))
		answerOn(t, bufio.NewReader(c))
		go io.WriteString(c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n") // for which net/http must accept still
		answerOn(t, bufio.NewReader(c))
		broken := errors.New("the network is gone")
		p.accepted <- broken
		if err := <-served; !errors.Is(err, broken) {
			t.Errorf("served until %v", err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
