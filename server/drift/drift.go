// Package drift lists what providers send and the schema does not know yet: objects, fields, paths and words.
//
// It is one more reader of the log: it reads on from where it stands, waits for the bell, and counts what the events say of themselves. So every relay on one log comes to
// the same list, nothing is counted twice, and a crash loses nothing: where it stands is kept together with what was counted up to there, and what came behind is read again.
//
// A list holds keys and words of the provider's own. What looks like anything else, a number, a name with a space, an address, is told as `*`.
package drift

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/hub"
)

const (
	// maxEntries bounds the list: a schema that is a year behind has some hundred.
	maxEntries = 5000
	// saveInterval is how often what was counted is written to disk while there is something new. What a crash loses of it is counted again.
	saveInterval = 30 * time.Second
	// retryDelay is how long the count waits after the log could not be read.
	retryDelay = time.Second
)

// Log is what is read: the hub.
type Log interface {
	Read(ctx context.Context, after uint64) iter.Seq2[hub.Entry, error]
	Wait(ctx context.Context, after uint64) error
}

// Counted says up to where a list goes.
type Counted struct {
	// Sequence is that of the last event counted, 0 before the first.
	Sequence uint64
	// Forgotten is how many entries had to make room for others.
	Forgotten uint64
}

// Drift is the list. Any goroutine may call List; Run may be called once.
type Drift struct {
	log    Log
	logID  func() string
	path   string
	logger *slog.Logger
	known  objects
	total  *prometheus.CounterVec

	// mu guards the fields below it.
	mu      sync.Mutex
	counted Counted
	entries map[key]*eventrelayv1.Drift
	// order is the entries as List gives them; nil when an entry came or went since it was made.
	order []*eventrelayv1.Drift
}

// key tells entries apart.
type key struct {
	kind            eventrelayv1.DriftKind
	typ, path, word string
}

// New returns the list for the log. It is empty until Run has found the log there, and takes over what was saved to the file at path, which need not exist: then, and when it is
// of a log with another identity or cannot be read, the log is counted from its beginning. logID tells the identity of a log that is there. Metrics go to the registerer.
func New(log Log, logID func() string, path string, registerer prometheus.Registerer, logger *slog.Logger) *Drift {
	d := &Drift{log: log, logID: logID, path: path, logger: logger, known: knownObjects(), entries: map[key]*eventrelayv1.Drift{}}
	d.total = promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "eventrelay_drift_total",
		Help: "Things that providers sent and the schema does not know, as read from the log since the start: every relay on one log counts all of them. The type is that of a known event, or `unknown`.",
	}, []string{"kind", "type"})
	return d
}

// Run counts until ctx ends or the log is closed, and saves what was counted, now and then and at the end.
func (d *Drift) Run(ctx context.Context) {
	if d.log.Wait(ctx, 0) != nil { // there is no log yet, or nothing in it
		return
	}
	if err := d.load(); err != nil {
		d.logger.Warn("what was counted of drift cannot be read, counting the log from its beginning", "path", d.path, "error", err)
	}
	saved := d.position()
	for {
		err := d.count(ctx)
		if position := d.position(); position != saved {
			if err := d.save(); err != nil {
				d.logger.Warn("what was counted of drift cannot be saved, it will be counted again after a restart", "path", d.path, "error", err)
			}
			saved = position
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, hub.ErrClosed):
			return
		case err == nil:
			continue
		}
		d.logger.Warn("the log cannot be read to count drift, trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
}

// count reads on and waits for the bell, in turns, until it is time to save.
func (d *Drift) count(ctx context.Context) error {
	due := time.Now().Add(saveInterval)
	bounded, cancel := context.WithDeadline(ctx, due)
	defer cancel()
	for {
		for entry, err := range d.log.Read(ctx, d.position()) {
			if err != nil {
				return fmt.Errorf("read the log behind %d: %w", d.position(), err)
			}
			d.observe(entry)
			if time.Now().After(due) {
				return nil
			}
		}
		switch err := d.log.Wait(bounded, d.position()); {
		case err == nil:
		case bounded.Err() != nil:
			return nil
		default:
			return err
		}
	}
}

func (d *Drift) position() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counted.Sequence
}

// observe counts one event.
func (d *Drift) observe(entry hub.Entry) {
	ev, err := read(entry.Data)
	if err != nil {
		d.logger.Error("an event of the log cannot be read", "sequence", entry.Sequence, "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted.Sequence = entry.Sequence
	if err != nil {
		return
	}
	label, keys := d.known.drift(ev)
	for _, k := range keys {
		d.add(ev, label, k)
	}
}

// add counts one thing of an event; mu is held.
func (d *Drift) add(ev event, label string, k key) {
	d.total.WithLabelValues(strings.ToLower(strings.TrimPrefix(k.kind.String(), "DRIFT_KIND_")), label).Inc()
	entry := d.entries[k]
	if entry == nil {
		if len(d.entries) >= maxEntries {
			d.forget()
		}
		entry = &eventrelayv1.Drift{Kind: k.kind, Type: k.typ, Path: k.path, Word: k.word, FirstSeenTime: ev.receivedAt}
		d.entries[k], d.order = entry, nil
		// What exactly is for the list alone: a log goes to more people.
		d.logger.Info("a provider sends what the schema does not know; ListDrift tells what", "kind", k.kind.String(), "type", label, "event", ev.id)
	}
	entry.Count++
	entry.LastSeenTime, entry.SampleEventId = ev.receivedAt, ev.id
}

// forget removes the entry that was not seen for the longest; mu is held.
func (d *Drift) forget() {
	var oldest key
	var since time.Time
	for k, entry := range d.entries {
		if seen := entry.GetLastSeenTime().AsTime(); since.IsZero() || seen.Before(since) {
			oldest, since = k, seen
		}
	}
	delete(d.entries, oldest)
	d.order = nil
	d.counted.Forgotten++
}

// List returns copies of the entries by type, path, word and kind, and up to where the log was counted.
func (d *Drift) List() ([]*eventrelayv1.Drift, Counted) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.order == nil {
		d.order = make([]*eventrelayv1.Drift, 0, len(d.entries))
		for _, entry := range d.entries {
			d.order = append(d.order, entry)
		}
		slices.SortFunc(d.order, Compare)
	}
	list := make([]*eventrelayv1.Drift, len(d.order))
	for i, entry := range d.order {
		list[i] = proto.CloneOf(entry)
	}
	return list, d.counted
}

// Compare is the order of List.
func Compare(a, b *eventrelayv1.Drift) int {
	return cmp.Or(cmp.Compare(a.GetType(), b.GetType()), cmp.Compare(a.GetPath(), b.GetPath()), cmp.Compare(a.GetWord(), b.GetWord()), cmp.Compare(a.GetKind(), b.GetKind()))
}
