package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/report"
	"switchback/workflows"
)

func (c *cli) report() *cobra.Command {
	return &cobra.Command{
		Use:   "report RUN",
		Short: "Print the report of a run that has ended",
		Long: `Print the report of a run that has ended, as Markdown, or as JSON with -o json. What would not fit into Temporal's
history (positions of many partitions) is counted here; the whole report is the file on the worker that it names.`,
		Example: "  switchback report orders > orders.md",
		Args:    exactly(1, oneRun), ValidArgsFunction: c.complete(ofRunbooks, ofRuns),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				id, err := c.resolve(ctx, t, args[0])
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := c.query(ctx, t, id, workflows.QueryReport, &raw); err != nil {
					return err
				}
				if len(raw) == 0 || string(raw) == "null" {
					return fmt.Errorf("run %s has no report yet: it is written at its end. Follow it with 'switchback status %s --watch'", id, id)
				}
				r, err := report.Parse(raw)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json(r)
				}
				_, err = fmt.Fprint(c.stdout, r.Markdown())
				return err
			})
		},
	}
}
