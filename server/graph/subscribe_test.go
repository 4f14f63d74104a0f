package graph_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
)

func TestSubscribingLosesNoOverride(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	ctx, mine := t.Context(), back.at("/webhooks/shop")
	f.works(f.client.SetWABAOverride(ctx, user(), waba, mine, verifyToken))
	f.api.Forget()

	for name, cred := range map[string]graph.Credentials{"ours": user(), "perhaps ours": {AccessToken: upstream.NewSecret(userToken)}} {
		err := f.client.SubscribeWABA(ctx, cred, waba)
		f.clean(err)
		var lost *graph.OverrideError
		if !errors.Is(err, graph.ErrOverrideWouldBeLost) || !errors.As(err, &lost) || lost.URI != mine {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range f.api.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("a %s was sent", r.Method)
		}
	}
	want := []graph.SubscribedApp{{ID: appID, Name: "Shop", Link: "https://www.facebook.com/games/?app_id=" + appID, OverrideCallbackURI: mine}}
	if got, err := f.client.ListWABASubscribedApps(ctx, user(), waba); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}

	f.works(f.client.ClearWABAOverride(ctx, user(), waba))
	f.works(f.client.SubscribeWABA(ctx, user(), waba))
	want[0].OverrideCallbackURI = ""
	if got, err := f.client.ListWABASubscribedApps(ctx, user(), waba); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	f.works(f.client.UnsubscribeWABA(ctx, user(), waba))
	if got, err := f.client.ListWABASubscribedApps(ctx, user(), waba); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheOverrideOfAnotherAppIsNotInTheWay(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	other := graph.Credentials{AppID: "99", AccessToken: upstream.NewSecret("token-of-another-app")}
	f.works(f.client.SetWABAOverride(t.Context(), other, waba, back.at("/other"), verifyToken))
	f.works(f.client.SubscribeWABA(t.Context(), user(), waba))
	if err := f.client.SubscribeWABA(t.Context(), graph.Credentials{AccessToken: upstream.NewSecret(userToken)}, waba); !errors.Is(err, graph.ErrOverrideWouldBeLost) {
		t.Errorf("without an app id: %v", err)
	}
}

func TestASubscriptionThatCannotLookDoesNotPost(t *testing.T) {
	f := start(t, graphtest.Options{})
	f.api.Fail(graphtest.Failed(400, 10, 0, false, "no"))
	if got := f.refused(f.client.SubscribeWABA(t.Context(), user(), waba)); got.Code != 10 || len(f.api.Requests()) != 1 {
		t.Errorf("%+v after %d requests", got, len(f.api.Requests()))
	}
}

func TestOverridesAreSetAndClearedByNumber(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	ctx := t.Context()
	f.works(f.client.CreateAppSubscription(ctx, user(), "whatsapp_business_account", back.at("/app"), verifyToken, []string{"messages"}, true))
	f.works(f.client.SetWABAOverride(ctx, user(), waba, back.at("/waba"), verifyToken))
	f.works(f.client.SetPhoneOverride(ctx, user(), phoneNumber, back.at("/number"), verifyToken))
	want := graph.PhoneOverride{PhoneNumber: back.at("/number"), WABA: back.at("/waba"), Application: back.at("/app")}
	if got, err := f.client.GetPhoneOverride(ctx, user(), phoneNumber); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	f.works(f.client.ClearPhoneOverride(ctx, user(), phoneNumber))
	want.PhoneNumber = ""
	if got, err := f.client.GetPhoneOverride(ctx, user(), phoneNumber); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if n := back.handshakes(); n != 3 {
		t.Errorf("%d handshakes", n)
	}
}

func TestAppSubscriptionsAreReplacedAndAddedTo(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	ctx := t.Context()
	f.works(f.client.CreateAppSubscription(ctx, user(), "page", back.at("/one"), verifyToken, []string{"feed", "name"}, true))
	f.works(f.client.CreateAppSubscription(ctx, user(), "page", back.at("/two"), verifyToken, []string{"messages"}, true))
	f.works(f.client.CreateAppSubscription(ctx, user(), "user", back.at("/one"), verifyToken, []string{"email"}, false))
	want := []graph.AppSubscription{
		{Object: "page", CallbackURL: back.at("/two"), Active: true, Fields: []graph.AppField{{Name: "feed", Version: "v24.0"}, {Name: "name"}, {Name: "messages", Version: "v24.0"}}},
		{Object: "user", CallbackURL: back.at("/one"), Active: true, Fields: []graph.AppField{{Name: "email", Version: "v24.0"}}},
	}
	got, err := f.client.ListAppSubscriptions(ctx, user())
	f.works(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f.works(f.client.DeleteAppSubscription(ctx, user(), "page", []string{"feed", "name"}))
	f.works(f.client.DeleteAppSubscription(ctx, user(), "user", nil))
	want = []graph.AppSubscription{{Object: "page", CallbackURL: back.at("/two"), Active: true, Fields: []graph.AppField{{Name: "messages", Version: "v24.0"}}}}
	got, err = f.client.ListAppSubscriptions(ctx, user())
	f.works(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPagesAndInstagramAccountsAreSubscribed(t *testing.T) {
	f := start(t, graphtest.Options{})
	for account, cred := range map[graph.Account]graph.Credentials{graph.Page(pageID): ofPage(), graph.InstagramAccount(igID): ofInstagram()} {
		f.works(f.client.Subscribe(t.Context(), cred, account, []string{"feed", "messages"}))
		want := []graph.SubscribedApp{{ID: appID, Name: "Shop", Link: "https://www.facebook.com/games/?app_id=" + appID, Fields: []string{"feed", "messages"}}}
		if got, err := f.client.ListSubscribedApps(t.Context(), cred, account); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %+v, %v", account, got, err)
		}
		f.works(f.client.Unsubscribe(t.Context(), cred, account))
		if got, err := f.client.ListSubscribedApps(t.Context(), cred, account); err != nil || len(got) != 0 {
			t.Errorf("%s: %+v, %v", account, got, err)
		}
	}
}

func TestACallbackThatDoesNotAnswerIsTold(t *testing.T) {
	back := newCallback(t)
	f := start(t, graphtest.Options{})
	gone := newCallback(t)
	gone.Close()
	for name, uri := range map[string]string{"which expects another token": back.at("/"), "which is away": gone.at("/?x=1")} {
		token := verifyToken
		if strings.Contains(name, "another") {
			token += "x"
		}
		for _, err := range []error{
			f.client.SetWABAOverride(t.Context(), user(), waba, uri, token),
			f.client.SetPhoneOverride(t.Context(), user(), phoneNumber, uri, token),
			f.client.CreateAppSubscription(t.Context(), user(), "page", uri, token, []string{"feed"}, false),
		} {
			if got := f.refused(err); got.Kind != upstream.FailedPrecondition || got.Code != 2200 {
				t.Errorf("a callback %s: %+v", name, got)
			}
		}
	}
}
