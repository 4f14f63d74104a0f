package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
)

// Certificate is the certificate by which the server proves itself, read again whenever its files change. It may be used by any number of goroutines at once.
type Certificate struct {
	pair atomic.Pointer[tls.Certificate]
}

// OpenCertificate reads a certificate chain and its key from PEM files. A key that does not belong to the certificate is an error. New connections use what was last read
// whole; those that are open keep theirs.
func OpenCertificate(files *Files, certPath, keyPath string) (*Certificate, error) {
	c := &Certificate{}
	err := files.Open("--tls-cert, --tls-key", func(contents [][]byte) error {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return fmt.Errorf("%s with %s: %w", certPath, keyPath, err)
		}
		c.pair.Store(&pair)
		return nil
	}, certPath, keyPath)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Config returns a TLS configuration of its own that serves the certificate to HTTP/2 and HTTP/1.1. Anything before TLS 1.2 is refused; the rest is the standard
// library's choice, which moves with it.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// Authorities are certificate authorities, read again whenever their file changes. They may be used by any number of goroutines at once.
type Authorities struct {
	pool atomic.Pointer[x509.CertPool]
}

// OpenAuthorities reads certificate authorities from a PEM file. A file without any is an error: it would refuse everybody.
func OpenAuthorities(files *Files, path string) (*Authorities, error) {
	a := &Authorities{}
	err := files.Open("--client-ca-file", func(contents [][]byte) error {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(contents[0]) {
			return errors.New(path + ": no certificate in it; give a PEM file")
		}
		a.pool.Store(pool)
		return nil
	}, path)
	if err != nil {
		return nil, err
	}
	return a, nil
}
