package workflows_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/runbooks"
	"switchback/workflows"
)

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.preflight.Findings = append(w.preflight.Findings, activities.Finding{Check: "grants", Level: activities.LevelProblem, Means: "no WRITE"})
	p := newPlay(t, w)
	p.ExecuteWorkflow(workflows.PlanFailover, request)
	require.NoError(t, p.GetWorkflowError())
	var plan workflows.Plan
	require.NoError(t, p.GetWorkflowResult(&plan))
	require.Equal(t, []string{"Snapshot", "Read", "Entity", "Check"}, w.called)
	require.True(t, w.inputs["Check"].(activities.PreflightInput).DryRun)
	require.Equal(t, untouched, w.state())
	require.EqualValues(t, 8, plan.NextEpoch)
	require.Equal(t, 1, plan.Problems)
	require.True(t, plan.Free)
	require.False(t, plan.GoesIfNow)
	var names []string
	for _, s := range plan.Steps {
		names = append(names, string(s.Step))
		require.NotEmpty(t, s.Would)
		require.Positive(t, s.BudgetSeconds, s.Step)
	}
	require.Equal(t, runbooks.PlannedFailoverSteps, names)
}

func TestWayIsRefusedWithASentence(t *testing.T) {
	for name, tc := range map[string]struct {
		in   workflows.PlannedInput
		want string
	}{
		"unknown cluster": {workflows.PlannedInput{Runbook: "orders", To: "north"}, `it cannot go from "east" to "north"`},
		"already there":   {workflows.PlannedInput{Runbook: "orders", To: "east"}, "the workload of runbook orders is on east already, at epoch 7"},
		"other side":      {workflows.PlannedInput{Runbook: "orders", From: "west", To: "east"}, "the workload of runbook orders is on east already, at epoch 7"},
		"wrong from":      {workflows.PlannedInput{Runbook: "orders", From: "north", To: "west"}, "the run was asked to go from north, but clients find east"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := newPlay(t, w)
			p.ExecuteWorkflow(workflows.PlannedFailover, tc.in)
			require.ErrorContains(t, p.GetWorkflowError(), tc.want)
			require.Equal(t, untouched, w.state())
			require.Empty(t, w.holder)
		})
	}
}

// The live page leads with what an operator must do.
func TestPageSaysWhatItWaitsFor(t *testing.T) {
	p := gated(t, 1)
	p.RegisterDelayedCallback(func() {
		page := p.status(t)
		require.Contains(t, page.WaitsFor, "1 approvals until")
		require.True(t, strings.HasPrefix(page.Phase, "approve"))
	}, 1e9)
	_, err := p.run(t)
	require.NoError(t, err)
}
