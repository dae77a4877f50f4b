//go:build crash

package crash

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/workflows"
)

// newMirrorBench is a lab on Apache Kafka and MirrorMaker 2, whose connectors are shared by all of its workloads.
func newMirrorBench(t *testing.T, workloads []setup.Workload, changes ...func(*setup.Options)) *bench {
	t.Helper()
	if missing := setup.Missing(setup.Options{Kafka: setup.Apache}); missing != "" {
		t.Skip(missing)
	}
	root := t.TempDir()
	b := &bench{root: root, orders: filepath.Join(root, "orders")}
	require.NoError(t, os.MkdirAll(b.orders, 0o700))
	for _, w := range workloads {
		require.NoError(t, os.MkdirAll(b.ledger(w), 0o700))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var err error
	o := setup.Options{
		Dir: filepath.Join(root, "lab"), Program: os.Args[0], Kafka: setup.Apache, Link: setup.MirrorMaker, Workloads: workloads,
		WorkerTags: []string{"killpoints"}, WorkerEnv: []string{"SWITCHBACK_KILLPOINTS=" + b.orders},
		EditRunbook: patient, ClientCommand: b.client,
	}
	setup.Impatient(&o)
	for _, change := range changes {
		change(&o)
	}
	b.Lab, err = setup.Up(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Down()) })
	return b
}

// onMirrors is one workload there. A completed run stops the connectors for good, so a lab sees one such run, after those
// that come back.
func onMirrors(t *testing.T, changes ...func(*setup.Options)) *play {
	t.Helper()
	w := small("orders")
	b := newMirrorBench(t, []setup.Workload{w}, changes...)
	p := b.stage(t, w)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	require.NoError(t, p.Flows(ctx, "east", time.Time{}, 10), "traffic on east")
	return p
}

// heldAt starts a run, and holds the worker at a point.
func (p *play) heldAt(ctx context.Context, point string) {
	p.t.Helper()
	p.bench.order(p.t, "hold", point, 0)
	p.start(ctx)
	reaching, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := p.bench.reached(reaching, point); err != nil {
		p.describe(ctx)
		require.NoError(p.t, err)
	}
}

// aborted waits until a run has come back, and holds what stands against what stood before it.
func (p *play) aborted(ctx context.Context) {
	p.t.Helper()
	result, err := p.Ends(ctx, p.run)
	require.NoError(p.t, err)
	require.Equal(p.t, workflows.Aborted, result.Outcome, result.Sentence)
	for _, cluster := range setup.Clusters {
		require.Empty(p.t, p.denied(ctx, cluster), "DENYs on %s", cluster)
	}
	require.NoError(p.t, p.flows(ctx, "east", time.Now()), "traffic on east after the run")
}

// Two runs are aborted between the seal and the switch, one of them with the worker killed while the seal is lifted; the
// mirror goes on each time exactly after what the target has (P27). The third goes over, with the Connect worker killed
// behind the seal. The ledger has seen it all: nothing lost, nothing twice.
func TestP27_ASealIsTakenBackAndAConnectWorkerKilledBehindIt(t *testing.T) {
	t.Parallel()
	p := onMirrors(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	abort := workflows.Order{By: "operator", Reason: "test"}

	p.heldAt(ctx, "Promote/middle")
	require.NotEmpty(t, p.denied(ctx, "west"), "the seal stands")
	_, err := p.Order(ctx, p.run.GetID(), workflows.UpdateAbort, abort)
	require.NoError(t, err)
	require.NoError(t, p.bench.goOn("Promote/middle"))
	p.aborted(ctx)

	p.heldAt(ctx, "Promote/middle")
	p.bench.order(t, "kill", "Unseal/middle", 0)
	_, err = p.Order(ctx, p.run.GetID(), workflows.UpdateAbort, abort)
	require.NoError(t, err)
	require.NoError(t, p.bench.goOn("Promote/middle"))
	p.crash(ctx, scenario{point: "Unseal/middle"})
	p.aborted(ctx)

	p.heldAt(ctx, "Promote/middle")
	p.killed(setup.ConnectProcess("west"), "Promote/middle", away, 0)
	result, err := p.Ends(ctx, p.run)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
	require.NoError(t, p.flows(ctx, "west", time.Now()), "traffic on west after the run")
	v := p.judged(ctx, "west", result)
	t.Logf("switch window of the producers %.2f s, with Connect away for %s", *v.SwitchWindowSeconds, away)
}
