package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// answerError answers with a google.rpc.Status. Those of the RPCs have a reason; what the gateway itself refuses, for it never became an RPC, is given one here.
func answerError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if st := status.Convert(err); len(st.Details()) == 0 && st.Code() == codes.InvalidArgument {
		err = withReason(st, eventrelayv1.ErrorReason_ERROR_REASON_INVALID_REQUEST)
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}

// answerNoRoute answers for a path that no RPC has, or not with this method.
func answerNoRoute(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	st := status.New(codes.NotFound, fmt.Sprintf("there is no %s; /openapi.json and /docs have all that there is", r.URL.Path))
	switch httpStatus {
	case http.StatusMethodNotAllowed:
		st = status.Newf(codes.Unimplemented, "%s cannot be called by %s; /openapi.json and /docs tell by what", r.URL.Path, r.Method)
	case http.StatusBadRequest:
		st = status.New(codes.InvalidArgument, "the path is not one that can be read")
	}
	reason := eventrelayv1.ErrorReason_ERROR_REASON_ROUTE_NOT_FOUND
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: httpStatus, Err: withReason(st, reason)})
}

func withReason(st *status.Status, reason eventrelayv1.ErrorReason) error {
	info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(reason.String(), "ERROR_REASON_"), Domain: "eventrelay"}
	detailed, err := st.WithDetails(info)
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

// parameters reads the query of a URL into a request. A parameter that the call does not have is refused, not passed over: a filter with a slip in its name would else find
// everything.
type parameters struct{ runtime.DefaultQueryParser }

// Parse implements runtime.QueryParameterParser.
func (p *parameters) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name, _, _ := strings.Cut(key, ".")
		name, _, _ = strings.Cut(name, "[")
		fields := msg.ProtoReflect().Descriptor().Fields()
		if fields.ByName(protoreflect.Name(name)) == nil && fields.ByJSONName(name) == nil {
			return fmt.Errorf("unknown query parameter %.80q", key)
		}
	}
	return p.DefaultQueryParser.Parse(msg, values, filter)
}
