// Command openapi is a protoc plugin that writes the OpenAPI description of the REST API. The paths and schemas are those that gnostic's plugin makes of the protos; this
// one runs it and completes what it says: summaries, who may call, errors by status, what a field may hold, and an example of every request and answer. All of it comes
// from the protos, but for the examples, which are beside this file. `make generate` runs it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// generator is gnostic's plugin, which `make generate` builds, and parameter is what it is asked for. Two messages may share a short name (google.rpc.Status,
// whatsapp.webhooks.v1.Status), so schemas have full ones.
const (
	generator = ".tools/protoc-gen-openapi"
	parameter = "naming=proto,fq_schema_naming=true,enum_type=string,title=eventrelay,version=v1"
)

const header = "# Made from the protos by `make generate`; do not edit.\n\n"

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		draft, err := generate(plugin.Request)
		if err != nil {
			return fmt.Errorf("run %s: %w", generator, err)
		}
		api, err := openapi3.NewLoader().LoadFromData(draft)
		if err != nil {
			return fmt.Errorf("read what %s makes: %w", generator, err)
		}
		d, err := newDocument(api, plugin)
		if err != nil {
			return err
		}
		if err := d.complete(); err != nil {
			return err
		}
		text, err := write(api)
		if err != nil {
			return fmt.Errorf("write the description: %w", err)
		}
		_, err = plugin.NewGeneratedFile("openapi.yaml", "").Write(text)
		return err
	})
}

// generate runs gnostic's plugin on the same protos and returns its file.
func generate(request *pluginpb.CodeGeneratorRequest) ([]byte, error) {
	request = proto.CloneOf(request)
	request.Parameter = new(parameter)
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(context.Background(), generator)
	command.Stdin = bytes.NewReader(input)
	output, err := command.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return nil, err
	}
	if response.GetError() != "" {
		return nil, errors.New(response.GetError())
	}
	if len(response.GetFile()) != 1 {
		return nil, fmt.Errorf("%d files in place of one", len(response.GetFile()))
	}
	return []byte(response.GetFile()[0].GetContent()), nil
}

// write returns the document as YAML, its keys in alphabetical order.
func write(api *openapi3.T) ([]byte, error) {
	text, err := api.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil { // JSON is YAML
		return nil, err
	}
	out := bytes.NewBufferString(header)
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	if err := encoder.Encode(tree); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}
