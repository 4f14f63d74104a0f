package source_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/seal"
	"eventrelay/server/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key is the nth key of these tests, as a line of a key file.
func key(n byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32)) + "\n"
}

// keysOf loads keys from a file with those lines.
func keysOf(t testing.TB, lines ...string) *seal.Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func openLog(t testing.TB, o eventlog.Options) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

// externalServer runs a JetStream that relays share, and returns its URL.
func externalServer(t testing.TB) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: 32 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the external server does not come up")
	}
	return srv.ClientURL()
}

// place is where a store lies: what survives a restart.
type place struct {
	dir    string
	bucket source.Bucket
	keys   *seal.Keys
	fixed  []*eventrelayv1.Source
	log    *buffer
}

// buffer takes a log while it is read.
type buffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newPlace(t testing.TB) *place {
	t.Helper()
	log := openLog(t, eventlog.Options{Dir: t.TempDir()})
	return &place{dir: t.TempDir(), bucket: log.Bucket("sources"), keys: keysOf(t, key(1))}
}

func (p *place) options() source.Options {
	o := source.Options{Fixed: p.fixed, Bucket: p.bucket, Keys: p.keys, Snapshot: filepath.Join(p.dir, "sources.sealed")}
	if p.log != nil {
		o.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	}
	return o
}

// running is a store whose Run runs.
type running struct {
	*source.Store
	stop func()
	err  error // of Run, after stop
}

func (p *place) start(t testing.TB) *running {
	t.Helper()
	store, err := source.Open(t.Context(), p.options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Store: store}
	var run sync.WaitGroup
	run.Go(func() { r.err = store.Run(ctx) })
	r.stop = func() { cancel(); run.Wait() }
	t.Cleanup(r.stop)
	return r
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("still waiting for: " + what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("still waiting for: " + what)
		}
	}
}

func create(t testing.TB, s *running, id string) *eventrelayv1.Source {
	t.Helper()
	src, err := s.Create(t.Context(), id, shop())
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// accepts tells whether a notification that is signed with the secret is accepted for the source.
func accepts(s *running, id, secret string) bool {
	e, ok := s.Endpoint(id)
	body := []byte("{}")
	return ok && e.VerifySignature(signed("X-Hub-Signature-256", "sha256="+digest(secret, body)), body) == nil
}

func TestACreatedSourceReceivesAtOnceAndAfterARestart(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	got := create(t, s, "shop")
	if !accepts(s, "shop", shopSecret) {
		t.Error("it does not receive when Create has returned")
	}
	want := shop()
	want.AppSecrets, want.VerifyToken, want.WebhookPath, want.Origin = nil, "", "/webhooks/shop", eventrelayv1.SourceOrigin_SOURCE_ORIGIN_API
	want.Etag, want.CreateTime, want.UpdateTime, want.SecretUses, want.Stats = got.GetEtag(), got.GetCreateTime(), got.GetUpdateTime(), got.GetSecretUses(), got.GetStats()
	if !proto.Equal(got, want) || got.GetEtag() == "" || time.Since(got.GetCreateTime().AsTime()) > time.Minute || got.GetStats() == nil || len(got.GetSecretUses()) != 2 {
		t.Errorf("Create gave %v", got)
	}
	if _, err := s.Create(t.Context(), "shop", shop()); !errors.Is(err, source.ErrExists) {
		t.Errorf("a second one of that name: %v", err)
	}
	s.stop()
	s = p.start(t)
	again, err := s.Get("sources/shop")
	if err != nil || again.GetEtag() != got.GetEtag() || !proto.Equal(again.GetCreateTime(), got.GetCreateTime()) || !accepts(s, "shop", shopSecret) {
		t.Errorf("after a restart: %v, %v", again, err)
	}
	if err := s.Delete(t.Context(), "sources/shop", "another"); !errors.Is(err, source.ErrStale) {
		t.Errorf("Delete with another etag: %v", err)
	}
	if err := s.Delete(t.Context(), "sources/shop", again.GetEtag()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Endpoint("shop"); ok {
		t.Error("a source that was deleted receives")
	}
	if _, err := s.Get("sources/shop"); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("Get of a source that was deleted: %v", err)
	}
	if err := s.Delete(t.Context(), "sources/shop", ""); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("a second Delete: %v", err)
	}
	s.stop()
	if _, ok := p.start(t).Endpoint("shop"); ok {
		t.Error("a restart brings a deleted source back")
	}
}

func TestWhatOneRelayChangesCountsOnTheOther(t *testing.T) {
	url := externalServer(t)
	relay := func() *running {
		p := &place{dir: t.TempDir(), bucket: openLog(t, eventlog.Options{URL: url}).Bucket("sources"), keys: keysOf(t, key(1))}
		return p.start(t)
	}
	one, two := relay(), relay()
	first := create(t, one, "shop")
	waitFor(t, "the source on the other relay", func() bool { return accepts(two, "shop", shopSecret) })
	// The other relay knows the etag that this one gave out, whether it has seen the source or not.
	second, err := two.RotateSecret(t.Context(), "sources/shop", "s3cr3t-that-is-new", first.GetEtag())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new secret", func() bool { return accepts(one, "shop", "s3cr3t-that-is-new") })
	if !accepts(one, "shop", shopSecret) || !accepts(two, "shop", shopSecret) {
		t.Error("the secret before is not accepted beside the new one")
	}
	if _, err := one.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Etag: first.GetEtag(), Paused: true}, nil); !errors.Is(err, source.ErrStale) {
		t.Errorf("a change from the state before: %v", err)
	}
	if _, err := one.RotateSecret(t.Context(), "sources/shop", "", second.GetEtag()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the old secret", func() bool { return !accepts(two, "shop", shopSecret) })
	if err := two.Delete(t.Context(), "sources/shop", ""); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the source", func() bool { _, ok := one.Endpoint("shop"); return !ok })
	create(t, two, "shop")
	waitFor(t, "the source again", func() bool { return accepts(one, "shop", shopSecret) })
}

func TestOfManyChangesFromOneEtagOneIsMadeAndWithoutAnEtagAllAre(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	tag := create(t, s, "shop").GetEtag()
	var made, stale atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Etag: tag, DisplayName: strconv.Itoa(i)}, []string{"display_name"})
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, source.ErrStale):
				stale.Add(1)
			default:
				t.Error(err)
			}
			name := fmt.Sprintf("k%d", i)
			if _, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Labels: map[string]string{name: "v"}}, []string{"labels." + name}); err != nil {
				t.Errorf("without an etag: %v", err)
			}
		})
	}
	all.Wait()
	got, err := s.Get("sources/shop")
	if err != nil || made.Load() > 1 || made.Load()+stale.Load() != 8 || len(got.GetLabels()) != 9 {
		t.Errorf("%d made and %d stale; then %v, %v", made.Load(), stale.Load(), got, err)
	}
}

func TestASourceOfTheFileIsReadOnlyAndComesFirst(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	stored := shop()
	stored.AppSecrets = []string{"s3cr3t-of-the-stored-one"}
	if _, err := s.Create(t.Context(), "shop", stored); err != nil {
		t.Fatal(err)
	}
	s.stop()
	p.fixed, p.log = []*eventrelayv1.Source{shop()}, &buffer{}
	s = p.start(t)
	if !accepts(s, "shop", shopSecret) || accepts(s, "shop", "s3cr3t-of-the-stored-one") {
		t.Error("the stored source is used, not the one of the file")
	}
	if !strings.Contains(p.log.String(), "sources/shop") {
		t.Errorf("the log does not say that a stored source is not used: %s", p.log)
	}
	if got, err := s.Get("sources/shop"); err != nil || got.GetOrigin() != eventrelayv1.SourceOrigin_SOURCE_ORIGIN_FILE || got.GetStats() == nil {
		t.Errorf("Get = %v, %v", got, err)
	}
	_, update := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Paused: true}, nil)
	_, rotate := s.RotateSecret(t.Context(), "sources/shop", "s3cr3t-that-is-new", "")
	for _, err := range []error{update, rotate, s.Delete(t.Context(), "sources/shop", "")} {
		if !errors.Is(err, source.ErrReadOnly) {
			t.Errorf("a change gives %v", err)
		}
	}
	if _, err := s.Create(t.Context(), "shop", shop()); !errors.Is(err, source.ErrExists) {
		t.Errorf("Create = %v", err)
	}
	s.stop()
	p.fixed = nil
	if s = p.start(t); !accepts(s, "shop", "s3cr3t-of-the-stored-one") {
		t.Error("without the file the stored source is not back")
	}
}

func TestARecordThatCannotBeUsedCostsNoNotification(t *testing.T) {
	p := newPlace(t)
	p.log = &buffer{}
	s := p.start(t)
	create(t, s, "shop")
	create(t, s, "other")
	foreign, err := keysOf(t, key(9)).Seal([]byte("x"), "eventrelay source new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.bucket.Create(t.Context(), "new", foreign); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record under another key", func() bool { e, ok := s.Endpoint("new"); return ok && e.Unusable })
	if _, err := s.Get("sources/new"); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	if _, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/new", Paused: true}, nil); !errors.Is(err, source.ErrUnreadable) {
		t.Errorf("Update = %v", err)
	}
	// A record that is put in the place of another, or is under another key, leaves what was known.
	other, err := p.bucket.Get(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	is, err := p.bucket.Get(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	revision, err := p.bucket.Update(t.Context(), "shop", other.Data, is.Revision)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "mark") // what comes after it has been seen, so it has been too
	data, err := os.ReadFile(filepath.Join(p.dir, "sources.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	again := &place{dir: t.TempDir(), bucket: p.bucket, keys: p.keys}
	if err := os.WriteFile(filepath.Join(again.dir, "sources.sealed"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	late := again.start(t)
	if e, ok := late.Endpoint("shop"); !ok || e.Unusable || !accepts(late, "shop", shopSecret) {
		t.Errorf("after a restart the source of the snapshot is not used: %v, %v", e, ok)
	}
	if !accepts(s, "shop", shopSecret) {
		t.Error("what was known is not used any more")
	}
	for _, id := range []string{"new", "shop"} {
		if err := s.Delete(t.Context(), "sources/"+id, ""); err != nil {
			t.Errorf("Delete of %s, now at %d: %v", id, revision, err)
		}
		create(t, s, id)
		if !accepts(s, id, shopSecret) {
			t.Errorf("%s cannot be made anew", id)
		}
	}
	s.stop()
	late.stop()
	if !strings.Contains(p.log.String(), "source=sources/new") || !strings.Contains(p.log.String(), "source=sources/shop") {
		t.Errorf("the log does not name the records: %s", p.log)
	}
}
