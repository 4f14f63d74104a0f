// Command eventrelay is the command line beside the server: it prints events as they come and as they are stored, posts sample notifications, and manages
// sources and what their providers have subscribed.
//
// Every flag can also be given as an environment variable, EVENTRELAY_ and the flag's name: --server is EVENTRELAY_SERVER. (What `sources update` changes is told by
// its arguments alone: a variable that is left over from another command must not change a source.) It exits with 0 when it did what was
// asked, with 1 when that failed, and with 2 when what was asked makes no sense.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills, should the first not be enough
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
