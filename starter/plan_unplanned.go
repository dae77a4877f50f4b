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
	"switchback/workflows"
)

func (c *cli) planUnplanned() *cobra.Command {
	var in workflows.UnplannedInput
	var outage string
	var all, grants, sure bool
	cmd := &cobra.Command{
		Use:   "unplanned RUNBOOK --to CLUSTER",
		Short: "Say what an unplanned failover would do and lose now, and what stands in its way",
		Long: `Plan assesses who answers and what would be lost if the workload went now, per topic in records, bytes and time, and lists
what each step would do. It takes no lock, stops nobody and writes nothing anywhere. It exits with 1 when the run could not
go now.

With --fix-grants it only looks at what the runbook's clients may do on the other cluster, and prints the commands that create
what they lack there; with --yes as well it creates exactly that, and nothing else, and says what it changed. Where the cluster that
they are on does not answer, what they need is judged by their roles.`,
		Example: "  switchback plan unplanned orders --to west\n  switchback plan unplanned orders --to west --fix-grants",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if in.Runbook = args[0]; in.To == "" {
				return misused(cmd, "--to is needed: the cluster to move the workload to")
			}
			if sure && !grants {
				return misused(cmd, "--yes is for --fix-grants: a plan changes nothing")
			}
			if in.Outage, err = instant(outage, c.now()); err != nil {
				return misused(cmd, "--outage %s: %v", outage, err)
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if err := c.worked(ctx, t); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, max(c.timeout, planning))
				defer cancel()
				if grants {
					return c.fixGrants(ctx, t, workflows.GrantsRequest{Runbook: in.Runbook, From: in.From, To: in.To, Unplanned: true}, sure)
				}
				p, err := dryRun[workflows.UnplannedPlan](ctx, c, t, "plan-unplanned", "Dry run, unplanned", in.Runbook, in.To, workflows.PlanUnplannedFailover, in)
				if err != nil {
					return err
				}
				return c.told(p, func() { c.showUnplanned(p, all) }, p.GoesIfNow)
			})
		},
	}
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to move the workload to")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that it must be on now (default: what discovery says)")
	cmd.Flags().StringVar(&outage, "outage", "", "when the cluster was lost, as for 'switchback start unplanned'")
	cmd.Flags().BoolVar(&all, "all", false, "show the checks that are well, too")
	grantsFlags(cmd, &grants, &sure)
	overrideFlag(cmd, &in.Override)
	return cmd
}

// showUnplanned leads with the loss: it is what has to be decided about.
func (c *cli) showUnplanned(p workflows.UnplannedPlan, all bool) {
	a := p.Assessment
	fmt.Fprintf(c.stdout, "Unplanned failover of %s from %s to %s, epoch %d to %d (runbook sha256 %.12s)\n", p.Runbook, p.From, p.To, p.Epoch, p.NextEpoch, p.SHA256)
	fmt.Fprintf(c.stdout, "%s, %s, %s; objectives: %s\n\n", counted(a.Topics, "topic"), counted(a.Partitions, "partition"), counted(a.Groups, "group"), p.Objectives)
	fmt.Fprintf(c.stdout, "If it went now: %s\n", lossLine(a.Loss))
	fmt.Fprintf(c.stdout, "%s: %s\n%s: %s\n", p.From, reach(a.From), p.To, reach(a.To))
	if !a.Sampled.IsZero() {
		fmt.Fprintf(c.stdout, "both ends last seen at %s, %s before\n", a.Sampled.UTC().Format(time.RFC3339), p.At.Sub(a.Sampled).Round(time.Second))
	}
	c.showLosses(a.Losses)
	for _, client := range a.Clients {
		fmt.Fprintln(c.stdout, "tolerates less than it would meet:", client)
	}
	fmt.Fprintln(c.stdout)
	c.showSteps(p.Steps)
	c.showFindings(a.Findings, all)
	if p.HeldBy != nil {
		fmt.Fprintf(c.stdout, "\nIt could not go now: the runbook is held by %s since %s. A planned run can be turned into an unplanned one:\n  switchback escalate %s --reason \"...\"\n",
			p.HeldBy.Run.ID(), p.HeldBy.Since.Format(time.RFC3339), p.Runbook)
		return
	}
	c.goes(nil, p.Problems, "unplanned "+p.Runbook+" --to "+p.To)
}

// lossLine is a loss in one line: never less than it may be.
func lossLine(l activities.Loss) string {
	line := l.String()
	if l.Bytes > 0 {
		line += fmt.Sprintf(", about %s", sized(l.Bytes))
	}
	if l.Seconds > 0 {
		line += fmt.Sprintf(", written in %s", time.Duration(l.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	}
	if l.Why != "" {
		line += " (" + l.Why + ")"
	}
	return line
}

func sized(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}

func reach(r activities.Reach) string {
	if !r.Answers {
		return "does not answer. " + r.Why
	}
	line := "answers, " + counted(r.Brokers, "broker")
	if len(r.Silent) > 0 {
		line += "; silent: " + strings.Join(r.Silent, ", ")
	}
	if len(r.Leaderless) > 0 {
		line += "; without a leader: " + strings.Join(r.Leaderless, ", ")
	}
	return line
}

func (c *cli) showLosses(list []activities.TopicLoss) {
	if len(list) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"topic", "lost", "about", "time", ""})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 5, WidthMax: 70, WidthMaxEnforcer: text.WrapSoft}})
	for _, l := range list {
		size, seconds := "-", "-"
		if l.Bytes >= 0 {
			size = sized(l.Bytes)
		}
		if l.Seconds >= 0 {
			seconds = time.Duration(l.Seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
		}
		t.AppendRow(table.Row{l.Topic, l.String(), size, seconds, l.Why})
	}
	t.Render()
}
