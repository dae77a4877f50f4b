package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

var goHome = workflows.FailbackInput{Runbook: "orders", Reason: "east is well again", By: "carol"}

// turner stands for both clusters' links. Its methods carry the names of the real activities.
type turner struct {
	w      *world
	plans  []activities.TurnPlan      // answers of Examine, one after the other; the last one stays
	asked  func() activities.TurnPlan // stands in for them
	mirror string                     // the cluster that mirrors the other one
	fences int                        // times that a fence gave way
	parts  []string                   // runs within the run
	fail   map[string]int             // how often a part ends badly
	within map[string]func()          // what happens within a part, which then waits until it is told to stop

	differs []replication.Difference // from what protection needs
	mended  []string                 // directions in which that was mended
}

// newFailback is a workload that was moved to west, and whose home is well again. Recovery and the planned failover stand for
// themselves: each is tested by itself.
func newFailback(t *testing.T) (*play, *turner) {
	w := newWorld(t)
	w.cluster, w.epoch = "west", 8
	w.book.Home = "east"
	w.book.Links = []runbooks.Link{{From: "east", To: "west"}, {From: "west", To: "east"}}
	there := activities.TurnPlan{Way: activities.WayRestore, Marks: "unplanned/r1", LinkName: "west-east", Topics: 2, Stranded: 10, Goes: 10, Copy: 100, Text: "2 topics are restored"}
	back := activities.TurnPlan{Way: activities.WayRestore, Marks: "home/r2", LinkName: "east-west", Topics: 2, Copy: 5, Text: "2 topics are restored"}
	u := &turner{w: w, plans: []activities.TurnPlan{there, there, back}, fail: map[string]int{}, within: map[string]func(){}}
	p := newPlay(t, w)
	p.RegisterActivity(u)
	part := func(name string, done func()) func(workflow.Context, map[string]any) (workflows.Result, error) {
		return func(ctx workflow.Context, _ map[string]any) (workflows.Result, error) {
			u.parts = append(u.parts, name+" of "+workflow.GetInfo(ctx).ParentWorkflowExecution.ID)
			if u.fail[name]--; u.fail[name] >= 0 {
				return workflows.Result{Outcome: workflows.RolledBack, Sentence: "it did not go", Epoch: w.epoch}, nil
			}
			if happens := u.within[name]; happens != nil {
				happens()
				_ = workflow.Await(ctx, func() bool { return false }) // ends when it is cancelled
				return workflows.Result{Outcome: workflows.Aborted, Sentence: "it was stopped", Epoch: w.epoch}, nil
			}
			done()
			return workflows.Result{Run: name, Outcome: workflows.Completed, Sentence: name + " went well", Epoch: w.epoch, Report: name + ".json"}, nil
		}
	}
	instead := func(name string, done func()) {
		p.RegisterWorkflowWithOptions(part(name, done), workflow.RegisterOptions{Name: name, DisableAlreadyRegisteredCheck: true})
	}
	instead("RecoverLaggedData", func() {})
	instead("PlannedFailover", func() { w.cluster, w.epoch = "east", 9 })
	return p, u
}

func (u *turner) Examine(ctx context.Context, in activities.TurnInput) (out activities.TurnPlan, err error) {
	if _, err = u.w.begin(ctx, in); err != nil {
		return out, err
	}
	if u.asked != nil {
		return u.asked(), u.w.guarded(in.Guard)
	}
	out = u.plans[0]
	if len(u.plans) > 1 {
		u.plans = u.plans[1:]
	}
	return out, u.w.guarded(in.Guard)
}

func (u *turner) Position(ctx context.Context, in activities.TurnInput) (activities.TurnedResult, error) {
	acted, err := u.w.begin(ctx, in)
	if err == nil {
		err = u.w.guarded(in.Guard)
	}
	if err == nil {
		err = u.w.end(ctx)
	}
	return activities.TurnedResult{Acted: acted, Text: "in place"}, err
}

func (u *turner) GiveWay(ctx context.Context, in activities.TurnInput) (activities.GivenWay, error) {
	acted, err := u.w.begin(ctx, in)
	if err == nil {
		u.fences++
		err = u.w.end(ctx)
	}
	return activities.GivenWay{Acted: acted, Text: "the fence gave way"}, err
}

func (u *turner) Flow(ctx context.Context, in activities.TurnInput) (activities.TurnedResult, error) {
	acted, err := u.w.begin(ctx, in)
	if err == nil {
		u.mirror = fmt.Sprintf("%s of %s", in.Route.To.Name, in.Route.From.Name)
		err = u.w.end(ctx)
	}
	return activities.TurnedResult{Acted: acted, Text: "it flows"}, err
}

func (u *turner) InStep(ctx context.Context, in activities.InStepInput) (activities.InStepResult, error) {
	_, err := u.w.begin(ctx, in)
	return activities.InStepResult{Text: "in step"}, err
}

func (u *turner) Differences(ctx context.Context, in activities.ProtectInput) (activities.LookResult, error) {
	_, err := u.w.begin(ctx, in)
	return activities.LookResult{Differences: u.differs, Stands: replication.Stands(u.differs)}, err
}

func (u *turner) Mend(ctx context.Context, in activities.ProtectInput) (out activities.MendResult, err error) {
	if out.Acted, err = u.w.begin(ctx, in); err != nil {
		return out, err
	}
	u.mended = append(u.mended, in.Route.To.Name+" of "+in.Route.From.Name)
	u.differs = slices.DeleteFunc(u.differs, replication.Difference.Mendable)
	for _, id := range in.IDs {
		out.Outcomes = append(out.Outcomes, replication.Outcome{Name: id, Status: replication.OK})
	}
	if err = u.w.guarded(in.Guard); err == nil {
		err = u.w.end(ctx)
	}
	return out, err
}

func (p *play) home(t *testing.T, in workflows.FailbackInput) (workflows.Result, error) {
	t.Helper()
	p.ExecuteWorkflow(workflows.Failback, in)
	return p.ended(t)
}

func TestFailbackInOrder(t *testing.T) {
	p, u := newFailback(t)
	out, err := p.home(t, goHome)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, "orders is home on east at epoch 9, and west mirrors it again", out.Sentence)
	require.Equal(t, "west of east", u.mirror)
	require.Len(t, u.parts, 2)
	require.Equal(t, 2, u.fences)
	var names []string
	for _, row := range p.status(t).Steps {
		names = append(names, string(row.Step))
		require.Equal(t, workflows.Done, row.State, "%s: %s", row.Step, row.Text)
	}
	require.Equal(t, runbooks.FailbackSteps, names)
	r := p.lastReport(t)
	require.Equal(t, report.KindFailback, r.Kind)
	require.Equal(t, "west", r.Protection.ProtectedBy)
	require.Equal(t, []string{"RecoverLaggedData.json", "PlannedFailover.json"}, []string{r.Parts[0].Report, r.Parts[1].Report})
	last := p.released[len(p.released)-1]
	require.Equal(t, "runbook/orders", last.Entity)
	require.True(t, last.Protected)
}

// P14, P27: mirrors are in place before the fence gives way, and flow only then; on the way on as well as on the way home.
func TestP14_TheFenceGivesWayBetweenPositionAndFlow(t *testing.T) {
	p, _ := newFailback(t)
	_, err := p.home(t, goHome)
	require.NoError(t, err)
	var order []string
	for _, name := range p.called {
		switch name {
		case "Examine", "Position", "GiveWay", "Flow":
			order = append(order, name)
		}
	}
	require.Equal(t, []string{"Examine", "Examine", "Position", "GiveWay", "Flow", "Examine", "Position", "GiveWay", "Flow"}, order)
}

// P28, I9: what would go is looked at again in the last moment; more than was approved parks, and nothing is touched.
func TestP28_MoreThanWasApprovedParks(t *testing.T) {
	p, u := newFailback(t)
	more := u.plans[1]
	more.Goes = 11
	u.plans = []activities.TurnPlan{u.plans[0], more}
	p.tell(time.Hour, workflows.UpdateAbort, by("alice"))
	out, err := p.home(t, goHome)
	require.NoError(t, err)
	require.Equal(t, workflows.Aborted, out.Outcome)
	require.NotContains(t, p.called, "Position")
	require.Zero(t, u.fences)
	require.Contains(t, out.Sentence, "what stands: what was recovered")
}

// I9: what exists nowhere else forbids the run, unless a recovery comes first.
func TestWhatExistsNowhereElseForbidsTheWayHome(t *testing.T) {
	unsaved := activities.Finding{Check: "unsaved", Level: activities.LevelProblem, Means: "10 offsets exist nowhere else"}
	p, u := newFailback(t)
	u.plans[0].Findings = []activities.Finding{unsaved}
	in := goHome
	in.NoRecovery = true
	_, err := p.home(t, in)
	require.ErrorContains(t, err, "exist nowhere else")
	require.Empty(t, u.parts)

	p, u = newFailback(t)
	u.plans[0].Findings, u.plans[1].Findings = []activities.Finding{unsaved}, []activities.Finding{unsaved} // the recovery left it
	p.tell(time.Hour, workflows.UpdateAbort, by("alice"))
	out, err := p.home(t, goHome)
	require.NoError(t, err)
	require.Equal(t, workflows.Aborted, out.Outcome)
	require.NotContains(t, p.called, "Position")
}

// A part that did not come to its end parks with its sentence; a retry starts another one.
func TestAPartThatEndsBadlyParks(t *testing.T) {
	for _, name := range []string{"RecoverLaggedData", "PlannedFailover"} {
		t.Run(name, func(t *testing.T) {
			p, u := newFailback(t)
			u.fail[name] = 1
			p.tell(time.Hour, workflows.UpdateRetry, by("alice"))
			out, err := p.home(t, goHome)
			require.NoError(t, err)
			require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
			require.Len(t, u.parts, 3)
			require.Contains(t, p.answers[0], "retry")
		})
	}
}

// A run that was stopped on the way is gone on with: at home only protection is missing.
func TestFailbackAtHomeOnlyProtects(t *testing.T) {
	p, u := newFailback(t)
	p.cluster, p.epoch = "east", 9
	u.plans = u.plans[2:]
	out, err := p.home(t, goHome)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Empty(t, u.parts)
	require.Equal(t, "west of east", u.mirror)
}

// Who stays is protected by the other cluster, and nobody is moved.
func TestFailForwardStays(t *testing.T) {
	p, u := newFailback(t)
	in := goHome
	in.FailForward = true
	out, err := p.home(t, in)
	require.NoError(t, err)
	require.Equal(t, "orders stays on west, and east mirrors it; set `home: west` in the runbook", out.Sentence)
	require.Equal(t, "east of west", u.mirror)
	require.Len(t, u.parts, 1)
	require.True(t, p.released[len(p.released)-1].Protected)
	require.Equal(t, "east", p.lastReport(t).Protection.ProtectedBy)
}

// Whoever stays or comes home is protected as Protect would have it: what that direction never had is mended, and what cannot be
// mended parks the run.
func TestFailbackSeesToItThatProtectionStands(t *testing.T) {
	lacks := replication.Difference{Kind: "offset sync", Name: "billing", Level: replication.LevelProblem, Is: "off", Should: "on", Mend: "turning it on"}
	for forward, way := range map[bool]string{true: "east of west", false: "west of east"} {
		p, u := newFailback(t)
		u.differs = []replication.Difference{lacks}
		in := goHome
		in.FailForward = forward
		out, err := p.home(t, in)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
		require.Equal(t, []string{way}, u.mended)
		require.True(t, p.released[len(p.released)-1].Protected)
	}
	p, u := newFailback(t)
	u.differs = []replication.Difference{{Kind: "link", Name: "east-west", Level: replication.LevelProblem, Is: "paused", Should: "active", Do: "resume it"}}
	var parked string
	p.RegisterDelayedCallback(func() { parked = p.status(t).Parked }, 59*time.Minute)
	p.tell(time.Hour, workflows.UpdateSkip, by("alice"))
	out, err := p.home(t, goHome)
	require.NoError(t, err)
	require.Equal(t, "orders is home on east at epoch 9, and unprotected: west does not stand by", out.Sentence)
	require.False(t, p.released[len(p.released)-1].Protected)
	require.Contains(t, parked, "link east-west is paused, should be active resume it")
}

// P13: while something still waits to fence home, what is stranded there is not known.
func TestP13_FailbackWaitsForTheFence(t *testing.T) {
	p, u := newFailback(t)
	p.world.fencing = true
	_, err := p.home(t, goHome)
	require.ErrorContains(t, err, "east is not fenced yet")
	require.Empty(t, u.parts)
}
