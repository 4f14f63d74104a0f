package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"eventrelay/server/journal"
	"eventrelay/server/webhook"
	"eventrelay/server/webhook/fastpath"
)

type nowhere struct{}

func (nowhere) Append(context.Context, journal.Record) (uint64, error) { return 1, nil }

// The webhook, served as the relay does, against the least that a receiver can do: net/http that reads the body, checks its HMAC and answers 200. Both are
// asked in turn on one connection each, so that what else the machine does meets both. of-limit is the share of the least
// receiver's speed that is reached: 1 is as fast. ns/op is the webhook's alone; what -benchmem adds is of both together.
func BenchmarkPost(b *testing.B) {
	for _, size := range []int{2 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("body=%dKiB", size>>10), func(b *testing.B) {
			const head, tail = `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[`, `]}]}`
			const change = `{"field":"messages","value":{"messaging_product":"whatsapp","text":"\u00e4\u00f6\u00e5 \/ x"}}`
			body := head + change + strings.Repeat(","+change, (size-len(head)-len(tail))/(len(change)+1)) + tail
			request := []byte(fmt.Sprintf("POST /webhooks/shop HTTP/1.1\r\nHost: x\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
				hubSignature, sign(shopSecret, body), len(body), body))
			handler := webhook.New(webhook.Options{Sources: testSources(b), Inbox: nowhere{}})
			ours := dialBenchmark(b, serve(b, fastpath.New(&http.Server{Handler: handler}, slog.New(slog.DiscardHandler))))
			bare := httptest.NewServer(http.HandlerFunc(leastReceiver))
			b.Cleanup(bare.Close)
			least := dialBenchmark(b, bare.Listener.Addr().String())

			var took, limit time.Duration
			b.ResetTimer()
			for range b.N {
				limit += ask(b, least, request)
				took += ask(b, ours, request)
			}
			b.StopTimer()
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/op")
			b.ReportMetric(float64(limit)/float64(took), "of-limit")
		})
	}
}

func leastReceiver(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, []byte(shopSecret))
	mac.Write(body)
	if !hmac.Equal([]byte(r.Header.Get(hubSignature)), []byte("sha256="+hex.EncodeToString(mac.Sum(nil)))) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func dialBenchmark(b *testing.B, address string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends the request and waits for the 200. It speaks HTTP by hand, for a client would cost more than what is measured.
func ask(b *testing.B, conn net.Conn, request []byte) time.Duration {
	begun := time.Now()
	if _, err := conn.Write(request); err != nil {
		b.Fatal(err)
	}
	var answer [512]byte
	n := 0
	for !strings.HasSuffix(string(answer[:n]), "\r\n\r\n") { // the body is empty
		m, err := conn.Read(answer[n:])
		if err != nil {
			b.Fatal(err)
		}
		n += m
	}
	if !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200 ") {
		b.Fatalf("%s", answer[:n])
	}
	return time.Since(begun)
}
