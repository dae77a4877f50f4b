package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/replication"
	"switchback/workflows"
)

// countingTime bounds a plan of a recovery: it reads everything that is stranded.
const countingTime = 2 * time.Hour

func (c *cli) planRecover() *cobra.Command {
	var in workflows.RecoverInput
	var topics map[string]string
	var all bool
	cmd := &cobra.Command{
		Use:   "recover RUNBOOK",
		Short: "Say what a failover stranded on the cluster that it left, and what a recovery would do with it",
		Long: `Plan reads what the old cluster has beyond the marks of the failover that left it, and says per topic and partition how many
records a recovery would copy, how many are superseded by newer values of their keys, expired, or of aborted transactions,
their bytes, times and offsets, and which groups have read them already and would read them twice. Never a value.

It takes no lock and changes nothing, but it reads the whole backlog once. It exits with 1 when a recovery could not go now.`,
		Example: "  switchback plan recover orders\n  switchback plan recover orders --default divert",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Runbook, in.Topics = args[0], topics
			if err := treated(cmd, in); err != nil {
				return err
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if err := c.worked(ctx, t); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, max(c.timeout, countingTime))
				defer cancel()
				p, err := dryRun[workflows.RecoveryPlan](ctx, c, t, "plan-recover", "Dry run, recovery", in.Runbook, or(in.From, "what was left"), workflows.PlanRecoverLaggedData, in)
				if err != nil {
					return err
				}
				return c.told(p, func() { c.showRecovery(p, all) }, p.GoesIfNow)
			})
		},
	}
	recoverFlags(cmd, &in, &topics)
	cmd.Flags().BoolVar(&all, "all", false, "show the checks that are well, too")
	return cmd
}

func recoverFlags(cmd *cobra.Command, in *workflows.RecoverInput, topics *map[string]string) {
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that the workload left (default: the other one)")
	cmd.Flags().StringVar(&in.Default, "default", "", "what happens to each topic: append, divert, rewind or report (default: the runbook's recovery)")
	cmd.Flags().StringToStringVar(topics, "topic", nil, "what happens to one, such as customers=divert; may be repeated, and takes patterns")
	words := []string{string(replication.TreatAppend), string(replication.TreatDivert), string(replication.TreatRewind), string(replication.TreatReport)}
	_ = cmd.RegisterFlagCompletionFunc("default", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// treated refuses words that no recovery knows.
func treated(cmd *cobra.Command, in workflows.RecoverInput) error {
	known := func(word string) bool {
		switch replication.Treatment(word) {
		case replication.TreatAppend, replication.TreatDivert, replication.TreatRewind, replication.TreatReport:
			return true
		}
		return false
	}
	if in.Default != "" && !known(in.Default) {
		return misused(cmd, "--default %s: use append, divert, rewind or report", in.Default)
	}
	for topic, word := range in.Topics {
		if !known(word) {
			return misused(cmd, "--topic %s=%s: use append, divert, rewind or report", topic, word)
		}
	}
	if len(in.Topics) > 0 && in.Default == "" {
		return misused(cmd, "--topic needs --default: what happens to all others")
	}
	return nil
}

// showRecovery leads with the numbers: they are what has to be decided about.
func (c *cli) showRecovery(p workflows.RecoveryPlan, all bool) {
	s := p.Stranded
	fmt.Fprintf(c.stdout, "Recovery of %s from %s to %s, epoch %d (runbook sha256 %.12s)\n", p.Runbook, p.From, p.To, p.Epoch, p.SHA256)
	if s.Tail != "" {
		fmt.Fprintf(c.stdout, "Marks of the switch at epoch %d, made at %s\n", s.Epoch, s.Marked.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(c.stdout, "\n%s\n", or(s.Text, "What is stranded could not be counted."))
	c.showStranded(s)
	for _, g := range s.Read {
		fmt.Fprintf(c.stdout, "would be read twice: group %s has read %s of %s already\n", g.Group, counted(int(g.Records), "offset"), g.Topic)
	}
	fmt.Fprintln(c.stdout)
	c.showSteps(p.Steps)
	c.showFindings(s.Findings, all)
	for _, o := range s.Mismatched {
		fmt.Fprintf(c.stdout, "problem  boundary: %s: %s\n         do: look at both topics; a run parks there, and may leave the partition out\n", o.Name, o.Reason)
	}
	if p.HeldBy == nil && p.Problems == 0 && (s.Finished || s.Partitions == 0) {
		fmt.Fprintln(c.stdout, "\nThere is nothing to recover. Nothing was changed.")
		return
	}
	c.goes(p.HeldBy, p.Problems, "recover "+p.Runbook)
}

func (c *cli) showStranded(s activities.RecoveryPlan) {
	if len(s.Topics) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"topic", "way", "offsets", "to copy", "superseded", "expired", "aborted", "left", "done", "about", "written"})
	for _, one := range s.Topics {
		t.AppendRow(table.Row{one.Topic, one.Treatment, one.Offsets, one.Recovered, one.Superseded, one.Expired, one.Aborted, one.Left, one.Done, sized(one.Bytes), span(one.First, one.Last)})
	}
	t.Render()
	if len(s.Worst) == 0 {
		return
	}
	t = table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"partition", "offsets", "first and last record", "written", "into", ""})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 6, WidthMax: 60, WidthMaxEnforcer: text.WrapSoft}})
	for _, one := range s.Worst {
		records, into := "-", "-"
		if one.FirstOffset != replication.Unknown {
			records = fmt.Sprintf("%d, %d", one.FirstOffset, one.LastOffset)
		}
		if one.Into.Topic != "" {
			into = one.Into.Name()
		}
		t.AppendRow(table.Row{one.Name(), fmt.Sprintf("%d to %d", one.From, one.To), records, span(one.First, one.Last), into, strings.TrimSpace(one.Gone)})
	}
	t.Render()
}

// span is from when to when records were written.
func span(first, last time.Time) string {
	if first.IsZero() {
		return "-"
	}
	return first.UTC().Format(time.RFC3339) + " to " + last.UTC().Format(time.RFC3339)
}
