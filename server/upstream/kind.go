package upstream

import (
	"errors"
	"fmt"
	"time"
)

// A Kind says what a failure means to whoever called. The words are those of google.rpc.Code.
type Kind int

// The kinds of failure.
const (
	// Unknown is a failure whose meaning the provider keeps to itself.
	Unknown Kind = iota
	// Unauthenticated says that the credentials are not valid, or no longer.
	Unauthenticated
	// PermissionDenied says that the credentials are valid and do not suffice.
	PermissionDenied
	// InvalidArgument says that the request can never succeed as it is.
	InvalidArgument
	// NotFound says that what the request names does not exist, or not for these credentials.
	NotFound
	// ResourceExhausted says that there were too many calls.
	ResourceExhausted
	// Unavailable says that the same call may succeed in a while.
	Unavailable
	// FailedPrecondition says that something else must change first.
	FailedPrecondition
	// Internal is a fault of the provider that it does not call passing.
	Internal
)

var kindNames = [...]string{
	Unknown: "unknown", Unauthenticated: "unauthenticated", PermissionDenied: "permission denied", InvalidArgument: "invalid argument",
	NotFound: "not found", ResourceExhausted: "resource exhausted", Unavailable: "unavailable", FailedPrecondition: "failed precondition", Internal: "internal",
}

// String returns the kind in words.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindNames[k]
}

// KindOfStatus returns what an HTTP status means where the body does not say it better.
func KindOfStatus(status int) Kind {
	switch {
	case status == 400 || status == 422:
		return InvalidArgument
	case status == 401:
		return Unauthenticated
	case status == 403:
		return PermissionDenied
	case status == 404:
		return NotFound
	case status == 409 || status == 412:
		return FailedPrecondition
	case status == 429:
		return ResourceExhausted
	case status >= 500:
		return Unavailable
	}
	return Unknown
}

// An Error is a call without a usable answer. Its message has no secret in it.
type Error struct {
	Kind Kind
	// Status is the HTTP status, 0 without an answer.
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Again reports whether the call may be repeated.
func (e *Error) Again() (time.Duration, bool) { return 0, e.Kind == Unavailable }

// ErrCredentialMissing says that a call was not made, for it needs a credential that was not given. The error that wraps it is a *CredentialMissingError.
var ErrCredentialMissing = errors.New("credential missing")

// A CredentialMissingError names the credential that a call needs.
type CredentialMissingError struct {
	// Field is the credential's name, Use what the provider wants it for.
	Field, Use string
}

func (e *CredentialMissingError) Error() string {
	return fmt.Sprintf("%v: %s; %s", ErrCredentialMissing, e.Field, e.Use)
}

// Unwrap returns ErrCredentialMissing.
func (*CredentialMissingError) Unwrap() error { return ErrCredentialMissing }

// An InvalidError says that a call was not made, for the provider could never take one of its arguments.
type InvalidError struct {
	// Field is the argument, by its name in the provider's API.
	Field string
	// Problem is what is wrong with it and how to put it right.
	Problem string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }
