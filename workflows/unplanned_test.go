package workflows_test

import (
	"slices"
	"strings"
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
	return p.ended(t)
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
// P3: in a disaster all workloads of a link leave at once, and none waits for another's approvals. Who goes back leaves the ACL
// sync of the link to the run that holds it.
func TestP03_ManyWorkloadsOfALinkLeaveAtOnce(t *testing.T) {
	held := final(activities.TypeHeld, "link/east-west is held by run invoices/1")
	p := newPlay(t, newLost(t))
	p.fail["Acquire"] = []error{nil, held}
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Contains(t, strings.Join(out.Deviations, "; "), "beside another one of the same link: link/east-west is held by run invoices/1")

	p = newPlay(t, newLost(t))
	p.fail["Acquire"] = []error{nil, held}
	p.fail["FailOver"] = []error{final(activities.TypePromoteRefused, "the link would not")}
	out, err = p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome, out.Sentence)
	require.True(t, p.inputs["Restore"].(activities.SyncsInput).KeepACLsOff)
}

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

// Clients that cannot be reached are named, or waited for, as the operator says; nobody takes them for stopped.
func TestP22_UnknownClientsAreNamedOrWaitedFor(t *testing.T) {
	unknown := []replication.Outcome{{Name: "checkout/2", Status: replication.Unclear, Reason: "vanished from host a7"}}
	w := newLost(t)
	w.unknown = unknown
	p := newPlay(t, w)
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, out.Deviations[0], "checkout/2")
	require.Contains(t, out.Deviations[0], "may write to east until it is fenced")
	require.Contains(t, strings.Join(p.lastReport(t).Deviations, "; "), "not started, because nobody could reach them; they follow to west by themselves as soon as they reach discovery: checkout/2")
	require.True(t, w.inputs["StopReachable"].(activities.ClientsInput).GoOn)

	wait := disaster
	wait.Clients = workflows.ClientsWait
	for _, word := range []string{workflows.UpdateRetry, workflows.UpdateSkip, workflows.UpdateAbort} {
		w = newLost(t)
		w.unknown = unknown
		p := newPlay(t, w)
		p.RegisterDelayedCallback(func() {
			s := p.status(t)
			require.Equal(t, "parked", s.Phase)
			require.Contains(t, s.Parked, "checkout/2: unknown (vanished from host a7)")
			require.Contains(t, s.Parked, "`rollback` or `abort`")
			require.Zero(t, w.count("FailOver"))
			w.unknown = nil
		}, time.Hour)
		p.tell(2*time.Hour, word, by("alice"))
		out, err = p.lose(t, wait)
		require.NoError(t, err)
		if word == workflows.UpdateAbort {
			require.Equal(t, workflows.Aborted, out.Outcome)
			require.Equal(t, allBack, w.state())
			continue
		}
		require.Equal(t, workflows.Completed, out.Outcome)
		require.Equal(t, lostOver, w.state())
	}
	bad := disaster
	bad.Clients = "perhaps"
	_, err = newPlay(t, newLost(t)).lose(t, bad)
	require.ErrorContains(t, err, `clients: "perhaps" is unknown: use go-on or wait`)
}

// Approvers decide by the loss as it is now: it is looked at again while they think.
func TestApproversSeeTheLossAsItIsNow(t *testing.T) {
	w := newLost(t)
	w.book.Gates.Unplanned = runbooks.Gate{Approvals: 1, Expiry: runbooks.Duration(15 * time.Minute)}
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() {
		require.EqualValues(t, 12, p.status(t).Loss.AtLeast)
		w.assessed.Loss.AtLeast = 99
	}, 30*time.Second)
	p.RegisterDelayedCallback(func() { require.EqualValues(t, 99, p.status(t).Loss.AtLeast) }, 3*time.Minute)
	p.tell(4*time.Minute, workflows.UpdateApprove, by("alice"))
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Contains(t, p.answers[0], "at least 99 records")
	require.Contains(t, out.Sentence, "at least 99 records")
}

// What an assessment finds while somebody approves forbids the run all the same.
func TestProblemsOfALaterAssessmentForbid(t *testing.T) {
	w := newLost(t)
	w.book.Gates.Unplanned = runbooks.Gate{Approvals: 1, Expiry: runbooks.Duration(15 * time.Minute)}
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() {
		w.assessed.Findings = append(w.assessed.Findings, activities.Finding{Check: "target", Level: activities.LevelProblem, Means: "west is gone as well."})
	}, 30*time.Second)
	p.tell(4*time.Minute, workflows.UpdateApprove, by("alice"))
	_, err := p.lose(t, disaster)
	require.ErrorContains(t, err, "west is gone as well.")
	require.Equal(t, untouched, w.state())
}

// A mirror that is only sealed is confirmed to have stopped behind the clients' backs.
func TestP10_TheStopIsConfirmedOutsideTheWindow(t *testing.T) {
	w := newLost(t)
	w.assessed.StopIsFinal = false
	out, err := newPlay(t, w).lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	w.before(t, "Start", "AwaitStopped")

	w = newLost(t)
	w.assessed.StopIsFinal = false
	w.fail["AwaitStopped"] = []error{final(activities.TypeNotReady, "task 0 is running")}
	p := newPlay(t, w)
	out, err = p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, "the seal holds it")
	require.Contains(t, out.Deviations[0], "task 0 is running")
	require.Contains(t, p.lastReport(t).Standing[len(p.lastReport(t).Standing)-2], "seal")
}

// In a disaster the seal is final too: what the new cluster was given is not given up for an old one that is gone.
func TestP15_FailOverIsFinalAlsoWhereASealIsNot(t *testing.T) {
	w := newLost(t)
	w.assessed.StopIsFinal = false
	w.fail["HandOverLastKnown"] = []error{final(activities.TypeInvalid, "no checkpoint")}
	p := newPlay(t, w)
	p.tell(time.Minute, workflows.UpdateAbort, by("alice"))
	p.tell(2*time.Minute, workflows.UpdateSkip, by("alice"))
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Contains(t, p.answers[0], "refused: the run is past its point of no return (fail-over was sent)")
	require.Equal(t, workflows.Completed, out.Outcome)
}

// Between the decision and the first start six activities follow each other; the others run beside them.
func TestAtMostSixActivitiesAfterTheDecision(t *testing.T) {
	w := newLost(t)
	_, err := newPlay(t, w).lose(t, disaster)
	require.NoError(t, err)
	in := w.called[slices.Index(w.called, "Assess")+2 : slices.Index(w.called, "Start")+1] // the link's lock is taken before the decision
	require.ElementsMatch(t, []string{"Suspend", "StopReachable", "FailOver", "KeepLastMarks", "HandOverLastKnown", "Settle", "Switch", "Start"}, in)
}

// Entries that could not be written are not forgotten with the run: a workflow of its own goes on until they say the truth.
func TestP02_PendingEntriesAreRetriedUntilDone(t *testing.T) {
	for name, run := range map[string]func(*play) (workflows.Result, error){
		"planned":   func(p *play) (workflows.Result, error) { return p.run(t) },
		"unplanned": func(p *play) (workflows.Result, error) { return p.lose(t, disaster) },
	} {
		w := newLost(t)
		w.optional = replication.Pending
		p := newPlay(t, w)
		out, err := run(p)
		require.NoError(t, err, name)
		require.Contains(t, out.Deviations[len(out.Deviations)-1], "align/orders goes on until they do", name)
		require.IsType(t, workflows.AlignmentInput{}, p.begun[len(p.begun)-1], name)
	}

	w := newWorld(t)
	w.optional = replication.Pending
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() { w.optional = replication.OK }, 24*time.Hour)
	p.ExecuteWorkflow(workflows.AlignDiscovery, workflows.AlignmentInput{Runbook: "orders"})
	require.NoError(t, p.GetWorkflowError())
	var s workflows.AlignmentStatus
	require.NoError(t, p.GetWorkflowResult(&s))
	require.Empty(t, s.Pending)
	require.Less(t, s.Tries, 3000)
	require.Greater(t, s.Tries, 1000)
}

// A run that left something behind is taken over: its source may not answer, and what it began is wanted.
func TestP01_AbandonedRunIsTakenOver(t *testing.T) {
	w := newLost(t)
	w.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "old", FirstRunID: "1"}, To: "west"}
	w.desired["checkout"], w.runs["checkout"], w.synced = "stop", "stopped", false
	out, err := newPlay(t, w).lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, lostOver, w.state())
	require.Zero(t, w.count("Lift")+w.count("Restore"))
	require.Contains(t, out.Deviations[0], "taken over")
	require.False(t, w.released[len(w.released)-1].Unsettled)
}

// Where offsets differ the marks do not tell what is lost, also of a cluster that answers and that the run fenced itself:
// somebody has to compare both clusters once the mirror has stopped, and keep the stranded records from expiring until then.
func TestP18_ALossThatTheMarksDoNotTellIsClosedByWhoComparesTheClusters(t *testing.T) {
	w := newLost(t).reachable()
	w.assessed.StopIsFinal = false
	w.lastMarks = activities.LastMarksResult{Loss: activities.Loss{AtMost: replication.Unknown, Estimate: 3, Bytes: -1, Seconds: -1, Why: "the link's own claim"}}
	p := newPlay(t, w)
	out, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Len(t, p.begun, 1)
	require.Equal(t, []string{"fence/orders/east"}, p.signals)
	r := p.lastReport(t)
	require.True(t, r.Loss.Open)
	require.Equal(t, "WRITE is denied on the topics of east until the workload goes home", r.Standing[0])
	require.Contains(t, r.Standing[1], "fence/orders/east compares both clusters, and closes the number")
}

func TestTheSwitchIsToldToWhatWaitsForTheOldCluster(t *testing.T) {
	p := newPlay(t, newLost(t))
	_, err := p.lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, []string{"fence/orders/east"}, p.signals)
	in := p.begun[0].(workflows.FencingInput)
	require.EqualValues(t, 8, in.Guard.Epoch)
	require.EqualValues(t, 7, in.Before)
	require.Equal(t, "east", in.Route.From.Name)
}
