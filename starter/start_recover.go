package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/runbooks"
	"switchback/workflows"
)

// mostReading bounds how long a run keeps the runbook while groups read on the old cluster.
const mostReading = 7 * 24 * time.Hour

func (c *cli) startRecover() *cobra.Command {
	var in workflows.RecoverInput
	var how following
	var topics map[string]string
	var readFor time.Duration
	cmd := &cobra.Command{
		Use:   "recover RUNBOOK --reason TEXT",
		Short: "Bring back what a failover stranded on the cluster that it left, each record exactly once",
		Long: `Start a recovery of a runbook's workload, when the cluster that it left is back and fenced. It counts what is stranded beyond
the marks, checks the marks by comparing records, waits for approval, and then treats each topic as the runbook says:

  append   its records are written to the end of the topic where the workload is; they carry headers that name their origin
  divert   they are written to <topic>.recovered there
  rewind   nothing is copied: the groups on the old cluster are set to the marks; with --read-for their clients may read there
  report   nothing is done: they are counted and named

It may be held, killed and started again: no record is copied twice. Aborting it leaves what was recovered recovered, and a
later run goes on there. 'switchback plan recover' says beforehand what it would do.`,
		Example: `  switchback start recover orders --reason "east is back" --watch
  switchback start recover orders --default divert --topic customers=append --reason "let the teams look first"`,
		Args: exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook, in.By, in.Topics = args[0], c.who(), topics
			if in.Reason == "" {
				return misused(cmd, "--reason is needed: why, for approvers and the report")
			}
			if in.ReadFor = runbooks.Duration(readFor); in.ReadFor < 0 || readFor > mostReading {
				return misused(cmd, "--read-for %s: use a time up to %s", readFor, mostReading)
			}
			if in.Rate < 0 {
				return misused(cmd, "--rate %g: use records a second above zero, or 0 for no limit", in.Rate)
			}
			if err := treated(cmd, in); err != nil {
				return err
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				return c.begin(ctx, t, how, "recover-"+in.Runbook, fmt.Sprintf("%s, recovery: %s", in.Runbook, in.Reason), workflows.RecoverLaggedData, in)
			})
		},
	}
	c.byFlag(cmd)
	recoverFlags(cmd, &in, &topics)
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for approvers and the report")
	cmd.Flags().Float64Var(&in.Rate, "rate", 0, "records a second that all copies together may write; 0 is no limit")
	cmd.Flags().DurationVar(&readFor, "read-for", 0, "how long groups may read on the old cluster what was rewound there (default: the runbook's recovery.readFor)")
	how.flags(cmd, "recover")
	return cmd
}
