package rpc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Registerer is where metrics are registered.
type Registerer = prometheus.Registerer

// meters counts what streams do.
type meters struct {
	subscribers  prometheus.Gauge
	delivered    prometheus.Counter
	filterErrors prometheus.Counter
}

func newMeters(registerer Registerer) *meters {
	factory := promauto.With(registerer)
	return &meters{
		subscribers:  factory.NewGauge(prometheus.GaugeOpts{Name: "eventrelay_subscribers", Help: "Open event streams."}),
		delivered:    factory.NewCounter(prometheus.CounterOpts{Name: "eventrelay_events_delivered_total", Help: "Events sent on streams."}),
		filterErrors: factory.NewCounter(prometheus.CounterOpts{Name: "eventrelay_filter_errors_total", Help: "Evaluations of a filter that failed on an event, which then counts as not wanted. Streams with the same filter share an evaluation."}),
	}
}
