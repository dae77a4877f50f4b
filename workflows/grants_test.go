package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"switchback/activities"
	"switchback/workflows"
)

// granting plays FixGrants in a world.
func granting(t *testing.T, w *world, in workflows.GrantsRequest, fail error) (activities.GrantsResult, error) {
	t.Helper()
	p := newPlay(t, w)
	p.RegisterActivityWithOptions(func(ctx context.Context, in activities.GrantsInput) (activities.GrantsResult, error) {
		if _, err := w.begin(ctx, in); err != nil {
			return activities.GrantsResult{}, err
		}
		if err := w.guarded(in.Guard); err != nil {
			return activities.GrantsResult{}, err
		}
		return activities.GrantsResult{On: in.Route.To.Name, Missing: 3, Text: "3 ALLOWs"}, fail
	}, activity.RegisterOptions{Name: "FixGrants"})
	p.ExecuteWorkflow(workflows.FixGrants, in)
	require.True(t, p.IsWorkflowCompleted())
	require.Empty(t, w.holder, "the runbook is left held")
	s := p.status(t)
	require.Equal(t, "FixGrants", s.Workflow)
	var out activities.GrantsResult
	if err := p.GetWorkflowError(); err != nil {
		require.Equal(t, workflows.FailedRun, s.Outcome)
		return out, err
	}
	require.Equal(t, workflows.Completed, s.Outcome)
	return out, p.GetWorkflowResult(&out)
}

func TestGrantsAreFixedWhileTheRunbookIsHeld(t *testing.T) {
	w := newWorld(t)
	out, err := granting(t, w, workflows.GrantsRequest{Runbook: "orders", To: "west", By: "ann"}, nil)
	require.NoError(t, err)
	require.Equal(t, 3, out.Missing)
	require.Equal(t, []string{"Snapshot", "Read", "Acquire", "FixGrants", "Release"}, w.called)
	in := w.inputs["FixGrants"].(activities.GrantsInput)
	require.Equal(t, "west", in.Route.To.Name)
	require.EqualValues(t, 7, in.Guard.Epoch)
	require.False(t, in.DryRun)
	require.Empty(t, w.released[0].Outcome, "the last run of the runbook stays the last")
	require.Zero(t, w.released[0].Epoch)
}

func TestGrantsDryRunTakesNoLock(t *testing.T) {
	w := newWorld(t)
	_, err := granting(t, w, workflows.GrantsRequest{Runbook: "orders", To: "west", DryRun: true}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"Snapshot", "Read", "FixGrants"}, w.called)
	require.True(t, w.inputs["FixGrants"].(activities.GrantsInput).DryRun)
}

func TestGrantsReleaseTheRunbookWhateverHappens(t *testing.T) {
	w := newWorld(t)
	_, err := granting(t, w, workflows.GrantsRequest{Runbook: "orders", To: "west"}, final(activities.TypeInvalid, "no such principal"))
	require.ErrorContains(t, err, "no such principal")
	require.Len(t, w.released, 1)
	require.False(t, w.released[0].Unsettled)
}

func TestGrantsLeaveWhatAnotherRunLeft(t *testing.T) {
	w := newWorld(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "died", FirstRunID: "1"}}
	_, err := granting(t, w, workflows.GrantsRequest{Runbook: "orders", To: "west"}, nil)
	require.ErrorContains(t, err, "run died/1 was closed before it had released the runbook")
	require.NotContains(t, w.called, "FixGrants")
	require.True(t, w.released[0].Unsettled, "it is still there for the next run")
}

func TestGrantsToWhereTheWorkloadIsAreRefused(t *testing.T) {
	w := newWorld(t)
	_, err := granting(t, w, workflows.GrantsRequest{Runbook: "orders", To: "east"}, nil)
	require.ErrorContains(t, err, "is on east already")
	require.NotContains(t, w.called, "FixGrants")
}

// What is no run of the runbook, such as making grants, holds it and leaves no outcome: the last run stays the last.
func TestAReleaseWithoutAnOutcomeIsNoLastRun(t *testing.T) {
	l := newLock("runbook/orders")
	l.ask(1*time.Second, activities.UpdateAcquire, ask("planned", 7), granted(t, 8))
	l.ask(2*time.Second, activities.UpdateRelease, activities.Release{Run: ask("planned", 7).Run, Outcome: "completed", Report: "r.json"}, func(activities.Acquired, error) {})
	l.ask(3*time.Second, activities.UpdateAcquire, ask("grants", 8), granted(t, 9))
	l.ask(4*time.Second, activities.UpdateRelease, activities.Release{Run: ask("grants", 8).Run}, func(activities.Acquired, error) {})
	l.live(t, time.Minute, activities.EntityState{})
	s := l.status(t)
	require.Nil(t, s.Holder)
	require.Equal(t, "planned", s.LastRun.WorkflowID)
	require.Equal(t, "r.json", s.LastReport)
}
