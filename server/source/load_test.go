package source_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/source"
)

func write(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sources.yaml")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	// The umask has had its say; this has not.
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileIsReadIntoSources(t *testing.T) {
	path := write(t, `
# Comments are welcome.
sources:
  - name: sources/shop
    provider: PROVIDER_META
    display_name: Shop
    labels: {team: sales}
    app_id: 1234567890
    app_secrets: [s3cr3t-of-the-shop]
    verify_token: t0ken-of-the-shop
  - name: sources/agency
    provider: PROVIDER_DIALOG360_PARTNER
    paused: true
    app_secrets:
      - 00000000000000000000000000000001
      - "0x10000000"
`, 0o600)
	got, err := source.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*eventrelayv1.Source{shop(), {
		Name:     "sources/agency",
		Provider: partner360,
		Paused:   true,
		// What looks like a number stays as it is written.
		AppSecrets: []string{"00000000000000000000000000000001", "0x10000000"},
	}}
	if len(got) != len(want) || !proto.Equal(got[0], want[0]) || !proto.Equal(got[1], want[1]) {
		t.Errorf("Load = %v; want %v", got, want)
	}
	if _, err := source.NewSet(got); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyListIsNoMistake(t *testing.T) {
	if got, err := source.Load(write(t, "sources: []\n", 0o600), nil); err != nil || len(got) != 0 {
		t.Errorf("Load = %v, %v", got, err)
	}
}

func TestAMistakeInTheFileIsNamedByLineAndFieldWithoutItsSecrets(t *testing.T) {
	entry := "sources:\n  - name: sources/shop\n    provider: PROVIDER_META\n"
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"nothing", "", []string{"sources:"}},
		{"only a comment", "# sources\n", []string{"sources:"}},
		{"a word", "s3cr3t\n", []string{":1:1", "sources:"}},
		{"no list", "sources:\n", []string{":1:9", "sources: expected a list"}},
		{"other key at the top", "source: []\n", []string{":1:1", "unknown key"}},
		{"a field of the answer to a list", "sources: []\nnext_page_token: s3cr3t\n", []string{":2:1", "unknown key"}},
		{"unknown field", entry + "    app_secret: [s3cr3t-of-the-shop]\n", []string{":4:5", `unknown field "app_secret"`, "app_secrets"}},
		{"field in another spelling", entry + "    appSecrets: [s3cr3t-of-the-shop]\n", []string{":4:5", `unknown field "appSecrets"`}},
		{"field by number", entry + "    7: [s3cr3t-of-the-shop]\n", []string{":4:5", "unknown field"}},
		{"secret as a key", entry + "    s3cr3t-of-the-shop: x\n", []string{":4:5", "unknown field"}},
		{"field twice", entry + "    app_secrets: [s3cr3t-1]\n    app_secrets: [s3cr3t-2]\n", []string{":5:5", `"app_secrets" is given twice`}},
		{"label twice", entry + "    labels: {a: b, a: c}\n", []string{":4:20", `"a" is given twice`}},
		{"secret without a list", entry + "    app_secrets: s3cr3t-of-the-shop\n", []string{":4:18", "app_secrets: expected a list"}},
		{"secret in a list too deep", entry + "    app_secrets: [[s3cr3t-of-the-shop]]\n", []string{":4:19", "app_secrets: expected a single value"}},
		{"secret that is null", entry + "    app_secrets: [null]\n", []string{":4:19", "app_secrets: expected a single value"}},
		{"token that is null", entry + "    verify_token: null\n", []string{":4:19", "verify_token: expected a single value"}},
		{"token that is absent", entry + "    verify_token:\n", []string{"verify_token: expected a single value"}},
		{"alias", "sources:\n  - name: &s3cr3t sources/shop\n    verify_token: *s3cr3t\n", []string{":3:19", "verify_token: expected a single value"}},
		{"secret that reads as an alias", entry + "    app_secrets: [*s3cr3t-of-the-shop]\n", []string{"anchor", "quotes"}},
		{"secret that is no YAML", entry + "    verify_token: @t0ken\n", []string{"line 4"}},
		{"quote that is not closed", entry + "    verify_token: \"t0ken\n", []string{"line"}},
		{"tab", entry + "\tverify_token: t0ken\n", []string{"line"}},
		{"unknown provider", "sources:\n  - name: sources/shop\n    provider: META\n    app_secrets: [s3cr3t-of-the-shop]\n", []string{":3:15", "PROVIDER_META"}},
		{"word for a bool", entry + "    paused: yes\n", []string{":4:13", "expected bool"}},
		{"mistake beside a secret", "sources:\n  - {name: sources/shop, verify_token: t0ken, paused: 1}\n", []string{":2:55", "expected bool"}},
		{"path", entry + "    webhook_path: /webhooks/other\n", []string{":4:5", "webhook_path", "remove it"}},
		{"entry that is a word", "sources:\n  - s3cr3t\n", []string{":2:5", "expected a source"}},
		{"labels as a list", entry + "    labels: [a]\n", []string{":4:13", "labels"}},
		{"list as a key", entry + "    [s3cr3t]: x\n", []string{":4:5", "word as key"}},
		{"two documents", "sources: []\n---\nsources: []\n", []string{"more than one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.content, 0o600)
			got, err := source.Load(path, nil)
			if err == nil {
				t.Fatalf("Load = %v", got)
			}
			for _, want := range append(c.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			noSecret(t, err.Error())
		})
	}
}

func TestAFileThatIsNotThereIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := source.Load(path, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load = %v", err)
	}
}

func TestAnEndlessFileIsRefused(t *testing.T) {
	if _, err := source.Load("/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("Load = %v", err)
	}
}

func TestAFileThatOthersCanReadIsWarnedOf(t *testing.T) {
	for mode, warned := range map[fs.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o644: true, 0o604: true} {
		var out bytes.Buffer
		path := write(t, "sources: []\n", mode)
		if _, err := source.Load(path, slog.New(slog.NewTextHandler(&out, nil))); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		if got := strings.Contains(out.String(), "chmod 600") && strings.Contains(out.String(), path); got != warned {
			t.Errorf("%v: warned = %v, want %v: %s", mode, got, warned, out.String())
		}
	}
}

func TestAFileSaysWhatShouldBeSubscribedAndNothingThatIsOutputOnly(t *testing.T) {
	entry := "sources:\n  - name: sources/channel\n    provider: PROVIDER_DIALOG360_CHANNEL\n    headers: {Authorization: Basic s3cr3t==}\n"
	got, err := source.Load(write(t, entry+"    subscriptions:\n      public_base_url: https://hooks.example\n      objects:\n        - {object: page, fields: [feed], include_values: false}\n", 0o600), nil)
	if err != nil {
		t.Fatal(err)
	}
	wanted := got[0].GetSubscriptions()
	if wanted.GetPublicBaseUrl() != "https://hooks.example" || wanted.GetObjects()[0].GetFields()[0] != "feed" || wanted.GetObjects()[0].IncludeValues == nil {
		t.Errorf("Load = %v", wanted)
	}
	for line, want := range map[string]string{
		"etag: x": "etag: the server sets it", "stats: {events: 1}": "stats: the server sets it", "create_time: 2026-11-21T00:00:00Z": "create_time: the server sets it",
		"subscriptions: {objekts: []}": `unknown field "objekts"; there are public_base_url, objects`, "subscriptions: s3cr3t": "expected keys with values: public_base_url",
	} {
		_, err := source.Load(write(t, entry+"    "+line+"\n", 0o600), nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":5:") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
		if err != nil {
			noSecret(t, err.Error())
		}
	}
}
