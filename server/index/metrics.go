package index

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// meters shows what the index holds.
type meters struct {
	refuted, failures prometheus.Counter
}

func newMeters(registerer prometheus.Registerer, usage func() (events, bytes, generations int)) *meters {
	factory := promauto.With(registerer)
	gauge := func(name, help string, value func() int) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	gauge("eventrelay_index_events", "Ids of events that are known, to tell copies and to find events.", func() int { n, _, _ := usage(); return n })
	gauge("eventrelay_index_bytes", "What they take in memory.", func() int { _, n, _ := usage(); return n })
	gauge("eventrelay_index_generations", "In how many generations they lie, which age out as a whole.", func() int { _, _, n := usage(); return n })
	return &meters{
		refuted:  factory.NewCounter(prometheus.CounterOpts{Name: "eventrelay_index_refuted_total", Help: "Fingerprints that were known and whose event, looked up in the log, was another or was lost: new events all the same."}),
		failures: factory.NewCounter(prometheus.CounterOpts{Name: "eventrelay_index_write_failures_total", Help: "Times the files of the index could not be written; what they lack is read from the log at the next start."}),
	}
}
