package workflows_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/workflows"
)

// lock is one entity in the test environment.
type lock struct {
	*testsuite.TestWorkflowEnvironment
	closed bool
	asked  int
	// closedRuns are closed whatever the others are.
	closedRuns map[string]bool
	n          int
	heard      int
}

func newLock(id string) *lock {
	var s testsuite.WorkflowTestSuite
	l := &lock{TestWorkflowEnvironment: s.NewTestWorkflowEnvironment()}
	l.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id})
	l.RegisterActivityWithOptions(func(_ context.Context, h activities.Holder) (bool, error) {
		l.asked++
		return l.closed || l.closedRuns[h.Run.WorkflowID], nil
	}, activity.RegisterOptions{Name: "HolderClosed"})
	workflows.Register(l)
	return l
}

// ask sends an Update after so long; then sees its answer.
func (l *lock) ask(after time.Duration, name string, in any, then func(activities.Acquired, error)) {
	l.n++
	id := fmt.Sprint(l.n)
	l.RegisterDelayedCallback(func() {
		l.UpdateWorkflow(name, id, &testsuite.TestUpdateCallback{
			OnAccept: func() {},
			OnReject: func(err error) { l.heard++; then(activities.Acquired{}, err) },
			OnComplete: func(v any, err error) {
				l.heard++
				got, _ := v.(activities.Acquired)
				then(got, err)
			},
		}, in)
	}, after)
}

func (l *lock) status(t *testing.T) activities.EntityStatus {
	var s activities.EntityStatus
	answer, err := l.QueryWorkflow(activities.QueryEntity)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&s))
	return s
}

// live runs the entity for so long, then lets it continue as new.
func (l *lock) live(t *testing.T, d time.Duration, state activities.EntityState) activities.EntityState {
	t.Helper()
	l.RegisterDelayedCallback(func() { l.SetContinueAsNewSuggested(true) }, d)
	l.RegisterDelayedCallback(func() {
		l.UpdateWorkflow(activities.UpdateRelease, "wake", &testsuite.TestUpdateCallback{
			OnAccept: func() {}, OnReject: func(error) {}, OnComplete: func(any, error) {},
		}, activities.Release{})
	}, d+time.Second)
	l.ExecuteWorkflow(activities.EntityWorkflow, state)
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, l.GetWorkflowError(), &next)
	require.Equal(t, l.n, l.heard, "an Update was not answered")
	var carried activities.EntityState
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &carried))
	return carried
}

func ask(id string, seen int64) activities.Acquire {
	return activities.Acquire{
		Entity: "runbook/orders", Run: activities.Run{Runbook: "orders", WorkflowID: id, FirstRunID: "1"},
		Kind: "planned failover", From: "east", To: "west", SeenEpoch: seen, SeenActive: "east",
	}
}

func granted(t *testing.T, epoch int64) func(activities.Acquired, error) {
	return func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.Equal(t, epoch, a.NextEpoch)
	}
}

func refused(t *testing.T, text string) func(activities.Acquired, error) {
	return func(_ activities.Acquired, err error) { require.ErrorContains(t, err, text) }
}

func TestP01_SecondRunIsRefusedWhateverItsID(t *testing.T) {
	l := newLock("runbook/orders")
	l.ask(1*time.Second, activities.UpdateAcquire, ask("any-id-i-like", 7), granted(t, 8))
	l.ask(2*time.Second, activities.UpdateAcquire, ask("another", 7), refused(t, "runbook/orders is held by run any-id-i-like/1 (planned failover to west) since"))
	l.ask(3*time.Second, activities.UpdateAcquire, ask("any-id-i-like", 7), granted(t, 8)) // idempotent by the run
	l.ask(4*time.Second, activities.UpdateAcquire, ask("any-id-i-like", 12), granted(t, 8))
	l.live(t, time.Minute, activities.EntityState{})
	require.Equal(t, "any-id-i-like", l.status(t).Holder.Run.WorkflowID)
}

func TestP01_OnlyAClosedHolderIsReplacedAndIsRemembered(t *testing.T) {
	l := newLock("runbook/orders")
	l.ask(1*time.Second, activities.UpdateAcquire, ask("first", 7), granted(t, 8))
	l.RegisterDelayedCallback(func() { l.closed = true }, 10*time.Minute)
	l.RegisterDelayedCallback(func() {
		require.NotZero(t, l.asked, "nobody looked whether the holder is still there")
		require.NotNil(t, l.status(t).Abandoned)
	}, 12*time.Minute)
	l.ask(13*time.Minute, activities.UpdateAcquire, ask("second", 8), func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.EqualValues(t, 9, a.NextEpoch)
		require.Equal(t, "first", a.Abandoned.Run.WorkflowID)
	})
	second := ask("second", 8).Run
	l.ask(14*time.Minute, activities.UpdateRelease, activities.Release{Run: second, Outcome: "failed", Unsettled: true}, func(_ activities.Acquired, err error) { require.NoError(t, err) })
	l.ask(15*time.Minute, activities.UpdateAcquire, ask("third", 8), func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.Equal(t, "first", a.Abandoned.Run.WorkflowID, "what was not settled is still there")
	})
	l.ask(16*time.Minute, activities.UpdateRelease, activities.Release{Run: ask("third", 8).Run, Outcome: "completed"}, func(_ activities.Acquired, err error) { require.NoError(t, err) })
	l.live(t, 20*time.Minute, activities.EntityState{})
	require.Nil(t, l.status(t).Abandoned)
	require.Nil(t, l.status(t).Holder)
}

func TestP01_AChildHoldsWithinItsParentAndGivesBack(t *testing.T) {
	l := newLock("runbook/orders")
	parent, child, stranger := ask("failback", 7), ask("home", 7), ask("stranger", 7)
	parent.To, child.Parent = "", "failback"
	l.ask(1*time.Second, activities.UpdateAcquire, parent, granted(t, 8))
	l.ask(2*time.Second, activities.UpdateAcquire, child, func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.True(t, a.Nested, "what was approved for its parent is approved for it")
		require.EqualValues(t, 8, a.NextEpoch)
	})
	l.ask(3*time.Second, activities.UpdateAcquire, stranger, refused(t, "runbook/orders is held by run home/1"))
	stranger.Parent = "another" // a child of somebody who holds nothing
	l.ask(4*time.Second, activities.UpdateAcquire, stranger, refused(t, "runbook/orders is held by run home/1"))
	l.ask(5*time.Second, activities.UpdateRelease, activities.Release{Run: child.Run, Outcome: "completed", Active: "west", Epoch: 8}, func(_ activities.Acquired, err error) { require.NoError(t, err) })
	l.ask(6*time.Second, activities.UpdateAcquire, stranger, refused(t, "runbook/orders is held by run failback/1"))
	next := ask("again", 8)
	next.Parent, next.To = "failback", "east"
	l.ask(7*time.Second, activities.UpdateAcquire, next, granted(t, 9))
	l.ask(8*time.Second, activities.UpdateRelease, activities.Release{Run: parent.Run}, func(_ activities.Acquired, err error) { require.NoError(t, err) })
	l.live(t, time.Minute, activities.EntityState{})
	held := l.status(t).Holder
	require.Equal(t, "again", held.Run.WorkflowID, "a parent that ends does not take the lock from what it had started")
	require.Nil(t, held.Within)
}

func TestP01_AChildThatWasClosedLeavesTheRunbookToItsParent(t *testing.T) {
	l := newLock("runbook/orders")
	parent, child, second := ask("failback", 7), ask("home", 7), ask("home-2", 7)
	child.Parent, second.Parent = "failback", "failback"
	l.ask(1*time.Second, activities.UpdateAcquire, parent, granted(t, 8))
	l.ask(2*time.Second, activities.UpdateAcquire, child, granted(t, 8))
	l.RegisterDelayedCallback(func() { l.closedRuns = map[string]bool{"home": true} }, 3*time.Second)
	l.ask(4*time.Second, activities.UpdateAcquire, second, func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.True(t, a.Nested)
		require.Equal(t, "home", a.Abandoned.Run.WorkflowID)
	})
	l.live(t, time.Minute, activities.EntityState{})
	require.Equal(t, "failback", l.status(t).Holder.Within.Run.WorkflowID)
}

// A run that goes to a cluster ends what waits to fence it. When the run is closed in the middle, the next one hears of it all the
// same, also when its parent was closed with it.
func TestP13_WhatARunLeftUnfencedStaysKnown(t *testing.T) {
	for name, parent := range map[string]string{"alone": "", "with its parent": "failback"} {
		t.Run(name, func(t *testing.T) {
			l := newLock("runbook/orders")
			waits := activities.TellFencing{Entity: "runbook/orders", State: activities.FencingWaits, Fencing: activities.Fencing{Cluster: "west", Run: leaver}}
			ends := waits
			ends.State = activities.FencingGone
			fine := func(_ activities.Acquired, err error) { require.NoError(t, err) }
			hears := func(a activities.Acquired, err error) {
				require.NoError(t, err)
				require.True(t, a.Fencing)
			}
			l.ask(1*time.Second, activities.UpdateFencing, waits, fine)
			if parent != "" {
				first := ask(parent, 7)
				first.To = ""
				l.ask(2*time.Second, activities.UpdateAcquire, first, fine)
			}
			home, again, third := ask("home", 7), ask("again", 7), ask("third", 7)
			home.Parent = parent
			l.ask(3*time.Second, activities.UpdateAcquire, home, hears)
			l.ask(4*time.Second, activities.UpdateFencing, ends, fine)
			l.RegisterDelayedCallback(func() { l.closed = true }, 5*time.Second)
			l.ask(6*time.Second, activities.UpdateAcquire, again, hears)
			l.ask(7*time.Second, activities.UpdateRelease, activities.Release{Run: again.Run, Outcome: "completed", Active: "west", Epoch: 8}, fine)
			third.To = "east"
			l.RegisterDelayedCallback(func() { l.closed = false }, 8*time.Second)
			l.ask(9*time.Second, activities.UpdateAcquire, third, func(a activities.Acquired, err error) {
				require.NoError(t, err)
				require.False(t, a.Fencing, "the workload got there")
				require.Nil(t, a.Abandoned)
			})
			l.live(t, time.Minute, activities.EntityState{})
			require.Empty(t, l.status(t).Holder.Unfenced)
		})
	}
}

func TestP02_EpochOnlyGrows(t *testing.T) {
	since := time.Now().UTC()
	run := ask("first", 7).Run
	l := newLock("runbook/orders")
	ok := func(_ activities.Acquired, err error) { require.NoError(t, err) }
	l.ask(1*time.Second, activities.UpdateAcquire, ask("first", 7), granted(t, 8))
	l.ask(2*time.Second, activities.UpdateRelease, activities.Release{Run: run, Outcome: "completed", Active: "west", Epoch: 8, UnprotectedSince: &since, Report: "r.json"}, ok)
	l.ask(3*time.Second, activities.UpdateRelease, activities.Release{Run: run, Outcome: "rolled back", Active: "east", Epoch: 9}, ok) // holds nothing any more
	l.ask(4*time.Second, activities.UpdateAcquire, ask("second", 7), refused(t, "the workload of runbook/orders is on west already"))
	home := ask("third", 3)
	home.To = "east"
	l.ask(5*time.Second, activities.UpdateAcquire, home, granted(t, 9))
	l.live(t, time.Minute, activities.EntityState{})
	s := l.status(t)
	require.Equal(t, "west", s.Active)
	require.EqualValues(t, 8, s.Epoch)
	require.Equal(t, "completed", s.LastOutcome)
	require.Equal(t, since, *s.UnprotectedSince)
	require.NotNil(t, s.LastSwitch)
}

func TestEntityCarriesItsHolder(t *testing.T) {
	l := newLock("runbook/orders")
	run := ask("first", 7).Run
	state := activities.EntityState{HeldEpoch: 8, Status: activities.EntityStatus{Active: "east", Epoch: 7, Holder: &activities.Holder{Run: run, To: "west"}}}
	l.ask(1*time.Second, activities.UpdateAcquire, ask("first", 7), granted(t, 8))
	l.ask(2*time.Second, activities.UpdateAcquire, ask("second", 7), refused(t, "is held by run first/1"))
	require.Equal(t, state.Status.Holder, l.live(t, time.Minute, state).Status.Holder)
}

func TestLinksKnowNoEpoch(t *testing.T) {
	l := newLock("link/east-west")
	in := ask("first", 7)
	in.Entity = "link/east-west"
	l.ask(1*time.Second, activities.UpdateAcquire, in, granted(t, 0))
	l.live(t, time.Minute, activities.EntityState{})
	require.Empty(t, l.status(t).Active)
}

// What waits to fence a cluster is known wherever somebody asks for the workload, and to a run that goes there (P13).
func TestP13_EntityKnowsWhatIsNotFenced(t *testing.T) {
	l := newLock("runbook/orders")
	ok := func(_ activities.Acquired, err error) { require.NoError(t, err) }
	run := ask("lost", 7).Run
	tell := func(state, cluster string, by activities.Run) activities.TellFencing {
		return activities.TellFencing{Entity: "runbook/orders", State: state, Fencing: activities.Fencing{Cluster: cluster, Workflow: "fence/orders/" + cluster, Run: by}}
	}
	at := func(s int) time.Duration { return time.Duration(s) * time.Second }
	home := ask("home", 8)
	home.From, home.To, home.SeenActive = "west", "east", "west"
	l.ask(at(1), activities.UpdateAcquire, ask("lost", 7), granted(t, 8))
	l.ask(at(2), activities.UpdateFencing, tell(activities.FencingWaits, "east", run), ok)
	l.ask(at(3), activities.UpdateRelease, activities.Release{Run: run, Outcome: "completed", Active: "west", Epoch: 8}, ok)
	l.RegisterDelayedCallback(func() { require.Equal(t, "fence/orders/east", l.status(t).Fencing[0].Workflow) }, at(4))
	l.ask(at(5), activities.UpdateAcquire, home, func(a activities.Acquired, err error) {
		require.NoError(t, err)
		require.True(t, a.Fencing)
		require.NotNil(t, a.LastSwitch)
	})
	l.ask(at(6), activities.UpdateFencing, tell(activities.FencingWaits, "east", run), refused(t, "run home/1 takes the workload to east"))
	l.ask(at(7), activities.UpdateFencing, tell(activities.FencingGone, "east", run), ok)
	l.ask(at(8), activities.UpdateFencing, tell(activities.FencingWaits, "north", run), ok)
	l.live(t, time.Minute, activities.EntityState{})
	require.Len(t, l.status(t).Fencing, 1)
	require.Equal(t, "north", l.status(t).Fencing[0].Cluster)
}
