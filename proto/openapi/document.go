package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	// about is what somebody needs to know before the first call.
	about = `Management of eventrelay over HTTP and JSON: reading events, the sources that notifications are accepted for, and the providers' own subscriptions.

Bodies are the JSON of the protos: field names are those of the protos (snake_case), a 64-bit number is a string, bytes are base64, and a field that is at its default is left out.

A call that is refused answers a ` + "`google.rpc.Status`" + `. Its details have a ` + "`google.rpc.ErrorInfo`" + ` whose ` + "`reason`" + ` is a fixed word; texts may change.`
	aboutBearer = "A token made by `eventrelay tokens new`. A server that runs without `--tokens-file` is reached from its own machine only and asks for none."
	mediaType   = "application/json"
	scheme      = "bearer"
	statusRef   = "#/components/schemas/google.rpc.Status"
)

// document is the description in the making.
type document struct {
	api      *openapi3.T
	examples *examples
	reasons  reasons
	methods  map[string]*protogen.Method  // those that REST serves, by operation id
	services map[string]*protogen.Service // by tag
	messages map[string]*protogen.Message // by the name of their schema
	types    *dynamicpb.Types             // of all messages, for reading the examples
}

// newDocument reads what the protos say about the API.
func newDocument(api *openapi3.T, plugin *protogen.Plugin) (*document, error) {
	d := &document{
		api: api, reasons: reasons{},
		methods: map[string]*protogen.Method{}, services: map[string]*protogen.Service{}, messages: map[string]*protogen.Message{},
	}
	files := &protoregistry.Files{}
	for _, file := range plugin.Request.GetProtoFile() {
		described, err := protodesc.NewFile(file, files)
		if err != nil {
			return nil, err
		}
		if err := files.RegisterFile(described); err != nil {
			return nil, err
		}
	}
	d.types = dynamicpb.NewTypes(files)
	for _, file := range plugin.Files {
		d.addMessages(file.Messages)
		for _, enum := range file.Enums {
			if enum.Desc.FullName() != "eventrelay.v1.ErrorReason" {
				continue
			}
			for _, value := range enum.Values[1:] {
				r, err := newReason(value)
				if err != nil {
					return nil, err
				}
				d.reasons[r.word] = r
			}
		}
		for _, service := range file.Services {
			d.services[service.GoName] = service
			for _, method := range service.Methods {
				if len(bindings(method)) > 0 {
					d.methods[service.GoName+"_"+method.GoName] = method
				}
			}
		}
	}
	var err error
	d.examples, err = readExamples()
	return d, err
}

func (d *document) addMessages(messages []*protogen.Message) {
	for _, message := range messages {
		d.messages[string(message.Desc.FullName())] = message
		d.addMessages(message.Messages)
	}
}

// complete adds to the document what the protos and examples say.
func (d *document) complete() error {
	d.head()
	if err := d.addStream(); err != nil {
		return err
	}
	if err := d.schemas(); err != nil {
		return err
	}
	if err := d.errorExamples(); err != nil {
		return err
	}
	described := map[string]int{}
	for _, path := range d.api.Paths.InMatchingOrder() {
		for verb, operation := range sorted(d.api.Paths.Value(path).Operations()) {
			described[operation.OperationID]++
			if err := d.operation(path, verb, operation); err != nil {
				return fmt.Errorf("%s %s: %w", verb, path, err)
			}
		}
	}
	for id, method := range sorted(d.methods) {
		if described[id] != len(bindings(method)) {
			return fmt.Errorf("%s is described %d times, and served on %d routes", id, described[id], len(bindings(method)))
		}
	}
	return d.examples.unused()
}

// sorted goes through a map by its keys in order, so that the document and the errors are the same each time.
func sorted[V any](m map[string]V) func(yield func(string, V) bool) {
	return func(yield func(string, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

// head is what holds for all operations.
func (d *document) head() {
	d.api.Info.Description = about
	d.api.Info.License = &openapi3.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"}
	d.api.Servers = openapi3.Servers{{URL: "/", Description: "The server that serves this description."}}
	d.api.Security = *openapi3.NewSecurityRequirements().With(openapi3.NewSecurityRequirement().Authenticate(scheme))
	d.api.Components.SecuritySchemes = openapi3.SecuritySchemes{
		scheme: {Value: openapi3.NewSecurityScheme().WithType("http").WithScheme("bearer").WithDescription(aboutBearer)},
	}
	for _, tag := range d.api.Tags {
		if service := d.services[tag.Name]; service != nil {
			tag.Description = text(service.Comments)
		}
	}
}

// errorExamples puts an example of each reason where operations refer to it.
func (d *document) errorExamples() error {
	d.api.Components.Examples = openapi3.Examples{}
	for word, r := range d.reasons {
		d.api.Components.Examples[word] = &openapi3.ExampleRef{Value: &openapi3.Example{Summary: r.text, Value: r.status(d.examples.Details[word]...)}}
	}
	for word := range d.examples.Details {
		if _, known := d.reasons[word]; !known {
			return fmt.Errorf("examples.yaml: details of %s, which is no reason", word)
		}
	}
	for word, example := range d.api.Components.Examples {
		if err := d.accepts("google.rpc.Status", example.Value.Value); err != nil {
			return fmt.Errorf("the example of %s: %w", word, err)
		}
	}
	return nil
}

// ofAllCalls returns the comment on a service, from where it speaks of all calls.
func ofAllCalls(service *protogen.Service) string {
	_, said, _ := strings.Cut(text(service.Comments), "Errors of all calls:")
	return said
}
