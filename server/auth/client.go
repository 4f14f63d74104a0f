package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// MetaClientName is the common name of the certificate that Meta shows with its webhooks.
const MetaClientName = "client.webhooks.fbclientcerts.com"

// Why a client certificate does not prove a sender.
var (
	// ErrClientCertificateMissing means that none is shown.
	ErrClientCertificateMissing = errors.New("no client certificate")
	// ErrClientCertificateInvalid means that what is shown is not Meta's, or comes from who cannot vouch for it.
	ErrClientCertificateInvalid = errors.New("client certificate invalid")
)

// ClientCertificate checks that a request comes with Meta's client certificate. It may be used by any number of goroutines at once.
//
// There are two ways to know: the connection itself, whose chain is verified here, or the word of a proxy that ended TLS, verified the chain and hands over the subject
// in a header. A proxy is believed only where the connection comes from its address: anybody can send a header. The header of anybody else says nothing.
type ClientCertificate struct {
	// Authorities are who may have issued the certificate. If nil, connections prove nothing.
	Authorities *Authorities
	// Header is the name of the header by which a proxy hands over the verified subject, as RFC 4514 writes it: `CN=...,O=...`. If empty, no proxy is believed.
	Header string
	// Proxies are the addresses of the proxies that are believed.
	Proxies []netip.Prefix
}

// Check returns nil if the request is proved to come from Meta, else an error that wraps ErrClientCertificateMissing or ErrClientCertificateInvalid.
func (c *ClientCertificate) Check(r *http.Request) error {
	if c.Header != "" && c.trusted(r.RemoteAddr) {
		return c.checkSubject(r.Header.Values(c.Header))
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || c.Authorities == nil {
		return ErrClientCertificateMissing
	}
	leaf, intermediates := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, certificate := range r.TLS.PeerCertificates[1:] {
		intermediates.AddCert(certificate)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.Authorities.pool.Load(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrClientCertificateInvalid, err)
	}
	if leaf.Subject.CommonName != MetaClientName {
		return fmt.Errorf("%w: its common name is not %s", ErrClientCertificateInvalid, MetaClientName)
	}
	return nil
}

// trusted reports whether a connection comes from a proxy.
func (c *ClientCertificate) trusted(remote string) bool {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	for _, proxy := range c.Proxies {
		if proxy.Contains(from.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// checkSubject checks what a proxy says of the certificate that it verified. Twice is refused: one of the two would be the sender's own.
func (c *ClientCertificate) checkSubject(values []string) error {
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return ErrClientCertificateMissing
	case len(values) > 1:
		return fmt.Errorf("%w: the proxy's header %s is there %d times", ErrClientCertificateInvalid, c.Header, len(values))
	}
	if name, ok := commonName(values[0]); !ok || name != MetaClientName {
		return fmt.Errorf("%w: the proxy's header %s does not have CN=%s", ErrClientCertificateInvalid, c.Header, MetaClientName)
	}
	return nil
}

// commonName returns the one common name of a subject as RFC 4514 writes it; not ok if there is none or more than one, or if the text is not such a subject. Escapes and
// quotes in the other parts are honoured, for they hide where a part ends (`O=Meta Platforms\, Inc.`, and so `O=x\,CN=...`). The value is returned as it stands: the
// name that is looked for needs neither.
func commonName(subject string) (name string, ok bool) {
	quoted, begin := false, 0
	take := func(part string) bool {
		key, value, found := strings.Cut(part, "=")
		if !found {
			return false
		}
		if !strings.EqualFold(strings.TrimSpace(key), "CN") {
			return true
		}
		if ok {
			return false
		}
		name, ok = strings.TrimSpace(value), true
		return true
	}
	for i := 0; i < len(subject); i++ {
		switch c := subject[i]; {
		case c == '\\':
			i++ // whatever it is, it ends nothing
			if i == len(subject) {
				return "", false
			}
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ';' || c == '+'):
			if !take(subject[begin:i]) {
				return "", false
			}
			begin = i + 1
		}
	}
	if quoted || !take(subject[begin:]) {
		return "", false
	}
	return name, ok
}
