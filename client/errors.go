package client

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrPlaintext is what [Dial] answers for a target beyond this machine when nothing is said about transport.
	ErrPlaintext = errors.New("the target is not on this machine and no TLS is set: give WithTLS or WithTransportCredentials, or allow plain text with WithInsecure")
	// ErrCursorExpired says that retention has removed events behind the cursor. The error found with [errors.As] as an [ExpiredError] tells where reading can go on.
	ErrCursorExpired = errors.New("cursor expired")
	// ErrEventsLost says that retention has removed events before a durable subscription had them acknowledged. The error found with [errors.As] as a [LostError] tells which.
	ErrEventsLost = errors.New("events lost")
	// ErrClosed ends a Follow or Consume whose client was closed.
	ErrClosed = errors.New("client is closed")
)

// errorDomain marks the ErrorInfo of this service; one from another domain has other words.
const errorDomain = "eventrelay"

// ExpiredError says that events behind the cursor are gone, so that going on would leave a gap. It is an [ErrCursorExpired] and wraps the status it came as.
type ExpiredError struct {
	// EarliestCursor is where reading can go on with the first event that is still kept. Empty if the server did not say.
	EarliestCursor string

	err error
}

// Error tells what happened and where reading can go on.
func (e *ExpiredError) Error() string {
	text := "events behind the cursor were removed by retention"
	if e.EarliestCursor != "" {
		text += ", the earliest cursor is " + e.EarliestCursor
	}
	return text + ": " + e.err.Error()
}

// Is makes every ExpiredError an [ErrCursorExpired].
func (e *ExpiredError) Is(target error) bool { return target == ErrCursorExpired }

// Unwrap gives the status error.
func (e *ExpiredError) Unwrap() error { return e.err }

// LostError says that retention has removed events before they were acknowledged. The subscription delivers nothing to streams until a Seek settles it. It is an [ErrEventsLost]
// and wraps the status it came as.
type LostError struct {
	// First and Last are the sequences of the range that is lost.
	First, Last uint64

	err error
}

// Error tells what is lost.
func (e *LostError) Error() string {
	return fmt.Sprintf("events %d to %d are lost: %v", e.First, e.Last, e.err)
}

// Is makes every LostError an [ErrEventsLost].
func (e *LostError) Is(target error) bool { return target == ErrEventsLost }

// Unwrap gives the status error.
func (e *LostError) Unwrap() error { return e.err }

// Reason gives the reason that the server states for an error of a call or of a Follow, a word of `eventrelay.v1.ErrorReason` without its prefix:
// `CURSOR_EXPIRED`, `FILTER_INVALID`. Empty if the error has none.
func Reason(err error) string { return errorInfo(err).GetReason() }

// Detail gives one entry of the metadata that comes with an error's reason, such as `line` and `column` of `FILTER_INVALID`. Empty if there is none.
func Detail(err error, key string) string { return errorInfo(err).GetMetadata()[key] }

// errorInfo finds this service's ErrorInfo in an error; nil, which reads as empty, if there is none.
func errorInfo(err error) *errdetails.ErrorInfo {
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info
		}
	}
	return nil
}

// typed gives an expired cursor and lost events their own types and leaves every other error as it is.
func typed(err error) error {
	if status.Code(err) == codes.OutOfRange && Reason(err) == "CURSOR_EXPIRED" {
		return &ExpiredError{EarliestCursor: Detail(err, "earliest_cursor"), err: err}
	}
	if Reason(err) == "EVENTS_LOST" {
		first, _ := strconv.ParseUint(Detail(err, "first_sequence"), 10, 64) // 0 where the server did not say
		last, _ := strconv.ParseUint(Detail(err, "last_sequence"), 10, 64)
		return &LostError{First: first, Last: last, err: err}
	}
	return err
}

// final reports whether trying again cannot mend an error: the same request would be refused for the same reason.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound,
		codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}
