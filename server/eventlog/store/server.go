package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// MaxRecord is the server's limit of one record; it refuses larger ones whatever max_payload says.
	MaxRecord = 32 << 20

	// maxPending is what may wait on one connection before the server cuts it as too slow: many readers share one, and
	// each has a few MiB under way at most.
	maxPending = 1 << 30

	// maxStore is the store's size limit. The journal in front watches the disk; the server's default, three quarters of
	// what happens to be free, would only be a second and different one.
	maxStore = 1 << 60

	startTimeout = 30 * time.Second
)

// Start recovers the folder and runs a server on it, without a socket. After an unclean stop the state is rebuilt from the message
// blocks, which takes as long as reading them. damaged says that a write or a sync has failed since the last acknowledgement at
// since; what was written then is written anew first.
func (f Folder) Start(log *slog.Logger, damaged bool, since time.Time) (*server.Server, error) {
	if err := f.prepare(log, damaged, since); err != nil {
		return nil, err
	}
	kept, err := newGuard(f, log)
	if err != nil {
		return nil, err
	}
	chat := &serverLog{log: log}
	srv, err := server.NewServer(&server.Options{
		ServerName:             "eventrelay",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               string(f),
		JetStreamMaxStore:      maxStore,
		DisableJetStreamBanner: true,
		MaxPayload:             MaxRecord,
		MaxPending:             maxPending,
		NoSystemAccount:        true,
	})
	if err != nil {
		return nil, fmt.Errorf("start embedded server: %w", err)
	}
	srv.SetLoggerV2(chat, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		Stop(srv)
		return nil, errors.Join(fmt.Errorf("start embedded server in %s: %s", f, chat.last()), kept.restore())
	}
	if stream := kept.lost(chat.unrecovered()); stream != "" {
		Stop(srv)
		return nil, errors.Join(fmt.Errorf("start embedded server in %s: stream %s was not recovered: %s", f, stream, chat.last()), kept.restoreDeleted())
	}
	if err := kept.end(); err != nil {
		Stop(srv)
		return nil, fmt.Errorf("start embedded server in %s: %w", f, err)
	}
	return srv, nil
}

// Stop ends a server. When it returns, nothing that was sent to it can still be stored.
func Stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// Damage asks the server about write errors of a stream and of its own JetStream, which it switches off when the folder denies
// permission.
func Damage(srv *server.Server, stream string) error {
	if !srv.JetStreamEnabled() {
		return errors.New("jetstream was switched off")
	}
	h := srv.Healthz(&server.HealthzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Stream: stream})
	if h.Error != "" {
		return errors.New(h.Error)
	}
	return nil
}

// serverLog hands the server's chatter to slog: at debug, but for errors, which are warnings, because the calls that met them
// report them again in their own words.
type serverLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[string]
	// stream is the last one that the server could not recover.
	stream atomic.Pointer[string]
}

// unrecovered is the name of a stream that the server could not recover, "" if there is none.
func (s *serverLog) unrecovered() string {
	if p := s.stream.Load(); p != nil {
		return *p
	}
	return ""
}

func (s *serverLog) say(level slog.Level, format string, v ...any) {
	if s.log.Enabled(context.Background(), level) {
		s.log.Log(context.Background(), level, "nats-server: "+fmt.Sprintf(format, v...))
	}
}

func (s *serverLog) Noticef(format string, v ...any) { s.say(slog.LevelDebug, format, v...) }
func (s *serverLog) Debugf(format string, v ...any)  { s.say(slog.LevelDebug, format, v...) }
func (s *serverLog) Tracef(format string, v ...any)  { s.say(slog.LevelDebug, format, v...) }

// Warnf remembers the one warning that says why a stream is not there.
func (s *serverLog) Warnf(format string, v ...any) {
	if strings.Contains(format, "Error recreating stream") && len(v) > 0 {
		name := fmt.Sprint(v[0])
		s.stream.Store(&name)
		s.remember(format, v...)
	}
	s.say(slog.LevelDebug, format, v...)
}

func (s *serverLog) Errorf(format string, v ...any) {
	s.remember(format, v...)
	s.say(slog.LevelWarn, format, v...)
}

func (s *serverLog) Fatalf(format string, v ...any) {
	s.remember(format, v...)
	s.say(slog.LevelError, format, v...)
}

func (s *serverLog) remember(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	s.fatal.Store(&text)
}

// last is the latest error the server spoke of; the server itself returns none from its start.
func (s *serverLog) last() string {
	if p := s.fatal.Load(); p != nil {
		return *p
	}
	return "it did not become ready"
}
