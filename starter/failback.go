package main

import (
	"context"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/workflows"
)

func (c *cli) planFailback() *cobra.Command {
	var in workflows.FailbackInput
	var all bool
	cmd := &cobra.Command{
		Use:   "failback RUNBOOK",
		Short: "Say how a workload would go home, and what would be truncated, deleted and copied for that",
		Long: `Plan looks at both clusters and at the link, and says which way home there is: topics that are truncated to the marks and
restored as mirrors, topics that are deleted and mirrored whole, connectors that go on at the marks, or an empty cluster that
is mirrored from the start. It names by topic what would go, how much of that exists nowhere else, and how much is copied.

It takes no lock and changes nothing. It exits with 1 when a failback could not go now.`,
		Example: "  switchback plan failback orders\n  switchback plan failback orders --fail-forward",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook = args[0]
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if err := c.worked(ctx, t); err != nil {
					return err
				}
				p, err := dryRun[workflows.FailbackPlan](ctx, c, t, "plan-failback", "Dry run, failback", in.Runbook, or(in.To, "home"), workflows.PlanFailback, in)
				if err != nil {
					return err
				}
				return c.told(p, func() { c.showFailback(p, all) }, p.GoesIfNow)
			})
		},
	}
	failbackFlags(cmd, &in)
	cmd.Flags().BoolVar(&all, "all", false, "show the checks that are well, too")
	return cmd
}

func (c *cli) startFailback() *cobra.Command {
	var in workflows.FailbackInput
	var how following
	cmd := &cobra.Command{
		Use:   "failback RUNBOOK --reason TEXT",
		Short: "Take a workload home: recover what is stranded, turn the mirror round, go home, protect it again",
		Long: `Start the way home of a runbook's workload, when the cluster that it left is back and fenced:

  recover       what is stranded there is brought back first, as 'switchback start recover' does
  turn round    the cluster that was left mirrors where the workload is; what goes for that was shown and approved
  go home       a planned failover, which loses nothing
  protect       the mirror runs again as it did before all this

Each part stands for itself. A run that is aborted or fails leaves what it did, and a later one goes on from there.
With --fail-forward the workload stays where it is, and the other cluster protects it from then on.

Records that exist nowhere else never go unless their topic is named by --accept-loss, and an approver has seen it.`,
		Example: `  switchback plan failback orders
  switchback start failback orders --reason "east is well again" --watch
  switchback start failback orders --no-recovery --accept-loss audit --reason "audit's tail is worthless"`,
		Args: exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook, in.By = args[0], c.who()
			if in.Reason == "" {
				return misused(cmd, "--reason is needed: why, for approvers and the report")
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				return c.begin(ctx, t, how, "failback-"+in.Runbook, fmt.Sprintf("%s, failback: %s", in.Runbook, in.Reason), workflows.Failback, in)
			})
		},
	}
	c.byFlag(cmd)
	failbackFlags(cmd, &in)
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for approvers and the report")
	cmd.Flags().StringVar(&in.Override, "override", "", "why a second switch soon after the last one is right (gates.antiFlap)")
	how.flags(cmd, "failback")
	return cmd
}

func failbackFlags(cmd *cobra.Command, in *workflows.FailbackInput) {
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to go to (default: the runbook's home; with --fail-forward the other one)")
	cmd.Flags().BoolVar(&in.FailForward, "fail-forward", false, "stay where the workload is, and protect it anew")
	cmd.Flags().BoolVar(&in.NoRecovery, "no-recovery", false, "leave out the recovery of what is stranded")
	cmd.Flags().StringSliceVar(&in.AcceptLoss, "accept-loss", nil, "topics whose stranded records may go although they exist nowhere else, or are lost for ever already")
}

// showFailback leads with the way, and with what goes for it.
func (c *cli) showFailback(p workflows.FailbackPlan, all bool) {
	fmt.Fprintf(c.stdout, "Failback of %s from %s to %s, epoch %d (runbook sha256 %.12s)\n\n%s\n", p.Runbook, p.From, p.To, p.Epoch, p.SHA256, or(p.Turn.Text, "How it would go could not be found out."))
	if len(p.Turn.Worst) > 0 {
		t := table.NewWriter()
		t.SetOutputMirror(c.stdout)
		t.SetStyle(table.StyleLight)
		t.AppendHeader(table.Row{"topic", "now", "goes", "exists nowhere else", "lost for ever", "copied"})
		for _, one := range p.Turn.Worst {
			t.AppendRow(table.Row{one.Topic, one.State, max(one.Goes, one.Deleted), one.Unsaved, one.Gone(), one.Copy})
		}
		t.Render()
	}
	fmt.Fprintln(c.stdout)
	c.showSteps(p.Steps)
	c.showFindings(p.Turn.Findings, all)
	c.goes(p.HeldBy, p.Problems, "failback "+p.Runbook)
}
