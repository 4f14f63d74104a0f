package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// secret is the value of a flag that must not be shown: `@FILE` is what a file holds, `-` what standard input holds, anything else is the value itself. It is read
// when the command runs, and neither it nor the file's name is ever part of an error: a secret may begin with an @.
type secret string

// secretForms is what the help of such a flag says.
const secretForms = "@FILE, - for standard input, or the value itself (visible to others on this machine, and kept by the shell)"

// read gives the value. An empty one is an error: it would take away what was meant to be set.
func (s secret) read(ctx context.Context, flag string, out *output) (string, error) {
	text, err := s.text(ctx, flag, out)
	if err != nil {
		return "", err
	}
	// Editors and echo end a file with a line end that is no part of the secret.
	text = strings.TrimRight(text, "\r\n")
	switch {
	case text == "":
		return "", usagef("%s is empty: give %s", flag, secretForms)
	case strings.ContainsAny(text, "\r\n\x00"):
		return "", usagef("%s: it has more than one line; give the secret alone", flag)
	}
	return text, nil
}

// text gives what the value's source holds, as it is.
func (s secret) text(ctx context.Context, flag string, out *output) (string, error) {
	var text string
	switch name, file := strings.CutPrefix(string(s), "@"); {
	case s == "-":
		read, err := out.secretInput(ctx, flag)
		if err != nil {
			return "", err
		}
		text = read
	case file:
		content, err := os.Open(name)
		if err != nil {
			return "", usagef("%s: open the file behind the @: %w", flag, nameless(err))
		}
		read, err := io.ReadAll(io.LimitReader(content, maxInput+1))
		if err := errors.Join(err, content.Close()); err != nil {
			return "", usagef("%s: read the file behind the @: %w", flag, nameless(err))
		}
		text = string(read)
	default:
		text = string(s)
	}
	if len(text) > maxInput {
		return "", usagef("%s is over %d MiB", flag, maxInput>>20)
	}
	return text, nil
}

// nameless takes the file's name out of an error.
func nameless(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// readAll gives the values of a flag that may be repeated.
func readAll(ctx context.Context, flag string, secrets []secret, out *output) ([]string, error) {
	var all []string
	for _, s := range secrets {
		text, err := s.read(ctx, flag, out)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// readHeaders gives the HTTP headers of --header: each value is `Name: value`, or holds lines of that form where it is a file or standard input.
func readHeaders(ctx context.Context, secrets []secret, out *output) (map[string]string, error) {
	const flag = "--header"
	headers := make(map[string]string)
	for _, s := range secrets {
		text, err := s.text(ctx, flag, out)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			name, value, ok := strings.Cut(line, ":")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			if !ok || name == "" || value == "" {
				// What stands there may be the secret, so it is not repeated.
				return nil, usagef("%s: give 'Name: value', or lines of that form as @FILE or - (standard input)", flag)
			}
			if _, twice := headers[name]; twice {
				return nil, usagef("%s: %s is given twice", flag, name)
			}
			headers[name] = value
		}
	}
	if len(secrets) > 0 && len(headers) == 0 {
		return nil, usagef("%s is empty: give 'Name: value', or lines of that form as @FILE or - (standard input)", flag)
	}
	return headers, nil
}

// keyValues reads flags of the form `KEY=VALUE`.
func keyValues(flag string, texts []string) (map[string]string, error) {
	pairs := make(map[string]string)
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("%s %q: give KEY=VALUE", flag, text)
		}
		if _, twice := pairs[key]; twice {
			return nil, usagef("%s: %s is given twice", flag, key)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// resource gives the name of a source, and checks its id where it is typed: `shop` and `sources/shop` are the same.
func resource(id string) (string, error) {
	short := strings.TrimPrefix(id, "sources/")
	if !sourceID.MatchString(short) {
		return "", usagef("%q is no source: give its id, 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit", id)
	}
	return "sources/" + short, nil
}
