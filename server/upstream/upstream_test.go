package upstream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"eventrelay/server/upstream"
	"eventrelay/server/upstream/upstreamtest"
)

const token = "EAAG7oken|that+is/l0ng\"enough"

func TestASecretDoesNotPrint(t *testing.T) {
	secret := upstream.NewSecret(token)
	type holder struct {
		hidden upstream.Secret
		Shown  *upstream.Secret
		Map    map[string]upstream.Secret
	}
	h := holder{hidden: secret, Shown: &secret, Map: map[string]upstream.Secret{"Authorization": secret}}
	var out bytes.Buffer
	for _, value := range []any{secret, &secret, h, &h, []any{h}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, format+"\n", value)
		}
		encoded, err := json.Marshal(value)
		fmt.Fprintf(&out, "%s %v\n", encoded, err)
		slog.New(slog.NewTextHandler(&out, nil)).Info("", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "value", value)
	}
	if strings.Contains(out.String(), "7oken") || strings.Contains(out.String(), fmt.Sprintf("%x", "7oken")) {
		t.Error(out.String())
	}
	if got := fmt.Sprintf("%v|%#v|%v", secret, secret, upstream.Secret{}); got != "[secret]|[secret]|" {
		t.Error(got)
	}
	if secret.Reveal() != token || secret.Empty() || !upstream.NewSecret("").Empty() || (upstream.Secret{}).Reveal() != "" {
		t.Error("what is hidden cannot be had back")
	}
}

func TestScrubTakesOutWhatASecretIsMadeOf(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"nothing of it":                       "nothing of it",
		token:                                 "[secret]",
		"a " + token + " and " + token + ".":  "a [secret] and [secret].",
		"cut " + token[:10] + "...":           "cut [secret]...",
		"end ..." + token[12:]:                "end ...[secret]",
		"seven " + token[:7]:                  "seven " + token[:7],
		"url EAAG7oken%7Cthat%2Bis%2Fl0ng x":  "url [secret] x",
		`json EAAG7oken|that+is/l0ng\"enough`: "json [secret]",
		"pin 1234 is out":                     "pin [secret] is out",
		"\xff" + token + "\xff":               "?[secret]?",
	} {
		if got := upstream.Scrub(text, upstream.NewSecret(token), upstream.NewSecret("1234"), upstream.Secret{}); got != want {
			t.Errorf("%q becomes %q; want %q", text, got, want)
		}
	}
}

// Whatever text and secret are: nothing of eight bytes is left of it, and what has nothing to do with it stays.
func FuzzScrub(f *testing.F) {
	f.Add("a "+token+" b", token)
	f.Add("%7C\\u00e4\xff", "ä|\xff")
	f.Add("aaaaaaaaaaaaaaaa", "aaaaaaaa")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := upstream.Scrub(text, upstream.NewSecret(secret))
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not UTF-8", got)
		}
		for i := 0; i+8 <= len(secret); i++ {
			part := secret[i : i+8]
			if utf8.ValidString(part) && strings.Contains(strings.ReplaceAll(got, "[secret]", "\x00"), part) && !strings.Contains(part, "\x00") && !strings.Contains(part, "?") {
				t.Fatalf("%q still has %q", got, part)
			}
		}
		if secret == "" && got != strings.ToValidUTF8(text, "?") {
			t.Fatalf("%q becomes %q without a secret", text, got)
		}
	})
}

type failing struct {
	wait  time.Duration
	again bool
}

func (failing) Error() string                  { return "failing" }
func (e failing) Again() (time.Duration, bool) { return e.wait, e.again }

func TestRetryEndsWithItsBudget(t *testing.T) {
	for _, c := range []struct {
		name        string
		err         error
		least, most int
		took        time.Duration
	}{
		{"passing", failing{again: true}, 3, 8, upstream.RetryBudget},
		{"passing, wrapped", fmt.Errorf("call: %w", failing{again: true}), 3, 8, upstream.RetryBudget},
		{"lasting", failing{}, 1, 1, 0},
		{"of another kind", errors.New("no"), 1, 1, 0},
		{"after two seconds", failing{wait: 2 * time.Second, again: true}, 3, 3, 4 * time.Second},
		{"after an hour", failing{wait: time.Hour, again: true}, 1, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n, began := 0, time.Now()
			err := upstream.New(upstream.Options{}).Retry(t.Context(), func(context.Context) error { n++; return c.err })
			took := time.Since(began)
			if !errors.Is(err, c.err) || n < c.least || n > c.most || took > c.took {
				t.Errorf("%s: %v after %d attempts and %v", c.name, err, n, took)
			}
		})
	}
}

func TestWaitsGrowAndVary(t *testing.T) {
	firsts := map[time.Duration]bool{}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			_ = upstream.New(upstream.Options{}).Retry(t.Context(), func(context.Context) error { at = append(at, time.Now()); return failing{again: true} })
			for i, wait := 1, 200*time.Millisecond; i < len(at); i, wait = i+1, 2*wait {
				if got := at[i].Sub(at[i-1]); got < wait/2-1 || got > wait*3/2+1 {
					t.Errorf("wait %d is %v", i, got)
				}
			}
			firsts[at[1].Sub(at[0])] = true
		})
	}
	if len(firsts) < 10 {
		t.Errorf("20 calls wait for %d different times", len(firsts))
	}
}

func TestTheLastAttemptEndsWithTheBudgetAndTheFirstDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caller := upstream.New(upstream.Options{Transport: upstreamtest.Transport{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}})
		for timeout, want := range map[time.Duration]time.Duration{time.Second: upstream.RetryBudget, upstream.HandshakeTimeout: upstream.HandshakeTimeout} {
			began := time.Now()
			err := caller.Retry(t.Context(), func(ctx context.Context) error {
				_, err := caller.Once(ctx, upstream.Request{Method: "GET", URL: "http://x/", Timeout: timeout})
				return err
			})
			var failure *upstream.Error
			if took := time.Since(began); took > want || took < want/2 || !errors.As(err, &failure) || failure.Kind != upstream.Unavailable {
				t.Errorf("%v after %v; want %v", err, took, want)
			}
		}
	})
}

func TestALastingErrorIsNotHiddenByACallWhoseTimeIsUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := upstream.New(upstream.Options{}).Retry(ctx, func(context.Context) error { cancel(); return failing{} })
	if !errors.Is(err, failing{}) {
		t.Errorf("%v", err)
	}
	err = upstream.New(upstream.Options{}).Retry(ctx, func(context.Context) error { return failing{again: true} })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "failing") {
		t.Errorf("%v", err)
	}
}

func TestARequestThatCannotBeMadeSaysSoWithoutItsAddress(t *testing.T) {
	_, err := upstream.New(upstream.Options{}).Once(t.Context(), upstream.Request{Method: "GET", URL: "http://x/\x00" + token, Secrets: []upstream.Secret{upstream.NewSecret(token)}})
	var failure *upstream.Error
	if !errors.As(err, &failure) || failure.Kind != upstream.Internal || strings.Contains(err.Error(), "7oken") {
		t.Errorf("%v", err)
	}
}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for kind := upstream.Unknown; kind <= upstream.Internal; kind++ {
		seen[kind.String()] = kind.String() != ""
	}
	if len(seen) != 9 || upstream.Kind(99).String() != "kind 99" {
		t.Errorf("%v", seen)
	}
}
