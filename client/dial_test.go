package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func TestPlainTextStaysOnThisMachineUnlessAllowed(t *testing.T) {
	for target, here := range map[string]bool{
		"127.0.0.1:9090": true, "127.8.0.1:1": true, "[::1]:9090": true, "localhost:9090": true, "LOCALHOST.:9090": true, ":9090": true,
		"localhost": true, "dns:///localhost:9090": true, "dns:127.0.0.1:9090": true, "passthrough:///127.0.0.1:9090": true,
		"unix:/run/relay.sock": true, "unix:///run/relay.sock": true,
		"relay.example:9090": false, "10.0.0.7:9090": false, "0.0.0.0:9090": false, "[::]:9090": false, "dns:///relay.example:443": false,
		"localhost.example:9090": false, "127.0.0.1.example:9090": false, "dns://10.0.0.7/localhost:9090": false,
		"ipv4:127.0.0.1:1,10.0.0.7:1": false,
	} {
		t.Run(target, func(t *testing.T) {
			c, err := client.Dial(target)
			if here != (err == nil) || (!here && !errors.Is(err, client.ErrPlaintext)) {
				t.Errorf("without options: %v", err)
			}
			if err == nil {
				_ = c.Close()
			}
			for name, option := range map[string]client.Option{"WithInsecure": client.WithInsecure(), "WithTLS": client.WithTLS(nil)} {
				c, err := client.Dial(target, option)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				_ = c.Close()
			}
		})
	}
}

func TestDialRefusesWhatCannotWork(t *testing.T) {
	for name, dial := range map[string]func() (*client.Client, error){
		"empty target": func() (*client.Client, error) { return client.Dial("") },
		"TLS and not": func() (*client.Client, error) {
			return client.Dial("127.0.0.1:1", client.WithTLS(nil), client.WithInsecure())
		},
		"empty token": func() (*client.Client, error) { return client.Dial("127.0.0.1:1", client.WithToken("")) },
		"token of two lines": func() (*client.Client, error) {
			return client.Dial("127.0.0.1:1", client.WithToken("hush-hush\nx-role: operator"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dial()
			if err == nil {
				_ = c.Close()
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("the error has the token: %v", err)
			}
		})
	}
}

func TestTokenGoesWithEveryCall(t *testing.T) {
	r := newRelay(2)
	r.killAfter = func(int) int { return 1 }
	c := serve(t, r, client.WithToken("hush"))
	read(t, c, client.FollowOptions{From: earliest, MinBackoff: time.Millisecond}, 2)
	if want := []string{"Bearer hush", "Bearer hush"}; !slices.Equal(r.tokens, want) {
		t.Errorf("got %q", r.tokens)
	}
}

func TestFollowGoesThroughTLS(t *testing.T) {
	issuer := httptest.NewUnstartedServer(nil)
	issuer.StartTLS() // for its certificate only
	defer issuer.Close()
	roots := x509.NewCertPool()
	roots.AddCert(issuer.Certificate())

	address, stop := listen(t, "127.0.0.1:0", newRelay(1), grpc.Creds(credentials.NewServerTLSFromCert(&issuer.TLS.Certificates[0])))
	defer stop()
	c, err := client.Dial(address, client.WithTLS(&tls.Config{RootCAs: roots}), client.WithToken("hush"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	inOrder(t, read(t, c, client.FollowOptions{From: earliest}, 1), 1, 1)
}

func TestFollowComesBackWhenTheServerIsRestarted(t *testing.T) {
	r := newRelay(3)
	address, stop := listen(t, "127.0.0.1:0", r)
	c, err := client.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var seen []uint64
	breaks := 0
	o := client.FollowOptions{From: earliest, OnBreak: func(error) {
		// The first break is the stream's, the second an attempt that found nobody.
		if breaks++; breaks == 2 {
			r.grow(3)
			_, stop = listen(t, address, r)
		}
	}}
	for event, err := range c.Follow(patience(t), o) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, event.GetSequence())
		if len(seen) == 3 {
			stop()
		}
		if len(seen) == 6 {
			break
		}
	}
	stop()
	inOrder(t, seen, 1, 6)
}

// listen runs a relay on a port of this machine until stop.
func listen(t *testing.T, address string, r *relay, options ...grpc.ServerOption) (at string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	eventrelayv1.RegisterEventServiceServer(server, r)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return listener.Addr().String(), func() {
		server.Stop()
		<-done
	}
}
