package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// headSize is the most that a plain head may have, in bytes; a provider's has a fraction of it. net/http takes as much in any case.
	headSize = 4 << 10

	// lingerTime is how long a connection stays open behind an answer that did not wait for the rest of a body, as in net/http; so many bytes of that are taken in.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// leading is how many bytes must have come behind an answer before they are taken for a request, and how many of them may be empty lines: some senders put one behind a body,
// and do not count it in the length. It is as in net/http.
const leading = 4

// What a conn is doing: waiting for a request, answering one, or nothing any more, because it is closed or handed over.
const (
	idle int32 = iota
	answering
	gone
)

// conn is a connection on the fast path. Its methods are called by the goroutine that serves it, but for closeIdle, which may be called by any.
type conn struct {
	net.Conn

	server *Server
	rest   *rest
	remote string
	state  atomic.Int32

	buffer   [headSize]byte
	from, to int  // what of the buffer has come and is not yet taken
	answered bool // at least one request
	out      bytes.Buffer
}

func newConn(c net.Conn, s *Server, rest *rest) *conn {
	return &conn{Conn: c, server: s, rest: rest, remote: c.RemoteAddr().String()}
}

// serve answers requests until the connection ends or one is not plain.
func (c *conn) serve() {
	for {
		head, err := c.readHead()
		if err != nil {
			break
		}
		r, plain := parse(head)
		if !plain {
			c.handOver()
			return
		}
		c.from += len(head)
		if !c.state.CompareAndSwap(idle, answering) || !c.answer(r) {
			break
		}
		c.answered = true
		c.state.Store(idle)
		if c.server.closing.Load() { // after which closeIdle does not come any more
			break
		}
	}
	_ = c.Close() // there is nobody to tell
}

// closeIdle closes the connection if it waits for a request. If it does not, it is closed after the answer, for the server is closing.
func (c *conn) closeIdle() {
	if c.state.CompareAndSwap(idle, gone) {
		_ = c.Close() // there is nobody to tell
	}
}

// readHead waits for a head and returns it, as it lies in the buffer; it has not been taken then. What it returns has no empty line at its end if the head is too long, is cut off,
// or does not begin like a plain one.
func (c *conn) readHead() ([]byte, error) {
	c.to, c.from = copy(c.buffer[:], c.buffer[c.from:c.to]), 0
	begun, patience := 1, c.server.headTimeout()
	if c.answered {
		begun, patience = leading, c.server.idleTimeout()
	}
	for deadline := after(patience); c.to < begun; {
		if err := c.fill(deadline); err != nil {
			return nil, err
		}
	}
	for c.answered && c.from < leading && (c.buffer[c.from] == '\r' || c.buffer[c.from] == '\n') {
		c.from++
	}
	deadline := after(c.server.headTimeout())
	for {
		head := c.buffer[c.from:c.to]
		if n := bytes.Index(head, endOfHead); n >= 0 {
			return head[:n+len(endOfHead)], nil
		}
		if c.to == len(c.buffer) || !mayBePlain(head) {
			return head, nil
		}
		if err := c.fill(deadline); err != nil {
			if errors.Is(err, io.EOF) && len(head) > 0 {
				return head, nil
			}
			return nil, err
		}
	}
}

// fill reads into what is left of the buffer.
func (c *conn) fill(deadline time.Time) error {
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	n, err := c.Read(c.buffer[c.to:])
	if c.to += n; n > 0 {
		return nil
	}
	return err
}

// after returns the time after d, or none if there is no limit.
func after(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// handOver leaves the connection to net/http.
func (c *conn) handOver() {
	if !c.state.CompareAndSwap(idle, gone) {
		return // the server is closing
	}
	_ = c.SetReadDeadline(time.Time{}) // net/http sets its own, and meets what is wrong with the connection
	c.rest.hand(accepted{conn: &handed{Conn: c.Conn, read: bytes.Clone(c.buffer[c.from:c.to])}})
}

// handed is a connection of which something has been read.
type handed struct {
	net.Conn

	read []byte
}

func (h *handed) Read(p []byte) (int, error) {
	if len(h.read) == 0 {
		return h.Conn.Read(p)
	}
	n := copy(p, h.read)
	h.read = h.read[n:]
	return n, nil
}

// CloseWrite lets net/http end a connection as it does one of its own.
func (h *handed) CloseWrite() error { return closeWrite(h.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// answer has the request handled and sends the answer. It reports whether the connection is of more use.
func (c *conn) answer(r *http.Request) bool {
	rest := &body{conn: c, left: r.ContentLength}
	r.Body, r.RemoteAddr = rest, c.remote
	if r.ContentLength == 0 {
		r.Body = http.NoBody
	}
	if rest.left > int64(c.to-c.from) {
		if err := c.SetReadDeadline(after(c.server.http.ReadTimeout)); err != nil {
			return false
		}
	}
	var w response
	if !c.handle(&w, r) {
		return false
	}
	last := rest.left > 0 || w.header.Get("Connection") == "close" || c.server.closing.Load()
	c.out.Reset()
	w.write(&c.out, time.Now(), last)
	if err := c.SetWriteDeadline(after(c.server.http.WriteTimeout)); err != nil {
		return false
	}
	if _, err := c.Write(c.out.Bytes()); err != nil {
		return false
	}
	if rest.left > 0 {
		c.linger()
	}
	return !last
}

// linger gives the sender time to read the answer. To close a connection that has something unread resets it, and what was on its way may be lost.
func (c *conn) linger() {
	deadline := after(lingerTime)
	if closeWrite(c.Conn) != nil || c.SetReadDeadline(deadline) != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, c.Conn, lingerBytes); err == nil {
		time.Sleep(time.Until(deadline)) // with a sender that goes on and on
	}
}

// handle calls the handler. It reports false if that panics: then the connection ends without an answer, and nothing else does.
func (c *conn) handle(w http.ResponseWriter, r *http.Request) (ok bool) {
	defer func() {
		if cause := recover(); cause != nil && cause != http.ErrAbortHandler { //nolint:errorlint // it is that value which is panicked with
			c.server.logger.Error("the handler panicked", slog.String("remote", c.remote), slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
		}
	}()
	c.server.http.Handler.ServeHTTP(w, r)
	return true
}

// body is what follows a head, as far as it is declared.
type body struct {
	conn *conn
	left int64
}

// Read returns io.EOF with the last byte. A body that ends early is io.ErrUnexpectedEOF.
func (b *body) Read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.left)]
	if c := b.conn; c.from < c.to {
		n = copy(p, c.buffer[c.from:c.to])
		c.from += n
	} else {
		n, err = c.Read(p)
	}
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case err == io.EOF: //nolint:errorlint // a connection returns it as it is
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// Close does nothing: what is left unread ends the connection.
func (*body) Close() error { return nil }

// response is what a handler answers.
type response struct {
	header http.Header
	status int
	body   []byte
}

func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// ours are the headers that write makes itself.
var ours = map[string]bool{"Connection": true, "Content-Length": true, "Date": true}

// write writes the answer as it is sent. last says that none follows it.
func (w *response) write(out *bytes.Buffer, now time.Time, last bool) {
	w.WriteHeader(http.StatusOK)
	fmt.Fprintf(out, "HTTP/1.1 %d %s\r\nDate: ", w.status, http.StatusText(w.status))
	out.Write(now.UTC().AppendFormat(out.AvailableBuffer(), http.TimeFormat))
	fmt.Fprintf(out, "\r\nContent-Length: %d\r\n", len(w.body))
	if last {
		out.WriteString("Connection: close\r\n")
	}
	_ = w.header.WriteSubset(out, ours) // a buffer takes everything
	out.WriteString("\r\n")
	out.Write(w.body)
}
