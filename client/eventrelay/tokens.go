package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// tokenPrefix marks a token as one, for people and for scanners that look for secrets where they should not be.
const tokenPrefix = "ert_"

// callerName is what a token may be called.
var callerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// tokens is the commands about the tokens that callers show. They work on the server's tokens file, not through the server.
type tokens struct {
	New newToken `cmd:"" help:"Make a token for a caller and the entry of the server's --tokens-file for it."`
}

// newToken makes tokens.
type newToken struct {
	Name        string        `required:"" placeholder:"NAME" help:"Who will show the token, such as billing: the server's log names it."`
	Role        string        `required:"" enum:"reader,operator" placeholder:"ROLE" help:"What the caller may do: reader reads events and sources, operator does everything."`
	File        string        `type:"path" placeholder:"FILE" help:"Append the entry to this tokens file, which is made if need be, and print the token alone."`
	ExpireAfter time.Duration `placeholder:"DURATION" help:"How long the token is valid, such as 2160h. Default: for ever."`
}

// Run makes a token of 260 random bits, letters and digits only, so that one click selects it whole.
func (n *newToken) Run(out *output) error {
	return n.issue(out, tokenPrefix+rand.Text()+rand.Text(), time.Now())
}

// issue writes the entry of a token and then prints the token, the only time that it is seen: a token that is printed is one that the file knows.
func (n *newToken) issue(out *output, token string, now time.Time) error {
	switch {
	case !callerName.MatchString(n.Name):
		return usagef("--name %q: give 1 to 63 of a-z, 0-9 and -, with a letter or digit first and last", n.Name)
	case n.ExpireAfter < 0:
		return usagef("--expire-after %s: it would have expired already", n.ExpireAfter)
	}
	sum := sha256.Sum256([]byte(token))
	fields := []string{
		"- name: " + n.Name,
		"  role: " + n.Role,
		"  hash: sha256:" + hex.EncodeToString(sum[:]),
		"  create_time: " + now.UTC().Format(time.RFC3339),
	}
	if n.ExpireAfter > 0 {
		fields = append(fields, "  expire_time: "+now.Add(n.ExpireAfter).UTC().Format(time.RFC3339))
	}
	if n.File == "" {
		out.note("the token comes first and is not shown again; append the entry below it to the list `tokens:` of the server's --tokens-file")
		return n.print(out, token+"\n\n"+entryLines(fields, 2))
	}
	if err := appendEntry(n.File, n.Name, fields); err != nil {
		return fmt.Errorf("--file %s: %w", n.File, err)
	}
	out.note("the token is not shown again; its entry %s is in %s", n.Name, n.File)
	return n.print(out, token+"\n")
}

func (*newToken) print(out *output, text string) error {
	if _, err := fmt.Fprint(out.out, text); err != nil {
		return fmt.Errorf("print token: %w", err)
	}
	return nil
}

// entryLines writes the lines of an entry.
func entryLines(lines []string, by int) string {
	indent := strings.Repeat(" ", by)
	return indent + strings.Join(lines, "\n"+indent) + "\n"
}

// appendEntry adds an entry at the end of a tokens file and leaves the rest, comments included, as it is. The file is replaced in one step, so that a server that reads it
// meanwhile finds the old or the new one. A file that is not there is made for its owner alone.
func appendEntry(path, name string, fields []string) error {
	content, mode := []byte("tokens:\n"), fs.FileMode(0o600)
	target, err := filepath.EvalSymlinks(path) // a link stays a link
	switch {
	case errors.Is(err, fs.ErrNotExist):
		target = path
		content = append(content, entryLines(fields, 2)...)
	case err != nil:
		return err
	default:
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
		if content, err = os.ReadFile(target); err != nil {
			return err
		}
		if content, err = withEntry(content, name, fields); err != nil {
			return err
		}
	}
	return replace(target, content, mode)
}

// withEntry returns the content of a tokens file with one more entry at its end.
func withEntry(content []byte, name string, fields []string) ([]byte, error) {
	list, err := entries(content)
	if err != nil {
		return nil, err
	}
	for _, entry := range list.Content {
		if nameOf(entry) == name {
			return nil, fmt.Errorf("line %d has a token %s already: choose another --name, or remove that entry first", entry.Line, name)
		}
	}
	by := 2
	if len(list.Content) > 0 {
		by = list.Column - 1
	} else {
		// `tokens: []`, the only form of an empty list: what follows is a list without the brackets.
		content = bytes.Replace(content, []byte("[]"), nil, 1)
	}
	longer := bytes.TrimRight(content, " \n")
	longer = append(longer, '\n')
	longer = append(longer, entryLines(fields, by)...)
	// A list in brackets, or something behind the list, would now say something else.
	after, err := entries(longer)
	if err != nil || len(after.Content) != len(list.Content)+1 || nameOf(after.Content[len(list.Content)]) != name {
		return nil, errors.New("it does not end with the entries of `tokens:`, one `- name: ...` below the other: leave --file away and put the entry where it belongs")
	}
	return longer, nil
}

// entries returns the list of a tokens file.
func entries(content []byte) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil || len(document.Content) == 0 {
		return nil, errors.New("it is no tokens file: it must have a list `tokens:`")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || len(root.Content) != 2 || root.Content[0].Value != "tokens" || root.Content[1].Kind != yaml.SequenceNode {
		return nil, errors.New("it is no tokens file: it must have a list `tokens:` and nothing else")
	}
	return root.Content[1], nil
}

// nameOf is the name of an entry.
func nameOf(entry *yaml.Node) string {
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Value == "name" {
			return entry.Content[i+1].Value
		}
	}
	return ""
}

// replace writes a file beside its place and puts it there in one step, once it is on disk.
func replace(path string, content []byte, mode fs.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // what matters is why it is not in its place
		}
	}()
	_, err = file.Write(content)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
