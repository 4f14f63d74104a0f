package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	_ "embed"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // what details of errors are

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

//go:embed examples.yaml
var examplesYAML []byte

// examples is examples.yaml.
type examples struct {
	// Operations have a call each, by operation id.
	Operations map[string]*call `yaml:"operations"`
	// Details stand behind the ErrorInfo of a reason.
	Details map[string][]any `yaml:"details"`
	// Providers say what an error of a provider's API looks like, by the service whose methods call it.
	Providers map[string]map[string]any `yaml:"providers"`
}

// call is a request, as the whole message that the method takes, and its answer.
type call struct {
	Request  map[string]any `yaml:"request"`
	Response any            `yaml:"response"`

	used bool
}

func readExamples() (*examples, error) {
	e := &examples{}
	if err := yaml.Unmarshal(examplesYAML, e); err != nil {
		return nil, fmt.Errorf("examples.yaml: %w", err)
	}
	return e, nil
}

// unused returns an error that names the examples that are of no operation.
func (e *examples) unused() error {
	for id, call := range sorted(e.Operations) {
		if !call.used {
			return fmt.Errorf("examples.yaml: there is no operation %s", id)
		}
	}
	return nil
}

// ofProvider returns an example of an error that the methods of a service pass on, and its domain; empty if they call no provider.
func (e *examples) ofProvider(service string) (domain string, status map[string]any) {
	status = e.Providers[service]
	details, _ := status["details"].([]any)
	for _, detail := range details {
		if info, ok := detail.(map[string]any); ok && domain == "" {
			domain, _ = info["domain"].(string)
		}
	}
	return domain, status
}

// resolver finds the messages of the protos, and those of google.rpc that details of errors are.
type resolver struct{ *dynamicpb.Types }

// FindMessageByURL implements what protojson asks for where it meets an Any.
func (r resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if found, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
		return found, nil
	}
	return r.Types.FindMessageByURL(url)
}

// accepts returns nil if the value is the JSON of the message.
func (d *document) accepts(message protoreflect.FullName, value any) error {
	found, err := d.types.FindMessageByName(message)
	if err != nil {
		return fmt.Errorf("find %s: %w", message, err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return protojson.UnmarshalOptions{Resolver: resolver{d.types}}.Unmarshal(text, found.New().Interface())
}

// example adds the example of an operation: to the parameters and the body, what of the request stands there, and to the answer.
func (d *document) example(method *protogen.Method, at binding, op *openapi3.Operation) error {
	example := d.examples.Operations[op.OperationID]
	if example == nil {
		return fmt.Errorf("examples.yaml has none of %s", op.OperationID)
	}
	example.used = true
	if err := d.accepts(method.Input.Desc.FullName(), example.Request); err != nil {
		return fmt.Errorf("the example of a request: %w", err)
	}
	if method.Output.Desc.FullName() != "google.api.HttpBody" { // which is any JSON
		if err := d.accepts(method.Output.Desc.FullName(), example.Response); err != nil {
			return fmt.Errorf("the example of a response: %w", err)
		}
	}
	content, answer := op.Responses.Value("200").Value.Content, example.Response
	if content[streamType] != nil {
		text, err := blocks(answer)
		if err != nil {
			return fmt.Errorf("the example of a stream: %w", err)
		}
		answer = text
	}
	for _, media := range content {
		media.Example = answer
	}
	return spread(at, op, example.Request)
}

// spread puts the parts of a request where the route has them.
func spread(at binding, op *openapi3.Operation, request map[string]any) error {
	rest := maps.Clone(request)
	places := at.places()
	for _, place := range places {
		delete(rest, place.field)
	}
	for _, ref := range op.Parameters {
		p := ref.Value
		if p.In != openapi3.ParameterInPath {
			p.Example = rest[p.Name]
			delete(rest, p.Name)
			continue
		}
		value, err := places[0].value(request)
		if err != nil {
			return err
		}
		p.Example, places = value, places[1:]
	}
	switch at.body {
	case "":
	case "*":
		op.RequestBody.Value.Content[mediaType].Example = rest
		rest = nil
	default:
		body, _ := request[at.body].(map[string]any)
		body = maps.Clone(body)
		for _, place := range at.places() {
			delete(body, place.below)
		}
		op.RequestBody.Value.Content[mediaType].Example = body
		delete(rest, at.body)
	}
	if len(rest) > 0 {
		return fmt.Errorf("the example of a request has %s, which are nowhere in the call", strings.Join(slices.Sorted(maps.Keys(rest)), ", "))
	}
	return nil
}
