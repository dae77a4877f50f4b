package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/replication"
	"switchback/workflows"
)

// protecting bounds the wait: mirrors are made one by one.
const protecting = 15 * time.Minute

func (c *cli) protect() *cobra.Command {
	var in workflows.ProtectRequest
	cmd := &cobra.Command{
		Use:   "protect RUNBOOK",
		Short: "Make or repair what protects a workload between switches",
		Long: `Protect compares what stands with what the runbook needs: the link or its connectors, a mirror for each topic, offset sync, ACL sync,
configs that drifted, Switchback's own topics, the closed standby of MirrorMaker 2, the clients' logins.

It shows each difference, mends those that it can, changes nothing else, looks again, and ends with what is left for you. It waits
for nobody: while a run holds the runbook it says so and changes nothing. With nothing to do it writes nothing, so that it may run
on a schedule.

With --dry-run it only shows, with an id for each difference; --apply then mends those that you name, if they are still what was
shown. It exits with 1 when protection does not stand at its end.`,
		Example: "  switchback protect orders --dry-run\n  switchback protect orders\n  switchback protect orders --apply 1f0c9ab34d21,77e01b9a6c3f",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook, in.By = args[0], c.who()
			if in.DryRun && len(in.Apply) > 0 {
				return misused(cmd, "--apply mends and --dry-run changes nothing: use one of them")
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if err := c.worked(ctx, t); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, max(c.timeout, protecting))
				defer cancel()
				return c.protected(ctx, t, in)
			})
		},
	}
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "show the differences and change nothing")
	cmd.Flags().StringSliceVar(&in.Apply, "apply", nil, "ids of the differences to mend, as --dry-run shows them (default: all that can be mended)")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that the workload must be on now (default: what discovery says)")
	cmd.Flags().StringVar(&in.To, "to", "", "its standby (default: the only one that a link of the runbook leads to)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for the record")
	return cmd
}

// protected runs the workflow and shows what it found and did.
func (c *cli) protected(ctx context.Context, t client.Client, in workflows.ProtectRequest) error {
	id := fmt.Sprintf("protect-%s-%s", in.Runbook, c.now().UTC().Format("20060102-150405.000"))
	summary := "Protection of " + in.Runbook
	if in.DryRun {
		summary = "Dry run: " + summary
	}
	run, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: c.taskQueue, WorkflowTaskTimeout: activities.TaskTimeout, StaticSummary: summary,
	}, workflows.Protect, in)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	var out workflows.Protected
	if err := run.Get(ctx, &out); err != nil {
		return fmt.Errorf("protect %s: %w", in.Runbook, err)
	}
	return c.told(out, func() { c.showProtected(in, out) }, out.Stands || out.Yielded)
}

func (c *cli) showProtected(in workflows.ProtectRequest, out workflows.Protected) {
	became := map[string]replication.Outcome{}
	for _, o := range out.Mended {
		became[o.Name] = o
	}
	for i, d := range out.Found {
		fmt.Fprintf(c.stdout, "%-7s  %s\n         is         %s\n         should be  %s\n", d.Level, strings.TrimSpace(d.Kind+" "+d.Name), d.Is, d.Should)
		o, touched := became[out.IDs[i]]
		switch {
		case !d.Mendable():
			fmt.Fprintf(c.stdout, "         for you    %s\n", d.Do)
		case in.DryRun:
			fmt.Fprintf(c.stdout, "         %s  would %s\n", out.IDs[i], d.Mend)
		case touched && o.Status == replication.OK:
			fmt.Fprintf(c.stdout, "         mended     %s\n", d.Mend)
		case touched:
			fmt.Fprintf(c.stdout, "         not mended %s\n", o.Reason)
		default:
			fmt.Fprintf(c.stdout, "         not mended it was not asked for, or it was gone\n")
		}
	}
	if out.More > 0 {
		fmt.Fprintf(c.stdout, "and %d more, which another run shows\n", out.More)
	}
	if len(out.Found) > 0 {
		fmt.Fprintln(c.stdout)
	}
	fmt.Fprintf(c.stdout, "%s.\n", out.Text)
}
