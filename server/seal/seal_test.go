package seal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"eventrelay/server/seal"
)

// line is the nth key of these tests, as it stands in a file.
func line(n byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32)) }

func write(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets.keys")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keys(t testing.TB, lines ...string) *seal.Keys {
	t.Helper()
	k, err := seal.Load(write(t, strings.Join(lines, "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWhatIsSealedOpensForItsPurposeOnly(t *testing.T) {
	k := keys(t, line(1))
	sealed, err := k.Seal([]byte("the secret"), "shop")
	if err != nil || bytes.Contains(sealed, []byte("secret")) {
		t.Fatalf("Seal = %q, %v", sealed, err)
	}
	if data, err := k.Open(sealed, "shop"); err != nil || string(data) != "the secret" {
		t.Errorf("Open = %q, %v", data, err)
	}
	if _, err := k.Open(sealed, "other"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("for another purpose: %v", err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := k.Open(changed, "shop"); !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, seal.ErrWrongKey) {
			t.Errorf("with byte %d changed: %v", i, err)
		}
		if _, err := k.Open(sealed[:i], "shop"); err == nil {
			t.Errorf("cut at %d it opens", i)
		}
	}
	again, err := k.Seal([]byte("the secret"), "shop")
	if err != nil || bytes.Equal(sealed, again) {
		t.Errorf("sealed twice it is the same: %v", err)
	}
}

func TestTheFirstKeySealsAndAllOpen(t *testing.T) {
	old, both, fresh := keys(t, line(1)), keys(t, line(2), line(1)), keys(t, line(2))
	before, err := old.Seal([]byte("x"), "p")
	if err != nil {
		t.Fatal(err)
	}
	after, err := both.Seal([]byte("x"), "p")
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{before, after} {
		if _, err := both.Open(sealed, "p"); err != nil {
			t.Error(err)
		}
	}
	if _, err := fresh.Open(after, "p"); err != nil {
		t.Errorf("it was not the first key that sealed: %v", err)
	}
	if _, err := fresh.Open(before, "p"); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("under a key that is not there: %v", err)
	}
	if both.Current(before) || !both.Current(after) || !old.Current(before) {
		t.Error("Current does not tell the first key")
	}
}

func TestAMissingFileIsMadeOnceForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "secrets.keys")
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		made []*seal.Keys
	)
	for range 8 {
		all.Go(func() {
			k, err := seal.Load(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			made = append(made, k)
			mu.Unlock()
		})
	}
	all.Wait()
	for _, k := range made {
		sealed, err := k.Seal([]byte("x"), "p")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := made[0].Open(sealed, "p"); err != nil {
			t.Errorf("who comes at once gets another key: %v", err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left over: %v", files)
	}
}

func TestAMistakeInTheFileIsNamedByLineWithoutTheKey(t *testing.T) {
	good := line(7)
	for _, c := range []struct{ name, content, want string }{
		{"empty", "", "no key"},
		{"only comments", "# " + good + "\n\n", "no key"},
		{"short", good + "\n" + good[:20] + "\n", "line 2"},
		{"long", good + good + "\n", "line 1"},
		{"not base64", "# a key\n\n" + good[:43] + "!\n", "line 3"},
		{"two on a line", good + " " + line(8) + "\n", "line 1"},
		{"url alphabet", strings.ReplaceAll(line(0xff), "/", "_") + "\n", "line 1"},
		{"twice", good + "\n" + good + "\n", "key 2"},
		{"endless", strings.Repeat("# x\n", 20_000), "KiB"},
	} {
		path := write(t, c.content)
		k, err := seal.Load(path, nil)
		if err == nil {
			t.Errorf("%s: Load = %v", c.name, k)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), good[:8]) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAFileThatOthersCanReadIsWarnedOf(t *testing.T) {
	var out bytes.Buffer
	path := write(t, line(1))
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Load(path, slog.New(slog.NewTextHandler(&out, nil))); err != nil || !strings.Contains(out.String(), "chmod 600") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestNoWayOfPrintingShowsAKey(t *testing.T) {
	k := keys(t, base64.StdEncoding.EncodeToString([]byte("0123456789abcdefghijklmnopqrstuv")))
	holder := struct{ hidden *seal.Keys }{k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{k, *k, holder} {
			text := fmt.Sprintf(verb, value)
			for _, form := range []string{"0123456789", fmt.Sprintf("%x", "0123456789"), "48 49 50 51"} {
				if strings.Contains(text, form) {
					t.Errorf("%s shows the key: %s", verb, text)
				}
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := keys(f, line(1), line(2))
	sealed, err := k.Seal([]byte("the secret"), "shop")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, "shop")
	f.Add(sealed[:5], "shop")
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, data []byte, purpose string) {
		if got, err := k.Open(data, purpose); err == nil && (string(got) != "the secret" || purpose != "shop") {
			t.Errorf("%q opens for %q as %q", data, purpose, got)
		}
	})
}
