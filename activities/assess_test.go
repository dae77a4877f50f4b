package activities

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/replication"
	"switchback/runbooks"
)

func (w *world) assessInput() AssessInput {
	return AssessInput{Run: w.guard().Run, Runbook: w.runbook(), Route: w.route(), Epoch: w.epoch}
}

func (w *world) assess() (AssessResult, error) {
	return run[AssessResult](w, (*Assess)(nil).Assess, w.assessInput())
}

// problems of an assessment, as check: means.
func problems(out AssessResult) (list []string) {
	for _, f := range out.Findings {
		if f.Level == LevelProblem {
			list = append(list, f.Check+": "+f.Means)
		}
	}
	return list
}

func TestAssess(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.find()
	w.watched(time.Now().Add(-time.Minute))
	w.lose("east")
	in := w.assessInput()
	in.Run.FirstRunID, in.Outage = "r2", time.Now().Add(-30*time.Second)
	out, err := run[AssessResult](w, (*Assess)(nil).Assess, in)
	require.NoError(t, err)
	require.Empty(t, problems(out))
	require.False(t, out.From.Answers)
	require.Contains(t, out.From.Why, "connection refused")
	require.Equal(t, Reach{Site: "west", Answers: true, Brokers: 3}, out.To)
	require.Equal(t, []int{2, 3, 1}, []int{out.Topics, out.Partitions, out.Groups})
	require.True(t, out.StopIsFinal)
	require.True(t, out.SealProven, "nothing is to be proven where no ACL is the seal")
	require.Equal(t, "east-west", out.LinkName)
	require.Equal(t, [2]int64{1, replication.Unknown}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})
	require.Positive(t, out.Loss.Bytes)
	require.WithinDuration(t, time.Now().Add(-time.Minute), out.Sampled, 10*time.Second)
	require.Contains(t, strings.Join(out.Clients, "\n"), "checkout tolerates no loss: what it wrote last may be among what is lost (at least 1 records, open)")
	require.Contains(t, strings.Join(out.Clients, "\n"), "billing tolerates no duplicates: its groups (billing) go on where they were last known on west")

	scope, err := records{to: w.as("west", admin).Records(MarksTopic)}.scope(context.Background(), in.Run.ID())
	require.NoError(t, err)
	require.Equal(t, []string{"orders", "payments"}, scope.TopicNames())
	require.Equal(t, []string{"billing"}, scope.Alive, "a client of the runbook reads with it")
	require.Equal(t, map[string][]string{"billing": {"orders", "payments"}}, scope.Reads, "as Watch saw it last")
}

// A dry run writes nothing anywhere.
func TestAssessDry(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	in := w.assessInput()
	in.DryRun = true
	out, err := run[AssessResult](w, (*Assess)(nil).Assess, in)
	require.NoError(t, err)
	require.Empty(t, problems(out))
	require.Empty(t, w.trace)
}

// Nobody has ever looked: the loss is open, and nobody guesses.
func TestP21_WithoutASampleNothingIsBounded(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	out, err := w.assess()
	require.NoError(t, err)
	require.Equal(t, [3]int64{0, replication.Unknown, replication.Unknown}, [3]int64{out.Loss.AtLeast, out.Loss.AtMost, out.Loss.Estimate})
	require.Contains(t, out.Loss.Why, "no sample shows both ends")
}

// A source that answers is no reason for an unplanned failover, and no reason against one.
func TestAssessWhileTheSourceAnswers(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.find()
	out, err := w.assess()
	require.NoError(t, err)
	require.Empty(t, problems(out))
	require.True(t, out.From.Answers)
	require.Equal(t, 3, out.From.Brokers)
	require.Equal(t, [2]int64{1, replication.Unknown}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})
}

// Nothing of the target's may be in doubt; of the source's, everything.
// The source answers and is fenced already, by the planned page of an escalated run or by a run that died: the fence is no
// reason to believe that the clients need no grants.
func TestAssessBehindAFence(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.find()
	_, err := attempts[FenceResult](w, (*Fences)(nil).Raise, w.fenceInput())
	require.NoError(t, err)
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), replication.GroupFence([]string{"billing"})))
	out, err := run[AssessResult](w, (*Assess)(nil).Assess, w.assessInput())
	require.NoError(t, err)
	require.True(t, out.From.Answers)
	require.Empty(t, problems(out))
}

func TestAssessFindsWhatForbidsTheRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(w *world)
		want  string // of a problem; empty: none
	}{
		"the target is away":        {func(w *world) { w.away["west"] = errDown }, "reachability: open west"},
		"discovery is away":         {func(w *world) { w.entries["consul.west"].down = errDown }, "reachability: read discovery entry"},
		"a client cannot log in":    {func(w *world) { w.passwords["kafka/west/checkout"] = "old" }, "client credentials: checkout cannot log in to west"},
		"a fence was copied":        {func(w *world) { w.deny("west", "orders") }, "DENY on the target: 1 operations"},
		"the link refuses":          {func(w *world) { w.link.refuse["orders"], w.link.refuse["payments"] = "no", "no" }, "mirrors: the link would fail over no topic"},
		"nothing is mirrored":       {func(w *world) { clear(w.link.mirrors) }, "topics: link east-west mirrors no topic"},
		"the workload is elsewhere": {func(w *world) { w.entries["consul.west"].state.Cluster = "north" }, "discovery: discovery says"},
		"one mirror has failed": {func(w *world) {
			w.link.set("orders", replication.MirrorFailed, "FAILED")
			w.link.refuse["orders"] = "failed"
		}, ""},
		"the link is unhealthy":               {func(w *world) { w.link.healthy = false }, ""},
		"mirrors say that the source is gone": {func(w *world) { w.link.set("orders", replication.MirrorSourceLost, "SOURCE_UNAVAILABLE") }, ""},
		"a client does not answer":            {func(w *world) { w.entries["consul.west"].state.Clients = map[string]ClientEntry{} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			c.spoil(w)
			out, err := w.assess()
			require.NoError(t, err, "what is wrong is a finding")
			if c.want == "" {
				require.Empty(t, problems(out))
				return
			}
			require.NotEmpty(t, problems(out))
			require.Contains(t, strings.Join(problems(out), "\n"), c.want)
			require.LessOrEqual(t, w.took("west.Put"), 1, "the write that proves that records can be kept, and no scope for a run that may not go")
		})
	}
}

// A mirror that may not write to the target any more is no reason to stay: it is about to be stopped, and a run that died may
// have sealed it. Before a planned run, which waits for it, that is another matter.
func TestP10_AMirrorWithoutGrantsHoldsUpNoDisaster(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	in := w.assessInput()
	in.Route.Link = runbooks.Link{From: "east", To: "west", MirrorMaker: &runbooks.MirrorMaker{Principals: runbooks.Principals{Data: "User:mm2", Admin: "User:mm2"}}}
	out, err := run[AssessResult](w, (*Assess)(nil).Assess, in)
	require.NoError(t, err)
	require.Empty(t, problems(out))

	w = newWorld(t)
	require.Contains(t, found(w.preflight(mirrorMaker), "own grants", LevelProblem), "User:mm2: WRITE on topic orders")
}

// deny puts the fence of one topic on a cluster.
func (w *world) deny(site, topic string) {
	require.NoError(w.t, w.as(site, admin).CreateACLs(context.Background(), replication.TopicFence([]string{topic})))
}

func TestP38_AClientThatToleratesLossIsNotNamed(t *testing.T) {
	t.Parallel()
	s := &assessment{survey: &survey{in: PreflightInput{Route: Route{To: Site{Name: "west"}}, Runbook: runbooks.Runbook{Clients: []runbooks.Client{
		{Name: "hardy", Role: runbooks.RoleBoth, Tolerates: runbooks.Tolerates{Loss: true, Duplicates: true}}, {Name: "picky", Role: runbooks.RoleConsumer, Tolerates: runbooks.Tolerates{Duplicates: true}}}}}}}
	require.Equal(t, []string{"picky tolerates no loss: it will never read what is lost (at least 2 records, open)"}, s.clients(replication.Loss{AtLeast: 2, AtMost: replication.Unknown, Estimate: replication.Unknown}))
	require.Empty(t, s.clients(replication.Loss{}), "nothing is lost, for certain")
}
