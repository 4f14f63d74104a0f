// Package fastpath serves plain requests on a path of its own and leaves all others to net/http.
//
// Nearly every request of a provider is alike: a POST on a kept connection, with a short head and a declared length. net/http does more around such a request than the handler
// does in it. Above all it listens for the sender to hang up while the handler runs, in a second goroutine, and when the handler waits for a disk the two wake each other and
// the threads below them: a sixth of the time of an answer, and a third of the processors'.
//
// What is plain is decided by the head alone, and narrowly (see parse). At the first request that is not plain the connection is handed over to net/http, with every byte that
// was read, and stays there: whatever is unusual, large, slow, malformed or encrypted is judged by net/http and by nothing else. The handler cannot tell which of the two calls
// it, but for what the Server says.
package fastpath

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is an http.Server with the fast path in front. Its methods may be called by any number of goroutines at once.
//
// On the fast path the context of a request does not end when the sender hangs up, an answer is sent when the handler returns, the ResponseWriter is nothing but that, and a body
// that the handler leaves unread ends the connection.
type Server struct {
	http   *http.Server
	logger *slog.Logger

	mu      sync.Mutex // guards conns, and that closing begins
	conns   map[*conn]struct{}
	closing atomic.Bool
	serving sync.WaitGroup // a conn each; none is added once closing has begun
}

// New returns a server with the handler and the timeouts of s, which serves what is not plain. The logger gets the panics of the handler on the fast path.
func New(s *http.Server, logger *slog.Logger) *Server {
	return &Server{http: s, logger: logger, conns: make(map[*conn]struct{})}
}

// Serve accepts connections until Shutdown is called, and then returns http.ErrServerClosed at once, or until the listener fails. The listener is closed when it returns.
// Shutdown says when the last request is answered.
func (s *Server) Serve(listener net.Listener) error {
	rest := &rest{Listener: listener, handed: make(chan accepted), done: make(chan struct{})}
	var accepting sync.WaitGroup
	accepting.Go(func() { s.accept(rest) })
	err := s.http.Serve(rest)
	_ = rest.Close() // net/http has done so, but does not say it would
	accepting.Wait()
	return err
}

// accept starts a conn for each connection. What is encrypted is net/http's from the beginning, for it makes the handshake and speaks HTTP/2.
func (s *Server) accept(rest *rest) {
	for {
		c, err := rest.Listener.Accept()
		if _, encrypted := c.(*tls.Conn); err != nil || encrypted {
			// An error of the listener is net/http's as well: it knows which of them pass, and waits.
			if !rest.hand(accepted{c, err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if !s.start(newConn(c, s, rest)) {
			_ = c.Close() // there is nobody to tell
		}
	}
}

// start serves a connection on the fast path, unless the server is closing.
func (s *Server) start(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	s.serving.Go(func() {
		c.serve()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
	return true
}

// Shutdown closes the listener and what is idle, and returns when every request that has begun is answered, or the error of ctx when that ends first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing.Store(true)
	for c := range s.conns {
		c.closeIdle()
	}
	s.mu.Unlock()
	if err := s.http.Shutdown(ctx); err != nil {
		return err
	}
	answered := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(answered)
	}()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// headTimeout is how long a head may take from its first byte on, and the first one of a connection from the beginning.
func (s *Server) headTimeout() time.Duration {
	if s.http.ReadHeaderTimeout > 0 {
		return s.http.ReadHeaderTimeout
	}
	return s.http.ReadTimeout
}

// idleTimeout is how long a connection may be without a request.
func (s *Server) idleTimeout() time.Duration {
	if s.http.IdleTimeout > 0 {
		return s.http.IdleTimeout
	}
	return s.http.ReadTimeout
}

// rest is the listener of net/http: it accepts what the fast path hands over.
type rest struct {
	net.Listener

	handed chan accepted
	once   sync.Once
	done   chan struct{} // closed by Close
}

type accepted struct {
	conn net.Conn
	err  error
}

// hand hands a connection or an error over, or reports false because nobody accepts any more; the connection is closed then.
func (r *rest) hand(a accepted) bool {
	select {
	case r.handed <- a:
		return true
	case <-r.done:
		if a.conn != nil {
			_ = a.conn.Close() // there is nobody to tell
		}
		return false
	}
}

func (r *rest) Accept() (net.Conn, error) {
	select {
	case a := <-r.handed:
		return a.conn, a.err
	case <-r.done:
		return nil, net.ErrClosed
	}
}

func (r *rest) Close() (err error) {
	r.once.Do(func() {
		close(r.done)
		err = r.Listener.Close()
	})
	return err
}
