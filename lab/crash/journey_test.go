//go:build crash

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/workflows"
)

// journey is a run that is no failover: a recovery, a way home, protection. The worker dies in it many times.
type journey struct {
	page   page
	id     string // of the run; the workload's name is put behind it
	flow   string
	in     any
	points []string                                      // where the worker is killed, one after the other
	meets  func(ctx context.Context, p *play, id string) // what happens to the run besides; nil for nothing
	want   string                                        // outcome; completed when empty
	keep   string                                        // the name of its history; empty: it is not kept
}

// travel plays it. After each death every acknowledged record is still somewhere (I9), and the run ends as it would have
// without them (I6): who calls it looks at what stands.
func (p *play) travel(j journey) (r workflows.Result, took time.Duration) {
	p.t.Helper()
	p.page = j.page
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*patience)
	defer cancel()
	var lines []*line
	for _, at := range j.points {
		lines = append(lines, results.line(p.t, scenario{page: j.page, point: at}))
	}
	if len(j.points) > 0 {
		p.bench.order(p.t, "kill", j.points[0], 0)
	} else if j.page.journey() {
		lines = append(lines, results.line(p.t, scenario{page: j.page}))
	}
	begun := time.Now()
	run, err := p.Start(ctx, j.id+"-"+p.Workload.Name, j.flow, j.in)
	require.NoError(p.t, err)
	p.run = run
	if j.meets != nil {
		j.meets(ctx, p, run.GetID())
	}
	for i, at := range j.points {
		p.met(ctx, at)
		_, err := p.bench.Wait(ctx, "worker")
		require.NoError(p.t, err)
		require.NoError(p.t, p.bench.goOn(at))
		if i+1 < len(j.points) {
			p.bench.order(p.t, "kill", j.points[i+1], 0) // the run may come to it as soon as a worker is there
		}
		p.bench.again(p.t, "worker")
		lines[i].step = p.standsAt(ctx)
		looking, cancel := context.WithTimeout(ctx, 4*patience)
		require.NoError(p.t, p.Somewhere(looking), "every record, after the death at %s", at)
		cancel()
	}
	if j.page == protecting {
		require.NoError(p.t, run.Get(ctx, nil))
		r.Outcome = workflows.Completed
	} else {
		r, err = p.Ends(ctx, run)
		require.NoError(p.t, err, "how the run ended")
	}
	took = time.Since(begun)
	want := j.want
	if want == "" {
		want = workflows.Completed
	}
	require.Equal(p.t, want, r.Outcome, r.Sentence)
	if j.keep != "" {
		p.keep(ctx, run.GetID(), j.keep)
	}
	seconds := took.Seconds()
	for _, l := range lines {
		l.outcome, l.window = r.Outcome, &seconds
	}
	return r, took
}

// met waits until the worker was killed at a point; a run that ends without coming there has not been tested.
func (p *play) met(ctx context.Context, at string) {
	p.t.Helper()
	require.NoError(p.t, story.Until(ctx, "the worker to reach "+at, func() (bool, error) {
		if _, err := os.Stat(p.bench.file(at) + ".reached"); err == nil {
			return true, nil
		}
		now, err := p.Temporal.DescribeWorkflowExecution(ctx, p.run.GetID(), "")
		if err == nil && now.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			require.Fail(p.t, "the run ended and did not come to "+at)
		}
		return false, errors.Join(err, errors.New("the run goes on"))
	}))
}

// standsAt is the step at which the new worker finds the run.
func (p *play) standsAt(ctx context.Context) (step string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = story.Until(ctx, "the run's own word", func() (bool, error) { step = p.at(ctx); return step != "?", nil })
	return step
}

// home has the workload taken home.
func (p *play) home(in workflows.FailbackInput) workflows.FailbackInput {
	in.Runbook, in.Reason, in.By, in.Override = p.Workload.Name, "exercise", setup.Requester, "exercise"
	return in
}

// dead is a lab whose east was lost under several workloads at once, with records that nobody else had; they were moved to west,
// and east is back and fenced.
func dead(t *testing.T, b *bench, workloads ...setup.Workload) []*play {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*patience)
	defer cancel()
	plays := b.stage(t, workloads...)
	for _, p := range plays {
		p.page = forsaken
		require.NoError(t, p.flows(ctx, "east", time.Time{}), "traffic on east")
		require.NoError(t, p.HandedOver(ctx, "east", "west"))
		require.NoError(t, b.HoldUp(ctx, p.Workload))
	}
	for _, p := range plays {
		require.NoError(t, p.flows(ctx, "east", time.Now()), "traffic that nobody mirrors")
	}
	gone, err := plays[0].Lose("east")
	require.NoError(t, err)
	for _, p := range plays { // all at once
		p.gone = gone
		p.start(ctx)
	}
	for _, p := range plays {
		require.NoError(t, p.approved())
		result, err := p.Ends(ctx, p.run)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
		require.NoError(t, p.flows(ctx, "west", time.Now()), "traffic on west after the run")
	}
	require.NoError(t, plays[0].BringBack(ctx, "east"))
	for _, p := range plays {
		require.NoError(t, p.Temporal.SignalWorkflow(ctx, "fence/"+p.Workload.Name+"/east", "", workflows.SignalSwitched, p.switched(ctx)))
	}
	for _, p := range plays {
		p.closes(ctx, "east")
	}
	return plays
}

// arrived says that a way home has left what each one leaves: the workload on a cluster at an epoch, the other one mirrors it, no
// ACL of ours stands, nobody holds anything, and no fence was copied to where other workloads are (P5).
func (p *play) arrived(r workflows.Result, on string, epoch int64) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*patience)
	defer cancel()
	require.NoError(p.t, p.flows(ctx, on, time.Now()), "traffic on %s after the run", on)
	s := p.look(ctx, r)
	s.ACLSync = "" // it is everybody's
	if run, _, ok := strings.Cut(s.SwitchedBy, "/home/"); ok {
		s.SwitchedBy = run // the planned run within it has a name of its own each time
	}
	require.Equal(p.t, on, s.Cluster)
	require.Equal(p.t, epoch, s.Epoch)
	for client, is := range s.Clients {
		require.Contains(p.t, []string{"run", fmt.Sprintf("running on %s at epoch %d, killed false", on, epoch)}, is, client)
	}
	require.Equal(p.t, map[string][]string{"east": {}, "west": {}}, s.Denied)
	require.True(p.t, strings.HasPrefix(s.Entity, fmt.Sprintf("active %s, epoch %d, held false, abandoned false, last outcome completed, unprotected false", on, epoch)), s.Entity)
	require.Contains(p.t, s.Link, "held false")
	for _, step := range s.Steps {
		require.Contains(p.t, step, "done", "a step")
	}
	if on == "east" {
		require.Equal(p.t, []string{"W.00 ACTIVE", "W.01 ACTIVE", "W.02 ACTIVE"}, s.Mirrors)
		require.Empty(p.t, s.Held, "names that the link still holds back")
	}
	p.same(r.Outcome, s)
}

// judgedWhole ends the traffic and has the ledger judge all that happened since the disaster: every record that was acknowledged
// lies where the workload is, once, and was read.
func (p *play) judgedWhole(on, brought string, r workflows.Result) ledger.Verdict {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*patience)
	defer cancel()
	require.NoError(p.t, p.SettleOn(ctx, on))
	round, err := p.Brought(ctx, "east", brought)
	require.NoError(p.t, err)
	require.Positive(p.t, round.Stranded)
	v, err := p.JudgeRoundtrip(ctx, on, r.Report, round)
	require.NoError(p.t, err)
	require.True(p.t, v.Well() && v.Agrees, "%s\n%s", v, strings.Join(v.Disagreements, "\n"))
	require.Zero(p.t, v.Lost)
	return v
}

// othersWork: no copy of a fence stands in the way of those that are elsewhere (P5).
func othersWork(t *testing.T, plays []*play, on string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	for _, p := range plays {
		for _, acl := range p.denied(ctx, on) {
			require.NotContains(t, acl, "User:*", "a copy of a fence on %s", on)
		}
		require.NoError(t, p.flows(ctx, on, time.Now()), "traffic of %s on %s", p.Workload.Name, on)
	}
}
