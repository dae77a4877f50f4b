package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"switchback/lab/kafka"
	"switchback/lab/linkservice"
	"switchback/lab/servers"
)

// served are the servers that live in this program.
var served = map[string]func(ctx context.Context, file string) error{
	"kafka": from(kafka.Serve),
	"link":  from(linkservice.Serve),
	"vault": from(servers.ServeVault),
}

// from reads a server's settings from a file before it is served: they hold passwords, which arguments must not.
func from[C any](serve func(context.Context, C) error) func(context.Context, string) error {
	return func(ctx context.Context, file string) error {
		var config C
		if err := servers.ReadJSON(file, &config); err != nil {
			return fmt.Errorf("read the settings: %w", err)
		}
		return serve(ctx, config)
	}
}

func serveCommand() *cobra.Command {
	kinds := slices.Sorted(maps.Keys(served))
	return &cobra.Command{
		Use: "serve KIND FILE", Short: "Run one server in this process, with the settings of a file; what `lab up` starts",
		Hidden: true, Args: names(2, 2, fmt.Sprintf("a kind, one of %v, and a settings file", kinds)),
		RunE: func(cmd *cobra.Command, args []string) error {
			serve, ok := served[args[0]]
			if !ok {
				return fmt.Errorf("%w: there is no server %q, only %v", errUsage, args[0], kinds)
			}
			return serve(cmd.Context(), args[1])
		},
	}
}
