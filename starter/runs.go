package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

// listed is one run in the list.
type listed struct {
	WorkflowID string    `json:"workflowId"`
	Kind       string    `json:"kind"`
	Runbook    string    `json:"runbook"`
	Phase      string    `json:"phase"`
	Outcome    string    `json:"outcome,omitempty"`
	Status     string    `json:"status"`
	Started    time.Time `json:"started"`
}

func (c *cli) runs() *cobra.Command {
	var runbook string
	var limit int32
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List runs, the newest first",
		Long: `List runs, the newest first: what they are called, how far they are and how they ended. What goes on after a run is
listed as well: FenceWhenReachable waits for a lost cluster, AlignDiscovery for a discovery entry that could not be written.`,
		Example: "  switchback runs --runbook orders",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 1000 {
				return misused(cmd, "--limit %d: use a number from 1 to 1000", limit)
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				ctx, cancel := context.WithTimeout(ctx, c.timeout)
				defer cancel()
				query := ofListed
				if runbook != "" {
					query += fmt.Sprintf(` AND SwitchbackRunbook = %q`, runbook)
				}
				answer, err := t.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: limit})
				if err != nil {
					return fmt.Errorf("list runs: %w", err)
				}
				list := make([]listed, 0, len(answer.GetExecutions()))
				for _, e := range answer.GetExecutions() {
					attribute := func(name string) (v string) {
						if p := e.GetSearchAttributes().GetIndexedFields()[name]; p != nil {
							_ = converter.GetDefaultDataConverter().FromPayload(p, &v) // a value of another type shows as none
						}
						return v
					}
					list = append(list, listed{
						WorkflowID: e.GetExecution().GetWorkflowId(), Kind: e.GetType().GetName(), Runbook: attribute("SwitchbackRunbook"),
						Phase: attribute("SwitchbackPhase"), Outcome: attribute("SwitchbackOutcome"), Status: e.GetStatus().String(), Started: e.GetStartTime().AsTime(),
					})
				}
				return c.printRuns(list)
			})
		},
	}
	cmd.Flags().StringVar(&runbook, "runbook", "", "only runs of this runbook")
	_ = cmd.RegisterFlagCompletionFunc("runbook", c.complete(ofRunbooks)) // the flag is there
	cmd.Flags().Int32Var(&limit, "limit", 20, "how many at most")
	return cmd
}

func (c *cli) printRuns(list []listed) error {
	if c.output == "json" {
		return c.json(list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.stdout, "No run yet. Start one with 'switchback start planned RUNBOOK --to CLUSTER --reason TEXT'.")
		return err
	}
	t := table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"run", "kind", "runbook", "started", "status", "phase", "outcome"})
	for _, r := range list {
		t.AppendRow(table.Row{r.WorkflowID, r.Kind, orDash(r.Runbook), r.Started.Local().Format("2006-01-02 15:04:05"), r.Status, orDash(r.Phase), orDash(r.Outcome)})
	}
	t.Render()
	return nil
}
