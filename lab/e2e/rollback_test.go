package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/kafka"
	"switchback/lab/ledger"
	"switchback/lab/linkservice"
	"switchback/lab/tree"
	"switchback/runbooks"
	"switchback/workflows"
)

// hold keeps a run in a step until it is let go.
type hold struct {
	at     workflows.Step
	raised bool // the producers had been asked to stop, so the way back raises the epoch
	keep   func(p *play) (let func())
	why    string // what the run says when the step fails past its budget; empty: it is not made to
}

// holds are one step before the switch window and those in it.
var holds = []hold{
	{at: workflows.Approve, keep: nothing},
	{at: workflows.SuspendSyncs, keep: nothing}, // a cycle of the link takes longer than a look
	{at: workflows.StopProducers, raised: true, why: "checkout/checkout-1", keep: func(p *play) func() { return p.stage.freeze(p.t, "checkout-1") }},
	{at: workflows.FenceSource, raised: true, keep: func(p *play) func() {
		return p.stage.kafkaFault(p.t, "east", kafka.Fault{Kind: "drop", Key: "CreateACLs"})
	}},
	{at: workflows.ProveQuiescence, raised: true, why: "orders.01-", keep: writer},
	{at: workflows.Drain, raised: true, why: "orders.00-", keep: func(p *play) func() {
		p.stage.mirror(p.t, "pause", "orders.00")
		return func() { p.stage.mirror(p.t, "resume", "orders.00") }
	}},
	{at: workflows.HandOverOffsets, raised: true, why: "group shipping to be empty (stray", keep: member},
}

func nothing(*play) func() { return func() {} }

// writer goes around the supervisors and the fence: a super user, whom no ACL stops.
func writer(p *play) func() {
	c, err := p.Lab.Kafka("east", "lab", kgo.ClientID("stray"), kgo.ProducerLinger(0))
	require.NoError(p.t, err)
	ctx, cancel := context.WithCancel(p.t.Context())
	key := fmt.Sprintf("stray-%d", time.Now().UnixNano())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticks := time.NewTicker(5 * time.Millisecond)
		defer ticks.Stop()
		for seq := int64(1); ctx.Err() == nil; seq++ {
			<-ticks.C
			c.ProduceSync(ctx, &kgo.Record{Topic: "orders.01", Key: []byte(key), Value: ledger.EncodeValue(seq, 40)})
		}
	}()
	let := func() { cancel(); <-done; c.Close() }
	p.t.Cleanup(let)
	return let
}

// member joins a group of the workload beside its supervised members. It reads nothing and commits nothing.
func member(p *play) func() {
	group := p.Workload.Clients[2].Group
	c, err := p.Lab.Kafka("east", "lab", kgo.ClientID("stray"), kgo.ConsumerGroup(group), kgo.ConsumeTopics(p.Workload.TopicNames()...),
		kgo.DisableAutoCommit(), kgo.Balancers(kgo.StickyBalancer()))
	require.NoError(p.t, err)
	p.t.Cleanup(c.Close)
	admin := p.stage.admin(p.t, "east")
	eventually(p.t, "a member of nobody's in group "+group, func() (bool, error) {
		described, err := admin.DescribeGroups(p.t.Context(), group)
		for _, m := range described[group].Members {
			if m.ClientID == "stray" && described[group].State == "Stable" {
				return true, err
			}
		}
		return false, err
	})
	return c.Close
}

// goesTo starts a run, arranges what holds it after preflight had its look, approves, and waits until it is held.
func (p *play) goesTo(id string, h hold) (run sdk.WorkflowRun, let func()) {
	p.t.Helper()
	run = p.start(id)
	p.reaches(run, string(workflows.Approve))
	let = h.keep(p)
	if h.at != workflows.Approve {
		p.order(run, workflows.UpdateApprove)
		p.reaches(run, string(h.at))
	}
	return run, let
}

// Cancelling before and in the switch window, by every way there is; the same step failing past its budget. Each time
// clients go on where they were, and nothing is left of the run but a higher epoch.
func TestCancelledOrFailedItComesBack(t *testing.T) {
	s := up(t, approvals(1), edited(hasty))
	whole := s.play(t, "orders")
	whole.flows("east")
	var results []workflows.Result
	ways := []struct{ name, outcome string }{
		{workflows.UpdateRollback, workflows.RolledBack}, {workflows.UpdateAbort, workflows.Aborted}, {"cancel", workflows.Aborted},
	}
	for i, h := range holds {
		for j, way := range ways {
			if way.name != "cancel" && j != i%2 {
				continue // Updates take turns: what differs between them is the outcome's name
			}
			if way.name == workflows.UpdateRollback && h.at == workflows.Approve {
				way = ways[1]
			}
			t.Run(fmt.Sprintf("%s at %s", way.name, h.at), func(t *testing.T) {
				p := s.play(t, "orders")
				before := p.look()
				run, let := p.goesTo(fmt.Sprintf("%s-%s", way.name, h.at), h)
				if h.at == workflows.Approve {
					require.Contains(t, p.refused(run, workflows.UpdateRollback), "nothing was changed yet")
				}
				if way.name == "cancel" {
					require.NoError(t, p.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
				} else {
					p.order(run, way.name)
				}
				let() // the word was given while the step was held; the way back needs what held it
				results = append(results, p.ends(run, way.outcome))
				p.cameBack(before, h.raised)
				p.flows("east")
			})
		}
		if h.why == "" {
			continue
		}
		t.Run(fmt.Sprintf("%s fails past its budget", h.at), func(t *testing.T) {
			p := s.play(t, "orders")
			before := p.look()
			run, let := p.goesTo(fmt.Sprintf("fail-%s", h.at), h)
			p.turnsBack(run)
			let()
			out := p.ends(run, workflows.RolledBack)
			require.Contains(t, out.Sentence, h.why)
			require.Contains(t, out.Sentence, "everything was taken back")
			results = append(results, out)
			p.cameBack(before, h.raised)
			p.flows("east")
		})
	}
	t.Run("P15 promote is refused by validate_only", func(t *testing.T) {
		p := s.play(t, "orders")
		before := p.look()
		run, let := p.goesTo("fail-promote", hold{at: workflows.Approve, keep: func(p *play) func() {
			return s.linkFault(p.t, linkservice.Fault{Kind: "topicError", Path: "mirrors:promote", Topic: "orders.02", Status: 401, Value: "Not authorized"})
		}})
		p.order(run, workflows.UpdateApprove)
		out := p.ends(run, workflows.RolledBack)
		let()
		require.Contains(t, out.Sentence, "nothing was promoted")
		require.Contains(t, out.Sentence, "orders.02")
		results = append(results, out)
		p.cameBack(before, true)
		p.flows("east")
	})
	t.Run("the ledger and every report agree", func(t *testing.T) {
		s.play(t, "orders").clean("east", written(results)...)
	})
}

// written are the runs that wrote a report.
func written(results []workflows.Result) (out []workflows.Result) {
	for _, r := range results {
		if r.Report != "" {
			out = append(out, r)
		}
	}
	return out
}

// A client that SIGTERM does not end has to be killed. What it had in flight may be written again, so the runbook decides
// (P36): here it says roll back, and the run names client and instance.
func TestP36_AClientThatHadToBeKilledRollsBackWhereTheRunbookSaysSo(t *testing.T) {
	s := up(t, edited(func(b *runbooks.Runbook) { b.Clients[0].WhenKilled = "roll-back" }), stubborn("checkout-1"))
	s.change(t, "checkout-1", func(spec *tree.Spec) { spec.Env = append(spec.Env, "SUPERVISOR_STOP_TIMEOUT=2s") })
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	out := p.ends(p.start("stubborn"), workflows.RolledBack)
	require.Contains(t, out.Sentence, "checkout/checkout-1 had to be killed and the runbook says roll-back")
	p.cameBack(before, true)
	p.flows("east")
}
