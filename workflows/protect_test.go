package workflows_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"switchback/activities"
	"switchback/replication"
	"switchback/workflows"
)

// standing is what Protect acts upon: differences, of which those that can be mended are gone once they were.
type standing struct {
	*world
	list     []replication.Difference
	refuse   map[string]string // by name
	slow     int               // looks until what was mended is seen
	then     func(*standing)   // between the look and the mending
	cancelAt string            // activity during which the workflow is cancelled
}

var (
	paused  = replication.Difference{Kind: replication.KindMirror, Name: "orders", Level: replication.LevelProblem, Is: "paused", Should: "active", Mend: "resume it", Action: "resume"}
	drifted = replication.Difference{Kind: replication.KindTopicConfig, Name: "orders retention.ms", Level: replication.LevelWarning, Is: "1", Should: "2", Mend: "set it", Action: "set"}
	halted  = replication.Difference{Kind: replication.KindMirror, Name: "payments", Level: replication.LevelProblem, Is: "stopped", Should: "active", Do: "run failback"}
)

func newStanding(t *testing.T, list ...replication.Difference) *standing {
	return &standing{world: newWorld(t), list: list, refuse: map[string]string{}}
}

func (s *standing) protect(t *testing.T, in workflows.ProtectRequest) (*play, workflows.Protected, error) {
	t.Helper()
	p := newPlay(t, s.world)
	s.hook = func(name string) {
		if name == s.cancelAt {
			p.CancelWorkflow()
		}
	}
	var mended []string // not seen yet
	p.RegisterActivityWithOptions(func(ctx context.Context, in activities.ProtectInput) (activities.LookResult, error) {
		if _, err := s.begin(ctx, in); err != nil {
			return activities.LookResult{}, err
		}
		if s.slow--; s.slow < 0 {
			s.list = slices.DeleteFunc(s.list, func(d replication.Difference) bool { return slices.Contains(mended, d.ID()) })
		}
		out := activities.LookResult{Differences: slices.Clone(s.list), Stands: replication.Stands(s.list), LinkName: "east-west"}
		if s.then != nil {
			s.then(s)
			s.then = nil
		}
		return out, s.end(ctx)
	}, activity.RegisterOptions{Name: "Differences"})
	p.RegisterActivityWithOptions(func(ctx context.Context, in activities.ProtectInput) (out activities.MendResult, err error) {
		if out.Acted, err = s.begin(ctx, in); err != nil {
			return out, err
		}
		if err := s.guarded(in.Guard); err != nil {
			return out, err
		}
		require.Len(s.t, s.holder, 2, "the runbook and the link are held")
		for _, d := range s.list {
			switch why := s.refuse[d.Name]; {
			case !slices.Contains(in.IDs, d.ID()):
			case why != "":
				out.Outcomes = append(out.Outcomes, replication.Outcome{Name: d.ID(), Status: replication.Failed, Reason: why})
			default:
				mended = append(mended, d.ID())
				out.Outcomes = append(out.Outcomes, replication.Outcome{Name: d.ID(), Status: replication.OK})
			}
		}
		return out, s.end(ctx)
	}, activity.RegisterOptions{Name: "Mend"})
	p.ExecuteWorkflow(workflows.Protect, in)
	require.True(t, p.IsWorkflowCompleted(), "it hangs")
	require.Empty(t, s.holder, "locks are left")
	status := p.status(t)
	require.Equal(t, "Protect", status.Workflow)
	var out workflows.Protected
	if err := p.GetWorkflowError(); err != nil {
		require.Equal(t, workflows.FailedRun, status.Outcome)
		return p, out, err
	}
	require.Equal(t, workflows.Completed, status.Outcome)
	require.NoError(t, p.GetWorkflowResult(&out))
	require.Equal(t, out.Text, status.Sentence)
	return p, out, nil
}

func TestProtectMendsWhatItShows(t *testing.T) {
	s := newStanding(t, paused, drifted, halted)
	s.slow = 4
	p, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders", By: "ann"})
	require.NoError(t, err)
	require.Equal(t, []replication.Difference{paused, drifted, halted}, out.Found)
	require.Equal(t, []replication.Difference{halted}, out.Left, "what was asked for was given its time")
	require.Len(t, out.Mended, 2)
	require.False(t, out.Stands)
	require.Equal(t, "orders on east, protected by west: 3 differences, 2 mended, 1 left; protection does not stand", out.Text)
	require.Equal(t, []string{paused.ID(), drifted.ID()}, s.inputs["Mend"].(activities.ProtectInput).IDs)
	require.Equal(t, "west", s.inputs["Mend"].(activities.ProtectInput).Route.To.Name)
	require.Empty(t, s.released[1].Outcome, "the last run of the runbook stays the last")
	require.False(t, s.released[1].Protected)
	value, err := p.QueryWorkflow(workflows.QueryProtection)
	require.NoError(t, err)
	var asked workflows.Protected
	require.NoError(t, value.Get(&asked))
	require.Equal(t, out, asked)
}

func TestProtectWithNothingToDoWritesNothing(t *testing.T) {
	for name, list := range map[string][]replication.Difference{"nothing": nil, "nothing that can be mended": {halted}} {
		t.Run(name, func(t *testing.T) {
			s := newStanding(t, list...)
			_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			require.NoError(t, err)
			require.Equal(t, []string{"Snapshot", "Read", "Entity", "Differences"}, s.called)
			require.Equal(t, len(list) == 0, out.Stands)
			require.Len(t, out.Left, len(list))
		})
	}
}

func TestProtectDryRunTakesNoLock(t *testing.T) {
	s := newStanding(t, paused)
	s.entity.Holder = &activities.Holder{Run: activities.Run{WorkflowID: "planned"}, Kind: "planned failover"}
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders", DryRun: true})
	require.NoError(t, err)
	require.Equal(t, []string{"Snapshot", "Read", "Entity", "Differences"}, s.called)
	require.Equal(t, []string{paused.ID()}, out.IDs)
	require.Contains(t, out.Text, "nothing was changed")
}

// Only what was shown to a person is touched, when a person says what.
func TestProtectAppliesWhatItIsTold(t *testing.T) {
	s := newStanding(t, paused, drifted)
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders", Apply: []string{drifted.ID(), "of-another-day"}})
	require.NoError(t, err)
	require.Equal(t, []string{drifted.ID()}, s.inputs["Mend"].(activities.ProtectInput).IDs)
	require.Equal(t, []replication.Difference{paused}, out.Left)
}

func TestProtectLeavesAloneWhatChangedMeanwhile(t *testing.T) {
	s := newStanding(t, drifted)
	s.then = func(s *standing) { s.list[0].Is = "3" }
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.NoError(t, err)
	require.Len(t, out.Mended, 1)
	require.Equal(t, replication.Unclear, out.Mended[0].Status)
	require.Contains(t, out.Mended[0].Reason, "left alone: shown was that it is 1, and now it is 3")
	require.Len(t, out.Left, 1)
}

// An attempt that was lost sight of had mended it: the last one finds nothing to do, and it counts as mended.
func TestProtectCountsWhatAnEarlierAttemptMended(t *testing.T) {
	s := newStanding(t, drifted)
	s.then = func(s *standing) { s.list = nil }
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: drifted.ID(), Status: replication.OK}}, out.Mended)
	require.Contains(t, out.Text, "1 differences, 1 mended, 0 left")
}

func TestProtectSaysWhatIsRefused(t *testing.T) {
	s := newStanding(t, paused)
	s.refuse["orders"] = "policy violation"
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: paused.ID(), Status: replication.Failed, Reason: "policy violation"}}, out.Mended)
	require.Equal(t, 2, count(s.called, "Differences"), "it is not waited for")
}

func count(list []string, name string) (n int) {
	for _, one := range list {
		if one == name {
			n++
		}
	}
	return n
}

// The entity hears that the workload is protected again, also where nothing had to be mended.
func TestProtectTellsThatProtectionStands(t *testing.T) {
	since := time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC)
	for name, list := range map[string][]replication.Difference{"nothing to mend": nil, "mended": {paused}} {
		t.Run(name, func(t *testing.T) {
			s := newStanding(t, list...)
			s.entity.UnprotectedSince = &since
			_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			require.NoError(t, err)
			require.True(t, out.Stands)
			require.True(t, s.released[len(s.released)-1].Protected)
			require.Equal(t, "runbook/orders", s.released[len(s.released)-1].Entity)
		})
	}
	s := newStanding(t, halted)
	s.entity.UnprotectedSince = &since
	_, _, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.NoError(t, err)
	require.Empty(t, s.released)
}

// Whoever holds the runbook goes first.
func TestProtectYields(t *testing.T) {
	t.Run("seen beforehand", func(t *testing.T) {
		s := newStanding(t, paused)
		s.entity.Holder = &activities.Holder{Run: activities.Run{WorkflowID: "planned", FirstRunID: "1"}, Kind: "planned failover"}
		_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
		require.NoError(t, err)
		require.True(t, out.Yielded)
		require.Equal(t, "run planned/1 (planned failover) holds the runbook or its link: nothing was changed", out.Text)
		require.NotContains(t, s.called, "Acquire")
	})
	for i, what := range []string{"the runbook", "the link"} {
		t.Run(what+" in the last moment", func(t *testing.T) {
			s := newStanding(t, paused)
			s.fail["Acquire"] = append(make([]error, i), final(activities.TypeHeld, "it is held"))
			_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			require.NoError(t, err)
			require.True(t, out.Yielded)
			require.NotContains(t, s.called, "Mend")
			require.False(t, s.released[len(s.released)-1].Protected)
		})
	}
}

func TestProtectLeavesWhatAnotherRunLeft(t *testing.T) {
	s := newStanding(t, paused)
	s.abandoned = &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "died", FirstRunID: "1"}}
	_, _, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.ErrorContains(t, err, "run died/1 was closed before it had released the runbook")
	require.NotContains(t, s.called, "Mend")
	require.True(t, s.released[len(s.released)-1].Unsettled)
}

// Nothing is made on a cluster that was lost and waits for its fence (P13).
func TestP13_NothingIsMadeOnAClusterThatWaitsForItsFence(t *testing.T) {
	s := newStanding(t, paused)
	s.entity.Fencing = []activities.Fencing{{Cluster: "west", Workflow: "fence/orders/west", Waiting: "west does not answer"}}
	_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.NoError(t, err)
	require.Len(t, out.Left, 1)
	require.Equal(t, replication.KindFence, out.Left[0].Kind)
	require.False(t, out.Stands)
	require.NotContains(t, s.called, "Differences")
}

func TestProtectFindsTheStandby(t *testing.T) {
	s := newStanding(t)
	s.cluster = "west"
	_, _, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.ErrorContains(t, err, "no link of the runbook leads from there")
	s = newStanding(t)
	_, _, err = s.protect(t, workflows.ProtectRequest{Runbook: "orders", From: "west"})
	require.ErrorContains(t, err, "asked to go from west")
	s = newStanding(t)
	s.book.Links = append(s.book.Links, s.book.Links[0])
	s.book.Links[1].To = "north"
	_, _, err = s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
	require.ErrorContains(t, err, "west and north: say which one")
}

// Failing at each activity: before it acted, and after it acted with the answer lost for good. Locks are never left, nothing is
// told as protected that was not seen, and no lock is let go while a lost attempt may still write (P35c).
func TestProtectFailingAtEachActivity(t *testing.T) {
	for _, tc := range []struct {
		activity string
		after    bool
		gone     bool // what could be mended is
	}{
		{activity: "Snapshot"}, {activity: "Read"}, {activity: "Entity"}, {activity: "Differences"}, {activity: "Acquire"}, {activity: "Acquire", after: true},
		{activity: "Mend"}, {activity: "Mend", after: true, gone: true}, {activity: "Release", gone: true}, {activity: "Release", after: true, gone: true},
	} {
		t.Run(tc.activity, func(t *testing.T) {
			s := newStanding(t, paused)
			list := s.fail
			if tc.after {
				list = s.failAfter
			}
			lost := final(activities.TypeInvalid, "no")
			if tc.activity == "Release" {
				lost = errors.New("out of reach") // it is tried again until it is done
			}
			list[tc.activity] = []error{lost}
			_, out, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			if tc.activity == "Release" {
				require.NoError(t, err)
				require.True(t, out.Stands)
				return
			}
			require.Error(t, err)
			for _, r := range s.released {
				require.False(t, r.Protected)
			}
			if tc.activity == "Mend" {
				require.GreaterOrEqual(t, s.times["Release"].Sub(s.times["Mend"]), activities.WriteDeadline)
			}
			again := newStanding(t, s.list...)
			_, out, err = again.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			require.NoError(t, err)
			require.Empty(t, out.Left, "another run does what is left")
		})
	}
}

func TestProtectCancelledAtEachActivity(t *testing.T) {
	for _, at := range []string{"Snapshot", "Read", "Entity", "Differences", "Acquire", "Mend", "Release"} {
		t.Run(at, func(t *testing.T) {
			s := newStanding(t, paused)
			s.cancelAt = at
			_, _, err := s.protect(t, workflows.ProtectRequest{Runbook: "orders"})
			if at == "Release" {
				require.NoError(t, err, "all was done")
				require.True(t, s.released[len(s.released)-1].Protected)
				return
			}
			require.Error(t, err, "a cancelled run did not do what it should")
			for _, r := range s.released {
				require.False(t, r.Protected)
			}
			require.Equal(t, at == "Mend" || at == "Acquire", len(s.released) == 2, "what was taken is let go")
		})
	}
}
