package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/workflows"
)

func (c *cli) watchRunbook() *cobra.Command {
	var in workflows.WatchInput
	var once, stop bool
	cmd := &cobra.Command{
		Use:   "watch RUNBOOK",
		Short: "Sample positions all the time, and show how far behind the other cluster is",
		Long: `Start Watch for a runbook, unless it runs already, and show what it sees: how many records the other cluster lacks, by topic,
and how old that knowledge is. Watch goes on when this command ends: it keeps the positions on the other cluster, so that
a disaster finds fresh numbers, and says since when the active cluster does not answer. Nothing else is changed.

It shows each new look until interrupted. --once shows one and exits with 1 when the active cluster does not answer or
nothing is known; --stop ends Watch.`,
		Example: "  switchback watch orders\n  switchback watch orders --once -o json\n  switchback watch orders --stop",
		Args:    exactly(1, "one RUNBOOK"), ValidArgsFunction: c.complete(ofRunbooks),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Runbook = args[0]; once && stop {
				return misused(cmd, "--once and --stop: give one of them")
			}
			if in.Every < 0 || in.SilentAfter < 0 {
				return misused(cmd, "--every and --silent-after are durations above zero, such as 10s")
			}
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				if stop {
					return c.unwatch(ctx, t, in.Runbook)
				}
				if err := c.startWatch(ctx, t, in); err != nil {
					return err
				}
				return c.looks(ctx, t, in.Runbook, once)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show what is known now and end")
	cmd.Flags().BoolVar(&stop, "stop", false, "end Watch: nobody samples this runbook then")
	cmd.Flags().DurationVar(&in.Every, "every", 0, "between two samples, where this command starts Watch (default 10s)")
	cmd.Flags().DurationVar(&in.SilentAfter, "silent-after", 0, "how long without an answer before Watch says so, where this command starts it (default 30s)")
	return cmd
}

func watchOf(runbook string) string { return "watch/" + runbook }

// startWatch changes nothing when Watch runs already.
func (c *cli) startWatch(ctx context.Context, t client.Client, in workflows.WatchInput) error {
	if none := c.worked(ctx, t); none != nil {
		fmt.Fprintf(c.stderr, "switchback: Watch begins when a worker does: %v\n", none)
	}
	_, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: watchOf(in.Runbook), TaskQueue: c.taskQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary: "Positions of " + in.Runbook + ", all the time",
	}, workflows.Watch, in)
	if err != nil {
		return fmt.Errorf("start %s: %w", watchOf(in.Runbook), err)
	}
	return nil
}

func (c *cli) unwatch(ctx context.Context, t client.Client, runbook string) error {
	err := t.CancelWorkflow(ctx, watchOf(runbook), "")
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return fmt.Errorf("nobody watches %s", runbook)
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", watchOf(runbook), err)
	}
	if c.output == "json" {
		return c.json(map[string]string{"workflowId": watchOf(runbook), "stopping": "true"})
	}
	_, err = fmt.Fprintf(c.stdout, "Watch of %s is ending. Its last sample stays, and grows old.\n", runbook)
	return err
}

// looks shows each look, or the first that says something.
func (c *cli) looks(ctx context.Context, t client.Client, runbook string, once bool) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	patience := time.After(c.timeout)
	var shown time.Time
	for {
		var s workflows.WatchStatus
		err := c.query(ctx, t, watchOf(runbook), workflows.QueryStatus, &s)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (once || errors.As(err, &noSuchRun{})) && !strings.Contains(err.Error(), "has not begun yet"):
			return err
		case err == nil && !s.Looked.Equal(shown):
			shown = s.Looked
			if err := c.showWatch(s); err != nil {
				return err
			}
			if once {
				return well(s)
			}
		}
		select {
		case <-tick.C:
		case <-patience:
			if once {
				return fmt.Errorf("%s has seen nothing yet after %s: is a worker running? Ask again, or with a longer --timeout", watchOf(runbook), c.timeout)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// well is nil when everything is known and answers.
func well(s workflows.WatchStatus) error {
	if s.Phase != workflows.PhaseWatching {
		return errNotWell
	}
	for _, l := range s.Links {
		if l.Seen.IsZero() || l.Why != "" {
			return errNotWell
		}
	}
	return nil
}

func (c *cli) showWatch(s workflows.WatchStatus) error {
	if c.output == "json" {
		return c.json(s)
	}
	fmt.Fprintf(c.stdout, "%s  %s is on %s at epoch %d: %s, a sample every %.0f s\n", c.now().Format("15:04:05"), s.Runbook, orDash(s.Active), s.Epoch, s.Phase, s.EverySeconds)
	if s.Trouble != "" {
		fmt.Fprintf(c.stdout, "%s %s\n", c.coloured(text.FgRed, "trouble since "+s.TroubleSince.Format(time.RFC3339)+":"), s.Trouble)
	}
	for _, l := range s.Links {
		says := strings.NewReplacer("**", "", "`", "").Replace(l.Says(s.Runbook, c.now()))
		if l.Silent {
			says = c.coloured(text.FgRed, says)
		}
		fmt.Fprintf(c.stdout, "%s to %s: %s\n", l.From, l.To, says)
		c.lagTable(l)
	}
	return nil
}

func (c *cli) coloured(col text.Color, v string) string {
	if c.colours() {
		return col.Sprint(v)
	}
	return v
}

func (c *cli) lagTable(l workflows.WatchedLink) {
	if len(l.Worst) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(c.stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"topic", "partitions", "behind", "unknown", "worst partition", "records/s"})
	for _, lag := range l.Worst {
		t.AppendRow(table.Row{lag.Topic, lag.Partitions, lag.Lag, lag.Unknown, worstOf(lag), fmt.Sprintf("%.1f", lag.Rate)})
	}
	t.Render()
	if more := l.Topics - len(l.Worst); more > 0 {
		fmt.Fprintf(c.stdout, "and %s that are not further behind\n", counted(more, "topic"))
	}
}

func worstOf(l activities.TopicLag) string {
	switch {
	case l.Worst < 0:
		return "unknown"
	case l.WorstLag <= 0:
		return "-"
	}
	return fmt.Sprintf("%d (%d behind)", l.Worst, l.WorstLag)
}
