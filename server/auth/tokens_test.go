package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestATokenOpensWhatItsRoleReachesFor(t *testing.T) {
	w := open(t, three())
	for _, c := range []struct {
		token    string
		required Role
		want     error
	}{
		{readerToken, Reader, nil},
		{readerToken, Operator, &RoleError{Caller: "billing", Required: Operator}},
		{operatorToken, Reader, nil},
		{operatorToken, Operator, nil},
		{expiredToken, Reader, ErrTokenExpired},
		{"ert_unknown", Reader, ErrTokenInvalid},
		{"ert_unknown", Anyone, nil},
	} {
		err := w.shows(c.required, c.token)
		var role, wanted *RoleError
		switch {
		case errors.As(c.want, &wanted):
			if !errors.As(err, &role) || *role != *wanted {
				t.Errorf("%s for %v: %v, want %v", c.token, c.required, err, c.want)
			}
		case !errors.Is(err, c.want):
			t.Errorf("%s for %v: %v, want %v", c.token, c.required, err, c.want)
		}
	}
}

func TestATokenExpiresWhileTheServerRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour)
		w := open(t, "tokens:\n"+entry("billing", "reader", readerToken, "expire_time: "+until.Format(time.RFC3339)))
		time.Sleep(time.Hour - time.Nanosecond)
		if err := w.shows(Reader, readerToken); err != nil {
			t.Errorf("before its time: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if err := w.shows(Reader, readerToken); !errors.Is(err, ErrTokenExpired) {
			t.Errorf("at its time: %v", err)
		}
	})
}

func TestAChangeOfTheTokensFileCountsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, "tokens:\n"+entry("billing", "reader", readerToken))
		go w.files.Run(t.Context())
		put(t, w.path, "tokens:\n"+entry("ops", "operator", operatorToken))
		time.Sleep(time.Second + time.Millisecond)
		if err := w.shows(Reader, readerToken); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("the removed token: %v", err)
		}
		if err := w.shows(Operator, operatorToken); err != nil {
			t.Errorf("the added token: %v", err)
		}
		// Swapped by a link, as Kubernetes does with mounted secrets.
		next := filepath.Join(filepath.Dir(w.path), "next")
		put(t, next, "tokens: []\n")
		if err := errors.Join(os.Remove(w.path), os.Symlink(next, w.path)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + time.Millisecond)
		if err := w.shows(Reader, operatorToken); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("after the swap: %v", err)
		}
	})
}

func TestABrokenTokensFileLeavesTheOldOneInForceAndIsToldOnce(t *testing.T) {
	for what, c := range map[string]struct{ content, want string }{
		"a role nobody has": {"tokens:\n" + entry("billing", "admin", readerToken), ":3:11 role: it must be reader or operator"},
		"nothing":           {"", "empty"},
		"half an entry":     {"tokens:\n  - name: billing\n    role: rea", ":3:11 role"},
		"not there":         {"gone", "no such file"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := open(t, three())
				go w.files.Run(t.Context())
				put(t, w.path, c.content)
				if c.content == "gone" {
					os.Remove(w.path)
				}
				time.Sleep(10 * time.Second)
				if err := w.shows(Operator, operatorToken); err != nil {
					t.Errorf("the old token: %v", err)
				}
				if log := w.log.String(); strings.Count(log, "cannot be taken over") != 1 || !strings.Contains(log, c.want) {
					t.Errorf("log %s, want one line with %s", log, c.want)
				}
				if n := w.counted(t, "eventrelay_reload_failures_total", "--tokens-file"); n != 1 {
					t.Errorf("counted %v failures", n)
				}
				put(t, w.path, "tokens: []\n")
				time.Sleep(time.Second + time.Millisecond)
				if err := w.shows(Operator, operatorToken); !errors.Is(err, ErrTokenInvalid) {
					t.Errorf("after the mistake was mended: %v", err)
				}
				hidesTokens(t, w.log.String())
			})
		})
	}
}

func TestAFileThatIsBeingWrittenIsNotReadHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := three()
		w := open(t, whole)
		go w.files.Run(t.Context())
		synctest.Wait()
		// The writer is slower than the looks: each sees the file a little longer, first without any token, then with one.
		for i := len("tokens:\n") + len(entry("billing", "reader", readerToken)); i < len(whole); i += 40 {
			put(t, w.path, whole[:i])
			time.Sleep(lookInterval)
			synctest.Wait()
			if err := w.shows(Operator, operatorToken); err != nil {
				t.Fatalf("after %d bytes: %v", i, err)
			}
		}
	})
}

func TestAMistakeInTheTokensFileIsNamedByLineAndFieldAndShowsNoToken(t *testing.T) {
	ok := entry("billing", "reader", readerToken)
	for _, c := range []struct{ name, content, want string }{
		{"nothing", "", "tokens:"},
		{"only a comment", "# tokens\n", "tokens:"},
		{"a word", operatorToken, ":1:1"},
		{"no list", "tokens:\n", ":1:8 tokens: expected a list"},
		{"other key at the top", "tokens: []\nusers: []\n", ":1:1 expected a list `tokens:` and nothing else"},
		{"entry that is a word", "tokens:\n  - " + operatorToken, ":2:5 expected a token"},
		{"unknown field", "tokens:\n" + ok + "    secret: " + operatorToken, ":5:5 unknown field; a token has name, role, hash"},
		{"token as a field", "tokens:\n" + ok + "    " + operatorToken + ": x", ":5:5 unknown field"},
		{"field twice", "tokens:\n" + ok + "    role: operator", ":5:5 role is given twice"},
		{"no name", "tokens:\n  - role: reader\n    hash: " + hashOf(readerToken), ":2:5 name: it is missing"},
		{"no role", "tokens:\n  - name: billing\n    hash: " + hashOf(readerToken), ":2:5 role: it is missing"},
		{"no hash", "tokens:\n  - name: billing\n    role: reader", ":2:5 hash: it is missing"},
		{"name with tricks", "tokens:\n" + entry(`"a\nb"`, "reader", readerToken), ":2:11 name: it must be"},
		{"name twice", "tokens:\n" + ok + entry("billing", "reader", operatorToken), ":5:11 name: it is used twice"},
		{"hash twice", "tokens:\n" + ok + entry("other", "operator", readerToken), ":5:5 hash: another token has it"},
		{"role in capitals", "tokens:\n" + entry("billing", "READER", readerToken), ":3:11 role: it must be reader or operator"},
		{"role of the proto", "tokens:\n" + entry("billing", "ROLE_READER", readerToken), ":3:11 role"},
		{"role null", "tokens:\n  - {name: a, role: null, hash: x}", ":2:21 role: expected a single value"},
		{"role as a list", "tokens:\n  - {name: a, role: [reader], hash: x}", ":2:21 role: expected a single value"},
		{"token as its hash", "tokens:\n  - {name: a, role: reader, hash: " + operatorToken + "}", ":2:35 hash: it must be sha256:"},
		{"hash without its kind", "tokens:\n  - {name: a, role: reader, hash: " + strings.TrimPrefix(hashOf(readerToken), hashPrefix) + "}", "hash: it must be sha256:"},
		{"hash cut short", "tokens:\n  - {name: a, role: reader, hash: " + hashOf(readerToken)[:60] + "}", "hash: it must be sha256:"},
		{"hash of nothing", "tokens:\n  - {name: a, role: reader, hash: " + hashOf("") + "}", "hash: it is the hash of nothing"},
		{"time that is none", "tokens:\n" + ok + "    expire_time: tomorrow", ":5:18 expire_time: it must be a time"},
		{"time without a zone", "tokens:\n" + ok + "    create_time: 2026-11-21", ":5:18 create_time: it must be a time"},
		{"alias", "tokens:\n  - &a {name: a, role: reader, hash: x}\n  - *a", ":3:5 expected a token"},
		{"value that reads as an alias", "tokens:\n  - {name: *" + operatorToken + "}", "anchor"},
		{"no YAML", "tokens:\n  - name: @" + operatorToken, "line 2"},
		{"two documents", "tokens: []\n---\ntokens: []\n", "more than one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := file(t, c.content)
			j := &journal{}
			_, err := OpenTokens(NewFiles(nil, j.logger()), path, j.logger())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--tokens-file") {
				t.Fatalf("error %v, want %s of %s", err, c.want, path)
			}
			hidesTokens(t, err.Error())
		})
	}
}

func TestAnEmptyListLetsNobodyIn(t *testing.T) {
	w := open(t, "tokens: []\n")
	for _, shown := range [][]string{nil, {""}, {"Bearer "}, {"Bearer " + readerToken}} {
		if err := w.guard.Allow(t.Context(), "a call", Reader, shown); err == nil {
			t.Errorf("%q is let in", shown)
		}
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	j := &journal{}
	if _, err := OpenTokens(NewFiles(nil, j.logger()), filepath.Join(t.TempDir(), "none"), j.logger()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, path := range []string{t.TempDir(), "/dev/zero"} {
		if _, err := OpenTokens(NewFiles(nil, j.logger()), path, j.logger()); err == nil || !strings.Contains(err.Error(), "not a file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := OpenTokens(NewFiles(nil, j.logger()), file(t, strings.Repeat("#", maxFile+1)), j.logger()); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("an endless file: %v", err)
	}
}

func TestATokensFileThatOthersCanWriteIsWarnedOf(t *testing.T) {
	for mode, warned := range map[fs.FileMode]bool{0o600: false, 0o440: false, 0o644: false, 0o664: true, 0o602: true} {
		j := &journal{}
		path := file(t, three())
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenTokens(NewFiles(nil, j.logger()), path, j.logger()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(j.String(), "chmod 644"); got != warned {
			t.Errorf("%v: warned = %v: %s", mode, got, j.String())
		}
	}
}

func TestNoWayOfPrintingTokensShowsAHash(t *testing.T) {
	w := open(t, three())
	hidesTokens(t, fmt.Sprintf("%v %+v %#v %+v", w.tokens, w.tokens, w.tokens, w.guard))
}

func TestTheEntryThatTheCommandLinePrintsIsUnderstood(t *testing.T) {
	golden, err := os.ReadFile("../../client/eventrelay/testdata/tokens.golden")
	if err != nil {
		t.Fatal(err)
	}
	content := string(golden)
	shown, entry, _ := strings.Cut(content, "\n")
	w := open(t, "tokens:\n"+entry)
	if err := w.shows(Reader, shown); err != nil {
		t.Errorf("the token that was printed: %v", err)
	}
	if err := w.shows(Operator, shown); err == nil {
		t.Error("a reader's token does what an operator's may")
	}
}

func FuzzTokensFile(f *testing.F) {
	f.Add([]byte(three()))
	f.Add([]byte("tokens: []"))
	f.Add([]byte("tokens:\n  - {name: a, role: reader, hash: *x}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, err := parseTokens("file", data)
		if err != nil {
			return
		}
		for d, token := range tokens {
			if d == emptyDigest || d == (digest{}) && !strings.Contains(string(data), strings.Repeat("0", 64)) || roleNames[token.role] == "" || !tokenName.MatchString(token.name) {
				t.Errorf("%q yields %v", data, token)
			}
		}
	})
}
