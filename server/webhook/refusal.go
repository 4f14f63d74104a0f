package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"eventrelay/server/journal"
	"eventrelay/server/source"
)

// retryAfter is what a 503 asks for. Providers keep to a schedule of their own; for who does read it, ten seconds are enough
// for a restart or a trim, and few enough not to lengthen an outage.
const retryAfter = "10"

// A refusal is an answer other than 200. The ones below are shared and not to be changed.
type refusal struct {
	status int
	reason string // of a fixed set, for the metrics and the log
	text   string // what is wrong and what to do, in one line; nothing of the request
	allow  string // the Allow header of a 405
	close  bool   // the body has not been read, so the connection is of no more use
	err    error  // what lies behind it, for the log only
}

const handshakeText = "handshake refused: hub.mode must be subscribe, hub.verify_token the token of this source, and hub.challenge be there, each once"

var (
	unknownSource = &refusal{status: http.StatusNotFound, reason: "unknown_source", text: "no such source: the path must be /webhooks/ and the id of a configured source"}
	notReady      = &refusal{status: http.StatusServiceUnavailable, reason: "not_ready", text: "the sources are not loaded yet: try again later"}
	unusable      = &refusal{status: http.StatusServiceUnavailable, reason: "unusable_source", text: "the source cannot be used by this server at the moment: try again later"}
	methodGetPost = &refusal{status: http.StatusMethodNotAllowed, reason: "method", allow: "GET, POST", text: "method not allowed: GET for the handshake, POST for a notification"}
	methodPost    = &refusal{status: http.StatusMethodNotAllowed, reason: "method", allow: "POST", text: "method not allowed: this provider has no handshake, POST a notification"}

	handshakeMode      = &refusal{status: http.StatusForbidden, reason: "handshake_mode", text: handshakeText}
	handshakeToken     = &refusal{status: http.StatusForbidden, reason: "handshake_token", text: handshakeText}
	handshakeChallenge = &refusal{status: http.StatusForbidden, reason: "handshake_challenge", text: handshakeText}

	paused        = &refusal{status: http.StatusServiceUnavailable, reason: "paused", text: "the source is paused: try again later"}
	notJSONByType = &refusal{status: http.StatusUnsupportedMediaType, reason: "content_type", text: "not JSON by type: the header Content-Type must be application/json"}
	encoded       = &refusal{status: http.StatusUnsupportedMediaType, reason: "content_encoding", text: "the body is encoded: send it without a Content-Encoding"}
	tooLarge      = &refusal{status: http.StatusRequestEntityTooLarge, reason: "too_large", text: "the body is over the limit: send less at once, or raise the limit of the relay"}
	busy          = &refusal{status: http.StatusServiceUnavailable, reason: "busy", text: "too many large bodies at once: try again later"}
	incomplete    = &refusal{status: http.StatusBadRequest, reason: "incomplete", text: "the body does not have the length that was declared, or was cut off: send it whole"}
	tooSlow       = &refusal{status: http.StatusRequestTimeout, reason: "too_slow", text: "the body did not come in time: send it faster"}
	emptyBody     = &refusal{status: http.StatusBadRequest, reason: "empty", text: "the body is empty: send the notification as JSON"}
	notJSON       = &refusal{status: http.StatusBadRequest, reason: "not_json", text: "the body is not JSON: send exactly one JSON value"}
)

// refuseRead refuses a body that could not be read.
func refuseRead(err error) *refusal {
	no := *incomplete
	var limited *http.MaxBytesError
	switch {
	case errors.Is(err, errTooLarge), errors.As(err, &limited):
		no = *tooLarge
	case errors.Is(err, errBusy):
		no = *busy
	case errors.Is(err, os.ErrDeadlineExceeded):
		no = *tooSlow
	}
	no.err = err
	return &no
}

// refuseClient refuses a sender that does not show the provider's client certificate.
func refuseClient(err error) *refusal {
	return &refusal{status: http.StatusForbidden, reason: "client_certificate", text: "client certificate missing or wrong: this source takes notifications only from who shows the provider's", err: err}
}

// refuseSignature answers alike whatever is wrong with a signature, or with the headers that stand in for one: the reason is for who runs the relay.
func refuseSignature(e source.Endpoint, err error) *refusal {
	reason := "signature_wrong"
	switch {
	case errors.Is(err, source.ErrSignatureMissing):
		reason = "signature_missing"
	case errors.Is(err, source.ErrSignatureMalformed):
		reason = "signature_malformed"
	}
	text := "signature missing or wrong: the header " + e.SignatureHeader() + " must be sha256= and the HMAC-SHA256 of the body in hexadecimal, under the app secret of this source"
	if e.SignatureHeader() == "" {
		text = "credentials missing or wrong: the headers that this source was registered with must be there, each once, with exactly the values given"
	}
	return &refusal{status: http.StatusUnauthorized, reason: reason, text: text, err: err}
}

// refuseAppend answers for an inbox that did not take a notification. All but a record that can never fit is worth a retry.
func refuseAppend(err error) *refusal {
	no := refusal{status: http.StatusServiceUnavailable, reason: "inbox_failed", text: "the notification could not be stored: try again later", err: err}
	switch {
	case errors.Is(err, journal.ErrTooLarge):
		no = *tooLarge
		no.err = err
	case errors.Is(err, journal.ErrFull):
		no.reason = "inbox_full"
	case errors.Is(err, journal.ErrClosed):
		no.reason = "inbox_closed"
	}
	return &no
}

// refuseLog answers for a log that did not take in time what the inbox has. It will, and the copy that the provider sends then is recognised.
func refuseLog(err error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: "log_timeout", text: "the log did not acknowledge the notification in time: try again later", err: err}
}

// unread returns the refusal for a request whose body may not have been read to its end: the server would take in up to 256 KiB
// of it before it sends the answer, to save the connection, and so let a slow sender hold it.
func (no *refusal) unread(r *http.Request) *refusal {
	if r.ContentLength == 0 {
		return no
	}
	closing := *no
	closing.close = true
	return &closing
}

// code is the status that was answered; a nil refusal is a 200.
func (no *refusal) code() int {
	if no == nil {
		return http.StatusOK
	}
	return no.status
}

func (no *refusal) write(w http.ResponseWriter) {
	if no.close {
		w.Header().Set("Connection", "close")
	}
	if no.allow != "" {
		w.Header().Set("Allow", no.allow)
	}
	if no.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	http.Error(w, no.text, no.status)
}

// logInterval is the least time between two lines of one kind: a flood of refusals makes no more than 86 400 lines a day of
// each kind, and there are as many kinds as sources times reasons.
const logInterval = time.Second

// A refusalLog writes refusals at a rate that a flood cannot raise. It is safe for concurrent use.
type refusalLog struct {
	logger *slog.Logger

	mu    sync.Mutex // guards kinds
	kinds map[kind]*lately
}

type kind struct{ source, reason string }

// lately is what happened to one kind since its last line.
type lately struct {
	at      time.Time
	leftOut int
}

// refused logs the refusal, or counts it for the next line of its kind. What is left out last is seen in the metrics only.
func (l *refusalLog) refused(ctx context.Context, now time.Time, known string, no *refusal) {
	leftOut, ok := l.due(now, kind{known, no.reason})
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("source", known),
		slog.String("reason", no.reason),
		slog.Int("status", no.status),
		slog.Int("left_out", leftOut),
	}
	if no.err != nil {
		attrs = append(attrs, slog.Any("error", no.err))
	}
	l.logger.LogAttrs(ctx, slog.LevelWarn, "webhook request refused", attrs...)
}

// due reports whether a line of the kind may be written now, and how many were left out before it.
func (l *refusalLog) due(now time.Time, k kind) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, seen := l.kinds[k]
	switch {
	case !seen:
		if l.kinds == nil {
			l.kinds = make(map[kind]*lately)
		}
		l.kinds[k] = &lately{at: now}
		return 0, true
	case now.Sub(last.at) < logInterval:
		last.leftOut++
		return 0, false
	}
	leftOut = last.leftOut
	*last = lately{at: now}
	return leftOut, true
}
