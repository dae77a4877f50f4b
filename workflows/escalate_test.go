package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// turning is a planned run that is escalated while it is at an activity.
func turning(t *testing.T, at string, approvals int) (*play, *world) {
	t.Helper()
	w := newLost(t)
	w.book.Gates.Unplanned = runbooks.Gate{Approvals: approvals, Expiry: runbooks.Duration(15 * time.Minute)}
	p := newPlay(t, w)
	done := false
	w.hook = func(name string) {
		if name == at && !done {
			done = true
			p.give(workflows.UpdateEscalate, workflows.Order{By: "dora", Reason: "east is gone"})
		}
	}
	return p, w
}

// Whatever the planned run has done by then is kept: nothing is taken back, the unplanned page goes on from there with the
// same locks and the same number of the switch.
func TestEscalateAtEachStep(t *testing.T) {
	for _, at := range []string{"Stop", "Raise", "Quiesce", "Drain", "HandOver"} {
		t.Run(at, func(t *testing.T) {
			p, w := turning(t, at, 1)
			p.tell(time.Minute, workflows.UpdateApprove, by("dora"))
			p.tell(2*time.Minute, workflows.UpdateApprove, by("alice"))
			out, err := p.run(t)
			require.NoError(t, err)
			require.Contains(t, p.answers[0], "the planned steps stop, nothing is taken back")
			require.Contains(t, p.answers[1], "refused: dora asked for this run and cannot approve it too")
			require.Contains(t, p.answers[2], "approved by alice: 1 of 1; going now, at least 12 records, open")
			require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
			require.Equal(t, "west@8", w.runs["checkout"])
			require.Equal(t, "west@8", w.runs["billing"])
			require.EqualValues(t, 8, w.epoch, "one switch, one number")
			require.Zero(t, w.count("Lift")+w.count("Restore")+w.count("Promote"))
			require.Equal(t, 2, w.count("Acquire"), "it holds the runbook and the link already")

			r := p.lastReport(t)
			require.Equal(t, report.KindUnplanned, r.Kind)
			require.EqualValues(t, 12, r.Loss.AtLeast)
			require.Len(t, r.Earlier, len(runbooks.PlannedFailoverSteps))
			require.Len(t, r.Steps, len(runbooks.UnplannedFailoverSteps))
			require.Contains(t, strings.Join(r.Deviations, "\n"), "was escalated by dora: east is gone")
			require.NotNil(t, r.Recovery.Outage, "it counts from when the producers were asked to stop")
		})
	}
}

// An escalated run that is not approved goes back to where the planned one came from.
func TestEscalatedRunThatIsNotApprovedRollsBack(t *testing.T) {
	for _, at := range []string{"Stop", "Drain"} {
		t.Run(at, func(t *testing.T) {
			p, w := turning(t, at, 2)
			out, err := p.run(t)
			require.NoError(t, err)
			require.Equal(t, workflows.Rejected, out.Outcome, out.Sentence)
			require.Contains(t, out.Sentence, "0 of 2 approvals came within 15m0s")
			require.Equal(t, allBack, w.state())
			if w.count("Raise") > 0 {
				w.before(t, "Lift", "Start")
			}
		})
	}
}

// A cluster that answers again while the approvers think: the run may still be taken back.
func TestEscalatedRunMayBeAborted(t *testing.T) {
	p, w := turning(t, "Drain", 2)
	w.reachable()
	p.tell(time.Minute, workflows.UpdateAbort, by("alice"))
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Aborted, out.Outcome)
	require.Equal(t, allBack, w.state())
}

func TestEscalateIsRefusedWhereItMakesNoSense(t *testing.T) {
	for at, says := range map[string]string{
		"Check":   "refused: the run is at preflight, where no client was stopped yet: abort it, then `switchback start unplanned`",
		"Promote": "where its target is proven to have everything",
		"Start":   "where its target is proven to have everything",
	} {
		p, w := turning(t, at, 1)
		out, err := p.run(t)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, out.Outcome)
		require.Contains(t, p.answers[0], says)
		require.Zero(t, w.count("Assess"))
	}
	w := newLost(t)
	p := newPlay(t, w)
	w.hook = func(name string) {
		if name == "StopReachable" {
			p.give(workflows.UpdateEscalate, by("dora"))
		}
	}
	_, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Contains(t, p.answers[0], "refused: only a planned run can be turned into an unplanned one")
}

// Two clusters that are both unwell are not swapped for ever: a second switch soon after the last one needs a reason.
func TestAntiFlap(t *testing.T) {
	runs := map[string]func(*testing.T, *play, string) (workflows.Result, error){
		"planned": func(t *testing.T, p *play, why string) (workflows.Result, error) {
			in := request
			in.Override = why
			p.children()
			p.ExecuteWorkflow(workflows.PlannedFailover, in)
			var out workflows.Result
			if err := p.GetWorkflowError(); err != nil {
				return out, err
			}
			return out, p.GetWorkflowResult(&out)
		},
		"unplanned": func(t *testing.T, p *play, why string) (workflows.Result, error) {
			in := disaster
			in.Override = why
			return p.lose(t, in)
		},
	}
	for kind, run := range runs {
		t.Run(kind, func(t *testing.T) {
			w := newLost(t)
			p := newPlay(t, w)
			last := p.Now().Add(-10 * time.Minute).UTC()
			w.lastOver = &last
			_, err := run(t, p, "")
			require.ErrorContains(t, err, "was switched at "+last.Format(time.RFC3339))
			require.ErrorContains(t, err, "gates.antiFlap allows the next switch at "+last.Add(30*time.Minute).Format(time.RFC3339))
			require.ErrorContains(t, err, "`--override REASON`")
			require.Equal(t, untouched, w.state())
			require.Empty(t, w.holder)

			w = newLost(t)
			w.lastOver = &last
			p = newPlay(t, w)
			out, err := run(t, p, "west burns")
			require.NoError(t, err)
			require.Equal(t, workflows.Completed, out.Outcome)
			require.Contains(t, out.Deviations[0], "overridden: west burns")
			require.Equal(t, "override", p.lastReport(t).Decisions[0].Kind)

			w = newLost(t)
			old := last.Add(-time.Hour)
			w.lastOver = &old
			out, err = run(t, newPlay(t, w), "")
			require.NoError(t, err)
			require.Equal(t, workflows.Completed, out.Outcome)
		})
	}
}

func TestPlanUnplannedChangesNothing(t *testing.T) {
	w := newLost(t)
	p := newPlay(t, w)
	last := p.Now().Add(-10 * time.Minute).UTC()
	w.entity.LastSwitch = &last
	p.ExecuteWorkflow(workflows.PlanUnplannedFailover, disaster)
	require.NoError(t, p.GetWorkflowError())
	var plan workflows.UnplannedPlan
	require.NoError(t, p.GetWorkflowResult(&plan))
	require.Equal(t, []string{"Snapshot", "Read", "Entity", "Assess"}, w.called)
	require.True(t, w.inputs["Assess"].(activities.AssessInput).DryRun)
	require.Equal(t, untouched, w.state())
	require.EqualValues(t, 12, plan.Assessment.Loss.AtLeast)
	require.Equal(t, 1, plan.Problems, "anti-flap")
	require.False(t, plan.GoesIfNow)
	var names []string
	for _, s := range plan.Steps {
		names = append(names, string(s.Step))
		require.NotEmpty(t, s.Would, s.Step)
		require.Positive(t, s.BudgetSeconds, s.Step)
	}
	require.Equal(t, runbooks.UnplannedFailoverSteps, names)
}
