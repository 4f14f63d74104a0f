package webhook

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"

	"eventrelay/server/journal"
	"eventrelay/server/source"
)

// kept are the headers that go into the inbox with the body: what the sender is, and what proves it. Credentials that a proxy
// adds (Authorization, cookies) stay out.
var kept = []string{
	"Content-Type",
	"User-Agent",
	"X-Hub-Signature-256",
	"X-360dialog-Signature",
	"Facebook-Api-Version", // canonical form of Facebook-API-Version
}

// receive takes one notification in. It returns nil once the answer is 200, which is after Append has returned nil.
func (h *handler) receive(w http.ResponseWriter, r *http.Request, e source.Endpoint) *refusal {
	if no := h.refuseUnread(r, e); no != nil {
		return no.unread(r)
	}

	reserved := int64(0)
	body, err := readBody(r.Body, r.ContentLength, h.maxBody, func(n int64) bool {
		if !h.large.TryAcquire(n) {
			return false
		}
		reserved = n
		return true
	})
	defer func() { h.large.Release(reserved) }()
	if err != nil {
		return refuseRead(err).unread(r)
	}

	if err := e.VerifySignature(r.Header, body); err != nil {
		return refuseSignature(e, err)
	}
	h.metrics.bodyBytes.Observe(float64(len(body)))
	if len(body) == 0 {
		return emptyBody
	}
	if !validJSON(body) {
		return notJSON
	}

	// The sender may hang up while the inbox syncs. The notification is whole and it is the provider's, so it is kept: if
	// the answer is lost the provider sends it again, and a copy is recognised.
	index, err := h.inbox.Append(context.WithoutCancel(r.Context()), journal.Record{
		Source:     e.ID,
		Provider:   int32(e.Provider),
		ReceivedAt: h.now().UTC(),
		Header:     keptHeaders(r.Header),
		Body:       body,
	})
	if err != nil {
		return refuseAppend(err)
	}
	if err := h.awaitLog(r.Context(), index); err != nil {
		return refuseLog(err)
	}
	e.Accepted(h.now())
	w.WriteHeader(http.StatusOK)
	return nil
}

// awaitLog returns nil once the log has the notification, if that is what the answer means.
func (h *handler) awaitLog(ctx context.Context, index uint64) error {
	if h.logged == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	return h.logged.Await(ctx, index)
}

// refuseUnread refuses what can be known to be in vain before any of the body has come.
func (h *handler) refuseUnread(r *http.Request, e source.Endpoint) *refusal {
	if e.Paused {
		return paused
	}
	if err := h.checkClient(r, e); err != nil {
		return refuseClient(err)
	}
	switch {
	case !isJSON(r.Header["Content-Type"]):
		return notJSONByType
	case !isIdentity(r.Header["Content-Encoding"]):
		// The signature is of the bytes before any coding, so what a coding hides cannot be checked as it comes.
		return encoded
	case r.ContentLength > h.maxBody:
		return tooLarge
	}
	if err := e.CheckSignatureHeader(r.Header); err != nil {
		return refuseSignature(e, err)
	}
	return nil
}

// errNoClientCheck says that a source asks for what nothing here can check.
var errNoClientCheck = errors.New("the source requires a client certificate, and the server has no way to check one: give it --client-ca-file or --client-cert-header")

// checkClient returns nil if the source requires no client certificate or the request comes with one.
func (h *handler) checkClient(r *http.Request, e source.Endpoint) error {
	switch {
	case !e.RequireClientCertificate:
		return nil
	case h.client == nil:
		return errNoClientCheck
	}
	return h.client.Check(r)
}

// isJSON reports whether the one Content-Type is application/json or has the suffix +json. Parameters are of no account, not
// even broken ones: JSON has no charset, and a notification is worth more than a semicolon.
func isJSON(values []string) bool {
	if len(values) != 1 {
		return false
	}
	if values[0] == "application/json" { // as nearly all say it
		return true
	}
	media, _, err := mime.ParseMediaType(values[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false
	}
	return media == "application/json" || strings.HasSuffix(media, "+json") && strings.Contains(media, "/")
}

func isIdentity(values []string) bool {
	for _, v := range values {
		if v != "" && !strings.EqualFold(v, "identity") {
			return false
		}
	}
	return true
}

func keptHeaders(from http.Header) http.Header {
	to := make(http.Header, len(kept))
	for _, name := range kept {
		if values := from[name]; len(values) > 0 {
			to[name] = values // which the inbox does not keep
		}
	}
	return to
}
