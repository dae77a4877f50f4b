package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/activities"
	"switchback/workflows"
)

func (c *cli) start() *cobra.Command {
	start := &cobra.Command{
		Use: "start", Short: "Start a run",
		Long:    "Start a run of a runbook. 'switchback plan' says beforehand what it would do.",
		Example: `  switchback start planned orders --to west --reason "maintenance in east"`,
		Args:    unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(cmd, "say what to start: planned, unplanned, recover or failback")
		},
	}
	start.AddCommand(c.startPlanned(), c.startUnplanned(), c.startRecover(), c.startFailback())
	return start
}

func (c *cli) startPlanned() *cobra.Command {
	var in workflows.PlannedInput
	var how following
	cmd := &cobra.Command{
		Use:   "planned RUNBOOK --to CLUSTER --reason TEXT",
		Short: "Start a planned failover: nothing lost, nothing read twice",
		Long: `Start a planned failover of a runbook's workload. It checks everything, waits for approval where the runbook asks for it,
and then moves the workload; before the point of no return every step can be rolled back.

The command returns when the run has started. --watch shows how it goes, --wait only waits for its end; both exit with 1
unless the run completed.`,
		Example: `  switchback start planned orders --to west --reason "maintenance in east" --watch`,
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook, in.By = args[0], c.who()
			if in.To == "" || in.Reason == "" {
				return misused(cmd, "--to and --reason are needed: where to, and why")
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				return c.begin(ctx, t, how, "planned-"+in.Runbook, fmt.Sprintf("%s to %s: %s", in.Runbook, in.To, in.Reason), workflows.PlannedFailover, in)
			})
		},
	}
	c.byFlag(cmd)
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to move the workload to")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that it must be on now (default: what discovery says)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for approvers and the report")
	overrideFlag(cmd, &in.Override)
	how.flags(cmd, "planned")
	return cmd
}

func (c *cli) startUnplanned() *cobra.Command {
	var in workflows.UnplannedInput
	var how following
	var outage string
	cmd := &cobra.Command{
		Use:   "unplanned RUNBOOK --to CLUSTER --reason TEXT",
		Short: "Start an unplanned failover: the active cluster is gone, the loss is stated",
		Long: `Start an unplanned failover of a runbook's workload, when its cluster is gone or cut off. It assesses what would be lost,
waits for the approvals that the runbook asks for (two people by default), and then goes as fast as it can: what answers
is stopped and fenced, the rest is fenced as soon as it answers.

Records that the other cluster does not have are lost to the clients. 'switchback plan unplanned' says how many, and
changes nothing. Failing the mirrors over cannot be taken back.`,
		Example: `  switchback start unplanned orders --to west --reason "east is gone" --outage 02:57 --watch`,
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Runbook, in.By = args[0], c.who()
			switch {
			case in.To == "" || in.Reason == "":
				return misused(cmd, "--to and --reason are needed: where to, and why")
			case in.Clients != workflows.ClientsGoOn && in.Clients != workflows.ClientsWait:
				return misused(cmd, "--clients %s: use go-on or wait", in.Clients)
			}
			if in.Outage, err = instant(outage, c.now()); err != nil {
				return misused(cmd, "--outage %s: %v", outage, err)
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				return c.begin(ctx, t, how, "unplanned-"+in.Runbook, fmt.Sprintf("%s to %s, unplanned: %s", in.Runbook, in.To, in.Reason), workflows.UnplannedFailover, in)
			})
		},
	}
	c.byFlag(cmd)
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to move the workload to")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that it must be on now (default: what discovery says)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for approvers and the report")
	cmd.Flags().StringVar(&outage, "outage", "", "when the cluster was lost: 2026-03-14T02:57:00Z, or 02:57 for the last time that it was so late here, or 5m for so long ago")
	cmd.Flags().StringVar(&in.Clients, "clients", workflows.ClientsGoOn, "about instances that cannot be reached: go-on names them, wait parks for them")
	_ = cmd.RegisterFlagCompletionFunc("clients", cobra.FixedCompletions([]string{workflows.ClientsGoOn, workflows.ClientsWait}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	overrideFlag(cmd, &in.Override)
	how.flags(cmd, "unplanned")
	return cmd
}

// instant reads when something was, as people say it at night. Empty is the zero time.
func instant(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if ago, is := time.ParseDuration(s); is == nil {
		at, err = now.Add(-ago), nil
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if clock, is := time.Parse(layout, s); is == nil {
			y, m, d := now.Date()
			at, err = time.Date(y, m, d, clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location()), nil
			if at.After(now) {
				at = at.AddDate(0, 0, -1)
			}
		}
	}
	switch {
	case err != nil:
		return at, errors.New("use a time such as 2026-03-14T02:57:00Z, 02:57, or 5m for so long ago")
	case at.After(now):
		return at, fmt.Errorf("%s is in the future", at.Format(time.RFC3339))
	}
	return at.UTC(), nil
}

func overrideFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "override", "", "why a second switch within gates.antiFlap of the last one is right")
}

// following is what a command that starts a run does after that.
type following struct {
	id          string
	watch, wait bool
}

func (h *following) flags(cmd *cobra.Command, kind string) {
	cmd.Flags().StringVar(&h.id, "workflow-id", "", "workflow id (default: "+kind+"-RUNBOOK-TIME)")
	cmd.Flags().BoolVarP(&h.watch, "watch", "w", false, "show how it goes until it ends")
	cmd.Flags().BoolVar(&h.wait, "wait", false, "wait until it ends")
}

// begin starts a run and follows it as far as was asked.
func (c *cli) begin(ctx context.Context, t client.Client, how following, name, summary string, workflow, in any) error {
	if none := c.worked(ctx, t); none != nil {
		fmt.Fprintf(c.stderr, "switchback: the run begins when a worker does: %v\n", none)
	}
	id := how.id
	if id == "" {
		id = fmt.Sprintf("%s-%s", name, c.now().UTC().Format("20060102-150405"))
	}
	run, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: c.taskQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true, // or the other run would be taken for this one
		WorkflowTaskTimeout:                      activities.TaskTimeout,
		StaticSummary:                            summary,
	}, workflow, in)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if !how.watch && !how.wait {
		if c.output == "json" {
			return c.json(map[string]string{"workflowId": run.GetID(), "runId": run.GetRunID()})
		}
		_, err := fmt.Fprintf(c.stdout, "Started %s\nFollow it:  switchback status %s --watch\n", id, id)
		return err
	}
	if how.watch {
		if err := c.watch(ctx, t, id); err != nil && !errors.Is(err, errNotWell) {
			return err
		}
	}
	return c.outcome(ctx, run)
}

// outcome waits for the end and prints how it was; anything but completed is not well.
func (c *cli) outcome(ctx context.Context, run client.WorkflowRun) error {
	var r workflows.Result
	err := run.Get(ctx, &r)
	var failed *temporal.ApplicationError
	if errors.As(err, &failed) && failed.HasDetails() {
		if decoding := failed.Details(&r); decoding != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if c.output == "json" {
		if err := c.json(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.stdout, "%s: %s\n", r.Outcome, r.Sentence)
		if r.Markdown != "" {
			fmt.Fprintf(c.stdout, "report (on the worker): %s\n", r.Markdown)
		}
	}
	if r.Outcome != workflows.Completed {
		return errNotWell
	}
	return nil
}
