package rpc

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

func TestListEventsPagesBothWaysAndFilters(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 700)...)
	list := func(req *eventrelayv1.ListEventsRequest) (texts []string, pages int) {
		for {
			resp, err := r.events.ListEvents(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			if size := int(req.GetPageSize()); len(resp.GetEvents()) > size {
				t.Fatalf("page of %d, want at most %d", len(resp.GetEvents()), size)
			}
			texts = append(texts, bodies(resp.GetEvents())...)
			if resp.GetNextPageToken() == "" {
				return texts, pages
			}
			req.PageToken = resp.GetNextPageToken()
		}
	}
	all := numbers(1, 700)
	if got, pages := list(&eventrelayv1.ListEventsRequest{PageSize: 300}); !slices.Equal(got, all) || pages != 3 {
		t.Errorf("ascending: %d events in %d pages", len(got), pages)
	}
	slices.Reverse(all)
	if got, _ := list(&eventrelayv1.ListEventsRequest{PageSize: 300, OrderBy: "sequence desc"}); !slices.Equal(got, all) {
		t.Errorf("descending: %d events: %.100v", len(got), got)
	}
	filtered := &eventrelayv1.ListEventsRequest{PageSize: 2, Filter: `event.message.text.body.matches("^[135]00$")`}
	if got, _ := list(filtered); !slices.Equal(got, []string{"100", "300", "500"}) {
		t.Errorf("filtered: %v", got)
	}
	first, err := r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{PageSize: 2, PageToken: first.GetNextPageToken(), Filter: "true"})
	wantReason(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestAPageEndsBeforeItOutgrowsAMessage(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	for range 10 {
		r.append(strings.Repeat("x", 600<<10))
	}
	resp, err := r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(resp); size > maxPageBytes+1<<20 || len(resp.GetEvents()) == 10 || resp.GetNextPageToken() == "" {
		t.Errorf("page of %d bytes with %d events", size, len(resp.GetEvents()))
	}
}

func TestListEventsOfATimeRange(t *testing.T) {
	r := newRelay(t, eventlog.Options{})
	r.append(numbers(1, 50)...)
	r.late = 31 * time.Second // another relay stores what it received at the times 20 to 22
	r.append("late 20", "late 21", "late 22")
	at := func(n int) *timestamppb.Timestamp { return timestamppb.New(began.Add(time.Duration(n) * time.Second)) }
	for _, c := range []struct {
		what string
		req  *eventrelayv1.ListEventsRequest
		want []string
	}{
		{"from and to", &eventrelayv1.ListEventsRequest{StartTime: at(10), EndTime: at(13)}, []string{"10", "11", "12"}},
		{"from", &eventrelayv1.ListEventsRequest{StartTime: at(49)}, []string{"49", "50"}},
		{"to", &eventrelayv1.ListEventsRequest{EndTime: at(3)}, []string{"1", "2"}},
		{"backward", &eventrelayv1.ListEventsRequest{StartTime: at(10), EndTime: at(13), OrderBy: "sequence desc", PageSize: 2}, []string{"12", "11", "10"}},
		{"stored late", &eventrelayv1.ListEventsRequest{StartTime: at(20), EndTime: at(22), PageSize: 1}, []string{"20", "21", "late 20", "late 21"}},
		{"filtered", &eventrelayv1.ListEventsRequest{StartTime: at(10), EndTime: at(30), Filter: `event.message.text.body.endsWith("7")`}, []string{"17", "27"}},
		{"before everything", &eventrelayv1.ListEventsRequest{EndTime: at(0)}, nil},
		{"behind everything", &eventrelayv1.ListEventsRequest{StartTime: at(1000), OrderBy: "sequence desc"}, nil},
	} {
		var got []string
		for {
			resp, err := r.events.ListEvents(t.Context(), c.req)
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			got = append(got, bodies(resp.GetEvents())...)
			if resp.GetNextPageToken() == "" {
				break
			}
			c.req.PageToken = resp.GetNextPageToken()
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	_, err := r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{StartTime: at(3), EndTime: at(3)})
	wantReason(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	first, err := r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{StartTime: at(3), PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.events.ListEvents(t.Context(), &eventrelayv1.ListEventsRequest{StartTime: at(4), PageSize: 1, PageToken: first.GetNextPageToken()})
	wantReason(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}
