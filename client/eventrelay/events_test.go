package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// stored makes a desk that lists the events in pages of at most size, with an empty page in between.
func stored(events []*eventrelayv1.Event, size int) *desk {
	return &desk{answer: func(request proto.Message) (proto.Message, error) {
		asked := request.(*eventrelayv1.ListEventsRequest)
		at, empty := strings.CutSuffix(asked.GetPageToken(), "-empty")
		first, _ := strconv.Atoi(at)
		if empty {
			return &eventrelayv1.ListEventsResponse{NextPageToken: strconv.Itoa(first)}, nil
		}
		end := min(first+min(size, int(asked.GetPageSize())), len(events))
		page := &eventrelayv1.ListEventsResponse{Events: events[first:end]}
		if end < len(events) {
			page.NextPageToken = strconv.Itoa(end) + "-empty"
		}
		return page, nil
	}}
}

func TestEventsListPrintsWhatTailPrints(t *testing.T) {
	sent := events(t)
	got := stored(sent, 3).ask(t, "events", "list")
	if got.code != exitDone || got.err != "" {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	golden(t, "tail.golden", got.out)
	golden(t, "tail.json.golden", stored(sent, 3).ask(t, "events", "list", "--json").out)
}

func TestEventsListEndsAtItsLimitAndSaysWhetherThereAreMore(t *testing.T) {
	sent := events(t) // eight
	for _, c := range []struct {
		limit string
		size  int
		lines int
		note  string
	}{
		{"8", 100, 8, ""},
		{"9", 3, 8, ""},
		{"0", 3, 8, ""},
		{"5", 100, 5, "there are more than 5"},
		{"7", 100, 7, "there are more than 7"},
		{"3", 3, 3, "there may be more than 3"},
	} {
		got := stored(sent, c.size).ask(t, "events", "list", "--limit", c.limit)
		if got.code != exitDone || strings.Count(got.out, "\n") != c.lines || (c.note == "") != (got.err == "") || !strings.Contains(got.err, c.note) {
			t.Errorf("--limit %s of pages of %d: exit %d after %d lines: %s", c.limit, c.size, got.code, strings.Count(got.out, "\n"), got.err)
		}
	}
}

func TestEventsListAsksForWhatTheFlagsSay(t *testing.T) {
	t.Setenv("EVENTRELAY_FROM", "earliest") // which is for tail
	d := answers(&eventrelayv1.ListEventsResponse{})
	got := d.ask(t, "events", "list", "--filter", "event.test", "--desc", "--view", "typed", "--limit", "10", "--from", "2026-11-21T09:30:15Z", "--to", "2026-11-21T10:30:15+01:00")
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	d.wants(t, &eventrelayv1.ListEventsRequest{
		Filter: "event.test", OrderBy: "sequence desc", View: eventrelayv1.EventView_EVENT_VIEW_TYPED, PageSize: 11,
		StartTime: timestamppb.New(at.Truncate(time.Second)), EndTime: timestamppb.New(at.Truncate(time.Second)),
	})
	for text, back := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "2d ago": 48 * time.Hour, "90m": 90 * time.Minute} {
		d := answers(&eventrelayv1.ListEventsResponse{})
		d.ask(t, "events", "list", "--from", text, "--limit", "0")
		request := d.asked()[0].(*eventrelayv1.ListEventsRequest)
		if age := time.Since(request.GetStartTime().AsTime()); age < back || age > back+time.Minute || request.GetEndTime() != nil || request.GetPageSize() != 1000 {
			t.Errorf("--from %s asks for %v", text, request)
		}
	}
}

func TestEventsGetPrintsOneEvent(t *testing.T) {
	sent := events(t)[0]
	d := answers(sent)
	for _, args := range [][]string{nil, {"--json"}} {
		got := d.ask(t, append([]string{"events", "get", sent.GetId()}, args...)...)
		var read eventrelayv1.Event
		if err := protojson.Unmarshal([]byte(got.out), &read); err != nil || !proto.Equal(&read, sent) || (strings.Count(got.out, "\n") == 1) != slices.Contains(args, "--json") {
			t.Errorf("%v: exit %d, printed %s (%v)", args, got.code, got.out, err)
		}
	}
	d.wants(t, &eventrelayv1.GetEventRequest{Id: sent.GetId()}, &eventrelayv1.GetEventRequest{Id: sent.GetId()})
}

func TestRawBytesAreWrittenExactly(t *testing.T) {
	d := &desk{raw: [][]byte{[]byte("{\"text\": \"a\x1b[2J\xc3"), []byte("\xa4\xff\u202e\"}\r\n"), nil, []byte(" \n")}}
	if got := d.ask(t, "events", "get", "x", "--raw"); got.code != exitDone || got.out != "{\"text\": \"a\x1b[2Jä\xff\u202e\"}\r\n \n" {
		t.Errorf("exit %d, wrote %q", got.code, got.out)
	}
	d.torn = status.Error(codes.Unavailable, "going down")
	if got := d.ask(t, "events", "get", "x", "--raw"); got.code != exitFailure || !strings.Contains(got.err, "going down") {
		t.Errorf("a part of it: exit %d: %s", got.code, got.err)
	}
}

func TestTypesAndDriftAreTables(t *testing.T) {
	seen := timestamppb.New(at)
	d := &desk{}
	d.answer = func(request proto.Message) (proto.Message, error) {
		switch asked := request.(type) {
		case *eventrelayv1.ListEventTypesRequest:
			return &eventrelayv1.ListEventTypesResponse{EventTypes: []*eventrelayv1.EventType{
				{Type: "dialog360.channel_live", PayloadField: "channel_live", PayloadMessage: "dialog360.webhooks.v1.Channel"},
				{Type: "meta.*.messaging.*", PayloadField: "messaging", PayloadMessage: "meta.webhooks.v1.Messaging"},
			}}, nil
		case *eventrelayv1.ListDriftRequest:
			if asked.GetPageToken() == "" {
				return &eventrelayv1.ListDriftResponse{NextPageToken: "2", Drift: []*eventrelayv1.Drift{{
					Kind: eventrelayv1.DriftKind_DRIFT_KIND_WORD, Type: "meta.whatsapp_business_account.messages.status", Path: "value.statuses[].status", Word: "in_orbit",
					Count: 3, FirstSeenTime: seen, LastSeenTime: seen, SampleEventId: "abcdefgh",
				}}}, nil
			}
			return &eventrelayv1.ListDriftResponse{Cursor: "c9", Forgotten: 4, Drift: []*eventrelayv1.Drift{{Kind: eventrelayv1.DriftKind_DRIFT_KIND_OBJECT, Type: "meta.moon.x", Count: 1}}}, nil
		}
		return nil, errors.New("not asked for")
	}
	golden(t, "types.golden", d.ask(t, "events", "types").out)
	got := d.ask(t, "events", "drift", "--since", "2026-11-21T09:30:15Z")
	golden(t, "drift.golden", got.out)
	if got.code != exitDone || !strings.Contains(got.err, "4 kinds of drift were forgotten") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	if asked := d.asked()[1].(*eventrelayv1.ListDriftRequest); !asked.GetSeenAfter().AsTime().Equal(at.Truncate(time.Second)) {
		t.Errorf("asked for %v", asked)
	}
	var drift eventrelayv1.ListDriftResponse
	if err := protojson.Unmarshal([]byte(d.ask(t, "events", "drift", "--json").out), &drift); err != nil || len(drift.GetDrift()) != 2 || drift.GetForgotten() != 4 {
		t.Errorf("one object: %v (%v)", &drift, err)
	}
	none := answers(&eventrelayv1.ListDriftResponse{})
	if got := none.ask(t, "events", "drift"); got.code != exitDone || got.out != "" || !strings.Contains(got.err, "no drift") {
		t.Errorf("exit %d, printed %s%s", got.code, got.out, got.err)
	}
}
