package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog/natstest"
)

// updates is the body of a webhook with n text messages, numbered from 1 on.
func updates(name string, n int) []byte {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"from":"4915550002222","id":"wamid.%s.%d","timestamp":"1750000000","type":"text","text":{"body":"hello"}}`, name, i+1)
	}
	return []byte(strings.Replace(string(text("x", "x")), `{"from":"4915550002222","id":"x","timestamp":"1750000000","type":"text","text":{"body":"x"}}`, strings.Join(list, ","), 1))
}

// A cut is what a relay has on disk at three moments around one step of the log: events "a" are in the log, and a notification of a thousand updates "b" was answered 200.
type cut struct {
	t *testing.T // the one that runs
	// accepted is the data folder when "b" is in the journal only; done is the one when the log has it as well. Both were stopped in order.
	accepted, done string
	// events are those of the log at the end, as readers saw them.
	events []*eventrelayv1.Event
}

// notThere is a log that is away.
func notThere(t *testing.T) []string { return []string{"--nats-url", natstest.NewServer(t).URL()} }

func newCut(t *testing.T) *cut {
	dir := t.TempDir()
	c := &cut{t: t, accepted: filepath.Join(t.TempDir(), "accepted"), done: filepath.Join(dir, "data")}
	r := spawn(t, dir)
	r.receive("a", 1, 20)
	r.drained()
	r.stop()
	// The embedded log is out of reach while the notification comes, so that it is in the journal alone.
	r = spawn(t, dir, notThere(t)...)
	if code := r.post("dev", updates("b", 1000)); code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	r.kill()
	c.copy(c.done, c.accepted)
	r = spawn(t, dir)
	c.events = r.all()
	wantMessages(t, c.events, "b", 1000)
	r.stop()
	return c
}

func (c *cut) copy(from, to string) {
	c.t.Helper()
	if err := os.RemoveAll(to); err != nil {
		c.t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		c.t.Fatal(err)
	}
}

// assemble returns a folder for a relay that was cut off: the log as it was at the end, without the mark of a stop in order, and beside it the journal of the moment when
// the notification was accepted.
func (c *cut) assemble() string {
	c.t.Helper()
	dir := c.t.TempDir()
	data := filepath.Join(dir, "data")
	c.copy(c.done, data)
	c.copy(filepath.Join(c.accepted, "journal"), filepath.Join(data, "journal"))
	c.replace(data, "log/acknowledged")
	// A log that was being opened anew when it was stopped, because the disk was slow, has no mark as it is.
	if err := os.Remove(filepath.Join(data, "log", "clean-stop")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	c.copyKeys(dir)
	return dir
}

// copyKeys gives another folder the keys of the stored secrets.
func (c *cut) copyKeys(dir string) {
	c.t.Helper()
	keys, err := os.ReadFile(filepath.Join(filepath.Dir(c.done), "secrets.keys"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "secrets.keys"), keys, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// replace puts a file of the log back to what it was when the notification was accepted.
func (c *cut) replace(data, name string) {
	c.t.Helper()
	old, err := os.ReadFile(filepath.Join(c.accepted, filepath.FromSlash(name)))
	if err == nil {
		err = os.WriteFile(filepath.Join(data, filepath.FromSlash(name)), old, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

const blocks = "log/jetstream/$G/streams/EVENTS/msgs/"

// truncate cuts the newest block of the log off, so that of what the step added a share is kept.
func (c *cut) truncate(data string, share float64) {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(data, blocks+"*.blk"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("no blocks: %v", err)
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".blk"))
		return n
	}
	newest := slices.MaxFunc(files, func(a, b string) int { return number(a) - number(b) })
	now, err := os.Stat(newest)
	if err != nil {
		c.t.Fatal(err)
	}
	before := int64(0)
	if then, err := os.Stat(filepath.Join(c.accepted, blocks, filepath.Base(newest))); err == nil {
		before = then.Size()
	}
	if err := os.Truncate(newest, before+int64(share*float64(now.Size()-before))); err != nil {
		c.t.Fatal(err)
	}
}

// wantTheSame checks that a log has the events at the places where readers saw them, each once, and that a cursor of theirs goes on.
func (c *cut) wantTheSame(t *testing.T, r *relay) {
	t.Helper()
	r.t = t
	events := r.all()
	if len(events) != len(c.events) {
		t.Fatalf("%d events, want %d", len(events), len(c.events))
	}
	for i, e := range events {
		if want := c.events[i]; e.GetId() != want.GetId() || e.GetSequence() != want.GetSequence() || e.GetCursor() != want.GetCursor() {
			t.Fatalf("event %d is %s, %d, at %s; it was %s, %d, at %s", i, e.GetId(), e.GetSequence(), e.GetCursor(), want.GetId(), want.GetSequence(), want.GetCursor())
		}
	}
	half := len(events) / 2
	if got, err := r.next(events[half].GetCursor()); err != nil || got.GetId() != events[half+1].GetId() {
		t.Errorf("behind the cursor of event %d comes %s (%v), want %s", half, got.GetId(), err, events[half+1].GetId())
	}
}

// next returns the first event behind a cursor.
func (r *relay) next(cursor string) (*eventrelayv1.Event, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	stream, err := r.events.Subscribe(ctx, &eventrelayv1.SubscribeRequest{Start: &eventrelayv1.SubscribeRequest_Cursor{Cursor: cursor}})
	if err != nil {
		return nil, err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if events := resp.GetEvents(); len(events) > 0 {
			return events[0], nil
		}
	}
}

// Whatever a power cut leaves of a step that was not acknowledged, the journal restores the rest at the same places. An index of the log may be older than its blocks or
// newer, for it is not synced with them.
func TestAfterAPowerCutWithinAStepTheJournalRestoresTheLog(t *testing.T) {
	c := newCut(t)
	for _, index := range []string{"older", "newer"} {
		for _, share := range []float64{0, 0.001, 0.5, 0.9999, 1} {
			t.Run(fmt.Sprintf("index=%s/kept=%v", index, share), func(t *testing.T) {
				c.t = t
				dir := c.assemble()
				data := filepath.Join(dir, "data")
				c.truncate(data, share)
				if index == "older" {
					c.replace(data, blocks+"index.db")
				}
				// The copies come later than the log's own window, which must not be what tells them.
				c.wantTheSame(t, spawn(t, dir, "--duplicate-window", "100ms"))
			})
		}
	}
}

func TestALogThatLostWhatWasAcknowledgedHasNewCursorsAndAllThatTheJournalHas(t *testing.T) {
	c := newCut(t)
	dir := c.assemble()
	data := filepath.Join(dir, "data")
	acknowledged, err := os.ReadFile(filepath.Join(c.done, "log", "acknowledged")) // the step was
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "log", "acknowledged"), acknowledged, 0o600); err != nil {
		t.Fatal(err)
	}
	c.truncate(data, 0.5)
	r := spawn(t, dir)
	wantMessages(t, r.all(), "b", 1000)
	_, err = r.next(c.events[len(c.events)/2].GetCursor())
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "another log") {
		t.Errorf("an old cursor gave %v, want that it is of another log", err)
	}
}

// A kill between the journal and the answer, between the answer and the log, and between the log and the position in the journal: a thousand updates are all there, once.
func TestAKillAnywhereOnTheWayCostsNoneOfAThousandUpdates(t *testing.T) {
	c := newCut(t)
	t.Run("before the answer", func(t *testing.T) {
		c.t = t
		dir := t.TempDir()
		c.copy(c.accepted, filepath.Join(dir, "data"))
		c.copyKeys(dir)
		r := spawn(t, dir)
		if code := r.post("dev", updates("b", 1000)); code != http.StatusOK { // the provider was told nothing, and repeats
			t.Errorf("answered %d", code)
		}
		c.wantTheSame(t, r)
	})
	t.Run("between the answer and the log", func(t *testing.T) {
		c.t = t
		dir := t.TempDir()
		c.copy(c.accepted, filepath.Join(dir, "data"))
		c.copyKeys(dir)
		c.wantTheSame(t, spawn(t, dir, "--duplicate-window", "100ms"))
	})
	t.Run("between the log and the position", func(t *testing.T) {
		c.t = t
		c.wantTheSame(t, spawn(t, c.assemble(), "--duplicate-window", "100ms"))
	})
}
