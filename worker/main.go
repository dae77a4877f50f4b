// Command worker runs Switchback's workflows and activities. It is the composition root: the only place that knows every
// adapter. Start reading at run; settings.go says what can be set, systems.go opens what
// activities ask for over the connections of kept.go, metrics.go serves /metrics.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
