package eventlog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventrelay/server/eventlog/natstest"
)

// transcript is a log that tests read.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (t *transcript) count(text string) int { return strings.Count(t.String(), text) }

func (t *transcript) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(t, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// wantAway checks that every call says, at once, that the log is away.
func wantAway(t *testing.T, l *Log) {
	t.Helper()
	if l.Up() {
		t.Error("a log that is away is up")
	}
	calls := map[string]func() error{
		"append":      func() error { _, err := l.Append(t.Context(), records(1, 1)); return err },
		"state":       func() error { _, err := l.State(t.Context()); return err },
		"get":         func() error { _, err := l.Get(t.Context(), 1); return err },
		"position":    func() error { _, _, err := l.Position(t.Context(), "journal"); return err },
		"sequence at": func() error { _, err := l.SequenceAt(t.Context(), time.Unix(0, 0)); return err },
		"read": func() error {
			for _, err := range l.Read(t.Context(), 1) {
				return err
			}
			return nil
		},
	}
	for name, call := range calls {
		began := time.Now()
		if err := call(); !errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s gave %v", name, err)
		}
		if took := time.Since(began); took > callTimeout/2 {
			t.Errorf("%s took %v to say so", name, took)
		}
	}
}

func ready(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAServerThatIsAwayAtTheStartIsReachedWhenItComes(t *testing.T) {
	srv := natstest.NewServer(t)
	var said transcript
	l := open(t, Options{URL: srv.URL(), Logger: said.logger()})
	wantAway(t, l)
	if id := l.ID(); id != "" {
		t.Errorf("a log that nobody has seen is called %q", id)
	}
	x := tailFrom(t, l, 0) // which waits
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ready gave %v", err)
	}

	srv.Start()
	ready(t, l)
	if !l.Up() || l.ID() == "" {
		t.Errorf("up is %v, the identity %q", l.Up(), l.ID())
	}
	mustAppend(t, l, records(1, 30))
	wantEntries(t, read(t, l, 1), 1, records(1, 30))
	waitFor(t, "the tail", func() bool { return x.len() == 30 })

	id := l.ID()
	srv.Stop()
	waitFor(t, "the loss to be noticed", func() bool { return !l.Up() })
	l.mu.Lock()
	l.patience = time.Now() // it has been away for long
	l.mu.Unlock()
	wantAway(t, l)
	srv.Start()
	ready(t, l)
	mustAppend(t, l, records(31, 30))
	waitFor(t, "the tail", func() bool { return x.len() == 60 })
	wantEntries(t, x.end(t), 1, records(1, 60))
	if l.ID() != id {
		t.Errorf("the identity has become %s, was %s", l.ID(), id)
	}
	if n := said.count("level=WARN"); n != 1 { // both outages within one minute
		t.Errorf("%d warnings:\n%s", n, &said)
	}
}

func TestAServerThatAcceptsAndSaysNothingHoldsUpNeitherOpenNorClose(t *testing.T) {
	srv := natstest.NewServer(t)
	srv.Start()
	proxy := natstest.NewProxy(t, srv.Address())
	proxy.Stall()
	began := time.Now()
	l := open(t, Options{URL: proxy.URL()})
	wantAway(t, l)
	mustClose(t, l)
	if took := time.Since(began); took > callTimeout-time.Second {
		t.Errorf("it took %v", took)
	}

	l = open(t, Options{URL: proxy.URL()})
	proxy.Resume()
	ready(t, l)
	mustAppend(t, l, records(1, 3))
}

func TestAServerThatTakesNothingAnyMoreIsUnavailableAndHoldsUpNoClose(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a call to run out of time")
	}
	srv := natstest.NewServer(t)
	srv.Start()
	proxy := natstest.NewProxy(t, srv.Address())
	l := open(t, Options{URL: proxy.URL()})
	mustAppend(t, l, records(1, 3))
	proxy.Stall()
	appended := make(chan error, 1)
	go func() {
		rs := records(4, 5)
		for i := range rs {
			rs[i].Data = make([]byte, 12<<20) // more than the sockets in between hold
		}
		_, err := l.Append(context.Background(), rs)
		appended <- err
	}()
	// The time is up for the call's own bound, which must not look like the caller's deadline.
	if _, err := l.State(t.Context()); !errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("state gave %v", err)
	}
	began := time.Now()
	mustClose(t, l)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("close took %v", took)
	}
	if err := <-appended; err == nil {
		t.Error("what nobody took was appended")
	}
}

func TestSettingsThatCannotWorkAreRefusedByName(t *testing.T) {
	stream := func(name string, change func(*jetstream.StreamConfig)) func(*testing.T, *natstest.Server) {
		return func(t *testing.T, srv *natstest.Server) {
			nc, err := nats.Connect(srv.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			c := jetstream.StreamConfig{Name: name, Subjects: []string{subjectPrefix + ">"}}
			if change != nil {
				change(&c)
			}
			sealed := c.Sealed
			c.Sealed = false
			if _, err := js.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if c.Sealed = sealed; sealed {
				if _, err := js.UpdateStream(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	user := func(p *server.Permissions) func(*natstest.Options) {
		return func(o *natstest.Options) {
			o.Users = []*server.User{{Username: "relay", Password: "pa55word", Permissions: p}}
		}
	}
	for _, c := range []struct {
		what     string
		change   func(*natstest.Options)
		prepare  func(*testing.T, *natstest.Server)
		login    string
		replicas int
		want     []string
	}{
		{what: "without JetStream", change: func(o *natstest.Options) { o.JetStream = false }, want: []string{"JetStream is not enabled", "--jetstream"}},
		{what: "a wrong password", change: user(nil), login: "relay:wr0ng@", want: []string{"Authorization Violation"}},
		{
			what: "an account that may not use the API", change: user(&server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}}), login: "relay:pa55word@",
			want: []string{"permissions violation", "$JS.API.STREAM.INFO.EVENTS"},
		},
		{what: "the subjects in another stream", prepare: stream("OTHER", nil), want: []string{"subjects overlap"}},
		{what: "a stream in memory", prepare: stream(streamName, func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), want: []string{"EVENTS", "storage"}},
		{what: "a sealed stream", prepare: stream(streamName, func(c *jetstream.StreamConfig) { c.Sealed = true }), want: []string{"EVENTS", "sealed"}},
		{what: "more copies than servers", replicas: 3, want: []string{"replicas > 1"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			srv := natstest.NewServer(t)
			if c.change != nil {
				srv.Start(c.change)
			} else {
				srv.Start()
			}
			if c.prepare != nil {
				c.prepare(t, srv)
			}
			l, err := Open(t.Context(), Options{URL: "nats://" + c.login + srv.Address(), Replicas: c.replicas})
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("open gave %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q says nothing of %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "pa55word") || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%q holds a password", err)
			}
		})
	}
}

// What an operator prepared is brought to what the log needs, as far as the server can.
func TestAPreparedStreamNeitherDropsEventsNorKeepsQuietAboutThem(t *testing.T) {
	srv := natstest.NewServer(t)
	srv.Start()
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"other"}, NoAck: true, MaxMsgsPerSubject: 1, MaxMsgSize: 100, MaxMsgs: 5, MaxAge: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{URL: srv.URL()})
	rs := records(1, 30)
	rs[7].Data = make([]byte, 1000)
	mustAppend(t, l, rs)
	wantEntries(t, read(t, l, 1), 1, rs)
}

func TestAWrongSettingThatShowsLaterIsToldAndMendedWithoutARestart(t *testing.T) {
	srv := natstest.NewServer(t)
	var said transcript
	l := open(t, Options{URL: "nats://relay:pa55word@" + srv.Address(), Logger: said.logger()})
	waitFor(t, "word of a server that is away", func() bool { return said.count("level=WARN") == 1 })
	if said.count("level=ERROR") != 0 {
		t.Errorf("of a server that is away it says\n%s", &said)
	}
	srv.Start(func(o *natstest.Options) { o.MaxPayload = 1 << 20 })
	waitFor(t, "the complaint", func() bool { return said.count("level=ERROR") == 1 && said.count("max_payload is 1048576") == 1 })
	if _, err := l.State(t.Context()); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnsupported) {
		t.Errorf("state gave %v", err)
	}
	srv.Stop()
	srv.Start()
	ready(t, l)
	waitFor(t, "the all-clear", func() bool { return said.count("available again") == 1 })
	mustAppend(t, l, records(1, 3))
	if said.count("pa55word") > 0 {
		t.Errorf("the log holds a password:\n%s", &said)
	}
}

func TestAURLThatIsNoneIsRefusedWithoutShowingIt(t *testing.T) {
	for url, want := range map[string]string{
		"nats://relay:pa55/word@host:4222":            "server 1",
		"nats://relay:pa55%zzword@host:4222":          "%25",
		"nats://h1:4222,nats://relay:pa55^word@:4222": "server 2",
		"http://relay:pa55word@host:4222":             `"http"`,
		"nats://h1:4222,":                             "server 2",
	} {
		l, err := Open(t.Context(), Options{URL: url})
		if err == nil {
			_ = l.Close()
			t.Errorf("%s was opened", url)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pa55") || strings.Contains(err.Error(), "word@") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"host", "host:4222", "nats://u:p@h1:4222, tls://h2:4222", "wss://h/path"} {
		if place, err := hosts(url); err != nil || strings.Contains(place, "u:p") {
			t.Errorf("%s: %q, %v", url, place, err)
		}
	}
}
