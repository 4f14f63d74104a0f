package drift

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/hub"
	"eventrelay/server/translate"
)

// fakeLog is a log in memory. Its first entry is number 1; entries up to removed are gone; reads fail while broken is set.
type fakeLog struct {
	mu      sync.Mutex
	entries [][]byte
	removed uint64
	broken  error
	closed  bool
	reads   []uint64
	bell    chan struct{}
}

func newFakeLog() *fakeLog { return &fakeLog{bell: make(chan struct{})} }

func (l *fakeLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.bell)
	l.bell = make(chan struct{})
}

// receive translates a body as the relay would and appends its events.
func (l *fakeLog) receive(at time.Time, body string) {
	l.change(func() {
		for _, ev := range translate.Translate(translate.Notification{Source: "shop", ReceivedAt: at, Body: []byte(body)}) {
			l.entries = append(l.entries, ev.Data)
		}
	})
}

func (l *fakeLog) Read(_ context.Context, after uint64) iter.Seq2[hub.Entry, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads = append(l.reads, after)
	entries, err := l.entries, l.broken
	after = max(after, l.removed)
	return func(yield func(hub.Entry, error) bool) {
		if err != nil {
			yield(hub.Entry{}, err)
			return
		}
		for i := after; i < uint64(len(entries)); i++ {
			if !yield(hub.Entry{Sequence: i + 1, Data: entries[i]}, nil) {
				return
			}
		}
	}
}

func (l *fakeLog) Wait(ctx context.Context, after uint64) error {
	for {
		l.mu.Lock()
		last, closed, bell := uint64(len(l.entries)), l.closed, l.bell
		l.mu.Unlock()
		switch {
		case closed:
			return hub.ErrClosed
		case last > after:
			return nil
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func list(d *Drift) (lines []string) {
	entries, _ := d.List()
	for _, e := range entries {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(e.GetKind().String(), "DRIFT_KIND_"), e.GetType(), e.GetPath(), e.GetWord()), " "))
	}
	return lines
}

var began = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func status(word, more string) string {
	return fmt.Sprintf(`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",
		"metadata":{"phone_number_id":"2"},"statuses":[{"id":"wamid.%s%d","status":%q%s}]}}]}]}`, word, len(more), word, more)
}

func identity(id string) func() string { return func() string { return id } }

func open(t *testing.T, log Log, path string) (*Drift, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	return New(log, identity("log-1"), path, registry, slog.New(slog.DiscardHandler)), registry
}

// run counts what the log has and returns when Run has ended.
func run(t *testing.T, d *Drift, log *fakeLog) {
	t.Helper()
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	running.Go(func() { d.Run(ctx) })
	for d.position() < uint64(len(log.entries)) {
		time.Sleep(time.Millisecond)
	}
	stop()
	running.Wait()
}

func TestWhatTheSchemaDoesNotKnowIsListedOnceWithItsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.receive(began, status("delivered", ""))
		log.receive(began.Add(1*time.Second), status("in_orbit", ""))
		log.receive(began.Add(2*time.Second), status("in_orbit", `,"altitude":{"km":400}`))
		log.receive(began.Add(3*time.Second), `{"object":"moon","entry":[{"id":"1","changes":[{"field":"tides","value":{"phase":"full"}}]}]}`)
		log.receive(began.Add(4*time.Second), `{"object":"page","entry":[{"id":"1","changes":[{"field":"weather","value":{"phase":"full"}}]}]}`)
		log.receive(began.Add(5*time.Second), `{"event":"channel_painted","data":{"id":"c"},"id":"e"}`)
		log.receive(began.Add(6*time.Second), `[1]`)
		d, registry := open(t, log, filepath.Join(t.TempDir(), "drift.json"))
		run(t, d, log)

		const statusType = "meta.whatsapp_business_account.messages.status"
		want := []string{
			"FIELD dialog360.channel_painted",
			"OBJECT meta.moon.tides",
			"FIELD meta.page.weather",
			"PATH " + statusType + " value.statuses[].altitude",
			"WORD " + statusType + " value.statuses[].status in_orbit",
			"OBJECT unknown",
		}
		if got := list(d); !slices.Equal(got, want) {
			t.Errorf("listed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		entries, counted := d.List()
		word := entries[4]
		if word.GetCount() != 2 || !word.GetFirstSeenTime().AsTime().Equal(began.Add(time.Second)) || !word.GetLastSeenTime().AsTime().Equal(began.Add(2*time.Second)) {
			t.Errorf("the word is %v", word)
		}
		var last eventrelayv1.Event
		if err := proto.Unmarshal(log.entries[2], &last); err != nil || word.GetSampleEventId() != last.GetId() {
			t.Errorf("the sample is %s, want the last event, %s", word.GetSampleEventId(), last.GetId())
		}
		if counted.Sequence != 7 {
			t.Errorf("counted up to %d, want 7", counted.Sequence)
		}
		metric := `# HELP eventrelay_drift_total Things that providers sent and the schema does not know, as read from the log since the start: every relay on one log counts all of them. The type is that of a known event, or ` + "`unknown`" + `.
# TYPE eventrelay_drift_total counter
eventrelay_drift_total{kind="field",type="unknown"} 2
eventrelay_drift_total{kind="object",type="unknown"} 2
eventrelay_drift_total{kind="path",type="meta.whatsapp_business_account.*.status"} 1
eventrelay_drift_total{kind="word",type="meta.whatsapp_business_account.*.status"} 2
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(metric), "eventrelay_drift_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingThatCouldBePersonalIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		for _, word := range []string{"Ada Lovelace", "+16505551234", "16505551234", "ada@example.com", "Zo\u00eb", "x16505551234y", "Lovelace"} {
			log.receive(began, status(word, ""))
			if word == "Lovelace" {
				continue // as a key or a field it could be a provider's
			}
			log.receive(began, status("sent", fmt.Sprintf(`,%q:{"a":1}`, word)))
			log.receive(began, fmt.Sprintf(`{"object":%q,"entry":[{"id":"1","changes":[{"field":%q,"value":{"a":%q}}]}]}`, word, word, word))
			log.receive(began, fmt.Sprintf(`{"event":%q,"data":{"id":%q}}`, word, word))
		}
		path := filepath.Join(t.TempDir(), "drift.json")
		var lines strings.Builder
		d := New(log, identity("log-1"), path, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&lines, nil)))
		run(t, d, log)
		saved, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(list(d), "\n") + lines.String() + string(saved)
		for _, personal := range []string{"Lovelace", "16505551234", "ada@", "example", "Zo"} {
			if strings.Contains(all, personal) {
				t.Errorf("%s is told:\n%s", personal, strings.Join(list(d), "\n"))
			}
		}
		if !strings.Contains(all, "WORD meta.whatsapp_business_account.messages.status value.statuses[].status *") {
			t.Errorf("the masked word is missing:\n%s", all)
		}
	})
}

func TestARestartGoesOnWhereItWasAndCountsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "drift.json")
		log := newFakeLog()
		log.receive(began, status("in_orbit", ""))
		first, _ := open(t, log, path)
		run(t, first, log)
		log.receive(began.Add(time.Hour), status("in_orbit", `,"x":1`))

		second, _ := open(t, log, path)
		log.reads = nil
		run(t, second, log)
		if log.reads[0] != 1 {
			t.Errorf("read the log behind %d, want 1", log.reads[0])
		}
		entries, _ := second.List()
		if i := slices.IndexFunc(entries, func(e *eventrelayv1.Drift) bool { return e.GetWord() == "in_orbit" }); entries[i].GetCount() != 2 {
			t.Errorf("counted %d, want 2", entries[i].GetCount())
		}
	})
}

// A crash takes what was not saved: it is counted again from the place that was.
func TestACrashLosesNoCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "drift.json")
		log := newFakeLog()
		log.receive(began, status("in_orbit", ""))
		d, _ := open(t, log, path)
		ctx, stop := context.WithCancel(t.Context())
		go d.Run(ctx)
		time.Sleep(saveInterval + time.Second)
		log.receive(began, status("in_orbit", `,"x":1`))
		synctest.Wait()
		crashed, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("nothing was saved after %s: %v", saveInterval, err)
		}
		stop()
		synctest.Wait()
		if err := os.WriteFile(path, crashed, 0o600); err != nil {
			t.Fatal(err)
		}
		again, _ := open(t, log, path)
		log.reads = nil
		run(t, again, log)
		if log.reads[0] != 1 {
			t.Errorf("read the log behind %d, want 1", log.reads[0])
		}
		entries, _ := again.List()
		if len(entries) != 2 || entries[0].GetCount()+entries[1].GetCount() != 3 {
			t.Errorf("after the crash: %v", entries)
		}
	})
}

func TestAListOfAnotherLogOrADamagedOneIsCountedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "drift.json")
		log := newFakeLog()
		log.receive(began, status("in_orbit", ""))
		d, _ := open(t, log, path)
		run(t, d, log)
		log.reads = nil
		other := New(log, identity("log-2"), path, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		run(t, other, log)
		if entries, _ := other.List(); log.reads[0] != 0 || entries[0].GetCount() != 1 {
			t.Errorf("of another log: read behind %d, counted %v", log.reads[0], entries)
		}
		for _, damage := range []string{"", "{", `{"log":"log-1","sequence":1,"entries":[{"kind":"NONE_OF_OURS"}]}`} {
			if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			again, _ := open(t, log, path)
			run(t, again, log)
			if got := list(again); len(got) != 1 {
				t.Errorf("after %q: %v", damage, got)
			}
		}
	})
}

func TestALogThatCannotBeReadIsReadAgainAndAClosedOneEndsTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.broken = errors.New("disk on fire")
		log.receive(began, status("in_orbit", ""))
		d, _ := open(t, log, filepath.Join(t.TempDir(), "drift.json"))
		done := make(chan struct{})
		go func() { d.Run(t.Context()); close(done) }()
		time.Sleep(3 * retryDelay)
		synctest.Wait()
		log.mu.Lock()
		got := len(log.reads)
		log.mu.Unlock()
		if got < 2 || got > 5 {
			t.Errorf("%d reads in %s", got, 3*retryDelay)
		}
		log.change(func() { log.broken = nil })
		time.Sleep(2 * retryDelay)
		if got := list(d); len(got) != 1 {
			t.Errorf("listed %v after the log came back", got)
		}
		log.change(func() { log.closed = true })
		<-done
	})
}

func TestAnEventThatIsNoEventCostsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		log.entries = [][]byte{{0xff}, {0x0a, 0x05}, {0x68}, {0x6a, 0x01, 0xff}}
		log.receive(began, status("in_orbit", ""))
		d, _ := open(t, log, filepath.Join(t.TempDir(), "drift.json"))
		run(t, d, log)
		if got := list(d); len(got) != 1 {
			t.Errorf("listed %v", got)
		}
	})
}

func TestTheListIsBoundedAndForgetsWhatWasNotSeenForLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog()
		word := func(n int) string {
			return "w" + strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprintf("%06d", n))
		}
		for n := range maxEntries + 10 {
			log.receive(began.Add(time.Duration(n)*time.Second), status(word(n), ""))
		}
		d, _ := open(t, log, filepath.Join(t.TempDir(), "drift.json"))
		run(t, d, log)
		entries, counted := d.List()
		if len(entries) != maxEntries || counted.Forgotten != 10 || entries[0].GetWord() != word(10) {
			t.Errorf("%d entries, %d forgotten, the first is %v", len(entries), counted.Forgotten, entries[0])
		}
	})
}
