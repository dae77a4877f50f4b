package workflows_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

var disaster = workflows.UnplannedInput{Runbook: "orders", To: "west", Reason: "east is gone", By: "carol"}

// Where everything is after an unplanned run whose source is dead, one whose source could be fenced, and one that came back.
const (
	lostOver  = "checkout west@8, billing west@8, keys west@8, fence false, groups closed false, syncs false"
	fenceOver = "checkout west@8, billing west@8, keys west@8, fence true, groups closed false, syncs false"
)

// newLost is a world whose active cluster is gone.
func newLost(t *testing.T) *world {
	w := newWorld(t)
	w.book.Gates.AntiFlap = runbooks.Duration(30 * time.Minute)
	w.assessed = activities.AssessResult{
		From: activities.Reach{Site: "east", Why: "connection refused"}, To: activities.Reach{Site: "west", Answers: true, Brokers: 3},
		Topics: 2, Partitions: 6, Groups: 1, LinkName: "east-west", StopIsFinal: true, SealProven: true, LastAnswer: time.Date(2026, 3, 14, 2, 57, 0, 0, time.UTC),
		Findings: []activities.Finding{{Check: "reach", Level: activities.LevelOK, Means: "west answers"}},
		Loss:     activities.Loss{AtLeast: 12, AtMost: replication.Unknown, Estimate: 40, Bytes: -1, Seconds: 3, Why: "sampled 3 s before"},
	}
	return w
}

// reachable lets the old cluster answer, as far as it is there.
func (w *world) reachable() *world {
	w.assessed.From = activities.Reach{Site: "east", Answers: true, Brokers: 3}
	return w
}

func (p *play) lose(t *testing.T, in workflows.UnplannedInput) (workflows.Result, error) {
	t.Helper()
	p.children()
	p.ExecuteWorkflow(workflows.UnplannedFailover, in)
	require.True(t, p.IsWorkflowCompleted(), "the run hangs")
	var out workflows.Result
	if err := p.GetWorkflowError(); err != nil {
		return out, err
	}
	require.NoError(t, p.GetWorkflowResult(&out))
	require.Empty(t, p.holder, "locks are left")
	return out, nil
}

func (p *play) lastReport(t *testing.T) report.Report {
	t.Helper()
	require.NotEmpty(t, p.reports)
	r, err := report.Parse([]byte(p.reports[len(p.reports)-1]))
	require.NoError(t, err)
	return r
}

func TestUnplannedFailoverInOrder(t *testing.T) {
	p := newPlay(t, newLost(t))
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, lostOver, p.state())
	require.Contains(t, out.Sentence, "orders runs on west at epoch 8, loss: at least 12 records, open")

	status := p.status(t)
	var names []string
	for _, s := range status.Steps {
		names = append(names, string(s.Step))
		require.Equal(t, workflows.Done, s.State, "%s: %s", s.Step, s.Text)
	}
	require.Equal(t, runbooks.UnplannedFailoverSteps, names)
	require.NotNil(t, status.Loss)

	p.before(t, "Assess", "Suspend")
	for _, before := range []string{"Suspend", "StopReachable"} {
		p.before(t, before, "FailOver")
	}
	p.before(t, "FailOver", "KeepLastMarks")
	p.before(t, "KeepLastMarks", "Settle")
	p.before(t, "HandOverLastKnown", "Settle")
	p.before(t, "Settle", "Switch")
	p.before(t, "Switch", "Start")
	p.before(t, "Start", "Target")
	p.before(t, "Write", "Release")
	require.NotContains(t, p.called, "RaiseReachable", "a cluster that does not answer is not asked inside the run")
	for _, name := range []string{"Assess", "FailOver", "Switch"} {
		require.Contains(t, p.inputs, name)
	}
	require.True(t, p.inputs["Assess"].(activities.AssessInput).Route.SourceLost)
	require.True(t, p.inputs["FailOver"].(activities.WaitInput).Route.SourceLost)
	last := p.released[len(p.released)-1]
	require.Equal(t, "west", last.Active)
	require.EqualValues(t, 8, last.Epoch)
	require.NotNil(t, last.UnprotectedSince)
}

// What a dead cluster costs is that it is fenced later; one that answers is fenced at once.
func TestWhatAnswersIsFencedAtOnce(t *testing.T) {
	w := newLost(t).reachable()
	p := newPlay(t, w)
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, fenceOver, w.state())
	require.Zero(t, w.count("WhenReachable"), "nothing was left to fence")
	w.before(t, "RaiseReachable", "FailOver")
}

// TestUnplannedReportStatesTheLoss: never less than is known, and what the recovery time is made of.
func TestUnplannedReportStatesTheLoss(t *testing.T) {
	w := newLost(t)
	w.lastMarks = activities.LastMarksResult{Loss: activities.Loss{AtLeast: 17, AtMost: 20, Estimate: -1, Bytes: 1700, Seconds: 4, Why: "sampled 4 s before"},
		Losses: []activities.TopicLoss{{Topic: "orders", Loss: activities.Loss{AtLeast: 17, AtMost: 20, Estimate: -1, Bytes: -1, Seconds: -1}}}}
	p := newPlay(t, w)
	in := disaster
	start := p.Now()
	in.Outage = start.Add(-3 * time.Minute)
	p.tell(time.Minute, workflows.UpdateApprove, by("alice"))
	p.tell(2*time.Minute, workflows.UpdateApprove, by("bob"))
	w.book.Gates.Unplanned = runbooks.Gate{Approvals: 2, Expiry: runbooks.Duration(time.Hour)}
	_, err := p.lose(t, in)
	require.NoError(t, err)
	r := p.lastReport(t)
	require.Equal(t, report.KindUnplanned, r.Kind)
	require.EqualValues(t, 17, r.Loss.AtLeast)
	require.Nil(t, r.Loss.AtMost, "as long as east is not fenced there is no upper bound")
	require.True(t, r.Loss.Open)
	require.Equal(t, "orders", r.Loss.Topics[0].Topic)
	require.False(t, r.RPO.Known)
	require.Nil(t, r.RPO.Records)
	require.False(t, *r.RPO.Met, "17 are more than 0, whatever the number becomes")
	require.Contains(t, r.RPO.Text, "at least 17 records")
	require.InDelta(t, 180, *r.Recovery.DetectionSeconds, 2)
	require.InDelta(t, 120, *r.Recovery.DecisionSeconds, 2)
	require.InDelta(t, *r.RTO.Seconds, *r.Recovery.DetectionSeconds+*r.Recovery.DecisionSeconds+*r.Recovery.RunSeconds, 0.1)
	require.Equal(t, in.Outage.UTC().Unix(), r.Recovery.Outage.Unix())
	require.Contains(t, r.Standing[0], "east is not fenced")
	require.NotNil(t, r.Protection.UnprotectedSince)
	require.EqualValues(t, 8, *r.Epoch.After)
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	require.Equal(t, runbooks.UnplannedFailoverSteps, names)
	require.Contains(t, r.Markdown(), "fence/orders/east")
}

// A closed number is said as one.
func TestUnplannedReportWithAFencedSource(t *testing.T) {
	w := newLost(t).reachable()
	w.lastMarks = activities.LastMarksResult{Loss: activities.Loss{AtLeast: 3, AtMost: 3, Estimate: -1, Bytes: -1, Seconds: 1, Why: "compared behind the fence"}}
	w.book.Objectives.RPO = runbooks.RPO{Records: 10, Time: runbooks.Duration(time.Minute)}
	p := newPlay(t, w)
	_, err := p.lose(t, disaster)
	require.NoError(t, err)
	r := p.lastReport(t)
	require.True(t, r.RPO.Known)
	require.EqualValues(t, 3, *r.RPO.Records)
	require.True(t, *r.RPO.Met)
	require.False(t, r.Loss.Open)
}

// failing at each activity of an unplanned run: before the mirrors are failed over everything comes back, after that the
// run parks and only goes forward.
func TestUnplannedFailingAtEachStep(t *testing.T) {
	const fencedBack = "checkout east@8, billing east@8, keys east@8, fence false, groups closed false, syncs true"
	for _, after := range []bool{false, true} {
		for _, tc := range []struct{ activity, outcome, state string }{
			{"Snapshot", workflows.FailedRun, untouched},
			{"Read", workflows.FailedRun, untouched},
			{"Acquire", workflows.FailedRun, untouched},
			{"Assess", workflows.FailedRun, untouched},
			{"Suspend", workflows.Completed, fenceOver}, // suspended later
			{"StopReachable", workflows.RolledBack, fencedBack},
			{"RaiseReachable", workflows.Completed, fenceOver}, // fenced later
			{"FailOver", workflows.Completed, fenceOver},
			{"KeepLastMarks", workflows.Completed, fenceOver},
			{"HandOverLastKnown", workflows.Completed, fenceOver},
			{"Settle", workflows.Completed, fenceOver},
			{"Switch", workflows.Completed, fenceOver},
			{"Start", workflows.Completed, fenceOver},
			{"Target", workflows.Completed, fenceOver},
			{"Write", workflows.Completed, fenceOver},
			{"Release", workflows.Completed, fenceOver},
		} {
			reads := []string{"Snapshot", "Read", "Assess", "Target", "Settle"}
			name := tc.activity + "/before it acted"
			if after {
				if slices.Contains(reads, tc.activity) {
					continue
				}
				name = tc.activity + "/after it acted"
			}
			t.Run(name, func(t *testing.T) {
				w := newLost(t).reachable()
				list := w.fail
				if after {
					list = w.failAfter
				}
				list[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
				p := newPlay(t, w)
				p.tell(time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Reason: "mended"})
				out, err := p.lose(t, disaster)
				state := w.state()
				if tc.activity == "Suspend" && !after {
					state = fenceOver // the link was left as it was
					require.Contains(t, out.Deviations[0], "could not be suspended")
				}
				if tc.activity == "RaiseReachable" {
					require.NotEmpty(t, p.status(t).Steps[4].Text)
				} else {
					require.Equal(t, tc.state, state)
				}
				if tc.outcome == workflows.FailedRun {
					require.ErrorContains(t, err, "it broke")
					require.Empty(t, w.holder)
					return
				}
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				switch {
				case tc.outcome != workflows.Completed:
					require.Contains(t, out.Sentence, "it broke")
					require.NotEmpty(t, w.reports, "a rolled back run is reported")
				case tc.activity != "Suspend" && tc.activity != "RaiseReachable":
					require.Contains(t, p.answers[0], "retry", "it did not park")
				}
			})
		}
	}
}

func TestUnplannedCancellingAtEachStep(t *testing.T) {
	for _, how := range []string{"cancel", workflows.UpdateAbort} {
		for _, tc := range []struct{ activity, outcome, state string }{
			{"Assess", workflows.Aborted, untouched},
			{"StopReachable", workflows.Aborted, allBack},
			{"RaiseReachable", workflows.Aborted, allBack},
			{"FailOver", workflows.Completed, fenceOver},
			{"KeepLastMarks", workflows.Completed, fenceOver},
			{"HandOverLastKnown", workflows.Completed, fenceOver},
			{"Settle", workflows.Completed, fenceOver},
			{"Switch", workflows.Completed, fenceOver},
			{"Start", workflows.Completed, fenceOver},
			{"Target", workflows.Completed, fenceOver},
			{"Write", workflows.Completed, fenceOver},
			{"Release", workflows.Completed, fenceOver},
		} {
			t.Run(how+"/"+tc.activity, func(t *testing.T) {
				w := newLost(t).reachable()
				p := newPlay(t, w)
				done := false
				w.hook = func(name string) {
					if name != tc.activity || done {
						return
					}
					done = true
					if how == "cancel" {
						p.CancelWorkflow()
						return
					}
					p.give(how, workflows.Order{By: "alice", Reason: "changed my mind"})
				}
				out, err := p.lose(t, disaster)
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				require.Equal(t, tc.state, w.state())
				if how != "cancel" && tc.outcome == workflows.Completed {
					require.Contains(t, p.answers[0], "refused: the run is past its point of no return (fail-over was sent)")
				}
			})
		}
	}
}
