// Command lab is the whole of what Switchback works with, on one machine: see `lab --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"switchback/lab/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
