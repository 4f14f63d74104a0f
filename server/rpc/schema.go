package rpc

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/drift"
	"eventrelay/server/eventlog"
	"eventrelay/server/translate"
)

// Drift is what the schema service reads: what providers send and the schema does not know.
type Drift interface {
	List() ([]*eventrelayv1.Drift, drift.Counted)
}

// SchemaService serves eventrelay.v1.SchemaService.
type SchemaService struct {
	eventrelayv1.UnimplementedSchemaServiceServer
	drift Drift
	log   *eventlog.Log
}

// NewSchemaService returns the service over what is counted of drift in a log.
func NewSchemaService(counted Drift, log *eventlog.Log) *SchemaService {
	return &SchemaService{drift: counted, log: log}
}

// ListDrift returns a page of drift by type, path and word. The token of a page is the entry that the page before ended with.
func (s *SchemaService) ListDrift(_ context.Context, req *eventrelayv1.ListDriftRequest) (*eventrelayv1.ListDriftResponse, error) {
	after, err := decodeDriftToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	all, counted := s.drift.List()
	resp := &eventrelayv1.ListDriftResponse{Forgotten: counted.Forgotten}
	if counted.Sequence > 0 {
		resp.Cursor = cursor(s.log.ID(), counted.Sequence)
	}
	for _, entry := range all {
		if after != nil && drift.Compare(entry, after) <= 0 || req.GetSeenAfter() != nil && !entry.GetLastSeenTime().AsTime().After(req.GetSeenAfter().AsTime()) {
			continue
		}
		if len(resp.GetDrift()) == pageSize(req.GetPageSize()) {
			resp.NextPageToken = encodeDriftToken(resp.GetDrift()[len(resp.GetDrift())-1])
			break
		}
		resp.Drift = append(resp.Drift, entry)
	}
	return resp, nil
}

// driftTokenSeparator stands between the parts of a page token: none of them can hold it.
const driftTokenSeparator = "\x00"

func encodeDriftToken(last *eventrelayv1.Drift) string {
	parts := []string{last.GetType(), last.GetPath(), last.GetWord(), strconv.Itoa(int(last.GetKind()))}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, driftTokenSeparator)))
}

// decodeDriftToken returns the entry that a page goes on behind, nil for the first page.
func decodeDriftToken(text string) (*eventrelayv1.Drift, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	joined, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errPageTokenInvalid
	}
	parts := strings.Split(string(joined), driftTokenSeparator)
	if len(parts) != 4 {
		return nil, errPageTokenInvalid
	}
	kind, err := strconv.ParseInt(parts[3], 10, 32)
	if err != nil {
		return nil, errPageTokenInvalid
	}
	return &eventrelayv1.Drift{Type: parts[0], Path: parts[1], Word: parts[2], Kind: eventrelayv1.DriftKind(kind)}, nil
}

// ListEventTypes returns a page of the types that have a payload, by pattern. The token of a page is the pattern that the page before ended with.
func (s *SchemaService) ListEventTypes(_ context.Context, req *eventrelayv1.ListEventTypesRequest) (*eventrelayv1.ListEventTypesResponse, error) {
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil {
		return nil, errPageTokenInvalid
	}
	types := translate.Types()
	room := len(types)
	if req.GetPageSize() > 0 {
		room = pageSize(req.GetPageSize())
	}
	resp := &eventrelayv1.ListEventTypesResponse{}
	for _, t := range types {
		if t.Pattern <= string(after) {
			continue
		}
		if len(resp.GetEventTypes()) == room {
			last := resp.GetEventTypes()[room-1].GetType()
			resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		resp.EventTypes = append(resp.EventTypes, &eventrelayv1.EventType{
			Type: t.Pattern, PayloadField: string(t.Payload.Name()), PayloadMessage: string(t.Payload.Message().FullName()),
		})
	}
	return resp, nil
}
