package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/tree"
	"switchback/replication"
	"switchback/replication/mirrormaker"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// The traps of MirrorMaker 2, on real brokers and a real Kafka Connect.

// withoutCheckpoints looks for groups once, when it is made: those that begin later have no checkpoint for ten minutes, and
// nobody syncs their offsets.
func withoutCheckpoints(o *setup.Options) {
	connector("checkpoint", map[string]string{"refresh.groups.interval.seconds": "600", "emit.checkpoints.interval.seconds": "600"})(o)
}

// connector changes settings of the lab's connectors whose name ends so.
func connector(kind string, settings map[string]string) func(*setup.Options) {
	return func(o *setup.Options) {
		before := o.EditConnector
		o.EditConnector = func(name string, config map[string]string) {
			if before != nil {
				before(name, config)
			}
			for key, value := range settings {
				if strings.HasSuffix(name, "."+kind) {
					config[key] = value
				}
			}
		}
	}
}

// refuses takes the mirror the right to write to a topic of west, as somebody does who mends grants, and returns how to
// give it back.
func (s *stage) refuses(t *testing.T, topic string) (back func()) {
	t.Helper()
	west := s.clusterAs(t, "west", "lab")
	deny := []replication.ACL{{ResourceType: replication.ResourceTopic, Pattern: replication.PatternPrefixed, Name: topic,
		Principal: "User:mm2-data", Host: replication.Anywhere, Operation: replication.OpWrite, Permission: replication.Deny}}
	require.NoError(t, west.CreateACLs(t.Context(), deny))
	return func() { t.Helper(); require.NoError(t, west.DeleteACLs(t.Context(), deny)) }
}

// plans is what a dry run finds, a line for each finding.
func (p *play) plans(kind string) (goes, sealProven bool, found string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	options := sdk.StartWorkflowOptions{TaskQueue: setup.TaskQueue, WorkflowTaskTimeout: activities.TaskTimeout}
	var findings []activities.Finding
	if kind == "planned" {
		var plan workflows.Plan
		run, err := p.Temporal.ExecuteWorkflow(ctx, options, "PlanFailover", workflows.PlannedInput{Runbook: p.Workload.Name, To: "west"})
		require.NoError(p.t, err)
		require.NoError(p.t, run.Get(ctx, &plan))
		goes, sealProven, findings = plan.GoesIfNow, plan.Preflight.SealProven, plan.Preflight.Findings
	} else {
		var plan workflows.UnplannedPlan
		run, err := p.Temporal.ExecuteWorkflow(ctx, options, "PlanUnplannedFailover", workflows.UnplannedInput{Runbook: p.Workload.Name, To: "west"})
		require.NoError(p.t, err)
		require.NoError(p.t, run.Get(ctx, &plan))
		goes, sealProven, findings = plan.GoesIfNow, plan.Assessment.SealProven, plan.Assessment.Findings
	}
	for _, f := range findings {
		found += fmt.Sprintf("%s %s: %s %s\n", f.Level, f.Check, f.Means, f.Do)
	}
	return goes, sealProven, found
}

// claimed waits until the mirror's own claim of a partition, which Connect stores, is so many records beyond what west has.
func (s *stage) claimed(t *testing.T, link *mirrormaker.Link, on replication.Partition, beyond int64) {
	t.Helper()
	west := s.clusterAs(t, "west", "lab")
	eventually(t, "Connect to count refused records as mirrored", func() (bool, error) {
		ends, err := west.Ends(t.Context(), []string{on.Topic})
		if err != nil {
			return false, err
		}
		mirrors, err := link.Mirrors(t.Context())
		for _, m := range mirrors {
			for _, e := range ends {
				if m.Topic == on.Topic && e.Partition == on && m.Fetched[on.Partition] >= e.HighWatermark+beyond {
					return true, err
				}
			}
		}
		return false, err
	})
}

// Connect skips what the target refuses and counts it as mirrored. A planned run is forbidden. A disaster does not ask:
// what was lost is found by comparing records, when the old cluster is back, and is more than Connect's own count. There
// was no checkpoint of any group either: each begins where the runbook says, and is named.
func TestP17_WhatConnectCountsAsMirroredIsNotBelieved(t *testing.T) {
	s := onMirrors(t, withoutCheckpoints, connector("source", map[string]string{"errors.tolerance": "all"}),
		edited(soonGivenUp))
	p, link := s.play(t, "orders"), s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	p.flows("east")
	goes, _, found := p.plans("planned")
	require.False(t, goes)
	require.Contains(t, found, "problem errors.tolerance: errors.tolerance=all: a record that the target refuses is counted as mirrored and lost")

	s.refuses(t, "orders.01")
	on := replication.Partition{Topic: "orders.01"}
	s.claimed(t, link, on, 10)
	run := p.unplanned("skipped", p.dies("east"))
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	said := strings.Join(out.Deviations, "\n")
	for _, group := range p.Workload.Groups() {
		require.Contains(t, said, "group "+group+", orders.00-0")
	}
	require.Contains(t, said, "no checkpoint: set to the start, as the runbook says")
	p.flows("west")
	s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
	fenced := p.fenced("east")
	v := p.wellAfter("west", out)
	require.GreaterOrEqual(t, fenced.Loss.AtLeast, int64(10), "what was skipped is lost, and counted")
	require.Equal(t, int64(v.Aftermath.Stranded), fenced.Loss.AtLeast)
	t.Log(v)
}

// A Connect worker dies with records on the target that it has not committed, and its successor writes them once more until
// it is sealed. How far the mirror got is found from the records, and a mirror that goes on there repeats nothing.
func TestP18_TheBoundaryIsFoundBehindAReplay(t *testing.T) {
	s := onConnect(t)
	link, west := s.mirrorMaker(t, mirrormaker.PolicyIdentity), s.cluster(t, "west")
	topic := s.TopicNames("west", small("orders"))[0]
	ends := func() (total int64) {
		t.Helper()
		list, err := west.Ends(t.Context(), []string{topic})
		require.NoError(t, err)
		for _, e := range list {
			total += e.HighWatermark
		}
		return total
	}
	has := func(n int64) {
		t.Helper()
		eventually(t, fmt.Sprintf("west to have %d records", n), func() (bool, error) { return ends() >= n, fmt.Errorf("it has %d", ends()) })
	}
	s.produce(t, "east", topic, 20)
	has(20)
	connect := setup.ConnectProcess("west")
	file := filepath.Join(s.Dir(), "connect", "west", "connect.properties")
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	seldom := strings.Replace(string(raw), "offset.flush.interval.ms=1000", "offset.flush.interval.ms=600000", 1)
	require.NotEqual(t, string(raw), seldom)
	require.NoError(t, os.WriteFile(file, []byte(seldom), 0o600))
	s.change(t, connect, func(*tree.Spec) {}) // ends well: what it wrote is committed
	s.produce(t, "east", topic, 40)
	has(60)
	require.NoError(t, s.Kill(connect))
	s.does(t, "start Connect again", func(ctx context.Context) error { return s.StartAgain(ctx, connect) })
	has(61) // the successor has begun to write them again

	seal := link.Denials(replication.DenyTopics, []string{topic})
	require.NoError(t, west.CreateACLs(t.Context(), seal))
	_, err = link.Stop(t.Context(), replication.Promote, []string{topic})
	require.NoError(t, err)
	settles(t, link, replication.MirrorStopped)
	sealed := ends()
	require.Greater(t, sealed, int64(60))
	list, err := west.Ends(t.Context(), []string{topic})
	require.NoError(t, err)
	mirrors := settles(t, link, replication.MirrorStopped)
	var marks []replication.Mark
	for _, e := range list {
		i := slices.IndexFunc(mirrors, func(m replication.Mirror) bool { return m.Topic == topic })
		marks = append(marks, replication.Mark{Boundary: replication.Unknown, Position: replication.Position{Partition: e.Partition,
			SourceEnd: replication.Unknown, Replicated: mirrors[i].Fetched[e.Partition.Partition], TargetEnd: e.HighWatermark}})
	}
	bounds, err := link.Boundaries(t.Context(), marks)
	require.NoError(t, err)
	next := map[replication.Partition]int64{}
	for _, b := range bounds {
		require.EqualValues(t, 30, b.Boundary, "%s: all of the source was written once, whatever was written again", b.Name())
		next[b.Partition] = b.Boundary
	}
	require.NoError(t, link.PatchOffsets(t.Context(), next))
	require.NoError(t, west.DeleteACLs(t.Context(), seal))
	require.NoError(t, link.Resume(t.Context()))
	s.produce(t, "east", topic, 2)
	has(sealed + 2)
	settles(t, link, replication.MirrorActive)
	require.Equal(t, sealed+2, ends(), "nothing is written once more")
}

// The principal that writes the mirror's records is a super user, whom no ACL holds. Nobody takes it for sealed: a plan,
// which changes nothing, cannot find it out and says so; a run does, and with a source that has fallen silent it waits for
// the connectors' stop, which it would not do behind a seal that can be trusted.
func TestP10_ASuperUserMirrorIsWaitedFor(t *testing.T) {
	s := onMirrors(t, func(o *setup.Options) {
		o.EditBroker = func(broker *tree.Spec) error {
			broker.Args = append(broker.Args, "--override", "super.users=User:ANONYMOUS;User:lab;User:mm2-data")
			return nil
		}
	})
	p, link := s.play(t, "orders"), s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	waits := "the run waits until the connectors have stopped before it switches"
	for _, kind := range []string{"planned", "unplanned"} {
		goes, proven, found := p.plans(kind)
		require.True(t, goes, found)
		require.False(t, proven)
		require.Contains(t, found, "warning seal: whether ACLs hold User:mm2-data (data) could not be found out: ")
		require.Contains(t, found, waits)
	}

	thaw := s.freeze(t, "kafka-east") // connections stand and nothing answers
	run := p.unplanned("no-seal", time.Now())
	p.reaches(run, string(workflows.Approve))
	status, err := p.Status(t.Context(), run.GetID())
	require.NoError(t, err)
	seal := slices.IndexFunc(status.Findings, func(f activities.Finding) bool { return f.Check == "seal" })
	require.GreaterOrEqual(t, seal, 0)
	require.Contains(t, status.Findings[seal].Means, "User:mm2-data (data) is a super user of west, whom no ACL holds: no seal is possible, and "+waits)
	p.approved(run)
	s.does(t, "hear that the stop is waited for", func(ctx context.Context) error {
		_, err := p.Waits(ctx, run.GetID(), func(said string) bool { return strings.Contains(said, "mirrors to stop") })
		return err
	})
	require.Contains(t, strings.Join(p.denials("west"), "\n"), "for User:mm2-data", "the seal stands, for what it is worth")
	status, err = p.Status(t.Context(), run.GetID())
	require.NoError(t, err)
	require.Equal(t, string(workflows.FailOver), status.Phase)
	entry, err := p.Lab.Discovery(p.Workload.Name)
	require.NoError(t, err)
	defer entry.Close()
	state, err := entry.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, "east", state.Cluster, "nobody is sent to west while the mirror may write there")
	thaw() // the connectors need a minute otherwise
	out := p.ends(run, workflows.Completed)
	settles(t, link, replication.MirrorStopped)
	steps := p.report(out).Steps
	at := slices.IndexFunc(steps, func(s report.Step) bool { return s.Name == string(workflows.FailOver) })
	require.Contains(t, steps[at].Result, "a seal alone could not be trusted")
	p.flows("west")
	p.fencedOnce("east")
	t.Log(p.wellAfter("west", out))
}

// An exactly-once mirror has a transaction open when its source dies, and its worker stands still from the moment of the
// decision on: nobody would ever end it, and no consumer that reads committed records would get past it. The run names it
// and aborts it.
func TestP19_TheMirrorsOpenTransactionIsEnded(t *testing.T) {
	s := onMirrors(t, func(o *setup.Options) { o.ExactlyOnce = true }, setup.Impatient, edited(soonGivenUp))
	p, west := s.play(t, "orders"), s.clusterAs(t, "west", "lab")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	ends := func() []replication.Ends {
		t.Helper()
		ends, err := west.Ends(t.Context(), p.Workload.TopicNames())
		require.NoError(t, err)
		return ends
	}
	s.settings(t, "east-west.source", map[string]string{ // what is copied from now on is committed in ten minutes
		"transaction.boundary": "interval", "transaction.boundary.interval.ms": "600000", "producer.override.transaction.timeout.ms": "600000",
	})
	since, same := map[string]int64{}, 0
	eventually(t, "the mirror to have a transaction open in every partition that does not end", func() (bool, error) {
		now := map[string]int64{}
		for _, e := range replication.Held(nil, ends()) {
			now[e.Name()] = e.LastStable
		}
		if same++; len(now) < p.Workload.Topics*p.Workload.Partitions || !maps.Equal(now, since) {
			since, same = now, 0
		}
		return same > 20, fmt.Errorf("open since %v", now)
	})
	run := p.unplanned("open-transaction", p.dies("east"))
	p.reaches(run, string(workflows.Approve))
	mirrored := ends()
	require.NotEmpty(t, replication.Held(nil, mirrored), "its source is gone, and so is what would have ended it")
	approve := func(by string) {
		t.Helper()
		_, err := p.Order(t.Context(), run.GetID(), workflows.UpdateApprove, workflows.Order{By: by, Reason: "test"})
		require.NoError(t, err)
	}
	approve(setup.Approvers[0])
	thaw := s.freeze(t, setup.ConnectProcess("west"))
	approve(setup.Approvers[1])
	p.flows("west") // its consumers read committed records
	require.Empty(t, replication.Held(mirrored, ends()), "LSO = HW of what was mirrored")
	thaw()
	out := p.ends(run, workflows.Completed)
	said := strings.Join(out.Deviations, "\n")
	require.Contains(t, said, "an open transaction that the mirror had brought was aborted: transactional id connect-west-east-west.source-")
	s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
	p.fenced("east")
	t.Log(p.wellAfter("west", out))
}

// opens begins a transaction on a cluster that writes a record and does not end.
func (s *stage) opens(t *testing.T, cluster, id, topic string) *kgo.Client {
	t.Helper()
	c, err := s.Kafka(cluster, "lab", kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.BeginTransaction())
	require.NoError(t, c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte(id), Value: ledger.EncodeValue(1, 40)}).FirstErr())
	return c
}

// A transaction of nobody's client that Switchback may not end is named, and the run comes back.
func TestP09_ATransactionThatNobodyMayEndIsNamed(t *testing.T) {
	s := onMirrors(t, approvals(1), edited(func(b *runbooks.Runbook) {
		b.Objectives.RTO = runbooks.Duration(30 * time.Second) // what is left of it cuts the wait for quiet
	}))
	p := s.play(t, "orders")
	p.flows("east")
	run := p.start("never-ends")
	p.reaches(run, string(workflows.Approve))
	admin := s.admin(t, "east")
	deny := kadm.NewACLs().TransactionalIDs("forgotten").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpWrite).Deny("User:switchback").DenyHosts("*")
	_, err := admin.CreateACLs(t.Context(), deny)
	require.NoError(t, err)
	writer := s.opens(t, "east", "forgotten", "orders.00")
	p.order(run, workflows.UpdateApprove)
	back := p.ends(run, workflows.RolledBack)
	require.NoError(t, writer.EndTransaction(t.Context(), kgo.TryAbort))
	_, err = admin.DeleteACLs(t.Context(), deny)
	require.NoError(t, err)
	require.Contains(t, back.Sentence, "a transaction is open since offset")
	require.Contains(t, back.Sentence, "transactional id forgotten")
	p.flows("east")
}

// Tasks of the mirror that have failed are a problem in preflight. A run that meets them in its drain says so, and comes back.
func TestAMirrorWhoseTasksFailIsNotGoneOver(t *testing.T) {
	s := onMirrors(t, approvals(1), edited(func(b *runbooks.Runbook) { b.Budgets.Drain = runbooks.Duration(15 * time.Second) }))
	p, link := s.play(t, "orders"), s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	p.flows("east")
	run := p.start("mirror-fails")
	p.reaches(run, string(workflows.Approve))
	back := s.refuses(t, "orders.01")
	settles(t, link, replication.MirrorFailed)
	goes, _, found := p.plans("planned")
	require.False(t, goes)
	require.Contains(t, found, "problem link: link east-west.source is not healthy: task ")
	require.Contains(t, found, "of connector east-west.source is FAILED: ")
	require.Contains(t, found, "mend the link first")
	p.order(run, workflows.UpdateApprove)
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "orders.01-")
	require.Contains(t, out.Sentence, "TopicAuthorizationException")
	back()
	require.Empty(t, p.denials("east"))
	require.Empty(t, p.denials("west"))
	p.flows("east")
	require.True(t, p.clean("east", out).Agrees)
}
