package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes an authority, under another one if there is one.
func newAuthority(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return sign(t, template, parent)
}

// sign makes a certificate of a template, self-signed without a parent.
func sign(t *testing.T, template *x509.Certificate, parent *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, issuerKey := template, key
	if parent != nil {
		issuer, issuerKey = parent.certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

// leaf issues a certificate to a name.
func (a *authority) leaf(t *testing.T, name string, change func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: []string{"Meta Platforms, Inc."}}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	return sign(t, template, a)
}

// certPEM and keyPEM are what stands in files.
func (a *authority) certPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

func (a *authority) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// shown is a request on a connection that showed these certificates.
func shown(from string, chain ...*authority) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/shop", nil)
	r.RemoteAddr = from
	if chain != nil {
		r.TLS = &tls.ConnectionState{}
		for _, link := range chain {
			r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, link.certificate)
		}
	}
	return r
}

func TestMetasCertificateIsKnownByChainAndName(t *testing.T) {
	root := newAuthority(t, "meta-outbound-api-ca", nil)
	middle := newAuthority(t, "signing", root)
	other := newAuthority(t, "somebody else", nil)
	j := &journal{}
	authorities, err := OpenAuthorities(NewFiles(nil, j.logger()), file(t, root.certPEM()))
	if err != nil {
		t.Fatal(err)
	}
	check := &ClientCertificate{Authorities: authorities}
	good := middle.leaf(t, MetaClientName, nil)
	for _, c := range []struct {
		what  string
		chain []*authority
		want  error
	}{
		{"Meta's with its intermediate", []*authority{good, middle}, nil},
		{"Meta's under the root itself", []*authority{root.leaf(t, MetaClientName, nil)}, nil},
		{"none", nil, ErrClientCertificateMissing},
		{"without its intermediate", []*authority{good}, ErrClientCertificateInvalid},
		{"of another authority", []*authority{other.leaf(t, MetaClientName, nil)}, ErrClientCertificateInvalid},
		{"of another authority, brought along", []*authority{other.leaf(t, MetaClientName, nil), other}, ErrClientCertificateInvalid},
		{"self-signed", []*authority{newAuthority(t, MetaClientName, nil)}, ErrClientCertificateInvalid},
		{"another name", []*authority{root.leaf(t, "www.example.org", nil)}, ErrClientCertificateInvalid},
		{"a name that begins alike", []*authority{root.leaf(t, MetaClientName+".example.org", nil)}, ErrClientCertificateInvalid},
		{"the name elsewhere", []*authority{root.leaf(t, "x", func(c *x509.Certificate) { c.Subject.Organization = []string{"CN=" + MetaClientName} })}, ErrClientCertificateInvalid},
		{"expired", []*authority{root.leaf(t, MetaClientName, func(c *x509.Certificate) { c.NotAfter = time.Unix(1, 0) })}, ErrClientCertificateInvalid},
		{"not yet valid", []*authority{root.leaf(t, MetaClientName, func(c *x509.Certificate) { c.NotBefore = c.NotAfter })}, ErrClientCertificateInvalid},
		{"for servers", []*authority{root.leaf(t, MetaClientName, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, ErrClientCertificateInvalid},
		{"behind a certificate that may not issue", []*authority{good.leaf(t, MetaClientName, nil), good, middle}, ErrClientCertificateInvalid},
	} {
		if err := check.Check(shown("192.0.2.1:1", c.chain...)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if err := (&ClientCertificate{}).Check(shown("192.0.2.1:1", good, middle)); err == nil {
		t.Error("without authorities a certificate proves something")
	}
}

func TestTheSubjectOfAProxyIsBelievedOnlyFromItsAddress(t *testing.T) {
	const header, subject = "X-Amzn-Mtls-Clientcert-Subject", "CN=" + MetaClientName + ",O=Meta Platforms\\, Inc.,L=Menlo Park,ST=California,C=US"
	check := &ClientCertificate{Header: header, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, c := range []struct {
		what, from string
		values     []string
		want       error
	}{
		{"from the proxy", "10.1.2.3:4", []string{subject}, nil},
		{"from the proxy by its other family", "[::ffff:10.1.2.3]:4", []string{subject}, nil},
		{"from the proxy over IPv6", "[fd00::1]:4", []string{subject}, nil},
		{"from a link-local zone", "[fd00::1%eth0]:4", []string{subject}, nil},
		{"from a stranger", "192.0.2.1:4", []string{subject}, ErrClientCertificateMissing},
		{"from a stranger over IPv6", "[2001:db8::1]:4", []string{subject}, ErrClientCertificateMissing},
		{"from nowhere", "@", []string{subject}, ErrClientCertificateMissing},
		{"no header", "10.1.2.3:4", nil, ErrClientCertificateMissing},
		{"empty header", "10.1.2.3:4", []string{""}, ErrClientCertificateMissing},
		{"the sender's beside the proxy's", "10.1.2.3:4", []string{subject, "CN=www.example.org"}, ErrClientCertificateInvalid},
		{"another name", "10.1.2.3:4", []string{"CN=www.example.org"}, ErrClientCertificateInvalid},
	} {
		r := shown(c.from)
		for _, value := range c.values {
			r.Header.Add(header, value)
		}
		if err := check.Check(r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestOnlyTheCommonNameOfASubjectCounts(t *testing.T) {
	for subject, want := range map[string]string{
		"CN=a":                          "a",
		"cn = a , O=b":                  "a",
		"O=b+CN=a":                      "a",
		"O=b;CN=a":                      "a",
		`O="Meta Platforms, Inc.",CN=a`: "a",
		`O=Meta Platforms\, Inc.,CN=a`:  "a",
		`O=x\2CCN=b,CN=a`:               "a",
		`O=x\,CN=a`:                     "",
		`O="x,CN=a"`:                    "",
		`O="x\",CN=a"`:                  "",
		`O="x,CN=a`:                     "",
		"CN=a,CN=b":                     "",
		"O=CN=a":                        "",
		"XCN=a":                         "",
		"/O=x/CN=a":                     "",
		"a":                             "",
		"CN=a,b":                        "",
		`CN=a\`:                         "",
		"":                              "",
	} {
		if got, _ := commonName(subject); got != want {
			t.Errorf("%s: %q, want %q", subject, got, want)
		}
	}
}

func FuzzSubject(f *testing.F) {
	f.Add("CN=" + MetaClientName + `,O=Meta Platforms\, Inc.`)
	f.Add(`O="x,CN=a"`)
	f.Fuzz(func(t *testing.T, subject string) {
		if name, ok := commonName(subject); ok && !strings.Contains(subject, name) {
			t.Errorf("%q has the name %q", subject, name)
		}
	})
}

func TestACertificateIsRenewedWhileTheServerRuns(t *testing.T) {
	ca := newAuthority(t, "authority", nil)
	first, second := ca.leaf(t, "first.example", nil), ca.leaf(t, "second.example", nil)
	certPath, keyPath := file(t, first.certPEM()), file(t, first.keyPEM(t))
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		files := NewFiles(nil, j.logger())
		c, err := OpenCertificate(files, certPath, keyPath)
		if err != nil {
			t.Fatal(err)
		}
		go files.Run(t.Context())
		serves := func(want *authority) {
			t.Helper()
			pair, err := c.Config().GetCertificate(nil)
			if err != nil || string(pair.Certificate[0]) != string(want.certificate.Raw) {
				t.Errorf("serves %v, %v, want %s", pair.Leaf.Subject, err, want.certificate.Subject)
			}
		}
		serves(first)
		put(t, certPath, second.certPEM()) // the key is not there yet
		time.Sleep(5 * time.Second)
		serves(first)
		if !strings.Contains(j.String(), "cannot be taken over") || !strings.Contains(j.String(), "--tls-cert, --tls-key") {
			t.Errorf("a certificate without its key is not told: %s", j.String())
		}
		put(t, keyPath, second.keyPEM(t))
		time.Sleep(2 * time.Second)
		serves(second)
		put(t, keyPath, "broken")
		time.Sleep(2 * time.Second)
		serves(second)
		if strings.Contains(j.String(), "PRIVATE KEY") {
			t.Errorf("the key is shown: %s", j.String())
		}
	})
}

func TestACertificateAndAKeyThatDoNotBelongTogetherAreRefused(t *testing.T) {
	ca := newAuthority(t, "authority", nil)
	one, two := ca.leaf(t, "one.example", nil), ca.leaf(t, "two.example", nil)
	j := &journal{}
	if _, err := OpenCertificate(NewFiles(nil, j.logger()), file(t, one.certPEM()), file(t, two.keyPEM(t))); err == nil || !strings.Contains(err.Error(), "--tls-key") {
		t.Errorf("error %v", err)
	}
	if _, err := OpenCertificate(NewFiles(nil, j.logger()), file(t, one.certPEM()), file(t, "")); err == nil {
		t.Error("a certificate without a key is taken")
	}
	if _, err := OpenAuthorities(NewFiles(nil, j.logger()), file(t, one.keyPEM(t))); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("authorities of a key: %v", err)
	}
}

func TestAuthoritiesAreRenewedWhileTheServerRuns(t *testing.T) {
	older, newer := newAuthority(t, "older", nil), newAuthority(t, "newer", nil)
	byNewer := newer.leaf(t, MetaClientName, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Unix(1<<33, 0) })
	path := file(t, older.certPEM())
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		files := NewFiles(nil, j.logger())
		authorities, err := OpenAuthorities(files, path)
		if err != nil {
			t.Fatal(err)
		}
		go files.Run(t.Context())
		check := &ClientCertificate{Authorities: authorities}
		if err := check.Check(shown("192.0.2.1:1", byNewer)); err == nil {
			t.Error("accepted before its authority is there")
		}
		put(t, path, older.certPEM()+newer.certPEM())
		time.Sleep(2 * time.Second)
		if err := check.Check(shown("192.0.2.1:1", byNewer)); err != nil {
			t.Errorf("after its authority was added: %v", err)
		}
	})
}
