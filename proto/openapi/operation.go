package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// operation completes one operation.
func (d *document) operation(path, verb string, op *openapi3.Operation) error {
	method := d.methods[op.OperationID]
	if method == nil {
		return fmt.Errorf("no method for %s", op.OperationID)
	}
	at, err := find(method, path, verb)
	if err != nil {
		return err
	}
	if at.additional {
		// Ids are unique, and names of functions in clients.
		words := placeholder.FindAllString(path, -1)
		last := strings.Trim(words[len(words)-1], "{}")
		op.OperationID += "_" + strings.ToUpper(last[:1]) + last[1:]
	}
	summary, rest := sentence(text(method.Comments))
	role := required(method)
	op.Summary = summary
	op.Description = join(rest, "Needs the role `"+role+"`.")
	d.parameters(method, at, op)
	if err := d.responses(method, role, op); err != nil {
		return err
	}
	if method.Desc.FullName() == streamMethod {
		describeStream(op)
	}
	return d.example(method, at, op)
}

// required is the least role that a caller of the method must have, as the tokens file writes it.
func required(method *protogen.Method) string {
	role, _ := proto.GetExtension(method.Desc.Options(), eventrelayv1.E_RequiredRole).(eventrelayv1.Role)
	return strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
}

// parameters completes what stands in the URL, and takes from the body what the path says already.
func (d *document) parameters(method *protogen.Method, at binding, op *openapi3.Operation) {
	inPath := 0
	places := at.places()
	for _, ref := range op.Parameters {
		p := ref.Value
		if p.In == openapi3.ParameterInPath {
			place := places[inPath]
			inPath++
			if place.collection != "" {
				p.Description = "The id behind `" + place.collection + "/`."
			}
			p.Schema.Value.Pattern = place.pattern(method)
			continue
		}
		if field := fieldOf(method.Input, p.Name); field != nil {
			p.Description = text(field.Comments)
			limit(p.Schema.Value, field)
			p.Required = mandatory(field)
		}
	}
	if op.RequestBody == nil || at.body != "*" {
		return
	}
	schema := d.api.Components.Schemas[string(method.Input.Desc.FullName())].Value
	for _, place := range places {
		delete(schema.Properties, place.field)
		schema.Required = slices.DeleteFunc(schema.Required, func(name string) bool { return name == place.field })
	}
}

// responses describes the answer, and the errors that comments name, by status.
func (d *document) responses(method *protogen.Method, role string, op *openapi3.Operation) error {
	reasons, err := d.reasonsOf(method, role)
	if err != nil {
		return err
	}
	answer := op.Responses.Value("200").Value
	answer.Description = new(summaryOf(method.Output))
	switch method.Output.Desc.FullName() {
	case "google.protobuf.Empty":
		answer.Description = new("Done.")
		answer.Content = openapi3.NewContentWithJSONSchema(openapi3.NewObjectSchema())
	case "google.api.HttpBody":
		answer.Description = new("The JSON, byte for byte.")
		answer.Content = openapi3.NewContentWithJSONSchema(openapi3.NewSchema())
	}
	byStatus := map[int][]reason{}
	for _, r := range reasons {
		status := runtime.HTTPStatusFromCode(r.code)
		byStatus[status] = append(byStatus[status], r)
	}
	for status, reasons := range byStatus {
		op.Responses.Set(strconv.Itoa(status), &openapi3.ResponseRef{Value: d.refusal(status, reasons, role)})
	}
	rest := d.refusal(0, []reason{d.reasons["INTERNAL"]}, role)
	rest.Description = new("Any other error.")
	if domain, example := d.examples.ofProvider(method.Parent.GoName); domain != "" {
		rest.Description = new("An error of the provider's, with what it said in an ErrorInfo of domain `" + domain + "`, under the status that its code means; or any other error.")
		if err := d.accepts("google.rpc.Status", example); err != nil {
			return fmt.Errorf("the example of an error of %s: %w", domain, err)
		}
		rest.Content[mediaType].Examples[domain] = &openapi3.ExampleRef{Value: openapi3.NewExample(example)}
	}
	op.Responses.Set("default", &openapi3.ResponseRef{Value: rest})
	return nil
}

// reasonsOf returns what a call can be refused for: for who calls, for what the request holds, and for what the comments say.
func (d *document) reasonsOf(method *protogen.Method, role string) ([]reason, error) {
	words := []string{"TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED"}
	if role != "reader" {
		words = append(words, "ROLE_INSUFFICIENT")
	}
	if len(method.Input.Fields) > 0 {
		words = append(words, "INVALID_REQUEST")
	}
	var found []reason
	for _, word := range words {
		r, known := d.reasons[word]
		if !known {
			return nil, fmt.Errorf("no reason %s", word)
		}
		found = append(found, r)
	}
	for _, comment := range []string{text(method.Comments), ofAllCalls(method.Parent)} {
		mentioned, err := d.reasons.mentioned(comment)
		if err != nil {
			return nil, err
		}
		for _, r := range mentioned {
			if !slices.ContainsFunc(found, func(other reason) bool { return other.word == r.word }) {
				found = append(found, r)
			}
		}
	}
	return found, nil
}

// refusal is the response for some reasons of one status.
func (d *document) refusal(status int, reasons []reason, role string) *openapi3.Response {
	media := openapi3.NewMediaType().WithSchemaRef(openapi3.NewSchemaRef(statusRef, d.api.Components.Schemas["google.rpc.Status"].Value))
	media.Examples = openapi3.Examples{}
	var lines []string
	for _, r := range reasons {
		lines = append(lines, "`"+r.word+"`: "+r.text)
		example := d.api.Components.Examples[r.word]
		media.Examples[r.word] = &openapi3.ExampleRef{Ref: "#/components/examples/" + r.word, Value: example.Value}
	}
	response := openapi3.NewResponse().WithDescription(strings.Join(lines, "\n\n")).WithContent(openapi3.Content{mediaType: media})
	switch status {
	case http.StatusUnauthorized:
		response.Headers = openapi3.Headers{"WWW-Authenticate": {Value: &openapi3.Header{Parameter: openapi3.Parameter{
			Description: "`Bearer`.", Schema: openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
		}}}}
	case runtime.HTTPStatusFromCode(codes.PermissionDenied):
		response.Description = new(*response.Description + "\n\nThis call needs the role `" + role + "`.")
	}
	return response
}

// summaryOf is what a message is, in a sentence.
func summaryOf(message *protogen.Message) string {
	first, _ := sentence(text(message.Comments))
	return first + "."
}
