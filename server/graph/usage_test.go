package graph_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventrelay/server/graph"
	"eventrelay/server/graph/graphtest"
	"eventrelay/server/upstream"
)

const (
	appUsage      = "X-App-Usage"
	pageUsage     = "X-Page-Usage"
	businessUsage = "X-Business-Use-Case-Usage"
)

// refusesFor expects that calls are refused without being made, for that long.
func (f *fixture) refusesFor(call func() error, want time.Duration) {
	f.t.Helper()
	before := len(f.api.Requests())
	got := f.refused(call())
	if got.Kind != upstream.ResourceExhausted || got.RetryAfter != want || got.HTTPStatus != 0 || !strings.Contains(got.Message, time.Now().Add(want).UTC().Format(time.RFC3339)) {
		f.t.Errorf("%+v; want %v", got, want)
	}
	if n := len(f.api.Requests()); n != before {
		f.t.Errorf("%d calls were made", n-before)
	}
	time.Sleep(want - time.Second)
	f.refused(call())
	if n := len(f.api.Requests()); n != before {
		f.t.Errorf("%d calls were made a second early", n-before)
	}
	time.Sleep(time.Second)
	f.works(call())
	f.works(call())
}

func TestAReachedLimitIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		want                time.Duration
	}{
		{"the app's calls", appUsage, `{"call_count":100,"total_cputime":15,"total_time":12}`, 5 * time.Minute},
		{"the app's time", appUsage, `{"call_count":16,"total_cputime":15,"total_time":112.5}`, 5 * time.Minute},
		{"the business", businessUsage, `{"77":[{"type":"whatsapp","call_count":3,"total_cputime":1,"total_time":1,"estimated_time_to_regain_access":19}]}`, 19 * time.Minute},
		{"the business' calls", businessUsage, `{"76":[],"77":[{"type":"x","call_count":0},{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":0}]}`, 5 * time.Minute},
		{"one of two, the longer", businessUsage, `{"77":[{"type":"whatsapp","estimated_time_to_regain_access":2},{"type":"y","estimated_time_to_regain_access":3}]}`, 3 * time.Minute},
		{"more than anyone waits", businessUsage, `{"77":[{"type":"whatsapp","estimated_time_to_regain_access":1e300}]}`, 24 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := bubble(t)
				call := func() error { return f.client.UnsubscribeWABA(t.Context(), user(), waba) }
				f.api.SetHeader(c.header, c.value)
				f.works(call()) // it has succeeded: the next is the one too many
				f.api.SetHeader(c.header, "")
				f.refusesFor(call, c.want)
			})
		})
	}
}

func TestAPageHasALimitOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		f.api.AddPage("2")
		on := func(id string) error { return f.client.Unsubscribe(t.Context(), ofPage(), graph.Page(id)) }
		f.api.SetHeader(pageUsage, `{"call_count":100}`)
		f.works(on(pageID))
		f.api.SetHeader(pageUsage, "")
		f.works(on("2"))
		f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
		f.refusesFor(func() error { return on(pageID) }, 5*time.Minute)
	})
}

func TestTheLimitOfOneAppIsNotThatOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		other := graph.Credentials{AccessToken: upstream.NewSecret("token-of-another-app")}
		f.api.SetHeader(appUsage, `{"call_count":100}`)
		f.works(f.client.UnsubscribeWABA(t.Context(), other, waba))
		f.api.SetHeader(appUsage, "")
		f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
		got := f.refused(f.client.UnsubscribeWABA(t.Context(), other, waba))
		if got.Kind != upstream.ResourceExhausted || strings.Contains(got.Message, "token") {
			t.Errorf("%+v", got)
		}
		// All tokens of an app share its limit.
		f.api.SetHeader(appUsage, `{"call_count":100}`)
		f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
		f.refused(f.client.Unsubscribe(t.Context(), ofPage(), graph.Page(pageID)))
	})
}

func TestTheLimitOfABusinessIsThatOfItsArea(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		f.api.SetHeader(businessUsage, `{"77":[{"type":"whatsapp","estimated_time_to_regain_access":5}]}`)
		f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
		f.api.SetHeader(businessUsage, "")
		f.works(f.client.Unsubscribe(t.Context(), ofPage(), graph.Page(pageID)))
		_, err := f.client.GetPhoneOverride(t.Context(), user(), phoneNumber)
		f.refused(err)
	})
}

func TestARefusalForWantOfQuotaSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bubble(t)
		f.api.SetHeader(businessUsage, `{"77":[{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":7}]}`)
		f.api.Fail(graphtest.Failed(400, 80008, 0, true, "There have been too many calls to this WhatsApp Business account."))
		got := f.refused(f.client.UnsubscribeWABA(t.Context(), user(), waba))
		if got.Kind != upstream.ResourceExhausted || got.Code != 80008 || got.RetryAfter != 7*time.Minute {
			t.Errorf("%+v", got)
		}
	})
}

func TestAListStopsWhereTheLimitIsReached(t *testing.T) {
	f := start(t, graphtest.Options{PageSize: 1, EmptyPages: true})
	f.works(f.client.ClearWABAOverride(t.Context(), user(), waba))
	f.api.SetHeader(appUsage, `{"call_count":100}`)
	f.api.Forget()
	if apps, err := f.client.ListWABASubscribedApps(t.Context(), user(), waba); f.refused(err).Kind != upstream.ResourceExhausted || apps != nil || len(f.api.Requests()) != 1 {
		t.Errorf("%v, %v", apps, err)
	}
}

func TestUsageBelowTheLimitAndUnreadableUsageAreNoReasonToWait(t *testing.T) {
	f := start(t, graphtest.Options{})
	for _, value := range []string{`{"call_count":99.9,"total_cputime":0}`, `{}`, `null`, `[]`, `{`, `{"call_count":"100"}`, `{"call_count":-1}`, `{"77":[{"type":"whatsapp","estimated_time_to_regain_access":-3}]}`, `{"77":{}}`} {
		for _, header := range []string{appUsage, pageUsage, businessUsage} {
			f.api.SetHeader(header, value)
		}
		f.works(f.client.UnsubscribeWABA(t.Context(), user(), waba))
	}
	if log := f.log.String(); !strings.Contains(log, "usage header") || !strings.Contains(log, businessUsage) {
		t.Errorf("unreadable headers are not told of: %s", log)
	}
}
