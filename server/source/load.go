package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// maxFile bounds what is read of a file, in bytes: a thousand sources with every field full stay below it, and a device or
// an endless pipe given by mistake is told instead of filling the memory.
const maxFile = 32 << 20

// Load reads sources from a YAML file:
//
//	sources:
//	  - name: sources/shop
//	    provider: PROVIDER_META
//	    app_secrets: [0123456789abcdef0123456789abcdef]
//	    verify_token: a token of your own
//
// The keys of an entry are the field names of eventrelay.v1.Source. A key that is unknown or given twice, a value of the wrong kind,
// null, an alias, a field that is output only or a second document is an error that names file, line and column,
// and the field where there is one; no error shows a secret. Whether the sources are valid and distinct is NewSet's to say.
//
// A file that others than its owner may read is read all the same, with a warning to logger; nil discards it.
func Load(path string, logger *slog.Logger) ([]*eventrelayv1.Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o044 != 0 && logger != nil {
		logger.Warn("the sources file holds secrets and others than its owner can read it; chmod 600 it", "path", path, "mode", mode.String())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read sources: %s is over %d MiB", path, maxFile>>20)
	}
	return parse(path, data)
}

// parse decodes the content of a file. Its errors are made here, for those of the libraries quote the line they are about.
func parse(path string, data []byte) ([]*eventrelayv1.Source, error) {
	var list eventrelayv1.ListSourcesResponse
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it is empty; it must have a list `sources:`", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %s", path, unquoted(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it has more than one YAML document; put all sources into one list", path)
	}

	c := checker{path: path}
	c.top(document.Content[0], list.ProtoReflect().Descriptor().Fields().ByName("sources"))
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	if err := (protoyaml.UnmarshalOptions{Path: path}).Unmarshal(data, &list); err != nil {
		return nil, firstLines(err)
	}
	return list.GetSources(), nil
}

// A checker looks at the shape of a file: it holds the file to more than protoyaml asks for (which takes a field by any of three
// names, lets a repeated key add to a list, and reads `verify_token: null` as the word null), and it names fields.
type checker struct {
	path     string
	problems []error
}

func (c *checker) report(at *yaml.Node, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s:%d:%d %s", c.path, at.Line, at.Column, fmt.Sprintf(format, args...)))
}

// top checks the whole document, which has the field list as its only key.
func (c *checker) top(root *yaml.Node, list protoreflect.FieldDescriptor) {
	if root.Kind != yaml.MappingNode {
		c.report(root, "expected a list `sources:` at the top")
		return
	}
	found := false
	for key, value := range c.pairs(root) {
		if key.Value != string(list.Name()) {
			c.report(key, "unknown key at the top; only `sources:` belongs there")
			continue
		}
		found = true
		c.value(value, list)
	}
	if !found {
		c.report(root, "expected a list `sources:` at the top")
	}
}

// sourceName is the full name of the message that an entry of the list is.
var sourceName = (&eventrelayv1.Source{}).ProtoReflect().Descriptor().FullName()

// message checks one entry of the list, or a message in it.
func (c *checker) message(node *yaml.Node, descriptor protoreflect.MessageDescriptor) {
	if node.Kind != yaml.MappingNode {
		if descriptor.FullName() == sourceName {
			c.report(node, "expected a source with its fields, as in `- name: sources/shop`")
		} else {
			c.report(node, "expected keys with values: %s", names(descriptor))
		}
		return
	}
	for key, value := range c.pairs(node) {
		field := descriptor.Fields().ByName(protoreflect.Name(key.Value))
		switch {
		case field == nil:
			c.report(key, "unknown field %s; there are %s", quoted(key.Value), names(descriptor))
		case descriptor.FullName() == sourceName && outputOnly[field.Name()] && field.Name() != "name":
			c.report(key, "%s: the server sets it, so it cannot be set here; remove it", field.Name())
		default:
			c.value(value, field)
		}
	}
}

// value checks the kind of a field's value, without a look at the value itself.
func (c *checker) value(node *yaml.Node, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsList():
		if node.Kind != yaml.SequenceNode {
			c.report(node, "%s: expected a list", field.Name())
			return
		}
		for _, item := range node.Content {
			if field.Message() != nil {
				c.message(item, field.Message())
			} else {
				c.scalar(item, field)
			}
		}
	case field.IsMap():
		if node.Kind != yaml.MappingNode {
			c.report(node, "%s: expected keys with values", field.Name())
			return
		}
		for _, item := range c.pairs(node) {
			c.scalar(item, field)
		}
	case field.Message() != nil:
		c.message(node, field.Message())
	default:
		c.scalar(node, field)
	}
}

func (c *checker) scalar(node *yaml.Node, field protoreflect.FieldDescriptor) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		c.report(node, "%s: expected a single value, quoted if it has characters that mean something in YAML", field.Name())
	}
}

// pairs goes through the keys of a mapping and their values in order, each key once.
func (c *checker) pairs(node *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := make(map[string]bool, len(node.Content)/2)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			switch {
			case key.Kind != yaml.ScalarNode:
				c.report(key, "expected a word as key")
			case seen[key.Value]:
				c.report(key, "%s is given twice", quoted(key.Value))
			default:
				seen[key.Value] = true
				if !yield(key, node.Content[i+1]) {
					return
				}
			}
		}
	}
}

// fieldLike matches what may have been meant as the name of a field.
var fieldLike = regexp.MustCompile("^[A-Za-z_]{1,30}$")

// quoted shows a key if it may have been meant as a field: a secret that stands where a key should is not to be shown.
func quoted(key string) string {
	if !fieldLike.MatchString(key) {
		return "(not shown)"
	}
	return strconv.Quote(key)
}

// names lists the fields of a message that can be set.
func names(descriptor protoreflect.MessageDescriptor) string {
	list := make([]string, 0, descriptor.Fields().Len())
	for i := range descriptor.Fields().Len() {
		if name := descriptor.Fields().Get(i).Name(); descriptor.FullName() != sourceName || !outputOnly[name] || name == "name" {
			list = append(list, string(name))
		}
	}
	return strings.Join(list, ", ")
}

// unquoted returns what the YAML parser says without what it cites: an unquoted secret that starts with * reads as an alias,
// which the parser repeats.
func unquoted(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.HasPrefix(text, "unknown anchor") {
		return "it refers to an anchor that is not there; put a value that starts with * in quotes"
	}
	return text
}

// firstLines returns the errors that are joined in err by their first lines: the others quote the file.
func firstLines(err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	lines := make([]error, 0, len(all))
	for _, e := range all {
		line, _, _ := strings.Cut(e.Error(), "\n")
		lines = append(lines, errors.New(line))
	}
	return errors.Join(lines...)
}
