package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"switchback/activities"
)

// completing bounds what a shell waits for when somebody presses the tab key.
const completing = time.Second

// What can stand for an argument, as queries to Temporal.
const (
	ofRuns     = `WorkflowType IN ("PlannedFailover", "UnplannedFailover")`
	ofListed   = `WorkflowType IN ("PlannedFailover", "UnplannedFailover", "FenceWhenReachable", "AlignDiscovery")` // and what goes on after runs
	ofOpenRuns = ofRuns + ` AND ExecutionStatus = "Running"`
	ofRunbooks = `WorkflowType = "` + activities.EntityWorkflow + `"`
)

// complete offers the ids of the workflows that a query finds, and those of runbooks by their names. Where Temporal does
// not answer at once it offers nothing.
func (c *cli) complete(queries ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completing)
		defer cancel()
		var found []cobra.Completion
		_ = c.connected(ctx, func(ctx context.Context, t client.Client) error { // a shell has nowhere to show an error
			for _, q := range queries {
				answer, err := t.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: q, PageSize: 50})
				if err != nil {
					return err
				}
				for _, e := range answer.GetExecutions() {
					id := e.GetExecution().GetWorkflowId()
					if strings.HasPrefix(id, "link/") {
						continue // links are held too, but nobody says a word to them
					}
					if id = strings.TrimPrefix(id, entityOf("")); strings.HasPrefix(id, begun) {
						found = append(found, id)
					}
				}
			}
			return nil
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}
