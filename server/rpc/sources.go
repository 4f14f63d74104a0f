package rpc

import (
	"context"
	"encoding/base64"

	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/connection"
)

// Page sizes of lists: what 0 means, and the most there is.
const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// Sources is what the source service reads and changes; *source.Store is one. What it gives out has no secrets.
type Sources interface {
	Get(name string) (*eventrelayv1.Source, error)
	List() ([]*eventrelayv1.Source, error)
	Create(ctx context.Context, id string, src *eventrelayv1.Source) (*eventrelayv1.Source, error)
	Update(ctx context.Context, src *eventrelayv1.Source, paths []string) (*eventrelayv1.Source, error)
	RotateSecret(ctx context.Context, name, secret, etag string) (*eventrelayv1.Source, error)
	Delete(ctx context.Context, name, etag string) error
	Credentials
}

// SourceService serves eventrelay.v1.SourceService. No request is logged or named in an error, for the generated messages print their secrets.
type SourceService struct {
	eventrelayv1.UnimplementedSourceServiceServer
	sources   Sources
	providers connection.Providers
}

// NewSourceService returns the service over the sources and the APIs of their providers.
func NewSourceService(sources Sources, providers connection.Providers) *SourceService {
	return &SourceService{sources: sources, providers: providers}
}

// GetSource returns one source, or SOURCE_NOT_FOUND.
func (s *SourceService) GetSource(_ context.Context, req *eventrelayv1.GetSourceRequest) (*eventrelayv1.Source, error) {
	return s.sources.Get(req.GetName())
}

// CreateSource stores a new source and returns it.
func (s *SourceService) CreateSource(ctx context.Context, req *eventrelayv1.CreateSourceRequest) (*eventrelayv1.Source, error) {
	return s.sources.Create(ctx, req.GetSourceId(), req.GetSource())
}

// UpdateSource changes fields of a source and returns it.
func (s *SourceService) UpdateSource(ctx context.Context, req *eventrelayv1.UpdateSourceRequest) (*eventrelayv1.Source, error) {
	return s.sources.Update(ctx, req.GetSource(), req.GetUpdateMask().GetPaths())
}

// RotateSecret begins or ends the rotation of the app secret and returns the source.
func (s *SourceService) RotateSecret(ctx context.Context, req *eventrelayv1.RotateSecretRequest) (*eventrelayv1.Source, error) {
	return s.sources.RotateSecret(ctx, req.GetName(), req.GetAppSecret(), req.GetEtag())
}

// DeleteSource removes a source.
func (s *SourceService) DeleteSource(ctx context.Context, req *eventrelayv1.DeleteSourceRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.sources.Delete(ctx, req.GetName(), req.GetEtag())
}

// ListSources returns a page of sources by name. The token of a page is the name that the page before ended with.
func (s *SourceService) ListSources(_ context.Context, req *eventrelayv1.ListSourcesRequest) (*eventrelayv1.ListSourcesResponse, error) {
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil {
		return nil, errPageTokenInvalid
	}
	sources, err := s.sources.List()
	if err != nil {
		return nil, err
	}
	resp := &eventrelayv1.ListSourcesResponse{}
	for _, source := range sources {
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
