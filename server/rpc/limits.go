package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"eventrelay/server/auth"
)

// Limits are those of streams of events. The zero value is none.
type Limits struct {
	// MaxAge is how long a stream lives, give or take a tenth so that streams that began together do not end together. 0 is for ever.
	MaxAge time.Duration
	// MaxPerCaller is how many streams a caller may have open at once: who shows a token by the token's name, everybody else by the address they come from. 0 is any number.
	MaxPerCaller int
}

// ageSpread is the part of its age by which the end of a stream varies to either side.
const ageSpread = 0.1

// end is when a stream that begins now ends; zero for never.
func (l Limits) end() time.Time {
	if l.MaxAge == 0 {
		return time.Time{}
	}
	factor := 1 - ageSpread + 2*ageSpread*rand.Float64()
	return time.Now().Add(time.Duration(float64(l.MaxAge) * factor))
}

// tooManyError says that a caller has as many streams as it may.
type tooManyError struct{ max int }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("the caller has %d streams open, as many as one caller may: close some, or share one between readers", e.max)
}

// admission counts the open streams of each caller. The zero value has none.
type admission struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

// enter lets a caller open one more stream, until leave is called, unless it has as many as it may.
func (a *admission) enter(ctx context.Context, most int) (leave func(), err error) {
	if most == 0 {
		return func() {}, nil
	}
	caller := callerOf(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[caller] >= most {
		return nil, &tooManyError{most}
	}
	if a.open == nil {
		a.open = map[string]int{}
	}
	a.open[caller]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.open[caller]--; a.open[caller] == 0 {
			delete(a.open, caller)
		}
	}, nil
}

// gatewayNetwork is that of the connection in memory by which the gateway calls, and forwardedFor the metadata whose last value is the address that it calls for.
const (
	gatewayNetwork = "bufconn"
	forwardedFor   = "x-forwarded-for"
)

// callerOf names who calls: the token, or else the address without its port. A token's name cannot be an address. Of a proxy in front it is the proxy's: what a proxy says
// anybody can say.
func callerOf(ctx context.Context) string {
	if name := auth.Caller(ctx); name != "" {
		return "token " + name
	}
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	if p.Addr.Network() == gatewayNetwork {
		if from := metadata.ValueFromIncomingContext(ctx, forwardedFor); len(from) > 0 {
			return from[len(from)-1]
		}
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
