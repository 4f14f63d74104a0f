package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/auth"
)

// asking is what a caller shows, and the reason for which it is refused where the role is needed; "" if it is let in.
type asking struct{ what, authorization, reason string }

// askings are those of every kind of caller against a role.
func askings(required auth.Role) []asking {
	switch required {
	case auth.Anyone:
		return []asking{{"nobody", "", ""}, {"a stranger", "Bearer ert_wrong", ""}}
	case auth.Operator:
		return []asking{
			{"nobody", "", "TOKEN_MISSING"},
			{"a stranger", "Bearer ert_wrong", "TOKEN_INVALID"},
			{"a reader", "Bearer " + readerToken, "ROLE_INSUFFICIENT"},
			{"an operator", "Bearer " + operatorToken, ""},
		}
	default:
		return []asking{
			{"nobody", "", "TOKEN_MISSING"}, {"a stranger", "Bearer ert_wrong", "TOKEN_INVALID"}, {"a reader", "Bearer " + readerToken, ""}, {"an operator", "Bearer " + operatorToken, ""},
		}
	}
}

// described is a method with what its descriptor says. Methods of gRPC's own services have a role by hand: their protos are not ours.
type described struct {
	full     string
	info     grpc.MethodInfo
	required auth.Role
	rules    []*annotations.HttpRule
}

// methods are all methods that the server serves, found as a client could find them, so that one that is added is covered by itself.
func (g *guarded) methods(t *testing.T) (all []described) {
	t.Helper()
	for service, info := range g.server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			d := described{full: "/" + service + "/" + method.Name, info: method}
			switch {
			case service == "grpc.health.v1.Health":
				d.required = auth.Anyone
			case strings.HasPrefix(service, "grpc.reflection."):
				d.required = auth.Reader
			default:
				found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
				if err != nil {
					t.Fatal(err)
				}
				options := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method.Name)).Options()
				d.required = proto.GetExtension(options, eventrelayv1.E_RequiredRole).(auth.Role)
				if rule := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule); rule != nil {
					d.rules = append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...)
				}
			}
			all = append(all, d)
		}
	}
	if len(all) < 8 {
		t.Fatalf("only %d methods found: %v", len(all), all)
	}
	return all
}

// reason is the reason of a status, of this service's domain.
func reason(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "eventrelay" {
			return info.GetReason()
		}
	}
	return ""
}

// codeOf is the status code of a refusal.
func codeOf(reason string) codes.Code {
	if reason == "ROLE_INSUFFICIENT" {
		return codes.PermissionDenied
	}
	return codes.Unauthenticated
}

func TestEveryMethodIsForTheRoleThatItStatesAndNoOther(t *testing.T) {
	g := serveGuarded(t)
	conn := g.dial(t)
	for _, method := range g.methods(t) {
		for _, asks := range askings(method.required) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if asks.authorization != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", asks.authorization)
			}
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method.full)
			if err != nil {
				t.Fatal(err)
			}
			// Nothing is a request that every method can read; an answer, or an error about the request, is proof of having been let in.
			if err := stream.SendMsg(&emptypb.Empty{}); err == nil {
				stream.CloseSend()
			}
			err = stream.RecvMsg(&emptypb.Empty{})
			cancel()
			s := status.Convert(err)
			refused := s.Code() == codes.Unauthenticated || s.Code() == codes.PermissionDenied
			if asks.reason == "" && (refused || s.Code() == codes.DeadlineExceeded) || asks.reason != "" && (s.Code() != codes.Unauthenticated && s.Code() != codes.PermissionDenied || s.Code() != codeOf(asks.reason) || reason(s) != asks.reason) {
				t.Errorf("%s, which needs %v, answers %s with %v %s", method.full, method.required, asks.what, s, reason(s))
			}
		}
	}
}

// variable is a part of a path template that stands for something.
var variable = regexp.MustCompile(`\{[^}=]+(?:=([^}]+))?\}`)

// address fills the template of a rule.
func address(rule *annotations.HttpRule) (method, path string) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		method, path = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		method, path = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		method, path = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		method, path = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		method, path = http.MethodDelete, p.Delete
	case *annotations.HttpRule_Custom:
		method, path = p.Custom.GetKind(), p.Custom.GetPath()
	}
	path = variable.ReplaceAllStringFunc(path, func(v string) string {
		if inner := variable.FindStringSubmatch(v)[1]; inner != "" {
			return strings.ReplaceAll(strings.ReplaceAll(inner, "**", "x"), "*", "x")
		}
		return "x"
	})
	return method, path
}

func TestEveryRouteIsForTheRoleThatItsMethodStatesAndNoOther(t *testing.T) {
	g := serveGuarded(t)
	type route struct {
		method, path string
		required     auth.Role
	}
	// Those beside the RPCs.
	routes := []route{
		{http.MethodGet, "/healthz", auth.Anyone},
		{http.MethodGet, "/readyz", auth.Anyone},
		{http.MethodGet, "/metrics", auth.Reader},
		{http.MethodGet, "/openapi.json", auth.Reader},
		{http.MethodGet, "/nowhere", auth.Reader},
		{http.MethodGet, "/v1/events:subscribe?cursor=none", auth.Reader}, // which those who may are told is none
	}
	beside := len(routes)
	for _, d := range g.methods(t) {
		for _, rule := range d.rules {
			method, path := address(rule)
			routes = append(routes, route{method, path, d.required})
		}
	}
	if len(routes) < beside+5 {
		t.Fatalf("only %d routes found", len(routes)-beside)
	}
	for _, route := range routes {
		for _, asks := range askings(route.required) {
			resp, body := g.request(t, route.method, "https://"+g.http+route.path, asks.authorization)
			switch {
			case asks.reason == "":
				if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented {
					t.Errorf("%s %s, which needs %v, answers %s with %s %s", route.method, route.path, route.required, asks.what, resp.Status, body)
				}
				continue
			case resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "Bearer":
				t.Errorf("%s %s: challenge %q", route.method, route.path, resp.Header.Get("WWW-Authenticate"))
			}
			want := http.StatusUnauthorized
			if codeOf(asks.reason) == codes.PermissionDenied {
				want = http.StatusForbidden
			}
			if resp.StatusCode != want || !bytes.Contains(body, []byte(`"`+asks.reason+`"`)) || !bytes.Contains(body, []byte(`"domain":"eventrelay"`)) || !json.Valid(body) {
				t.Errorf("%s %s, which needs %v, answers %s with %s %s", route.method, route.path, route.required, asks.what, resp.Status, body)
			}
		}
	}
}
