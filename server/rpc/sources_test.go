package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/connection"
)

func TestSourcesAreListedByNamePageByPage(t *testing.T) {
	s := NewSourceService(fakeSources{}, connection.Providers{})
	var names []string
	req := &eventrelayv1.ListSourcesRequest{PageSize: 2}
	for {
		resp, err := s.ListSources(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range resp.GetSources() {
			names = append(names, source.GetName())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if len(names) != 3 || names[0] != "sources/a" || names[2] != "sources/c" {
		t.Errorf("listed %v", names)
	}
}

func TestAnUnknownSourceIsNotFoundByName(t *testing.T) {
	_, err := NewSourceService(fakeSources{}, connection.Providers{}).GetSource(t.Context(), &eventrelayv1.GetSourceRequest{Name: "sources/none"})
	metadata := wantReason(t, toStatus(err).Err(), codes.NotFound, "SOURCE_NOT_FOUND")
	if metadata["source"] != "sources/none" {
		t.Errorf("metadata %v", metadata)
	}
}
