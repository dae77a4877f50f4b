package workflows_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/workflows"
)

var leaver = activities.Run{Runbook: "orders", WorkflowID: "unplanned", FirstRunID: "1"}

// waiting is FenceWhenReachable for east, by itself, after the workload went to west.
func waiting(w *world) workflows.FencingInput {
	w.cluster, w.epoch, w.switchedBy = "west", 8, leaver.ID()
	return workflows.FencingInput{
		Guard:  activities.Guard{Run: leaver, Epoch: 8},
		Route:  activities.Route{From: activities.Site{Name: "east"}, To: activities.Site{Name: "west"}, SourceLost: true},
		Before: 7, Switched: time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC),
	}
}

func (p *play) fence(in workflows.FencingInput) (out workflows.FencingStatus, err error) {
	p.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "fence/orders/east"})
	p.ExecuteWorkflow(workflows.FenceWhenReachable, in)
	if err := p.GetWorkflowError(); err != nil {
		return out, err
	}
	return out, p.GetWorkflowResult(&out)
}

func (p *play) fencing(t *testing.T) (s workflows.FencingStatus) {
	t.Helper()
	answer, err := p.QueryWorkflow(workflows.QueryStatus)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&s))
	return s
}

var fencedAt = time.Date(2026, 3, 15, 9, 0, 0, 0, time.UTC)

func closed() activities.FenceWhenResult {
	return activities.FenceWhenResult{Done: true, At: fencedAt, Wrote: []string{"producer 7 of client checkout"}, Since: 5, Text: "east is fenced on every broker",
		Loss: activities.Loss{AtLeast: 19, AtMost: 19, Estimate: -1, Bytes: -1, Seconds: -1, Why: "compared behind the fence"}}
}

// A cluster that is away for a day costs an attempt a minute, and is fenced when it answers; the entity then knows the
// closed loss and who wrote.
func TestFenceWhenReachable(t *testing.T) {
	w := newWorld(t)
	for range 1440 {
		w.gone = append(w.gone, activities.FenceWhenResult{Waiting: "east to answer"})
	}
	w.gone = append(w.gone, closed())
	p := newPlay(t, w)
	in := waiting(w)
	p.RegisterDelayedCallback(func() {
		s := p.fencing(t)
		require.Equal(t, "east to answer", s.Waiting)
		require.Nil(t, s.Fenced)
	}, time.Hour)
	begun := p.Now()
	out, err := p.fence(in)
	require.NoError(t, err)
	require.Equal(t, fencedAt, out.Fenced.UTC())
	require.EqualValues(t, 19, out.Loss.AtMost)
	require.InDelta(t, 24*time.Hour, p.Now().Sub(begun), float64(time.Hour))
	require.Len(t, w.told, 2)
	require.Equal(t, activities.FencingWaits, w.told[0].State)
	require.Equal(t, activities.FencingDone, w.told[1].State)
	require.EqualValues(t, 5, w.told[1].Fencing.Written)
	require.Contains(t, w.told[1].Fencing.Wrote[0], "checkout")
	require.Equal(t, in.Switched, w.inputs["WhenReachable"].(activities.FenceWhenInput).Switched.UTC())
	w.before(t, "TellFencing", "WhenReachable")
}

// The number of lost records is open until the old cluster is fenced, and closed by what is read behind the fence.
func TestP38_TheLossIsOpenUntilTheFence(t *testing.T) {
	w := newLost(t)
	w.lastMarks = activities.LastMarksResult{Loss: activities.Loss{AtLeast: 17, AtMost: 17, Estimate: -1, Bytes: -1, Seconds: -1, Why: "last sample"}}
	p := newPlay(t, w)
	_, err := p.lose(t, disaster)
	require.NoError(t, err)
	r := p.lastReport(t)
	require.True(t, r.Loss.Open, "nobody has fenced east")
	require.Nil(t, r.Loss.AtMost)
	require.False(t, r.RPO.Known)

	w = newWorld(t)
	w.gone = []activities.FenceWhenResult{{Waiting: "east to answer"}, closed()}
	_, err = newPlay(t, w).fence(waiting(w))
	require.NoError(t, err)
	require.True(t, w.told[1].Fencing.Loss.Closed())
	require.EqualValues(t, 19, w.told[1].Fencing.Loss.AtLeast)
}

// The number goes into the run's report before anybody hears that it is closed. A report that cannot be rewritten is named, and
// holds nobody up.
func TestP38_TheReportIsClosedBeforeAnybodyHearsOfIt(t *testing.T) {
	for name, tc := range map[string]struct {
		fail []error
		says string
	}{
		"at once":           {nil, "the number is in r.json"},
		"at the second try": {[]error{errors.New("no space left")}, "the number is in r.json"},
		"never":             {[]error{final(activities.TypeInvalid, "it is of another version")}, "the report of run unplanned/1 was not rewritten, and says what the run knew: it is of another version"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			counted := closed()
			counted.Losses = []activities.TopicLoss{{Topic: "orders", Loss: counted.Loss}}
			w.gone = []activities.FenceWhenResult{counted}
			w.fail["Close"] = tc.fail
			out, err := newPlay(t, w).fence(waiting(w))
			require.NoError(t, err)
			require.NotNil(t, out.Fenced)
			require.Contains(t, out.Ended, "east is fenced on every broker; "+tc.says)
			require.Equal(t, activities.CloseInput{Run: leaver, Fencing: "fence/orders/east", Loss: counted.Loss, Losses: counted.Losses, At: fencedAt}, w.inputs["Close"])
			w.before(t, "WhenReachable", "Close")
			require.Equal(t, activities.FencingDone, w.told[len(w.told)-1].State)
			require.Equal(t, "TellFencing", w.called[len(w.called)-1])
		})
	}
}

// Its reason may be gone by the time that the cluster answers.
func TestP13_AClusterThatIsUsedAgainIsNotFenced(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world)
		says   string
	}{
		"the workload is there again": {func(w *world) { w.cluster, w.epoch = "east", 9 }, "the workload is on east again, at epoch 9"},
		"a run took the workload back": {func(w *world) {
			w.entity.Holder = &activities.Holder{Run: activities.Run{WorkflowID: "home", FirstRunID: "1"}, To: "east"}
			w.cluster, w.epoch = "east", 9
		}, "the workload is on east again, at epoch 9"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			in := waiting(w)
			tc.change(w)
			p := newPlay(t, w)
			p.RegisterDelayedCallback(func() {
				if w.entity.Holder != nil {
					require.Contains(t, p.fencing(t).Waiting, "the end of run home/1, which takes the workload there")
				}
				w.mu.Lock()
				w.entity.Holder = nil
				w.mu.Unlock()
			}, time.Minute)
			out, err := p.fence(in)
			require.NoError(t, err)
			require.Contains(t, out.Ended, tc.says)
			require.Nil(t, out.Fenced)
			require.Zero(t, w.count("WhenReachable")+w.count("RaiseReachable"))
			require.Equal(t, activities.FencingGone, w.told[len(w.told)-1].State)
		})
	}
}

// While another run holds the runbook nothing is attempted; a stale attempt is told so by the activity's own guard.
func TestP13_ARunThatHoldsTheRunbookIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.gone = []activities.FenceWhenResult{closed()}
	in := waiting(w)
	w.entity.Holder = &activities.Holder{Run: activities.Run{WorkflowID: "onwards", FirstRunID: "1"}, To: "north"}
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() {
		require.Zero(t, w.count("WhenReachable"))
		require.Contains(t, p.fencing(t).Waiting, "the end of run onwards/1")
		w.mu.Lock()
		w.entity.Holder = nil
		w.cluster, w.epoch = "north", 9
		w.mu.Unlock()
	}, time.Hour)
	out, err := p.fence(in)
	require.NoError(t, err)
	require.NotNil(t, out.Fenced, "the workload went on to a third cluster: east has still to be fenced")
	require.EqualValues(t, 9, w.inputs["WhenReachable"].(activities.FenceWhenInput).Guard.Epoch)
}

// A run that goes to a cluster ends what would fence it, before it changes anything.
func TestP13_ARunTowardsTheClusterEndsItFirst(t *testing.T) {
	for name, run := range map[string]func(*testing.T, *play) (workflows.Result, error){
		"planned":   func(t *testing.T, p *play) (workflows.Result, error) { return p.run(t) },
		"unplanned": func(t *testing.T, p *play) (workflows.Result, error) { return p.lose(t, disaster) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newLost(t)
			w.fencing = true
			_, err := run(t, newPlay(t, w))
			require.NoError(t, err)
			require.Equal(t, "fence/orders/west", w.inputs["EndFencing"].(activities.EndFencing).Workflow)
			w.before(t, "Acquire", "EndFencing")
			w.before(t, "EndFencing", "Suspend")
		})
	}
}

// A run that meant to go to a cluster, and did not get there, leaves it to be fenced as before: nobody else would.
func TestP13_WhatWaitedForTheClusterWaitsAgainWhereTheRunDidNotGetThere(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil   func(w *world)
		outcome string
		begun   int
	}{
		"refused by preflight": {func(w *world) {
			w.preflight.Findings = append(w.preflight.Findings, activities.Finding{Check: "mirrors", Level: activities.LevelProblem, Means: "no mirror."})
		}, workflows.FailedRun, 1},
		"rolled back": {func(w *world) { w.fail["Drain"] = []error{final(activities.TypeNotReady, "5 to go")} }, workflows.RolledBack, 1},
		"got there":   {func(*world) {}, workflows.Completed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			left := workflows.FencingInput{Guard: activities.Guard{Run: leaver, Epoch: 7}, Route: activities.Route{From: activities.Site{Name: "west"}, To: activities.Site{Name: "east"}},
				Known: true, Switched: time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC)}
			left.Status.Tries, left.Status.Ended = 4, "it was cancelled"
			raw, err := json.Marshal(left)
			require.NoError(t, err)
			w.fencing, w.waited = true, raw
			tc.spoil(w)
			p := newPlay(t, w)
			_, _ = p.run(t)
			require.Equal(t, tc.outcome, p.status(t).Outcome)
			require.Len(t, p.begun, tc.begun)
			if tc.begun > 0 {
				left.Known, left.Status.Ended = false, ""
				require.Equal(t, left, p.begun[0], "it tells the entity anew and knows what it knew")
			}
		})
	}
}

// A rollback leads back to the cluster that was to be fenced: what would fence it ends first of all.
func TestP13_RollbackEndsItFirst(t *testing.T) {
	w := newLost(t)
	w.fail["FailOver"] = []error{final(activities.TypePromoteRefused, "validate_only said no")}
	out, err := newPlay(t, w).lose(t, disaster)
	require.NoError(t, err)
	require.Equal(t, workflows.RolledBack, out.Outcome, out.Sentence)
	require.Equal(t, "fence/orders/east", w.inputs["EndFencing"].(activities.EndFencing).Workflow)
	w.before(t, "EndFencing", "Switch")
	w.before(t, "Switch", "Lift")
	w.before(t, "Lift", "Start")
}

// Before the switch it only fences; the switch tells it to close the loss.
func TestP38_TheSwitchWakesIt(t *testing.T) {
	w := newWorld(t)
	w.gone = []activities.FenceWhenResult{closed()}
	in := waiting(w)
	in.Switched = time.Time{}
	w.cluster, w.epoch = "east", 7
	p := newPlay(t, w)
	at := p.Now().Add(time.Second).UTC()
	p.RegisterDelayedCallback(func() {
		require.Equal(t, 1, w.count("RaiseReachable"))
		require.Zero(t, w.count("WhenReachable"))
		w.mu.Lock()
		w.cluster, w.epoch = "west", 8
		w.mu.Unlock()
		p.SignalWorkflow(workflows.SignalSwitched, at)
	}, time.Second)
	out, err := p.fence(in)
	require.NoError(t, err)
	require.NotNil(t, out.Fenced)
	require.Equal(t, at, w.inputs["WhenReachable"].(activities.FenceWhenInput).Switched.UTC())
	require.Equal(t, 2, out.Tries, "it does not wait for its next attempt")
}

func TestFencingThatIsCancelledOutlivesItsLastAttempt(t *testing.T) {
	w := newWorld(t)
	p := newPlay(t, w)
	var cancelled time.Time
	p.RegisterDelayedCallback(func() { cancelled = p.Now(); p.CancelWorkflow() }, time.Minute)
	_, err := p.fence(waiting(w))
	require.Error(t, err)
	require.GreaterOrEqual(t, p.Now().Sub(cancelled), activities.WriteDeadline)
	require.Equal(t, activities.FencingGone, w.told[len(w.told)-1].State)
	var stopped *temporal.CanceledError
	var left workflows.FencingInput
	require.ErrorAs(t, err, &stopped)
	require.NoError(t, stopped.Details(&left))
	require.Equal(t, waiting(w).Guard, left.Guard, "who cancels it can let it wait again")
}

func TestFencingContinuesAsNew(t *testing.T) {
	w := newWorld(t)
	p := newPlay(t, w)
	p.RegisterDelayedCallback(func() { p.SetContinueAsNewSuggested(true) }, time.Hour)
	_, err := p.fence(waiting(w))
	var next *workflow.ContinueAsNewError
	require.True(t, errors.As(err, &next), "%v", err)
	var carried workflows.FencingInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &carried))
	require.True(t, carried.Known)
	require.Greater(t, carried.Status.Tries, 50)
	require.False(t, carried.Status.Since.IsZero())

	w = newWorld(t)
	waiting(w)
	w.gone = []activities.FenceWhenResult{closed()}
	out, err := newPlay(t, w).fence(carried)
	require.NoError(t, err)
	require.Equal(t, carried.Status.Since.UTC(), out.Since.UTC())
	require.Len(t, w.told, 1, "the entity knows already that it waits")
}
