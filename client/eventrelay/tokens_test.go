package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestANewTokenIsPrintedOnceWithItsEntry(t *testing.T) {
	var out, diag bytes.Buffer
	n := &newToken{Name: "billing", Role: "reader", ExpireAfter: 100 * 365 * 24 * time.Hour}
	if err := n.issue(&output{out: &out, diag: &diag}, "ert_of-the-golden-file", time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	golden(t, "tokens.golden", out.String())
	if strings.Contains(diag.String(), "ert_of") {
		t.Errorf("the notes have the token: %s", diag.String())
	}
}

func TestTokensAreRandomAndRecognised(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		got := eventrelay(t, "tokens", "new", "--name", "billing", "--role", "reader")
		token, entry, _ := strings.Cut(got.out, "\n")
		sum := sha256.Sum256([]byte(token))
		if got.code != exitDone || !regexp.MustCompile(`^ert_[A-Z2-7]{52}$`).MatchString(token) || !strings.Contains(entry, "hash: sha256:"+hex.EncodeToString(sum[:])+"\n") {
			t.Fatalf("printed %+v", got)
		}
		if strings.Contains(entry, token) || strings.Contains(got.err, token) || seen[token] {
			t.Errorf("%s is told twice", token)
		}
		seen[token] = true
	}
}

func TestANewTokenGoesIntoTheFileAndLeavesTheRestAsItIs(t *testing.T) {
	for name, before := range map[string]string{
		"none":               "",
		"an empty list":      "# ours\ntokens: []\n",
		"entries":            "# ours\ntokens:\n  - name: ops # the team\n    role: operator\n    hash: x\n",
		"entries, cut off":   "tokens:\n  - name: ops\n    hash: x",
		"entries, no indent": "tokens:\n- name: ops\n  hash: x\n",
		"entries, far in":    "tokens:\n      - name: ops\n        hash: x\n\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.yaml")
			if before != "" {
				if err := os.WriteFile(path, []byte(before), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			link := filepath.Join(t.TempDir(), "link.yaml")
			if before != "" {
				if err := os.Symlink(path, link); err != nil {
					t.Fatal(err)
				}
			} else {
				link = path
			}
			for _, name := range []string{"billing", "shop"} {
				got := eventrelay(t, "tokens", "new", "--file", link, "--name", name, "--role", "reader")
				if got.code != exitDone || strings.Count(got.out, "\n") != 1 || !strings.HasPrefix(got.out, "ert_") {
					t.Fatalf("printed %+v", got)
				}
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256([]byte(strings.TrimSpace(got.out)))
				if strings.Contains(string(content), strings.TrimSpace(got.out)) || !strings.Contains(string(content), hex.EncodeToString(sum[:])) {
					t.Errorf("the file has not the hash, or the token: %s", content)
				}
			}
			content, _ := os.ReadFile(path)
			list, err := entries(content)
			if err != nil {
				t.Fatalf("%v: %s", err, content)
			}
			var names []string
			for _, entry := range list.Content {
				names = append(names, nameOf(entry))
			}
			want := "billing,shop"
			if strings.Contains(before, "ops") {
				want = "ops,billing,shop"
			}
			if strings.Join(names, ",") != want || !strings.HasPrefix(string(content), strings.TrimRight(strings.Replace(before, "[]", "", 1), " \n")) {
				t.Errorf("%s became %s", before, content)
			}
			info, _ := os.Stat(path)
			if mode := info.Mode().Perm(); before == "" && mode != 0o600 || before != "" && mode != 0o640 {
				t.Errorf("mode %v", mode)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAFileThatCannotTakeAnEntryIsLeftAloneAndNoTokenIsPrinted(t *testing.T) {
	for before, want := range map[string]string{
		"":                                     "no tokens file",
		"sources: []\n":                        "no tokens file",
		"tokens:\n":                            "no tokens file",
		"tokens: [{name: ops, hash: x}]\n":     "leave --file away",
		"tokens:\n  - name: billing\n":         "line 2 has a token billing already",
		"tokens:\n  - name: ops\n...\n# end\n": "leave --file away",
		"tokens:\n  - {name: @":                "no tokens file",
	} {
		path := filepath.Join(t.TempDir(), "tokens.yaml")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		got := eventrelay(t, "tokens", "new", "--file", path, "--name", "billing", "--role", "reader")
		after, _ := os.ReadFile(path)
		if got.code != exitFailure || got.out != "" || !strings.Contains(got.err, want) || string(after) != before {
			t.Errorf("%q: %+v, the file is %q", before, got, after)
		}
	}
}

func TestWhatIsNoTokenToMakeIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--role", "reader"},
		{"--name", "billing"},
		{"--name", "billing", "--role", "admin"},
		{"--name", "a b", "--role", "reader"},
		{"--name", "a\nrole: operator", "--role", "reader"},
		{"--name", "billing", "--role", "reader", "--expire-after", "-1h"},
	} {
		if got := eventrelay(t, append([]string{"tokens", "new"}, args...)...); got.code != exitUsage || got.out != "" {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestTheTokenCanStandInAFile(t *testing.T) {
	r := &relay{script: sends()}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("hush-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := eventrelay(t, "tail", "--server", r.serve(t), "--token-file", path, "--no-follow")
	if got.code != exitDone || len(r.tokens) != 1 || r.tokens[0] != "Bearer hush-hush" {
		t.Errorf("%+v, showed %q", got, r.tokens)
	}
	for _, args := range [][]string{{"--token", "x"}, {"--server", "relay.example:9090"}} {
		got := eventrelay(t, append([]string{"tail", "--token-file", path}, args...)...)
		if got.code != exitUsage || strings.Contains(got.err, "hush") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if err := os.WriteFile(path, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, diag bytes.Buffer
	if code := run(context.Background(), []string{"tail", "--token-file", path}, nil, &out, &diag); code != exitUsage || !strings.Contains(diag.String(), "--token-file") {
		t.Errorf("an empty file: %d %s", code, diag.String())
	}
}
