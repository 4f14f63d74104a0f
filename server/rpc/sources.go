package rpc

import (
	"context"
	"encoding/base64"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Page sizes of lists: what 0 means, and the most there is.
const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// Sources is what the source service reads: the configured sources, without their secrets.
type Sources interface {
	Get(name string) (*eventrelayv1.Source, bool)
	List() []*eventrelayv1.Source
}

// SourceService serves eventrelay.v1.SourceService.
type SourceService struct {
	eventrelayv1.UnimplementedSourceServiceServer
	sources Sources
}

// NewSourceService returns the service over the configured sources.
func NewSourceService(sources Sources) *SourceService { return &SourceService{sources: sources} }

// GetSource returns one source, or SOURCE_NOT_FOUND.
func (s *SourceService) GetSource(_ context.Context, req *eventrelayv1.GetSourceRequest) (*eventrelayv1.Source, error) {
	found, ok := s.sources.Get(req.GetName())
	if !ok {
		return nil, &notFoundError{reason: eventrelayv1.ErrorReason_ERROR_REASON_SOURCE_NOT_FOUND, key: "source", name: req.GetName()}
	}
	return found, nil
}

// ListSources returns a page of sources by name. The token of a page is the name that the page before ended with.
func (s *SourceService) ListSources(_ context.Context, req *eventrelayv1.ListSourcesRequest) (*eventrelayv1.ListSourcesResponse, error) {
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil {
		return nil, errPageTokenInvalid
	}
	resp := &eventrelayv1.ListSourcesResponse{}
	for _, source := range s.sources.List() {
		if source.GetName() <= string(after) {
			continue
		}
		if len(resp.GetSources()) == pageSize(req.GetPageSize()) {
			last := resp.GetSources()[len(resp.GetSources())-1].GetName()
			resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		resp.Sources = append(resp.Sources, source)
	}
	return resp, nil
}

// pageSize is how many elements a page that was asked for has at most.
func pageSize(asked int32) int {
	if asked == 0 {
		return defaultPageSize
	}
	return min(int(asked), maxPageSize)
}
