// Command eventrelayd receives the webhooks of Meta and 360dialog, makes them durable, and streams them as typed events.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// start parses the configuration, serves until ctx ends, and returns the exit code.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c config
	exited, exitCode := false, 0
	parser, err := kong.New(&c,
		kong.Name("eventrelayd"),
		kong.Description("Receives the webhooks of Meta and 360dialog, makes them durable, and streams them as typed events."),
		kong.DefaultEnvars("EVENTRELAY"),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited, exitCode = true, code }), // --help
	)
	if err != nil {
		fmt.Fprintln(stderr, "eventrelayd:", err)
		return exitFailure
	}
	_, err = parser.Parse(args)
	switch {
	case exited:
		return exitCode
	case err != nil:
		fmt.Fprintln(stderr, "eventrelayd:", err)
		return exitUsage
	}
	tune()
	logger := newLogger(c, stderr)
	s, err := open(ctx, c, logger)
	if err != nil {
		logger.Error("start", "error", err)
		return exitFailure
	}
	if c.Dev {
		fmt.Fprint(stdout, s.hint())
	}
	if err := s.serve(ctx); err != nil {
		logger.Error("stopped", "error", err)
		return exitFailure
	}
	return 0
}

// newLogger returns the logger that the configuration asks for.
func newLogger(c config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
