package auth

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Methods of a service that only these tests have.
const (
	readMethod   = "/test.Service/Read"
	changeMethod = "/test.Service/Change"
	openMethod   = "/grpc.health.v1.Health/Watch"
)

// services is what a server with the test service and those of gRPC would report.
func services() map[string]grpc.ServiceInfo {
	return map[string]grpc.ServiceInfo{
		"test.Service":                        {Methods: []grpc.MethodInfo{{Name: "Read"}, {Name: "Change"}}},
		"grpc.health.v1.Health":               {Methods: []grpc.MethodInfo{{Name: "Check"}, {Name: "Watch"}}},
		"grpc.reflection.v1.ServerReflection": {Methods: []grpc.MethodInfo{{Name: "ServerReflectionInfo"}}},
	}
}

// descriptors describe the test service; a method without a role has no option.
func descriptors(t *testing.T, roles map[string]Role) *protoregistry.Files {
	t.Helper()
	service := &descriptorpb.ServiceDescriptorProto{Name: new("Service")}
	for _, name := range []string{"Read", "Change"} {
		method := &descriptorpb.MethodDescriptorProto{Name: new(name), InputType: new(".test.Nothing"), OutputType: new(".test.Nothing")}
		if role, ok := roles[name]; ok {
			options := &descriptorpb.MethodOptions{}
			proto.SetExtension(options, eventrelayv1.E_RequiredRole, role)
			method.Options = options
		}
		service.Method = append(service.Method, method)
	}
	described, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("test.proto"), Package: new("test"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Nothing")}}, Service: []*descriptorpb.ServiceDescriptorProto{service},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(described); err != nil {
		t.Fatal(err)
	}
	return files
}

// covered is a guard over the test service.
func covered(t *testing.T) *world {
	t.Helper()
	w := open(t, three())
	var err error
	if w.guard.roles, err = requiredRoles(services(), descriptors(t, map[string]Role{"Read": Reader, "Change": Operator})); err != nil {
		t.Fatal(err)
	}
	return w
}

// calling is the context of a call that shows these values of the header.
func calling(authorization ...string) context.Context {
	md := metadata.MD{}
	if authorization != nil {
		md["authorization"] = authorization
	}
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}})
	return metadata.NewIncomingContext(ctx, md)
}

// unary makes a unary call and reports whether it reached its handler.
func (w *world) unary(ctx context.Context, method string) (reached bool, err error) {
	_, err = w.guard.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
		reached = true
		return struct{}{}, nil
	})
	return reached, err
}

// stream is a stream that takes everything.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }
func (*stream) SendMsg(any) error          { return nil }
func (*stream) RecvMsg(any) error          { return nil }

func TestEveryCallNeedsATokenWithTheRoleOfItsMethod(t *testing.T) {
	w := covered(t)
	for _, c := range []struct {
		what   string
		method string
		shown  []string
		want   string // the reason, "" if let through
	}{
		{"nothing", readMethod, nil, "token_missing"},
		{"empty", readMethod, []string{""}, "token_missing"},
		{"another scheme", readMethod, []string{"Basic " + readerToken}, "token_missing"},
		{"no scheme", readMethod, []string{readerToken}, "token_missing"},
		{"scheme without a token", readMethod, []string{"Bearer  "}, "token_missing"},
		{"unknown", readMethod, []string{"Bearer ert_other"}, "token_invalid"},
		{"a hash", readMethod, []string{"Bearer " + hashOf(readerToken)}, "token_invalid"},
		{"two", readMethod, []string{"Bearer " + readerToken, "Bearer " + operatorToken}, "token_invalid"},
		{"two, the first unknown", readMethod, []string{"Bearer x", "Bearer " + operatorToken}, "token_invalid"},
		{"joined", readMethod, []string{"Bearer " + readerToken + ", Bearer x"}, "token_invalid"},
		{"endless", readMethod, []string{"Bearer " + strings.Repeat("x", 1<<20)}, "token_invalid"},
		{"expired", readMethod, []string{"Bearer " + expiredToken}, "token_expired"},
		{"reader reads", readMethod, []string{"Bearer " + readerToken}, ""},
		{"scheme in small letters", readMethod, []string{"bearer " + readerToken}, ""},
		{"reader changes", changeMethod, []string{"Bearer " + readerToken}, "role_insufficient"},
		{"operator reads", readMethod, []string{"Bearer " + operatorToken}, ""},
		{"operator changes", changeMethod, []string{"Bearer " + operatorToken}, ""},
		{"nobody asks for health", openMethod, nil, ""},
		{"unknown asks for health", openMethod, []string{"Bearer x"}, ""},
		{"nobody reflects", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", nil, "token_missing"},
		{"reader reflects", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", []string{"Bearer " + readerToken}, ""},
		{"reader calls what nobody covered", "/test.Service/Other", []string{"Bearer " + readerToken}, "role_insufficient"},
	} {
		for _, kind := range []string{"unary", "stream"} {
			var before float64
			if c.want != "" {
				before = w.counted(t, "eventrelay_auth_refused_total", c.want)
			}
			reached, err := w.unary(calling(c.shown...), c.method)
			if kind == "stream" {
				reached = false
				err = w.guard.Stream(nil, &stream{ctx: calling(c.shown...)}, &grpc.StreamServerInfo{FullMethod: c.method}, func(any, grpc.ServerStream) error {
					reached = true
					return nil
				})
			}
			if reached != (c.want == "") || (err == nil) != reached || err != nil && reasonOf(err) != c.want {
				t.Errorf("%s, %s: reached %v, error %v; want %q", c.what, kind, reached, err, c.want)
			}
			if err != nil {
				hidesTokens(t, err.Error())
				if w.counted(t, "eventrelay_auth_refused_total", c.want) <= before {
					t.Errorf("%s, %s: not counted", c.what, kind)
				}
			}
		}
	}
	hidesTokens(t, w.log.String())
}

func TestWithoutTokensEverybodyMayDoEverything(t *testing.T) {
	guard := NewGuard(nil, nil, (&journal{}).logger())
	guard.roles = map[string]Role{changeMethod: Operator}
	w := &world{guard: guard}
	if reached, err := w.unary(context.Background(), changeMethod); !reached || err != nil {
		t.Errorf("reached %v, %v", reached, err)
	}
}

func TestAStreamKnowsItsCallerByTheNameOfTheToken(t *testing.T) {
	w := covered(t)
	for shown, want := range map[string]string{readerToken: "billing", operatorToken: "ops"} {
		err := w.guard.Stream(nil, &stream{ctx: calling("Bearer " + shown)}, &grpc.StreamServerInfo{FullMethod: readMethod}, func(_ any, s grpc.ServerStream) error {
			if got := Caller(s.Context()); got != want {
				t.Errorf("the caller is %q, want %q", got, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if got := Caller(t.Context()); got != "" {
		t.Errorf("nobody is %q", got)
	}
}

func TestAnOpenStreamEndsWhenItsTokenIsGone(t *testing.T) {
	for what, content := range map[string]string{
		"removed":  "tokens: []\n",
		"replaced": "tokens:\n" + entry("billing", "reader", "ert_another"),
		"expired":  "tokens:\n" + entry("billing", "operator", operatorToken, "expire_time: 2000-01-01T00:00:01Z"),
		"demoted":  "tokens:\n" + entry("billing", "reader", operatorToken),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := covered(t)
				go w.files.Run(t.Context())
				err := w.guard.Stream(nil, &stream{ctx: calling("Bearer " + operatorToken)}, &grpc.StreamServerInfo{FullMethod: changeMethod}, func(_ any, s grpc.ServerStream) error {
					if err := errors.Join(s.SendMsg(nil), s.RecvMsg(nil)); err != nil {
						t.Errorf("before: %v", err)
					}
					put(t, w.path, content)
					time.Sleep(2 * time.Second)
					if s.RecvMsg(nil) == nil {
						t.Error("a message is still taken")
					}
					return s.SendMsg(nil)
				})
				if err == nil {
					t.Error("a message is still sent")
				}
			})
		})
	}
}

func TestRefusalsAreLoggedByTheNameOfTheTokenOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := covered(t)
		for range 100 {
			w.unary(calling("Bearer "+readerToken), changeMethod)
		}
		time.Sleep(logInterval)
		w.unary(calling("Bearer "+readerToken), changeMethod)
		log := w.log.String()
		if strings.Count(log, "call refused") != 2 || !strings.Contains(log, "reason=role_insufficient method="+changeMethod+" caller=billing peer=192.0.2.1:7 left_out=99") {
			t.Errorf("log %s", log)
		}
		if n := w.counted(t, "eventrelay_auth_refused_total", "role_insufficient"); n != 101 {
			t.Errorf("counted %v", n)
		}
	})
}

func TestWhoChangedSomethingIsLogged(t *testing.T) {
	w := covered(t)
	w.unary(calling("Bearer "+operatorToken), changeMethod)
	w.unary(calling("Bearer "+readerToken), readMethod)
	log := w.log.String()
	if !strings.Contains(log, "level=INFO msg=call method="+changeMethod+" caller=ops") || !strings.Contains(log, "level=DEBUG msg=call method="+readMethod+" caller=billing") {
		t.Errorf("log %s", log)
	}
}

func TestAMethodThatDoesNotSayWhoMayCallItStopsTheStart(t *testing.T) {
	_, err := requiredRoles(services(), descriptors(t, map[string]Role{"Read": Reader}))
	if err == nil || !strings.Contains(err.Error(), "test.Service.Change") || strings.Contains(err.Error(), "Read") {
		t.Errorf("a method without a role: %v", err)
	}
	_, err = requiredRoles(services(), descriptors(t, map[string]Role{"Read": Reader, "Change": Anyone}))
	if err == nil || !strings.Contains(err.Error(), "test.Service.Change") {
		t.Errorf("a method with an unspecified role: %v", err)
	}
	_, err = requiredRoles(services(), descriptors(t, map[string]Role{"Read": Reader, "Change": 9}))
	if err == nil || !strings.Contains(err.Error(), "test.Service.Change") {
		t.Errorf("a method with a role that there is not: %v", err)
	}
	if _, err = requiredRoles(services(), &protoregistry.Files{}); err == nil || !strings.Contains(err.Error(), "test.Service") {
		t.Errorf("a service without a descriptor: %v", err)
	}
	guard := NewGuard(nil, nil, (&journal{}).logger())
	if err := guard.Cover(services()); err == nil {
		t.Error("a guard covers what has no descriptor")
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("Bearer " + readerToken)
	f.Add("bearer  x ")
	f.Add("Bearer")
	f.Fuzz(func(t *testing.T, header string) {
		d, err := digestOf([]string{header})
		if err == nil && d == emptyDigest {
			t.Errorf("%q shows an empty token", header)
		}
		if err == nil && !strings.EqualFold(header[:7], "Bearer ") {
			t.Errorf("%q is taken for a bearer token", header)
		}
	})
}
