package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/workflows"
)

// onApache is a lab on Apache Kafka and MirrorMaker 2; the test is skipped where the machine cannot run it.
func onApache(t *testing.T) func(*setup.Options) {
	t.Helper()
	apache := setup.Options{Kafka: setup.Apache, Link: setup.MirrorMaker}
	if missing := setup.Missing(apache); missing != "" {
		t.Skip(missing)
	}
	return func(o *setup.Options) { o.Kafka, o.Link = apache.Kafka, apache.Link }
}

// The active cluster is killed under traffic: the workload goes on elsewhere; when the cluster is back it is fenced first,
// and what was lost is exactly what the run and the fence say.
func TestUnplannedFailoverOfADeadCluster(t *testing.T) {
	for name, with := range map[string]func(*testing.T) func(*setup.Options){
		"cluster linking": func(*testing.T) func(*setup.Options) { return func(*setup.Options) {} },
		"MirrorMaker 2":   onApache,
	} {
		t.Run(name, func(t *testing.T) {
			p := up(t, with(t)).play(t, "orders")
			p.flows("east")
			p.stage.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "west") })
			gone := p.dies("east")
			run := p.unplanned("east-is-gone", gone)
			p.stage.does(t, "approve", func(ctx context.Context) error { return p.Approve(ctx, run.GetID()) })
			out := p.ends(run, workflows.Completed)
			p.flows("west")
			p.stage.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
			fenced := p.fenced("east")
			require.Zero(t, fenced.Written, fenced.Ended)
			v := p.wellAfter("west", out)
			t.Logf("%s\n%s", out.Sentence, v)
		})
	}
}

// fenced waits until a cluster that came back is fenced, and its loss closed.
func (p *play) fenced(cluster string) (f workflows.FencingStatus) {
	p.t.Helper()
	p.stage.does(p.t, "fence "+cluster, func(ctx context.Context) (err error) { f, err = p.Fenced(ctx, cluster); return err })
	require.True(p.t, f.Loss.Closed(), f.Ended)
	return f
}

// wellAfter ends the traffic after an unplanned run and has the ledger judge it: nothing is wrong but what is stated, to
// the record.
func (p *play) wellAfter(active string, out workflows.Result) ledger.Verdict {
	p.t.Helper()
	p.stage.does(p.t, "the groups read everything", func(ctx context.Context) error { return p.SettleOn(ctx, active) })
	v := p.judge(active, out.Report)
	require.Empty(p.t, v.Disagreements, "%s", v)
	require.True(p.t, v.Well(), "%s", v)
	return v
}

func (p *play) dies(cluster string) time.Time {
	p.t.Helper()
	gone, err := p.Lose(cluster)
	require.NoError(p.t, err)
	return gone
}

// unplanned starts an unplanned failover to west.
func (p *play) unplanned(id string, outage time.Time) sdk.WorkflowRun {
	p.t.Helper()
	run, err := p.PlanUnplanned(p.t.Context(), id, "west", outage)
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.describe(id)
		}
	})
	return run
}
