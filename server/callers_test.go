package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/auth"
)

// Tokens that the servers of these tests know.
const (
	readerToken   = "ert_reader"
	operatorToken = "ert_operator"
)

// guarded is a server with tokens and TLS on every address of this machine.
type guarded struct {
	server *server
	roots  *x509.CertPool
	// webhooks, http and grpc are the addresses to reach it by.
	webhooks, http, grpc string
	tokens               string // the path of the tokens file
	log                  *record
}

// writeTokens writes the tokens file.
func writeTokens(t *testing.T, path string, roles map[string]string) {
	t.Helper()
	content := []byte("tokens:\n")
	for token, role := range roles {
		sum := sha256.Sum256([]byte(token))
		content = fmt.Appendf(content, "  - name: %s\n    role: %s\n    hash: sha256:%s\n", role, role, hex.EncodeToString(sum[:]))
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate makes a certificate for this machine that is its own authority, and writes it and its key as PEM files.
func certificate(t *testing.T, dir, name string) (certPath, keyPath string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPath, keyPath = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return certPath, keyPath, roots
}

// serveGuarded starts a server that listens on all addresses, with a token for a reader and one for an operator.
func serveGuarded(t *testing.T, more ...string) *guarded {
	t.Helper()
	dir := t.TempDir()
	g := &guarded{tokens: filepath.Join(dir, "tokens.yaml"), log: &record{}}
	writeTokens(t, g.tokens, map[string]string{readerToken: "reader", operatorToken: "operator"})
	certPath, keyPath, roots := certificate(t, dir, "relay")
	g.roots = roots
	c, err := parse(t, append([]string{
		"--data-dir", filepath.Join(dir, "data"), "--min-free-bytes", "1MiB", "--webhook-addr", "0.0.0.0:0", "--http-addr", "0.0.0.0:0", "--grpc-addr", "0.0.0.0:0",
		"--tokens-file", g.tokens, "--tls-cert", certPath, "--tls-key", keyPath,
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if g.server, err = open(ctx, c, slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.server.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	here := func(l net.Listener) string { return fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port) }
	g.webhooks, g.http, g.grpc = here(g.server.webhookListener), here(g.server.managementListener), here(g.server.grpcListen)
	return g
}

// dial connects over TLS.
func (g *guarded) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(g.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: g.roots})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// request makes an HTTP request over TLS and returns the answer with its body.
func (g *guarded) request(t *testing.T, method, url, authorization string) (*http.Response, []byte) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestTokensAndTLSOpenThePortsToTheOutside(t *testing.T) {
	g := serveGuarded(t)
	if host, _, _ := net.SplitHostPort(g.server.grpcListen.Addr().String()); net.ParseIP(host).IsLoopback() {
		t.Fatalf("serves on %s only", host)
	}
	events := eventrelayv1.NewEventServiceClient(g.dial(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := events.Subscribe(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+readerToken), &eventrelayv1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("a reader's stream: %v", err)
	}
	for port, address := range map[string]string{"webhook": g.webhooks, "http": g.http, "grpc": g.grpc} {
		_, err := tls.Dial("tcp", address, &tls.Config{RootCAs: g.roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
		if err == nil {
			t.Errorf("%s: TLS 1.1 is spoken", port)
		}
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: g.roots, NextProtos: []string{"h2"}})
		if err != nil {
			t.Errorf("%s: %v", port, err)
			continue
		}
		if state := conn.ConnectionState(); state.NegotiatedProtocol != "h2" || state.Version != tls.VersionTLS13 {
			t.Errorf("%s: speaks %q over %x", port, state.NegotiatedProtocol, state.Version)
		}
		conn.Close()
		resp, err := http.Get("http://" + address + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: plain text is answered %s", port, resp.Status)
			}
		}
	}
}

func TestATokenThatIsRemovedEndsItsStreamsAndCalls(t *testing.T) {
	g := serveGuarded(t)
	events := eventrelayv1.NewEventServiceClient(g.dial(t))
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+readerToken), 30*time.Second)
	defer cancel()
	stream, err := events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	writeTokens(t, g.tokens, map[string]string{operatorToken: "operator"})
	for err == nil { // checkpoints until the next look
		_, err = stream.Recv()
	}
	if s := status.Convert(err); s.Code() != codes.Unauthenticated || reason(s) != "TOKEN_INVALID" {
		t.Errorf("the stream ends with %v", err)
	}
	if _, err := events.ListEvents(ctx, &eventrelayv1.ListEventsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call: %v", err)
	}
	if resp, _ := g.request(t, http.MethodGet, "https://"+g.http+"/v1/events", "Bearer "+operatorToken); resp.StatusCode != http.StatusOK {
		t.Errorf("another token: %s", resp.Status)
	}
}

func TestOnlyTheWebhookPortAsksForAClientCertificateAndProvesItPerRequest(t *testing.T) {
	dir := t.TempDir()
	metaCert, metaKey, _ := certificate(t, dir, auth.MetaClientName)
	otherCert, otherKey, _ := certificate(t, dir, "www.example.org")
	g := serveGuarded(t, "--client-ca-file", metaCert)
	// What a source that requires a certificate asks of a request, on a connection of the same kind as that of the webhook port.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	checks := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.server.callers.client.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})}
	go checks.Serve(g.server.callers.secure(listener, "--webhook-addr"))
	t.Cleanup(func() { checks.Close() })

	for _, c := range []struct{ what, cert, key, text string }{
		{"Meta's", metaCert, metaKey, ""},
		{"another's", otherCert, otherKey, "client certificate invalid"},
		{"none", "", "", "no client certificate"},
	} {
		asked := false
		config := &tls.Config{RootCAs: g.roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if c.cert == "" {
				return &tls.Certificate{}, nil
			}
			pair, err := tls.LoadX509KeyPair(c.cert, c.key)
			return &pair, err
		}}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
		resp, err := client.Get("https://" + listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if (resp.StatusCode == http.StatusOK) != (c.text == "") || !strings.Contains(string(body), c.text) {
			t.Errorf("%s: %s %s", c.what, resp.Status, body)
		}
		for port, want := range map[string]bool{g.webhooks: true, g.http: false} {
			asked = false
			resp, err := client.Get("https://" + port + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if asked != want {
				t.Errorf("%s asks for a certificate: %v", port, asked)
			}
		}
		client.CloseIdleConnections()
	}
}

func TestPortsThatCannotTellCallersApartAreRefusedNamingTheFlags(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // one that is not refused serves until then
	defer cancel()
	for _, c := range []struct {
		flags []string
		want  []string
	}{
		{[]string{"--grpc-addr", "0.0.0.0:0"}, []string{"--grpc-addr", "--tokens-file", "127.0.0.1"}},
		{[]string{"--http-addr", "0.0.0.0:0"}, []string{"--http-addr", "--tokens-file"}},
		{[]string{"--grpc-addr", "0.0.0.0:0", "--tls-cert", "c", "--tls-key", "k"}, []string{"--grpc-addr", "--tokens-file"}},
		{[]string{"--dev", "--tokens-file", "t", "--grpc-addr", "0.0.0.0:0"}, []string{"--grpc-addr", "--dev"}},
		{[]string{"--tls-cert", "c"}, []string{"--tls-cert", "--tls-key", "both"}},
		{[]string{"--tls-key", "k"}, []string{"--tls-cert", "--tls-key", "both"}},
		{[]string{"--client-ca-file", "c"}, []string{"--client-ca-file", "--tls-cert"}},
		{[]string{"--client-cert-header", "X-Subject"}, []string{"--client-cert-header", "--trusted-proxies"}},
		{[]string{"--trusted-proxies", "10.0.0.0/8"}, []string{"--client-cert-header", "--trusted-proxies"}},
		{[]string{"--client-cert-header", "X-Subject", "--trusted-proxies", "10.0.0.1"}, []string{"--trusted-proxies"}},
	} {
		var stderr bytes.Buffer
		code := start(ctx, append(c.flags, "--data-dir", t.TempDir()), io.Discard, &stderr)
		if code != exitUsage {
			t.Errorf("%v: code %d: %s", c.flags, code, stderr.String())
		}
		for _, want := range c.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%v: %q does not name %s", c.flags, stderr.String(), want)
			}
		}
	}
	// What the files hold is known only when they are read.
	dir := t.TempDir()
	one, _, _ := certificate(t, dir, "one")
	_, other, _ := certificate(t, dir, "other")
	for flag, flags := range map[string][]string{
		"--tokens-file":    {"--tokens-file", filepath.Join(dir, "none")},
		"--tls-cert":       {"--tls-cert", one, "--tls-key", other},
		"--client-ca-file": {"--client-ca-file", other, "--tls-cert", one, "--tls-key", filepath.Join(dir, "one.key")},
	} {
		var stderr bytes.Buffer
		if code := start(ctx, append(flags, "--data-dir", filepath.Join(dir, "data")), io.Discard, &stderr); code != exitFailure || !strings.Contains(stderr.String(), flag) {
			t.Errorf("%v: code %d: %s", flags, code, stderr.String())
		}
	}
}

func TestFlagsAboutCallersAreAlsoEnvironmentVariables(t *testing.T) {
	for name, value := range map[string]string{
		"TOKENS_FILE": "/t", "TLS_CERT": "/c", "TLS_KEY": "/k", "CLIENT_CA_FILE": "/ca", "CLIENT_CERT_HEADER": "X-Subject", "TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8", "GRPC_ADDR": "0.0.0.0:1",
	} {
		t.Setenv("EVENTRELAY_"+name, value)
	}
	c, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if c.TokensFile != "/t" || c.TLSCert != "/c" || c.TLSKey != "/k" || c.ClientCAFile != "/ca" || c.ClientCertHeader != "X-Subject" || len(c.TrustedProxies) != 2 || c.GRPCAddr != "0.0.0.0:1" {
		t.Errorf("read %+v", c)
	}
}

func TestAPageInABrowserCannotUseAPortThatTrustsThisMachine(t *testing.T) {
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, c := range []struct {
		what, method, host string
		header             [2]string
		want               int
	}{
		{"curl", http.MethodPost, "127.0.0.1:8081", [2]string{}, http.StatusTeapot},
		{"curl by name", http.MethodGet, "localhost:8081", [2]string{}, http.StatusTeapot},
		{"IPv6", http.MethodGet, "[::1]:8081", [2]string{}, http.StatusTeapot},
		{"the address bar", http.MethodGet, "localhost:8081", [2]string{"Sec-Fetch-Site", "none"}, http.StatusTeapot},
		{"a name that points here", http.MethodGet, "evil.example:8081", [2]string{}, http.StatusForbidden},
		{"a post from another page", http.MethodPost, "127.0.0.1:8081", [2]string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"a post from another origin", http.MethodPost, "127.0.0.1:8081", [2]string{"Origin", "https://evil.example"}, http.StatusForbidden},
	} {
		for _, tokens := range []string{"", "tokens.yaml"} {
			w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, "/v1/sources", nil)
			r.Host = c.host
			if c.header[0] != "" {
				r.Header.Set(c.header[0], c.header[1])
			}
			want := c.want
			if tokens != "" {
				want = http.StatusTeapot // no browser sends a token by itself
			}
			if guardLocal(config{TokensFile: tokens}, reached).ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s, tokens %q: %d, want %d", c.what, tokens, w.Code, want)
			}
		}
	}
}
