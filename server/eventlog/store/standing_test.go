package store

import (
	"os"
	"path/filepath"
	"testing"
)

// What a disk has damaged is no reason to go without the log: the server's own files may well be good.
func TestCopiesThatCannotBeReadAreMadeAnew(t *testing.T) {
	for _, damaged := range []string{"", "null", "{", `{"EVENTS":{}}`, `{"../../x/reader":{}}`, `{"EVENTS/reader":{"file":"%"}}`} {
		dir := Folder(t.TempDir())
		if err := os.WriteFile(filepath.Join(string(dir), standingFile), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		c := Consumer{"EVENTS", "reader"}
		if err := os.MkdirAll(dir.Consumer(c), 0o700); err != nil {
			t.Fatal(err)
		}
		state := filepath.Join(dir.Consumer(c), consumerState)
		for name, text := range map[string]string{
			filepath.Join(dir.Consumer(c), consumerMeta): `{"Created":"2026-11-21T10:00:00Z"}`,
			state: "\x16\x02\x00\x00\x05\x05\x00\x00",
		} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := standing{dir: dir}
		if err := s.restore(); err != nil {
			t.Errorf("%s: %v", damaged, err)
		}
		if err := s.keep([]Consumer{c}); err != nil {
			t.Errorf("%s: %v", damaged, err)
		}
		if err := os.Remove(state); err != nil {
			t.Fatal(err)
		}
		if err := (&standing{dir: dir}).restore(); err != nil {
			t.Errorf("%s: %v", damaged, err)
		}
		if data, err := os.ReadFile(state); err != nil {
			t.Errorf("%s: where the consumer stands is not put back: %v", damaged, err)
		} else if p, err := DecodePosition(data); err != nil || p.Given != 5 {
			t.Errorf("%s: it stands at %+v, %v", damaged, p, err)
		}
	}
}
