package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/ledger"
	"switchback/lab/story"
	"switchback/report"
	"switchback/workflows"
)

// play is one workload of a stage in one test.
type play struct {
	*story.Story
	t     *testing.T
	stage *stage
}

func (s *stage) play(t *testing.T, workload string) *play {
	t.Helper()
	for _, w := range s.Options().Workloads {
		if w.Name == workload {
			story, err := story.Open(s.Lab, w)
			require.NoError(t, err)
			t.Cleanup(story.Close)
			return &play{Story: story, t: t, stage: s}
		}
	}
	t.Fatalf("the lab has no workload %s", workload)
	return nil
}

// flows waits until every client works on a cluster, from now on.
func (p *play) flows(cluster string) {
	p.t.Helper()
	since := time.Now()
	p.stage.does(p.t, "traffic on "+cluster, func(ctx context.Context) error { return p.Flows(ctx, cluster, since, 10) })
}

// start starts a planned failover to west.
func (p *play) start(id string) sdk.WorkflowRun {
	p.t.Helper()
	run, err := p.Plan(p.t.Context(), id, "west")
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.describe(id)
		}
	})
	return run
}

// describe prints what a run says of itself.
func (p *play) describe(id string) {
	status, err := p.Status(context.Background(), id)
	if err != nil {
		p.t.Logf("run %s does not answer: %v", id, err)
		return
	}
	raw, err := json.MarshalIndent(status, "", "  ")
	p.t.Logf("run %s: %s %v", id, raw, err)
	now, err := p.Temporal.DescribeWorkflowExecution(context.Background(), id, "")
	for _, a := range now.GetPendingActivities() {
		p.t.Logf("activity %s, attempt %d, says %v; its last failure: %s (%v)", a.GetActivityType().GetName(), a.GetAttempt(), a.GetHeartbeatDetails(), a.GetLastFailure().GetMessage(), err)
	}
}

// reaches waits until a run is in a phase.
func (p *play) reaches(run sdk.WorkflowRun, phase string) {
	p.t.Helper()
	p.stage.does(p.t, "phase "+phase, func(ctx context.Context) error { return p.Reaches(ctx, run.GetID(), phase) })
}

// turnsBack waits until a run has given up going forward.
func (p *play) turnsBack(run sdk.WorkflowRun) {
	p.t.Helper()
	eventually(p.t, "run "+run.GetID()+" to turn back", func() (bool, error) {
		status, err := p.Status(p.t.Context(), run.GetID())
		if err == nil {
			err = fmt.Errorf("it is at %s: %s", status.Phase, status.WaitsFor)
		}
		if status.Outcome != "" {
			return true, nil
		}
		return false, err
	})
}

// order sends an Update that must be accepted.
func (p *play) order(run sdk.WorkflowRun, order string) {
	p.t.Helper()
	_, err := p.Order(p.t.Context(), run.GetID(), order, workflows.Order{By: "operator-2", Reason: "test"})
	require.NoError(p.t, err, order)
}

// refused sends an Update that must be refused, and returns the sentence.
func (p *play) refused(run sdk.WorkflowRun, order string) string {
	p.t.Helper()
	_, err := p.Order(p.t.Context(), run.GetID(), order, workflows.Order{By: "operator-2", Reason: "test"})
	require.Error(p.t, err, "%s must be refused", order)
	return err.Error()
}

// ends waits for the end of a run, whose outcome must be this one.
func (p *play) ends(run sdk.WorkflowRun, outcome string) workflows.Result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*patience)
	defer cancel()
	out, err := p.Ends(ctx, run)
	if ctx.Err() != nil {
		require.Fail(p.t, "the run did not end", "%s: %v", run.GetID(), err)
	}
	require.Equal(p.t, outcome, out.Outcome, "%s (%v)", out.Sentence, err)
	return out
}

// report is the run's own.
func (p *play) report(out workflows.Result) report.Report {
	p.t.Helper()
	raw, err := os.ReadFile(out.Report)
	require.NoError(p.t, err)
	r, err := report.Parse(raw)
	require.NoError(p.t, err)
	return r
}

// clean ends the traffic and has the ledger judge all of it: nothing lost, doubled, read twice or out of order, every
// report in agreement.
func (p *play) clean(active string, results ...workflows.Result) ledger.Verdict {
	p.t.Helper()
	p.stage.does(p.t, "the groups read everything", p.Settle)
	var v ledger.Verdict
	if len(results) == 0 {
		v = p.judge(active, "")
	}
	for _, out := range results {
		v = p.judge(active, out.Report)
		require.Empty(p.t, v.Disagreements, "report of %s", out.Run)
	}
	require.True(p.t, v.Well(), "%s", v)
	require.NotZero(p.t, v.Acknowledged)
	return v
}

func (p *play) judge(active, report string) ledger.Verdict {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	v, err := p.Judge(ctx, active, report)
	require.NoError(p.t, err)
	return v
}
