package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"eventrelay/server/connection"
	"eventrelay/server/drift"
	"eventrelay/server/eventlog"
	"eventrelay/server/gateway"
	"eventrelay/server/hub"
	"eventrelay/server/index"
	"eventrelay/server/ingest"
	"eventrelay/server/journal"
	"eventrelay/server/rpc"
	"eventrelay/server/source"
	"eventrelay/server/subscription"
	"eventrelay/server/webhook"
	"eventrelay/server/webhook/fastpath"
)

// Timeouts of the HTTP ports: a sender that is slower than that is no provider.
const (
	readHeaderTimeout = 5 * time.Second
	// bodyTimeout is for the largest body at about 1 Mbit/s.
	bodyTimeout = 30 * time.Second
	// answerTimeout counts from the end of the header, so it holds the reading of the body and the wait for the disk.
	answerTimeout  = time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	// innerWindow is how much of a stream is on its way to the gateway while that cannot pass it on.
	innerWindow = 256 << 10
)

// server is everything that runs, in the order of the walk.
type server struct {
	config  config
	logger  *slog.Logger
	metrics *prometheus.Registry

	// callers says who calls; the ports speak TLS by it.
	callers callers

	sources *source.Store
	journal *journal.Journal
	log     *eventlog.Log
	hub     *hub.Hub
	index   *index.Index
	ingest  *ingest.Ingest
	drift   *drift.Drift
	// subscriptions are the durable ones.
	subscriptions *subscription.Store
	// providers are the APIs of those who post.
	providers connection.Providers
	health    *health.Server
	grpc      *grpc.Server
	// inner is how the gateway reaches the gRPC server: in memory, through the same interceptors as everybody.
	inner *bufconn.Listener
	conn  *grpc.ClientConn

	webhook                                         *fastpath.Server
	management                                      *http.Server
	webhookListener, managementListener, grpcListen net.Listener
	// stopping is set when the shutdown begins, so that /readyz says so.
	stopping atomic.Bool
}

// open builds everything and binds the ports; nothing is served yet. On an error, what was opened is closed again.
func open(ctx context.Context, c config, logger *slog.Logger) (_ *server, err error) {
	s := &server{config: c, logger: logger, metrics: prometheus.NewRegistry(), health: health.NewServer()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if s.callers, err = openCallers(c, s.metrics, logger.With("room", "auth")); err != nil {
		return nil, err
	}
	if s.journal, err = journal.Open(filepath.Join(c.DataDir, "journal"), journal.Options{
		MaxBytes: int64(c.JournalMaxBytes), MinFreeBytes: int64(c.MinFreeBytes), Logger: logger.With("room", "journal"),
	}); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if s.log, err = eventlog.Open(ctx, eventlog.Options{
		Dir: filepath.Join(c.DataDir, "log"), URL: c.NATSURL, Replicas: c.NATSReplicas, DuplicateWindow: c.DuplicateWindow,
		MaxAge: c.RetentionAge, MaxBytes: int64(c.RetentionBytes), MaxEvents: c.RetentionEvents, Logger: logger.With("room", "eventlog"),
	}); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if s.sources, err = openSources(ctx, c, s.log, s.callers.client != nil, logger.With("room", "source")); err != nil {
		return nil, err
	}
	watchJournal(s.metrics, s.journal)
	watchLog(s.metrics, s.log)
	s.hub = hub.New(rpc.HubLog(s.log), logger.With("room", "hub"))
	if s.index, err = index.Open(s.log, s.hub, index.Options{
		Dir: filepath.Join(c.DataDir, "index"), Horizon: c.DuplicateHorizon, Metrics: s.metrics, Logger: logger.With("room", "index"),
	}); err != nil {
		return nil, err
	}
	s.ingest = ingest.New(s.journal, s.log, s.index, s.metrics, logger.With("room", "ingest"))
	s.ingest.Count(s.sources.Count)
	s.drift = drift.New(s.hub, s.log.ID, filepath.Join(c.DataDir, "drift.json"), s.metrics, logger.With("room", "drift"))
	s.subscriptions = subscription.New(subscription.Options{
		Log: s.log, Metrics: s.metrics, KeepDeadLetters: c.DeadLetterAge, StallAfter: c.StallAfter, Logger: logger.With("room", "subscription"),
	})
	if s.providers, err = openProviders(c, logger); err != nil {
		return nil, err
	}
	events := rpc.NewEventService(s.log, s.index, s.hub, s.metrics, logger.With("room", "rpc"))
	events.Limit(rpc.Limits{MaxAge: c.MaxStreamAge, MaxPerCaller: c.MaxStreamsPerCaller})
	events.Durable(s.subscriptions)
	if s.grpc, err = rpc.NewServer(rpc.Services{
		Events:        events,
		Sources:       rpc.NewSourceService(s.sources, s.providers),
		Schema:        rpc.NewSchemaService(s.drift, s.log),
		Subscriptions: rpc.NewSubscriptionService(s.log, s.subscriptions),
		Meta:          rpc.NewMetaSubscriptionService(s.sources, s.providers.Graph),
		Dialog360:     rpc.NewDialog360Service(s.sources, s.providers.Dialog360),
		Health:        s.health,
	}, s.callers.guard, logger.With("room", "rpc")); err != nil {
		return nil, err
	}
	if err := s.openManagement(ctx); err != nil {
		return nil, err
	}
	receiving := webhook.Options{
		Sources: s.sources, Inbox: s.journal, MaxBody: int64(c.MaxBody), Metrics: s.metrics, Logger: logger.With("room", "webhook"),
		ClientCertificate: s.callers.client,
	}
	if c.AckAfter == "log" {
		receiving.Log = s.ingest
		s.ingest.Eager()
	}
	s.webhook = fastpath.New(&http.Server{
		Handler:           webhook.New(receiving),
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(logger.With("room", "webhook").Handler(), slog.LevelDebug),
	}, logger.With("room", "webhook"))
	return s, s.listen(ctx)
}

// openManagement builds the management port: REST over the gRPC server, health, metrics.
func (s *server) openManagement(ctx context.Context) error {
	var err error
	s.inner = bufconn.Listen(1 << 20)
	if s.conn, err = grpc.NewClient("passthrough:///eventrelay",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inner.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		// Fixed, for windows that grow would let each client of the management port that does not read hold megabytes.
		grpc.WithStaticStreamWindowSize(innerWindow), grpc.WithStaticConnWindowSize(4*innerWindow),
	); err != nil {
		return fmt.Errorf("connect the gateway: %w", err)
	}
	rest, err := gateway.New(ctx, s.conn)
	if err != nil {
		return err
	}
	s.management = &http.Server{
		Handler:           guardLocal(s.config, operations(rest, s.callers.guard, s.metrics, s.ready, s.ingest.Lag)),
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.logger.With("room", "gateway").Handler(), slog.LevelDebug),
	}
	return nil
}

// listen binds the three ports.
func (s *server) listen(ctx context.Context) error {
	for _, l := range []struct {
		listener *net.Listener
		flag     string
		address  string
	}{
		{&s.webhookListener, "--webhook-addr", s.config.WebhookAddr},
		{&s.managementListener, "--http-addr", s.config.HTTPAddr},
		{&s.grpcListen, "--grpc-addr", s.config.GRPCAddr},
	} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
		if err != nil {
			return fmt.Errorf("%s: %w", l.flag, err)
		}
		*l.listener = s.callers.secure(listener, l.flag)
	}
	return nil
}

// ready says why webhooks are not accepted at the moment, or nil.
func (s *server) ready() error {
	if s.stopping.Load() {
		return errors.New("the server is going down")
	}
	if !s.sources.Accepts() {
		return source.ErrNotLoaded
	}
	return s.journal.Err()
}

// serve runs everything until ctx ends, a port fails or the log is gone for good, then shuts down in the order in which the data flows and closes what open opened.
func (s *server) serve(ctx context.Context) error {
	failed := make(chan error, 7) // one for each of those that may end by themselves
	var ports, loops sync.WaitGroup
	looping, stopIngest := context.WithCancel(context.Background())
	following, stopHub := context.WithCancel(context.Background())
	loops.Go(func() {
		if err := s.ingest.Run(looping); err != nil {
			failed <- fmt.Errorf("ingest: %w", err)
		}
	})
	loops.Go(func() { s.hub.Run(following) })
	loops.Go(func() { s.index.Run(following) })
	loops.Go(func() { s.drift.Run(following) })
	loops.Go(func() { s.callers.files.Run(following) })
	loops.Go(func() {
		if err := s.sources.Run(following); err != nil {
			failed <- s.config.sourcesFailed(err)
		}
	})
	loops.Go(func() {
		if err := s.subscriptions.Run(following); err != nil {
			failed <- fmt.Errorf("subscriptions: %w", err)
		}
	})
	ports.Go(func() { failed <- s.grpc.Serve(s.inner) })
	ports.Go(func() { failed <- s.grpc.Serve(s.grpcListen) })
	ports.Go(func() { failed <- s.management.Serve(s.managementListener) })
	ports.Go(func() { failed <- s.webhook.Serve(s.webhookListener) })
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	s.logger.Info("serving", "webhooks", s.webhookListener.Addr().String(), "http", s.managementListener.Addr().String(), "grpc", s.grpcListen.Addr().String(), "data", s.config.DataDir)

	var err error
	select {
	case <-ctx.Done():
		s.logger.Info("shutting down")
	case err = <-failed:
	}
	bounded, cancel := context.WithTimeout(context.Background(), s.config.ShutdownTimeout)
	defer cancel()

	s.stopping.Store(true)
	s.health.Shutdown()
	if e := s.webhook.Shutdown(bounded); e != nil {
		s.logger.Warn("webhooks were still being received", "error", e)
	}
	s.drain(bounded)
	stopIngest()
	s.hub.Close()
	s.subscriptions.Close()
	s.stopGRPC(bounded)
	if e := s.management.Shutdown(bounded); e != nil {
		s.logger.Warn("management calls were still open", "error", e)
		_ = s.management.Close() // a stream whose client does not read ends with its connection
	}
	stopHub()
	loops.Wait()
	s.close()
	ports.Wait()
	s.logger.Info("stopped")
	return err
}

// drain waits until the log has every acknowledged notification, for half of what is left of the time, and not at all for a log that is away: what remains waits in the
// journal for the next start.
func (s *server) drain(ctx context.Context) {
	deadline, _ := ctx.Deadline()
	half, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.ingest.Lag() > 0 {
		if !s.log.Up() {
			cancel()
		}
		select {
		case <-tick.C:
		case <-half.Done():
			s.logger.Warn("notifications wait in the journal for the next start", "records", s.ingest.Lag())
			return
		}
	}
}

// stopGRPC lets calls end by themselves, which streams do because the hub is closed, and cuts off those that have not when ctx ends.
func (s *server) stopGRPC(ctx context.Context) {
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
}

// close closes what open opened, in the order of the shutdown; what was not opened is left out.
func (s *server) close() {
	for _, l := range []net.Listener{s.webhookListener, s.managementListener, s.grpcListen} {
		if l != nil {
			_ = l.Close() // a server that was stopped has closed its own
		}
	}
	if s.providers.Graph != nil {
		s.providers.Graph.Close()
	}
	if s.providers.Dialog360 != nil {
		s.providers.Dialog360.Close()
	}
	if s.conn != nil {
		_ = s.conn.Close() // nobody uses it any more
	}
	if s.journal != nil {
		if err := s.journal.Close(); err != nil {
			s.logger.Error("close the journal", "error", err)
		}
	}
	if s.index != nil {
		if err := s.index.Close(); err != nil {
			s.logger.Error("close the index", "error", err)
		}
	}
	if s.log != nil {
		if err := s.log.Close(); err != nil {
			s.logger.Error("close the log", "error", err)
		}
	}
}
