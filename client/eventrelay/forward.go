package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/gofrs/flock"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

const (
	// minPostDelay and maxPostDelay bound the pause before a body is posted again.
	minPostDelay = 500 * time.Millisecond
	maxPostDelay = time.Minute
)

// forward posts events to an HTTP endpoint.
type forward struct {
	connection `embed:""`
	reading    `embed:""`

	To          string   `required:"" placeholder:"URL" help:"Where to post. Plain http only to this machine, unless --allow-http."`
	Secret      secret   `placeholder:"SECRET" help:"What to sign with, as the provider does: X-Hub-Signature-256, and X-360dialog-Signature for events that came by a PROVIDER_DIALOG360_PARTNER source. ${secret}."`
	Header      []secret `placeholder:"HEADER" help:"A header to show, as 'Name: value'; may be repeated. ${secret}."`
	CursorFile  string   `type:"path" placeholder:"FILE" help:"Where to keep how far everything is delivered. A file that is there goes before --from: the next run goes on where this one ends."`
	SkipRefused bool     `help:"Go on behind an event that the endpoint refuses (4xx but 408, 425 and 429), instead of ending there."`
	AllowHTTP   bool     `name:"allow-http" help:"Allow --to to be plain http to another machine; everything is readable on the way."`
}

// Run delivers events one after the other. Each is posted until it is answered 2xx; then its cursor is written to the cursor file, and the next one follows. After a crash
// between the two an event is posted once more.
func (f *forward) Run(ctx context.Context, out *output) (err error) {
	delivery, err := f.prepare(ctx, out)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment} // of its own, so that its connections end with the command
	defer transport.CloseIdleConnections()
	delivery.sender = &http.Client{
		Transport: transport, Timeout: answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // following it would lose the body
	}
	place, err := openPlace(f.CursorFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.close()) }()
	if f.From, err = f.start(); err != nil {
		return err
	}
	if place.cursor != "" {
		if err := f.From.UnmarshalText([]byte(place.cursor)); err != nil || f.From.cursor == "" {
			return fmt.Errorf("--cursor-file %s: there is no cursor in it; remove it to start at --from", f.CursorFile)
		}
	}
	c, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	delivery.events = c.Events()
	err = f.follow(ctx, c, f.Server, out, client.FollowOptions{View: eventrelayv1.EventView_EVENT_VIEW_RAW}, func(event *eventrelayv1.Event) error {
		if err := delivery.deliver(ctx, event); err != nil {
			return err
		}
		return place.move(event.GetCursor())
	}, func(p client.Position) error { return place.move(p.Cursor) })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // interrupted: what was not delivered is for the next run
	}
	return err
}

// prepare checks the flags that say where to and how.
func (f *forward) prepare(ctx context.Context, out *output) (*delivery, error) {
	to, err := url.Parse(f.To)
	if err != nil || (to.Scheme != "http" && to.Scheme != "https") || to.Host == "" {
		return nil, usagef("--to is no address to post to: give it as https://service.example/webhooks") // not shown: it may hold a password
	}
	if ip := net.ParseIP(to.Hostname()); to.Scheme == "http" && !f.AllowHTTP && to.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usagef("--to is plain http to another machine: give https, or --allow-http to send everything readable on the way")
	}
	if f.Secret == "" && len(f.Header) == 0 {
		return nil, usagef("--secret: the endpoint has nothing to know the sender by; give what it checks signatures with, or a --header")
	}
	d := &delivery{to: to.String(), shown: to.Redacted(), skips: f.SkipRefused, out: out}
	if f.Secret != "" {
		if d.secret, err = f.Secret.read(ctx, "--secret", out); err != nil {
			return nil, err
		}
	}
	d.headers, err = readHeaders(ctx, f.Header, out)
	return d, err
}

// delivery posts events, one at a time.
type delivery struct {
	sender  *http.Client
	events  eventrelayv1.EventServiceClient
	to      string
	shown   string // to, without a password
	secret  string
	headers map[string]string
	skips   bool // what is refused
	out     *output
}

// refusedError is an answer that would be the same the next time.
type refusedError struct{ answer string }

func (e *refusedError) Error() string { return "refused: " + e.answer }

// deliver posts an event until it is accepted. It returns an error when it is refused for good and that is not to be skipped, or when ctx is done.
func (d *delivery) deliver(ctx context.Context, event *eventrelayv1.Event) error {
	told := false
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval, pace.MaxInterval = minPostDelay, maxPostDelay
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, d.post(ctx, event) },
		backoff.WithBackOff(pace), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if !told {
				d.out.note("%s does not take event %s: %v; trying again", d.shown, event.GetId(), err)
			}
			told = true
		}))
	refused, isRefused := errors.AsType[*refusedError](err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isRefused && d.skips:
		d.out.note("%s refused event %s, which is left out: %s", d.shown, event.GetId(), refused.answer)
		return nil
	case isRefused:
		return fmt.Errorf("%s refused event %s: %s; mend the endpoint and start again, or leave out what it refuses with --skip-refused", d.shown, event.GetId(), refused.answer)
	case err != nil:
		return fmt.Errorf("event %s: %w", event.GetId(), err)
	case told:
		d.out.note("%s takes events again", d.shown)
	}
	return nil
}

// post makes one attempt. An error that is permanent is one that another attempt would not mend.
func (d *delivery) post(ctx context.Context, event *eventrelayv1.Event) error {
	raw := event.GetRaw()
	if event.GetRawOmitted() {
		var err error
		if raw, err = d.fetch(ctx, event.GetId()); err != nil {
			return err
		}
	}
	body := bodyOf(event, raw)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.to, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(fmt.Errorf("make request: %w", err))
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "eventrelay-forward")
	if d.secret != "" {
		provider := providerMeta
		if event.GetProvider() == eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER {
			provider = providerDialog360
		}
		sign(request.Header, provider, d.secret, body)
	}
	for name, value := range d.headers {
		request.Header.Set(name, value)
	}
	answer, err := d.sender.Do(request)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // without the address, which may hold a password
		}
		return fmt.Errorf("no answer: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		text = nil // the status says enough
	}
	return judge(answer, text)
}

// judge makes an error of an answer that is not 2xx.
func judge(answer *http.Response, text []byte) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	told := answer.Status + ": " + cmp.Or(line, "(no text)")
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
			return fmt.Errorf("%s: %w", told, backoff.RetryAfter(min(seconds, int(maxPostDelay/time.Second))))
		}
		return errors.New(told)
	default:
		return backoff.Permanent(&refusedError{told})
	}
}

// fetch gets what an event was made from where it is too large to come with it.
func (d *delivery) fetch(ctx context.Context, id string) ([]byte, error) {
	parts, err := d.events.GetEventRaw(ctx, &eventrelayv1.GetEventRawRequest{Id: id})
	var raw bytes.Buffer
	if err == nil {
		err = copyParts(&raw, parts.Recv)
	}
	if code := status.Code(err); code == codes.NotFound || code == codes.PermissionDenied || code == codes.Unauthenticated {
		return nil, backoff.Permanent(fmt.Errorf("fetch its JSON: %s", message(err)))
	}
	return raw.Bytes(), err
}

// place is the file that says how far everything is delivered. A nil file keeps nothing.
type place struct {
	path   string
	cursor string
	lock   *flock.Flock
}

// openPlace reads the file, if there is one, and keeps others from it. An empty path is no file.
func openPlace(path string) (*place, error) {
	p := &place{path: path}
	if path == "" {
		return p, nil
	}
	p.lock = flock.New(path + ".lock")
	switch alone, err := p.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("--cursor-file: %w", err)
	case !alone:
		return nil, fmt.Errorf("--cursor-file %s: another forward delivers by it", path)
	}
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("--cursor-file: %w", err), p.close())
	}
	if p.cursor = strings.TrimSpace(string(content)); err == nil && p.cursor == "" {
		return nil, errors.Join(fmt.Errorf("--cursor-file %s is empty; remove it to start at --from", path), p.close())
	}
	return p, nil
}

// move notes that everything up to a cursor is delivered, on disk when it returns.
func (p *place) move(cursor string) error {
	if p.path == "" || cursor == p.cursor || cursor == "" {
		return nil
	}
	if err := replace(p.path, []byte(cursor+"\n"), 0o600); err != nil {
		return fmt.Errorf("--cursor-file: %w", err)
	}
	p.cursor = cursor
	return nil
}

// close lets others have the file.
func (p *place) close() error {
	if p.lock == nil {
		return nil
	}
	return p.lock.Unlock()
}
