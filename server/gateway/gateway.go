// Package gateway serves the RPCs as REST, the stream of events as server-sent events, and their OpenAPI description, over a gRPC connection: requests pass the same interceptors as any other caller's.
package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/swaggest/swgui/v5emb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/gen/openapi"
)

// New returns the handler of `/v1/...`, of `/openapi.json` and of `/docs/`, a page to read and try it, over a connection to the gRPC server. It holds no state of its own; ctx bounds the registration only.
func New(ctx context.Context, conn *grpc.ClientConn) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{&runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
			// Field names are the protos' own, which for payloads are the provider's keys.
			MarshalOptions: protojson.MarshalOptions{UseProtoNames: true},
		}}}),
		runtime.WithErrorHandler(answerError),
		runtime.WithRoutingErrorHandler(answerNoRoute),
		runtime.SetQueryParameterParser(&parameters{}),
		runtime.WithStreamErrorHandler(streamError),
		runtime.WithMetadata(remoteAddress),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		eventrelayv1.RegisterEventServiceHandler,
		eventrelayv1.RegisterSourceServiceHandler,
		eventrelayv1.RegisterSchemaServiceHandler,
		eventrelayv1.RegisterSubscriptionServiceHandler,
		eventrelayv1.RegisterMetaSubscriptionServiceHandler,
		eventrelayv1.RegisterDialog360ServiceHandler,
	} {
		if err := register(ctx, mux, conn); err != nil {
			return nil, fmt.Errorf("register REST handlers: %w", err)
		}
	}
	stream, err := newEventStream(eventrelayv1.NewEventServiceClient(conn), mux)
	if err != nil {
		return nil, err
	}
	top := http.NewServeMux()
	top.Handle("GET /v1/events:subscribe", answered(stream))
	top.Handle("/v1/", answered(http.MaxBytesHandler(mux, maxRequestBytes)))
	top.Handle("GET /openapi.json", openAPI())
	top.Handle("GET /docs/", v5emb.New("eventrelay", "/openapi.json", "/docs/")) // all of it embedded: nothing is loaded from elsewhere
	top.Handle("GET /docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently))
	return top, nil
}

// remoteAddress says for whom the gateway calls, as the last value of x-forwarded-for: those before it are what the caller says.
func remoteAddress(_ context.Context, r *http.Request) metadata.MD {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return metadata.Pairs("x-forwarded-for", host)
}

// maxRequestBytes bounds the body of a request, which is read before anybody asks who sends it. The RPCs take no more either.
const maxRequestBytes = 1 << 20

// openAPI serves the description of the REST API as JSON.
func openAPI() http.Handler {
	document := sync.OnceValues(func() ([]byte, error) { return yaml.YAMLToJSON(openapi.YAML) })
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, err := document()
		if err != nil {
			http.Error(w, "the OpenAPI description cannot be read", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a client that has gone needs no answer
	})
}
