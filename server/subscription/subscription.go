// Package subscription keeps durable subscriptions: which events a service has acknowledged, and what becomes of those that it has not.
//
// What is delivered, outstanding and due again is kept by durable consumers of the log, never here: relays that share the log share its subscriptions, and a relay that stops
// takes nothing along. A subscription is a record in a bucket, one consumer (with ordering one for each partition, with one event outstanding each), and one more for dead
// letters that are replayed.
package subscription

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/filter"
)

var (
	// ErrNotFound is returned for a name that no subscription has.
	ErrNotFound = errors.New("no such subscription")
	// ErrExists is returned by Create for a name that is taken.
	ErrExists = errors.New("there is a subscription of that name")
	// ErrStale is returned for a change from an etag that is not the subscription's any more.
	ErrStale = errors.New("the subscription has changed since the etag was given out; read it again")
	// ErrAckID is returned where none of the ids that were given is one of the subscription.
	ErrAckID = errors.New("no ack_id of this subscription")
	// ErrDeadLetter is returned for a dead letter that is not there.
	ErrDeadLetter = errors.New("no such dead letter")
)

// StateError says which subscription a call could not be done for. It wraps one of the sentinels.
type StateError struct {
	// Name is the name of the subscription.
	Name string
	// Etag is the etag of the subscription as it is, with ErrStale.
	Etag string
	// Fields name what is at fault in the request, with ErrAckID.
	Fields []string
	// ID is the dead letter, with ErrDeadLetter.
	ID  string
	Err error
}

// Error names the subscription and says what is the matter.
func (e *StateError) Error() string {
	text := e.Name + ": " + e.Err.Error()
	if e.ID != "" {
		text += ": " + e.ID
	}
	if len(e.Fields) > 0 {
		text += ": " + strings.Join(e.Fields, ", ")
	}
	return text
}

// Unwrap returns what is the matter.
func (e *StateError) Unwrap() error { return e.Err }

const (
	namePrefix = "subscriptions/"

	defaultDeadline = 30 * time.Second
	defaultMaxDelay = 600 * time.Second
	defaultAttempts = 5

	// maxOutstanding is how many events of an unordered subscription may be outstanding, those that rest between two attempts among them. The log holds a few dozen bytes for
	// each, so it is a guard against a consumer that never acknowledges rather than a limit for those that do.
	maxOutstanding = 20_000
)

// record is what the bucket holds of a subscription. It is stored state.
type record struct {
	// UID tells a subscription from an earlier one of its name.
	UID string `json:"uid"`
	// Generation counts the seeks: each begins with new consumers, so that nothing that was given out before can touch what comes after.
	Generation int `json:"generation"`
	// From is the sequence that this generation begins at.
	From uint64 `json:"from"`
	// Spec is the Subscription, without what is output only but its times.
	Spec []byte `json:"spec"`
}

// Subscription is one subscription as a relay knows it. It never changes; a change makes another.
type Subscription struct {
	record
	id       string
	revision uint64
	spec     *eventrelayv1.Subscription
	filter   *filter.Filter
	parts    []part
	replay   part
	tally    *tally
}

// part is a consumer and what it is given; Patterns are none for all events.
type part struct {
	*eventlog.Consumer
	options eventlog.ConsumerOptions
}

// parse makes the subscription of a value of the bucket.
func (s *Store) parse(v eventlog.Value) (*Subscription, error) {
	sub := &Subscription{id: v.Key, revision: v.Revision, spec: &eventrelayv1.Subscription{}}
	if err := json.Unmarshal(v.Data, &sub.record); err != nil {
		return nil, fmt.Errorf("record of %s%s: %w", namePrefix, v.Key, err)
	}
	if err := proto.Unmarshal(sub.Spec, sub.spec); err != nil {
		return nil, fmt.Errorf("record of %s%s: %w", namePrefix, v.Key, err)
	}
	var err error
	if sub.filter, err = filter.Compile(sub.spec.GetFilter()); err != nil {
		return nil, fmt.Errorf("record of %s%s: %w", namePrefix, v.Key, err)
	}
	sub.tally = s.tallies.of(sub.UID)
	sub.parts, sub.replay = s.consumers(sub)
	return sub, nil
}

// encode is the record as the bucket holds it.
func (sub *Subscription) encode() ([]byte, error) {
	spec, err := proto.Marshal(sub.spec)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", sub.name(), err)
	}
	sub.Spec = spec
	return json.Marshal(sub.record)
}

func (sub *Subscription) name() string { return namePrefix + sub.id }

func (sub *Subscription) ordered() bool {
	return sub.spec.GetOrdering() == eventrelayv1.Ordering_ORDERING_BY_KEY
}

func (sub *Subscription) deadline() time.Duration {
	if d := sub.spec.GetAckDeadline(); d != nil {
		return d.AsDuration()
	}
	return defaultDeadline
}

func (sub *Subscription) attempts() int {
	if n := sub.spec.GetMaxDeliveryAttempts(); n > 0 {
		return int(n)
	}
	return defaultAttempts
}

// minDelay is the rest after the first attempt.
func (sub *Subscription) minDelay() time.Duration {
	return min(sub.spec.GetMinRetryDelay().AsDuration(), sub.maxDelay())
}

func (sub *Subscription) maxDelay() time.Duration {
	if d := sub.spec.GetMaxRetryDelay(); d != nil {
		return d.AsDuration()
	}
	return defaultMaxDelay
}

// delays are the rests after each attempt: twice as long each time, up to the longest.
func (sub *Subscription) delays() (list []time.Duration) {
	d := sub.minDelay()
	if d == 0 {
		return nil
	}
	for range sub.attempts() {
		list = append(list, d)
		if d == sub.maxDelay() {
			break
		}
		d = min(2*d, sub.maxDelay())
	}
	return list
}

// consumers are those of a subscription: of its events, one for each partition if they are ordered, and of what is replayed.
func (s *Store) consumers(sub *Subscription) (parts []part, replay part) {
	options := eventlog.ConsumerOptions{From: sub.From, Deadline: sub.deadline(), Delays: sub.delays(), MaxOutstanding: maxOutstanding}
	name := fmt.Sprintf("sub-%s-%d", sub.UID, sub.Generation)
	if sub.ordered() {
		options.MaxOutstanding = 1
		for p := range eventlog.Partitions {
			o := options
			o.Subjects = patterns(sub.filter.Needs(), p)
			parts = append(parts, part{s.log.Consumer(fmt.Sprintf("%s-p%02d", name, p)), o})
		}
	} else {
		options.Subjects = patterns(sub.filter.Needs(), -1)
		parts = []part{{s.log.Consumer(name), options}}
	}
	options.From, options.Subjects, options.MaxOutstanding = 0, []string{s.shelf.Pattern(replays(sub.UID))}, maxOutstanding
	return parts, part{s.shelf.Consumer("sub-" + sub.UID + "-replay"), options}
}

// maxPatterns is how many patterns the log is asked to match; with more, it is given all and the filter sorts them out.
const maxPatterns = 16

// patterns are the subjects of what meets the needs, in a partition or, if that is -1, in any. None are all.
func patterns(needs filter.Needs, partition int) []string {
	sources, kinds := needs.Sources, []string{""}
	if len(sources) == 0 {
		sources = []string{""}
	}
	if len(needs.Types) > 0 {
		kinds = nil
		for _, t := range needs.Types {
			text := t.Text
			if t.Prefix { // its last word may go on, so only whole words count
				text = text[:strings.LastIndexByte(text, '.')+1]
			}
			kinds = append(kinds, text)
		}
	}
	if len(sources)*len(kinds) > maxPatterns {
		sources, kinds = []string{""}, []string{""}
	}
	var list []string
	for _, source := range sources {
		for _, kind := range kinds {
			list = append(list, eventlog.Pattern(strings.TrimPrefix(source, "sources/"), partition, kind))
		}
	}
	list = disjoint(list)
	if len(list) == 1 && list[0] == eventlog.Pattern("", -1, "") {
		return nil
	}
	return list
}

// disjoint drops patterns that others contain: the log refuses those that overlap.
func disjoint(list []string) []string {
	slices.Sort(list)
	list = slices.Compact(list)
	return slices.DeleteFunc(slices.Clone(list), func(p string) bool {
		return slices.ContainsFunc(list, func(q string) bool {
			stem, open := strings.CutSuffix(q, ">")
			return p != q && open && strings.HasPrefix(p, stem)
		})
	})
}

// Subjects of the shelf. They are stored state.

// letters are the dead letters of a subscription, letter one of them.
func letters(uid string) string            { return "dead." + uid + ".*" }
func letter(uid string, seq uint64) string { return fmt.Sprintf("dead.%s.%d", uid, seq) }
func replays(uid string) string            { return "replay." + uid + ".*" }
func replay(uid string, seq uint64) string { return fmt.Sprintf("replay.%s.%d", uid, seq) }
func reasons(uid string) string            { return "reason." + uid + ".*" }
func reason(uid string, seq uint64) string { return fmt.Sprintf("reason.%s.%d", uid, seq) }
