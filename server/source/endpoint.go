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

	// The secrets live in closures, for nothing that goes through a value by reflection sees into one: fmt does that, past Format,
	// where it meets an Endpoint in an unexported field. Both are nil or immutable.
	signed func(body []byte, digest [sha256.Size]byte) bool
	token  func(token string) bool
}

func newEndpoint(id string, src *eventrelayv1.Source) Endpoint {
	return Endpoint{
		ID:       id,
		Provider: src.GetProvider(),
		Paused:   src.GetPaused(),
		signed:   signedUnder(src.GetAppSecrets()),
		token:    tokenIs(src.GetVerifyToken()),
	}
}

// signedUnder returns a function that reports whether digest is the HMAC-SHA256 of body under any of the secrets. Its time tells
// neither which nor how nearly.
func signedUnder(secrets []string) func(body []byte, digest [sha256.Size]byte) bool {
	var keys [][]byte
	for _, secret := range secrets {
		// Anybody can sign under an empty key.
		if secret != "" {
			keys = append(keys, []byte(secret))
		}
	}
	return func(body []byte, digest [sha256.Size]byte) bool {
		matched := 0
		for _, key := range keys {
			mac := hmac.New(sha256.New, key)
			mac.Write(body)
			matched |= subtle.ConstantTimeCompare(mac.Sum(nil), digest[:])
		}
		return matched == 1
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
// who does not even claim to be the provider without taking in a body.
func (e Endpoint) CheckSignatureHeader(header http.Header) error {
	_, err := e.claim(header)
	return err
}

// VerifySignature returns nil if the headers carry the HMAC-SHA256 of exactly these body bytes under one of the endpoint's
// secrets, and else an error that wraps one of ErrSignatureMissing, ErrSignatureMalformed and ErrSignatureWrong. Every secret is
// tried, also after one has matched, and compared in constant time.
func (e Endpoint) VerifySignature(header http.Header, body []byte) error {
	claimed, err := e.claim(header)
	if err != nil {
		return err
	}
	if e.signed == nil || !e.signed(body, claimed) {
		return ErrSignatureWrong
	}
	return nil
}

// VerifyToken reports whether token is the configured verify token. Where none is configured nothing matches, nor does "".
func (e Endpoint) VerifyToken(token string) bool {
	return e.token != nil && e.token(token)
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
