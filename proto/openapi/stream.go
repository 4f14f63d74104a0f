package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// streamMethod is served as server-sent events on streamPath, by a handler of its own: the protos give it no route, for theirs would be a stream of JSON objects.
	streamMethod = "eventrelay.v1.EventService.Subscribe"
	streamPath   = "/v1/events:subscribe"
	streamType   = "text/event-stream"

	lastEventID      = "Last-Event-ID"
	aboutLastEventID = "Behind which id the stream goes on, as EventSource sends it when it comes back: the cursor of an event or of a checkpoint. It goes before any start in the query."
	aboutStream      = "Over HTTP the stream is server-sent events. A block is an event: `id` is its cursor, `event` its type, `data` its JSON in one line, however long. " +
		"A response without events, and the part of one behind its last event, is a comment (`: backlog 0`) and an `id` without data: that dispatches nothing, and yet moves the id to come back with. The first such block comes at once.\n\n" +
		"An error before the first byte is an HTTP status. A later one is a last block `event: error` whose `data` is a `google.rpc.Status`: come back with the last id. " +
		"A cursor that has expired is told to an EventSource (a client that sends `Last-Event-ID` or accepts `text/event-stream`) by such a block with the id `expired`, and when it comes back with that, by 204.\n\n" +
		"Of `cursor`, `start_time` and `start_from` there is one at most. A parameter that does not exist is refused: a stream with a mistyped filter would look like one that works."
	aboutBlocks = "Blocks of server-sent events, without end. The `data` of a block is the JSON of an `eventrelay.v1.Event`, or of a `google.rpc.Status` where `event` is `error`."
	aboutTold   = "The client came back with the id `expired`: it has been told that its cursor is gone. An EventSource does not come again."
)

// addStream adds the operation of the stream as far as the other operations have theirs from the protos' routes.
func (d *document) addStream() error {
	for id, method := range d.methods {
		if method.Desc.FullName() != streamMethod {
			continue
		}
		op := openapi3.NewOperation()
		op.OperationID, op.Tags = id, []string{method.Parent.GoName}
		op.AddParameter(openapi3.NewHeaderParameter(lastEventID).WithDescription(aboutLastEventID).WithSchema(openapi3.NewStringSchema()))
		for _, field := range method.Input.Fields {
			schema, err := inQuery(field)
			if err != nil {
				return err
			}
			op.AddParameter(openapi3.NewQueryParameter(string(field.Desc.Name())).WithSchema(schema))
		}
		op.Responses = openapi3.NewResponses(openapi3.WithStatus(http.StatusOK, &openapi3.ResponseRef{Value: openapi3.NewResponse()}))
		d.api.AddOperation(streamPath, http.MethodGet, op)
		return nil
	}
	return fmt.Errorf("no method %s", streamMethod)
}

// inQuery is the schema of a field that is written in a query.
func inQuery(field *protogen.Field) (*openapi3.Schema, error) {
	switch {
	case field.Enum != nil:
		schema := openapi3.NewStringSchema()
		for _, value := range field.Enum.Values {
			schema.Enum = append(schema.Enum, string(value.Desc.Name()))
		}
		return schema, nil
	case field.Desc.Kind() == protoreflect.StringKind:
		return openapi3.NewStringSchema(), nil
	case field.Desc.Kind() == protoreflect.Int32Kind:
		return openapi3.NewInt32Schema(), nil
	case field.Desc.Kind() == protoreflect.Int64Kind:
		return openapi3.NewStringSchema().WithPattern(`^[0-9]+$`), nil
	case field.Message != nil && field.Message.Desc.FullName() == "google.protobuf.Timestamp":
		return openapi3.NewDateTimeSchema(), nil
	case field.Message != nil && field.Message.Desc.FullName() == "google.protobuf.Duration":
		return openapi3.NewStringSchema().WithPattern(`^[0-9]+(\.[0-9]{1,9})?s$`), nil
	}
	return nil, fmt.Errorf("%s: no way to write it in a query", field.Desc.FullName())
}

// describeStream completes the operation beyond what all have.
func describeStream(op *openapi3.Operation) {
	op.Description = join(op.Description, aboutStream)
	answer := op.Responses.Status(http.StatusOK).Value
	answer.Description = new(aboutBlocks)
	answer.Content = openapi3.NewContentWithSchema(openapi3.NewStringSchema(), []string{streamType})
	op.Responses.Set("204", &openapi3.ResponseRef{Value: openapi3.NewResponse().WithDescription(aboutTold)})
}

// blocks writes a response, given as JSON, as the server does over HTTP.
func blocks(response any) (string, error) {
	var out strings.Builder
	part, _ := response.(map[string]any)
	events, _ := part["events"].([]any)
	for _, each := range events {
		event, _ := each.(map[string]any)
		text, err := json.Marshal(event)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "id: %v\nevent: %v\ndata: %s\n\n", event["cursor"], event["type"], text)
	}
	fmt.Fprintf(&out, ": backlog %v\nid: %v\n\n", part["backlog"], part["cursor"])
	return out.String(), nil
}
