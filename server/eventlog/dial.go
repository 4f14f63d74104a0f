package eventlog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// minPayload is the smallest max_payload of a server that can hold what a webhook of a few MiB becomes.
	minPayload = 16 << 20

	// pingInterval makes a connection to a dead host known within half a minute.
	pingInterval = 10 * time.Second
)

// wire opens the sockets of one link, and closes them under the client library's feet: a write to a peer that takes nothing blocks there, and holds a lock that closing a
// connection in order needs as well.
type wire struct {
	ctx context.Context // ends the dialing

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	gone  bool
}

// Dial opens a socket. It is how the client library dials; a host of several addresses is resolved here, within the same time.
func (w *wire) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: callTimeout}).DialContext(w.ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		_ = conn.Close() // nothing was sent
		return nil, net.ErrClosed
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

// cut closes all sockets, now and for good. What was handed to the operating system before is still sent.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	for _, conn := range w.conns {
		_ = conn.Close() // the connection's own reader meets the error
	}
	w.conns = nil
}

// cutAfter cuts when ctx has ended and d has passed, unless the function it returns was called before.
func (w *wire) cutAfter(ctx context.Context, d time.Duration) (done func()) {
	finished := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-finished:
		case <-time.After(d):
			w.cut()
		}
	})
	return func() {
		stop()
		close(finished)
	}
}

// dial opens one connection. It does not reconnect by itself: its end is the end of the link, and the next link dials anew.
func (l *Log) dial(ctx context.Context, k *link) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("eventrelay"),
		nats.NoReconnect(),
		nats.Timeout(callTimeout),
		nats.FlusherTimeout(ackTimeout), // a peer that takes nothing for so long would not answer in time either
		nats.PingInterval(pingInterval),
		nats.ClosedHandler(func(*nats.Conn) { l.fault(k, errors.New("connection lost")) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Debug("nats connection", "error", err)
			if errors.Is(err, nats.ErrPermissionViolation) {
				k.deny(err) // the request that met it is not answered
			}
		}),
	}
	if k.srv != nil {
		opts = append(opts, nats.InProcessServer(k.srv))
	} else {
		opts = append(opts, nats.SetCustomDialer(k.wire), nats.SkipHostLookup())
	}
	if d, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(max(time.Millisecond, min(callTimeout, time.Until(d)))))
	}
	stop := context.AfterFunc(ctx, k.wire.cut) // a server that accepts and says nothing is not waited for after ctx has ended
	defer stop()
	nc, err := nats.Connect(l.opts.URL, opts...)
	switch {
	case err == nil:
		return nc, nil
	case refusesConnection(err):
		return nil, fmt.Errorf("%w: connect: %w", ErrRefused, err)
	}
	return nil, fmt.Errorf("%w: connect: %w", ErrUnavailable, err)
}

// refusesConnection tells whether a server was there and turned us away for who we are, or for how we came.
func refusesConnection(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted} {
		if errors.Is(err, e) {
			return true
		}
	}
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate)
}

// checkServer refuses, by name, a server that lacks what this package needs.
func checkServer(nc *nats.Conn) error {
	var major, minor int
	v := nc.ConnectedServerVersion()
	if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err != nil || major < 2 || major == 2 && minor < 12 {
		return fmt.Errorf("%w: nats-server %s is too old, 2.12 or newer is needed", ErrUnsupported, v)
	}
	if nc.MaxPayload() < minPayload {
		return fmt.Errorf("%w: its max_payload is %d, at least %d (16MB) is needed", ErrUnsupported, nc.MaxPayload(), minPayload)
	}
	return nil
}

// hosts returns the servers that a URL names, separated by commas, without user, password or token. What is no URL of a server is an error, which does not quote it: it may
// hold a password.
func hosts(servers string) (string, error) {
	var names []string
	for i, s := range strings.Split(servers, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s // as the client library reads it
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return "", fmt.Errorf("server %d of the URL does not read like nats://host:4222; in a name or a password, %%, /, ?, #, @ and a comma are written %%25, %%2F, %%3F, %%23, %%40 and %%2C", i+1)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", fmt.Errorf("server %d of the URL has the scheme %q: nats, tls, ws and wss are known", i+1, u.Scheme)
		}
		names = append(names, u.Host)
	}
	return strings.Join(names, ","), nil
}
