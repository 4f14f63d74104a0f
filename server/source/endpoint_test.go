package source_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/source"
)

// digest is the lower-case hexadecimal HMAC-SHA256 that a provider sends.
func digest(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func signed(name string, values ...string) http.Header {
	h := http.Header{}
	for _, v := range values {
		h.Add(name, v)
	}
	return h
}

func withSecrets(provider eventrelayv1.Provider, secrets ...string) *eventrelayv1.Source {
	src := shop()
	src.Provider, src.AppSecrets = provider, secrets
	return src
}

const (
	meta       = eventrelayv1.Provider_PROVIDER_META
	partner360 = eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER
)

// Digests that were made elsewhere, under the key test_app_secret. The last two bodies are one JSON value, escaped as Meta sends it
// and decoded: only the bytes count.
func TestPublishedVectorsVerify(t *testing.T) {
	e := endpoint(t, withSecrets(meta, "test_app_secret"))
	for _, v := range []struct{ body, digest string }{
		{`{"object":"whatsapp_business_account","entry":[]}`, "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"},
		{`{"object": "whatsapp_business_account", "entry": []}`, "56cbbaf4961c6cfdae48b7f116c047e5eb513d2c931baae63a2bc1afd26f803a"},
		{`{"object":"page","entry":[{"id":"1","time":1,"changes":[{"field":"feed","value":{"message":"\u00e4\u00f6\u00e5 \/ \u003C"}}]}]}`, "5c0cbc587309789a7ab81494b81c4a318845004b252090061e1bc37a63395368"},
		{`{"object":"page","entry":[{"id":"1","time":1,"changes":[{"field":"feed","value":{"message":"äöå / <"}}]}]}`, "a03bd5953a041250207036d83077c3b8923cfe0e18e843d4908fceb2d1b650a4"},
	} {
		if err := e.VerifySignature(signed("X-Hub-Signature-256", "sha256="+v.digest), []byte(v.body)); err != nil {
			t.Errorf("%s: %v", v.body, err)
		}
		if err := e.VerifySignature(signed("X-Hub-Signature-256", "sha256="+v.digest), []byte(v.body+" ")); !errors.Is(err, source.ErrSignatureWrong) {
			t.Errorf("%s and a space: %v", v.body, err)
		}
	}
}

func TestSignaturesAreToldApart(t *testing.T) {
	const secret, old = "the-new-secret", "the-old-secret"
	body := []byte(`{"object":"page"}`)
	good, upper := digest(secret, body), strings.ToUpper(digest(secret, body))
	hub, d360 := "X-Hub-Signature-256", "X-360dialog-Signature"
	for _, c := range []struct {
		name     string
		provider eventrelayv1.Provider
		header   http.Header
		want     error
	}{
		{"good", meta, signed(hub, "sha256="+good), nil},
		{"upper case", meta, signed(hub, "sha256="+upper), nil},
		{"the secret that is rotated out", meta, signed(hub, "sha256="+digest(old, body)), nil},
		{"none", meta, http.Header{}, source.ErrSignatureMissing},
		{"nil headers", meta, nil, source.ErrSignatureMissing},
		{"empty", meta, signed(hub, ""), source.ErrSignatureMissing},
		{"sha1 alone", meta, signed("X-Hub-Signature", "sha1="+good[:40]), source.ErrSignatureMissing},
		{"sha1 in its place", meta, signed(hub, "sha1="+good[:40]), source.ErrSignatureMalformed},
		{"the other provider's header", meta, signed(d360, good), source.ErrSignatureMissing},
		{"without prefix", meta, signed(hub, good), source.ErrSignatureMalformed},
		{"prefix in upper case", meta, signed(hub, "SHA256="+good), source.ErrSignatureMalformed},
		{"prefix twice", meta, signed(hub, "sha256=sha256="+good), source.ErrSignatureMalformed},
		{"prefix alone", meta, signed(hub, "sha256="), source.ErrSignatureMalformed},
		{"short", meta, signed(hub, "sha256="+good[:62]), source.ErrSignatureMalformed},
		{"long", meta, signed(hub, "sha256="+good+"00"), source.ErrSignatureMalformed},
		{"not hexadecimal", meta, signed(hub, "sha256="+good[:63]+"g"), source.ErrSignatureMalformed},
		{"base64", meta, signed(hub, "sha256=c2hhMjU2c2hhMjU2c2hhMjU2c2hhMjU2c2hhMjU2c2g="), source.ErrSignatureMalformed},
		{"twice the same", meta, signed(hub, "sha256="+good, "sha256="+good), source.ErrSignatureMalformed},
		{"a good one and a bad one", meta, signed(hub, "sha256="+good, "sha256="+digest("x", body)), source.ErrSignatureMalformed},
		{"joined by a comma", meta, signed(hub, "sha256="+good+", sha256="+good), source.ErrSignatureMalformed},
		{"another secret", meta, signed(hub, "sha256="+digest("another-secret", body)), source.ErrSignatureWrong},
		{"the empty secret", meta, signed(hub, "sha256="+digest("", body)), source.ErrSignatureWrong},
		{"another body", meta, signed(hub, "sha256="+digest(secret, []byte("{}"))), source.ErrSignatureWrong},
		{"360dialog, bare", partner360, signed(d360, good), nil},
		{"360dialog, prefixed", partner360, signed(d360, "sha256="+good), nil},
		{"360dialog, upper case", partner360, signed(d360, upper), nil},
		{"360dialog, Meta's header", partner360, signed(hub, "sha256="+good), source.ErrSignatureMissing},
		{"360dialog, sha1", partner360, signed(d360, "sha1="+good[:40]), source.ErrSignatureMalformed},
		{"360dialog, twice", partner360, signed(d360, good, good), source.ErrSignatureMalformed},
		{"360dialog, wrong", partner360, signed(d360, digest("another-secret", body)), source.ErrSignatureWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := endpoint(t, withSecrets(c.provider, secret, old))
			if err := e.VerifySignature(c.header, body); !errors.Is(err, c.want) {
				t.Errorf("VerifySignature = %v; want %v", err, c.want)
			}
			early := c.want
			if errors.Is(early, source.ErrSignatureWrong) {
				early = nil // Only the body can tell.
			}
			if err := e.CheckSignatureHeader(c.header); !errors.Is(err, early) {
				t.Errorf("CheckSignatureHeader = %v; want %v", err, early)
			}
		})
	}
}

func TestTheZeroEndpointAcceptsNothing(t *testing.T) {
	body := []byte("{}")
	header := signed("X-Hub-Signature-256", "sha256="+digest("", body))
	for _, e := range []source.Endpoint{{}, {ID: "shop", Provider: meta}, {ID: "shop", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL}} {
		if err := e.VerifySignature(header, body); err == nil {
			t.Errorf("%v accepts a signature", e)
		}
		if e.VerifyToken("") || e.VerifyToken("x") {
			t.Errorf("%v accepts a token", e)
		}
	}
}

func TestOnlyTheConfiguredTokenVerifies(t *testing.T) {
	with := endpoint(t, shop())
	if !with.VerifyToken(shopToken) {
		t.Error("the token is refused")
	}
	for _, wrong := range []string{"", shopToken[:5], shopToken + "x", strings.ToUpper(shopToken), shopToken + "\x00"} {
		if with.VerifyToken(wrong) {
			t.Errorf("%q is accepted", wrong)
		}
	}
	unset := shop()
	unset.Provider, unset.VerifyToken = partner360, ""
	if without := endpoint(t, unset); without.VerifyToken("") || without.VerifyToken("x") {
		t.Error("a source without a token accepts one")
	}
}

func TestNoWayOfPrintingShowsASecret(t *testing.T) {
	set := newSet(t, shop())
	e, _ := set.Endpoint("shop")
	holder := struct {
		Shown  source.Endpoint
		hidden source.Endpoint // fmt may not call the methods of this one
		set    *source.Set
		list   []source.Endpoint
	}{e, e, set, []source.Endpoint{e}}

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		for _, value := range []any{e, &e, holder, &holder, set, *set, []source.Endpoint{e}, map[string]source.Endpoint{"shop": e}, set.List()} {
			text := fmt.Sprintf(verb, value)
			noSecret(t, text)
			// Nor in the forms that a dump of bytes takes.
			for _, s := range []string{shopSecret, shopToken} {
				for _, form := range []string{"%x", "%X", "% x", "%d", "%v", "%#v"} {
					if dump := strings.Trim(fmt.Sprintf(form, []byte(s)), "[]{}"); strings.Contains(text, dump) {
						t.Errorf("%s of %T shows a secret as bytes: %s", verb, value, text)
					}
				}
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		if got := fmt.Sprintf(verb, e); got != "endpoint shop (PROVIDER_META)" || got != e.String() || got != e.GoString() {
			t.Errorf("%s shows an endpoint as %s", verb, got)
		}
	}

	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		logger := slog.New(handler)
		logger.Info("x", "endpoint", e, "pointer", &e, "holder", holder, "set", set, "source", set.List()[0])
	}
	noSecret(t, out.String())
	if !strings.Contains(out.String(), "endpoint.id=shop") {
		t.Errorf("a log record does not name the endpoint: %s", out.String())
	}
	encoded, err := json.Marshal(holder) //nolint:musttag // it is the lack of tags that must not matter
	if err != nil {
		t.Fatal(err)
	}
	noSecret(t, string(encoded))
}

// The work done for a signature must not depend on which secret it matches, nor on whether it matches one.
func TestEverySecretIsAlwaysTried(t *testing.T) {
	body := []byte("{}")
	e := endpoint(t, withSecrets(meta, "first-secret", "second-secret"))
	allocations := func(secret string) float64 {
		header := signed("X-Hub-Signature-256", "sha256="+digest(secret, body))
		return testing.AllocsPerRun(100, func() { _ = e.VerifySignature(header, body) })
	}
	first, second, none := allocations("first-secret"), allocations("second-secret"), allocations("no-secret")
	if first != second || second != none {
		t.Errorf("allocations for a match with the first, the second, none: %v, %v, %v", first, second, none)
	}
	if first == 0 {
		t.Error("allocations are not counted, so this test says nothing")
	}
}

// What a comparison takes cannot be measured reliably on a busy machine, so its form is held instead: the functions that
// touch a secret have no comparison of it but subtle's, no branch, and one way out.
func TestComparisonsOfSecretsAreConstantTimeByForm(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "endpoint.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	calls, returns := map[string]int{}, map[string]int{}
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Name.Name != "signedUnder" && function.Name.Name != "tokenIs" && function.Name.Name != "headersAre" {
			continue
		}
		ast.Inspect(function.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				// Inside the function that is called with what a sender says.
				ast.Inspect(n.Body, func(inner ast.Node) bool {
					switch inner.(type) {
					case *ast.BranchStmt, *ast.IfStmt, *ast.SwitchStmt:
						t.Errorf("%s: what it does depends on what was said", function.Name.Name)
					case *ast.ReturnStmt:
						returns[function.Name.Name]++
					}
					return true
				})
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok {
					calls[fmt.Sprintf("%s.%s", f.X, f.Sel)]++
				}
			}
			return true
		})
	}
	if calls["subtle.ConstantTimeCompare"] != 3 {
		t.Errorf("not all compare in constant time: %v", calls)
	}
	if returns["signedUnder"] != 1 || returns["tokenIs"] != 1 || returns["headersAre"] != 1 {
		t.Errorf("there is not one way out of each: %v", returns)
	}
	for _, leaky := range []string{"bytes.Equal", "bytes.Compare", "strings.EqualFold", "slices.Equal", "strings.Compare"} {
		if calls[leaky] > 0 {
			t.Errorf("a secret is compared with %s", leaky)
		}
	}
}

// Whatever the header says, it is accepted if and only if it is the one digest, in the one form that the provider uses.
func FuzzSignatureHeader(f *testing.F) {
	const secret = "fuzzed-secret"
	body := []byte(`{"object":"page","entry":[]}`)
	good := digest(secret, body)
	for _, seed := range []string{good, strings.ToUpper(good), "sha256=" + good, "sha256=", "", "sha256=" + good + "0", "sha1=" + good[:40], "sha256=" + good[:63] + "g", "sha256=" + good + ",sha256=" + good} {
		f.Add(seed, seed, false, false)
		f.Add(seed, seed, true, true)
	}
	f.Add("sha256="+good, "", true, false)
	endpoints := map[bool]source.Endpoint{
		false: endpoint(f, withSecrets(meta, secret)),
		true:  endpoint(f, withSecrets(partner360, secret)),
	}
	f.Fuzz(func(t *testing.T, value, second string, twice, is360 bool) {
		e := endpoints[is360]
		header := signed(e.SignatureHeader(), value)
		if twice {
			header.Add(e.SignatureHeader(), second)
		}
		rest, prefixed := strings.CutPrefix(value, "sha256=")
		want := !twice && strings.ToLower(rest) == good && len(rest) == len(good) && (prefixed || is360)

		err := e.VerifySignature(header, body)
		if (err == nil) != want {
			t.Fatalf("VerifySignature(%q) = %v; want accepted = %v", header, err, want)
		}
		if err != nil && !errors.Is(err, source.ErrSignatureMissing) && !errors.Is(err, source.ErrSignatureMalformed) && !errors.Is(err, source.ErrSignatureWrong) {
			t.Fatalf("VerifySignature(%q) = %v, which is none of the three", header, err)
		}
		if early := e.CheckSignatureHeader(header); (early == nil) != (err == nil || errors.Is(err, source.ErrSignatureWrong)) {
			t.Fatalf("CheckSignatureHeader(%q) = %v, VerifySignature %v", header, early, err)
		}
	})
}
