//go:build crash

package crash

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	sdk "go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/replication"
	"switchback/workflows"
)

// What is stranded comes back, and the workload goes home, with the worker killed at one step after the other of the same run.
// Points with a star are always played, one for each step that changes something; the others with -full only.

// bringing are the kill points of a recovery that appends.
var bringing = []string{
	"Acquire/after", "PlanRecovery/middle*", "PlanRecovery/after", "PrepareRecovery/middle*", "PrepareRecovery/after",
	"CopyTails/begun*", "CopyTails/middle*", "CopyTails/after", "RewindGroups/before", "Account/middle*", "ReleaseTail/middle*", "Account/after",
	"Write/middle", "Release/before*",
}

// rewinding are those of one that rewinds.
var rewinding = []string{"RewindGroups/set*", "RewindGroups/lifted*", "RewindGroups/after"}

// restoring are those of a way home over a bidirectional link: there, in the planned run within it, and back.
var restoring = []string{
	"Examine/middle*", "Examine/after", "Acquire/before", "Position/before", "Position/middle*", "Position/after", "GiveWay/before", "GiveWay/middle*", "GiveWay/after",
	"Flow/middle*", "Flow/after", "InStep/before*", "InStep/after",
	"HandOver/middle*", "Promote/middle", "Switch/middle*",
	"Examine/middle*", "Position/middle*", "Position/after", "GiveWay/middle*", "Flow/middle*", "Restore/middle*", "Restore/after", "Differences/before",
	"Write/middle*", "Release/before*", "Release/after",
}

// rebuilding are those over one-way links, where topics are deleted and mirrored whole.
var rebuilding = []string{
	"CopyTails/middle*", "Examine/middle", "Position/before", "Position/delete*", "Position/create*", "Position/middle*", "Position/after", "GiveWay/middle*", "Flow/middle*", "InStep/after",
	"Promote/middle*", "Examine/middle", "Position/delete*", "Position/create*", "GiveWay/middle", "Flow/middle*", "Restore/middle*", "Write/middle", "Release/before",
}

// patching are those over MirrorMaker 2, whose connectors are told by offsets where to go on (P26, P27).
var patching = []string{
	"Examine/middle*", "Position/before", "Position/middle*", "Position/after", "GiveWay/middle*", "Flow/middle*", "Flow/after", "InStep/before*",
	"HandOver/middle*", "Promote/middle*", "Switch/middle*",
	"Position/middle*", "GiveWay/middle", "Flow/middle*", "Restore/middle", "Write/middle*", "Release/before*",
}

// returning are those after a planned failover, where nothing is stranded.
var returning = []string{"Examine/middle", "Position/middle*", "GiveWay/middle*", "Flow/middle*", "Switch/middle*", "Position/middle*", "GiveWay/middle", "Flow/middle", "Restore/middle*", "Release/after"}

// remaining are those of a fail-forward.
var remaining = []string{"CopyTails/begun", "CopyTails/middle*", "Account/middle", "Position/middle*", "GiveWay/middle*", "Flow/middle*", "Mend/before", "Mend/middle*", "Mend/after", "Write/middle*"}

// mending are those of Protect.
var mending = []string{"Differences/before", "Differences/after", "Acquire/after*", "Mend/before*", "Mend/middle*", "Mend/after*", "Release/before*", "Release/after"}

func TestWorkerKilledOnTheWayHomeAfterADisaster(t *testing.T) {
	t.Parallel()
	b, workloads := take(t, 3)
	plays := dead(t, b, workloads...)
	t.Run("truncate and restore", func(t *testing.T) {
		p := plays[0].of(t)
		back, _ := p.travel(journey{page: recovering, id: "recover", flow: "RecoverLaggedData", points: chosen(bringing), keep: "recovery-worker-killed",
			in: workflows.RecoverInput{Runbook: p.Workload.Name, Reason: "exercise", By: setup.Requester}})
		p.accounted(back)
		home, _ := p.travel(journey{page: restored, id: "home", flow: "Failback", in: p.home(workflows.FailbackInput{}), points: chosen(restoring), keep: "failback-worker-killed"})
		p.arrived(home, "east", 3)
		othersWork(t, plays[1:], "west")
		p.judgedWhole("east", back.Report, home)
	})
	t.Run("fail-forward", func(t *testing.T) {
		p := plays[1].of(t)
		stays, _ := p.travel(journey{page: staying, id: "stay", flow: "Failback", in: p.home(workflows.FailbackInput{FailForward: true}), points: chosen(remaining)})
		p.arrived(stays, "west", 2)
		othersWork(t, plays[2:], "west")
		p.judgedWhole("west", stays.Report, stays)
	})
	t.Run("divert and rewind", func(t *testing.T) {
		p := plays[2].of(t)
		topics := p.Workload.TopicNames()
		in := workflows.RecoverInput{Runbook: p.Workload.Name, Reason: "exercise", By: setup.Requester, Default: "append", Topics: map[string]string{topics[0]: "divert", topics[1]: "rewind"}}
		spoil(p.t, p.bench, "delete")
		back, _ := p.travel(journey{page: recovering, id: "recover", flow: "RecoverLaggedData", points: chosen(rewinding), in: in, keep: "recovery-parked-then-retried",
			meets: func(ctx context.Context, p *play, id string) {
				require.NoError(p.t, p.Reaches(ctx, id, "parked"))
				spoil(p.t, p.bench, "compact")
				p.order(ctx, workflows.UpdateRetry)
			}})
		p.accounted(back)
	})
}

// spoil gives the topic that holds the progress of recoveries a policy that is right or wrong; a recovery that needs it parks.
func spoil(t *testing.T, b *bench, policy string) {
	t.Helper()
	client, err := b.Kafka("west", "lab")
	require.NoError(t, err)
	defer client.Close()
	r, err := kadm.NewClient(client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: kadm.StringPtr(policy)}}, replication.RecoveryTopic)
	require.NoError(t, err)
	for _, one := range r {
		require.NoError(t, one.Err)
	}
}

// of plays on in a subtest.
func (p *play) of(t *testing.T) *play { p.t = t; return p }

// accounted has the ledger judge a recovery's own report.
func (p *play) accounted(r workflows.Result) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*patience)
	defer cancel()
	v, err := p.Judge(ctx, "west", r.Report)
	require.NoError(p.t, err)
	require.Empty(p.t, v.Disagreements, "%s", v)
	require.Positive(p.t, v.Recovered.Stranded)
}

// One-way links: of the two workloads one is stopped by its operator again and again, and goes on each time; the other one has its
// worker killed. Both come home, and ACL sync is on again when the last fence is gone, not before (P5).
func TestWorkerKilledOnTheWayHomeOverOneWayLinks(t *testing.T) {
	t.Parallel()
	b := ownBench(t, 2, func(o *setup.Options) { o.OneWayLink = true })
	plays := dead(t, b, b.unused...)
	t.Run("stopped by its operator", func(t *testing.T) {
		p := plays[0].of(t)
		p.travel(journey{page: recovering, id: "recover", flow: "RecoverLaggedData", want: workflows.Aborted, keep: "recovery-aborted",
			in: workflows.RecoverInput{Runbook: p.Workload.Name, Reason: "exercise", By: setup.Requester}, meets: p.abortedAt("PrepareRecovery/middle")})
		stopped, _ := p.travel(journey{page: rebuilt, id: "stopped", flow: "Failback", in: p.home(workflows.FailbackInput{}), want: workflows.Aborted, keep: "failback-aborted", meets: p.abortedAt("GiveWay/before")})
		ctx, done := p.context()
		defer done()
		p.keep(ctx, "stopped-"+p.Workload.Name+"/recover", "recovery-completed")
		home, _ := p.travel(journey{page: rebuilt, id: "home", flow: "Failback", in: p.home(workflows.FailbackInput{}), keep: "failback-after-a-disaster"})
		p.arrived(home, "east", 3)
		othersWork(t, plays[1:], "west")
		require.Equal(t, "false", b.configs(t)["acl.sync.enable"], "a fence of another workload stands on east")
		p.judgedWhole("east", stopped.Report, home)
	})
	t.Run("delete and mirror", func(t *testing.T) {
		p := plays[1].of(t)
		home, _ := p.travel(journey{page: rebuilt, id: "home", flow: "Failback", in: p.home(workflows.FailbackInput{}), points: chosen(rebuilding)})
		p.arrived(home, "east", 3)
		require.Equal(t, "true", b.configs(t)["acl.sync.enable"], "as it was before anybody left")
		p.judgedWhole("east", home.Report, home)
	})
}

// Over MirrorMaker 2 on Apache Kafka: no topic is deleted or cut, and no record comes round in a circle.
func TestWorkerKilledOnTheWayHomeOverMirrorMaker(t *testing.T) {
	t.Parallel()
	w := small("orders")
	p := dead(t, newMirrorBench(t, []setup.Workload{w}), w)[0]
	back, _ := p.travel(journey{page: recovering, id: "recover", flow: "RecoverLaggedData", points: chosen(bringing),
		in: workflows.RecoverInput{Runbook: w.Name, Reason: "exercise", By: setup.Requester}})
	p.accounted(back)
	home, _ := p.travel(journey{page: patched, id: "home", flow: "Failback", in: p.home(workflows.FailbackInput{}), points: chosen(patching), keep: "failback-over-mirrormaker"})
	ctx, done := p.context()
	defer done()
	require.NoError(t, p.flows(ctx, "east", time.Now()), "traffic on east after the run")
	require.Empty(t, p.denied(ctx, "east"))
	require.Len(t, p.denied(ctx, "west"), w.Topics, "the standby is closed to its producer")
	v := p.judgedWhole("east", back.Report, home)
	require.Zero(t, v.Duplicated, "%s", v)
}

// abortedAt stops a run at a point.
func (p *play) abortedAt(point string) func(context.Context, *play, string) {
	p.bench.order(p.t, "hold", point, 0)
	return func(ctx context.Context, p *play, _ string) {
		p.t.Helper()
		require.NoError(p.t, p.bench.reached(ctx, point))
		p.order(ctx, workflows.UpdateAbort)
		require.NoError(p.t, p.bench.goOn(point))
	}
}

// ownBench is a lab for one test alone.
func ownBench(t *testing.T, workloads int, changes ...func(*setup.Options)) *bench {
	t.Helper()
	b, err := newBench(t.Context(), workloads, changes...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.down()) })
	return b
}

// Protection is mended, the workload leaves by plan and comes home: nothing is lost or read twice on the whole way.
func TestWorkerKilledInProtectAndOnTheWayHome(t *testing.T) {
	t.Parallel()
	p := stage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*patience)
	defer cancel()
	protect := workflows.ProtectRequest{Runbook: p.Workload.Name, By: setup.Requester}
	p.travel(journey{page: protecting, id: "protect", flow: "Protect", in: protect, keep: "protect-mended"})
	p.watched(ctx)
	require.NoError(t, p.bench.HoldUp(ctx, p.Workload))
	p.travel(journey{page: protecting, id: "protect-again", flow: "Protect", in: protect, points: chosen(mending), keep: "protect-worker-killed"})
	var out workflows.Protected
	require.NoError(t, p.run.Get(ctx, &out))
	require.True(t, out.Stands, "%s: %v", out.Text, out.Left)
	require.Len(t, out.Mended, p.Workload.Topics, "each mirror was paused")
	for _, topic := range p.Workload.TopicNames() {
		require.Equal(t, "ACTIVE", p.bench.mirrors(t)[topic])
	}
	require.NotContains(t, p.entity(ctx, "runbook/"+p.Workload.Name), "held true")

	p.travel(journey{page: planned, id: "away", flow: "PlannedFailover", in: workflows.PlannedInput{Runbook: p.Workload.Name, To: "west", Reason: "exercise", By: setup.Requester, Override: "exercise"}})
	home, _ := p.travel(journey{page: comingBack, id: "home", flow: "Failback", in: p.home(workflows.FailbackInput{}), points: chosen(returning)})
	p.arrived(home, "east", 3)
	require.Equal(t, "true", p.bench.configs(t)["acl.sync.enable"])
	if *record || *full {
		p.travel(journey{page: planned, id: "away-again", flow: "PlannedFailover", in: workflows.PlannedInput{Runbook: p.Workload.Name, To: "west", Reason: "exercise", By: setup.Requester, Override: "exercise"}})
		p.travel(journey{page: comingBack, id: "home-again", flow: "Failback", in: p.home(workflows.FailbackInput{}), keep: "failback-after-a-planned-failover"})
	}
	require.NoError(t, p.Settle(ctx))
	v, err := p.Judge(ctx, "east", "")
	require.NoError(t, err)
	require.True(t, v.Well(), "%s", v)
}

// watched has the workload's positions sampled for a while.
func (p *play) watched(ctx context.Context) {
	p.t.Helper()
	run, err := p.Temporal.ExecuteWorkflow(ctx, sdk.StartWorkflowOptions{ID: "watch/" + p.Workload.Name, TaskQueue: setup.TaskQueue, WorkflowTaskTimeout: activities.TaskTimeout},
		"Watch", workflows.WatchInput{Runbook: p.Workload.Name, Every: time.Second})
	require.NoError(p.t, err)
	require.NoError(p.t, story.Until(ctx, "the first round of Watch", func() (bool, error) {
		answer, err := p.Temporal.QueryWorkflow(ctx, run.GetID(), "", workflows.QueryStatus)
		if err != nil {
			return false, err
		}
		var s workflows.WatchStatus
		err = answer.Get(&s)
		return len(s.Links) > 0, err
	}))
	require.NoError(p.t, p.Temporal.CancelWorkflow(ctx, run.GetID(), ""))
	require.Error(p.t, run.Get(ctx, nil), "it ends when it is cancelled")
	p.keep(ctx, run.GetID(), "watch")
}
