package fastpath

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Where a head is plain, the request is the one that net/http makes of it.
func FuzzAPlainHeadIsReadAsByNetHTTP(f *testing.F) {
	for _, head := range []string{
		"POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /webhooks/shop?a=b&c=%20?/ HTTP/1.1\r\nhost:[::1]:80\r\nx-hub-signature-256: sha256=00\r\nX-A: 1\r\nX-Hub-Signature-256:  2 \r\ncontent-length: 007\r\nConnection: Keep-Alive\r\n\r\n",
		"POST //a/../b~c._- HTTP/1.1\r\nContent-Length: 9223372036854775807\r\nHost: x.y:1\r\n\r\n",
		"POST /a? HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"POST /a#b?c#d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"POST /a?c#d HTTP/1.1\r\nHost: x\r\nTrailer: X-A\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n",
		"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\nPragma: no-cache\r\n\r\n",
		"POST /a HTTP/1.1\nHost: x\nContent-Length: 1\n\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n 2\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		got, plain := parse(head)
		if !plain {
			return
		}
		if n := bytes.Index(head, endOfHead); n+len(endOfHead) != len(head) {
			return // readHead ends a head at the first empty line
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("%q is plain, and net/http says: %v", head, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(http.Request{}, "Body"), cmpopts.IgnoreUnexported(http.Request{})); diff != "" {
			t.Errorf("%q: %s", head, diff)
		}
	})
}

// What providers and proxies send must be plain, or the fast path is for nobody.
func TestWhatProvidersSendIsPlain(t *testing.T) {
	for name, head := range map[string]string{
		"Meta":               "POST /webhooks/shop HTTP/1.1\r\nHost: relay.example\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\nX-Hub-Signature: sha1=00\r\nX-Hub-Signature-256: sha256=00\r\nFacebook-API-Version: v25.0\r\nContent-Length: 1024\r\n\r\n",
		"360dialog":          "POST /webhooks/channel HTTP/1.1\r\nHost: relay.example\r\nuser-agent: 360dialog\r\naccept: */*\r\nconnection: keep-alive\r\ncontent-type: application/json\r\nAuthorization: Bearer abc.def-ghi_jkl=\r\ncontent-length: 1024\r\n\r\n",
		"a proxy in front":   "POST /webhooks/shop HTTP/1.1\r\nHost: relay:8080\r\nX-Forwarded-For: 203.0.113.7, 2001:db8::1\r\nX-Forwarded-Proto: https\r\nForwarded: for=203.0.113.7;proto=https\r\nX-Request-Id: 0d2f-11\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nContent-Type: application/json; charset=utf-8\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: 3145728\r\n\r\n",
		"a query of the URL": "POST /webhooks/shop?tenant=7&x=%2F HTTP/1.1\r\nHost: relay\r\nContent-Length: 1\r\n\r\n",
	} {
		r, plain := parse([]byte(head))
		if !plain {
			t.Errorf("%s: not plain", name)
			continue
		}
		if lines := strings.Count(head, "\r\n") - 3; len(r.Header) != lines { // the request, Host and the empty line
			t.Errorf("%s: %d headers of %d lines", name, len(r.Header), lines)
		}
	}
}
