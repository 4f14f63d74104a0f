package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// read makes the message of an example.
func read(t *testing.T, name protoreflect.FullName, value any) proto.Message {
	t.Helper()
	found, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	message := found.New().Interface()
	if err := protojson.Unmarshal(text, message); err != nil {
		t.Errorf("the example of a %s is none: %v", name, err)
	}
	return message
}

// An example that the server would refuse teaches nobody.
func TestEveryExampleIsOneThatTheServerTakes(t *testing.T) {
	examples, err := readExamples()
	if err != nil {
		t.Fatal(err)
	}
	for id, call := range examples.Operations {
		words := strings.Split(id, "_")
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("eventrelay.v1." + words[0] + "." + words[1]))
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		method := found.(protoreflect.MethodDescriptor)
		request := read(t, method.Input().FullName(), call.Request)
		if err := protovalidate.Validate(request); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if create, ok := request.(*eventrelayv1.CreateSourceRequest); ok {
			create.Source.Name = "sources/" + create.GetSourceId() // which is what the server does before it looks at the rules
			if err := protovalidate.Validate(create.GetSource()); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if method.Output().FullName() != "google.api.HttpBody" {
			read(t, method.Output().FullName(), call.Response)
		}
	}
	for service, status := range examples.Providers {
		if domain, _ := examples.ofProvider(service); domain == "" {
			t.Errorf("an error of %s has no ErrorInfo: %v", service, status)
		}
		read(t, "google.rpc.Status", status)
	}
}

func TestASummaryIsTheFirstSentence(t *testing.T) {
	for _, c := range []struct{ text, first, rest string }{
		{"Returns one source.", "Returns one source", ""},
		{"Lists the sources, by name.\n\nErrors: none.", "Lists the sources, by name", "Errors: none."},
		{"Sets `a.b` and v24.0 of it. `c` stays.", "Sets `a.b` and v24.0 of it", "`c` stays."},
		{"Sets the webhook. 360dialog offers no way to read it.", "Sets the webhook", "360dialog offers no way to read it."},
		{"No full stop", "No full stop", ""},
	} {
		if first, rest := sentence(c.text); first != c.first || rest != c.rest {
			t.Errorf("%q is split into %q and %q", c.text, first, rest)
		}
	}
}

func TestErrorsAreReadFromComments(t *testing.T) {
	known := reasons{
		"SOURCE_NOT_FOUND": {word: "SOURCE_NOT_FOUND", code: codes.NotFound},
		"SOURCE_READ_ONLY": {word: "SOURCE_READ_ONLY", code: codes.FailedPrecondition},
		"ETAG_STALE":       {word: "ETAG_STALE", code: codes.Aborted},
	}
	for comment, want := range map[string][]string{
		"PROVIDER_META (the app) only. Errors: NOT_FOUND (SOURCE_NOT_FOUND), ABORTED (ETAG_STALE).": {"SOURCE_NOT_FOUND", "ETAG_STALE"},
		"Is FAILED_PRECONDITION (SOURCE_READ_ONLY where it is of a file).":                          {"SOURCE_READ_ONLY"},
		"NOT_FOUND for what is not there (SOURCE_NOT_FOUND), or SOURCE_NOT_FOUND again.":            {"SOURCE_NOT_FOUND"},
		"Nothing can go wrong.": nil,
	} {
		found, err := known.mentioned(comment)
		var words []string
		for _, r := range found {
			words = append(words, r.word)
		}
		if err != nil || !slices.Equal(words, want) {
			t.Errorf("%q: %v, %v", comment, words, err)
		}
	}
	for _, wrong := range []string{"NOT_FOUND (ETAG_STALE)", "ABORTED (SOURCE_MISSPELT)"} {
		if found, err := known.mentioned(wrong); err == nil {
			t.Errorf("%q is taken for %v", wrong, found)
		}
	}
}
