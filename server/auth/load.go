package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hashPrefix says how a token was hashed, so that another way can stand beside it.
const hashPrefix = "sha256:"

// tokenName is what a token may be called: it stands in logs, so it has no room for tricks.
var tokenName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// fields are what an entry has, in the order in which an error names them.
const fields = "name, role, hash, create_time, expire_time"

// parseTokens decodes the content of a tokens file:
//
//	tokens:
//	  - name: billing
//	    role: reader
//	    hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//	    create_time: 2026-11-21T09:00:00Z
//	    expire_time: 2027-11-21T09:00:00Z
//
// Every mistake is named by line, column and field. No error shows a value: somebody may have put the token itself where its hash belongs.
func parseTokens(path string, data []byte) (map[digest]token, error) {
	p := &tokensFile{path: path, tokens: map[digest]token{}, names: map[string]bool{}}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it is empty; it must have a list `tokens:`, which may be []", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %s", path, unquoted(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it has more than one YAML document; put all tokens into one list", path)
	}
	p.top(document.Content[0])
	return p.tokens, errors.Join(p.problems...)
}

// unquoted returns what the YAML parser says without what it cites, which may be a token.
func unquoted(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.HasPrefix(text, "unknown anchor") {
		return "it refers to an anchor that is not there; put a value that starts with * in quotes"
	}
	return text
}

// tokensFile is a file that is being read.
type tokensFile struct {
	path     string
	tokens   map[digest]token
	names    map[string]bool
	problems []error
}

func (p *tokensFile) report(at *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s:%d:%d %s", p.path, at.Line, at.Column, fmt.Sprintf(format, args...)))
}

// top reads the whole document, which has the list as its only key.
func (p *tokensFile) top(root *yaml.Node) {
	if root.Kind != yaml.MappingNode || len(root.Content) != 2 || root.Content[0].Value != "tokens" {
		p.report(root, "expected a list `tokens:` and nothing else at the top")
		return
	}
	list := root.Content[1]
	if list.Kind != yaml.SequenceNode {
		p.report(list, "tokens: expected a list; write [] for none")
		return
	}
	for _, entry := range list.Content {
		p.entry(entry)
	}
}

// entry reads one token.
func (p *tokensFile) entry(node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		p.report(node, "expected a token with its fields: %s", fields)
		return
	}
	var (
		t       token
		d       digest
		seen    = map[string]bool{}
		mistake = len(p.problems)
	)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if seen[key.Value] {
			p.report(key, "%s is given twice", key.Value) // only known fields are in seen
			continue
		}
		var err error
		switch key.Value {
		case "name":
			t.name, err = value.Value, p.name(value.Value)
		case "role":
			t.role, err = role(value.Value)
		case "hash":
			d, err = hash(value.Value)
		case "create_time":
			_, err = moment(value.Value) // for people
		case "expire_time":
			t.expires, err = moment(value.Value)
		default:
			p.report(key, "unknown field; a token has %s", fields)
			continue
		}
		seen[key.Value] = true
		if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
			err = errors.New("expected a single value")
		}
		if err != nil {
			p.report(value, "%s: %v", key.Value, err)
		}
	}
	for _, required := range []string{"name", "role", "hash"} {
		if !seen[required] {
			p.report(node, "%s: it is missing", required)
		}
	}
	if len(p.problems) > mistake {
		return
	}
	if _, taken := p.tokens[d]; taken {
		p.report(node, "hash: another token has it; every caller needs a token of its own")
		return
	}
	p.tokens[d] = t
}

// name checks a token's name, which must be its own.
func (p *tokensFile) name(text string) error {
	if !tokenName.MatchString(text) {
		return errors.New("it must be 1 to 63 of a-z, 0-9 and -, with a letter or digit first and last")
	}
	if p.names[text] {
		return errors.New("it is used twice; give every token a name of its own, so that logs tell them apart")
	}
	p.names[text] = true
	return nil
}

// role reads a role.
func role(text string) (Role, error) {
	for role, name := range roleNames {
		if text == name {
			return role, nil
		}
	}
	return Anyone, errors.New("it must be reader or operator")
}

// hash reads the hash of a token.
func hash(text string) (digest, error) {
	var d digest
	digits, prefixed := strings.CutPrefix(text, hashPrefix)
	decoded, err := hex.DecodeString(digits)
	if err != nil || !prefixed || len(decoded) != len(d) {
		return d, errors.New("it must be " + hashPrefix + " and the 64 hexadecimal digits of the SHA-256 of the token; `eventrelay tokens new` prints it")
	}
	if d = digest(decoded); d == emptyDigest {
		return d, errors.New("it is the hash of nothing")
	}
	return d, nil
}

// moment reads a time.
func moment(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errors.New("it must be a time such as 2027-11-21T09:00:00Z")
	}
	return at, nil
}
