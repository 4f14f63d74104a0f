package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// logInterval is the least time between two lines about refusals for one reason: a flood of them does not become a flood of lines.
const logInterval = time.Second

// Guard decides over every call. Its interceptors and Allow may be used by any number of goroutines at once, after Cover.
type Guard struct {
	tokens  *Tokens // nil: everybody may do everything
	roles   map[string]Role
	logger  *slog.Logger
	refused *prometheus.CounterVec

	mu   sync.Mutex // guards last and left
	last map[string]time.Time
	left map[string]int
}

// NewGuard returns a guard that knows callers by their tokens. Without tokens everybody may do everything, which is for ports that only this machine can reach.
// A nil registerer registers nothing.
func NewGuard(tokens *Tokens, registerer prometheus.Registerer, logger *slog.Logger) *Guard {
	g := &Guard{
		tokens: tokens, logger: logger, last: map[string]time.Time{}, left: map[string]int{},
		refused: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "eventrelay_auth_refused_total", Help: "Calls refused because of who makes them, by reason.",
		}, []string{"reason"}),
	}
	for _, err := range []error{ErrTokenMissing, ErrTokenInvalid, ErrTokenExpired, &RoleError{}} {
		g.refused.WithLabelValues(reasonOf(err)) // there from the start, at 0
	}
	return g
}

// Cover learns which role each method of the services needs. A method that does not say is an error; one that was not covered is refused.
func (g *Guard) Cover(services map[string]grpc.ServiceInfo) error {
	roles, err := requiredRoles(services, protoregistry.GlobalFiles)
	if err != nil {
		return fmt.Errorf("read who may call what: %w", err)
	}
	g.roles = roles
	return nil
}

// Allow returns nil if a caller who shows these values of the authorization header has the required role, else one of the errors of this package. what names the call
// in the log.
func (g *Guard) Allow(ctx context.Context, what string, required Role, authorization []string) error {
	if g.tokens == nil || required == Anyone {
		return nil
	}
	caller, err := g.identify(required, authorization)
	if err != nil {
		g.tell(ctx, what, caller.name, err)
		return err
	}
	level := slog.LevelDebug
	if required == Operator {
		level = slog.LevelInfo // who changed what can be asked for later
	}
	g.logger.Log(ctx, level, "call", "method", what, "caller", caller.name)
	return nil
}

// identify returns who calls, also with some errors.
func (g *Guard) identify(required Role, authorization []string) (token, error) {
	shown, err := digestOf(authorization)
	if err != nil {
		return token{}, err
	}
	return g.check(required, shown)
}

// check returns whose token has a digest, also with some errors.
func (g *Guard) check(required Role, shown digest) (token, error) {
	caller, err := g.tokens.find(shown)
	if err == nil && caller.role < required {
		err = &RoleError{Caller: caller.name, Required: required}
	}
	return caller, err
}

// reasonOf is the label of a refusal.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, ErrTokenMissing):
		return "token_missing"
	case errors.Is(err, ErrTokenExpired):
		return "token_expired"
	case errors.As(err, new(*RoleError)):
		return "role_insufficient"
	default:
		return "token_invalid"
	}
}

// tell counts a refusal, and logs it unless one for the same reason was logged just now. The caller's name is that of a token of ours, or empty.
func (g *Guard) tell(ctx context.Context, what, caller string, err error) {
	reason := reasonOf(err)
	g.refused.WithLabelValues(reason).Inc()
	g.mu.Lock()
	now := time.Now()
	if last, logged := g.last[reason]; logged && now.Sub(last) < logInterval {
		g.left[reason]++
		g.mu.Unlock()
		return
	}
	leftOut := g.left[reason]
	g.last[reason], g.left[reason] = now, 0
	g.mu.Unlock()
	from := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		from = p.Addr.String()
	}
	g.logger.WarnContext(ctx, "call refused", "reason", reason, "method", what, "caller", caller, "peer", from, "left_out", leftOut)
}

// Unary refuses calls of who may not make them.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := g.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// Stream refuses streams of who may not open them. A stream whose token is removed, expires or loses its role ends in place of the next message: nothing more is sent
// on it or taken from it.
func (g *Guard) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	guarded, err := g.guarded(stream, info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, guarded)
}

// guarded returns the stream as it is guarded while it is open, or why it may not be opened.
func (g *Guard) guarded(stream grpc.ServerStream, method string) (grpc.ServerStream, error) {
	ctx := stream.Context()
	if err := g.admit(ctx, method); err != nil {
		return nil, err
	}
	if g.tokens == nil || g.roles[method] == Anyone {
		return stream, nil
	}
	shown, err := digestOf(metadata.ValueFromIncomingContext(ctx, "authorization"))
	if err != nil {
		return nil, err
	}
	if caller, err := g.tokens.find(shown); err == nil { // else the first message says so
		ctx = context.WithValue(ctx, callerKey{}, caller.name)
	}
	return &guardedStream{ServerStream: stream, guard: g, method: method, required: g.roles[method], shown: shown, ctx: ctx}, nil
}

// callerKey is where the context of a stream has the name of the caller's token.
type callerKey struct{}

// Caller returns the name of the token that the caller of a stream shows, or "" where callers need none.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// admit decides over one call by its metadata.
func (g *Guard) admit(ctx context.Context, method string) error {
	required, covered := g.roles[method]
	if !covered {
		required = Operator
	}
	return g.Allow(ctx, method, required, metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// guardedStream asks before every message whether its caller still may.
type guardedStream struct {
	grpc.ServerStream
	guard    *Guard
	method   string
	required Role
	// shown is what the caller showed when it opened the stream. It cannot change, but what it is worth can.
	shown digest
	ctx   context.Context
}

// Context has the name of the caller, for Caller.
func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) SendMsg(m any) error {
	if err := s.still(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.still()
}

// still returns nil while the caller may go on. It does not log every message as a call.
func (s *guardedStream) still() error {
	caller, err := s.guard.check(s.required, s.shown)
	if err != nil {
		s.guard.tell(s.ctx, s.method, caller.name, err)
	}
	return err
}
