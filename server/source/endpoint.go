package source

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// The ways in which a signature does not prove its sender. They are told apart for who runs the relay; a sender is to get the
// same answer for all of them.
var (
	// ErrSignatureMissing means that the header is absent or empty. A signature of another scheme does not stand in for it.
	ErrSignatureMissing = errors.New("signature missing")
	// ErrSignatureMalformed means that the header cannot be a signature, or is given more than once.
	ErrSignatureMalformed = errors.New("signature malformed")
	// ErrSignatureWrong means that no configured secret makes this signature of this body.
	ErrSignatureWrong = errors.New("signature wrong")
)

// An Endpoint checks the senders of one source. It is safe for concurrent use, and no way of printing it shows a secret.
// The zero Endpoint accepts nothing.
type Endpoint struct {
	ID       string
	Provider eventrelayv1.Provider
	// Paused asks that notifications be refused for the time being; the handshake is answered all the same.
	Paused bool
	// RequireClientCertificate asks that the sender of a notification also show the provider's client certificate. The handshake does without: its token proves who asks.
	RequireClientCertificate bool

	// Unusable says that the source is there but this server cannot use its record, so that a notification is neither accepted nor told that it has no source.
	Unusable bool

	// The secrets live in closures, for nothing that goes through a value by reflection sees into one: fmt does that, past Format,
	// where it meets an Endpoint in an unexported field. All are nil or immutable.
	signed func(body []byte, digest [sha256.Size]byte) int
	token  func(token string) bool
	shown  func(header http.Header) bool

	// tally counts what comes in; nil in the zero Endpoint. The uses are those of what the closures check, in their order.
	tally                         *tally
	secretUses, tokenUse, showing []use
	// wanted are the canonical names of the headers that a sender must show.
	wanted []string
}

func newEndpoint(id string, src *eventrelayv1.Source, counted *tally, uses []use) Endpoint {
	e := Endpoint{
		ID:       id,
		Provider: src.GetProvider(),
		Paused:   src.GetPaused(),

		RequireClientCertificate: src.GetRequireClientCertificate(),

		signed: signedUnder(src.GetAppSecrets()),
		token:  tokenIs(src.GetVerifyToken()),
		shown:  headersAre(src.GetHeaders()),
		tally:  counted,
	}
	for _, u := range uses {
		switch {
		case strings.HasPrefix(u.field, "app_secrets["):
			e.secretUses = append(e.secretUses, u)
		case u.field == "verify_token":
			e.tokenUse = append(e.tokenUse, u)
		case strings.HasPrefix(u.field, "headers["):
			e.showing = append(e.showing, u)
		}
	}
	for name := range src.GetHeaders() {
		e.wanted = append(e.wanted, http.CanonicalHeaderKey(name))
	}
	return e
}

// signedUnder returns a function that says under which of the secrets digest is the HMAC-SHA256 of body, -1 if under none. Its time tells
// neither which nor how nearly. Secrets that are empty are left out, and not counted: anybody can sign under an empty key.
func signedUnder(secrets []string) func(body []byte, digest [sha256.Size]byte) int {
	var keys [][]byte
	for _, secret := range secrets {
		if secret != "" {
			keys = append(keys, []byte(secret))
		}
	}
	return func(body []byte, digest [sha256.Size]byte) int {
		which := -1
		for i, key := range keys {
			mac := hmac.New(sha256.New, key)
			mac.Write(body)
			which = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(mac.Sum(nil), digest[:]), i, which)
		}
		return which
	}
}

// tokenIs returns a function that reports whether a token is the configured one; nil where none is configured.
func tokenIs(configured string) func(token string) bool {
	if configured == "" {
		return nil
	}
	// Sums are compared, for they have one length whatever the tokens have.
	want := sha256.Sum256([]byte(configured))
	return func(token string) bool {
		got := sha256.Sum256([]byte(token))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
}

// headersAre returns a function that reports whether a header has all the configured fields, each once and with its value; nil where none is configured. Its time tells
// neither which is wrong nor how nearly.
func headersAre(configured map[string]string) func(header http.Header) bool {
	if len(configured) == 0 {
		return nil
	}
	names, want := make([]string, 0, len(configured)), make([][sha256.Size]byte, 0, len(configured))
	for name, value := range configured {
		names, want = append(names, http.CanonicalHeaderKey(name)), append(want, sha256.Sum256([]byte(value)))
	}
	return func(header http.Header) bool {
		matched := 1
		for i, name := range names {
			// Several values are joined by what no value can hold, so that they match nothing.
			got := sha256.Sum256([]byte(strings.Join(header[name], "\x00")))
			matched &= subtle.ConstantTimeCompare(got[:], want[i][:])
		}
		return matched == 1
	}
}

// SignatureHeader returns the canonical name of the header that carries the sender's signature, "" for a provider that does not sign.
func (e Endpoint) SignatureHeader() string {
	switch e.Provider {
	case eventrelayv1.Provider_PROVIDER_META:
		return "X-Hub-Signature-256"
	case eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER:
		return "X-360dialog-Signature"
	default:
		return ""
	}
}

// Handshake reports whether the provider asks for a handshake by GET before it posts.
func (e Endpoint) Handshake() bool { return e.Provider == eventrelayv1.Provider_PROVIDER_META }

// CheckSignatureHeader reports what can be known before the body is there: nil if the headers carry exactly one signature in
// the provider's form, else an error that wraps ErrSignatureMissing or ErrSignatureMalformed. It lets a receiver refuse
// who does not even claim to be the provider without taking in a body. Of a provider that does not sign, the headers are all there is to check, so then the
// answer is the one that VerifySignature gives.
func (e Endpoint) CheckSignatureHeader(header http.Header) error {
	if e.byHeaders() {
		return e.checkHeaders(header)
	}
	_, err := e.claim(header)
	return err
}

// VerifySignature returns nil if the headers carry the HMAC-SHA256 of exactly these body bytes under one of the endpoint's
// secrets, and else an error that wraps one of ErrSignatureMissing, ErrSignatureMalformed and ErrSignatureWrong. Every secret is
// tried, also after one has matched, and compared in constant time. Of a provider that does not sign, the headers must be those configured, all of them.
func (e Endpoint) VerifySignature(header http.Header, body []byte) error {
	if e.byHeaders() {
		if err := e.checkHeaders(header); err != nil {
			return err
		}
		for _, u := range e.showing {
			u.now()
		}
		return nil
	}
	claimed, err := e.claim(header)
	if err != nil {
		return err
	}
	which := -1
	if e.signed != nil {
		which = e.signed(body, claimed)
	}
	if which < 0 {
		return ErrSignatureWrong
	}
	e.secretUses[which].now()
	return nil
}

// byHeaders reports whether the provider does not sign but shows what was agreed on.
func (e Endpoint) byHeaders() bool {
	return e.Provider == eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL
}

// checkHeaders checks what a provider that does not sign shows.
func (e Endpoint) checkHeaders(header http.Header) error {
	for _, name := range e.wanted {
		if len(header[name]) == 0 {
			return ErrSignatureMissing
		}
	}
	if e.shown == nil || !e.shown(header) {
		return ErrSignatureWrong
	}
	return nil
}

// VerifyToken reports whether token is the configured verify token. Where none is configured nothing matches, nor does "".
func (e Endpoint) VerifyToken(token string) bool {
	if e.token == nil || !e.token(token) {
		return false
	}
	for _, u := range e.tokenUse {
		u.now()
	}
	return true
}

// Accepted counts a notification that was answered 200.
func (e Endpoint) Accepted(at time.Time) {
	if e.tally != nil {
		e.tally.accept(at)
	}
}

// Refused counts a request that was refused, for a reason out of a small set.
func (e Endpoint) Refused(reason string) {
	if e.tally != nil {
		e.tally.refuse(reason)
	}
}

// claim returns the digest that the headers claim for the body.
func (e Endpoint) claim(header http.Header) (digest [sha256.Size]byte, err error) {
	name := e.SignatureHeader()
	values := header.Values(name)
	if name == "" || len(values) == 0 || len(values) == 1 && values[0] == "" {
		return digest, ErrSignatureMissing
	}
	if len(values) > 1 {
		// Which of them a proxy in between has looked at is anybody's guess.
		return digest, fmt.Errorf("%w: header %s is given %d times", ErrSignatureMalformed, name, len(values))
	}
	text, prefixed := strings.CutPrefix(values[0], "sha256=")
	if !prefixed && e.Provider != eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER {
		return digest, fmt.Errorf("%w: header %s does not start with sha256=", ErrSignatureMalformed, name)
	}
	if len(text) != hex.EncodedLen(len(digest)) {
		return digest, fmt.Errorf("%w: header %s has %d digits instead of %d", ErrSignatureMalformed, name, len(text), hex.EncodedLen(len(digest)))
	}
	if _, err := hex.Decode(digest[:], []byte(text)); err != nil {
		return digest, fmt.Errorf("%w: header %s is not hexadecimal", ErrSignatureMalformed, name)
	}
	return digest, nil
}

// String names the endpoint without its secrets.
func (e Endpoint) String() string {
	return fmt.Sprintf("endpoint %s (%s)", e.ID, e.Provider)
}

// GoString is String: a dump of the fields would lead to the secrets.
func (e Endpoint) GoString() string { return e.String() }

// Format writes String whatever the verb and flags.
func (e Endpoint) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(e.String())) }

// LogValue gives a log record what String shows.
func (e Endpoint) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", e.ID), slog.String("provider", e.Provider.String()), slog.Bool("paused", e.Paused))
}
