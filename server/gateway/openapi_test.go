package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"
	"sigs.k8s.io/yaml"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// load reads the description once for all tests, which change nothing of it.
var load = sync.OnceValues(func() (*openapi3.T, error) {
	got := httptest.NewRecorder()
	openAPI().ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	return openapi3.NewLoader().LoadFromData(got.Body.Bytes())
})

// served is the description as clients get it.
func served(t *testing.T) *openapi3.T {
	t.Helper()
	api, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// operation is one of the description with its route.
type operation struct {
	path, verb string
	*openapi3.Operation
}

func operations(api *openapi3.T) (found []operation) {
	for path, item := range api.Paths.Map() {
		for verb, op := range item.Operations() {
			found = append(found, operation{path, verb, op})
		}
	}
	return found
}

// method returns the method that an operation calls.
func (o operation) method(t *testing.T) protoreflect.MethodDescriptor {
	t.Helper()
	words := strings.Split(o.OperationID, "_")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("eventrelay.v1." + words[0] + "." + words[1]))
	if err != nil {
		t.Fatal(err)
	}
	return found.(protoreflect.MethodDescriptor)
}

// The validator holds every example to its schema, too: a field that is input only may not be in an answer, nor one that is output only in a request.
func TestTheDescriptionIsValid(t *testing.T) {
	if err := served(t).Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

var varying = regexp.MustCompile(`\{(?:[a-z_.]+=([^}]+)|[^}]+)\}`)

// shape is a path with all that varies as `*`.
func shape(path string) string {
	return varying.ReplaceAllStringFunc(path, func(found string) string {
		if pattern := varying.FindStringSubmatch(found)[1]; pattern != "" {
			return pattern
		}
		return "*"
	})
}

// routes are those that the protos give to REST, with their methods, and that of the stream, which has a handler of its own.
func routes() map[string]string {
	found := map[string]string{"GET /v1/events:subscribe": "eventrelay.v1.EventService.Subscribe"}
	add := func(method protoreflect.MethodDescriptor, rule *annotations.HttpRule) {
		for verb, template := range map[string]string{"GET": rule.GetGet(), "PUT": rule.GetPut(), "POST": rule.GetPost(), "DELETE": rule.GetDelete(), "PATCH": rule.GetPatch()} {
			if template != "" {
				found[verb+" "+shape(template)] = string(method.FullName())
			}
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("eventrelay.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				method := file.Services().Get(i).Methods().Get(j)
				if rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule); rule != nil {
					add(method, rule)
					for _, more := range rule.GetAdditionalBindings() {
						add(method, more)
					}
				}
			}
		}
		return true
	})
	return found
}

func TestEveryRouteIsDescribedAndNoOther(t *testing.T) {
	described := map[string]string{}
	for _, op := range operations(served(t)) {
		described[op.verb+" "+shape(op.path)] = string(op.method(t).FullName())
	}
	if want := routes(); len(want) < 2 || !maps.Equal(described, want) {
		t.Errorf("the protos have, and the description has:\n%s", cmp.Diff(want, described))
	}
}

// echo is a gRPC server that serves every method and keeps what it was called with last.
type echo struct {
	method  string
	request proto.Message
}

func (e *echo) serve(_ any, stream grpc.ServerStream) error {
	e.method, _ = grpc.MethodFromServerStream(stream)
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(e.method, "/"), "/", ".")))
	if err != nil {
		return err
	}
	message, err := protoregistry.GlobalTypes.FindMessageByName(found.(protoreflect.MethodDescriptor).Input().FullName())
	if err != nil {
		return err
	}
	e.request = message.New().Interface()
	if err := stream.RecvMsg(e.request); err != nil {
		return err
	}
	return status.Error(codes.Aborted, "arrived")
}

// connected returns the gateway in front of a server that serves nothing but this handler.
func connected(t *testing.T, handler grpc.StreamHandler) http.Handler {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnknownServiceHandler(handler))
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///echo", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	gateway, err := New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return gateway
}

// request makes the HTTP request that the examples of an operation are.
func (o operation) request(t *testing.T) *http.Request {
	t.Helper()
	path, query := o.path, url.Values{}
	for _, ref := range o.Parameters {
		switch p := ref.Value; {
		case p.In == openapi3.ParameterInPath:
			if !regexp.MustCompile(p.Schema.Value.Pattern).MatchString(p.Example.(string)) || p.Schema.Value.Pattern == "" {
				t.Errorf("%s: %s is %q, its pattern %q", o.OperationID, p.Name, p.Example, p.Schema.Value.Pattern)
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", p.Example.(string))
		case p.Example == nil:
			if p.Required {
				t.Errorf("%s: no example of %s, which is required", o.OperationID, p.Name)
			}
		case p.Schema.Value.Type.Is("array"):
			for _, value := range p.Example.([]any) {
				query.Add(p.Name, fmt.Sprint(value))
			}
		default:
			query.Set(p.Name, fmt.Sprint(p.Example))
		}
	}
	var body []byte
	if o.RequestBody != nil {
		var err error
		if body, err = json.Marshal(o.RequestBody.Value.Content["application/json"].Example); err != nil {
			t.Fatal(err)
		}
	}
	return httptest.NewRequest(o.verb, path+"?"+query.Encode(), strings.NewReader(string(body)))
}

// What is described is what is served: the call of each example arrives, as the whole request that it was written as.
func TestTheExampleOfEveryOperationCallsItsMethod(t *testing.T) {
	text, err := os.ReadFile("../../proto/openapi/examples.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var written struct {
		Operations map[string]struct{ Request json.RawMessage }
	}
	if err := yaml.Unmarshal(text, &written); err != nil {
		t.Fatal(err)
	}
	e := &echo{}
	gateway := connected(t, e.serve)
	for _, op := range operations(served(t)) {
		answer := httptest.NewRecorder()
		*e = echo{}
		gateway.ServeHTTP(answer, op.request(t))
		method := op.method(t)
		if want := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()); e.method != want || answer.Code != http.StatusConflict {
			t.Errorf("%s calls %q and is answered %d %s", op.OperationID, e.method, answer.Code, answer.Body)
			continue
		}
		switch update := e.request.(type) { // the mask follows from the body
		case *eventrelayv1.UpdateSourceRequest:
			update.UpdateMask = nil
		case *eventrelayv1.UpdateSubscriptionRequest:
			update.UpdateMask = nil
		}
		want := e.request.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(written.Operations[op.OperationID].Request, want); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(e.request, want) {
			t.Errorf("%s: %v arrives in place of %v", op.OperationID, e.request, want)
		}
		if err := protovalidate.Validate(e.request); err != nil {
			t.Errorf("%s: %v", op.OperationID, err)
		}
	}
}

// told reads blocks of server-sent events up to and with a checkpoint, the JSON in them as values.
func told(t *testing.T, text io.Reader) (lines []any) {
	t.Helper()
	for scanner := bufio.NewScanner(text); scanner.Scan(); {
		if data, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
			event := &eventrelayv1.Event{}
			if err := protojson.Unmarshal([]byte(data), event); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, event)
			continue
		}
		if strings.HasPrefix(scanner.Text(), "retry: ") { // at random
			continue
		}
		if lines = append(lines, scanner.Text()); len(lines) > 1 && strings.HasPrefix(fmt.Sprint(lines[len(lines)-2]), ": backlog") {
			return lines
		}
	}
	t.Fatalf("no checkpoint in %v", lines)
	return nil
}

func TestTheExampleOfTheStreamIsWhatAStreamLooksLike(t *testing.T) {
	op := served(t).Paths.Value("/v1/events:subscribe").Get
	example := op.Responses.Value("200").Value.Content["text/event-stream"].Example.(string)
	want := told(t, strings.NewReader(example))
	gateway := connected(t, func(_ any, stream grpc.ServerStream) error {
		event, ok := want[2].(*eventrelayv1.Event)
		if !ok {
			return status.Errorf(codes.Internal, "%v is no event", want[2])
		}
		cursor := strings.TrimPrefix(want[len(want)-1].(string), "id: ")
		return stream.SendMsg(&eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{event}, Cursor: cursor})
	})
	answer := httptest.NewRecorder()
	gateway.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/v1/events:subscribe", nil))
	if got := told(t, answer.Body); !cmp.Equal(got, want, protocmp.Transform()) {
		t.Errorf("the server tells, and the description:\n%s", cmp.Diff(want, got, protocmp.Transform()))
	}
	if got := answer.Header().Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("it is %s", got)
	}
}

func TestEveryOperationSaysWhatACallerNeedsToKnow(t *testing.T) {
	api := served(t)
	tags := map[string]bool{}
	for _, tag := range api.Tags {
		tags[tag.Name] = tag.Description != ""
	}
	if bearer := api.Components.SecuritySchemes["bearer"]; bearer == nil || bearer.Value.Scheme != "bearer" || len(api.Security) != 1 {
		t.Errorf("callers: %v by %v", api.Security, api.Components.SecuritySchemes)
	}
	for _, op := range operations(api) {
		if op.Summary == "" || len(op.Summary) > 120 || strings.HasSuffix(op.Summary, ".") {
			t.Errorf("%s: summary %q", op.OperationID, op.Summary)
		}
		if len(op.Tags) != 1 || !tags[op.Tags[0]] {
			t.Errorf("%s: tags %v", op.OperationID, op.Tags)
		}
		answer := op.Responses.Value("200").Value.Content["application/json"]
		if op.OperationID == "EventService_Subscribe" {
			answer = op.Responses.Value("200").Value.Content["text/event-stream"]
		}
		if answer == nil || answer.Example == nil {
			t.Errorf("%s: no example of an answer", op.OperationID)
		}
		role := proto.GetExtension(op.method(t).Options(), eventrelayv1.E_RequiredRole).(eventrelayv1.Role)
		if forbidden := op.Responses.Status(http.StatusForbidden); (forbidden != nil) != (role == eventrelayv1.Role_ROLE_OPERATOR) {
			t.Errorf("%s: who may call it is %s, 403 %v", op.OperationID, role, forbidden)
		}
		for _, code := range []string{"400", "401", "503", "default"} {
			inMemory := code == "503" && op.Tags[0] == "SchemaService" // which answers from what it knows already
			if op.Responses.Value(code) == nil && !inMemory {
				t.Errorf("%s: does not say what %s means", op.OperationID, code)
			}
		}
		for code, response := range op.Responses.Map() {
			if code < "300" {
				continue
			}
			media := response.Value.Content["application/json"]
			if media == nil || media.Schema.Ref != "#/components/schemas/google.rpc.Status" || len(media.Examples) == 0 {
				t.Errorf("%s: %s is no google.rpc.Status with an example", op.OperationID, code)
			}
		}
	}
}

// Names in the description are those of the protos, and so are secrets: what must not be printed is never in an answer.
func TestSecretsAreWriteOnly(t *testing.T) {
	api, checked := served(t), 0
	for name, schema := range api.Components.Schemas {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		message, ok := found.(protoreflect.MessageDescriptor)
		if err != nil || !ok || name != "eventrelay.v1.Source" && !strings.HasSuffix(name, "Request") {
			continue
		}
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			if options := field.Options().(*descriptorpb.FieldOptions); !options.GetDebugRedact() {
				continue
			}
			checked++
			if property := schema.Value.Properties[string(field.Name())]; property == nil || !property.Value.WriteOnly {
				t.Errorf("%s is a secret, and not write-only", field.FullName())
			}
		}
	}
	if checked < 10 {
		t.Errorf("%d secrets", checked)
	}
	if stats := api.Components.Schemas["eventrelay.v1.Source"].Value.Properties["stats"]; !stats.Value.ReadOnly {
		t.Error("stats are not read-only")
	}
	if etag := api.Components.Schemas["eventrelay.v1.Source"].Value.Properties["etag"]; etag.Value.ReadOnly {
		t.Error("an etag cannot be sent back")
	}
}

// A generated client makes functions and types of these.
func TestTheDescriptionUsesWordsThatGeneratorsKnow(t *testing.T) {
	formats := []string{"", "int32", "double", "date-time", "byte", "uri", "float"}
	var check func(at string, ref *openapi3.SchemaRef)
	check = func(at string, ref *openapi3.SchemaRef) {
		if ref == nil || ref.Ref != "" {
			return
		}
		if !slices.Contains(formats, ref.Value.Format) {
			t.Errorf("%s: format %q", at, ref.Value.Format)
		}
		for name, property := range ref.Value.Properties {
			check(at+"."+name, property)
		}
		check(at+"[]", ref.Value.Items)
	}
	api := served(t)
	for name, schema := range api.Components.Schemas {
		check(name, openapi3.NewSchemaRef("", schema.Value))
	}
	for _, op := range operations(api) {
		for _, parameter := range op.Parameters {
			check(op.OperationID+" "+parameter.Value.Name, parameter.Value.Schema)
		}
	}
}
