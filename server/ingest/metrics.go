package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// meters counts what the loop does.
type meters struct {
	appended, duplicates, failures, damaged, panics prometheus.Counter
}

func newMeters(registerer prometheus.Registerer, lag func() uint64) *meters {
	factory := promauto.With(registerer)
	factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "eventrelay_ingest_lag_records", Help: "Acknowledged notifications that are not in the log yet."}, func() float64 { return float64(lag()) })
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &meters{
		appended:   counter("eventrelay_ingest_events_total", "Events appended to the log."),
		duplicates: counter("eventrelay_ingest_duplicates_total", "Events that the log already had, from notifications that were delivered again."),
		failures:   counter("eventrelay_ingest_failures_total", "Steps into the log that failed and were tried again."),
		damaged:    counter("eventrelay_ingest_damaged_records_total", "Records of the journal that were damaged on disk and could not be read."),
		panics:     counter("eventrelay_ingest_panics_total", "Notifications on which the translation panicked; each is stored as one unknown event."),
	}
}
