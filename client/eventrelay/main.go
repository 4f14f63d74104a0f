// Command eventrelay is the command line beside the server: it prints events as they come and posts sample notifications.
//
// Every flag can also be given as an environment variable, EVENTRELAY_ and the flag's name: --server is EVENTRELAY_SERVER. It exits with 0 when it did what was
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
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
