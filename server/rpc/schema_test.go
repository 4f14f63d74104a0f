package rpc

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/translate"
)

// appendUnknown appends an event that tells paths as unknown.
func (r *relay) appendUnknown(paths ...string) {
	r.t.Helper()
	r.n++
	received := began.Add(time.Duration(r.n) * time.Second)
	event := &eventrelayv1.Event{
		Id: id(r.n), Type: "meta.whatsapp_business_account.messages.message", ReceivedAt: timestamppb.New(received), UnknownFields: paths,
	}
	data, err := proto.Marshal(event)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.log.Append(r.t.Context(), []eventlog.Record{{
		ID: event.GetId(), Source: "shop", Type: event.GetType(), OrderingKey: "k", Time: received, Origin: eventlog.Origin{Journal: "j", Record: uint64(r.n)}, Data: data,
	}}); err != nil {
		r.t.Fatal(err)
	}
}

// drift lists with a request until everything appended is counted.
func (r *relay) drift(req *eventrelayv1.ListDriftRequest) *eventrelayv1.ListDriftResponse {
	r.t.Helper()
	for {
		resp, err := r.schema.ListDrift(r.t.Context(), req)
		if err != nil {
			r.t.Fatal(err)
		}
		if resp.GetCursor() == cursor(r.log.ID(), uint64(r.n)) {
			return resp
		}
		time.Sleep(time.Millisecond)
	}
}

func TestDriftIsListedPageByPage(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.appendUnknown("value.b", "value.a", "value.c=word")
	r.appendUnknown("value.a")
	var paths []string
	req := &eventrelayv1.ListDriftRequest{PageSize: 1}
	for {
		resp := r.drift(req)
		if len(resp.GetDrift()) != 1 {
			t.Fatalf("a page of one has %d", len(resp.GetDrift()))
		}
		entry := resp.GetDrift()[0]
		paths = append(paths, entry.GetPath())
		if entry.GetPath() == "value.a" && (entry.GetCount() != 2 || entry.GetSampleEventId() != id(2)) {
			t.Errorf("value.a is %v", entry)
		}
		if resp.GetNextPageToken() == "" {
			break
		}
		req.PageToken = resp.GetNextPageToken()
	}
	if want := []string{"value.a", "value.b", "value.c"}; !slices.Equal(paths, want) {
		t.Errorf("paged through %v, want %v", paths, want)
	}
	fresh := r.drift(&eventrelayv1.ListDriftRequest{SeenAfter: timestamppb.New(began.Add(time.Second))})
	if len(fresh.GetDrift()) != 1 || fresh.GetDrift()[0].GetPath() != "value.a" {
		t.Errorf("seen after the first event: %v, want value.a alone", fresh.GetDrift())
	}
}

func TestAPageTokenOfDriftMustBeOneOfOurs(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	for _, token := range []string{"!", "YQ", "YQBiAGMAeA"} { // no base64, one part, no kind
		_, err := r.schema.ListDrift(t.Context(), &eventrelayv1.ListDriftRequest{PageToken: token})
		wantReason(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	}
	_, err := r.schema.ListDrift(t.Context(), &eventrelayv1.ListDriftRequest{PageSize: -1})
	wantReason(t, err, codes.InvalidArgument, "INVALID_REQUEST")
}

func TestEveryEventTypeIsListedWithItsPayload(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	all, err := r.schema.ListEventTypes(t.Context(), &eventrelayv1.ListEventTypesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, et := range all.GetEventTypes() {
		types = append(types, et.GetType())
		if et.GetType() == "meta.whatsapp_business_account.*.status" && (et.GetPayloadField() != "status" || et.GetPayloadMessage() != "whatsapp.webhooks.v1.Status") {
			t.Errorf("status is %v", et)
		}
	}
	if len(types) != len(translate.Types()) || !slices.IsSorted(types) || !slices.Contains(types, "dialog360.channel_live") {
		t.Errorf("listed %v", types)
	}
	var paged []string
	req := &eventrelayv1.ListEventTypesRequest{PageSize: 10}
	for {
		page, err := r.schema.ListEventTypes(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, et := range page.GetEventTypes() {
			paged = append(paged, et.GetType())
		}
		if page.GetNextPageToken() == "" {
			break
		}
		req.PageToken = page.GetNextPageToken()
	}
	if !slices.Equal(paged, types) {
		t.Errorf("paged through %v", paged)
	}
	_, err = r.schema.ListEventTypes(t.Context(), &eventrelayv1.ListEventTypesRequest{PageToken: "!"})
	wantReason(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}
