package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"golang.org/x/term"
)

// cli is what every command shares: where Temporal is, how to print, who asks.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       bool // stdout is one
	now            func() time.Time
	dial           func(context.Context, *cli) (client.Client, error)

	address, namespace, taskQueue     string
	tls                               bool
	tlsCA, tlsCert, tlsKey, tlsServer string
	output                            string
	by                                string
	timeout                           time.Duration
}

// errNotWell ends a command with exit code 1 after it has said all there is to say.
var errNotWell = errors.New("")

// usageError ends a command with exit code 2.
type usageError struct {
	error
	command string // whose --help tells more
}

// run is the whole program: 0 done, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, now: time.Now, dial: dialTemporal}
	if f, ok := stdout.(*os.File); ok {
		c.terminal = term.IsTerminal(int(f.Fd()))
	}
	return c.run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	err := root.ExecuteContext(ctx)
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotWell):
		return 1
	case errors.As(err, &wrong):
		fmt.Fprintf(c.stderr, "switchback: %v\nRun '%s --help' for usage.\n", err, wrong.command)
		return 2
	case ctx.Err() != nil:
		fmt.Fprintln(c.stderr, "switchback: interrupted. What was started goes on: see 'switchback runs'.")
		return 1
	}
	fmt.Fprintf(c.stderr, "switchback: %s\n", c.explain(err))
	return 1
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "switchback",
		Short: "Move a Kafka workload from one cluster to another, and see how it goes",
		Long: `Switchback runs the failover runbooks of Apache Kafka as Temporal workflows.

A planned failover, from a desk:
  switchback validate runbooks/orders.yaml       is the file right?
  switchback plan planned orders --to west       what would happen? Changes nothing.
  switchback start planned orders --to west --reason "maintenance in east" --watch
  switchback approve orders --reason "agreed"    by somebody else than who started it
  switchback status orders --watch
  switchback report orders

Between switches:
  switchback protect orders --dry-run            what is not as it should be? Changes nothing.
  switchback protect orders                      mend that, and say what is left

When the active cluster is gone:
  switchback plan unplanned orders --to west     what would be lost? Changes nothing.
  switchback start unplanned orders --to west --reason "east is gone" --outage 02:57 --watch

When it is back, with records that nobody else has:
  switchback plan recover orders                 what is stranded there? Changes nothing.
  switchback start recover orders --reason "east is back" --watch

Home again:
  switchback plan failback orders                how, and what would go? Changes nothing.
  switchback start failback orders --reason "east is well again" --watch

RUN, where a command asks for one, is a workflow id, or the name of a runbook: then its present or last run is meant.
Exit codes: 0 done, 1 failed or not well, 2 wrong usage.`,
		Example:      "  switchback start planned orders --to west --reason \"maintenance in east\" --watch",
		SilenceUsage: true, SilenceErrors: true,
		Version: version(),
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case c.output != "text" && c.output != "json":
				return misused(cmd, "-o %s: use text or json", c.output)
			case c.timeout <= 0:
				return misused(cmd, "--timeout %s: use a duration above zero, such as 30s", c.timeout)
			}
			return nil
		},
	}
	root.SetVersionTemplate("switchback {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err, cmd.CommandPath()} })
	f := root.PersistentFlags()
	f.StringVar(&c.address, "address", c.env("TEMPORAL_ADDRESS", "127.0.0.1:7233"), "host:port of Temporal (TEMPORAL_ADDRESS)")
	f.StringVarP(&c.namespace, "namespace", "n", c.env("TEMPORAL_NAMESPACE", "default"), "Temporal namespace (TEMPORAL_NAMESPACE)")
	f.StringVar(&c.taskQueue, "task-queue", c.env("SWITCHBACK_TASK_QUEUE", "switchback"), "task queue of the workers (SWITCHBACK_TASK_QUEUE)")
	f.BoolVar(&c.tls, "tls", c.env("TEMPORAL_TLS", "") == "true", "use TLS to Temporal; the files below imply it (TEMPORAL_TLS=true)")
	f.StringVar(&c.tlsCA, "tls-ca-path", c.env("TEMPORAL_TLS_CA", ""), "PEM file of authorities to trust for Temporal (TEMPORAL_TLS_CA)")
	f.StringVar(&c.tlsCert, "tls-cert-path", c.env("TEMPORAL_TLS_CERT", ""), "PEM file of the client certificate (TEMPORAL_TLS_CERT)")
	f.StringVar(&c.tlsKey, "tls-key-path", c.env("TEMPORAL_TLS_KEY", ""), "PEM file of its key (TEMPORAL_TLS_KEY)")
	f.StringVar(&c.tlsServer, "tls-server-name", c.env("TEMPORAL_TLS_SERVER_NAME", ""), "name to expect in its certificate (TEMPORAL_TLS_SERVER_NAME)")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for an answer of Temporal or of a worker")
	root.AddCommand(c.validate(), c.plan(), c.protect(), c.start(), c.status(), c.watchRunbook(), c.runs(), c.report())
	root.AddCommand(c.orders()...)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return root
}

func (c *cli) env(key, otherwise string) string {
	if v := c.getenv(key); v != "" {
		return v
	}
	return otherwise
}

func misused(cmd *cobra.Command, text string, args ...any) error {
	return usageError{fmt.Errorf(text, args...), cmd.CommandPath()}
}

// unknownCommand is for commands that only have commands below them.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return misused(cmd, "unknown command %q, did you mean %q?", args[0], near[0])
	}
	return misused(cmd, "unknown command %q", args[0])
}

// exactly is cobra.ExactArgs with the exit code of wrong usage.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return misused(cmd, "%s needs %s, and got %d arguments", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// version is that of the module, and the revision that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return info.Main.Version + " " + s.Value[:12]
		}
	}
	return info.Main.Version
}

// json prints v as indented JSON.
func (c *cli) json(v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// colours says whether to use them: only on a terminal, and not against NO_COLOR.
func (c *cli) colours() bool {
	return c.terminal && c.getenv("NO_COLOR") == ""
}
