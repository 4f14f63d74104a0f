// Package rpc serves the gRPC API: a file per service, thin handlers over the rooms below, and one table from their errors to statuses.
package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"buf.build/go/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/auth"
)

// maxRequestBytes bounds a request; none has a reason to be larger.
const maxRequestBytes = 1 << 20

// readBufferBytes is what every connection takes to read with. Callers say little, and idle ones are many.
const readBufferBytes = 4 << 10

// Services are the handlers that a server registers.
type Services struct {
	Events  eventrelayv1.EventServiceServer
	Sources eventrelayv1.SourceServiceServer
	Schema  eventrelayv1.SchemaServiceServer
	// Subscriptions are the durable ones.
	Subscriptions eventrelayv1.SubscriptionServiceServer
	// Meta and Dialog360 are the providers' own subscriptions.
	Meta      eventrelayv1.MetaSubscriptionServiceServer
	Dialog360 eventrelayv1.Dialog360ServiceServer
	// Health is told NOT_SERVING when the server goes down.
	Health *health.Server
}

// NewServer returns a gRPC server with the services, health and reflection. The guard decides over every call, and every request is validated against the rules of its
// proto before a handler sees it.
func NewServer(services Services, guard *auth.Guard, logger *slog.Logger) (*grpc.Server, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("build request validator: %w", err)
	}
	errs, valid := statusErrors{logger}, validation{validator}
	recovered := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	})
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(errs.unary, recovery.UnaryServerInterceptor(recovered), guard.Unary, valid.unary),
		grpc.ChainStreamInterceptor(errs.stream, recovery.StreamServerInterceptor(recovered), guard.Stream, valid.stream),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.ReadBufferSize(readBufferBytes),
		// Streams are silent for long; clients that ping to notice a dead connection are not punished for it.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
	)
	eventrelayv1.RegisterEventServiceServer(server, services.Events)
	eventrelayv1.RegisterSourceServiceServer(server, services.Sources)
	eventrelayv1.RegisterSchemaServiceServer(server, services.Schema)
	eventrelayv1.RegisterSubscriptionServiceServer(server, services.Subscriptions)
	eventrelayv1.RegisterMetaSubscriptionServiceServer(server, services.Meta)
	eventrelayv1.RegisterDialog360ServiceServer(server, services.Dialog360)
	healthv1.RegisterHealthServer(server, services.Health)
	reflection.Register(server)
	if err := guard.Cover(server.GetServiceInfo()); err != nil {
		return nil, err
	}
	return server, nil
}

// validation refuses requests that break a rule of their proto.
type validation struct{ validator protovalidate.Validator }

func (v validation) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := v.check(req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (v validation) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &validatedStream{stream, v})
}

func (v validation) check(req any) error {
	message, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	return v.validator.Validate(message)
}

// validatedStream validates what it receives.
type validatedStream struct {
	grpc.ServerStream
	validation validation
}

func (s *validatedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.validation.check(m)
}
