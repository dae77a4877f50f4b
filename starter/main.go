// Command switchback is the operator's command line: it validates runbooks and asks Temporal to plan, start, watch and
// steer runs. It talks to Temporal only, never to Kafka, Consul or Vault. Start reading at root in cli.go; each command
// is in the file of its name, what all of them ask Temporal in temporal.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
