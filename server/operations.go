package main

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"eventrelay/server/auth"
	"eventrelay/server/eventlog"
	"eventrelay/server/journal"
	"eventrelay/server/rpc"
)

// operations is the management port: health, readiness and metrics beside the REST API. Health and readiness are open, for probes have no tokens; the RPCs behind REST
// decide for themselves; everything else is for those who may read.
func operations(rest http.Handler, guard *auth.Guard, metrics *prometheus.Registry, ready func() error, lag func() uint64) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", rest)
	mux.Handle("/", rpc.Guarded(guard, auth.Reader, rest))
	mux.Handle("GET /metrics", rpc.Guarded(guard, auth.Reader, promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		// Webhooks are accepted however far the log is behind, until the journal is full.
		if behind := lag(); behind > 0 {
			fmt.Fprintf(w, "ok, %d notifications behind\n", behind)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// watchJournal shows how much waits in the journal, and how much room there is.
func watchJournal(registerer prometheus.Registerer, j *journal.Journal) {
	factory := promauto.With(registerer)
	for _, gauge := range []struct {
		name, help string
		value      func(journal.Usage) float64
	}{
		{"eventrelay_journal_waiting_bytes", "Bytes of notifications that are not in the log yet.", func(u journal.Usage) float64 { return float64(u.Bytes) }},
		{"eventrelay_journal_limit_bytes", "Bytes that may wait before webhooks are answered 503.", func(u journal.Usage) float64 { return float64(u.MaxBytes) }},
		{"eventrelay_journal_disk_free_bytes", "Free disk where the journal lies.", func(u journal.Usage) float64 { return float64(u.FreeBytes) }},
		{"eventrelay_journal_damaged_records", "Records that were found damaged on disk since the start.", func(u journal.Usage) float64 { return float64(u.Damaged) }},
	} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: gauge.name, Help: gauge.help}, func() float64 { return gauge.value(j.Usage()) })
	}
}

// watchLog shows whether the log is there.
func watchLog(registerer prometheus.Registerer, l *eventlog.Log) {
	promauto.With(registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventrelay_log_up", Help: "1 while the log can be reached; 0 while it is away and notifications wait in the journal.",
	}, func() float64 {
		if l.Up() {
			return 1
		}
		return 0
	})
}

// hint says what to try next, for development.
func (s *server) hint() string {
	return fmt.Sprintf(`
eventrelay serves for development. In another terminal:

  go run ./client/eventrelay tail --server %[3]s
  go run ./client/eventrelay trigger --url http://%[1]s

  webhooks  http://%[1]s/webhooks/dev     (Meta: app secret dev-app-secret, verify token dev-verify-token)
            http://%[1]s/webhooks/dev360  (360dialog partner: secret dev-app-secret)
  REST      http://%[2]s/v1/events        OpenAPI http://%[2]s/openapi.json
  gRPC      grpcurl -plaintext %[3]s list

`, s.webhookListener.Addr(), s.managementListener.Addr(), s.grpcListen.Addr())
}
