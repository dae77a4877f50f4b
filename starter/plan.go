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

func (c *cli) plan() *cobra.Command {
	plan := &cobra.Command{
		Use: "plan", Short: "Say what a run would do, and change nothing",
		Long:    "Say what a run would do, step by step, and what stands in its way. Nothing is changed.",
		Example: "  switchback plan planned orders --to west",
		Args:    unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(cmd, "say what to plan: planned, unplanned, recover or failback")
		},
	}
	plan.AddCommand(c.planPlanned(), c.planUnplanned(), c.planRecover(), c.planFailback())
	return plan
}

// planning bounds a plan: preflight logs in as every client.
const planning = 3 * time.Minute

func (c *cli) planPlanned() *cobra.Command {
	var in workflows.PlannedInput
	var all, grants, sure bool
	cmd := &cobra.Command{
		Use:   "planned RUNBOOK --to CLUSTER",
		Short: "Say what a planned failover would do, and what stands in its way",
		Long: `Plan runs every check of preflight and lists what each step would do. It takes no lock, stops nobody and writes nothing
anywhere. It exits with 1 when the run could not go now.

With --fix-grants it only looks at what the runbook's clients may do on the other cluster, and prints the commands that create
what they lack there; with --yes as well it creates exactly that, and nothing else, and says what it changed.`,
		Example: "  switchback plan planned orders --to west\n  switchback plan planned orders --to west --fix-grants",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Runbook = args[0]; in.To == "" {
				return misused(cmd, "--to is needed: the cluster to move the workload to")
			}
			if sure && !grants {
				return misused(cmd, "--yes is for --fix-grants: a plan changes nothing")
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if err := c.worked(ctx, t); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, max(c.timeout, planning))
				defer cancel()
				if grants {
					return c.fixGrants(ctx, t, workflows.GrantsRequest{Runbook: in.Runbook, From: in.From, To: in.To}, sure)
				}
				p, err := dryRun[workflows.Plan](ctx, c, t, "plan", "Dry run", in.Runbook, in.To, workflows.PlanFailover, in)
				if err != nil {
					return err
				}
				return c.told(p, func() { c.showPlan(p, all) }, p.GoesIfNow)
			})
		},
	}
	cmd.Flags().StringVar(&in.To, "to", "", "cluster to move the workload to")
	cmd.Flags().StringVar(&in.From, "from", "", "cluster that it must be on now (default: what discovery says)")
	cmd.Flags().BoolVar(&all, "all", false, "show the checks that are well, too")
	grantsFlags(cmd, &grants, &sure)
	return cmd
}

// dryRun runs a planning workflow and returns what it found.
func dryRun[P any](ctx context.Context, c *cli, t client.Client, prefix, summary, runbook, to string, workflow, in any) (p P, err error) {
	id := fmt.Sprintf("%s-%s-%s", prefix, runbook, c.now().UTC().Format("20060102-150405.000"))
	run, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: c.taskQueue, WorkflowTaskTimeout: activities.TaskTimeout, StaticSummary: summary + ": " + runbook + " to " + to,
	}, workflow, in)
	if err != nil {
		return p, fmt.Errorf("start %s: %w", id, err)
	}
	if err := run.Get(ctx, &p); err != nil {
		return p, fmt.Errorf("plan %s: %w", runbook, err)
	}
	return p, nil
}

// told prints a plan, and says by its error whether the run could go now.
func (c *cli) told(plan any, show func(), goes bool) error {
	if c.output != "json" {
		show()
	} else if err := c.json(plan); err != nil {
		return err
	}
	if !goes {
		return errNotWell
	}
	return nil
}

func (c *cli) showPlan(p workflows.Plan, all bool) {
	fmt.Fprintf(c.stdout, "Planned failover of %s from %s to %s, epoch %d to %d (runbook sha256 %.12s)\n", p.Runbook, p.From, p.To, p.Epoch, p.NextEpoch, p.SHA256)
	fmt.Fprintf(c.stdout, "%s, %s, %s; objectives: %s\n\n",
		counted(p.Preflight.Topics, "topic"), counted(p.Preflight.Partitions, "partition"), counted(p.Preflight.Groups, "group"), p.Objectives)
	c.showSteps(p.Steps)
	c.showFindings(p.Preflight.Findings, all)
	c.goes(p.HeldBy, p.Problems, "planned "+p.Runbook+" --to "+p.To)
}

// goes ends a dry run: whether the run could go now, and how to start it.
func (c *cli) goes(held *activities.Holder, problems int, start string) {
	switch {
	case held != nil:
		fmt.Fprintf(c.stdout, "\nIt could not go now: the runbook is held by %s since %s.\n", held.Run.ID(), held.Since.Format(time.RFC3339))
	case problems > 0:
		fmt.Fprintf(c.stdout, "\nIt could not go now: %s. Nothing was changed.\n", counted(problems, "problem"))
	default:
		fmt.Fprintf(c.stdout, "\nIt could go now. Nothing was changed. Start it:\n  switchback start %s --reason \"...\"\n", start)
	}
}

func (c *cli) showSteps(steps []workflows.PlannedStep) {
	t := table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"", "step", "budget", "would"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 4, WidthMax: 100, WidthMaxEnforcer: text.WrapSoft}})
	for i, s := range steps {
		t.AppendRow(table.Row{i + 1, s.Step, time.Duration(s.BudgetSeconds * float64(time.Second)).Round(time.Second), s.Would})
	}
	t.Render()
}

func (c *cli) showFindings(findings []activities.Finding, all bool) {
	well := 0
	for _, f := range findings {
		if f.Level == activities.LevelOK && !all {
			well++
			continue
		}
		word := f.Level
		if c.colours() {
			word = level(f.Level).Sprint(word)
		}
		fmt.Fprintf(c.stdout, "%s%s %s: %s\n", word, strings.Repeat(" ", max(0, 8-len(f.Level))), f.Check, f.Means)
		if f.Do != "" {
			fmt.Fprintf(c.stdout, "         do: %s\n", f.Do)
		}
	}
	if well > 0 {
		fmt.Fprintf(c.stdout, "ok       %s (--all shows them)\n", counted(well, "check"))
	}
}

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
