package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/lab/setup"
	"switchback/report"
	"switchback/workflows"
)

// failback starts the way home.
func (p *play) failback(id string, in workflows.FailbackInput) sdk.WorkflowRun {
	p.t.Helper()
	in.Runbook, in.Reason, in.By = p.Workload.Name, "exercise", setup.Requester
	if in.Override == "" {
		in.Override = "exercise"
	}
	run, err := p.Start(p.t.Context(), id, "Failback", in)
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.describe(id)
		}
	})
	return run
}

// After a planned failover nothing is stranded: the workload goes home over the same link, nothing is lost or read twice on
// the whole way, and the link mirrors as it did before. Then all of it once more: protection is what it was.
func TestFailbackAfterAPlannedFailover(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*setup.Options){
		"truncate and restore": func(*setup.Options) {},
		"delete and mirror":    func(o *setup.Options) { o.OneWayLink = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with)
			p := s.play(t, "orders")
			p.flows("east")
			away := p.ends(p.start("away"), workflows.Completed)
			p.flows("west")

			var plan workflows.FailbackPlan
			s.operator(t).json(0, &plan, "plan", "failback", "orders")
			require.Equal(t, name, string(plan.Turn.Way))
			require.Zero(t, plan.Turn.Unsaved, plan.Turn.Text)

			home := p.ends(p.failback("home", workflows.FailbackInput{}), workflows.Completed)
			p.flows("east")
			r := p.report(home)
			require.Equal(t, report.KindFailback, r.Kind)
			require.Equal(t, "west", r.Protection.ProtectedBy)
			entity := s.entity(t, "orders")
			require.Nil(t, entity.UnprotectedSince, "it is protected again")
			require.Equal(t, "east", entity.Active)
			require.Empty(t, s.denied(t, "east"), "no fence stands at home")
			require.Empty(t, s.denied(t, "west"))

			again := p.ends(p.overridden("away-again"), workflows.Completed)
			p.flows("west")
			p.clean("west", away, again)
		})
	}
}

// overridden is start, soon after the last switch.
func (p *play) overridden(id string) sdk.WorkflowRun {
	p.t.Helper()
	run, err := p.Start(p.t.Context(), id, "PlannedFailover",
		workflows.PlannedInput{Runbook: p.Workload.Name, To: "west", Reason: "exercise", By: setup.Requester, Override: "exercise"})
	require.NoError(p.t, err)
	return run
}

// entity is what the runbook's long-lived workflow says.
func (s *stage) entity(t *testing.T, runbook string) (status activities.EntityStatus) {
	t.Helper()
	temporal, err := s.Temporal()
	require.NoError(t, err)
	defer temporal.Close()
	answer, err := temporal.QueryWorkflow(context.Background(), "runbook/"+runbook, "", activities.QueryEntity)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&status))
	return status
}

// denied are the DENY entries of a cluster.
func (s *stage) denied(t *testing.T, cluster string) (list []string) {
	t.Helper()
	for _, acl := range s.acls(t, cluster) {
		if strings.HasPrefix(acl, "DENY ") {
			list = append(list, acl)
		}
	}
	return list
}

// After a disaster with stranded records: they are recovered first, then the workload goes home, and each acknowledged record
// is there. What was truncated or deleted on the way exists elsewhere.
func TestFailbackAfterADisaster(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*setup.Options){
		"truncate and restore": func(*setup.Options) {},
		"delete and mirror":    func(o *setup.Options) { o.OneWayLink = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with, appending)
			p := s.afterADisaster(t)
			home := p.ends(p.failback("home", workflows.FailbackInput{}), workflows.Completed)
			p.flows("east")
			r := p.report(home)
			require.Len(t, r.Parts, 2, "recovery and the way home have reports of their own")
			p.accounted(workflows.Result{Run: r.Parts[0].Run, Report: r.Parts[0].Report})
			require.Empty(t, s.denied(t, "east"))
			s.does(t, "the groups read everything", func(ctx context.Context) error { return p.Settle(ctx) })
			v := p.judge("east", "")
			require.Zero(t, v.Lost, "%s", v)
			require.Zero(t, v.NeverRead, "%s", v)
			require.Zero(t, v.TwoClusters, "%s", v)
		})
	}
}

// Over MirrorMaker 2 nothing is truncated or deleted: connectors of the other direction are made, set to the marks, and leave
// out what was recovered (P26). Nothing is lost or doubled on the whole way, and afterwards it can be left once more.
func TestP26_FailbackOverMirrorMaker(t *testing.T) {
	s := up(t, onApache(t), encrypted, setup.Impatient, appending)
	p := s.afterADisaster(t)
	home := p.ends(p.failback("home", workflows.FailbackInput{}), workflows.Completed)
	p.flows("east")
	r := p.report(home)
	require.Len(t, r.Parts, 2)
	p.accounted(workflows.Result{Run: r.Parts[0].Run, Report: r.Parts[0].Report})
	require.Equal(t, "west", r.Protection.ProtectedBy)
	p.ends(p.overridden("away-again"), workflows.Completed)
	p.flows("west")
	s.does(t, "the groups read everything", func(ctx context.Context) error { return p.Settle(ctx) })
	v := p.judge("west", "")
	t.Log(v)
	require.Zero(t, v.Lost, "%s", v)
	require.Zero(t, v.Duplicated, "%s", v)
	require.Zero(t, v.NeverRead, "%s", v)
}

// Records that exist nowhere else do not go: the run refuses until they are recovered, or their loss is accepted by name (I9).
func TestFailbackDestroysNothingThatWasNotAcceptedByName(t *testing.T) {
	s := up(t, appending)
	p := s.afterADisaster(t)
	refused := p.ends(p.failback("too-early", workflows.FailbackInput{NoRecovery: true}), workflows.FailedRun)
	require.Contains(t, refused.Sentence, "exist nowhere else")
	require.Contains(t, refused.Sentence, "--accept-loss")
	var plan workflows.FailbackPlan
	s.operator(t).json(1, &plan, "plan", "failback", "orders", "--no-recovery")
	require.Positive(t, plan.Turn.Unsaved)
	var names []string
	for _, topic := range plan.Turn.Worst {
		names = append(names, topic.Topic)
	}
	home := p.ends(p.failback("accepted", workflows.FailbackInput{NoRecovery: true, AcceptLoss: names}), workflows.Completed)
	p.flows("east")
	require.Contains(t, home.Sentence, "is home on east")
}
