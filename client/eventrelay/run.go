package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// The exit codes, as the shell's own tools use them.
const (
	exitDone    = 0
	exitFailure = 1
	exitUsage   = 2
)

// commands is the command line: a field per command.
type commands struct {
	Tail    tail    `cmd:"" help:"Print events, past and coming."`
	Trigger trigger `cmd:"" help:"Post a signed sample notification to a source, as its provider would."`
	Forward forward `cmd:"" help:"Post the events again to an HTTP endpoint, in order, as their providers would."`
	Tokens  tokens  `cmd:"" help:"Make the tokens that callers of a server show."`

	Sources       sources           `cmd:"" help:"Create, connect, check and change the sources that notifications are accepted for."`
	Subscriptions subscriptions     `cmd:"" help:"Create, watch, consume and mend durable subscriptions."`
	Events        storedEvents      `cmd:"" help:"List stored events, and what providers send beyond the schema."`
	Meta          metaSubscriptions `cmd:"" help:"See and change Meta's own subscriptions, one call at a time."`
	Dialog360     dialog360         `cmd:"" name:"dialog360" help:"See and change 360dialog's own webhook settings, one call at a time."`
}

// output is where a command writes: results to out, everything else to diag; and in, for what it is told while it runs.
type output struct {
	in   io.Reader
	out  io.Writer
	diag io.Writer

	drained string // the flag that in was read for
}

// note tells something beside the results.
func (o *output) note(format string, args ...any) {
	// A note that cannot be written has no one to be told to.
	_, _ = fmt.Fprintln(o.diag, "eventrelay: "+visible(fmt.Sprintf(format, args...)))
}

// usageError is an error in what was asked for, so that it exits with exitUsage.
type usageError struct{ error }

// Unwrap gives the error itself.
func (e usageError) Unwrap() error { return e.error }

// usagef makes a usage error, which names the flag and what to give instead.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run does what args say and returns the exit code. It ends early, and cleanly, when ctx is done.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{in: stdin, out: stdout, diag: stderr}
	exited := -1
	parser, err := kong.New(&commands{},
		kong.Name("eventrelay"),
		kong.Description("Read the events of an eventrelay server, try it out, and manage its sources. Every flag is also read from the environment, as EVENTRELAY_<FLAG>."),
		kong.DefaultEnvars("EVENTRELAY"),
		kong.Vars{"secret": secretForms},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }), // --help wants to exit; parsing then goes on to an end that no longer matters
	)
	if err != nil {
		out.note("%v", err)
		return exitFailure
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		out.note("%v", surplus(err))
		out.note("`eventrelay --help` and `eventrelay <command> --help` show what there is")
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(out)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usageError{}):
		out.note("%v", err)
		return exitUsage
	default:
		out.note("%v", err)
		return exitFailure
	}
}

// surplus takes an argument that a command has no use for out of an error of the parser, and leaves other errors as they are: it may be a secret whose flag was
// forgotten. A word that should have been a command is still shown.
func surplus(err error) error {
	var parsing *kong.ParseError
	if !errors.As(err, &parsing) || !strings.HasPrefix(err.Error(), "unexpected argument ") {
		return err
	}
	command := parsing.Context.Selected()
	if command == nil {
		return err
	}
	return fmt.Errorf("an argument too many for `eventrelay %s` (not shown)", command.Path())
}
