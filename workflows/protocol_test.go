package workflows_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// The number of the switch is the entity's, in history before it is used; a switch whose answer was lost is not one of
// somebody else.
func TestP02_AbsoluteEpoch(t *testing.T) {
	w := newWorld(t)
	w.failAfter["Switch"] = []error{temporal.NewApplicationError("the answer was lost", activities.TypeUnclear)}
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.EqualValues(t, 8, w.epoch)
	require.Equal(t, 2, w.count("Switch"))
}

func TestP15_PromoteThatRefusedMayRollBack(t *testing.T) {
	w := newWorld(t)
	w.fail["Promote"] = []error{final(activities.TypePromoteRefused, "orders: lag 3")}
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	require.Equal(t, allBack, w.state())
}

func TestP15_AfterPromoteOnlyForward(t *testing.T) {
	w := newWorld(t)
	w.fail["Promote"] = []error{final(activities.TypeNotReady, "orders hangs"), final(activities.TypePromoteRefused, "orders: state unknown")}
	p := newPlay(t, w)
	p.tell(time.Minute, workflows.UpdateRollback, workflows.Order{By: "alice"})
	p.tell(2*time.Minute, workflows.UpdateSkip, workflows.Order{By: "alice"})
	p.tell(3*time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice"}) // refused by the link, but requests were sent before
	p.tell(4*time.Minute, workflows.UpdateAbort, workflows.Order{By: "alice"})
	p.tell(5*time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Step: "promote"})
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Equal(t, wentOver, w.state())
	require.Contains(t, p.answers[0], "refused: the run is past its point of no return (promote was sent)")
	require.Contains(t, p.answers[1], "refused: promote may not be skipped")
	require.Contains(t, p.answers[3], "refused: the run is past its point of no return")
}

// Where a stop can be taken back the switch is the point of no return.
func TestP15_SwitchIsFinalWhereTheSealIsNot(t *testing.T) {
	w := newWorld(t)
	w.preflight.StopIsFinal = false
	w.fail["Promote"] = []error{final(activities.TypeNotReady, "the seal is not there")}
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	require.Equal(t, allBack, w.state())
}

func TestP34_CyclesPassBeforeProducersStop(t *testing.T) {
	w := newWorld(t)
	w.quiet = 45 * time.Second
	_, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.GreaterOrEqual(t, w.times["Stop"].Sub(w.times["Suspend"]), 45*time.Second)
	require.Less(t, w.times["Raise"].Sub(w.times["Stop"]), 5*time.Second)
}

func TestP35_LostAttemptsAreOutlivedBeforeClientsStart(t *testing.T) {
	w := newWorld(t)
	p := newPlay(t, w)
	_, err := p.run(t)
	require.NoError(t, err)
	require.Less(t, w.times["Start"].Sub(w.times["Switch"]), 100*time.Millisecond, "nothing was lost, so nothing is waited for")

	w = newWorld(t)
	w.attempt["HandOver"] = 2
	_, err = newPlay(t, w).run(t)
	require.NoError(t, err)
	require.GreaterOrEqual(t, w.times["Start"].Sub(w.times["HandOver"]), activities.WriteDeadline)
}

func TestP35_RollbackRaisesTheEpochThenOutlives(t *testing.T) {
	w := newWorld(t)
	w.fail["Drain"] = []error{final(activities.TypeNotReady, "lag")}
	w.attempt["Raise"] = 2
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	w.before(t, "Switch", "Lift")
	w.before(t, "Lift", "Start")
	w.before(t, "Start", "Restore")
	require.GreaterOrEqual(t, w.times["Lift"].Sub(w.times["Raise"]), activities.WriteDeadline)
	require.EqualValues(t, 8, w.released[len(w.released)-1].Epoch)
	require.Equal(t, "east", w.released[len(w.released)-1].Active)
}

func TestP35_StaleRunTouchesNothing(t *testing.T) {
	w := newWorld(t)
	w.hook = func(name string) {
		if name == "Quiesce" {
			w.epoch, w.cluster, w.switchedBy = 9, "west", "somebody"
		}
	}
	p := newPlay(t, w)
	_, err := p.run(t)
	require.ErrorContains(t, err, "somebody else has switched this runbook meanwhile")
	require.Zero(t, w.count("Lift")+w.count("Start")+w.count("Restore")+w.count("Switch"))
	require.True(t, w.fenced)
	require.Empty(t, w.holder)
}

func TestP36_KilledProducers(t *testing.T) {
	for decision, outcome := range map[string]string{"go-on": workflows.Completed, "roll-back": workflows.RolledBack} {
		w := newWorld(t)
		w.book.Clients[0].WhenKilled, w.killed = decision, []string{"checkout/2"}
		out, err := newPlay(t, w).run(t)
		require.NoError(t, err)
		require.Equal(t, outcome, out.Outcome)
		require.Contains(t, out.Deviations[0], "checkout/2 had to be killed")
	}
}

// Between stopping the producers and starting them six activities follow each other; others run beside them. No search
// attribute, no report.
func TestAtMostSixActivitiesInTheWindow(t *testing.T) {
	w := newWorld(t)
	_, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	in := w.called[slices.Index(w.called, "Stop")+1 : slices.Index(w.called, "Start")]
	var row []string
	for _, name := range in {
		if name != "Stop" && name != "KeepMarks" { // consumers are stopped, and marks kept, beside the row
			row = append(row, name)
		}
	}
	require.LessOrEqual(t, len(row), 6, "%v", row)
	require.Len(t, w.called[slices.Index(w.called, "Stop"):slices.Index(w.called, "Target")], 11)
}

func TestEveryActivityBeats(t *testing.T) {
	w := newWorld(t)
	w.optional = replication.Pending
	w.book.Budgets.CatchUp = runbooks.Duration(time.Minute)
	w.fail["Target"] = []error{final(activities.TypeNotReady, "not yet")}
	p := newPlay(t, w)
	p.tell(time.Hour, workflows.UpdateRetry, workflows.Order{By: "alice"})
	_, err := p.run(t)
	require.NoError(t, err)
	require.Contains(t, w.called, "CatchUp")
	require.Contains(t, w.called, "Align")
	window := []string{"Stop", "CatchUp", "Raise", "Quiesce", "Drain", "HandOver", "Promote", "Switch", "Start"}
	for _, o := range w.options {
		most := 5 * time.Second
		if slices.Contains(window, o.ActivityType.Name) {
			most = time.Second
		}
		require.NotZero(t, o.HeartbeatTimeout, o.ActivityType.Name)
		require.LessOrEqual(t, o.HeartbeatTimeout, most, o.ActivityType.Name)
	}
}

// A wait ends itself inside its activity's own time, so that the laggards are named.
func TestDeadlinesLieInsideTheActivity(t *testing.T) {
	w := newWorld(t)
	_, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	drain := w.inputs["Drain"].(activities.WaitInput)
	for _, o := range w.options {
		if o.ActivityType.Name == "Drain" {
			require.True(t, drain.Deadline.Before(o.Deadline), "%s is not before %s", drain.Deadline, o.Deadline)
		}
	}
}

func TestARunWithALimitIsRefused(t *testing.T) {
	for name, limit := range map[string]client.StartWorkflowOptions{
		"execution time-out": {WorkflowExecutionTimeout: time.Hour},
		"run time-out":       {WorkflowRunTimeout: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := newPlay(t, w)
			p.SetStartWorkflowOptions(limit)
			_, err := p.run(t)
			require.ErrorContains(t, err, "started with a limit that no run may have")
			require.Empty(t, w.called)
		})
	}
}

func TestARunThatWouldStartAgainByItselfIsRefused(t *testing.T) {
	require.NoError(t, workflows.RefuseLimits(&workflow.Info{}))
	require.ErrorContains(t, workflows.RefuseLimits(&workflow.Info{CronSchedule: "0 0 * * *"}), "cron would start it again")
	require.ErrorContains(t, workflows.RefuseLimits(&workflow.Info{RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3}}), "a workflow retry would start it again")
}

func TestPreflightProblemsChangeNothing(t *testing.T) {
	w := newWorld(t)
	w.preflight.Findings = append(w.preflight.Findings, activities.Finding{Check: "grants", Level: activities.LevelProblem, Means: "checkout may not write to west.", Do: "Grant WRITE."})
	_, err := newPlay(t, w).run(t)
	require.ErrorContains(t, err, "grants: checkout may not write to west. Grant WRITE.")
	require.Equal(t, untouched, w.state())
	require.NotContains(t, w.called, "Suspend")
}

func TestHooksAreNotSilentlyIgnored(t *testing.T) {
	w := newWorld(t)
	w.book.Hooks = []runbooks.Hook{{After: "verify", Workflow: "RefreshDashboards", TaskQueue: "platform"}}
	p := newPlay(t, w)
	_, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, "hooks", p.status(t).Findings[0].Check)
}

// A run that was closed before its end is settled by the next: taken back, or finished where it had switched.
func TestP01_AbandonedRunIsTakenBackFirst(t *testing.T) {
	w := newWorld(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "old", FirstRunID: "1"}, To: "west"}
	w.fenced, w.closed, w.synced = true, true, false
	w.desired["checkout"], w.runs["checkout"] = "stop", "stopped"
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.EqualValues(t, 9, out.Epoch, "8 was for taking back")
	require.Equal(t, "old/1", w.inputs["Lift"].(activities.FenceInput).Owner)
	require.Equal(t, "old/1", w.inputs["Restore"].(activities.SyncsInput).Owner)
	w.before(t, "Restore", "Check")
	require.False(t, w.released[1].Unsettled)
}

// What a run had ended that waited to fence a cluster waits again when the run was closed before it got there, and the next one goes
// somewhere else (P13).
func TestP13_WhatAnAbandonedRunLeftUnfencedWaitsAgain(t *testing.T) {
	w := newWorld(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "old", FirstRunID: "1"}, To: "west", Unfenced: "north"}
	left := workflows.FencingInput{Guard: activities.Guard{Run: leaver, Epoch: 7}, Route: activities.Route{From: activities.Site{Name: "north"}, To: activities.Site{Name: "east"}}, Known: true}
	raw, err := json.Marshal(left)
	require.NoError(t, err)
	w.waited = raw
	p := newPlay(t, w)
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Equal(t, "fence/orders/north", w.inputs["EndFencing"].(activities.EndFencing).Workflow)
	left.Known = false
	require.Equal(t, []any{left}, p.begun)
}

func TestP01_AbandonedRunThatSwitchedIsFinished(t *testing.T) {
	w := newWorld(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "old", FirstRunID: "1"}, To: "west"}
	w.cluster, w.epoch, w.switchedBy = "west", 8, "old/1"
	w.desired = map[string]string{"checkout": "stop", "billing": "stop"}
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Contains(t, out.Sentence, "what run old/1 had left was finished")
	require.Equal(t, "west@8", w.runs["checkout"])
	require.Equal(t, "west@8", w.runs["billing"])
	require.Zero(t, w.count("Lift")+w.count("Switch"))
}

func TestP01_WhatCannotBeSettledStaysNamed(t *testing.T) {
	w := newWorld(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "old", FirstRunID: "1"}, To: "west"}
	w.fail["Lift"] = []error{final(activities.TypeInvalid, "no")}
	_, err := newPlay(t, w).run(t)
	require.Error(t, err)
	require.True(t, w.released[0].Unsettled)
}

// The report is what package report reads, with the steps of the page in their order.
func TestReportIsWhole(t *testing.T) {
	w := newWorld(t)
	_, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Len(t, w.reports, 1)
	var compact json.RawMessage = []byte(w.reports[0])
	r, err := report.Parse(compact)
	require.NoError(t, err)
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
		require.Equal(t, report.StepDone, s.Status, s.Name)
	}
	require.Equal(t, runbooks.PlannedFailoverSteps, names)
	require.NotNil(t, r.Protection.UnprotectedSince)
	require.NotNil(t, r.SwitchWindow.ProducersSeconds)
	require.EqualValues(t, 7, *r.Epoch.Before)
	require.EqualValues(t, 8, *r.Epoch.After)
}
