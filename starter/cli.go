package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"switchback/activities"
	"switchback/workflows"
)

// cli is what every command shares: where Temporal is, how to print, who asks.
type cli struct {
	stdout, stderr io.Writer
	getenv         func(string) string

	address, namespace, taskQueue string
	tlsCA, tlsCert, tlsKey        string
	output                        string
	by                            string
	timeout                       time.Duration

	dial func(context.Context, *cli) (client.Client, error) // tests put their own here
}

// errNotWell ends a command with exit code 1 after it has said all there is to say.
var errNotWell = errors.New("")

// usageError ends a command with exit code 2.
type usageError struct{ error }

// run is the whole program: 0 done, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, _ io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr, getenv: getenv, dial: dial}
	return c.run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
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
		fmt.Fprintf(c.stderr, "switchback: %v\nRun 'switchback --help' for usage.\n", err)
		return 2
	}
	fmt.Fprintf(c.stderr, "switchback: %s\n", explain(err))
	return 1
}

// explain turns Temporal's errors into what an operator can act upon.
func explain(err error) string {
	var gone *serviceerror.NotFound
	var away *serviceerror.Unavailable
	switch {
	case errors.As(err, &gone):
		return fmt.Sprintf("%v\nList runs with 'switchback runs'.", err)
	case errors.As(err, &away), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%v\nIs Temporal at the address given (--address, TEMPORAL_ADDRESS), and is a worker running?", err)
	}
	return err.Error()
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

RUN, where a command asks for one, is a workflow id, or the name of a runbook: then its present or last run is meant.
Exit codes: 0 done, 1 failed or not well, 2 wrong usage.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "text" && c.output != "json" {
				return usageError{fmt.Errorf("-o %s: use text or json", c.output)}
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&c.address, "address", c.env("TEMPORAL_ADDRESS", "127.0.0.1:7233"), "host:port of Temporal (TEMPORAL_ADDRESS)")
	f.StringVarP(&c.namespace, "namespace", "n", c.env("TEMPORAL_NAMESPACE", "default"), "Temporal namespace (TEMPORAL_NAMESPACE)")
	f.StringVar(&c.taskQueue, "task-queue", c.env("SWITCHBACK_TASK_QUEUE", "switchback"), "task queue of the workers (SWITCHBACK_TASK_QUEUE)")
	f.StringVar(&c.tlsCA, "tls-ca-path", c.env("TEMPORAL_TLS_CA", ""), "PEM file of authorities to trust for Temporal (TEMPORAL_TLS_CA)")
	f.StringVar(&c.tlsCert, "tls-cert-path", c.env("TEMPORAL_TLS_CERT", ""), "PEM file of the client certificate (TEMPORAL_TLS_CERT)")
	f.StringVar(&c.tlsKey, "tls-key-path", c.env("TEMPORAL_TLS_KEY", ""), "PEM file of its key (TEMPORAL_TLS_KEY)")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for an answer of Temporal or of a worker")
	root.AddCommand(c.validate(), c.plan(), c.start(), c.status(), c.runs(), c.report())
	root.AddCommand(c.orders()...)
	return root
}

func (c *cli) env(key, otherwise string) string {
	if v := c.getenv(key); v != "" {
		return v
	}
	return otherwise
}

// exactly is cobra.ExactArgs with the exit code of wrong usage.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s needs %s, got %d arguments", cmd.CommandPath(), what, len(args))}
		}
		return nil
	}
}

// connected runs do with a client and a bounded context.
func (c *cli) connected(ctx context.Context, do func(context.Context, client.Client) error) error {
	dialing, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	t, err := c.dial(dialing, c)
	if err != nil {
		return fmt.Errorf("connect to Temporal at %s: %w", c.address, err)
	}
	defer t.Close()
	return do(ctx, t)
}

func dial(ctx context.Context, c *cli) (client.Client, error) {
	options := client.Options{
		HostPort: c.address, Namespace: c.namespace, Logger: slog.New(slog.DiscardHandler),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.WaitForReady(true))}},
	}
	if c.tlsCA != "" || c.tlsCert != "" {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.tlsCA != "" {
			pem, err := os.ReadFile(c.tlsCA)
			if err != nil {
				return nil, err
			}
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM(pem)
		}
		if c.tlsCert != "" {
			pair, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
			if err != nil {
				return nil, err
			}
			config.Certificates = []tls.Certificate{pair}
		}
		options.ConnectionOptions.TLS = config
	}
	return client.DialContext(ctx, options)
}

// resolve turns RUN into a workflow id: a runbook's name means its holder, or else its last run.
func (c *cli) resolve(ctx context.Context, t client.Client, run string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, err := t.QueryWorkflow(ctx, "runbook/"+run, "", activities.QueryEntity)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return run, nil // no runbook of that name has ever run: it is a workflow id
	}
	if err != nil {
		return "", fmt.Errorf("ask for the runs of %s: %w", run, err)
	}
	var entity activities.EntityStatus
	if err := answer.Get(&entity); err != nil {
		return "", fmt.Errorf("ask for the runs of %s: %w", run, err)
	}
	switch {
	case entity.Holder != nil:
		return entity.Holder.Run.WorkflowID, nil
	case entity.LastRun != nil:
		return entity.LastRun.WorkflowID, nil
	}
	return "", fmt.Errorf("runbook %s has had no run yet", run)
}

// statusOf asks a run how it is.
func (c *cli) statusOf(ctx context.Context, t client.Client, id string) (workflows.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var s workflows.Status
	answer, err := t.QueryWorkflow(ctx, id, "", workflows.QueryStatus)
	if err != nil {
		return s, fmt.Errorf("ask run %s for its status: %w", id, err)
	}
	return s, answer.Get(&s)
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
	f, ok := c.stdout.(*os.File)
	return ok && c.getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

// rootCause is what an activity said, without Temporal's wrapping.
func rootCause(err error) error {
	var said *temporal.ApplicationError
	if errors.As(err, &said) {
		return errors.New(said.Message())
	}
	return err
}
