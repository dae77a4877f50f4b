package e2e_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/kafka"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/tree"
	"switchback/report"
	"switchback/runbooks"
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

// The active cluster is killed under traffic: the workload goes on elsewhere. When the cluster is back it is fenced first,
// by a worker that was itself killed meanwhile, and what was lost is exactly what the run and the fence say.
func TestP13_ADeadClusterIsLeftAndFencedWhenItIsBack(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*testing.T) func(*setup.Options){
		"cluster linking": func(*testing.T) func(*setup.Options) { return func(*setup.Options) {} },
		"MirrorMaker 2":   onApache,
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with(t), edited(func(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(10 * time.Second) }))
			p := s.play(t, "orders")
			p.flows("east")
			s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
			gone := p.dies("east")

			var plan workflows.UnplannedPlan
			s.operator(t).json(0, &plan, "plan", "unplanned", "orders", "--to", "west")
			require.True(t, plan.GoesIfNow)
			require.False(t, plan.Assessment.From.Answers)
			require.EqualValues(t, -1, plan.Assessment.Loss.AtMost, "a cluster that is gone bounds nothing (P21)")

			run := p.unplanned("east-is-gone", gone)
			p.approved(run)
			out := p.ends(run, workflows.Completed)
			require.Contains(t, out.Sentence, "open")
			p.flows("west")

			require.NoError(t, s.Kill("worker"))
			s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
			s.does(t, "start the worker again", func(ctx context.Context) error { return s.StartAgain(ctx, "worker") })
			fenced := p.fenced("east")
			require.Zero(t, fenced.Written, fenced.Ended)
			acls := s.acls(t, "east")
			for _, acl := range p.fence() {
				require.Contains(t, acls, acl)
			}
			v := p.wellAfter("west", out)
			t.Logf("%s\n%s", out.Sentence, v)
		})
	}
}

// The old cluster is alive and cut off from us, and so is one producer, which goes on writing there: two clusters, two
// epochs. When the cluster answers it is fenced, and all that was written there meanwhile is in the number, and named.
func TestP38_TheLossIsOpenUntilTheOldClusterIsFenced(t *testing.T) {
	s := up(t)
	wire := proxyTo(t, s.ConsulURL())
	s.change(t, "checkout-1", func(spec *tree.Spec) {
		for i, arg := range spec.Args {
			if arg == "--consul-address" {
				spec.Args[i+1] = wire.URL
			}
		}
	})
	p := s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	// Nobody new is let in; who is in goes on: the producers, and the link.
	answers := s.kafkaFault(t, "east", kafka.Fault{Kind: "close", Key: "SASLHandshake"})
	wire.cut.Store(true)
	wire.CloseClientConnections()
	s.forget(t, "orders", "checkout", "checkout-1")

	run := p.unplanned("cut-off", time.Time{})
	p.approved(run)
	out := p.ends(run, workflows.Completed) // it waits for no instance that discovery does not know
	named := strings.Join(out.Deviations, "; ")
	require.Contains(t, named, "not known to be stopped, and may write to east until it is fenced: checkout")
	require.Contains(t, named, "not started, because nobody could reach them")
	require.Contains(t, named, "the runbook expects 2 instances, discovery knows 1")
	r := p.report(out)
	require.True(t, r.Loss.Open)
	require.Nil(t, r.Loss.AtMost)
	switched := time.Now()
	p.worksOn("east", "checkout-1", switched)
	p.worksOn("west", "checkout-2", switched)

	answers()
	fenced := p.fenced("east")
	require.Positive(t, fenced.Written, fenced.Ended)
	require.NotEmpty(t, fenced.Wrote)
	r = p.report(out)
	require.NotNil(t, r.Loss.ClosedAt, fenced.Ended)
	require.EqualValues(t, fenced.Loss.AtLeast, *r.RPO.Records)
	wire.cut.Store(false)
	p.worksOn("west", "checkout-1", time.Now())
	v := p.wellAfter("west", out)
	require.Positive(t, v.Aftermath.Stranded)
	require.Zero(t, v.TwoClusters, "one epoch, one cluster (I1)")
	t.Log(v)
}

// The old cluster answers us and no client can write to it: the run fences it itself, reads its end behind the fence, and
// closes the number without waiting for anybody.
func TestP38_AnOldClusterThatAnswersIsFencedByTheRunItself(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	for _, topic := range p.Workload.TopicNames() {
		s.kafkaFault(t, "east", kafka.Fault{Kind: "error", Key: "Produce", Topic: topic, Error: "LEADER_NOT_AVAILABLE"})
	}
	run := p.unplanned("no-client-gets-in", time.Now())
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	r := p.report(out)
	require.True(t, r.RPO.Known, "%s", r.RPO.Text)
	require.False(t, r.Loss.Open)
	_, there, err := p.Fencing(t.Context(), "east")
	require.NoError(t, err)
	require.False(t, there, "nothing is left to fence")
	acls := s.acls(t, "east")
	for _, acl := range p.fence() {
		require.Contains(t, acls, acl)
	}
	p.flows("west")
	t.Log(p.wellAfter("west", out))
}

// The old cluster dies under a planned run, whose producers are stopped already: it is turned into an unplanned one, and
// nothing is taken back first.
func TestAPlannedRunIsEscalatedWhenItsClusterDies(t *testing.T) {
	s := up(t, approvals(1))
	p := s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	run := p.start("escalated")
	p.reaches(run, string(workflows.Approve))
	s.mirror(t, "pause", "orders.01") // so that the run is still draining when its cluster dies
	p.flows("east")
	p.order(run, workflows.UpdateApprove)
	p.reaches(run, string(workflows.Drain))
	p.dies("east")
	_, err := p.Order(t.Context(), run.GetID(), workflows.UpdateEscalate, workflows.Order{By: setup.Requester, Reason: "east is gone"})
	require.NoError(t, err)
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	r := p.report(out)
	require.Equal(t, report.KindUnplanned, r.Kind)
	require.NotEmpty(t, r.Earlier)
	p.flows("west")
	s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
	p.fencedOnce("east")
	v := p.wellAfter("west", out)
	require.Positive(t, v.Aftermath.Lost, "what orders.01 was behind")
	t.Log(v)
}

// worksOn waits until an instance was acknowledged records on a cluster since then.
func (p *play) worksOn(cluster, instance string, since time.Time) {
	p.t.Helper()
	eventually(p.t, instance+" to work on "+cluster, func() (bool, error) {
		l, err := ledger.Read(p.Dir)
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(l.Acked, func(a ledger.Acked) bool {
			return a.Instance == instance && a.Cluster == cluster && a.At.After(since)
		}), nil
	})
}

// approved gives the approvals that the lab's runbooks ask for.
func (p *play) approved(run sdk.WorkflowRun) {
	p.t.Helper()
	p.stage.does(p.t, "approve", func(ctx context.Context) error { return p.Approve(ctx, run.GetID()) })
}

// fencedOnce is fenced for a run that may have fenced the cluster itself, before it died.
func (p *play) fencedOnce(cluster string) {
	p.t.Helper()
	if _, there, err := p.Fencing(p.t.Context(), cluster); err == nil && there {
		p.fenced(cluster)
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
