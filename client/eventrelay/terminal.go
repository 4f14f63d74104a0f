package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxInput is how much of standard input or of a file is read for one value: any secret, and a source with its headers, is far below it.
const maxInput = 1 << 20

// terminalWidth gives the columns of the terminal that w writes to, 0 if it is none.
func terminalWidth(w io.Writer) int {
	if fd, ok := terminal(w); ok {
		if width, _, err := term.GetSize(fd); err == nil {
			return width
		}
	}
	return 0 // a pipe or a file
}

// colorful reports whether w is a terminal that shows colours to a person who has nothing against them (https://no-color.org).
func colorful(w io.Writer) bool {
	_, shown := terminal(w)
	return shown && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// terminal gives the descriptor of a terminal, and whether it is one.
func terminal(stream any) (fd int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// sure asks a person whether to go on; any other answer than yes is an error. Without a terminal there is nobody to ask, and the error names the flag that says it
// beforehand.
func (o *output) sure(ctx context.Context, question string) error {
	if _, ok := terminal(o.in); !ok {
		return usagef("%s Standard input is no terminal to ask at: add --yes", question)
	}
	if _, err := fmt.Fprintf(o.diag, "%s [y/N] ", visible(question)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := awaited(ctx, func() (string, error) {
		// Byte by byte, so that what follows the line is left for whoever reads next.
		var line strings.Builder
		for one := make([]byte, 1); line.Len() < 64; {
			n, err := o.in.Read(one)
			if n == 0 || one[0] == '\n' {
				return line.String(), err
			}
			line.WriteByte(one[0])
		}
		return line.String(), nil
	})
	answer = strings.ToLower(strings.TrimSpace(answer))
	switch {
	case answer == "y", answer == "yes":
		return nil
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("no answer: %w", err)
	default:
		return errors.New("not done: the answer was not yes")
	}
}

// secretInput reads the value of a flag from standard input. A terminal does not show what is typed there.
func (o *output) secretInput(ctx context.Context, flag string) (string, error) {
	if o.drained != "" {
		return "", usagef("%s: standard input is read for %s already; give one of them as @FILE", flag, o.drained)
	}
	o.drained = flag
	fd, ok := terminal(o.in)
	if !ok {
		text, err := awaited(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(o.in, maxInput+1)) })
		if err != nil {
			return "", fmt.Errorf("%s: read standard input: %w", flag, err)
		}
		return string(text), nil
	}
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("%s: read standard input: %w", flag, err)
	}
	if _, err := fmt.Fprintf(o.diag, "%s (not shown): ", flag); err != nil {
		return "", fmt.Errorf("ask for %s: %w", flag, err)
	}
	text, err := awaited(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	// An interrupt leaves the reader behind, and with it a terminal that shows nothing.
	if restored := term.Restore(fd, before); err == nil {
		err = restored
	}
	if _, wrote := fmt.Fprintln(o.diag); err == nil {
		err = wrote
	}
	if err != nil {
		return "", fmt.Errorf("%s: read standard input: %w", flag, err)
	}
	return string(text), nil
}

// awaited gives what read does, or the end of ctx if that comes first: reading a terminal or a pipe cannot be interrupted otherwise. What is left behind then ends
// with the program.
func awaited[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
