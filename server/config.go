package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/dustin/go-humanize"
)

// config is everything that can be set. Every flag can also be set by the environment: `--webhook-addr` is EVENTRELAY_WEBHOOK_ADDR.
type config struct {
	WebhookAddr string `default:"127.0.0.1:8080" group:"Addresses" help:"Where providers post their webhooks. The only port that is meant for the public."`
	HTTPAddr    string `name:"http-addr" default:"127.0.0.1:8081" group:"Addresses" help:"REST, OpenAPI, health and metrics. Loopback only, unless there are tokens."`
	GRPCAddr    string `name:"grpc-addr" default:"127.0.0.1:9090" group:"Addresses" help:"gRPC, with reflection and health. Loopback only, unless there are tokens."`

	TokensFile       string         `type:"path" placeholder:"FILE" group:"Callers" help:"YAML file of who may call the HTTP and gRPC ports: hashed bearer tokens with role reader or operator; 'eventrelay tokens new' makes them. Read again when it changes."`
	TLSCert          string         `name:"tls-cert" type:"path" placeholder:"FILE" group:"Callers" help:"PEM file of the certificate chain for all three ports. Read again when it changes."`
	TLSKey           string         `name:"tls-key" type:"path" placeholder:"FILE" group:"Callers" help:"PEM file of its key."`
	ClientCAFile     string         `name:"client-ca-file" type:"path" placeholder:"FILE" group:"Callers" help:"PEM file of who issues Meta's client certificate, for sources that require one. Read again when it changes."`
	ClientCertHeader string         `name:"client-cert-header" placeholder:"HEADER" group:"Callers" help:"Header by which a trusted proxy hands over the subject of the client certificate that it verified, such as X-Amzn-Mtls-Clientcert-Subject."`
	TrustedProxies   []netip.Prefix `placeholder:"CIDR,..." group:"Callers" help:"Addresses of the proxies whose --client-cert-header is believed."`

	Dev              bool   `group:"Sources" help:"For development: adds the sources dev and dev360 with known secrets; every port is loopback only."`
	SourcesFile      string `type:"path" placeholder:"FILE" group:"Sources" help:"YAML file of sources to accept webhooks for, beside those that are created by calls."`
	GraphURL         string `name:"graph-url" default:"https://graph.facebook.com" group:"Providers" help:"Meta's Graph API."`
	GraphVersion     string `default:"v24.0" group:"Providers" help:"The version of the Graph API that is called."`
	Dialog360HubURL  string `name:"dialog360-hub-url" default:"https://hub.360dialog.io" group:"Providers" help:"360dialog's partner API."`
	Dialog360WABAURL string `name:"dialog360-waba-url" default:"https://waba-v2.360dialog.io" group:"Providers" help:"360dialog's API of numbers and WABAs."`
	MaxBody          size   `default:"4MiB" group:"Sources" help:"The largest body that is accepted, at most 8MiB; Meta sends up to 3 MB."`

	DataDir          string        `type:"path" default:"./data" group:"Storage" help:"Where the journal, the embedded log and an encrypted copy of the sources live."`
	SecretsKeyFile   string        `type:"path" placeholder:"FILE" group:"Storage" help:"The keys under which stored secrets are encrypted, a line each, the first for what is new; made with one key if missing. Outside --data-dir; default eventrelay/secrets.keys in the user's configuration folder. Required with --nats-url."`
	AckAfter         string        `default:"journal" enum:"journal,log" group:"Storage" help:"When a webhook is answered 200: 'journal', once it is synced to this disk, whatever the log does; 'log', once the log has acknowledged its events as well, for a cluster where durable means a quorum. With 'log' it is answered 503 when the log takes longer than 4s."`
	JournalMaxBytes  size          `default:"4GiB" group:"Storage" help:"How much may wait in the journal before webhooks are answered 503."`
	MinFreeBytes     size          `default:"256MiB" group:"Storage" help:"Free disk below which webhooks are answered 503."`
	NATSURL          string        `name:"nats-url" placeholder:"URL" group:"Storage" help:"Use the JetStream of this NATS server (2.12 or newer, max_payload at least 16MB) instead of the embedded one; of a cluster name every server, separated by commas. While it is away webhooks are accepted and wait in the journal."`
	NATSReplicas     int           `name:"nats-replicas" default:"1" group:"Storage" help:"With --nats-url: on how many servers the log is kept."`
	DuplicateWindow  time.Duration `default:"2m" group:"Storage" help:"How far back the log itself refuses a copy of an event: one that reaches two relays at once."`
	DuplicateHorizon time.Duration `default:"168h" group:"Storage" help:"How long after its receipt a copy of an event is told from a new one, and an event is found by its id. Providers deliver again for up to seven days. An event takes 13 bytes of memory."`

	MaxStreamAge        time.Duration `default:"1h" group:"Streams" help:"How long a stream of events lives, give or take a tenth, before it is ended with its cursor and the client comes back: so streams spread over servers again. 0 is for ever."`
	MaxStreamsPerCaller int           `default:"10000" group:"Streams" help:"How many streams of events one caller may have open at once; callers are told apart by their tokens, without tokens by their addresses, which through a proxy are one. 0 is any number."`

	RetentionAge    time.Duration `default:"720h" group:"Retention" help:"Events older than this leave the log; 0 keeps them for ever."`
	RetentionBytes  size          `default:"0" group:"Retention" help:"The oldest events leave the log when it is larger than this; 0 is no limit."`
	RetentionEvents int64         `default:"0" group:"Retention" help:"The oldest events leave the log when there are more than this; 0 is no limit."`

	DeadLetterAge time.Duration `default:"720h" group:"Retention" help:"Dead letters of durable subscriptions older than this go, unless they were replayed or purged before; 0 keeps them for ever."`
	StallAfter    time.Duration `default:"10m" group:"Operation" help:"How long a durable subscription may have a backlog and make no progress before it is flagged as stalled."`

	LogLevel        slog.Level    `default:"info" group:"Operation" help:"debug, info, warn or error."`
	LogFormat       string        `default:"text" enum:"text,json" group:"Operation" help:"text or json, on standard error."`
	ShutdownTimeout time.Duration `default:"20s" group:"Operation" help:"How long a shutdown may take before what is left is cut off."`
}

// maxBodyLimit is the largest body that may be configured: its event, the raw JSON and the typed message together, must fit into one message of the log.
const maxBodyLimit = 8 << 20

// Validate refuses what cannot work, naming the flag and the fix. kong calls it after parsing.
func (c *config) Validate() error {
	if c.MaxBody < 1 || c.MaxBody > maxBodyLimit {
		return fmt.Errorf("--max-body: %s is not between 1 byte and 8 MiB", c.MaxBody)
	}
	if c.RetentionAge < 0 || c.RetentionEvents < 0 {
		return errors.New("--retention-age, --retention-events: a limit cannot be negative; 0 is no limit")
	}
	if c.MaxStreamAge != 0 && c.MaxStreamAge < time.Second {
		return fmt.Errorf("--max-stream-age: %s is shorter than 1s; 0 is for ever", c.MaxStreamAge)
	}
	if c.MaxStreamsPerCaller < 0 {
		return errors.New("--max-streams-per-caller: a limit cannot be negative; 0 is any number")
	}
	if c.DeadLetterAge < 0 || c.DeadLetterAge > 0 && c.DeadLetterAge < time.Minute {
		return fmt.Errorf("--dead-letter-age: %s is shorter than 1m; 0 keeps dead letters for ever", c.DeadLetterAge)
	}
	if c.StallAfter < time.Second {
		return fmt.Errorf("--stall-after: %s is shorter than 1s", c.StallAfter)
	}
	if c.DuplicateWindow < 100*time.Millisecond {
		return fmt.Errorf("--duplicate-window: %s is shorter than 100ms, the least that the log can do", c.DuplicateWindow)
	}
	if c.DuplicateHorizon < max(time.Minute, c.DuplicateWindow) {
		return fmt.Errorf("--duplicate-horizon: %s is shorter than a minute or than --duplicate-window, %s; providers deliver again for up to seven days (168h)", c.DuplicateHorizon, c.DuplicateWindow)
	}
	if c.NATSReplicas < 1 || c.NATSReplicas > 5 {
		return fmt.Errorf("--nats-replicas: %d is not between 1 and 5", c.NATSReplicas)
	}
	return errors.Join(c.validateCallers(), c.validateAddresses())
}

// validateCallers refuses credentials that could not do what they are meant for.
func (c *config) validateCallers() error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert, --tls-key: one is of no use without the other; give both or neither")
	case c.ClientCAFile != "" && c.TLSCert == "":
		return errors.New("--client-ca-file: client certificates are only shown where TLS ends; give --tls-cert and --tls-key, or --client-cert-header if a proxy ends it")
	case (c.ClientCertHeader == "") != (len(c.TrustedProxies) == 0):
		return errors.New("--client-cert-header, --trusted-proxies: anybody can send a header; give both, so that only the proxy's is believed, or neither")
	}
	return nil
}

// validateAddresses refuses to let in from outside who cannot be known.
func (c *config) validateAddresses() error {
	const unknown = "nothing tells callers apart there; give --tokens-file (and --tls-cert with --tls-key), or a loopback address such as 127.0.0.1"
	const dev = "with --dev the secrets are known to everybody, so it must be a loopback address such as 127.0.0.1"
	for _, port := range []struct {
		flag, address string
		open          bool
	}{
		{"--http-addr", c.HTTPAddr, c.TokensFile == ""},
		{"--grpc-addr", c.GRPCAddr, c.TokensFile == ""},
		{"--webhook-addr", c.WebhookAddr, false},
	} {
		host, _, err := net.SplitHostPort(port.address)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %q is not host:port: %w", port.flag, port.address, err)
		case loopback(host):
		case port.open:
			return fmt.Errorf("%s: %q is reachable from outside: %s", port.flag, port.address, unknown)
		case c.Dev:
			return fmt.Errorf("%s: %q is reachable from outside: %s", port.flag, port.address, dev)
		}
	}
	_, err := c.keyFile()
	return err
}

// loopback reports whether a host is reachable from this machine only. An empty host means every address.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// size is a number of bytes, written like 512MiB.
type size int64

// UnmarshalText reads a size.
func (s *size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size such as 512MiB", text)
	}
	*s = size(n)
	return nil
}

// String writes a size for people.
func (s size) String() string { return humanize.IBytes(uint64(max(s, 0))) }
