package source_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/source"
)

// A secret and a token that no message of ours contains by chance.
const (
	shopSecret = "s3cr3t-of-the-shop"
	shopToken  = "t0ken-of-the-shop"
)

func shop() *eventrelayv1.Source {
	return &eventrelayv1.Source{
		Name:        "sources/shop",
		Provider:    eventrelayv1.Provider_PROVIDER_META,
		DisplayName: "Shop",
		Labels:      map[string]string{"team": "sales"},
		AppId:       "1234567890",
		AppSecrets:  []string{shopSecret},
		VerifyToken: shopToken,
	}
}

func newSet(t testing.TB, sources ...*eventrelayv1.Source) *source.Set {
	t.Helper()
	set, err := source.NewSet(sources)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func endpoint(t testing.TB, src *eventrelayv1.Source) source.Endpoint {
	t.Helper()
	e, ok := newSet(t, src).Endpoint(strings.TrimPrefix(src.GetName(), "sources/"))
	if !ok {
		t.Fatalf("no endpoint for %s", src.GetName())
	}
	return e
}

func TestSourcesComeBackWithoutSecretsAndWithTheirPath(t *testing.T) {
	want := shop()
	want.AppSecrets, want.VerifyToken, want.WebhookPath = nil, "", "/webhooks/shop"
	set := newSet(t, shop())

	got, ok := set.Get("sources/shop")
	if !ok || !proto.Equal(got, want) {
		t.Errorf("Get = %v, %v; want %v", got, ok, want)
	}
	if list := set.List(); len(list) != 1 || !proto.Equal(list[0], want) {
		t.Errorf("List = %v; want %v", list, want)
	}
	if _, ok := set.Get("shop"); ok {
		t.Error("Get finds a source by its id; its name is sources/shop")
	}
	if !set.Ready() {
		t.Error("a set is not ready")
	}
}

func TestListIsByName(t *testing.T) {
	var sources []*eventrelayv1.Source
	for _, id := range []string{"b", "a-2", "c", "a"} {
		src := shop()
		src.Name = "sources/" + id
		sources = append(sources, src)
	}
	var names []string
	for _, src := range newSet(t, sources...).List() {
		names = append(names, src.GetName())
	}
	if got, want := strings.Join(names, " "), "sources/a sources/a-2 sources/b sources/c"; got != want {
		t.Errorf("List is %s; want %s", got, want)
	}
}

func TestNobodyOutsideCanChangeASet(t *testing.T) {
	given := shop()
	set := newSet(t, given)
	given.DisplayName = "changed"
	given.AppSecrets[0] = "changed-secret"
	got, _ := set.Get("sources/shop")
	got.DisplayName = "changed"
	set.List()[0].Labels["team"] = "changed"

	again, _ := set.Get("sources/shop")
	if again.GetDisplayName() != "Shop" || again.GetLabels()["team"] != "sales" {
		t.Errorf("the set now has %v", again)
	}
	e, _ := set.Endpoint("shop")
	body := []byte("{}")
	if err := e.VerifySignature(signed("X-Hub-Signature-256", "sha256="+digest(shopSecret, body)), body); err != nil {
		t.Errorf("the secret given at first: %v", err)
	}
}

func TestDevSourcesAreValid(t *testing.T) {
	set := newSet(t, source.Dev()...)
	if e, ok := set.Endpoint("dev"); !ok || !e.VerifyToken("dev-verify-token") || !e.Handshake() {
		t.Errorf("dev: %v, %v", e, ok)
	}
	if e, ok := set.Endpoint("dev360"); !ok || e.VerifyToken("dev-verify-token") || e.Handshake() {
		t.Errorf("dev360: %v, %v", e, ok)
	}
	for _, id := range []string{"dev", "dev360"} {
		e, _ := set.Endpoint(id)
		body := []byte("{}")
		if err := e.VerifySignature(signed(e.SignatureHeader(), "sha256="+digest("dev-app-secret", body)), body); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestInvalidSourcesAreRefusedByNameFieldAndFix(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*eventrelayv1.Source)
		want   []string
	}{
		{"no secret", func(s *eventrelayv1.Source) { s.AppSecrets = nil }, []string{"sources/shop", "app_secrets", "at least one secret"}},
		{"empty secret", func(s *eventrelayv1.Source) { s.AppSecrets = []string{""} }, []string{"sources/shop", "app_secrets[0]", "8"}},
		{"short secret", func(s *eventrelayv1.Source) { s.AppSecrets = []string{shopSecret, "Zq7Zq7"} }, []string{"app_secrets[1]", "8"}},
		{"long secret", func(s *eventrelayv1.Source) { s.AppSecrets = []string{strings.Repeat(shopSecret, 100)} }, []string{"app_secrets[0]", "512"}},
		{"three secrets", func(s *eventrelayv1.Source) {
			s.AppSecrets = []string{shopSecret + "1", shopSecret + "2", shopSecret + "3"}
		}, []string{"app_secrets", "2"}},
		{"secret with a line end", func(s *eventrelayv1.Source) { s.AppSecrets = []string{shopSecret + "\n"} }, []string{"app_secrets[0]", "white space"}},
		{"no token", func(s *eventrelayv1.Source) { s.VerifyToken = "" }, []string{"sources/shop", "verify_token"}},
		{"long token", func(s *eventrelayv1.Source) { s.VerifyToken = strings.Repeat(shopToken, 100) }, []string{"verify_token", "512"}},
		{"token with a space", func(s *eventrelayv1.Source) { s.VerifyToken = " " + shopToken }, []string{"verify_token", "white space"}},
		{"no provider", func(s *eventrelayv1.Source) { s.Provider = 0 }, []string{"sources/shop", "provider", "PROVIDER_META"}},
		{"unknown provider", func(s *eventrelayv1.Source) { s.Provider = 99 }, []string{"provider"}},
		{"channel", func(s *eventrelayv1.Source) { s.Provider = eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL }, []string{"sources/shop", "headers", "at least one header"}},
		{"bare id", func(s *eventrelayv1.Source) { s.Name = "shop" }, []string{"number 1", `"shop"`, "name", "sources/{id}"}},
		{"upper case", func(s *eventrelayv1.Source) { s.Name = "sources/Shop" }, []string{"number 1", "name"}},
		{"path in the name", func(s *eventrelayv1.Source) { s.Name = "sources/../etc" }, []string{"name"}},
		{"long name", func(s *eventrelayv1.Source) { s.Name = "sources/" + strings.Repeat("a", 64) }, []string{"name"}},
		{"long label", func(s *eventrelayv1.Source) { s.Labels = map[string]string{strings.Repeat("k", 64): "v"} }, []string{"labels", "63"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := shop()
			c.change(src)
			set, err := source.NewSet([]*eventrelayv1.Source{src})
			if !errors.Is(err, source.ErrInvalid) || set != nil {
				t.Fatalf("NewSet = %v, %v; want ErrInvalid", set, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			for _, form := range []string{"%v", "%+v", "%#v"} {
				noSecret(t, fmt.Sprintf(form, err))
			}
		})
	}
}

func TestEveryProblemIsToldAtOnce(t *testing.T) {
	one, two, none := shop(), shop(), (*eventrelayv1.Source)(nil)
	one.VerifyToken = ""
	two.Name, two.AppSecrets = "sources/two", nil
	_, err := source.NewSet([]*eventrelayv1.Source{one, two, none})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"sources/shop: verify_token", "sources/two: app_secrets", "number 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestTwoSourcesOfOneNameAreRefused(t *testing.T) {
	_, err := source.NewSet([]*eventrelayv1.Source{shop(), shop()})
	if !errors.Is(err, source.ErrInvalid) || !strings.Contains(err.Error(), "sources/shop: name") {
		t.Errorf("NewSet = %v", err)
	}
}

// noSecret fails if text shows one of the secrets of these tests, or a part that would help to guess one.
func noSecret(t testing.TB, text string) {
	t.Helper()
	for _, s := range []string{"s3cr3t", "t0ken", "Zq7Zq7"} {
		if strings.Contains(text, s) {
			t.Errorf("shows a secret: %s", text)
		}
	}
}
