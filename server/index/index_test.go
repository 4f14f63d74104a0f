package index

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"eventrelay/server/eventlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a real log with an index of it.
type rig struct {
	t       testing.TB
	dir     string
	options eventlog.Options
	log     *eventlog.Log
	index   *Index
	record  uint64
	// at is when what is appended was received.
	at time.Time
}

func newRig(t testing.TB, options eventlog.Options) *rig {
	r := &rig{t: t, dir: t.TempDir(), options: options, at: time.Now()}
	// As short as can be, so that the index alone tells copies.
	r.options.DuplicateWindow = 100 * time.Millisecond
	r.openLog("log")
	r.openIndex()
	t.Cleanup(func() { r.log.Close() })
	return r
}

func (r *rig) openLog(name string) {
	r.t.Helper()
	r.options.Dir = filepath.Join(r.dir, name)
	var err error
	if r.log, err = eventlog.Open(context.Background(), r.options); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) openIndex() {
	r.t.Helper()
	var err error
	if r.index, err = Open(r.log, nil, Options{Dir: filepath.Join(r.dir, "index"), Logger: slog.New(slog.DiscardHandler)}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.index.Settle(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// restart stops the index in order and opens it anew.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.index.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.openIndex()
}

// records are events of a new record of a journal.
func (r *rig) records(ids ...string) (records []eventlog.Record) {
	r.record++
	for n, id := range ids {
		records = append(records, eventlog.Record{
			ID: id, Source: "shop", Type: "test", OrderingKey: id, Time: r.at, Origin: eventlog.Origin{Journal: "ours", Record: r.record, Item: n}, Data: []byte(id),
		})
	}
	return records
}

// receive takes a step as ingest does, and returns which ids were taken for copies.
func (r *rig) receive(ids ...string) (copies []string) {
	r.t.Helper()
	fresh, known, err := r.index.Claim(r.t.Context(), r.records(ids...))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(fresh) > 0 {
		done, err := r.log.Append(r.t.Context(), fresh)
		if err != nil {
			r.t.Fatal(err)
		}
		r.index.Stored(fresh, done)
	}
	return idsOf(known)
}

// others appends as another relay does.
func (r *rig) others(ids ...string) {
	r.t.Helper()
	records := r.records(ids...)
	for n := range records {
		records[n].Origin.Journal = "theirs"
	}
	if _, err := r.log.Append(r.t.Context(), records); err != nil {
		r.t.Fatal(err)
	}
}

// copies returns which ids are taken for copies, and takes the claims of the others back.
func (r *rig) copies(ids ...string) []string {
	r.t.Helper()
	_, known, err := r.index.Claim(r.t.Context(), r.records(ids...))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.index.Settle(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return idsOf(known)
}

// wantKnown checks that of these ids all are known, and that an unheard one is not.
func (r *rig) wantKnown(ids ...string) {
	r.t.Helper()
	got := r.copies(append(slices.Clone(ids), "unheard")...)
	if !slices.Equal(got, ids) {
		r.t.Errorf("known are %d %.100v, want %d %.100v", len(got), got, len(ids), ids)
	}
}

func (r *rig) wantNew(ids ...string) {
	r.t.Helper()
	if got := r.copies(ids...); len(got) > 0 {
		r.t.Errorf("new events are taken for copies: %v", got)
	}
}

func idsOf(records []eventlog.Record) (ids []string) {
	for n := range records {
		ids = append(ids, records[n].ID)
	}
	return ids
}

func numbered(prefix string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint(prefix, i))
	}
	return ids
}

func TestAnIDIsKnownFromItsClaimOn(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	fresh, copies, err := r.index.Claim(t.Context(), r.records("a", "b", "a"))
	if err != nil || !slices.Equal(idsOf(fresh), []string{"a", "b"}) || !slices.Equal(idsOf(copies), []string{"a"}) {
		t.Fatalf("new %v, copies %v, %v", idsOf(fresh), idsOf(copies), err)
	}
	// The next step comes while this one is on its way.
	if next, copies, err := r.index.Claim(t.Context(), r.records("b", "c")); err != nil || !slices.Equal(idsOf(next), []string{"c"}) || !slices.Equal(idsOf(copies), []string{"b"}) {
		t.Fatalf("new %v, copies %v, %v", idsOf(next), idsOf(copies), err)
	}
	done, err := r.log.Append(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	r.index.Stored(fresh, done)
	r.wantKnown("a", "b")
	r.wantNew("c")
}

func TestAClaimThatWasNotStoredIsNewAgainAndAStoredOneIsDone(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	step := r.records("a", "b", "c", "d")
	again := slices.Clone(step)
	fresh, _, err := r.index.Claim(t.Context(), step)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Append(t.Context(), fresh[:2]); err != nil { // and the rest fails
		t.Fatal(err)
	}
	if err := r.index.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, copies, err := r.index.Claim(t.Context(), again)
	if err != nil || !slices.Equal(idsOf(fresh), []string{"c", "d"}) || len(copies) > 0 {
		t.Errorf("new %v, copies %v, %v: want the two that are not in the log, and that the others are done, not copies", idsOf(fresh), idsOf(copies), err)
	}
}

func TestNothingIsSaidBeforeTheLogWasRead(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive("a")
	x, err := Open(r.log, nil, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.Claim(t.Context(), r.records("a")); err == nil {
		t.Error("an index that knows nothing yet says what is new")
	}
	if _, _, err := x.Find(t.Context(), "a"); err == nil {
		t.Error("an index that knows nothing yet says what there is not")
	}
}

func TestIDsAreKnownAcrossRestartsCrashesAndForAnIndexThatIsNew(t *testing.T) {
	for what, stop := range map[string]func(r *rig){
		"in order":                 func(r *rig) { r.restart() },
		"killed":                   func(r *rig) { r.openIndex() },
		"killed after it saved":    func(r *rig) { r.index.saveOrWarn(); r.openIndex() },
		"killed twice":             func(r *rig) { r.openIndex(); r.openIndex() },
		"its files were deleted":   func(r *rig) { os.RemoveAll(filepath.Join(r.dir, "index")); r.openIndex() },
		"its key was deleted":      func(r *rig) { r.index.saveOrWarn(); os.Remove(filepath.Join(r.dir, "index", keyFile)); r.openIndex() },
		"killed between two saves": func(r *rig) { r.index.saveOrWarn(); r.receive(numbered("late", 20)...); r.openIndex() },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, eventlog.Options{})
			first, second := numbered("a", 300), numbered("b", 7)
			r.receive(first...)
			stop(r)
			r.receive(second...)
			r.others(numbered("o", 30)...)
			stop(r)
			r.wantKnown(slices.Concat(first, second, numbered("o", 30))...)
		})
	}
}

func TestAnIDIsKnownAfterRetentionRemovedItsEvent(t *testing.T) {
	r := newRig(t, eventlog.Options{MaxEvents: 5})
	r.receive(numbered("a", 100)...)
	for _, id := range numbered("b", 5) { // one by one, so that the log has no room for any of the first
		r.receive(id)
	}
	st, err := r.log.State(t.Context())
	if err != nil || st.Events != 5 {
		t.Fatalf("the log keeps %d events, %v: the test does not test what it says", st.Events, err)
	}
	all := append(numbered("a", 100), numbered("b", 5)...)
	r.wantKnown(all...)
	if _, ok, err := r.index.Find(t.Context(), "a1"); ok || err != nil {
		t.Errorf("an event that is no longer kept is found: %v, %v", ok, err)
	}
	r.restart()
	r.wantKnown(all...)
	r.index.saveOrWarn()
	r.openIndex() // killed
	r.wantKnown(all...)
}

// A step among events of others is read back from the log, which may be too late.
func TestAnIDIsKnownThatRetentionRemovedBeforeItCouldBeReadBack(t *testing.T) {
	r := newRig(t, eventlog.Options{MaxEvents: 5})
	fresh, _, err := r.index.Claim(t.Context(), r.records("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	r.others("o")
	done, err := r.log.Append(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	r.index.Stored(fresh, done)
	for _, id := range numbered("p", 5) {
		r.others(id)
	}
	if err := r.index.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantKnown("a", "b")
	r.restart()
	r.wantKnown("a", "b")
}

func TestAnIDIsKnownForTheHorizonAndForgottenAfterwards(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	began := time.Now().Add(-20 * 24 * time.Hour)
	for hour := range 14 * 24 {
		r.at = began.Add(time.Duration(hour) * time.Hour)
		r.receive(fmt.Sprint("hour", hour))
		r.index.saveOrWarn() // as Run does all the time
		if hour%50 == 0 {
			r.restart()
		}
		if hour%24 != 0 {
			continue
		}
		if back := hour - 7*24; back >= 0 {
			r.wantKnown(fmt.Sprint("hour", back))
		}
		if back := hour - 8*24 - 1; back >= 0 {
			r.wantNew(fmt.Sprint("hour", back))
		}
	}
	r.index.saveOrWarn()
	files, err := filepath.Glob(filepath.Join(r.dir, "index", "*"+extension))
	if err != nil || len(files) < 5 || len(files) > perHorizon+2 {
		t.Errorf("%d files, %v: what has aged out must leave the disk, in parts of the horizon", len(files), err)
	}
	// What waited in the journal while the log was away for long is compared with what was known when it came.
	r.at = began.Add(13 * 24 * time.Hour)
	r.wantKnown(fmt.Sprint("hour", 7*24))
	// An index that is new reads as far back.
	if err := os.RemoveAll(filepath.Join(r.dir, "index")); err != nil {
		t.Fatal(err)
	}
	r.openIndex()
	r.wantKnown(fmt.Sprint("hour", 7*24))
	r.wantNew(fmt.Sprint("hour", 6*24))
	if got := r.receive(fmt.Sprint("hour", 6*24)); len(got) > 0 {
		t.Errorf("an id older than the horizon is not taken in again")
	}
}

// bells is a bell that a test rings.
type bells chan struct{}

func (b bells) Wait(ctx context.Context, _ uint64) error {
	select {
	case <-b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestWhatAnotherRelayAppendsIsKnownWhenTheBellRings(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	bell := make(bells)
	x, err := Open(r.log, bell, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { x.Run(ctx) })
	defer func() {
		cancel()
		running.Wait()
		x.Close()
	}()
	r.others("a", "b", "c")
	bell <- struct{}{}
	bell <- struct{}{} // which is taken when the first has been followed
	_, copies, err := x.Claim(t.Context(), r.records("a", "b", "c", "d"))
	if err != nil || !slices.Equal(idsOf(copies), []string{"a", "b", "c"}) {
		t.Errorf("copies %v, %v", idsOf(copies), err)
	}
}

func TestFilesThatCannotBeWrittenCostNoEventAndNoCopy(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	var said strings.Builder
	r.index.logger = slog.New(slog.NewTextHandler(&said, nil))
	inTheWay := r.index.path(1)
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	r.receive("a", "b")
	r.index.saveOrWarn()
	r.receive("c")
	r.index.saveOrWarn()
	r.wantKnown("a", "b", "c")
	if n := strings.Count(said.String(), "level=WARN"); n != 1 || testutil.ToFloat64(r.index.meters.failures) != 2 {
		t.Errorf("%d warnings, %v failures counted:\n%s", n, testutil.ToFloat64(r.index.meters.failures), &said)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	r.receive("d")
	r.restart() // the file has the last one only
	r.wantKnown("a", "b", "c", "d")
}

func TestAFileThatTakesNothingMoreIsLeftAsItIs(t *testing.T) {
	r := newRig(t, eventlog.Options{})
	r.receive("a")
	r.index.saveOrWarn()
	r.receive("b")
	g := r.index.generations[0]
	g.f.Close()
	var err error
	if g.f, err = os.Open(g.path); err != nil { // it cannot be written, nor cut off
		t.Fatal(err)
	}
	if err := r.index.save(false); err == nil {
		t.Error("a write that failed is not told")
	}
	r.receive("c")
	if err := r.index.save(false); err != nil { // once told is enough
		t.Error(err)
	}
	g.f.Close()
	g.f = nil
	r.openIndex()
	r.wantKnown("a", "b", "c")
}
