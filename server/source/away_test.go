package source_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/source"
)

// away is a bucket of a log that cannot be reached.
type away struct{}

func (away) Get(context.Context, string) (eventlog.Value, error) {
	return eventlog.Value{}, eventlog.ErrUnavailable
}

func (away) Create(context.Context, string, []byte) (uint64, error) {
	return 0, eventlog.ErrUnavailable
}

func (away) Update(context.Context, string, []byte, uint64) (uint64, error) {
	return 0, eventlog.ErrUnavailable
}
func (away) Delete(context.Context, string, uint64) error   { return eventlog.ErrUnavailable }
func (away) List(context.Context) ([]eventlog.Value, error) { return nil, eventlog.ErrUnavailable }
func (away) Watch(ctx context.Context) iter.Seq2[eventlog.Change, error] {
	return func(yield func(eventlog.Change, error) bool) {
		<-ctx.Done()
		yield(eventlog.Change{}, ctx.Err())
	}
}

// late is a bucket that can be reached from a moment on.
type late struct {
	source.Bucket
	back chan struct{}
}

func (l late) List(ctx context.Context) ([]eventlog.Value, error) { return away{}.List(ctx) }

func (l late) Watch(ctx context.Context) iter.Seq2[eventlog.Change, error] {
	select {
	case <-l.back:
		return l.Bucket.Watch(ctx)
	case <-ctx.Done():
		return away{}.Watch(ctx)
	}
}

func TestWhileTheLogIsAwayTheSnapshotCounts(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	create(t, s, "shop")
	create(t, s, "gone")
	if err := s.Delete(t.Context(), "sources/gone", ""); err != nil {
		t.Fatal(err)
	}
	s.stop()
	p.bucket = away{}
	s = p.start(t)
	if !s.Ready() || !accepts(s, "shop", shopSecret) {
		t.Error("a source of the snapshot does not receive")
	}
	if _, ok := s.Endpoint("gone"); ok {
		t.Error("a deleted source receives")
	}
	if _, err := s.Create(t.Context(), "new", shop()); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Create while the log is away: %v", err)
	}
	if _, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Paused: true}, nil); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Update while the log is away: %v", err)
	}
}

func TestWithoutASnapshotNothingIsKnownUntilTheLogIsThere(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(data []byte) []byte
	}{
		{"none", nil},
		{"empty", func([]byte) []byte { return nil }},
		{"cut", func(data []byte) []byte { return data[:len(data)-7] }},
		{"a bit in the sealed part", func(data []byte) []byte { data[len(data)-20] ^= 4; return data }},
		{"a bit where the key is named", func(data []byte) []byte { data[len("eventrelay sources 1\n")+32+2] ^= 4; return data }},
		{"a bit in the sum", func(data []byte) []byte { data[len("eventrelay sources 1\n")+3] ^= 4; return data }},
		{"something else", func([]byte) []byte { return []byte("sources: []\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			p.log = &buffer{}
			s := p.start(t)
			create(t, s, "shop")
			s.stop()
			path := filepath.Join(p.dir, "sources.sealed")
			if c.damage == nil {
				os.Remove(path)
			} else {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, c.damage(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			there := p.bucket
			back := make(chan struct{})
			p.bucket, p.fixed = late{there, back}, source.Dev()
			s = p.start(t)
			if s.Ready() {
				t.Error("ready without knowing the sources")
			}
			if c.damage != nil && !strings.Contains(p.log.String(), "damaged") {
				t.Errorf("the log does not tell of the damage: %s", p.log)
			}
			if _, err := s.Get("sources/shop"); !errors.Is(err, source.ErrNotLoaded) {
				t.Errorf("Get = %v", err)
			}
			if _, err := s.List(); !errors.Is(err, source.ErrNotLoaded) {
				t.Errorf("List = %v", err)
			}
			if _, ok := s.Endpoint("dev"); !ok {
				t.Error("a source of the file is not known")
			}
			close(back)
			waitFor(t, "the sources", s.Ready)
			if !accepts(s, "shop", shopSecret) {
				t.Error("the source does not receive when the log is back")
			}
			s.stop()
			p.bucket = away{}
			if s = p.start(t); !accepts(s, "shop", shopSecret) {
				t.Error("there is no new snapshot")
			}
		})
	}
}

func TestALogThatWasWipedGetsTheSourcesOfTheSnapshot(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	for i := range 5 { // so that the revisions of before are higher
		create(t, s, fmt.Sprintf("shop-%d", i))
	}
	s.stop()
	p.bucket = openLog(t, eventlog.Options{Dir: t.TempDir()}).Bucket("sources")
	s = p.start(t)
	if !accepts(s, "shop-4", shopSecret) {
		t.Error("a source is gone with the log")
	}
	if _, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop-0", DisplayName: "changed"}, nil); err != nil {
		t.Error(err)
	}
	s.stop()
	os.Remove(filepath.Join(p.dir, "sources.sealed"))
	s = p.start(t)
	if got, err := s.Get("sources/shop-0"); err != nil || got.GetDisplayName() != "changed" || !accepts(s, "shop-4", shopSecret) {
		t.Errorf("the new log has %v, %v", got, err)
	}
}

// scripted is a bucket whose Watch yields what the test says.
type scripted struct {
	source.Bucket
	changes chan eventlog.Change
}

func (b scripted) Watch(ctx context.Context) iter.Seq2[eventlog.Change, error] {
	return func(yield func(eventlog.Change, error) bool) {
		for {
			select {
			case c := <-b.changes:
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				yield(eventlog.Change{}, ctx.Err())
				return
			}
		}
	}
}

func TestNewsFromBeforeDoNotUndoWhatIsKnownSince(t *testing.T) {
	p := newPlace(t)
	b := scripted{p.bucket, make(chan eventlog.Change)}
	there := p.bucket
	p.bucket = b
	s := p.start(t)
	create(t, s, "dead")
	dead, err := there.Get(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	mark, err := there.Get(t.Context(), "_key")
	if err != nil {
		t.Fatal(err)
	}
	b.changes <- eventlog.Change{Kind: eventlog.ChangeRestart}
	create(t, s, "shop")
	if err := s.Delete(t.Context(), "sources/dead", ""); err != nil {
		t.Fatal(err)
	}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: mark}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: dead}
	b.changes <- eventlog.Change{Kind: eventlog.ChangeComplete}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: dead}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: mark} // taken when the one before was done with
	if _, ok := s.Endpoint("dead"); ok {
		t.Error("a source that was deleted here is back")
	}
	if !accepts(s, "shop", shopSecret) {
		t.Error("a source that was created here is gone")
	}
	// Once the watch has caught up, it is believed again.
	alive, err := there.Get(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: alive}
	b.changes <- eventlog.Change{Kind: eventlog.ChangeRestart}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: mark}
	b.changes <- eventlog.Change{Kind: eventlog.ChangeComplete}
	b.changes <- eventlog.Change{Kind: eventlog.ChangePut, Value: mark}
	if _, ok := s.Endpoint("shop"); ok {
		t.Error("a source that another relay has deleted is still there")
	}
}
