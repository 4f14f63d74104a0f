package subscription

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// tallies are the tallies of all subscriptions by UID, since the start. They are safe for concurrent use.
type tallies struct {
	since time.Time

	mu    sync.Mutex // guards byUID
	byUID map[string]*tally
}

func newTallies() *tallies { return &tallies{since: time.Now(), byUID: map[string]*tally{}} }

// of returns the tally of a subscription, which stays the same when the subscription changes.
func (t *tallies) of(uid string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byUID[uid] == nil {
		t.byUID[uid] = &tally{bell: make(chan struct{}), given: map[string]uint64{}, next: map[string]uint64{}, windows: map[*Window]struct{}{}, attempts: map[place]int{}}
	}
	return t.byUID[uid]
}

// known returns the tally of a subscription that this relay has one of, or nil.
func (t *tallies) known(uid string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byUID[uid]
}

// drop forgets a subscription that was deleted.
func (t *tallies) drop(uid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byUID, uid)
}

// tally counts what this relay does for one subscription, and notes what it has seen of it. It is safe for concurrent use.
type tally struct {
	deliveries, redeliveries, acknowledged, deadLettered, filterErrors atomic.Uint64
	// active is when somebody last asked or settled here, in Unix nanoseconds.
	active atomic.Int64
	// looked is when what retention took was last looked for, in Unix nanoseconds.
	looked atomic.Int64

	mu   sync.Mutex // guards what follows
	bell chan struct{}
	// given is the highest sequence that each consumer was given, as far as is known here.
	given map[string]uint64
	// next is the first event that waits for each consumer, as of the last look.
	next map[string]uint64
	// noted is what of next others can read; nil until it was read itself.
	noted map[string]uint64
	// attempts are the newest of what was given here more than once and is not acknowledged, as far as that is known: a relay knows its own deliveries.
	attempts map[place]int
	// windows are those of the streams that are open here.
	windows map[*Window]struct{}
	// settled tells progress from the lack of it: it changes with what is settled; since is when it last did.
	settled uint64
	since   time.Time
	stalled bool
}

func (t *tally) touch() { t.active.Store(time.Now().UnixNano()) }

// rung returns a channel that is closed at the next ring.
func (t *tally) rung() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bell
}

// ring wakes the pulls that wait: something may be due.
func (t *tally) ring() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.bell)
	t.bell = make(chan struct{})
}

// progress notes how much is settled and whether there is a backlog, and tells whether there was no progress for a time, and whether that is news.
func (t *tally) progress(settled uint64, backlog bool, limit time.Duration) (stalled, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if settled != t.settled || !backlog || t.since.IsZero() {
		t.settled, t.since = settled, time.Now()
	}
	stalled = backlog && time.Since(t.since) >= limit
	news = stalled != t.stalled
	t.stalled = stalled
	return stalled, news
}

// noteAttempts notes what was given again.
func (t *tally) noteAttempts(ids []ackID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if id.attempt < 2 {
			continue
		}
		if len(t.attempts) >= maxOutstanding { // what is settled by other relays is not taken out
			clear(t.attempts)
		}
		t.attempts[id.place()] = id.attempt
	}
}

// forgetAttempts forgets what is acknowledged.
func (t *tally) forgetAttempts(ids []ackID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		delete(t.attempts, id.place())
	}
}

// outdated tells whether the event of a delivery is known to have been given again since, so that its newer holder decides.
func (t *tally) outdated(id ackID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attempts[id.place()] > id.attempt
}

func (t *tally) isStalled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stalled
}

func (t *tally) stats(since time.Time) *eventrelayv1.DeliveryStats {
	stats := &eventrelayv1.DeliveryStats{
		SinceTime: timestamppb.New(since), Deliveries: t.deliveries.Load(), Redeliveries: t.redeliveries.Load(), Acknowledged: t.acknowledged.Load(),
		DeadLettered: t.deadLettered.Load(), FilterErrors: t.filterErrors.Load(),
	}
	if stats.GetDeliveries() > 0 {
		stats.RedeliveryRate = float64(stats.GetRedeliveries()) / float64(stats.GetDeliveries())
	}
	return stats
}

// meters are the metrics of all subscriptions, by name.
type meters struct {
	gauges                                                             []*prometheus.GaugeVec
	backlog, outstanding, oldest, deadLetters, stalled, lost           *prometheus.GaugeVec
	counters                                                           []*prometheus.CounterVec
	deliveries, redeliveries, acknowledged, deadLettered, filterErrors *prometheus.CounterVec
}

func newMeters(registerer prometheus.Registerer) *meters {
	factory := promauto.With(registerer)
	m := &meters{}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := factory.NewGaugeVec(prometheus.GaugeOpts{Name: "eventrelay_subscription_" + name, Help: help}, []string{"subscription"})
		m.gauges = append(m.gauges, g)
		return g
	}
	counter := func(name, help string) *prometheus.CounterVec {
		c := factory.NewCounterVec(prometheus.CounterOpts{Name: "eventrelay_subscription_" + name + "_total", Help: help}, []string{"subscription"})
		m.counters = append(m.counters, c)
		return c
	}
	m.backlog = gauge("backlog_events", "Events of a durable subscription that are not settled yet.")
	m.outstanding = gauge("outstanding_events", "Events of a durable subscription that were delivered and are not acknowledged yet.")
	m.oldest = gauge("oldest_unacked_age_seconds", "Age of the oldest event of the backlog; 0 without a backlog.")
	m.deadLetters = gauge("dead_letters", "Dead letters of a durable subscription.")
	m.stalled = gauge("stalled", "1 while a durable subscription has a backlog and makes no progress.")
	m.lost = gauge("lost_events", "Events that retention removed before a durable subscription had them acknowledged, until a seek.")
	m.deliveries = counter("deliveries", "Deliveries of events by this relay.")
	m.redeliveries = counter("redeliveries", "Deliveries that were not the first of their event.")
	m.acknowledged = counter("acknowledged", "Events acknowledged by way of this relay.")
	m.deadLettered = counter("dead_lettered", "Events that this relay made dead letters.")
	m.filterErrors = counter("filter_errors", "Events on which the filter failed, which count as not wanted.")
	return m
}

// drop forgets a subscription that was deleted.
func (m *meters) drop(name string) {
	for _, g := range m.gauges {
		g.DeleteLabelValues(name)
	}
	for _, c := range m.counters {
		c.DeleteLabelValues(name)
	}
}
