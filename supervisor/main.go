// Command supervisor wraps a client program: it follows Consul and Vault, renders what the program needs to reach its
// cluster, starts it, moves it to a new epoch, stops it when it is asked to, and says what it does.
//
// Start reading at loop.decide, which is the whole behaviour; follow.go is where its knowledge comes from, prepare.go
// what happens before a start, child.go the process, render.go what it is given, command.go the command line.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), stdio{os.Stdin, os.Stdout, os.Stderr}))
}
