package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// afterADisaster is a workload that was moved to west when east died with records that were not mirrored. East is back and
// fenced.
func (s *stage) afterADisaster(t *testing.T) *play {
	t.Helper()
	p, _ := s.loses(t)
	s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
	fenced := p.fenced("east")
	require.Positive(t, fenced.Loss.AtLeast, "nothing is stranded, so there is nothing to show")
	return p
}

// appending is a runbook whose stranded records are appended, and nobody is asked.
var appending = edited(func(b *runbooks.Runbook) { b.Recovery = &runbooks.Recovery{Default: "append"} })

// treated is a runbook that says what becomes of stranded records, after one approval.
func treated(r runbooks.Recovery) func(*setup.Options) {
	return edited(func(b *runbooks.Runbook) {
		b.Recovery, b.Gates.Recovery = &r, runbooks.Gate{Approvals: 1, Expiry: runbooks.Duration(time.Hour)}
	})
}

func (p *play) recovers(id string, in workflows.RecoverInput) sdk.WorkflowRun {
	p.t.Helper()
	run, err := p.Recover(p.t.Context(), id, in)
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.describe(id)
		}
	})
	p.stage.does(p.t, "approve "+id, func(ctx context.Context) error { return p.ApproveRecovery(ctx, id) })
	return run
}

// accounted has the ledger judge a recovery's report.
func (p *play) accounted(out workflows.Result) report.LaggedData {
	p.t.Helper()
	v := p.judge("west", out.Report)
	p.t.Log(v)
	require.Empty(p.t, v.Disagreements, "%s", v)
	r := p.report(out)
	require.Equal(p.t, report.KindRecovery, r.Kind)
	require.EqualValues(p.t, v.Recovered.Stranded, r.LaggedData.Total.Recovered+r.LaggedData.Total.Left+r.LaggedData.Total.Superseded)
	return *r.LaggedData
}

// Each acknowledged record is on the new cluster exactly once, whatever died on the way.
func TestRecoveryByAppendBringsEveryRecordBackOnce(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]bool{"undisturbed": false, "the worker is killed in its middle": true} {
		t.Run(name, func(t *testing.T) {
			points := story.Points(t.TempDir())
			s := up(t, points.Obeyed, treated(runbooks.Recovery{Default: "append"}))
			p := s.afterADisaster(t)

			var plan workflows.RecoveryPlan
			s.operator(t).json(0, &plan, "plan", "recover", "orders")
			require.True(t, plan.GoesIfNow)
			require.Positive(t, plan.Stranded.Total.Recovered)

			if killed {
				require.NoError(t, points.Hold("CopyTails/middle"))
			}
			run := p.recovers("bring-back", workflows.RecoverInput{})
			if killed {
				s.does(t, "a copy is in its middle", func(ctx context.Context) error { return points.Held(ctx, "CopyTails/middle") })
				require.NoError(t, s.Kill("worker"))
				require.NoError(t, points.GoOn("CopyTails/middle"))
				s.does(t, "start the worker again", func(ctx context.Context) error { return s.StartAgain(ctx, "worker") })
			}
			out := p.ends(run, workflows.Completed)
			s.does(t, "the groups read everything", func(ctx context.Context) error { return p.Settle(ctx) })
			d := p.accounted(out)
			require.True(t, d.Finished)
			require.Equal(t, plan.Stranded.Total.Recovered, d.Total.Recovered)
			v := p.judge("west", "")
			require.Zero(t, v.Lost, "%s", v)
			require.Zero(t, v.NeverRead, "%s", v)
			require.Zero(t, v.TwoClusters, "%s", v)
		})
	}
}

// The other ways: one topic is put aside, one is rewound, one is only counted. Nothing of them comes into the topics.
func TestRecoveryByDivertRewindAndReport(t *testing.T) {
	s := up(t, treated(runbooks.Recovery{Default: "report", Topics: map[string]string{"orders.00": "divert", "orders.01": "rewind"}}))
	p := s.afterADisaster(t)
	for _, c := range p.Workload.Clients {
		if c.Role == runbooks.RoleConsumer {
			reader, err := s.ReaderSpec(p.Workload, c, "east", c.Name+"-reader", "orders.01")
			require.NoError(t, err)
			s.does(t, "start a reader that waits to be let in", func(ctx context.Context) error { return s.Start(ctx, reader) })
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.tell("billing-reader")
		}
	})
	run := p.recovers("three-ways", workflows.RecoverInput{ReadFor: runbooks.Duration(time.Minute)})
	out := p.ends(run, workflows.Completed)
	for _, c := range p.Workload.Clients {
		if c.Role == runbooks.RoleConsumer {
			p.readThere(out, c)
		}
	}
	d := p.accounted(out)
	require.False(t, d.Finished, "what is left is kept")
	ways := map[string]report.LaggedTopic{}
	for _, topic := range d.Topics {
		ways[topic.Topic] = topic
		require.Equal(t, topic.Stranded, topic.Sum(), topic.Topic)
	}
	require.Equal(t, "divert", ways["orders.00"].Treatment)
	require.Positive(t, ways["orders.00"].Recovered)
	require.Positive(t, ways["orders.01"].Left)
	require.Zero(t, ways["orders.01"].Recovered)

	// What was rewound refuses copies from then on (P31); nothing is doubled by asking.
	again := p.recovers("append-now", workflows.RecoverInput{Default: "append"})
	second := p.ends(again, workflows.Completed)
	require.Contains(t, second.Sentence, "left")
	now := p.accounted(second)
	for _, topic := range now.Topics {
		if topic.Topic == "orders.01" {
			require.Zero(t, topic.Recovered)
		}
	}
	require.WithinDuration(t, time.Now(), *now.Marked, time.Hour)
}

// readThere checks a reader on the cluster that was left: it has read each record that was rewound there once, and its group is
// closed again.
func (p *play) readThere(out workflows.Result, c setup.Client) {
	p.t.Helper()
	d := p.report(out).LaggedData
	i := slices.IndexFunc(d.Topics, func(t report.LaggedTopic) bool { return t.Topic == "orders.01" })
	l, err := ledger.Read(p.Dir)
	require.NoError(p.t, err)
	read := map[string]int{}
	for _, seen := range l.Seen {
		if seen.Instance == c.Name+"-reader" {
			require.Equal(p.t, "east", seen.Cluster)
			read[fmt.Sprintf("%s-%d/%d", seen.Topic, seen.Partition, seen.Offset)]++
		}
	}
	require.Positive(p.t, d.Topics[i].Stranded)
	require.Len(p.t, read, int(d.Topics[i].Stranded))
	for at, times := range read {
		require.Equal(p.t, 1, times, at)
	}
	require.Contains(p.t, p.report(out).Standing, fmt.Sprintf("of what was rewound on east, group %s has read %d of %d offsets", c.Group, len(read), len(read)))
	require.Subset(p.t, p.denials("east"), p.fence(), "topics and groups are fenced as before")
	entry, err := p.Lab.Discovery(p.Workload.Name)
	require.NoError(p.t, err)
	defer entry.Close()
	state, err := entry.Read(p.t.Context())
	require.NoError(p.t, err)
	require.Equal(p.t, "west", state.Cluster)
	require.Equal(p.t, "stop", state.Keys["recovery/east/clients/"+c.Name+"/desired"].Value)
	require.NotContains(p.t, state.Keys, "recovery/east/bootstrap.servers")
}
