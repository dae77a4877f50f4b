package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/kafka"
	"switchback/lab/linkservice"
	"switchback/lab/setup"
	"switchback/runbooks"
	"switchback/workflows"
)

// late keeps each sync cycle under way for longer than its interval: it writes what it read long ago.
func late(o *setup.Options) { o.LinkTimings.SyncInFlightMillis = 1300 }

// A cycle of offset sync that had begun before the suspension writes old offsets after it. The run lets it pass before it
// hands over, so nothing is read twice (P34).
func TestP34_ALateCycleOverwritesNoOffset(t *testing.T) {
	s := up(t, late)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run := p.start("late-cycle")
	out := p.ends(run, workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
	steps := p.report(out).Steps
	i := slices.Index(runbooks.PlannedFailoverSteps, string(workflows.SuspendSyncs))
	require.GreaterOrEqual(t, *steps[i].DurationSeconds, 1.5, "a cycle of 1 s, and what it needs to write")
}

// aclSync turns ACL sync on or off again behind a run's back, as somebody who means well would.
func (s *stage) aclSync(t *testing.T, before systems, on string) {
	t.Helper()
	s.setSync(t, "acl.sync.enable", on)
	if on == "true" {
		s.setSync(t, "acl.filters", before.Syncs["acl.filters"])
	}
}

// Somebody turns ACL sync on again after the run had suspended it. No fence is made then: it would be copied to the
// cluster that clients are about to use.
func TestP05_NoFenceWhileACLSyncIsOn(t *testing.T) {
	s := up(t, approvals(1), edited(hasty))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run, let := p.goesTo("acl-sync-on", hold{at: workflows.StopProducers, keep: func(p *play) func() { return s.freeze(p.t, "checkout-1") }})
	s.aclSync(t, before, "true")
	let()
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "ACL sync of link east-west is on and would copy the fence")
	p.cameBack(before, true)
	p.flows("east")
	p.clean("east", out)
}

// ACL sync comes back for one cycle while the fence stands, and copies it to the target. The run removes the copy before
// clients start there.
func TestP05_ACopiedFenceIsRemovedFromTheTarget(t *testing.T) {
	s := up(t, approvals(1), late)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run, let := p.goesTo("copied-fence", hold{at: workflows.Drain, keep: func(p *play) func() {
		s.mirror(p.t, "pause", "orders.00")
		return func() { s.mirror(p.t, "resume", "orders.00") }
	}})
	s.aclSync(t, before, "true")
	eventually(t, "the fence to be copied to west", func() (bool, error) {
		return slices.Contains(s.acls(t, "west"), denied("TOPIC", "orders.00", "WRITE")), nil
	})
	s.aclSync(t, before, "false")
	let()
	out := p.ends(run, workflows.Completed)
	p.flows("west")
	p.wentOver(before)
	p.clean("west", out)
}

// Requests that were done and reported as failed: the run reads the state and goes on, without doing them twice.
func TestAppliedButReportedAsFailed(t *testing.T) {
	s := up(t, approvals(1), func(o *setup.Options) { o.Workloads = append(o.Workloads, small("returns")) })
	const acts = "mirrors:promote?validate_only=false"
	for i, tc := range []struct {
		workload string
		promote  string // what becomes of the answer
	}{{"orders", "reset"}, {"returns", "hang"}} {
		t.Run(tc.workload, func(t *testing.T) {
			p := s.play(t, tc.workload)
			p.flows("east")
			before := p.look()
			run, let := p.goesTo("unclear-"+tc.workload, hold{at: workflows.StopProducers, keep: func(p *play) func() {
				s.linkFault(p.t, linkservice.Fault{Kind: tc.promote, Path: acts, Times: 1})
				s.linkFault(p.t, linkservice.Fault{Kind: tc.promote, Path: "configs:alter", Times: 1})
				s.kafkaFault(p.t, "east", kafka.Fault{Kind: "error", Key: "CreateACLs", Error: "REQUEST_TIMED_OUT", Times: 1})
				return s.freeze(p.t, client(p.Workload, runbooks.RoleProducer).Name+"-1")
			}})
			// Only now: before the suspension the link's own offset sync would meet it.
			s.kafkaFault(t, "west", kafka.Fault{Kind: "error", Key: "OffsetCommit", Group: p.Workload.Groups()[0], Error: "REQUEST_TIMED_OUT", Times: 1})
			let()
			out := p.ends(run, workflows.Completed)
			require.Equal(t, i+1, s.linkHits(t, acts))
			require.NotZero(t, s.kafkaHits(t, "east")["CreateACLs"])
			require.NotZero(t, s.kafkaHits(t, "west")["OffsetCommit"])
			p.wentOver(before)
			p.flows("west")
			p.clean("west", out)
		})
	}
}

// Two runbooks share a link. What a run of one changes for itself leaves the other's syncs, mirrors and traffic as they
// are; after it came back every setting is as it was, also when its worker was killed in between (P3).
func TestP03_TwoRunbooksOnOneLink(t *testing.T) {
	s := up(t, approvals(1), func(o *setup.Options) { o.Workloads = append(o.Workloads, small("returns")) })
	orders, returns := s.play(t, "orders"), s.play(t, "returns")
	orders.flows("east")
	returns.flows("east")
	before, other := orders.look(), returns.look()
	others := func(after systems) {
		require.Equal(t, other.Mirrors, after.Mirrors)
		require.Equal(t, other.Desired, after.Desired)
		require.Equal(t, other.Epoch, after.Epoch)
		for _, group := range returns.Workload.Groups() {
			require.Contains(t, includes(after.Syncs["consumer.offset.group.filters"]), group)
		}
		require.Contains(t, includes(after.Syncs["auto.create.mirror.topics.filters"]), "returns.")
		require.Equal(t, "true", after.Syncs["consumer.offset.sync.enable"])
		require.Equal(t, "true", after.Syncs["auto.create.mirror.topics.enable"])
	}
	crash := func() {
		require.NoError(t, s.Kill("worker"))
		s.does(t, "start the worker", func(ctx context.Context) error { return s.StartAgain(ctx, "worker") })
	}
	paused := hold{at: workflows.Drain, keep: func(p *play) func() {
		s.mirror(p.t, "pause", "orders.00")
		return func() { s.mirror(p.t, "resume", "orders.00") }
	}}

	run, let := orders.goesTo("comes-back", paused)
	crash()
	others(returns.look())
	returns.flows("east")
	orders.order(run, workflows.UpdateAbort)
	let()
	aborted := orders.ends(run, workflows.Aborted)
	orders.cameBack(before, true)
	orders.flows("east")

	before = orders.look()
	run, let = orders.goesTo("goes-over", paused)
	crash()
	let()
	completed := orders.ends(run, workflows.Completed)
	orders.wentOver(before)
	others(returns.look())
	orders.flows("west")
	returns.flows("east")

	before = returns.look()
	run = returns.start("follows")
	returns.reaches(run, string(workflows.Approve))
	returns.order(run, workflows.UpdateApprove)
	second := returns.ends(run, workflows.Completed)
	returns.wentOver(before)
	returns.flows("west")
	orders.clean("west", aborted, completed)
	returns.clean("west", second)
}

// Two runs are started at the same moment: exactly one goes on. Its runbook is edited while it runs, and it goes by what
// it took at its start (P1).
func TestP01_TwoRunsAtOnceAndARunbookEditedMeanwhile(t *testing.T) {
	s := up(t, approvals(1))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	original, err := os.ReadFile(s.RunbookFile("orders"))
	require.NoError(t, err)
	var wg sync.WaitGroup
	runs := make([]sdk.WorkflowRun, 2)
	for i, id := range []string{"one", "two"} {
		wg.Go(func() { runs[i] = p.start(id) })
	}
	wg.Wait()
	var goes, refused sdk.WorkflowRun
	eventually(t, "one run to go on and the other to be refused", func() (bool, error) {
		goes, refused = nil, nil
		for _, run := range runs {
			status, err := p.Status(t.Context(), run.GetID())
			if err != nil {
				return false, err
			}
			switch status.Phase {
			case string(workflows.Approve):
				goes = run
			case workflows.FailedRun:
				refused = run
			}
		}
		return goes != nil && refused != nil, nil
	})
	require.Contains(t, p.ends(refused, workflows.FailedRun).Sentence, "runbook/orders is held by run "+goes.GetID())
	edited := strings.Replace(string(original), "rto: 1m", "rto: 3m", 1)
	require.NotEqual(t, string(original), edited)
	require.NoError(t, os.WriteFile(s.RunbookFile("orders"), []byte(edited), 0o600))
	p.order(goes, workflows.UpdateApprove)
	out := p.ends(goes, workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	sum := sha256.Sum256(original)
	require.Equal(t, hex.EncodeToString(sum[:]), strings.TrimPrefix(p.report(out).SnapshotSHA256, "sha256:"))
	p.clean("west", out)
}

// Topics appear while a run is under way. One that was mirrored in time is fenced and moved with the others; one that
// comes when auto-create is held back has no mirror, and the run says so and comes back (P16).
func TestP16_ATopicBornDuringTheRun(t *testing.T) {
	s := up(t, approvals(1), edited(hasty), edited(func(b *runbooks.Runbook) { b.Objectives.RTO = runbooks.Duration(time.Minute) }))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	admin := s.admin(t, "east")
	born := func(topic string) {
		made, err := admin.CreateTopic(t.Context(), 1, 1, nil, topic)
		require.NoError(t, err)
		require.NoError(t, made.Err)
	}
	mirrored := func(topic string) {
		eventually(t, "a mirror of "+topic, func() (bool, error) { return s.mirrors(t)[topic] == "ACTIVE", nil })
	}
	run, let := p.goesTo("too-late", hold{at: workflows.StopProducers, keep: func(p *play) func() { return s.freeze(p.t, "checkout-1") }})
	born("orders.late")
	let()
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "orders.late")
	mirrored("orders.late") // auto-create is on again
	before.Mirrors["orders.late"] = "ACTIVE"
	p.cameBack(before, true)
	p.flows("east")

	before = p.look()
	run = p.start("in-time")
	p.reaches(run, string(workflows.Approve))
	born("orders.new")
	mirrored("orders.new")
	before.Mirrors["orders.new"] = "ACTIVE"
	p.order(run, workflows.UpdateApprove)
	second := p.ends(run, workflows.Completed)
	require.Contains(t, second.Deviations, "topics that appeared during the run: orders.new")
	after := p.look()
	require.Equal(t, "STOPPED", after.Mirrors["orders.new"])
	require.Equal(t, "STOPPED", after.Mirrors["orders.late"])
	for _, topic := range []string{"orders.new", "orders.late"} {
		require.Contains(t, after.ACLs["east"], denied("TOPIC", topic, "WRITE"))
	}
	p.flows("west")
	p.clean("west", out, second)
}

// Somebody turns ACL sync on while the fence stands, and leaves it on: it would copy the fence to the target again and
// again, whatever is removed there. The run does not go over under it.
func TestP05_ACLSyncThatStaysOnIsNotGoneOverUnder(t *testing.T) {
	s := up(t, approvals(1), edited(hasty))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run, let := p.goesTo("acl-sync-stays-on", hold{at: workflows.Drain, keep: func(p *play) func() {
		s.mirror(p.t, "pause", "orders.00")
		return func() { s.mirror(p.t, "resume", "orders.00") }
	}})
	s.aclSync(t, before, "true")
	let()
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "ACL sync")
	p.cameBack(before, true)
	p.flows("east")
	p.clean("east", out)
}
