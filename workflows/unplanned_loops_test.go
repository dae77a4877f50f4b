package workflows_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/runbooks"
	"switchback/workflows"
)

// Where everything is after an unplanned run that could not hold back the syncs of the link.
const leftSyncing = "checkout west@8, billing west@8, keys west@8, fence true, groups closed false, syncs true"

// lossOf are the two ways in which an old cluster may be gone, and how the run leaves it.
var lossOf = []struct {
	name string
	make func(*testing.T) *world
	over string
}{
	{"the old cluster is dead", newLost, lostOver},
	{"the old cluster answers", func(t *testing.T) *world { return newLost(t).reachable() }, fenceOver},
}

// backends differ in whether a stop is final, and in what is still to be confirmed behind it.
var backends = []struct {
	name        string
	stopIsFinal bool
}{{"cluster linking", true}, {"MirrorMaker 2", false}}

// everyLoss plays something for each backend and each way to lose a cluster.
func everyLoss(t *testing.T, play func(t *testing.T, w *world, over string)) {
	t.Helper()
	for _, backend := range backends {
		for _, lost := range lossOf {
			t.Run(backend.name+"/"+lost.name, func(t *testing.T) {
				w := lost.make(t)
				w.assessed.StopIsFinal = backend.stopIsFinal
				play(t, w, lost.over)
			})
		}
	}
}

// met says whether a run of this world comes to an activity at all: a dead cluster is not asked to be fenced, and only a
// stop that is not final is confirmed.
func (w *world) met(activity string) bool {
	switch activity {
	case "RaiseReachable":
		return w.assessed.From.Answers
	case "AwaitStopped":
		return !w.assessed.StopIsFinal
	}
	return true
}

// over stands in a table for where the run leaves everything when nothing goes wrong.
const over = ""

// failing at each activity of an unplanned run: before the mirrors are failed over everything comes back, after that the
// run parks and only goes forward. What a disaster may make impossible, holding back the link's own work, fencing the old
// cluster, and seeing a mirror stop, holds up nothing and is said.
func TestUnplannedFailingAtEachStep(t *testing.T) {
	reads := []string{"Snapshot", "Read", "Assess", "Target", "Settle", "AwaitStopped"}
	for _, tc := range []struct {
		activity, outcome string
		state, after      string // if it failed before it acted, and after
		parks             bool
		says              string
	}{
		{activity: "Snapshot", outcome: workflows.FailedRun, state: untouched},
		{activity: "Read", outcome: workflows.FailedRun, state: untouched},
		{activity: "Acquire", outcome: workflows.FailedRun, state: untouched, after: untouched},
		{activity: "Assess", outcome: workflows.FailedRun, state: untouched},
		{activity: "Suspend", outcome: workflows.Completed, state: leftSyncing, says: "could not be suspended"},
		{activity: "StopReachable", outcome: workflows.RolledBack, state: allBack, after: allBack},
		{activity: "RaiseReachable", outcome: workflows.Completed, state: lostOver, after: fenceOver},
		{activity: "FailOver", outcome: workflows.Completed, parks: true},
		{activity: "KeepLastMarks", outcome: workflows.Completed, parks: true},
		{activity: "HandOverLastKnown", outcome: workflows.Completed, parks: true},
		{activity: "Settle", outcome: workflows.Completed, parks: true},
		{activity: "Switch", outcome: workflows.Completed, parks: true},
		{activity: "Start", outcome: workflows.Completed, parks: true},
		{activity: "Target", outcome: workflows.Completed, parks: true},
		{activity: "AwaitStopped", outcome: workflows.Completed, says: "was not seen to stop, only its seal holds it"},
		{activity: "Write", outcome: workflows.Completed, parks: true},
		{activity: "Release", outcome: workflows.Completed, parks: true},
	} {
		for _, after := range []bool{false, true} {
			if after && slices.Contains(reads, tc.activity) {
				continue // a read changes nothing: after is the same as before
			}
			name := tc.activity + "/before it acted"
			if after {
				name = tc.activity + "/after it acted"
			}
			t.Run(name, func(t *testing.T) {
				everyLoss(t, func(t *testing.T, w *world, done string) {
					if !w.met(tc.activity) {
						return
					}
					want, list := tc.state, w.fail
					if after {
						want, list = tc.after, w.failAfter
					}
					if want == over || want == leftSyncing && done == lostOver {
						want = done
					}
					if tc.activity == "Suspend" && !after && done == lostOver {
						want = "checkout west@8, billing west@8, keys west@8, fence false, groups closed false, syncs true"
					}
					list[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
					p := newPlay(t, w)
					p.tell(time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Reason: "mended"})
					out, err := p.lose(t, disaster)
					require.Equal(t, want, w.state())
					require.Empty(t, w.holder)
					if tc.outcome == workflows.FailedRun {
						require.ErrorContains(t, err, "it broke")
						return
					}
					require.NoError(t, err)
					require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
					require.NotEmpty(t, w.reports)
					switch {
					case tc.parks:
						require.Contains(t, p.answers[0], "retry", "it did not park")
					case tc.outcome != workflows.Completed:
						require.Contains(t, out.Sentence, "it broke")
					case tc.says != "":
						require.Contains(t, out.Deviations[0], tc.says)
						require.Contains(t, out.Deviations[0], "it broke")
					}
				})
			})
		}
	}
}

// stopping while each activity runs: before the mirrors are failed over everything comes back, after that the run goes on.
func TestUnplannedCancellingAtEachStep(t *testing.T) {
	for _, how := range []string{"cancel", workflows.UpdateAbort} {
		for _, tc := range []struct{ activity, outcome, state string }{
			{"Snapshot", workflows.Aborted, untouched},
			{"Read", workflows.Aborted, untouched},
			{"Acquire", workflows.Aborted, untouched},
			{"Assess", workflows.Aborted, untouched},
			{"Suspend", workflows.Aborted, allBack}, // the clients are asked to stop beside it
			{"StopReachable", workflows.Aborted, allBack},
			{"RaiseReachable", workflows.Aborted, allBack},
			{"FailOver", workflows.Completed, over},
			{"KeepLastMarks", workflows.Completed, over},
			{"HandOverLastKnown", workflows.Completed, over},
			{"Settle", workflows.Completed, over},
			{"Switch", workflows.Completed, over},
			{"Start", workflows.Completed, over},
			{"Target", workflows.Completed, over},
			{"AwaitStopped", workflows.Completed, over},
			{"Write", workflows.Completed, over},
			{"Release", workflows.Completed, over},
		} {
			t.Run(how+"/"+tc.activity, func(t *testing.T) {
				everyLoss(t, func(t *testing.T, w *world, done string) {
					if !w.met(tc.activity) {
						return
					}
					want := tc.state
					if want == over {
						want = done
					}
					p := newPlay(t, w)
					w.hook = p.once(tc.activity, func() { p.halt(how) })
					out, err := p.lose(t, disaster)
					require.NoError(t, err)
					require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
					require.Equal(t, want, w.state())
					if how != "cancel" && tc.outcome == workflows.Completed {
						require.Contains(t, p.answers[0], "refused: the run is past its point of no return (fail-over was sent)")
					}
				})
			})
		}
	}
}

// once does something when an activity is first about to act.
func (p *play) once(activity string, do func()) func(string) {
	done := false
	return func(name string) {
		if name == activity && !done {
			done = true
			do()
		}
	}
}

// halt cancels the workflow, or gives an order that ends it.
func (p *play) halt(how string) {
	if how == "cancel" {
		p.CancelWorkflow()
		return
	}
	p.give(how, workflows.Order{By: "alice", Reason: "changed my mind"})
}

// A link that refuses to fail over has changed nothing, so the run goes back; whatever fails on the way back parks, and
// with an operator's word the end is the same.
func TestUnplannedFailingInARollback(t *testing.T) {
	for _, tc := range []struct {
		activity string
		dead     bool // only where something waits for the dead cluster
	}{{"", false}, {"EndFencing", true}, {"Switch", false}, {"Lift", false}, {"Start", false}, {"Restore", false}} {
		for _, after := range []bool{false, true} {
			name := tc.activity + "/before it acted"
			if after {
				name = tc.activity + "/after it acted"
			}
			t.Run(name, func(t *testing.T) {
				everyLoss(t, func(t *testing.T, w *world, _ string) {
					if tc.dead && (w.assessed.From.Answers || after) {
						return
					}
					w.fail["FailOver"] = []error{final(activities.TypePromoteRefused, "validate_only said no")}
					list := w.fail
					if after {
						list = w.failAfter
					}
					if tc.activity != "" {
						list[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
					}
					p := newPlay(t, w)
					p.tell(time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Reason: "mended"})
					out, err := p.lose(t, disaster)
					require.NoError(t, err)
					require.Equal(t, workflows.RolledBack, out.Outcome, out.Sentence)
					require.Contains(t, out.Sentence, "validate_only said no")
					require.Equal(t, allBack, w.state())
					if tc.activity != "" {
						require.Contains(t, p.answers[0], "retry", "it did not park")
					}
					require.Zero(t, w.marks)
				})
			})
		}
	}
}

// Somebody else has gone on: wherever the run hears of it, it stops acting and takes nothing back, because what stands
// belongs to others.
func TestP35_AnUnplannedRunThatIsStaleStopsActing(t *testing.T) {
	acts := []string{"Suspend", "StopReachable", "FailOver", "HandOverLastKnown", "Settle", "Switch", "Start", "Target"}
	for i, activity := range acts {
		t.Run(activity, func(t *testing.T) {
			everyLoss(t, func(t *testing.T, w *world, _ string) {
				w.fail[activity] = []error{final(activities.TypeStale, "discovery is at epoch 9, the run acts for 7")}
				p := newPlay(t, w)
				_, err := p.lose(t, disaster)
				require.ErrorContains(t, err, "somebody else has switched this runbook meanwhile")
				require.Empty(t, w.holder)
				require.Zero(t, w.count("Lift")+w.count("Restore")+w.count("EndFencing"))
				for _, later := range acts[i+1:] {
					if later != "StopReachable" && (later != "Settle" || activity != "HandOverLastKnown") { // begun beside it
						require.Zero(t, w.count(later), "%s after it", later)
					}
				}
			})
		})
	}
}

// A planned run that was escalated in the middle of its window, and then fails or is stopped at each activity of the
// unplanned page: the same points, and the same ends.
func TestEscalatedFailingAndCancellingAtEachStep(t *testing.T) {
	for _, tc := range []struct{ activity, failed, stopped string }{
		{"Assess", workflows.RolledBack, workflows.Aborted},
		{"StopReachable", workflows.RolledBack, workflows.Aborted},
		{"FailOver", workflows.Completed, workflows.Completed},
		{"KeepLastMarks", workflows.Completed, workflows.Completed},
		{"HandOverLastKnown", workflows.Completed, workflows.Completed},
		{"Settle", workflows.Completed, workflows.Completed},
		{"Switch", workflows.Completed, workflows.Completed},
		{"Start", workflows.Completed, workflows.Completed},
		{"Target", workflows.Completed, workflows.Completed},
		{"Write", workflows.Completed, workflows.Completed},
		{"Release", workflows.Completed, workflows.Completed},
	} {
		for _, how := range []string{"fail", "cancel", workflows.UpdateAbort} {
			t.Run(tc.activity+"/"+how, func(t *testing.T) {
				w := newLost(t)
				w.book.Gates.Unplanned = runbooks.Gate{Approvals: 1, Expiry: runbooks.Duration(15 * time.Minute)}
				p := newPlay(t, w)
				escalate := p.once("Drain", func() { p.give(workflows.UpdateEscalate, workflows.Order{By: "dora", Reason: "east is gone"}) })
				stop := p.once(tc.activity, func() { p.halt(how) })
				if how == "fail" {
					w.fail[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
					stop = func(string) {}
				}
				w.hook = func(name string) {
					escalate(name)
					if w.count("Assess") > 0 || name == "Assess" { // Switch and Start of the unplanned page
						stop(name)
					}
				}
				p.tell(time.Minute, workflows.UpdateApprove, by("alice"))
				p.tell(2*time.Minute, workflows.UpdateRetry, by("alice"))
				out, err := p.run(t)
				require.NoError(t, err)
				want := tc.stopped
				if how == "fail" {
					want = tc.failed
				}
				require.Equal(t, want, out.Outcome, out.Sentence)
				if want != workflows.Completed {
					require.Equal(t, allBack, w.state())
					w.before(t, "Lift", "Start")
					return
				}
				require.Equal(t, fenceOver, w.state(), "fenced by the planned page")
				require.EqualValues(t, 8, out.Epoch, "one switch, one number")
			})
		}
	}
}
