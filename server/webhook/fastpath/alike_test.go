package fastpath_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventrelay/server/webhook/fastpath"
)

// echo answers with all that a handler can see of a request. What the path says it does besides.
func echo(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panics":
		panic("on demand")
	case "/aborts":
		panic(http.ErrAbortHandler)
	case "/last":
		w.Header().Set("Connection", "close")
	case "/unread":
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "no\n")
		return
	case "/nothing":
		_, _ = io.Copy(io.Discard, r.Body)
		return
	}
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Add("X-Two", "a")
	w.Header().Add("X-Two", "b")
	w.WriteHeader(http.StatusAccepted)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "%s %q %q %+v %s %d %q %v %v %s\n", r.Method, r.RequestURI, r.URL.Path, *r.URL, r.Proto, r.ContentLength, r.Host, r.Close, r.TransferEncoding, host)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(w, "%s: %q\n", name, r.Header[name])
	}
	fmt.Fprintf(w, "%d bytes of %x: %.1000q %v\n", len(body), sha256.Sum256(body), body, err)
}

// say sends pieces, one write each, says that there are no more, and returns the answers until the server closes. The date, which every answer must have, is left out.
func say(tb testing.TB, address string, pieces ...string) (answers []string) {
	tb.Helper()
	for range 10 { // who writes to a connection that is closed may lose the answer that was on its way
		if text, whole := hear(tb, address, pieces); whole {
			return tell(tb, text)
		}
	}
	tb.Fatal("the connection is reset each time")
	return nil
}

// hear returns all that is answered, and whether the server closed the connection in order.
func hear(tb testing.TB, address string, pieces []string) (text []byte, whole bool) {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		var err error
		text, err = io.ReadAll(conn)
		heard <- err
	}()
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(time.Millisecond) // so that the pieces come apart; nothing depends on it
		}
		if _, err := io.WriteString(conn, piece); err != nil {
			break // the connection may have been ended by an answer
		}
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if err = <-heard; err != nil && !errors.Is(err, syscall.ECONNRESET) {
		tb.Fatalf("after %q: %v", text, err)
	}
	return text, err == nil
}

// tell returns the answers in a text.
func tell(tb testing.TB, text []byte) (answers []string) {
	tb.Helper()
	if bytes.Count(text, []byte("\r\nConnection: close")) > 1 {
		tb.Errorf("more than one is the last, or says so twice: %s", text)
	}
	for reader := bufio.NewReader(bytes.NewReader(text)); ; {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(response.Body)
		date := response.Header.Get("Date")
		if _, wrong := http.ParseTime(date); wrong != nil && 200 <= response.StatusCode && response.StatusCode < 400 {
			tb.Errorf("the date is %q", date)
		}
		response.Header.Del("Date")
		response.Header.Del("Content-Length") // net/http sends what is long in chunks
		var header bytes.Buffer
		_ = response.Header.Write(&header)
		answers = append(answers, fmt.Sprintf("%s %s\n%s%s%v", response.Proto, response.Status, &header, body, err))
	}
}

// post is a plain request.
func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: relay.example:8080\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// requests are what a connection may bring: by name, in pieces.
func requests() map[string][]string {
	head := func(lines ...string) string {
		return strings.Join(append([]string{"POST /webhooks/shop HTTP/1.1", "Host: x"}, lines...), "\r\n") + "\r\n\r\n"
	}
	large := strings.Repeat("0123456789abcdef", 10_000)
	all := map[string][]string{
		"plain":                       {post("/webhooks/shop", "{}")},
		"no body":                     {post("/webhooks/shop", "")},
		"three on a connection":       {post("/a", "1"), post("/b", "22"), post("/nothing", "333")},
		"three at once":               {post("/a", "1") + post("/b", "22") + post("/nothing", "333")},
		"a head in pieces":            {post("/a", "1")[:3], post("/a", "1")[3:50], post("/a", "1")[50:]},
		"a head cut in its end":       {strings.TrimSuffix(post("/a", ""), "\n"), "\n" + post("/b", "")},
		"a large body":                {post("/a", large), post("/b", "1")},
		"a large body in pieces":      {post("/a", large)[:200], post("/a", large)[200:9000], post("/a", large)[9000:] + post("/b", "1")[:20], post("/b", "1")[20:]},
		"a body cut off":              {strings.TrimSuffix(post("/a", "12345"), "45")},
		"no more than a head":         {strings.TrimSuffix(post("/a", "1"), "1")},
		"a head cut off":              {"POST /a HTT"},
		"nothing":                     {""},
		"empty lines between":         {post("/a", "1") + "\r\n" + post("/b", "2") + "\r\n\r\n" + post("/c", "3")},
		"an empty line before a GET":  {post("/a", "1") + "\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"},
		"a little behind an answer":   {post("/a", "1") + "GE"},
		"many empty lines between":    {post("/a", "1") + strings.Repeat("\r\n", 5) + post("/b", "2")},
		"empty lines in front":        {"\r\n" + post("/a", "1")},
		"a query":                     {post("/a?x=1&y=%20?", "1")},
		"an empty query":              {post("/a?", "1")},
		"a fragment":                  {post("/a#b", "1")},
		"an encoded path":             {post("/%61", "1")},
		"a path of two slashes":       {post("//a//b/../c", "1")},
		"a path with a colon":         {post("/a:b", "1")},
		"a broken path":               {post("/%zz", "1")},
		"no path":                     {post("", "1")},
		"a path that is none":         {post("a", "1")},
		"an absolute target":          {post("http://elsewhere/a", "1")},
		"another method":              {"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"},
		"another method afterwards":   {post("/a", "1") + "GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + post("/c", "3")},
		"a method in small letters":   {strings.Replace(post("/a", "1"), "POST", "post", 1)},
		"a longer method":             {strings.Replace(post("/a", "1"), "POST", "POSTS", 1)},
		"HTTP/1.0":                    {strings.Replace(post("/a", "1"), "1.1", "1.0", 1)},
		"HTTP/1.0, kept":              {strings.Replace(post("/a", "1"), "1.1\r\n", "1.0\r\nConnection: keep-alive\r\n", 1)},
		"HTTP/2.0":                    {strings.Replace(post("/a", "1"), "1.1", "2.0", 1)},
		"the preface of HTTP/2":       {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		"the hello of TLS":            {"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\r\n\r\n"},
		"kept in so many words":       {head("Connection: keep-alive", "Content-Length: 1") + "1" + post("/b", "")},
		"the last of a connection":    {head("Connection: close", "Content-Length: 1") + "1" + post("/b", "")},
		"a connection of two words":   {head("Connection: keep-alive, close", "Content-Length: 1") + "1" + post("/b", "")},
		"chunked":                     {head("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n" + post("/b", "")},
		"chunked with a trailer":      {head("Transfer-Encoding: chunked", "Trailer: X-End") + "5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n" + post("/b", "")},
		"chunked and a length":        {head("Transfer-Encoding: chunked", "Content-Length: 3") + "5\r\nhello\r\n0\r\n\r\n" + post("/b", "")},
		"another coding":              {head("Transfer-Encoding: gzip") + post("/b", "")},
		"no length":                   {head() + post("/b", "")},
		"two lengths":                 {head("Content-Length: 1", "Content-Length: 2") + "12" + post("/b", "")},
		"one length twice":            {head("Content-Length: 1", "Content-Length: 1") + "1" + post("/b", "")},
		"a list of lengths":           {head("Content-Length: 1, 1") + "1" + post("/b", "")},
		"a negative length":           {head("Content-Length: -1") + "1"},
		"a length with a sign":        {head("Content-Length: +1") + "1"},
		"a length with zeros":         {head("Content-Length: 0001") + "1" + post("/b", "")},
		"a length in hexadecimal":     {head("Content-Length: 0x1") + "1"},
		"a length with underscores":   {head("Content-Length: 1_0") + "1234567890"},
		"an empty length":             {head("Content-Length:") + post("/b", "")},
		"the largest length":          {head("Content-Length: 9223372036854775807") + "1"},
		"a length of too many digits": {head("Content-Length: 9223372036854775808") + "1"},
		"waiting to be told":          {head("Expect: 100-continue", "Content-Length: 1") + "1"},
		"expecting something else":    {head("Expect: more", "Content-Length: 1") + "1"},
		"an upgrade":                  {head("Connection: upgrade", "Upgrade: websocket", "Content-Length: 1") + "1"},
		"an upgrade alone":            {head("Upgrade: h2c", "Content-Length: 1") + "1"},
		"no host":                     {"POST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n1"},
		"two hosts":                   {head("Host: y", "Content-Length: 1") + "1"},
		"an empty host":               {"POST /a HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\n\r\n1"},
		"a broken host":               {"POST /a HTTP/1.1\r\nHost: a b\r\nContent-Length: 1\r\n\r\n1"},
		"a host of IPv6":              {"POST /a HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 1\r\n\r\n1"},
		"names in small letters":      {"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nx-hub-signature-256: y\r\n\r\n1"},
		"names of all sorts":          {head("a_b: 1", "A.B: 2", "x-WHAT-ever: 3", "-: 4", "Content-Length: 1") + "1"},
		"a name with a space":         {head("Content-Type : x", "Content-Length: 1") + "1"},
		"an empty name":               {head(": x", "Content-Length: 1") + "1"},
		"no name":                     {head("nonsense", "Content-Length: 1") + "1"},
		"a name twice":                {head("X-A: 1", "X-B: 2", "x-a: 3", "X-A: 4", "X-B: 5", "Content-Length: 1") + "1"},
		"a name twice, with others":   {head("X-A: 1", "X-A: 3", "X-B: 2", "Content-Length: 1", "X-C: 6") + "1"},
		"values in space":             {head("X-A:   1  ", "X-B:2", "X-C:", "X-D: ", "X-E:\t5\t", "Content-Length: 1 ") + "1"},
		"a folded line":               {head("X-A: 1", " 2", "Content-Length: 1") + "1"},
		"a folded first line":         {"POST /a HTTP/1.1\r\n Host: x\r\nContent-Length: 1\r\n\r\n1"},
		"a value beyond ASCII":        {head("X-A: ä", "Content-Length: 1") + "1"},
		"a value with a zero":         {head("X-A: \x00", "Content-Length: 1") + "1"},
		"a value with a return":       {head("X-A: 1\r2", "Content-Length: 1") + "1"},
		"lines that end with LF":      {strings.ReplaceAll(post("/a", "1"), "\r\n", "\n") + post("/b", "")},
		"some lines that end with LF": {"POST /a HTTP/1.1\nHost: x\r\nContent-Length: 1\r\n\r\n1"},
		"no-cache":                    {head("Pragma: no-cache", "Content-Length: 1") + "1"},
		"a long head":                 {head("X-A: "+strings.Repeat("x", 5000), "Content-Length: 1") + "1" + post("/b", "")},
		"a head of just the size":     {head("X-A: "+strings.Repeat("x", 4096-len(head("X-A: ", "Content-Length: 1"))), "Content-Length: 1") + "1" + post("/b", "")},
		"a head of one byte more":     {head("X-A: "+strings.Repeat("x", 4097-len(head("X-A: ", "Content-Length: 1"))), "Content-Length: 1") + "1" + post("/b", "")},
		"a head that is too long":     {head("X-A: " + strings.Repeat("x", 3<<20))},
		"a handler that is done":      {post("/last", "1"), post("/b", "2")},
		"a handler that panics":       {post("/a", "1"), post("/panics", "1"), post("/b", "2")},
		"a handler that aborts":       {post("/aborts", "1")},
		"a handler that does not read, for a small body":   {post("/unread", "1")},
		"a handler that does not read, for a large body":   {post("/unread", large)},
		"a handler that does not read a body that is late": {strings.TrimSuffix(post("/unread", "1"), "1"), "1"},
	}
	return all
}

// Whatever a connection brings, it is answered as net/http answers it, in as many answers, from a handler that sees the same.
func TestWhateverComesIsAnsweredAsByNetHTTP(t *testing.T) {
	alone, ours := serve(t, config(echo)), serve(t, fastpath.New(config(echo), quiet()))
	for name, pieces := range requests() {
		want, got := say(t, alone, pieces...), say(t, ours, pieces...)
		if !slices.Equal(got, want) {
			t.Errorf("%s: answered\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func FuzzWhateverComesIsAnsweredAsByNetHTTP(f *testing.F) {
	for _, pieces := range requests() {
		if whole := strings.Join(pieces, ""); len(whole) < 10_000 {
			f.Add(whole, uint16(7))
		}
	}
	alone, ours := serve(f, config(echo)), serve(f, fastpath.New(config(echo), quiet()))
	f.Fuzz(func(t *testing.T, whole string, cut uint16) {
		at := min(int(cut), len(whole))
		want, got := say(t, alone, whole), say(t, ours, whole[:at], whole[at:])
		if !slices.Equal(got, want) {
			t.Errorf("answered\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// Which of the two serves a request shows in its context: net/http ends it.
func TestPlainRequestsTakeTheFastPathUntilOneIsNot(t *testing.T) {
	contexts := make(chan context.Context, 4)
	address := serve(t, fastpath.New(config(func(_ http.ResponseWriter, r *http.Request) { contexts <- r.Context() }), quiet()))
	say(t, address, post("/a", ""), post("/b", ""), "GET /c HTTP/1.1\r\nHost: x\r\n\r\n", post("/d", ""))
	for i, fast := range []bool{true, true, false, false} {
		if ctx := <-contexts; (ctx.Done() == nil) != fast {
			t.Errorf("request %d: on the fast path %v, want %v", i, !fast, fast)
		}
	}
}
