// Package cli is the command `lab`: up, down, status, kill, start, logs, env, and serve for the servers that live in
// this program.
//
// Start reading at Root. A lab that was brought up runs under a keeper (keeper.go), a process of its own that answers
// on a socket in the lab's folder; the other commands ask it. What a lab is made of is package setup's affair.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"switchback/lab/clients"
)

// errUsage marks errors that are about how a command was written.
var errUsage = errors.New("usage")

// Run runs one command. It returns 0 when it is done, 1 when it failed, 2 when it was written wrongly.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := Root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "lab: %v\nSee `lab --help`.\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "lab: %v\n", err)
	return 1
}

// Root is the command with all of its sub-commands.
func Root() *cobra.Command {
	root := &cobra.Command{
		Use: "lab", Short: "Every server that Switchback works with, on this machine",
		Long: `lab runs a Temporal with its UI, a Consul, a Vault, two Kafka clusters with SASL and ACLs, a Cluster Linking service
between them, the worker, and sample clients, each as a process of its own that can be killed and started again. With
--kafka=apache the clusters are Apache Kafka, and with --link=mirrormaker MirrorMaker 2 mirrors one to the other.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: there is no command %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().String("dir", "out/lab", "the lab's folder: state, secrets, logs")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(upCommand(), keepCommand(), downCommand(), statusCommand(), killCommand(), startCommand(), logsCommand(), envCommand(), serveCommand(), demoCommand(), verdictCommand(), provisionCommand(), clients.Command(os.Getenv))
	return root
}

// names is a cobra argument check with a sentence.
func names(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%w: lab %s wants %s", errUsage, cmd.Name(), what)
		}
		return nil
	}
}

func dirOf(cmd *cobra.Command) string {
	dir, _ := cmd.Flags().GetString("dir") // it has a default
	return dir
}
