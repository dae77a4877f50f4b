package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/workflows"
)

func (c *cli) status() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status RUN",
		Short: "Show where a run is, what it waits for and who must do what",
		Long: `Show where a run is, what it waits for and who must do what. With --watch it goes on, a line for each thing that
changes, until the run ends, and exits with 1 unless the run completed.`,
		Example: "  switchback status orders --watch",
		Args:    exactly(1, oneRun), ValidArgsFunction: c.complete(ofRunbooks, ofRuns),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				id, err := c.resolve(ctx, t, args[0])
				if err != nil {
					return err
				}
				if watch {
					return c.watch(ctx, t, id)
				}
				s, err := c.statusOf(ctx, t, id)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json(s)
				}
				c.show(c.stdout, s)
				c.showFencing(ctx, t, s.Runbook)
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until the run ends, a line for each thing that changes")
	return cmd
}

// watchEvery is how often a run is asked how it is.
const watchEvery = 300 * time.Millisecond

// watch prints a line for each change until the run ends. A worker that is away for a moment is said once and waited for.
func (c *cli) watch(ctx context.Context, t client.Client, id string) error {
	seen := map[string]string{}
	tell := func(key, line string) {
		if line != "" && seen[key] != line {
			seen[key] = line
			fmt.Fprintf(c.stdout, "%s  %s\n", c.now().Format("15:04:05.000"), line)
		}
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		s, err := c.statusOf(ctx, t, id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &noSuchRun{}):
			return err
		case err != nil:
			if line := "no answer: " + firstLine(c.explain(err)); c.output == "text" {
				tell("error", line)
			} else if seen["error"] != line {
				seen["error"] = line
				fmt.Fprintln(c.stderr, "switchback:", line)
			}
		default:
			delete(seen, "error")
			if c.output == "json" {
				if line := s.Phase + s.WaitsFor + s.Parked; seen["json"] != line {
					seen["json"] = line
					if err := c.json(s); err != nil {
						return err
					}
				}
			} else {
				changes(s, tell)
			}
			if !s.Ended.IsZero() {
				if s.Outcome != workflows.Completed {
					return errNotWell
				}
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changes tells what a watcher wants to hear, in the order in which it happened.
func changes(s workflows.Status, tell func(key, line string)) {
	for i, row := range slices.Concat(s.Earlier, s.Steps, s.Closing) {
		if row.State == workflows.Waiting || row.State == workflows.NotRun {
			continue
		}
		page := "" // an escalated run has steps of the same name before
		if i < len(s.Earlier) {
			page = "earlier/"
		}
		tell("step/"+page+string(row.Step), fmt.Sprintf("%-18s %-8s %8s  %s", row.Step, row.State, took(row), row.Text))
	}
	if s.Loss != nil {
		tell("loss", "loss: "+lossLine(*s.Loss))
	}
	for i, d := range s.Decisions {
		tell(fmt.Sprintf("decision/%d", i), fmt.Sprintf("%s by %s: %s", d.What, d.By, d.Reason))
	}
	if s.Phase == "approve" {
		tell("waits", "waiting for "+s.WaitsFor)
	}
	if s.Held != "" {
		tell("held", "HELD "+s.Held)
	}
	if s.Parked != "" {
		tell("parked", "PARKED: "+s.Parked)
	}
	if s.Outcome != "" {
		tell("outcome", s.Outcome+": "+s.Sentence)
	}
}

func took(row workflows.StepStatus) string {
	if row.Started == nil || row.Ended == nil {
		return ""
	}
	return row.Ended.Sub(*row.Started).Round(time.Millisecond).String()
}

// show prints the whole status for people.
func (c *cli) show(w io.Writer, s workflows.Status) {
	colour := func(col text.Color, v string) string {
		if c.colours() {
			return col.Sprint(v)
		}
		return v
	}
	fmt.Fprintf(w, "%s  %s from %s to %s  (%s, asked by %s)\n", s.Run.WorkflowID, s.Runbook, orDash(s.From), s.To, orDash(s.Reason), orDash(s.By))
	switch {
	case s.Outcome != "":
		fmt.Fprintf(w, "%s: %s\n", s.Outcome, s.Sentence)
	case s.Parked != "":
		fmt.Fprintln(w, colour(text.FgRed, "PARKED: "+s.Parked))
	default:
		fmt.Fprintf(w, "now: %s, waiting for %s\n", s.Phase, orDash(s.WaitsFor))
	}
	if s.Loss != nil {
		fmt.Fprintf(w, "Loss, as of %s: %s\n", s.LossAt.UTC().Format(time.RFC3339), lossLine(*s.Loss))
		c.showLosses(s.Losses)
	}
	if s.Final {
		fmt.Fprintln(w, "The point of no return is passed: forward only.")
	}
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"step", "state", "took", "budget", ""})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 5, WidthMax: 90, WidthMaxEnforcer: text.WrapSoft}})
	for _, row := range slices.Concat(s.Earlier, s.Steps, s.Closing) {
		state := string(row.State)
		if row.State == workflows.Failed {
			state = colour(text.FgRed, state)
		}
		t.AppendRow(table.Row{row.Step, state, took(row), time.Duration(row.BudgetSeconds * float64(time.Second)).Round(time.Second), row.Text})
	}
	t.Render()
	for _, f := range s.Findings {
		fmt.Fprintf(w, "%s  %s: %s. %s\n", colour(level(f.Level), f.Level), f.Check, f.Means, f.Do)
	}
	for _, d := range s.Decisions {
		fmt.Fprintf(w, "%s  %s by %s: %s\n", d.At.Format(time.RFC3339), d.What, d.By, d.Reason)
	}
	for _, d := range s.Deviations {
		fmt.Fprintln(w, "deviation:", d)
	}
}

// showFencing says which clusters were left without a fence, and what became of it, as far as the runbook's entity answers.
func (c *cli) showFencing(ctx context.Context, t client.Client, runbook string) {
	var entity activities.EntityStatus
	if err := c.query(ctx, t, entityOf(runbook), activities.QueryEntity, &entity); err != nil {
		return // the run itself was shown
	}
	for _, f := range entity.Fencing {
		if f.Fenced == nil {
			var now workflows.FencingStatus
			if err := c.query(ctx, t, f.Workflow, workflows.QueryStatus, &now); err == nil {
				f.Waiting = now.Waiting
			}
			fmt.Fprintf(c.stdout, "%s is NOT FENCED as a whole since %s: whoever is cut off may write there, and that is lost. %s waits for %s.\n",
				f.Cluster, f.Since.UTC().Format(time.RFC3339), f.Workflow, or(f.Waiting, "it to answer"))
			continue
		}
		fmt.Fprintf(c.stdout, "%s was fenced at %s", f.Cluster, f.Fenced.UTC().Format(time.RFC3339))
		if f.Loss != nil {
			fmt.Fprintf(c.stdout, "; lost: %s", lossLine(*f.Loss))
		}
		if len(f.Wrote) > 0 {
			fmt.Fprintf(c.stdout, "; after the switch wrote there: %s", strings.Join(f.Wrote, ", "))
		}
		fmt.Fprintln(c.stdout)
	}
	if entity.UnprotectedSince != nil {
		fmt.Fprintf(c.stdout, "Unprotected since %s: nothing mirrors %s.\n", entity.UnprotectedSince.UTC().Format(time.RFC3339), entity.Active)
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func level(l string) text.Color {
	switch l {
	case "problem":
		return text.FgRed
	case "warning":
		return text.FgYellow
	}
	return text.FgGreen
}

// oneRun is what commands about a run need.
const oneRun = "one RUN: a workflow id or the name of a runbook"

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
