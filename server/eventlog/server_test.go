package eventlog

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"eventrelay/server/eventlog/store"
)

// pretend listens as a server of that version, which is all that a client learns before it asks for more.
func pretend(t *testing.T, version string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "INFO {\"server_id\":\"old\",\"version\":%q,\"proto\":1,\"headers\":true,\"max_payload\":33554432,\"jetstream\":true}\r\n", version)
			for lines := bufio.NewScanner(c); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "PING") {
					fmt.Fprint(c, "PONG\r\n")
				}
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return "nats://" + ln.Addr().String()
}

func TestAServerThatIsTooOldIsRefusedByName(t *testing.T) {
	for _, version := range []string{"2.11.9", "1.4.1", "unknown"} {
		_, err := Open(t.Context(), Options{URL: pretend(t, version)})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), version) || !strings.Contains(err.Error(), "2.12") {
			t.Errorf("version %s: %v", version, err)
		}
	}
}

func TestAServerWithASmallPayloadIsRefusedByName(t *testing.T) {
	url := externalServer(t, func(o *server.Options) { o.MaxPayload = 1 << 20 })
	_, err := Open(t.Context(), Options{URL: url})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "max_payload is 1048576") || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("error is %v", err)
	}
}

func TestALogWithoutAPlaceIsNotOpened(t *testing.T) {
	if _, err := Open(t.Context(), Options{}); err == nil {
		t.Error("a log without a place was opened")
	}
}

// The stream is deleted and made anew by another relay while this one has it open.
func TestALogThatWasReplacedIsNeverMisread(t *testing.T) {
	url := externalServer(t, nil)
	l := open(t, Options{URL: url})
	mustAppend(t, l, records(1, 5))
	x := tailFrom(t, l, 0)
	waitFor(t, "the tail", func() bool { return x.len() == 5 })
	k, err := l.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	other := open(t, Options{URL: url})
	mustAppend(t, other, records(1, 10))
	if other.ID() == l.ID() {
		t.Fatal("the new log has the identity of the old one")
	}
	if err := <-x.done; !errors.Is(err, ErrReplaced) {
		t.Errorf("tail ended with %v", err)
	}
	if n := x.len(); n != 5 {
		t.Errorf("tail yielded %d entries", n)
	}
	if _, err := l.State(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Errorf("state gave %v", err)
	}
	if _, err := l.Append(t.Context(), records(6, 1)); !errors.Is(err, ErrReplaced) {
		t.Errorf("append gave %v", err)
	}
}

// cluster runs three servers that replicate, and returns their URLs.
func cluster(t *testing.T) string {
	t.Helper()
	var (
		urls   []string
		routes []*url.URL
		srvs   []*server.Server
	)
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: ln.Addr().String()})
		_ = ln.Close()
	}
	for i := range 3 {
		port := 0
		if _, err := fmt.Sscanf(routes[i].Host, "127.0.0.1:%d", &port); err != nil {
			t.Fatal(err)
		}
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("s%d", i), Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
			MaxPayload: 32 << 20, MaxPending: 1 << 30, Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port},
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { store.Stop(srv) })
		srvs = append(srvs, srv)
		urls = append(urls, srv.ClientURL())
	}
	for _, srv := range srvs {
		waitFor(t, "the cluster", func() bool { return srv.ReadyForConnections(time.Second) && srv.JetStreamIsCurrent() })
	}
	waitFor(t, "a leader", func() bool {
		return srvs[0].JetStreamIsLeader() || srvs[1].JetStreamIsLeader() || srvs[2].JetStreamIsLeader()
	})
	return strings.Join(urls, ",")
}

func TestAClusterWithReplicasHoldsALog(t *testing.T) {
	o := Options{URL: cluster(t), Replicas: 3}
	a := open(t, o)
	ready(t, a)                       // the cluster has to place three copies first
	b := open(t, Options{URL: o.URL}) // which leaves the copies alone
	if a.ID() != b.ID() {
		t.Fatalf("two relays see two logs: %s and %s", a.ID(), b.ID())
	}
	rs := records(1, 700)
	rs[5].Data = make([]byte, 12<<20)
	x := tailFrom(t, b, 0)
	// That the stream has a leader may not have come around to the server that the first relay is connected to.
	waitFor(t, "the first append", func() bool {
		_, err := a.Append(t.Context(), rs[:1])
		return err == nil
	})
	for at := 1; at < len(rs); {
		n := min([]int{1, 7, 15, 400}[at%4], len(rs)-at)
		if got := mustAppend(t, a, rs[at:at+n]); got.Last != uint64(at+n) {
			t.Fatalf("append gave %+v after %d", got, at)
		}
		wantEntries(t, read(t, b, uint64(at+n)), uint64(at+n), rs[at+n-1:at+n]) // also from a replica that lags
		p, ok, err := b.Position(t.Context(), "journal")
		if err != nil || !ok || p != rs[at+n-1].Origin {
			t.Fatalf("position is %+v, %v, %v after %d", p, ok, err, at+n)
		}
		at += n
	}
	if got := mustAppend(t, b, records(690, 20)); !same(got, Appended{Stored: 9, Duplicates: 11, Last: 709}) {
		t.Fatalf("append gave %+v", got)
	}
	rs = append(rs, records(701, 9)...)
	waitFor(t, "the tail", func() bool { return x.len() >= len(rs) })
	wantEntries(t, x.end(t), 1, rs)
	wantEntries(t, read(t, a, 1), 1, rs)
	if seq, err := a.SequenceAt(t.Context(), rs[100].Time); err != nil || seq != 101 {
		t.Fatalf("sequence is %d, %v", seq, err)
	}
}
