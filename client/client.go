// Package client reads events from an eventrelay server.
//
// [Dial] gives a [Client]; [Client.Follow] is the loop most programs want. It yields the events of the log one by one, from wherever it is asked to start, for as
// long as the context lives: it reconnects when a stream breaks or falls silent, and goes on behind the last event that the loop has finished with. Within one
// Follow no event is yielded twice and none that matches is skipped.
//
//	c, err := client.Dial("127.0.0.1:9090")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for event, err := range c.Follow(ctx, client.FollowOptions{Cursor: saved}) {
//		if err != nil {
//			return err // nothing that trying again would mend
//		}
//		handle(event)
//		saved = event.GetCursor() // keep it with the work done: the next start goes on from here
//	}
//
// Across two runs of a program the cursor decides: saved together with the work that an event caused, each event is worked on once; saved after it, an event may
// be seen again when the program dies in between, and its id tells that it is the same one.
//
// [Client.Consume] hands the events of a durable subscription to a handler: the server keeps what was acknowledged, delivers the rest again, and shares the events between any
// number of consumers.
//
// The raw service clients are at [Client.Events], [Client.Sources], [Client.Subscriptions], [Client.Schema], [Client.MetaSubscriptions] and [Client.Dialog360].
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// maxResponse is what a response may measure: stock gRPC clients stop at 4 MiB, and a single event may be close to that before its encoding around it.
	maxResponse = 16 << 20
	// keepaliveTime is how long a connection may be without a byte before it is asked whether it still lives. Longer than the default checkpoint interval, so
	// that a stream that works is never pinged, and not more often than the server allows.
	keepaliveTime = 10 * time.Second
	// keepaliveTimeout is how long that answer may take. Together they are three checkpoint intervals: when a Follow gives up a stream on a connection that has died
	// without a word, the connection is given up too, and the next attempt is not made on it.
	keepaliveTimeout = 5 * time.Second
	// connectTimeout is how long one attempt to connect may take; shorter than a Follow waits for its first response, so that the error tells of the connection.
	connectTimeout = 10 * time.Second
	// maxConnectDelay bounds gRPC's own pause between attempts to connect, which is two minutes otherwise: Follow paces its attempts itself.
	maxConnectDelay = 2 * time.Second
)

// Client is a connection to one eventrelay server. Its methods may be called from any number of goroutines at once.
type Client struct {
	target    string
	conn      *grpc.ClientConn
	events    eventrelayv1.EventServiceClient
	sources   eventrelayv1.SourceServiceClient
	schema    eventrelayv1.SchemaServiceClient
	meta      eventrelayv1.MetaSubscriptionServiceClient
	dialog360 eventrelayv1.Dialog360ServiceClient
	// subscriptions is the client of the durable ones.
	subscriptions eventrelayv1.SubscriptionServiceClient
	log           *slog.Logger

	closeOnce sync.Once
	closed    chan struct{} // closed by Close, so that a Follow that waits ends at once
	closeErr  error         // set inside closeOnce
}

// Option changes how [Dial] connects.
type Option func(*dialing)

// dialing gathers what the options say.
type dialing struct {
	creds    credentials.TransportCredentials
	insecure bool
	token    *string
	options  []grpc.DialOption
	log      *slog.Logger
}

// WithTransportCredentials sets how the connection is secured.
func WithTransportCredentials(creds credentials.TransportCredentials) Option {
	return func(d *dialing) { d.creds = creds }
}

// WithTLS secures the connection with TLS; a nil config means the system's certificate authorities.
func WithTLS(config *tls.Config) Option {
	return WithTransportCredentials(credentials.NewTLS(config))
}

// WithInsecure allows a connection in plain text to a target that is not this machine. Everything is readable on the way, a token included.
func WithInsecure() Option {
	return func(d *dialing) { d.insecure = true }
}

// WithToken sends a bearer token with every call.
func WithToken(token string) Option {
	return func(d *dialing) { d.token = &token }
}

// WithDialOptions hands options to gRPC, after those that Dial sets itself and so able to override them.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(d *dialing) { d.options = append(d.options, options...) }
}

// WithLogger tells the logger of broken streams and new attempts. Without it, or with nil, nothing is logged.
func WithLogger(log *slog.Logger) Option {
	return func(d *dialing) { d.log = log }
}

// Dial prepares a connection to the server at target, a gRPC target such as `127.0.0.1:9090` or `dns:///relay.example:443`. It does not connect: the first call
// does, and finds out whether there is a server.
//
// Without an option about transport, a target on this machine is spoken to in plain text and any other is refused with [ErrPlaintext].
func Dial(target string, opts ...Option) (*Client, error) {
	var d dialing
	for _, option := range opts {
		option(&d)
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	options, err := d.grpcOptions(target)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", target, err)
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", target, err)
	}
	return &Client{
		target:        target,
		conn:          conn,
		subscriptions: eventrelayv1.NewSubscriptionServiceClient(conn),
		events:        eventrelayv1.NewEventServiceClient(conn),
		sources:       eventrelayv1.NewSourceServiceClient(conn),
		schema:        eventrelayv1.NewSchemaServiceClient(conn),
		meta:          eventrelayv1.NewMetaSubscriptionServiceClient(conn),
		dialog360:     eventrelayv1.NewDialog360ServiceClient(conn),
		log:           d.log,
		closed:        make(chan struct{}),
	}, nil
}

// grpcOptions checks what the options say and translates it.
func (d *dialing) grpcOptions(target string) ([]grpc.DialOption, error) {
	switch {
	case target == "":
		return nil, errors.New("the target is empty")
	case d.creds != nil && d.insecure:
		return nil, errors.New("both transport credentials and WithInsecure are given")
	case d.creds == nil && !d.insecure && !loopback(target):
		return nil, ErrPlaintext
	}
	if d.creds == nil {
		d.creds = insecure.NewCredentials()
	}
	connect := backoff.DefaultConfig
	connect.BaseDelay = 100 * time.Millisecond
	connect.MaxDelay = maxConnectDelay
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(d.creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connect, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
	}
	if d.token != nil {
		if *d.token == "" || strings.ContainsFunc(*d.token, notTokenRune) {
			// The token itself stays out of the error: errors are logged.
			return nil, errors.New("the token is empty or has characters that no token has")
		}
		plaintext := d.creds.Info().SecurityProtocol == "insecure"
		options = append(options, grpc.WithPerRPCCredentials(bearer{token: *d.token, plaintext: plaintext}))
	}
	return append(options, d.options...), nil
}

// notTokenRune reports what cannot stand in a bearer token: anything but visible ASCII.
func notTokenRune(r rune) bool { return r <= ' ' || r > '~' }

// loopback reports whether a gRPC target can only be on this machine. What it cannot tell is not.
func loopback(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	for _, scheme := range []string{"dns:///", "dns:", "passthrough:///", "passthrough:"} {
		if endpoint, ok := strings.CutPrefix(target, scheme); ok {
			target = endpoint
			break
		}
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = strings.Trim(target, "[]")
	} else if host == "" {
		return true // ":9090", which gRPC takes for localhost
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// bearer is the token in the form that gRPC asks for.
type bearer struct {
	token     string
	plaintext bool
}

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials]. Dial has decided where plain text is allowed; beyond that gRPC refuses too.
func (b bearer) RequireTransportSecurity() bool { return !b.plaintext }

// Close ends every call and every Follow of this client, which then yields [ErrClosed]. Further calls of Close do nothing and return the same.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.closeErr = c.conn.Close()
	})
	return c.closeErr
}

// Events gives the raw client of the event service.
func (c *Client) Events() eventrelayv1.EventServiceClient { return c.events }

// Sources gives the raw client of the source service.
func (c *Client) Sources() eventrelayv1.SourceServiceClient { return c.sources }

// Subscriptions gives the raw client of the service for durable subscriptions.
func (c *Client) Subscriptions() eventrelayv1.SubscriptionServiceClient { return c.subscriptions }

// isClosed tells whether Close was called.
func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// Schema gives the raw client of the schema service.
func (c *Client) Schema() eventrelayv1.SchemaServiceClient { return c.schema }

// MetaSubscriptions gives the raw client of the service for Meta's own subscriptions.
func (c *Client) MetaSubscriptions() eventrelayv1.MetaSubscriptionServiceClient { return c.meta }

// Dialog360 gives the raw client of the service for 360dialog's own webhook settings.
func (c *Client) Dialog360() eventrelayv1.Dialog360ServiceClient { return c.dialog360 }
