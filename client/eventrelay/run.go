package main

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	Tokens  tokens  `cmd:"" help:"Make the tokens that callers of a server show."`
}

// output is where a command writes: results to out, everything else to diag.
type output struct {
	out  io.Writer
	diag io.Writer
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
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &output{out: stdout, diag: stderr}
	exited := -1
	parser, err := kong.New(&commands{},
		kong.Name("eventrelay"),
		kong.Description("Read the events of an eventrelay server and try it out. Every flag is also read from the environment, as EVENTRELAY_<FLAG>."),
		kong.DefaultEnvars("EVENTRELAY"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
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
		out.note("%v", err)
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
