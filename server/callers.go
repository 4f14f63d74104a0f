package main

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"eventrelay/server/auth"
	"eventrelay/server/webhook"
)

// callers is who may call, and how the ports prove themselves.
type callers struct {
	files *auth.Files
	guard *auth.Guard
	// certificate is nil where the ports speak plain text.
	certificate *auth.Certificate
	// client is nil where nothing proves that a webhook comes from Meta but its signature.
	client webhook.ClientCertificate
	// asks is whether the webhook port asks for client certificates.
	asks bool
}

// openCallers reads everything that the flags about callers name. What is wrong with one of the files is an error that names its flag.
func openCallers(c config, metrics prometheus.Registerer, logger *slog.Logger) (callers, error) {
	s := callers{files: auth.NewFiles(metrics, logger)}
	var tokens *auth.Tokens
	var err error
	if c.TokensFile != "" {
		if tokens, err = auth.OpenTokens(s.files, c.TokensFile, logger); err != nil {
			return s, err
		}
	}
	s.guard = auth.NewGuard(tokens, metrics, logger)
	if c.TLSCert != "" {
		if s.certificate, err = auth.OpenCertificate(s.files, c.TLSCert, c.TLSKey); err != nil {
			return s, err
		}
	} else if !c.local() {
		logger.Warn("tokens travel in plain text; give --tls-cert and --tls-key unless a proxy in front ends TLS")
	}
	if c.ClientCAFile == "" && c.ClientCertHeader == "" {
		return s, nil
	}
	client := &auth.ClientCertificate{Header: c.ClientCertHeader, Proxies: c.TrustedProxies}
	if c.ClientCAFile != "" {
		if client.Authorities, err = auth.OpenAuthorities(s.files, c.ClientCAFile); err != nil {
			return s, err
		}
		s.asks = true
	}
	s.client = client
	return s, nil
}

// secure makes a port speak TLS if there is a certificate. The listener does it, and not the gRPC server, because the gateway reaches that server in memory, in plain text.
func (s callers) secure(listener net.Listener, flag string) net.Listener {
	if s.certificate == nil {
		return listener
	}
	config := s.certificate.Config()
	switch {
	case flag == "--grpc-addr":
		config.NextProtos = []string{"h2"}
	case flag == "--webhook-addr" && s.asks:
		// Asked for and not verified here: sources differ in whether they need one, and each request is checked for its own.
		config.ClientAuth = tls.RequestClientCert
	}
	return tls.NewListener(listener, config)
}

// local reports whether callers are on this machine only.
func (c *config) local() bool {
	for _, address := range []string{c.HTTPAddr, c.GRPCAddr} {
		if host, _, err := net.SplitHostPort(address); err != nil || !loopback(host) {
			return false
		}
	}
	return true
}

// foreignPage is what a web page is told that tries to use a port which trusts this machine.
const foreignPage = "without --tokens-file this port answers only requests that are meant for this machine: call it as localhost or 127.0.0.1, or give tokens"

// guardLocal protects a port that trusts this machine from the pages that a browser on it shows: one could post here, or have its own name point here and read.
// Where callers have tokens it does nothing, for no browser sends a token by itself.
func guardLocal(c config, next http.Handler) http.Handler {
	if c.TokensFile != "" {
		return next
	}
	sameSite := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !loopback(host) {
			http.Error(w, foreignPage, http.StatusForbidden)
			return
		}
		sameSite.ServeHTTP(w, r)
	})
}
