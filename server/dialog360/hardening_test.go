package dialog360_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"eventrelay/server/dialog360"
	"eventrelay/server/dialog360/dialog360test"
	"eventrelay/server/upstream/upstreamtest"
)

// What whoever answers in 360dialog's place, or reads what is printed, is denied.

func TestNoOperationLeaksWhatTheProviderRepeats(t *testing.T) {
	all := map[string][]string{"GetPartnerWebhook": {partnerKey}, "SetPartnerWebhook": {partnerKey}, "GetChannelWebhook": {channelKey}, "SetChannelWebhook": {channelKey, headerValue}, "SetWABAWebhook": {channelKey, headerValue}}
	for name, sent := range all {
		said, err := json.Marshal(strings.Join(sent, " and ") + " or " + sent[0][:12] + "...")
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{
			fmt.Sprintf(`{"meta":{"success":false,"http_code":400,"developer_message":%[1]s,"details":[%[1]s,{"x":%[1]s}],"error_data":{"code":%[1]s,"message":%[1]s}}}`, said),
			fmt.Sprintf(`{"error":%[1]s,"error_description":%[1]s}`, said), fmt.Sprintf(`{"error":{"message":%[1]s,"code":%[1]s}}`, said), fmt.Sprintf(`{"message":%s}`, said),
			strings.Trim(string(said), `"`),
		} {
			for _, status := range []int{400, 500, 429} {
				synctest.Test(t, func(t *testing.T) {
					f := start(t)
					f.api.FailTimes(10, upstreamtest.Failure{Status: status, Body: body, Header: http.Header{"Content-Type": {string(said)}}})
					if got := f.refused(operations(f.client)[name](t.Context())); !strings.Contains(got.Message, "[secret]") {
						t.Errorf("%s: %+v", name, got)
					}
				})
			}
		}
		f := start(t)
		f.api.Fail(upstreamtest.Failure{Status: 200, Body: "<", Header: http.Header{"Content-Type": {string(said)}}})
		f.refused(operations(f.client)[name](t.Context()))
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	f := start(t)
	f.api.FailTimes(5, upstreamtest.Failure{Status: 307, Header: http.Header{"Location": {"https://elsewhere.example/" + channelKey}}})
	if got := f.refused(f.client.SetChannelWebhook(t.Context(), key(), webhook())); got.HTTPStatus != 307 || len(f.api.Requests()) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAnAnswerThatIsCutShortIsAskedForAgain(t *testing.T) {
	api := dialog360test.NewServer()
	t.Cleanup(api.Close)
	api.AddChannel(channelKey, "waba")
	f := start(t)
	f.connect(dialog360.Options{WABAURL: api.URL})
	api.Fail(upstreamtest.Failure{Status: 200, Body: `{"url":"https://x`, Cut: true})
	if got, err := f.client.GetChannelWebhook(t.Context(), key()); err != nil || got.URL != "" || len(api.Requests()) != 2 {
		t.Errorf("%v, %v after %d requests", got, err, len(api.Requests()))
	}
}
