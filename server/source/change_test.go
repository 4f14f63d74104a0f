package source_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/source"
)

func TestAMaskChangesWhatItNamesAndNothingElse(t *testing.T) {
	base := func() *eventrelayv1.Source {
		src := shop()
		src.Labels = map[string]string{"team": "sales", "a.b": "c"}
		src.Subscriptions = &eventrelayv1.SourceSubscriptions{PublicBaseUrl: "https://a.example", Objects: []*eventrelayv1.ObjectSubscription{{Object: "page", Fields: []string{"feed"}}}}
		return src
	}
	for _, c := range []struct {
		name   string
		paths  []string
		from   *eventrelayv1.Source
		change func(*eventrelayv1.Source)
	}{
		{"a field", []string{"display_name"}, &eventrelayv1.Source{DisplayName: "New", Paused: true}, func(s *eventrelayv1.Source) { s.DisplayName = "New" }},
		{"an unset field", []string{"display_name"}, &eventrelayv1.Source{}, func(s *eventrelayv1.Source) { s.DisplayName = "" }},
		{"what is set", nil, &eventrelayv1.Source{DisplayName: "New", Paused: true}, func(s *eventrelayv1.Source) { s.DisplayName, s.Paused = "New", true }},
		{"a map", []string{"labels"}, &eventrelayv1.Source{Labels: map[string]string{"x": "y"}}, func(s *eventrelayv1.Source) { s.Labels = map[string]string{"x": "y"} }},
		{"a key", []string{"labels.x"}, &eventrelayv1.Source{Labels: map[string]string{"x": "y", "team": "no"}}, func(s *eventrelayv1.Source) { s.Labels["x"] = "y" }},
		{"a key that ends", []string{"labels.team"}, &eventrelayv1.Source{}, func(s *eventrelayv1.Source) { delete(s.GetLabels(), "team") }},
		{"a quoted key", []string{"labels.`a.b`"}, &eventrelayv1.Source{Labels: map[string]string{"a.b": "d"}}, func(s *eventrelayv1.Source) { s.Labels["a.b"] = "d" }},
		{
			"a part",
			[]string{"subscriptions.public_base_url"},
			&eventrelayv1.Source{Subscriptions: &eventrelayv1.SourceSubscriptions{PublicBaseUrl: "https://b.example"}},
			func(s *eventrelayv1.Source) { s.Subscriptions.PublicBaseUrl = "https://b.example" },
		},
		{"a part of nothing", []string{"subscriptions.objects"}, &eventrelayv1.Source{}, func(s *eventrelayv1.Source) { s.Subscriptions.Objects = nil }},
		{"the whole", []string{"subscriptions"}, &eventrelayv1.Source{}, func(s *eventrelayv1.Source) { s.Subscriptions = nil }},
		{"what is output only", []string{"name", "etag", "stats", "stats.events", "origin", "create_time.seconds", "paused"}, &eventrelayv1.Source{Paused: true}, func(s *eventrelayv1.Source) { s.Paused = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			s := p.start(t)
			if _, err := s.Create(t.Context(), "shop", base()); err != nil {
				t.Fatal(err)
			}
			c.from.Name = "sources/shop"
			got, err := s.Update(t.Context(), c.from, c.paths)
			if err != nil {
				t.Fatal(err)
			}
			want := base()
			c.change(want)
			want.AppSecrets, want.VerifyToken = nil, ""
			want.WebhookPath, want.Origin = "/webhooks/shop", eventrelayv1.SourceOrigin_SOURCE_ORIGIN_API
			want.Etag, want.CreateTime, want.UpdateTime, want.SecretUses, want.Stats = got.GetEtag(), got.GetCreateTime(), got.GetUpdateTime(), got.GetSecretUses(), got.GetStats()
			if !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !accepts(s, "shop", shopSecret) {
				t.Error("a secret that was not named has changed")
			}
		})
	}
}

func TestAMaskThatCannotBeIsRefusedByPath(t *testing.T) {
	s := newPlace(t).start(t)
	tag := create(t, s, "shop").GetEtag()
	for path, want := range map[string]string{
		"none": "none: no such field", "displayName": "displayName: no such field", "subscriptions.none": "no such field", "app_secrets.0": "app_secrets has no parts",
		"paused.x": "paused has no parts", "*": "name the fields", "": "no such field", "labels.a.b": "backticks", "s3cr3t of the shop": "a path: no such field",
		"subscriptions.objects.object": "objects has no parts", "labels.``": "backticks",
	} {
		_, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Paused: true}, []string{"paused", path})
		var wrong *source.InvalidError
		if !errors.As(err, &wrong) || len(wrong.Violations) != 1 || wrong.Violations[0].Field != "update_mask" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
		noSecret(t, fmt.Sprint(err))
	}
	if got, err := s.Get("sources/shop"); err != nil || got.GetEtag() != tag {
		t.Errorf("a refused change has changed %v, %v", got, err)
	}
	if got, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", Etag: tag}, nil); err != nil || got.GetEtag() != tag {
		t.Errorf("a change of nothing gives %v, %v", got, err)
	}
}

func TestTheUseOfASecretFollowsItThroughARotation(t *testing.T) {
	s := newPlace(t).start(t)
	create(t, s, "shop")
	began := time.Now()
	if !accepts(s, "shop", shopSecret) {
		t.Fatal("not accepted")
	}
	uses := func(src *eventrelayv1.Source) map[string]bool {
		used := map[string]bool{}
		for _, u := range src.GetSecretUses() {
			if at := u.GetLastUsedTime(); at != nil && at.AsTime().Before(began.Add(-time.Second)) {
				t.Errorf("%s was used at %v", u.GetField(), at.AsTime())
			}
			used[u.GetField()] = u.GetLastUsedTime() != nil
		}
		return used
	}
	rotated, err := s.RotateSecret(t.Context(), "sources/shop", "s3cr3t-that-is-new", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(uses(rotated)); got != "map[app_secrets[0]:false app_secrets[1]:true verify_token:false]" {
		t.Errorf("after the rotation: %s", got)
	}
	if e, _ := s.Endpoint("shop"); !e.VerifyToken(shopToken) || e.VerifyToken("x") {
		t.Error("the token is not checked")
	}
	accepts(s, "shop", "s3cr3t-that-is-new")
	again, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", VerifyToken: "t0ken-that-is-new"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(uses(again)); got != "map[app_secrets[0]:true app_secrets[1]:true verify_token:false]" {
		t.Errorf("a new token has the use of the one before: %s", got)
	}
}

func TestCountersStayWhenTheSourceChangesAndEndWithIt(t *testing.T) {
	s := newPlace(t).start(t)
	create(t, s, "shop")
	e, _ := s.Endpoint("shop")
	at := time.Now()
	e.Accepted(at)
	e.Refused("paused")
	if _, err := s.Update(t.Context(), &eventrelayv1.Source{Name: "sources/shop", DisplayName: "New"}, nil); err != nil {
		t.Fatal(err)
	}
	e.Refused("paused") // by a request that began before the change
	s.Count("shop", 3, 2)
	s.Count("none", 1, 1)
	src, err := s.Get("sources/shop")
	if err != nil {
		t.Fatal(err)
	}
	stats := src.GetStats()
	if stats.GetAcceptedNotifications() != 1 || stats.GetEvents() != 3 || stats.GetDuplicateEvents() != 2 || stats.GetRefusedNotifications()["paused"] != 2 ||
		!stats.GetLastNotificationTime().AsTime().Equal(at) || stats.GetSinceTime().AsTime().After(at) {
		t.Errorf("stats %v", stats)
	}
	if err := s.Delete(t.Context(), "sources/shop", ""); err != nil {
		t.Fatal(err)
	}
	if stats := create(t, s, "shop").GetStats(); stats.GetAcceptedNotifications() != 0 {
		t.Errorf("a new source of the name begins with %v", stats)
	}
}

func TestCredentialsAreGivenOneByOneAndNeverPrinted(t *testing.T) {
	s := newPlace(t).start(t)
	full := shop()
	full.AccessToken, full.PartnerApiKey, full.ChannelApiKey, full.PartnerId = "s3cr3t-access", "s3cr3t-partner", "s3cr3t-channel", "p1"
	if _, err := s.Create(t.Context(), "shop", full); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateSecret(t.Context(), "sources/shop", "s3cr3t-that-is-new", ""); err != nil {
		t.Fatal(err)
	}
	c, err := s.Credentials("sources/shop")
	if err != nil {
		t.Fatal(err)
	}
	if c.Source != "sources/shop" || c.AppID() != "1234567890" || c.PartnerID() != "p1" || c.AppSecret() != "s3cr3t-that-is-new" || c.VerifyToken() != shopToken ||
		c.AccessToken() != "s3cr3t-access" || c.PartnerAPIKey() != "s3cr3t-partner" || c.ChannelAPIKey() != "s3cr3t-channel" {
		t.Error("not what was set")
	}
	s.stop() // for the store itself is printed below
	holder := struct {
		Shown  source.Credentials
		hidden source.Credentials
	}{c, c}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{c, &c, holder, []source.Credentials{c}, s.Store, source.Credentials{}} {
			noSecret(t, fmt.Sprintf(verb, value))
		}
	}
	encoded, err := json.Marshal(holder) //nolint:musttag // it is the lack of tags that must not matter
	if err != nil {
		t.Fatal(err)
	}
	noSecret(t, string(encoded))
	out := &buffer{}
	slog.New(slog.NewJSONHandler(out, nil)).Info("x", "c", c, "p", &c, "h", holder)
	slog.New(slog.NewTextHandler(out, nil)).Info("x", "c", c, "p", &c, "h", holder)
	noSecret(t, out.String())
	src, err := s.Get("sources/shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range src.GetSecretUses() {
		if (u.GetLastUsedTime() == nil) != (u.GetField() == "app_secrets[1]") {
			t.Errorf("%s was used at %v", u.GetField(), u.GetLastUsedTime())
		}
	}
	if _, err := s.Credentials("sources/none"); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("of no source: %v", err)
	}
	if zero := (source.Credentials{}); zero.AppSecret()+zero.AccessToken() != "" {
		t.Error("the zero Credentials have some")
	}
}

func TestHeadersThatProveNothingAreRefused(t *testing.T) {
	for name, headers := range map[string]map[string]string{
		"public":      {"content-TYPE": "s3cr3t-value"},
		"kept":        {"X-Hub-Signature-256": "s3cr3t-value"},
		"twice":       {"X-Relay": "s3cr3t-value", "x-relay": "s3cr3t-other"},
		"padded":      {"X-Relay": "s3cr3t-value "},
		"line end":    {"X-Relay": "s3cr3t-value\r\nX: y"},
		"beyond":      {"X-Relay": "s3cr3t-välue"},
		"short":       {"X-Relay": "s3cr3t"},
		"not a token": {"X Relay s3cr3t": "s3cr3t-value"},
	} {
		src := &eventrelayv1.Source{Name: "sources/c", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL, Headers: headers}
		_, err := source.NewSet([]*eventrelayv1.Source{src})
		if !errors.Is(err, source.ErrInvalid) || !strings.Contains(err.Error(), "headers") {
			t.Errorf("%s: %v", name, err)
		}
		noSecret(t, fmt.Sprint(err))
	}
	good := &eventrelayv1.Source{Name: "sources/c", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL, Headers: map[string]string{"authorization": "Basic s3cr3t=="}}
	e := endpoint(t, good)
	if err := e.VerifySignature(http.Header{"Authorization": {"Basic s3cr3t=="}}, nil); err != nil {
		t.Error(err)
	}
	for want, header := range map[error]http.Header{
		source.ErrSignatureMissing: {"X-Hub-Signature-256": {"sha256=" + digest("", nil)}},
		source.ErrSignatureWrong:   {"Authorization": {"Basic s3cr3t==", "Basic s3cr3t=="}},
	} {
		if err := e.VerifySignature(header, nil); !errors.Is(err, want) {
			t.Errorf("VerifySignature = %v, want %v", err, want)
		}
		if err := e.CheckSignatureHeader(header); !errors.Is(err, want) {
			t.Errorf("CheckSignatureHeader = %v, want %v", err, want)
		}
	}
}
