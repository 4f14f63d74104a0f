package subscription

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// TestASubscriptionExpiresOnlyWhenItSaysSoAndNobodyUsesIt: each was last changed an hour ago.
func TestASubscriptionExpiresOnlyWhenItSaysSoAndNobodyUsesIt(t *testing.T) {
	log, err := eventlog.Open(t.Context(), eventlog.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := New(Options{Log: log, Metrics: prometheus.NewRegistry()})
	for _, c := range []struct {
		id      string
		expires *durationpb.Duration
		use     func(*Subscription)
		stays   bool
	}{
		{"forgotten", durationpb.New(10 * time.Minute), func(*Subscription) {}, false},
		{"lasting", nil, func(*Subscription) {}, true},
		{"patient", durationpb.New(2 * time.Hour), func(*Subscription) {}, true},
		{"used-here", durationpb.New(10 * time.Minute), func(sub *Subscription) { sub.tally.touch() }, true},
		{"used-elsewhere", durationpb.New(10 * time.Minute), func(sub *Subscription) {
			if err := s.note(t.Context(), sub.UID, func(n *notes) bool { n.Active = time.Now().Add(-time.Minute); return true }); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		if _, err := s.Create(t.Context(), c.id, &eventrelayv1.Subscription{ExpireAfter: c.expires}, 1); err != nil {
			t.Fatal(err)
		}
		name := namePrefix + c.id
		sub, err := s.change(t.Context(), name, "", func(to *Subscription) error {
			to.spec.UpdateTime = timestamppb.New(time.Now().Add(-time.Hour))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c.use(sub)
		if err := s.lookAt(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		if _, err := s.fetch(t.Context(), name); (err == nil) != c.stays {
			t.Errorf("%s: %v", c.id, err)
		}
	}
}
