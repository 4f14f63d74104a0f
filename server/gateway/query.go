package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// errorDomain is the domain of every ErrorInfo of this service.
const errorDomain = "eventrelay"

// subscribeRequest reads the query and `Last-Event-ID`, which goes before any start that the query names: EventSource comes back to the address that it was made with.
// A durable subscription goes on where it is by itself, so there it counts for nothing. Unlike in the other calls a parameter that does not exist is an error: a stream with a mistyped filter would look like one that works.
func subscribeRequest(r *http.Request) (*eventrelayv1.SubscribeRequest, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("query", "it cannot be read: write every character beyond letters, digits and -._~ as %XX")
	}
	request := &eventrelayv1.SubscribeRequest{}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if err := setField(request, name, query[name]); err != nil {
			return nil, err
		}
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" && request.GetSubscription() == "" {
		if !utf8.ValidString(last) {
			return nil, invalid("Last-Event-ID", "it is not the id of an event of this service")
		}
		request.Start = &eventrelayv1.SubscribeRequest_Cursor{Cursor: last}
	}
	return request, nil
}

// setField sets a field of the request by its name in the proto or in JSON.
func setField(request *eventrelayv1.SubscribeRequest, name string, values []string) error {
	message := request.ProtoReflect()
	fields := message.Descriptor().Fields()
	field := fields.ByName(protoreflect.Name(name))
	if field == nil {
		field = fields.ByJSONName(name)
	}
	switch {
	case field == nil:
		return invalid(name, "there is no such parameter; there are "+strings.Join(names(fields), ", "))
	case len(values) > 1:
		return invalid(name, "it is given more than once")
	case !utf8.ValidString(values[0]):
		return invalid(name, "it is not UTF-8")
	case message.Has(field):
		return invalid(name, "it is given by both of its names")
	case field.ContainingOneof() != nil && message.WhichOneof(field.ContainingOneof()) != nil:
		return invalid(name, "a stream has one start: give only one of "+strings.Join(names(field.ContainingOneof().Fields()), ", "))
	}
	one := url.Values{string(field.Name()): values}
	if err := runtime.PopulateQueryParameters(request, one, utilities.NewDoubleArray(nil)); err != nil {
		return invalid(name, "it must be "+form(field))
	}
	return nil
}

// names lists fields.
func names(fields protoreflect.FieldDescriptors) []string {
	all := make([]string, fields.Len())
	for i := range all {
		all[i] = string(fields.Get(i).Name())
	}
	return all
}

// form says how the value of a field is written.
func form(field protoreflect.FieldDescriptor) string {
	switch {
	case field.Enum() != nil:
		var words []string
		for i := 1; i < field.Enum().Values().Len(); i++ {
			words = append(words, string(field.Enum().Values().Get(i).Name()))
		}
		return "one of " + strings.Join(words, ", ")
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Timestamp":
		return "a time such as 2026-11-21T09:00:00Z"
	case field.Message() != nil:
		return "a duration such as 5s"
	default:
		return "a whole number"
	}
}

// reason gives the word of a reason.
func reason(r eventrelayv1.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

// invalid makes the error for a parameter as the rules of the protos make it for a field.
func invalid(field, what string) error {
	text := fmt.Sprintf("%s: %s", field, what)
	withDetails, err := status.New(codes.InvalidArgument, text).WithDetails(
		&errdetails.ErrorInfo{Reason: reason(eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST), Domain: errorDomain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: what}}},
	)
	if err != nil {
		return status.Error(codes.InvalidArgument, text)
	}
	return withDetails.Err()
}
