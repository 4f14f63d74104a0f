package webhook

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics count what was answered. Every label is of a fixed set: the known sources, our reasons, our status codes.
type metrics struct {
	requests  *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	duration  prometheus.Histogram
	bodyBytes prometheus.Histogram
}

// newMetrics registers the metrics, unless the registerer is nil.
func newMetrics(registerer prometheus.Registerer) *metrics {
	with := promauto.With(registerer)
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "eventrelay_webhook_requests_total",
			Help: "Requests answered on the webhook port, by source (empty for what is not a known source) and status code.",
		}, []string{"source", "code"}),
		refusals: with.NewCounterVec(prometheus.CounterOpts{
			Name: "eventrelay_webhook_refused_total",
			Help: "Requests refused on the webhook port, by source (empty for what is not a known source) and reason.",
		}, []string{"source", "reason"}),
		duration: with.NewHistogram(prometheus.HistogramOpts{
			Name: "eventrelay_webhook_request_duration_seconds",
			Help: "Time from a request's headers to its answer, the reading of the body and the inbox's sync included.",
			// From a refusal in memory to the 5 s after which a provider gives up.
			Buckets:                     []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor: 1.1,
		}),
		bodyBytes: with.NewHistogram(prometheus.HistogramOpts{
			Name:                        "eventrelay_webhook_body_bytes",
			Help:                        "Size of the bodies whose signature was right.",
			Buckets:                     prometheus.ExponentialBuckets(256, 4, 8), // 256 B to 4 MiB
			NativeHistogramBucketFactor: 1.1,
		}),
	}
}

func (m *metrics) answered(source string, code int, took time.Duration) {
	m.requests.WithLabelValues(source, strconv.Itoa(code)).Inc()
	m.duration.Observe(took.Seconds())
}

func (m *metrics) refused(source, reason string) {
	m.refusals.WithLabelValues(source, reason).Inc()
}
