package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// parse parses flags into a configuration.
func parse(t *testing.T, flags ...string) (config, error) {
	t.Helper()
	var c config
	parser, err := kong.New(&c, kong.DefaultEnvars("EVENTRELAY"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(flags)
	return c, err
}

func TestDefaultsAreSafe(t *testing.T) {
	c, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if c.WebhookAddr != "127.0.0.1:8080" || c.HTTPAddr != "127.0.0.1:8081" || c.GRPCAddr != "127.0.0.1:9090" || c.MaxBody != 4<<20 || c.Dev {
		t.Errorf("defaults %+v", c)
	}
}

func TestEveryFlagIsAlsoAnEnvironmentVariable(t *testing.T) {
	t.Setenv("EVENTRELAY_WEBHOOK_ADDR", "127.0.0.1:1")
	t.Setenv("EVENTRELAY_HTTP_ADDR", "127.0.0.1:2")
	t.Setenv("EVENTRELAY_NATS_URL", "nats://localhost")
	t.Setenv("EVENTRELAY_SECRETS_KEY_FILE", "/etc/eventrelay/keys")
	t.Setenv("EVENTRELAY_JOURNAL_MAX_BYTES", "1GiB")
	t.Setenv("EVENTRELAY_DEV", "true")
	c, err := parse(t, "--http-addr", "127.0.0.1:3") // a flag wins
	if err != nil {
		t.Fatal(err)
	}
	if c.WebhookAddr != "127.0.0.1:1" || c.HTTPAddr != "127.0.0.1:3" || c.NATSURL != "nats://localhost" || c.JournalMaxBytes != 1<<30 || !c.Dev {
		t.Errorf("read %+v", c)
	}
}

func TestWhatCannotWorkIsRefusedNamingTheFlag(t *testing.T) {
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--http-addr", "0.0.0.0:8081"}, "--http-addr"},
		{[]string{"--http-addr", ":8081"}, "--http-addr"},
		{[]string{"--max-stream-age", "10ms"}, "--max-stream-age"},
		{[]string{"--max-stream-age", "-1h"}, "--max-stream-age"},
		{[]string{"--max-streams-per-caller", "-1"}, "--max-streams-per-caller"},
		{[]string{"--grpc-addr", "192.0.2.1:9090"}, "--grpc-addr"},
		{[]string{"--grpc-addr", "[::]:9090"}, "--grpc-addr"},
		{[]string{"--grpc-addr", "example.org:9090"}, "--grpc-addr"},
		{[]string{"--grpc-addr", "9090"}, "host:port"},
		{[]string{"--dev", "--webhook-addr", "0.0.0.0:8080"}, "--webhook-addr"},
		{[]string{"--max-body", "9MiB"}, "--max-body"},
		{[]string{"--max-body", "large"}, "--max-body"},
		{[]string{"--retention-age", "-1s"}, "--retention-age"},
		{[]string{"--nats-replicas", "0"}, "--nats-replicas"},
		{[]string{"--ack-after", "never"}, "--ack-after"},
		{[]string{"--duplicate-window", "1ms"}, "--duplicate-window"},
		{[]string{"--duplicate-horizon", "59s", "--duplicate-window", "1s"}, "--duplicate-horizon"},
		{[]string{"--duplicate-horizon", "1h", "--duplicate-window", "2h"}, "--duplicate-horizon"},
		{[]string{"--nats-url", "nats://127.0.0.1:4222"}, "--secrets-key-file: it is required with --nats-url"},
		{[]string{"--data-dir", "d", "--secrets-key-file", "d/keys"}, "--secrets-key-file"},
		{[]string{"--data-dir", "d/data", "--secrets-key-file", "d/other/../data/log/keys"}, "lies in --data-dir"},
		{[]string{"--no-such-flag"}, "no-such-flag"},
	} {
		var stderr bytes.Buffer
		if code := start(t.Context(), c.flags, &bytes.Buffer{}, &stderr); code != exitUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%v: code %d, %q; want code %d naming %s", c.flags, code, stderr.String(), exitUsage, c.want)
		}
	}
	for _, flags := range [][]string{{"--webhook-addr", "0.0.0.0:8080"}, {"--grpc-addr", "[::1]:9090"}, {"--http-addr", "localhost:8081"}} {
		if _, err := parse(t, flags...); err != nil {
			t.Errorf("%v: %v", flags, err)
		}
	}
}

func TestAKeyFileThatALinkPutsIntoTheDataFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "data"), filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if _, err := parse(t, "--data-dir", data, "--secrets-key-file", filepath.Join(dir, "elsewhere", "keys")); err == nil || !strings.Contains(err.Error(), "lies in --data-dir") {
		t.Errorf("error is %v", err)
	}
	for _, beside := range []string{filepath.Join(dir, "keys"), filepath.Join(dir, "data-keys"), filepath.Join(dir, "elsewhere", "..", "..keys")} {
		if _, err := parse(t, "--data-dir", data, "--secrets-key-file", beside); err != nil {
			t.Error(err)
		}
	}
}

func TestHelpNamesEveryFlagAndExitsWithoutServing(t *testing.T) {
	var stdout bytes.Buffer
	if code := start(t.Context(), []string{"--help"}, &stdout, &bytes.Buffer{}); code != 0 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"--webhook-addr", "--sources-file", "--nats-url", "EVENTRELAY_DATA_DIR", "--secrets-key-file"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("help does not name %s", want)
		}
	}
}
