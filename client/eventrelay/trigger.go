package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	// defaultSample is the event type of a bare `trigger`: what most people come for.
	defaultSample = "meta.whatsapp_business_account.messages.message"
	// defaultText is what the sample message says.
	defaultText = "Hello from eventrelay"
	// answerTimeout is how long the server may take: it answers after a write to its disk, or to its log when that is asked for.
	answerTimeout = 30 * time.Second
	// maxBatch is how many updates Meta puts into one body at most.
	maxBatch = 1000
	// maxAnswer is how much of an answer is read: a line is shown.
	maxAnswer = 4 << 10
)

// sourceID is what a source may be called.
var sourceID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// trigger posts notifications.
type trigger struct {
	EventType  string `arg:"" optional:"" name:"event-type" help:"What should happen: an event type of --list, or its last word. Default: a WhatsApp text message."`
	URL        string `name:"url" default:"http://127.0.0.1:8080" help:"Address of the server's webhook port."`
	Source     string `placeholder:"ID" help:"The source to post to. Default: dev, and dev360 for what 360dialog sends."`
	Secret     string `default:"dev-app-secret" placeholder:"SECRET" help:"The source's app secret, to sign with. Default: that of the sources that --dev makes."`
	Provider   string `enum:",meta,dialog360-partner" default:"" placeholder:"NAME" help:"Whose signature to make: meta or dialog360-partner. Default: that of the notification's own provider."`
	File       string `type:"existingfile" placeholder:"FILE" help:"Post this body instead of a sample, byte for byte."`
	Text       string `placeholder:"TEXT" help:"What the sample message says."`
	Count      int    `default:"1" placeholder:"N" help:"How many to post, one after the other: each sample is a new event, a file the same each time."`
	Batch      int    `default:"1" placeholder:"N" help:"How many samples to put into one body, as providers batch them."`
	Duplicate  bool   `help:"Post every body twice, as a provider does that missed the answer."`
	OutOfOrder bool   `help:"Give every sample a time before that of the one posted before it."`
	List       bool   `help:"List the event types that there are samples for, and post nothing."`
}

// notification is a body on its way.
type notification struct {
	name string
	body []byte
}

// Run posts as many notifications as asked for and stops at the first that is not answered with 200.
func (t *trigger) Run(ctx context.Context, out *output) error {
	if t.List {
		return t.list(out)
	}
	next, provider, err := t.prepare()
	if err != nil {
		return err
	}
	target, err := t.target(provider)
	if err != nil {
		return err
	}
	switch {
	case t.Count < 1:
		return usagef("--count %d: give 1 or more", t.Count)
	case t.Batch < 1 || t.Batch > maxBatch:
		return usagef("--batch %d: give 1 to %d, as many as Meta puts into one body", t.Batch, maxBatch)
	case t.File != "" && (t.Batch > 1 || t.OutOfOrder):
		return usagef("--file brings its own body: leave --batch and --out-of-order away")
	case t.Secret == "":
		return usagef("--secret is empty: give the source's app secret")
	}
	// Transport of its own, so that its connections end with the command. A redirect is an answer: following it would lose the body.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	sender := &http.Client{
		Transport: transport, Timeout: answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	times := 1
	if t.Duplicate {
		times = 2
	}
	for range t.Count {
		n, err := t.batch(next)
		if err != nil {
			return err
		}
		for range times {
			if err := t.post(ctx, sender, target, provider, n, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch takes as many notifications as belong into one body and puts them there.
func (t *trigger) batch(next func() (notification, error)) (notification, error) {
	first, err := next()
	if err != nil || t.Batch == 1 {
		return first, err
	}
	bodies := []json.RawMessage{first.body}
	for len(bodies) < t.Batch {
		n, err := next()
		if err != nil {
			return notification{}, err
		}
		bodies = append(bodies, n.body)
	}
	body, err := merge(bodies)
	return notification{fmt.Sprintf("%d x %s", t.Batch, first.name), body}, err
}

// list prints the event types and who sends them.
func (t *trigger) list(out *output) error {
	all, err := samples()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out.out, 0, 0, 2, ' ', 0)
	for _, s := range all {
		if _, err := fmt.Fprintf(table, "%s\t%s\n", s.eventType, s.provider()); err != nil {
			return fmt.Errorf("print list: %w", err)
		}
	}
	return table.Flush()
}

// prepare finds what to post. Each call of next gives the following notification.
func (t *trigger) prepare() (next func() (notification, error), provider string, err error) {
	if t.File != "" {
		if t.EventType != "" || t.Text != "" {
			return nil, "", usagef("--file brings its own body: leave the event type and --text away")
		}
		body, err := os.ReadFile(t.File)
		if err != nil {
			return nil, "", usagef("--file: %w", err)
		}
		provider = providerOf(body)
		next = func() (notification, error) { return notification{filepath.Base(t.File), body}, nil }
	} else {
		s, err := findSample(cmp.Or(t.EventType, defaultSample))
		if err != nil {
			return nil, "", err
		}
		if t.Text != "" && !s.takesText() {
			return nil, "", usagef("--text: a sample of %s has no text; leave it away, or trigger %s", s.eventType, defaultSample)
		}
		provider = s.provider()
		made := 0
		next = func() (notification, error) {
			at := time.Now()
			if t.OutOfOrder {
				at = at.Add(-time.Duration(made) * time.Minute)
			}
			made++
			body, err := s.render(cmp.Or(t.Text, defaultText), at)
			return notification{s.eventType, body}, err
		}
	}
	return next, cmp.Or(t.Provider, provider), nil
}

// target gives the address of the source.
func (t *trigger) target(provider string) (string, error) {
	base, err := url.Parse(t.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return "", usagef("--url %q is no address to post to: give it as http://127.0.0.1:8080", t.URL)
	}
	source := cmp.Or(t.Source, map[string]string{providerMeta: "dev", providerDialog360: "dev360"}[provider])
	if !sourceID.MatchString(source) {
		return "", usagef("--source %q is no source id: give lower-case letters, digits and dashes, as in dev", source)
	}
	return base.JoinPath("webhooks", source).String(), nil
}

// post sends one notification and prints what became of it. Any answer but 200 is an error.
func (t *trigger) post(ctx context.Context, sender *http.Client, target, provider string, n notification, out *output) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(n.body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "eventrelay-trigger")
	sign(request.Header, provider, t.Secret, n.body)
	answer, err := sender.Do(request)
	if err != nil {
		return fmt.Errorf("no answer, is the server running? %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := fmt.Fprintf(out.out, "sent %s (%d bytes) to %s: %s\n", n.name, len(n.body), target, answer.Status); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer %s: %w", answer.Status, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("not accepted: %s: %s%s", answer.Status, cmp.Or(line, "(no text)"), hint(answer))
}

// sign sets the header by which the provider proves that it sent the body.
func sign(header http.Header, provider, secret string, body []byte) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	signature := hex.EncodeToString(mac.Sum(nil))
	if provider == providerDialog360 {
		header.Set("X-360dialog-Signature", signature)
		return
	}
	header.Set("X-Hub-Signature-256", "sha256="+signature)
}

// hint says what to look at for an answer.
func hint(answer *http.Response) string {
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return "; is --secret the secret of that source, and --provider its provider?"
	case http.StatusNotFound:
		return "; is there such a --source, and is --url the webhook port?"
	case http.StatusServiceUnavailable:
		if after := answer.Header.Get("Retry-After"); after != "" {
			return "; try again in " + after + " s"
		}
	}
	return ""
}

// merge puts bodies of one kind into one: the entries of Meta's envelopes stand in one envelope, everything else in an array.
func merge(bodies []json.RawMessage) ([]byte, error) {
	type envelope struct {
		Object json.RawMessage   `json:"object"`
		Entry  []json.RawMessage `json:"entry"`
	}
	var all envelope
	for _, body := range bodies {
		var one envelope
		if err := json.Unmarshal(body, &one); err != nil || one.Object == nil || one.Entry == nil {
			return json.Marshal(bodies)
		}
		all.Object, all.Entry = one.Object, append(all.Entry, one.Entry...)
	}
	return json.Marshal(all)
}

// providerOf tells who would send a body: what 360dialog itself sends names its event beside the data, everything else is Meta's envelope.
func providerOf(body []byte) string {
	var shape struct {
		Entry json.RawMessage `json:"entry"`
		Event *string         `json:"event"`
		Type  *string         `json:"type"`
	}
	if err := json.Unmarshal(body, &shape); err != nil || shape.Entry != nil || (shape.Event == nil && shape.Type == nil) {
		return providerMeta
	}
	return providerDialog360
}
