package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/workflows"
)

func grantsFlags(cmd *cobra.Command, grants, sure *bool) {
	cmd.Flags().BoolVar(grants, "fix-grants", false, "only say what the clients lack on the other cluster, as commands that create it")
	cmd.Flags().BoolVar(sure, "yes", false, "with --fix-grants: create it")
}

// fixGrants says what the runbook's clients lack on a cluster, as commands; with sure it creates that, and says what it
// changed. Something that is still missing is not well.
func (c *cli) fixGrants(ctx context.Context, t client.Client, in workflows.GrantsRequest, sure bool) error {
	in.By, in.DryRun = c.who(), !sure
	id := fmt.Sprintf("grants-%s-%s", in.Runbook, c.now().UTC().Format("20060102-150405.000"))
	summary := "Grants of the clients of " + in.Runbook + " on " + in.To
	if in.DryRun {
		summary = "Dry run: " + summary
	}
	run, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: c.taskQueue, StaticSummary: summary}, workflows.FixGrants, in)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	var out activities.GrantsResult
	if err := run.Get(ctx, &out); err != nil {
		return fmt.Errorf("grants of %s on %s: %w", in.Runbook, in.To, err)
	}
	if c.output == "json" {
		err = c.json(out)
	} else {
		c.showGrants(in, out)
	}
	if err == nil && in.DryRun && out.Missing > 0 {
		err = errNotWell
	}
	return err
}

func (c *cli) showGrants(in workflows.GrantsRequest, out activities.GrantsResult) {
	for _, advice := range out.Advice {
		fmt.Fprintf(c.stdout, "warning  %s\n", advice)
	}
	switch {
	case !in.DryRun && out.Made > 0:
		fmt.Fprintf(c.stdout, "%s:\n", out.Text)
		for _, acl := range out.ACLs {
			fmt.Fprintf(c.stdout, "  %s\n", acl)
		}
		if more := out.Made - len(out.ACLs); more > 0 {
			fmt.Fprintf(c.stdout, "  and %d more\n", more)
		}
	case out.Missing == 0:
		fmt.Fprintf(c.stdout, "The clients of %s lack nothing on %s. Nothing was changed.\n", in.Runbook, out.On)
	default:
		fmt.Fprintf(c.stdout, "The clients of %s lack %s on %s. These commands create them:\n", in.Runbook, counted(out.Missing, "ALLOW"), out.On)
		for _, command := range out.Commands {
			fmt.Fprintf(c.stdout, "  %s\n", command)
		}
		fmt.Fprintf(c.stdout, "Nothing was changed. Add --yes, and Switchback creates them.\n")
	}
}
