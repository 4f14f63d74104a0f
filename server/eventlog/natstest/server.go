// Package natstest gives tests a real NATS server with JetStream that comes and goes as the test says, and a line to it that can be stalled and cut.
package natstest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options are those of a NATS server.
type Options = server.Options

// Server is a NATS server with JetStream on a loopback port of its own. What it stores outlives a stop. It is used by one goroutine at a time.
type Server struct {
	tb      testing.TB
	address string
	dir     string
	running *server.Server
}

// NewServer returns a server that does not run yet, but has its address. It is stopped when the test ends.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	listener := listen(tb)
	defer listener.Close() //nolint:errcheck // it was only asked for a free port
	s := &Server{tb: tb, address: listener.Addr().String(), dir: tb.TempDir()}
	tb.Cleanup(s.Stop)
	return s
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return listener
}

// Address is the host and the port of the server, the same at each start.
func (s *Server) Address() string { return s.address }

// URL is the address as --nats-url wants it.
func (s *Server) URL() string { return "nats://" + s.address }

// Start runs the server and returns when it can be connected to. Each change is made to its options first.
func (s *Server) Start(changes ...func(*Options)) {
	s.tb.Helper()
	address, err := net.ResolveTCPAddr("tcp", s.address)
	if err != nil {
		s.tb.Fatal(err)
	}
	o := &Options{
		ServerName: "natstest", Host: "127.0.0.1", Port: address.Port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: s.dir, SyncAlways: true,
		MaxPayload: 32 << 20, MaxPending: 1 << 30,
	}
	for _, change := range changes {
		change(o)
	}
	if s.running, err = server.NewServer(o); err != nil {
		s.tb.Fatal(err)
	}
	s.running.Start()
	if !s.running.ReadyForConnections(10 * time.Second) {
		s.tb.Fatal("the NATS server does not come up")
	}
}

// Stop ends the server and all its connections, and returns when it is down. It does nothing if it does not run.
func (s *Server) Stop() {
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}

// Proxy forwards connections to an address. All methods may be called at once.
type Proxy struct {
	target   string
	listener net.Listener
	done     chan struct{}
	running  sync.WaitGroup

	mu    sync.Mutex    // guards what follows
	flows chan struct{} // closed while bytes are forwarded
	conns map[net.Conn]struct{}
}

// NewProxy returns a proxy to an address. It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := &Proxy{target: target, listener: listen(tb), done: make(chan struct{}), flows: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.flows)
	p.running.Go(p.accept)
	tb.Cleanup(func() {
		close(p.done)
		_ = p.listener.Close() // ends accept
		p.Cut()
		p.running.Wait()
	})
	return p
}

// URL is the address of the proxy as --nats-url wants it.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Stall forwards nothing any more, in either direction, while connections stay open and new ones are accepted: as a host that hangs, or a network that drops what it is
// given.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows = make(chan struct{})
}

// Resume forwards again, first of all what waited.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.flows)
}

// Cut closes the connections that are open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close() // which ends its pipes
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", p.target)
		if err != nil {
			_ = near.Close() // nobody is there
			continue
		}
		p.mu.Lock()
		p.conns[near], p.conns[far] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.running.Go(func() { p.pipe(near, far) })
		p.running.Go(func() { p.pipe(far, near) })
	}
}

// pipe forwards until an end is closed, and then closes the other.
func (p *Proxy) pipe(to, from net.Conn) {
	defer to.Close()   //nolint:errcheck // the other pipe may have been faster
	defer from.Close() //nolint:errcheck // the same
	for buffer := make([]byte, 32<<10); ; {
		n, err := from.Read(buffer)
		p.mu.Lock()
		flows := p.flows
		p.mu.Unlock()
		select {
		case <-flows:
		case <-p.done:
			return
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}
