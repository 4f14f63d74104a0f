package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/auth"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
	"eventrelay/server/hub"
	"eventrelay/server/source"
	durable "eventrelay/server/subscription"
)

// domain is the domain of every ErrorInfo of this service.
const domain = "eventrelay"

// notFoundError says that a named thing does not exist.
type notFoundError struct {
	reason    eventrelayv1.ErrorReason
	key, name string
	hint      string
}

func (e *notFoundError) Error() string {
	return fmt.Sprintf("%s %q not found%s", e.key, e.name, e.hint)
}

// expiredError says that retention has overtaken a cursor.
type expiredError struct {
	// earliest is the cursor in front of the first event that is still kept.
	earliest string
}

func (e *expiredError) Error() string {
	return "events behind the cursor have been removed by retention: go on from earliest_cursor, or from a time"
}

// lostError says that retention took events before a subscription had them acknowledged.
type lostError struct {
	subscription string
	events       *eventrelayv1.LostEvents
}

func (e *lostError) Error() string {
	return fmt.Sprintf("retention has removed %d events of %s, %d to %d, before they were acknowledged: a seek settles it",
		e.events.GetCount(), e.subscription, e.events.GetFirstSequence(), e.events.GetLastSequence())
}

// metadata is what a client needs to tell its people.
func (e *lostError) metadata() map[string]string {
	return map[string]string{
		"subscription": e.subscription, "first_sequence": strconv.FormatUint(e.events.GetFirstSequence(), 10),
		"last_sequence": strconv.FormatUint(e.events.GetLastSequence(), 10), "count": strconv.FormatUint(e.events.GetCount(), 10),
	}
}

// errStreamAge says that a stream has lived for as long as one may.
var errStreamAge = errors.New("the stream has reached its maximum age: reconnect with the last cursor")

// sentinels is the table from errors to status codes and reasons. What carries details of its own is in toStatus.
var sentinels = []struct {
	err    error
	code   codes.Code
	reason eventrelayv1.ErrorReason
}{
	{errCursorMalformed, codes.InvalidArgument, eventrelayv1.ErrorReason_ERROR_REASON_CURSOR_MALFORMED},
	{errCursorForeign, codes.InvalidArgument, eventrelayv1.ErrorReason_ERROR_REASON_CURSOR_FOREIGN},
	{errPageTokenInvalid, codes.InvalidArgument, eventrelayv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID},
	{auth.ErrTokenMissing, codes.Unauthenticated, eventrelayv1.ErrorReason_ERROR_REASON_TOKEN_MISSING},
	{auth.ErrTokenInvalid, codes.Unauthenticated, eventrelayv1.ErrorReason_ERROR_REASON_TOKEN_INVALID},
	{auth.ErrTokenExpired, codes.Unauthenticated, eventrelayv1.ErrorReason_ERROR_REASON_TOKEN_EXPIRED},
	{source.ErrNotFound, codes.NotFound, eventrelayv1.ErrorReason_ERROR_REASON_SOURCE_NOT_FOUND},
	{source.ErrExists, codes.AlreadyExists, eventrelayv1.ErrorReason_ERROR_REASON_SOURCE_EXISTS},
	{source.ErrReadOnly, codes.FailedPrecondition, eventrelayv1.ErrorReason_ERROR_REASON_SOURCE_READ_ONLY},
	{source.ErrStale, codes.Aborted, eventrelayv1.ErrorReason_ERROR_REASON_ETAG_STALE},
	{source.ErrNotLoaded, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE},
	{errStreamAge, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_STREAM_AGED},
	{durable.ErrNotFound, codes.NotFound, eventrelayv1.ErrorReason_ERROR_REASON_SUBSCRIPTION_NOT_FOUND},
	{durable.ErrExists, codes.AlreadyExists, eventrelayv1.ErrorReason_ERROR_REASON_SUBSCRIPTION_EXISTS},
	{durable.ErrStale, codes.Aborted, eventrelayv1.ErrorReason_ERROR_REASON_ETAG_STALE},
	{durable.ErrAckID, codes.InvalidArgument, eventrelayv1.ErrorReason_ERROR_REASON_ACK_ID_INVALID},
	{durable.ErrClosed, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN},
	{durable.ErrDeadLetter, codes.NotFound, eventrelayv1.ErrorReason_ERROR_REASON_DEAD_LETTER_NOT_FOUND},
	{hub.ErrClosed, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN},
	{eventlog.ErrUnavailable, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE},
	{eventlog.ErrReplaced, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE},
	{eventlog.ErrClosed, codes.Unavailable, eventrelayv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN},
}

// toStatus gives an error of the rooms below the status that clients see. A fault of our own is told as such, without its text, which may say what is not the caller's.
func toStatus(err error) *status.Status {
	var (
		invalid  *protovalidate.ValidationError
		expired  *expiredError
		lost     *lostError
		notFound *notFoundError
		badExpr  *filter.InvalidError
		role     *auth.RoleError
		badInput *source.InvalidError
		state    *source.StateError
		tooMany  *tooManyError
		badSub   *durable.InvalidError
		subState *durable.StateError
	)
	switch {
	case errors.As(err, &invalid):
		request := &errdetails.BadRequest{}
		for _, v := range invalid.Violations {
			request.FieldViolations = append(request.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: protovalidate.FieldPathString(v.Proto.GetField()), Description: v.Proto.GetMessage(), Reason: strings.ToUpper(strings.NewReplacer(".", "_").Replace(v.Proto.GetRuleId())),
			})
		}
		return newStatus(codes.InvalidArgument, violationText(request), eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, nil, request)
	case errors.As(err, &expired):
		return newStatus(codes.OutOfRange, err.Error(), eventrelayv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED, map[string]string{"earliest_cursor": expired.earliest})
	case errors.As(err, &lost):
		return newStatus(codes.OutOfRange, err.Error(), eventrelayv1.ErrorReason_ERROR_REASON_EVENTS_LOST, lost.metadata())
	case errors.As(err, &notFound):
		return newStatus(codes.NotFound, err.Error(), notFound.reason, map[string]string{notFound.key: notFound.name})
	case errors.As(err, &tooMany):
		return newStatus(codes.ResourceExhausted, err.Error(), eventrelayv1.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS, map[string]string{"max_streams": strconv.Itoa(tooMany.max)})
	case errors.As(err, &badExpr):
		metadata := map[string]string{}
		if badExpr.Line > 0 {
			metadata["line"], metadata["column"] = strconv.Itoa(badExpr.Line), strconv.Itoa(badExpr.Column)
		}
		request := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "filter", Description: badExpr.Message}}}
		return newStatus(codes.InvalidArgument, err.Error(), eventrelayv1.ErrorReason_ERROR_REASON_FILTER_INVALID, metadata, request)
	case errors.As(err, &role):
		return newStatus(codes.PermissionDenied, err.Error(), eventrelayv1.ErrorReason_ERROR_REASON_ROLE_INSUFFICIENT, map[string]string{"required_role": role.RequiredName()})
	case errors.As(err, &badInput):
		request := &errdetails.BadRequest{}
		for _, v := range badInput.Violations {
			request.FieldViolations = append(request.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		return newStatus(codes.InvalidArgument, violationText(request), eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, nil, request)
	case errors.As(err, &badSub):
		request := &errdetails.BadRequest{}
		for _, v := range badSub.Violations {
			request.FieldViolations = append(request.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		return newStatus(codes.InvalidArgument, violationText(request), eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, nil, request)
	}
	if s := providerStatus(err); s != nil {
		return s
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the call's deadline has passed")
	}
	for _, s := range sentinels {
		if !errors.Is(err, s.err) {
			continue
		}
		if errors.As(err, &subState) {
			return newStatus(s.code, subState.Error(), s.reason, subscriptionMetadata(subState), subscriptionDetails(subState)...)
		}
		if errors.As(err, &state) {
			return newStatus(s.code, state.Error(), s.reason, sourceMetadata(state))
		}
		return newStatus(s.code, s.err.Error(), s.reason, nil)
	}
	if s, ok := status.FromError(err); ok { // an error of gRPC itself, such as that of a broken stream
		return s
	}
	return newStatus(codes.Internal, "internal error; the server's log has the details", eventrelayv1.ErrorReason_ERROR_REASON_INTERNAL, nil)
}

// sourceMetadata is what a client needs to go on: the source's name, and its etag where that is what was wrong.
func sourceMetadata(state *source.StateError) map[string]string {
	metadata := map[string]string{"source": state.Name}
	if state.Etag != "" {
		metadata["etag"] = state.Etag
	}
	return metadata
}

// subscriptionMetadata is what a client needs to go on: the subscription's name, and its etag or the dead letter where that is what was wrong.
func subscriptionMetadata(state *durable.StateError) map[string]string {
	metadata := map[string]string{"subscription": state.Name}
	if state.Etag != "" {
		metadata["etag"] = state.Etag
	}
	if state.ID != "" {
		metadata["id"] = state.ID
	}
	return metadata
}

// subscriptionDetails names each field of the request that is at fault.
func subscriptionDetails(state *durable.StateError) (details []protoadapt.MessageV1) {
	if len(state.Fields) == 0 {
		return nil
	}
	request := &errdetails.BadRequest{}
	for _, field := range state.Fields {
		request.FieldViolations = append(request.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: "it is no ack_id of this subscription: use one as it was received"})
	}
	return append(details, request)
}

// violationText names every field that breaks a rule, with the rule.
func violationText(request *errdetails.BadRequest) string {
	var parts []string
	for _, v := range request.GetFieldViolations() {
		if v.GetField() == "" {
			parts = append(parts, v.GetDescription())
		} else {
			parts = append(parts, v.GetField()+": "+v.GetDescription())
		}
	}
	return strings.Join(parts, "; ")
}

// newStatus makes a status with an ErrorInfo and further details.
func newStatus(code codes.Code, message string, reason eventrelayv1.ErrorReason, metadata map[string]string, details ...protoadapt.MessageV1) *status.Status {
	info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(reason.String(), "ERROR_REASON_"), Domain: domain, Metadata: metadata}
	s, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return status.New(code, message)
	}
	return s
}

// statusErrors turns the errors of handlers into statuses and logs those that are our own fault.
type statusErrors struct{ logger *slog.Logger }

func (i statusErrors) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, i.convert(ctx, info.FullMethod, err)
}

func (i statusErrors) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return i.convert(stream.Context(), info.FullMethod, handler(srv, stream))
}

func (i statusErrors) convert(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	s := toStatus(err)
	if s.Code() == codes.Internal {
		i.logger.ErrorContext(ctx, "call failed", "method", method, "error", err)
	}
	return s.Err()
}
