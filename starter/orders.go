package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/workflows"
)

// orders are the words that an operator can say to a run, one command each.
func (c *cli) orders() []*cobra.Command {
	list := []struct{ update, short, long, example string }{
		{workflows.UpdateApprove, "Approve a run that waits for it", "A run goes on when as many different people have approved as its runbook asks for. Who asked for the run cannot approve it.", `--reason "seen the plan, fine"`},
		{workflows.UpdateReject, "Refuse a run that waits for approval", "The run ends and nothing was changed.", `--reason "not before the month is closed"`},
		{workflows.UpdateHold, "Hold a run before its next step", "A run is never held while producers are stopped.", `--reason "waiting for the DBA"`},
		{workflows.UpdateResume, "Let a held run go on", "It goes on with the step before which it was held.", `--reason "the DBA is there"`},
		{workflows.UpdateRetry, "Try the step again at which a run is parked", "Mend what its sentence says first; 'switchback status' shows it.", `--step drain --reason "disk was full, is mended"`},
		{workflows.UpdateSkip, "Leave out the step at which a run is parked", "Only steps without which the workload is whole can be skipped; the report names them.", `--step keep-marks --reason "marks are written by hand"`},
		{workflows.UpdateRollback, "Take a run back to where it came from", "Possible until the point of no return.", `--reason "errors at checkout"`},
		{workflows.UpdateEscalate, "Turn a planned run into an unplanned one", "For when the old cluster dies under a planned run, between stopping the producers and the promote. Nothing is taken back: the run assesses the loss, and goes on as an unplanned failover when as many people have approved as the runbook asks for that. Whoever escalates cannot approve it too.", `--reason "east is gone"`},
		{workflows.UpdateAbort, "End a run: it rolls back, it never just stops", "Past the point of no return it is refused: forward is the only way then.", `--reason "wrong runbook"`},
		{workflows.UpdateAcknowledge, "Say that the clients of a paged team are done", "A run that stops or starts a paged team's client waits until somebody says that it was done.", `--client batch --reason "stopped, says the team"`},
	}
	commands := make([]*cobra.Command, 0, len(list))
	for _, o := range list {
		commands = append(commands, c.order(o.update, o.short, o.long, o.example))
	}
	return commands
}

func (c *cli) order(update, short, long, example string) *cobra.Command {
	var o workflows.Order
	cmd := &cobra.Command{
		Use:     update + " RUN",
		Short:   short,
		Long:    short + ".\n" + long,
		Example: "  switchback " + update + " orders " + example,
		Args:    exactly(1, oneRun), ValidArgsFunction: c.complete(ofRunbooks, ofOpenRuns),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.By = c.who()
			return c.connected(cmd.Context(), func(ctx context.Context, t client.Client) error {
				id, err := c.resolve(ctx, t, args[0])
				if err != nil {
					return err
				}
				answer, err := c.send(ctx, t, id, update, o)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json(map[string]string{"run": id, "order": update, "answer": answer})
				}
				_, err = fmt.Fprintf(c.stdout, "%s: %s\n", id, answer)
				return err
			})
		},
	}
	c.byFlag(cmd)
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the report")
	switch update {
	case workflows.UpdateRetry, workflows.UpdateSkip:
		cmd.Flags().StringVar(&o.Step, "step", "", "the step that is meant: a word that comes too late is refused")
	case workflows.UpdateAcknowledge:
		cmd.Flags().StringVar(&o.Client, "client", "", "the client whose team is done")
	}
	return cmd
}

// send waits for the run's answer, within the time-out: a run whose worker is dead answers nobody.
func (c *cli) send(ctx context.Context, t client.Client, id, update string, o workflows.Order) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	handle, err := t.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: id, UpdateName: update, Args: []any{o}, WaitForStage: client.WorkflowUpdateStageCompleted})
	var answer string
	if err == nil {
		err = handle.Get(ctx, &answer)
	}
	var refused *temporal.ApplicationError
	var gone *serviceerror.NotFound
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &refused):
		return "", errors.New(refused.Message())
	case errors.As(err, &gone) && strings.Contains(err.Error(), "completed"):
		return "", fmt.Errorf("run %s has ended: there is nothing to %s. See 'switchback status %s'", id, update, id)
	case errors.As(err, &gone):
		return "", noSuchRun{id}
	case away(err):
		if none := c.worked(context.WithoutCancel(ctx), t); none != nil {
			return "", fmt.Errorf("%s cannot hear it: %w. It may still hear it then: look with 'switchback status %s' before you say it again", id, none, id)
		}
		return "", fmt.Errorf("%s did not answer within %s (%w). It may have heard: look with 'switchback status %s' before you say it again", id, c.timeout, err, id)
	}
	return "", fmt.Errorf("%s %s: %w", update, id, err)
}

func (c *cli) byFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.by, "by", "", "who says so (default: SWITCHBACK_BY, else the user logged in)")
}

func (c *cli) who() string {
	if c.by != "" {
		return c.by
	}
	if by := c.getenv("SWITCHBACK_BY"); by != "" {
		return by
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
