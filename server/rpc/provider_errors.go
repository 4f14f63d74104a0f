package rpc

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/connection"
	"eventrelay/server/dialog360"
	"eventrelay/server/graph"
	"eventrelay/server/upstream"
)

// The domains of the ErrorInfo of what providers refuse.
const (
	graphDomain     = "graph.facebook.com"
	dialog360Domain = "360dialog.io"
)

// otherProviderError says that a call is not for sources of that provider.
type otherProviderError struct {
	source    string
	is, wants eventrelayv1.Provider
}

func (e *otherProviderError) Error() string {
	return fmt.Sprintf("%s is of %s; this call is for a source of %s", e.source, e.is, e.wants)
}

// kindCodes is the table from what a provider's refusal means to the code that clients see.
var kindCodes = map[upstream.Kind]codes.Code{
	upstream.Unknown:            codes.Unknown,
	upstream.Unauthenticated:    codes.Unauthenticated,
	upstream.PermissionDenied:   codes.PermissionDenied,
	upstream.InvalidArgument:    codes.InvalidArgument,
	upstream.NotFound:           codes.NotFound,
	upstream.ResourceExhausted:  codes.ResourceExhausted,
	upstream.Unavailable:        codes.Unavailable,
	upstream.FailedPrecondition: codes.FailedPrecondition,
	upstream.Internal:           codes.Internal,
}

// providerStatus is the part of toStatus that is about providers and their APIs; nil for any other error.
func providerStatus(err error) *status.Status {
	var (
		refusedByGraph *graph.Error
		refusedBy360   *dialog360.Error
		override       *graph.OverrideError
		invalid        *upstream.InvalidError
		undeclarable   *connection.InvalidError
		missing        *upstream.CredentialMissingError
		other          *otherProviderError
	)
	switch {
	case errors.As(err, &refusedByGraph):
		return graphStatus(err, refusedByGraph)
	case errors.As(err, &refusedBy360):
		return dialog360Status(err, refusedBy360)
	case errors.As(err, &override):
		return newStatus(codes.FailedPrecondition, override.Error(), eventrelayv1.ErrorReason_ERROR_REASON_OVERRIDE_WOULD_BE_LOST, map[string]string{"override_callback_uri": override.URI})
	case errors.As(err, &invalid):
		return invalidField(invalid.Field, invalid.Problem)
	case errors.As(err, &undeclarable):
		return invalidField(undeclarable.Field, undeclarable.Problem)
	case errors.As(err, &missing):
		return newStatus(codes.FailedPrecondition, missing.Error(), eventrelayv1.ErrorReason_ERROR_REASON_CREDENTIALS_MISSING, map[string]string{"field": missing.Field})
	case errors.As(err, &other):
		return newStatus(codes.FailedPrecondition, other.Error(), eventrelayv1.ErrorReason_ERROR_REASON_CREDENTIALS_MISSING, map[string]string{"source": other.source, "field": "provider"})
	case errors.Is(err, connection.ErrNotDeclared):
		return newStatus(codes.FailedPrecondition, connection.ErrNotDeclared.Error(), eventrelayv1.ErrorReason_ERROR_REASON_SUBSCRIPTIONS_NOT_DECLARED, nil)
	}
	return nil
}

// invalidField is the status of an argument that a provider could never take.
func invalidField(field, problem string) *status.Status {
	request := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: problem}}}
	return newStatus(codes.InvalidArgument, violationText(request), eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, nil, request)
}

// graphStatus keeps what Meta's support asks for. Texts of the client have no credential in them.
func graphStatus(err error, refused *graph.Error) *status.Status {
	metadata := map[string]string{"is_transient": strconv.FormatBool(refused.Transient)}
	maps.Copy(metadata, number("code", refused.Code))
	maps.Copy(metadata, number("subcode", refused.Subcode))
	maps.Copy(metadata, number("http_status", refused.HTTPStatus))
	if refused.TraceID != "" {
		metadata["fbtrace_id"] = refused.TraceID
	}
	reason := "GRAPH_ERROR"
	if refused.Type != "" {
		reason = upperSnake(refused.Type)
	}
	return refusal(kindCodes[refused.Kind], err, &errdetails.ErrorInfo{Reason: reason, Domain: graphDomain, Metadata: metadata}, refused.RetryAfter)
}

func dialog360Status(err error, refused *dialog360.Error) *status.Status {
	metadata := number("http_status", refused.HTTPStatus)
	if refused.Code != "" {
		metadata["code"] = refused.Code
	}
	return refusal(kindCodes[refused.Kind], err, &errdetails.ErrorInfo{Reason: "DIALOG360_ERROR", Domain: dialog360Domain, Metadata: metadata}, refused.RetryAfter)
}

func number(key string, n int) map[string]string {
	if n == 0 {
		return map[string]string{}
	}
	return map[string]string{key: strconv.Itoa(n)}
}

// refusal is the status of what a provider refused, with when to come back if that is known.
func refusal(code codes.Code, err error, info *errdetails.ErrorInfo, after time.Duration) *status.Status {
	details := []protoadapt.MessageV1{info}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	s, detailsErr := status.New(code, err.Error()).WithDetails(details...)
	if detailsErr != nil {
		return status.New(code, err.Error())
	}
	return s
}

// upperSnake writes a word such as OAuthException as a reason: OAUTH_EXCEPTION.
func upperSnake(word string) string {
	var b strings.Builder
	before := rune(0)
	for _, r := range word {
		switch {
		case r >= 'a' && r <= 'z':
			b.WriteRune(r - 'a' + 'A')
		case r >= 'A' && r <= 'Z':
			if before >= 'a' && before <= 'z' {
				b.WriteByte('_')
			}
			b.WriteRune(r)
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
		before = r
	}
	return b.String()
}
