//go:build crash

package crash

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/workflows"
)

// The end states that every scenario is held against: what a run leaves when nothing disturbs it.
func TestUndisturbed(t *testing.T) {
	t.Run("completed", func(t *testing.T) {
		act(t, scenario{})
		s := ends[end{planned, workflows.Completed}]
		require.Equal(t, "west", s.Cluster)
		require.EqualValues(t, 2, s.Epoch)
		require.Equal(t, "RUN", s.SwitchedBy)
		require.Equal(t, map[string]string{
			"W-billing": "run", "W-checkout": "run", "W-shipping": "run", "W-billing-1": "running on west at epoch 2, killed false",
			"W-checkout-1": "running on west at epoch 2, killed false", "W-shipping-1": "running on west at epoch 2, killed false",
		}, s.Clients)
		require.Equal(t, map[string][]string{"east": {
			"READ on GROUP W-billing for User:*", "READ on GROUP W-shipping for User:*",
			"WRITE on TOPIC W.00 for User:*", "WRITE on TOPIC W.01 for User:*", "WRITE on TOPIC W.02 for User:*",
		}, "west": {}}, s.Denied)
		require.Equal(t, "false", s.ACLSync, "it would copy the fence")
		require.Equal(t, []string{"W-billing", "W-shipping", "W.00", "W.01", "W.02"}, s.Held)
		require.Equal(t, []string{"W.00 STOPPED", "W.01 STOPPED", "W.02 STOPPED"}, s.Mirrors)
		require.Contains(t, strings.Join(s.Records["east"], " "), "marks/EAST/RUN/00000")
		require.Equal(t, s.Records["east"], s.Records["west"])
		require.Equal(t, "active west, epoch 2, held false, abandoned false, last outcome completed, unprotected true", s.Entity)
		require.Equal(t, 6, s.Positions, "3 topics of 2 partitions")
		require.Equal(t, 12, s.Offsets, "2 groups in 6 partitions")
	})
	t.Run("rolled back", func(t *testing.T) {
		act(t, scenario{refused: true})
		s := ends[end{planned, workflows.RolledBack}]
		require.Equal(t, "east", s.Cluster)
		require.EqualValues(t, 2, s.Epoch, "raised, so that late actors are refused")
		require.Equal(t, map[string]string{
			"W-billing": "run", "W-checkout": "run", "W-shipping": "run", "W-billing-1": "running on east at epoch 2, killed false",
			"W-checkout-1": "running on east at epoch 2, killed false", "W-shipping-1": "running on east at epoch 2, killed false",
		}, s.Clients)
		require.Equal(t, map[string][]string{"east": {}, "west": {}}, s.Denied)
		require.Equal(t, "true", s.ACLSync)
		require.Empty(t, s.Held)
		require.Equal(t, []string{"W.00 ACTIVE", "W.01 ACTIVE", "W.02 ACTIVE"}, s.Mirrors)
		require.Equal(t, "active east, epoch 2, held false, abandoned false, last outcome rolled back, unprotected false", s.Entity)
	})
}

// forward are the kill points of a planned failover in the order of its steps. A number says how many times the point is
// passed before: producers are stopped first, consumers second, and so on.
var forward = []string{
	"Snapshot/before", "Snapshot/after", // preflight
	"Read/before", "Read/after",
	"Acquire/before", "Acquire/after", // runbook/<name>
	"Check/before", "Check/middle", "Check/after",
	"Acquire/before 1", "Acquire/after 1", // link/<name>
	"Suspend/before", "Suspend/middle", "Suspend/after",
	"Stop/before", "Stop/middle", "Stop/after", // producers
	"Raise/before", "Raise/middle", "Raise/after",
	"Quiesce/before", "Quiesce/middle", "Quiesce/after",
	"Drain/before", "Drain/middle", "Drain/after",
	"Stop/before 1", "Stop/middle 1", "Stop/after 1", // consumers, beside the fence
	"HandOver/before", "HandOver/middle", "HandOver/written", "HandOver/after",
	"Promote/before", "Promote/before-sent", "Promote/middle", "Promote/after",
	"KeepMarks/before", "KeepMarks/middle", "KeepMarks/after",
	"Switch/before", "Switch/before-sent", "Switch/middle", "Switch/after",
	"Start/before", "Start/middle", "Start/after", // producers and consumers side by side
	"Start/before 1", "Start/middle 1", "Start/after 1",
	"Target/before", "Target/middle", "Target/after",
	"Write/before", "Write/middle", "Write/after",
	"Release/before", "Release/after", // link/<name>
	"Release/before 1", "Release/after 1", // runbook/<name>
}

// back are those of the rollback after a promotion that was refused, and before them those where a run makes what a
// rollback must find again (P3, P4).
var back = []string{
	"Suspend/middle", "Raise/middle", "HandOver/middle",
	"Switch/before", "Switch/before-sent", "Switch/middle", "Switch/after", // the epoch is raised
	"Start/before", "Start/middle", "Start/after", // consumers
	"Lift/before", "Lift/middle", "Lift/after",
	"Start/before 1", "Start/middle 1", "Start/after 1", // producers
	"Restore/before", "Restore/middle", "Restore/after",
	"Write/middle", "Release/before 1",
}

func TestWorkerKilledAtEveryLine(t *testing.T) {
	t.Parallel()
	for i, at := range forward {
		each(t, i, at, scenario{}, true)
	}
}

func TestWorkerKilledInARollback(t *testing.T) {
	t.Parallel()
	for i, at := range back {
		each(t, i, at, scenario{refused: true}, true)
	}
}

// killedAt is the scenario at a point, such as "Stop/middle 1".
func (s scenario) killedAt(at string) scenario {
	s.point, _, _ = strings.Cut(at, " ")
	if strings.HasSuffix(at, " 1") {
		s.pass = 1
	}
	return s
}

// each plays a scenario at a point, such as "Stop/middle 1", beside others if that is wanted.
func each(t *testing.T, i int, at string, sc scenario, parallel bool) {
	sc = sc.killedAt(at)
	t.Run(fmt.Sprintf("%02d %s", i, strings.ReplaceAll(at, "/", " ")), func(t *testing.T) {
		if parallel {
			t.Parallel()
		}
		act(t, sc)
	})
}

// The link refused, the worker died before it could say so, and whoever asks again cannot know that nothing was sent:
// past that point the run never goes back (P15). It parks, and goes on when the link is mended.
func TestWorkerKilledWithARefusalThatNobodyHeard(t *testing.T) {
	t.Parallel()
	p := stage(t)
	line := results.line(t, scenario{point: "Promote/after"})
	ctx, done := p.context()
	defer done()
	mend := p.refuse()
	p.bench.order(t, "kill", "Promote/after", 0)
	p.start(ctx)
	p.crash(ctx, scenario{point: "Promote/after"})
	require.NoError(t, p.Reaches(ctx, p.run.GetID(), "parked"))
	mend()
	p.order(ctx, workflows.UpdateRetry)
	line.step = string(workflows.Promote)
	p.ends(ctx, workflows.Completed, line)
}

// Nothing is under way while a run waits for people, and the worker dies all the same.
func TestWorkerKilledWhileARunWaitsForApproval(t *testing.T) {
	t.Parallel()
	p := stage(t)
	line := results.line(t, scenario{})
	ctx, done := p.context()
	defer done()
	p.rewrite(approvals(1))
	p.start(ctx)
	require.NoError(t, p.Reaches(ctx, p.run.GetID(), string(workflows.Approve)))
	require.NoError(t, p.bench.Kill("worker"))
	p.bench.again(t, "worker")
	_, err := p.Order(ctx, p.run.GetID(), workflows.UpdateApprove, workflows.Order{By: "ann", Reason: "go"})
	require.NoError(t, err)
	line.step = string(workflows.Approve)
	p.ends(ctx, workflows.Completed, line)
}
