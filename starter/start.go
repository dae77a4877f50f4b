package main

import (
	"context"
	"errors"
	"fmt"

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
		RunE:    func(cmd *cobra.Command, _ []string) error { return misused(cmd, "say what to start: planned") },
	}
	start.AddCommand(c.startPlanned())
	return start
}

func (c *cli) startPlanned() *cobra.Command {
	var in workflows.PlannedInput
	var id string
	var watch, wait bool
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
				if none := c.worked(ctx, t); none != nil {
					fmt.Fprintf(c.stderr, "switchback: the run begins when a worker does: %v\n", none)
				}
				if id == "" {
					id = fmt.Sprintf("planned-%s-%s", in.Runbook, c.now().UTC().Format("20060102-150405"))
				}
				run, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
					ID: id, TaskQueue: c.taskQueue, WorkflowTaskTimeout: activities.TaskTimeout,
					WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
					WorkflowExecutionErrorWhenAlreadyStarted: true, // or the other run would be taken for this one
					StaticSummary:                            fmt.Sprintf("%s to %s: %s", in.Runbook, in.To, in.Reason),
				}, workflows.PlannedFailover, in)
				if err != nil {
					return fmt.Errorf("start %s: %w", id, err)
				}
				if !watch && !wait {
					if c.output == "json" {
						return c.json(map[string]string{"workflowId": run.GetID(), "runId": run.GetRunID()})
					}
					_, err := fmt.Fprintf(c.stdout, "Started %s\nFollow it:  switchback status %s --watch\n", id, id)
					return err
				}
				if watch {
					if err := c.watch(ctx, t, id); err != nil && !errors.Is(err, errNotWell) {
						return err
					}
				}
				return c.outcome(ctx, run)
			})
		},
	}
	c.byFlag(cmd)
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to move the workload to")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that it must be on now (default: what discovery says)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for approvers and the report")
	cmd.Flags().StringVar(&id, "workflow-id", "", "workflow id (default: planned-RUNBOOK-TIME)")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show how it goes until it ends")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it ends")
	return cmd
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
