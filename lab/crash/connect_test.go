//go:build crash

package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/runbooks"
	"switchback/workflows"
)

// asked are where a planned failover has just asked Kafka Connect something, or is about to: the suspension of the syncs, the
// drain, the hand-over of groups, the seal. Those without a star are played with -full only.
var asked = []string{"Suspend/middle", "Drain/middle", "HandOver/middle", "Promote/before*"}

// The worker of Kafka Connect is killed in each step that touches it, and is back in a while. A preflight that meets this refuses
// the run. Every other run gets to its seal all the same, and comes back from there; the last one is unplanned, and Connect dies
// when only the confirmation of its stop is left. Connectors write exactly once: what a task that died has begun is nobody's (P37).
func TestConnectWorkerKilled(t *testing.T) {
	t.Parallel()
	whole := onMirrors(t, func(o *setup.Options) {
		o.ExactlyOnce = true
		o.EditRunbook = func(b *runbooks.Runbook) {
			patient(b)
			// Kafka gives up a transaction of a dead task after a minute, and nothing is drained or sealed before.
			b.Objectives.RTO, b.Budgets.Drain, b.Budgets.Promote = runbooks.Duration(10*time.Minute), runbooks.Duration(3*time.Minute), runbooks.Duration(3*time.Minute)
		}
	})
	connect := setup.ConnectProcess("west")
	t.Run("Check middle", func(t *testing.T) {
		p := whole.of(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		line := results.line(t, scenario{point: "Check/middle"})
		p.heldAt(ctx, "Check/middle")
		line.step = p.at(ctx)
		p.killed(connect, "Check/middle", away, 0)
		result, err := p.Ends(ctx, p.run)
		require.NoError(t, err)
		require.Equal(t, workflows.FailedRun, result.Outcome, result.Sentence)
		require.Contains(t, result.Sentence, "unreachable")
		require.Empty(t, p.denied(ctx, "east"), "nothing was changed")
		line.outcome = result.Outcome
	})
	for _, at := range chosen(asked) {
		t.Run(strings.ReplaceAll(at, "/", " "), func(t *testing.T) {
			p := whole.of(t)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			line := results.line(t, scenario{point: at})
			require.NoError(t, p.goes(ctx))
			p.heldAt(ctx, at)
			line.step = p.at(ctx)
			p.bench.order(t, "hold", "Promote/middle", 0)
			p.killed(connect, at, away, 0)
			require.NoError(t, p.bench.reached(ctx, "Promote/middle"))
			require.NotEmpty(t, p.denied(ctx, "west"), "the seal stands")
			_, err := p.Order(ctx, p.run.GetID(), workflows.UpdateAbort, workflows.Order{By: "operator", Reason: "test"})
			require.NoError(t, err)
			require.NoError(t, p.bench.goOn("Promote/middle"))
			p.aborted(ctx)
			line.outcome = workflows.Aborted
		})
	}
	t.Run("AwaitStopped before", func(t *testing.T) {
		p := whole.of(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		p.page = unplanned
		line := results.line(t, scenario{page: p.page, point: "AwaitStopped/before"})
		require.NoError(t, p.HandedOver(ctx, "east", "west"))
		p.bench.order(t, "hold", "AwaitStopped/before", 0)
		var err error
		p.run, err = p.PlanUnplanned(ctx, "unplanned-"+p.Workload.Name, "west", time.Time{})
		require.NoError(t, err)
		require.NoError(t, p.Approve(ctx, p.run.GetID()))
		require.NoError(t, p.bench.reached(ctx, "AwaitStopped/before"))
		line.step = p.at(ctx)
		p.killed(connect, "AwaitStopped/before", away, 0)
		result, err := p.Ends(ctx, p.run)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
		require.NotContains(t, strings.Join(result.Deviations, "; "), "not seen to stop")
		require.NoError(t, p.flows(ctx, "west", time.Now()), "traffic on west after the run")
		p.closes(ctx, "east")
		line.took(p.judged(ctx, "west", result))
		line.outcome = result.Outcome
	})
}

// goes waits until a plan finds nothing in the way of a planned failover: connectors that were let go on start when they can.
func (p *play) goes(ctx context.Context) error {
	return story.Until(ctx, "a planned failover to be possible", func() (bool, error) {
		run, err := p.Start(ctx, "plan-"+p.Workload.Name, "PlanFailover", workflows.PlannedInput{Runbook: p.Workload.Name, To: "west"})
		if err != nil {
			return false, err
		}
		var plan workflows.Plan
		err = run.Get(ctx, &plan)
		return plan.GoesIfNow, errors.Join(err, fmt.Errorf("%d problems: %v", plan.Problems, plan.Preflight.Findings))
	})
}
