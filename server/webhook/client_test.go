package webhook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"eventrelay/server/source"
	"eventrelay/server/webhook"
)

// strict are sources that all require a client certificate.
type strict struct{ webhook.Sources }

func (s strict) Endpoint(id string) (source.Endpoint, bool) {
	e, ok := s.Sources.Endpoint(id)
	e.RequireClientCertificate = true
	return e, ok
}

// checker accepts requests with a header of the test.
type checker struct{}

func (checker) Check(r *http.Request) error {
	if r.Header.Get("X-Test-Certificate") != "good" {
		return errors.New("not the certificate of the tests")
	}
	return nil
}

func TestASourceThatRequiresAClientCertificateTakesNothingWithoutIt(t *testing.T) {
	r := start(t, func(_ *relay, o *webhook.Options) { o.Sources, o.ClientCertificate = strict{o.Sources}, checker{} })
	got := r.post(shopSecret, message)
	if got.code != http.StatusForbidden || !strings.Contains(got.body, "client certificate") || strings.Contains(got.body, "of the tests") {
		t.Errorf("without: %+v", got)
	}
	r.nothingStored()
	if n := r.counters("eventrelay_webhook_refused_total"); len(n) == 0 || !strings.Contains(r.log.String(), "reason=client_certificate") || !strings.Contains(r.log.String(), "not the certificate of the tests") {
		t.Errorf("counted %v, log %s", n, r.log.String())
	}
	if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", hubSignature, sign("wrong", message), "X-Test-Certificate", "good"); got.code != http.StatusUnauthorized {
		t.Errorf("with the certificate and without the signature: %+v", got)
	}
	r.nothingStored()
	if got := r.do("POST", "/webhooks/shop", strings.NewReader(message), jsonType, "application/json", hubSignature, sign(shopSecret, message), "X-Test-Certificate", "good"); got.code != http.StatusOK {
		t.Errorf("with both: %+v", got)
	}
	if got := r.do("GET", "/webhooks/shop?hub.mode=subscribe&hub.verify_token="+shopToken+"&hub.challenge=1", nil); got.code != http.StatusOK {
		t.Errorf("the handshake, whose token proves who asks: %+v", got)
	}
}

func TestARequiredCertificateThatNothingCanCheckIsRefused(t *testing.T) {
	r := start(t, func(_ *relay, o *webhook.Options) { o.Sources = strict{o.Sources} })
	if got := r.post(shopSecret, message); got.code != http.StatusForbidden {
		t.Errorf("answered %+v", got)
	}
	r.nothingStored()
	if !strings.Contains(r.log.String(), "--client-ca-file") {
		t.Errorf("the log does not say what to do: %s", r.log.String())
	}
}

func TestOtherSourcesTakeNotificationsWithoutACertificate(t *testing.T) {
	r := start(t, func(_ *relay, o *webhook.Options) { o.ClientCertificate = checker{} })
	if got := r.post(shopSecret, message); got.code != http.StatusOK {
		t.Errorf("answered %+v", got)
	}
}
