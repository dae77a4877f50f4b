package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"switchback/activities"
	"switchback/workflows"
)

var eastLoss = activities.Loss{AtLeast: 12, AtMost: -1, Estimate: 40, Bytes: 12_300, Seconds: 3.2, Why: "6 of 6 partitions sampled 3 s before the outage"}

func anUnplannedPlan() workflows.UnplannedPlan {
	return workflows.UnplannedPlan{
		Runbook: "orders", SHA256: "0123456789abcdef", From: "east", To: "west", Epoch: 4, NextEpoch: 5, Free: true, GoesIfNow: true, At: at,
		Objectives: "RTO 5m0s, RPO 30s and 1000 records",
		Assessment: activities.AssessResult{
			Topics: 2, Partitions: 6, Groups: 1, Sampled: at.Add(-40 * time.Second), Loss: eastLoss,
			From:     activities.Reach{Site: "east", Why: "connection refused"},
			To:       activities.Reach{Site: "west", Answers: true, Brokers: 3, Silent: []string{"b2"}},
			Losses:   []activities.TopicLoss{{Topic: "orders", Loss: eastLoss}, {Topic: "payments", Loss: activities.Loss{Estimate: -1, Bytes: -1, Seconds: -1}}},
			Clients:  []string{"checkout tolerates no loss and would lose 12 records or more"},
			Findings: []activities.Finding{{Check: "target", Level: "warning", Means: "a broker of west is silent", Do: "look at it"}},
		},
		Steps: []workflows.PlannedStep{{Step: workflows.Assess, BudgetSeconds: 120, Would: "assess"}, {Step: workflows.FailOver, BudgetSeconds: 60, Would: "fail over"}},
	}
}

func TestPlanUnplanned(t *testing.T) {
	f := newFake()
	f.result = anUnplannedPlan()
	a := f.ask(t, "plan", "unplanned", "orders", "--to", "west", "--outage", "5m")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "plan-unplanned.txt", a.out)
	require.Equal(t, workflows.UnplannedInput{Runbook: "orders", To: "west", Outage: at.Add(-5 * time.Minute).UTC()}, f.inputs[0])
	a = f.ask(t, "plan", "unplanned", "orders", "--to", "west", "-o", "json")
	goldenJSON(t, "plan-unplanned.json", a.out)

	held := anUnplannedPlan()
	held.GoesIfNow, held.HeldBy = false, &activities.Holder{Run: activities.Run{WorkflowID: "other", FirstRunID: "r9"}, Since: at}
	f.result = held
	a = f.ask(t, "plan", "unplanned", "orders", "--to", "west")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, "switchback escalate orders")
	require.Equal(t, 2, f.ask(t, "plan", "unplanned", "orders").code)
}

func TestStartUnplanned(t *testing.T) {
	f := newFake()
	a := f.ask(t, "start", "unplanned", "orders", "--to", "west", "--reason", "east is gone", "--outage", "2026-03-14T02:57:00Z", "--override", "it is worse there", "--clients", "wait")
	require.Equal(t, 0, a.code, a.err)
	require.Equal(t, workflows.UnplannedInput{Runbook: "orders", To: "west", Reason: "east is gone", By: "ann", Clients: "wait", Override: "it is worse there",
		Outage: time.Date(2026, 3, 14, 2, 57, 0, 0, time.UTC)}, f.inputs[0])
	require.Equal(t, "unplanned-orders-20260314-030000", f.started[0].ID)
	require.Equal(t, activities.TaskTimeout, f.started[0].WorkflowTaskTimeout)

	for _, wrong := range [][]string{{"--clients", "perhaps"}, {"--outage", "yesterday"}, {"--outage", "2030-01-01T00:00:00Z"}} {
		a = f.ask(t, append([]string{"start", "unplanned", "orders", "--to", "west", "--reason", "x"}, wrong...)...)
		require.Equal(t, 2, a.code, wrong)
		require.Contains(t, a.err, wrong[0])
	}
	require.Equal(t, 2, f.ask(t, "start", "unplanned", "orders", "--to", "west").code, "a reason is needed")
}

func TestInstants(t *testing.T) {
	for said, want := range map[string]time.Time{
		"":                     {},
		"2026-03-14T02:57:00Z": time.Date(2026, 3, 14, 2, 57, 0, 0, time.UTC),
		"02:57":                time.Date(2026, 3, 14, 2, 57, 0, 0, time.UTC),
		"23:50:30":             time.Date(2026, 3, 13, 23, 50, 30, 0, time.UTC),
		"90s":                  time.Date(2026, 3, 14, 2, 58, 30, 0, time.UTC),
	} {
		got, err := instant(said, at)
		require.NoError(t, err, said)
		require.Equal(t, want, got, said)
	}
}

// lost is a status of an unplanned run that a planned one became.
func lost() workflows.Status {
	s := running()
	s.Workflow, s.Earlier = "UnplannedFailover", s.Steps
	s.Steps = []workflows.StepStatus{{Step: workflows.Assess, State: workflows.Done, Started: moment(3 * time.Second), Ended: moment(4 * time.Second), BudgetSeconds: 120, Text: "east does not answer"}}
	s.Loss, s.LossAt, s.Losses = &eastLoss, at, []activities.TopicLoss{{Topic: "orders", Loss: eastLoss}}
	return s
}

func TestStatusShowsTheLoss(t *testing.T) {
	f := newFake()
	fenced, loss := at.Add(time.Hour), activities.Loss{AtLeast: 19, AtMost: 19, Estimate: -1, Bytes: -1, Seconds: -1, Why: "compared behind the fence"}
	f.queries["runbook/orders/status"] = []any{activities.EntityStatus{
		Active: "west", UnprotectedSince: &fenced,
		LastRun: &activities.Run{Runbook: "orders", WorkflowID: "planned-orders", FirstRunID: "r1"},
		Fencing: []activities.Fencing{
			{Cluster: "east", Workflow: "fence/orders/east", Since: at},
			{Cluster: "north", Fenced: &fenced, Loss: &loss, Written: 2, Wrote: []string{"producer 7 of checkout"}},
		},
	}}
	f.queries["planned-orders/status"] = []any{lost()}
	f.queries["fence/orders/east/status"] = []any{workflows.FencingStatus{Fencing: activities.Fencing{Waiting: "b2 of east to say that the fence stands"}}}
	a := f.ask(t, "status", "orders")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "status-lost.txt", a.out)
	require.Contains(t, a.out, "at least 12 records, open")
	require.Contains(t, a.out, "east is NOT FENCED as a whole")
	require.Contains(t, a.out, "waits for b2 of east to say that the fence stands")
}

func TestRunsListBothKindsAndWhatGoesOnAfterThem(t *testing.T) {
	f := newFake()
	for _, kind := range []string{"PlannedFailover", "UnplannedFailover", "FenceWhenReachable", "AlignDiscovery", "Entity"} {
		f.add("id-of-"+kind, kind, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, map[string]string{"SwitchbackRunbook": "orders"})
	}
	a := f.ask(t, "runs")
	require.Equal(t, 0, a.code, a.err)
	for _, kind := range []string{"PlannedFailover", "UnplannedFailover", "FenceWhenReachable", "AlignDiscovery"} {
		require.Contains(t, a.out, "id-of-"+kind)
	}
	require.NotContains(t, a.out, "id-of-Entity")
}
