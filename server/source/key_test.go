package source_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"eventrelay/server/eventlog"
	"eventrelay/server/seal"
	"eventrelay/server/source"
)

func TestAWrongKeyRefusesTheStart(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, p *place)
	}{
		{"no sources yet", func(t *testing.T, p *place) { p.start(t).stop(); p.dir = t.TempDir() }},
		{"sources in the log", func(t *testing.T, p *place) { s := p.start(t); create(t, s, "shop"); s.stop(); p.dir = t.TempDir() }},
		{"sources in the snapshot", func(t *testing.T, p *place) { s := p.start(t); create(t, s, "shop"); s.stop(); p.bucket = away{} }},
		{"an empty snapshot", func(t *testing.T, p *place) { p.start(t).stop(); p.bucket = away{} }},
		{"sources without a mark", func(t *testing.T, p *place) {
			s := p.start(t)
			create(t, s, "shop")
			s.stop()
			p.dir = t.TempDir()
			mark, err := p.bucket.Get(t.Context(), "_key")
			if err != nil {
				t.Fatal(err)
			}
			if err := p.bucket.Delete(t.Context(), "_key", mark.Revision); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			c.prepare(t, p)
			p.keys = keysOf(t, key(2))
			if _, err := source.Open(t.Context(), p.options()); !errors.Is(err, seal.ErrWrongKey) {
				t.Errorf("Open = %v", err)
			}
			p.keys = keysOf(t, key(2), key(1))
			if _, err := source.Open(t.Context(), p.options()); err != nil {
				t.Errorf("with the right key as the second: %v", err)
			}
		})
	}
}

func TestAnOldKeyCanBeDroppedAfterAStartWithTheNewOne(t *testing.T) {
	p := newPlace(t)
	s := p.start(t)
	create(t, s, "shop")
	create(t, s, "second")
	s.stop()
	p.keys = keysOf(t, key(2), key(1))
	p.start(t).stop()
	p.keys = keysOf(t, key(2))
	s = p.start(t)
	if !accepts(s, "shop", shopSecret) || !accepts(s, "second", shopSecret) {
		t.Error("a source was not sealed anew")
	}
	s.stop()
	p.bucket = away{}
	if s = p.start(t); !accepts(s, "shop", shopSecret) {
		t.Error("the snapshot was not sealed anew")
	}
}

func TestNoFileShowsASecret(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, eventlog.Options{Dir: filepath.Join(dir, "log")})
	p := &place{dir: dir, bucket: log.Bucket("sources"), keys: keysOf(t, key(1)), log: &buffer{}}
	s := p.start(t)
	full := shop()
	full.AccessToken, full.PartnerApiKey, full.ChannelApiKey = "s3cr3t-access", "s3cr3t-partner", "s3cr3t-channel"
	full.Headers = map[string]string{"Authorization": "Basic s3cr3t-header"}
	if _, err := s.Create(t.Context(), "shop", full); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateSecret(t.Context(), "sources/shop", "s3cr3t-rotated", ""); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		for _, word := range []string{"s3cr3t", "t0ken", base64.StdEncoding.EncodeToString([]byte("s3cr3t-access"))[:12], "Shop"} {
			if bytes.Contains(data, []byte(word)) {
				t.Errorf("%s shows %s", path, word)
			}
		}
		if info, _ := d.Info(); d.Name() == "sources.sealed" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if files < 3 {
		t.Errorf("only %d files were looked at", files)
	}
	noSecret(t, p.log.String())
}

func TestAWrongKeyThatShowsLateEndsWhatKnowsNothingAndCostsOthersNoSource(t *testing.T) {
	p := newPlace(t)
	there := p.bucket
	s := p.start(t)
	create(t, s, "shop")
	s.stop()
	other := &place{dir: t.TempDir(), keys: keysOf(t, key(2)), bucket: openLog(t, eventlog.Options{Dir: t.TempDir()}).Bucket("sources"), log: &buffer{}}
	s = other.start(t)
	create(t, s, "own")
	s.stop()

	back := make(chan struct{})
	other.bucket = late{there, back} // the log of another relay, under another key
	s = other.start(t)
	if !accepts(s, "own", shopSecret) {
		t.Fatal("the snapshot is not used")
	}
	close(back)
	waitFor(t, "the log to tell", func() bool { return strings.Contains(other.log.String(), "give all relays the same keys") })
	waitFor(t, "the source that cannot be read", func() bool { e, ok := s.Endpoint("shop"); return ok && e.Unusable })
	s.stop()
	if s.err != nil {
		t.Errorf("Run ended with %v", s.err)
	}

	other.dir = t.TempDir()
	back = make(chan struct{})
	other.bucket = late{there, back}
	store, err := source.Open(t.Context(), other.options())
	if err != nil {
		t.Fatal(err)
	}
	close(back)
	if err := store.Run(t.Context()); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("Run = %v", err)
	}
}
