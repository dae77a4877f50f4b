package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"switchback/activities"
	"switchback/runbooks"
	"switchback/workflows"
)

type word struct {
	name   string
	order  workflows.Order
	answer string
}

func by(who string) workflows.Order { return workflows.Order{By: who, Reason: "because"} }

// converse sends words a second apart and expects their answers.
func converse(t *testing.T, p *play, words []word) (workflows.Result, error) {
	t.Helper()
	for i, said := range words {
		p.tell(time.Duration(i+1)*time.Second, said.name, said.order)
	}
	out, err := p.run(t)
	require.Len(t, p.answers, len(words))
	for i, said := range words {
		require.Contains(t, p.answers[i], said.answer, "%s by %q", said.name, said.order.By)
	}
	return out, err
}

func gated(t *testing.T, approvals int) *play {
	w := newWorld(t)
	w.book.Gates = runbooks.Gates{Planned: runbooks.Gate{Approvals: approvals, Expiry: runbooks.Duration(time.Hour)}, Approvers: []string{"alice", "bob", "carol"}}
	return newPlay(t, w)
}

func TestI08_OnlyWhoMayApproves(t *testing.T) {
	p := gated(t, 2)
	out, err := converse(t, p, []word{
		{workflows.UpdateApprove, workflows.Order{}, "refused: say who you are: `by` is empty"},
		{workflows.UpdateApprove, by("mallory"), "refused: mallory is not among the approvers of this runbook: alice, bob, carol"},
		{workflows.UpdateApprove, by("carol"), "refused: carol asked for this run and cannot approve it too"},
		{workflows.UpdateApprove, by("alice"), "approved by alice: 1 of 2"},
		{workflows.UpdateApprove, by("Alice "), "refused: Alice  has approved already: 1 of 2 approvals are there"},
		{workflows.UpdateRollback, by("alice"), "refused: nothing was changed yet"},
		{workflows.UpdateResume, by("alice"), "refused: the run is not held"},
		{workflows.UpdateRetry, by("alice"), "refused: the run is not parked"},
		{workflows.UpdateSkip, by("alice"), "refused: the run is not parked, it is at approve: there is nothing to skip"},
		{workflows.UpdateEscalate, by("alice"), "refused: the run is at approve, where no client was stopped yet: abort it, then `switchback start unplanned`"},
		{workflows.UpdateAcknowledge, by("alice"), "refused: the run waits for no acknowledgement"},
		{workflows.UpdateApprove, by("bob"), "approved by bob: 2 of 2"},
	})
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Len(t, p.status(t).Approvals, 2)
}

func TestApprovalExpires(t *testing.T) {
	p := gated(t, 2)
	out, err := converse(t, p, []word{{workflows.UpdateApprove, by("alice"), "1 of 2"}})
	require.NoError(t, err)
	require.Equal(t, workflows.Rejected, out.Outcome)
	require.Contains(t, out.Sentence, "1 of 2 approvals came within 1h0m0s")
	require.Equal(t, untouched, p.state())
}

func TestReject(t *testing.T) {
	p := gated(t, 1)
	out, err := converse(t, p, []word{{workflows.UpdateReject, by("bob"), "rejected: nothing was changed"}})
	require.NoError(t, err)
	require.Equal(t, workflows.Rejected, out.Outcome)
	require.Contains(t, out.Sentence, "rejected by bob (because)")
	require.Equal(t, untouched, p.state())
	require.Len(t, p.reports, 1)
}

func TestOldPreflightIsRepeatedAfterALateApproval(t *testing.T) {
	p := gated(t, 1)
	p.tell(30*time.Minute, workflows.UpdateApprove, by("bob"))
	_, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, 2, p.count("Check"))
}

func TestHoldStopsBeforeTheNextStep(t *testing.T) {
	w := newWorld(t)
	w.quiet = 10 * time.Second
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() {
		require.Zero(t, p.count("Stop"), "it went on")
		require.Equal(t, "held", p.status(t).Phase)
	}, time.Minute)
	p.tell(2*time.Minute, workflows.UpdateResume, by("bob"))
	for i, said := range []word{
		{workflows.UpdateApprove, by("alice"), ""}, {workflows.UpdateReject, by("alice"), ""},
		{workflows.UpdateHold, by("alice"), ""}, {workflows.UpdateHold, by("bob"), ""},
	} {
		p.tell(time.Duration(i+1)*time.Second, said.name, said.order)
	}
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, p.answers[0], "refused: the run does not wait for approval, it is at suspend-syncs")
	require.Contains(t, p.answers[1], "refused: the run does not wait for approval")
	require.Contains(t, p.answers[2], "the run stops before its next step")
	require.Contains(t, p.answers[3], "refused: the run is held already, by alice")
	require.Contains(t, p.answers[4], "the run goes on")
}

func TestHeldRunMayBeAborted(t *testing.T) {
	w := newWorld(t)
	w.quiet = 10 * time.Second
	p := newPlay(t, w)
	p.tell(time.Second, workflows.UpdateHold, by("alice"))
	p.tell(time.Hour, workflows.UpdateAbort, by("bob"))
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Aborted, out.Outcome)
	require.Equal(t, untouched, w.state())
}

func TestHoldIsRefusedInsideTheWindow(t *testing.T) {
	w := newWorld(t)
	p := newPlay(t, w)
	w.hook = func(name string) {
		if name == "Drain" {
			p.give(workflows.UpdateHold, by("alice"))
		}
	}
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, p.answers[0], "refused: the producers are stopped: a hold now would only prolong that")
}

func TestRollbackIsObeyedBeforeThePointOfNoReturn(t *testing.T) {
	w := newWorld(t)
	p := newPlay(t, w)
	w.hook = func(name string) {
		if name == "HandOver" && len(p.answers) == 0 {
			p.give(workflows.UpdateRollback, by("alice"))
			p.give(workflows.UpdateAbort, by("bob"))
		}
	}
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	require.Contains(t, out.Sentence, "rollback asked for by alice")
	require.Contains(t, p.answers[1], "refused: the run is ending already")
	require.Equal(t, allBack, w.state())
}

func TestParkedUndoTakesRetryAndSkip(t *testing.T) {
	w := newWorld(t)
	w.fail["Drain"] = []error{final(activities.TypeNotReady, "lag")}
	w.fail["Lift"] = []error{final(activities.TypeInvalid, "a broker is away"), final(activities.TypeInvalid, "a broker is away")}
	p := newPlay(t, w)
	p.tell(1*time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Step: "promote"})
	p.tell(2*time.Minute, workflows.UpdateAbort, by("alice"))
	p.tell(3*time.Minute, workflows.UpdateHold, by("alice"))
	p.RegisterDelayedCallback(func() {
		s := p.status(t)
		require.Equal(t, "parked", s.Phase)
		require.Equal(t, "lift-fences failed: a broker is away. An operator must mend that and `retry`, or `skip` it and do it by hand; the rollback goes on after that.", s.Parked)
		p.CancelWorkflow() // a parked rollback cannot be cancelled
	}, 4*time.Minute)
	p.tell(5*time.Minute, workflows.UpdateRetry, by("alice"))
	p.tell(6*time.Minute, workflows.UpdateRetry, by("alice"))
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	require.Contains(t, p.answers[0], "refused: the run is parked at lift-fences, not at promote")
	require.Contains(t, p.answers[1], "refused: the run rolls back already")
	require.Contains(t, p.answers[2], "refused: the run rolls back: it cannot be held")
	require.Equal(t, allBack, w.state())
}

func TestSkippedFenceKeepsACLSyncOff(t *testing.T) {
	w := newWorld(t)
	w.fail["Drain"] = []error{final(activities.TypeNotReady, "lag")}
	w.fail["Lift"] = []error{final(activities.TypeInvalid, "a broker is away")}
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() { w.fenced, w.closed = false, false }, 30*time.Second) // the operator lifts it by hand
	p.tell(time.Minute, workflows.UpdateSkip, by("alice"))
	out, err := p.run(t)
	require.NoError(t, err)
	require.True(t, w.inputs["Restore"].(activities.SyncsInput).KeepACLsOff)
	require.Contains(t, out.Deviations[0], "lift-fences was skipped by an operator")
}

func TestParkedStepMayBeSkippedWhereThatIsSensible(t *testing.T) {
	w := newWorld(t)
	w.fail["Target"] = []error{final(activities.TypeNotReady, "billing does not move")}
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() {
		require.Contains(t, p.status(t).Parked, "verify failed: billing does not move. An operator must")
	}, time.Minute)
	p.tell(2*time.Minute, workflows.UpdateSkip, by("alice"))
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, out.Deviations[0], "verify was skipped by an operator after it failed: billing does not move")
}

func TestBudgetEndsAStepThatKeepsFailing(t *testing.T) {
	w := newWorld(t)
	for range 1000 {
		w.fail["Raise"] = append(w.fail["Raise"], temporal.NewApplicationError("no answer", activities.TypeUnreachable))
	}
	out, err := newPlay(t, w).run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome)
	require.Contains(t, out.Sentence, "no answer")
	require.Equal(t, allBack, w.state())
}

func TestPagedTeamsAcknowledge(t *testing.T) {
	w := newWorld(t)
	w.book.Clients = append(w.book.Clients, runbooks.Client{Name: "batch", Role: runbooks.RoleBoth, Paged: &runbooks.Paged{Team: "mainframe"}})
	p := newPlay(t, w)
	p.tell(time.Second, workflows.UpdateAcknowledge, workflows.Order{By: "dave", Client: "checkout"})
	p.tell(2*time.Second, workflows.UpdateAcknowledge, workflows.Order{By: "dave", Client: "batch"})
	p.tell(10*time.Second, workflows.UpdateAcknowledge, workflows.Order{By: "dave", Client: "batch"})
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Contains(t, p.answers[0], `refused: the run does not wait for client "checkout" but for batch`)
	require.Contains(t, p.answers[2], "acknowledged: batch")
}

func TestAPartOfAnApprovedRunNeedsNoApprovalOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.book.Gates = runbooks.Gates{Planned: runbooks.Gate{Approvals: 2, Expiry: runbooks.Duration(time.Hour)}, Approvers: []string{"alice", "bob"}}
	w.nested = true
	p := newPlay(t, w)
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, "approved with the run that it is part of", p.status(t).Steps[1].Text)
}
