package workflows_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/workflows"
)

// Where everything is after a run that changed nothing, that came back, and that went over.
const (
	untouched = "checkout east@7, billing east@7, keys east@7, fence false, groups closed false, syncs true"
	cameBack  = "checkout east@8, billing east@7, keys east@8, fence false, groups closed false, syncs true"
	allBack   = "checkout east@8, billing east@8, keys east@8, fence false, groups closed false, syncs true"
	wentOver  = "checkout west@8, billing west@8, keys west@8, fence true, groups closed true, syncs false"
)

// failing at each activity: before it acted, and after it acted with the answer lost for good.
var failing = []struct {
	activity string
	outcome  string
	state    string
}{
	{"Snapshot", workflows.FailedRun, untouched},
	{"Read", workflows.FailedRun, untouched},
	{"Acquire", workflows.FailedRun, untouched},
	{"Check", workflows.FailedRun, untouched},
	{"Suspend", workflows.RolledBack, untouched},
	{"Stop", workflows.RolledBack, cameBack},
	{"Raise", workflows.RolledBack, allBack},
	{"Quiesce", workflows.RolledBack, allBack},
	{"Drain", workflows.RolledBack, allBack},
	{"HandOver", workflows.RolledBack, allBack},
	{"Promote", workflows.Completed, wentOver}, // past the point of no return: parked, retried
	{"KeepMarks", workflows.Completed, wentOver},
	{"Switch", workflows.Completed, wentOver},
	{"Start", workflows.Completed, wentOver},
	{"Target", workflows.Completed, wentOver},
	{"Write", workflows.Completed, wentOver},
	{"Release", workflows.Completed, wentOver},
}

func TestFailingAtEachStep(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, tc := range failing {
			if after && slices.Contains([]string{"Snapshot", "Read", "Check", "Target"}, tc.activity) {
				continue // a read changes nothing: after is the same as before
			}
			name := tc.activity + "/before it acted"
			if after {
				name = tc.activity + "/after it acted"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				list := w.fail
				if after {
					list = w.failAfter
				}
				list[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
				p := newPlay(t, w)
				p.tell(time.Minute, workflows.UpdateRetry, workflows.Order{By: "alice", Reason: "mended"})
				out, err := p.run(t)
				require.Equal(t, tc.state, w.state())
				if tc.outcome == workflows.FailedRun {
					require.ErrorContains(t, err, "it broke")
					require.Empty(t, w.holder)
					return
				}
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				if tc.outcome == workflows.Completed {
					require.Contains(t, p.answers[0], "retry", "it did not park")
					require.GreaterOrEqual(t, w.marks, 1, "marks")
				} else {
					require.Contains(t, out.Sentence, "it broke")
					require.NotEmpty(t, w.reports, "a rolled back run is reported")
				}
			})
		}
	}
}

// cancelling while each activity runs: before the point of no return everything comes back, after it the run goes on.
func TestCancellingAtEachStep(t *testing.T) {
	states := []struct{ activity, outcome, state string }{
		{"Check", workflows.Aborted, untouched},
		{"Suspend", workflows.Aborted, untouched},
		{"Stop", workflows.Aborted, cameBack},
		{"Raise", workflows.Aborted, allBack},
		{"Quiesce", workflows.Aborted, allBack},
		{"Drain", workflows.Aborted, allBack},
		{"HandOver", workflows.Aborted, allBack},
		{"Promote", workflows.Completed, wentOver},
		{"KeepMarks", workflows.Completed, wentOver},
		{"Switch", workflows.Completed, wentOver},
		{"Start", workflows.Completed, wentOver},
		{"Target", workflows.Completed, wentOver},
		{"Write", workflows.Completed, wentOver},
		{"Release", workflows.Completed, wentOver},
	}
	for _, how := range []string{"cancel", workflows.UpdateAbort} {
		for _, tc := range states {
			t.Run(how+"/"+tc.activity, func(t *testing.T) {
				w := newWorld(t)
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
				out, err := p.run(t)
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				require.Equal(t, tc.state, w.state())
				if how != "cancel" && tc.outcome == workflows.Completed {
					require.Contains(t, p.answers[0], "refused: the run is past its point of no return")
				}
			})
		}
	}
}
