package webhook

import (
	"io"
	"net/http"

	"eventrelay/server/source"
)

// handshake answers the provider's question whether we are who was registered: whoever shows the token gets the challenge
// back. The callback URL may have a query of its own, to which the provider appends.
//
// Each of the three parameters must be there exactly once. Given twice, it would be undecided which one counts; a handshake
// without a challenge asks for nothing and is as wrong as one without a token.
func handshake(w http.ResponseWriter, r *http.Request, e source.Endpoint) *refusal {
	query := r.URL.Query()
	mode, token, challenge := query["hub.mode"], query["hub.verify_token"], query["hub.challenge"]
	switch {
	case len(mode) != 1 || mode[0] != "subscribe":
		return handshakeMode.unread(r)
	case len(token) != 1 || !e.VerifyToken(token[0]):
		return handshakeToken.unread(r)
	case len(challenge) != 1 || challenge[0] == "":
		return handshakeChallenge.unread(r)
	}
	// The challenge is the sender's text: no browser may take it for a page.
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, challenge[0]) // An error means that nobody reads it any more.
	return nil
}
