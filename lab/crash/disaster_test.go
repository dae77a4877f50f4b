//go:build crash

package crash

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/workflows"
)

var full = flag.Bool("full", false, "play every line and every outage, not only the chosen ones")

// lines are the kill points of an unplanned failover whose cluster is dead, in the order of its steps. Those without a star
// are played with -full only: what they do is as before or after their neighbour.
var lines = []string{
	"Snapshot/before", "Snapshot/after", "Read/before", "Read/after", // assess
	"Acquire/before", "Acquire/after", // runbook/<name>
	"Assess/before", "Assess/middle*", "Assess/after",
	"Acquire/before 1", "Acquire/after 1", // link/<name>
	"Suspend/before", "Suspend/middle*", "Suspend/after",
	"StopReachable/before", "StopReachable/middle*", "StopReachable/after*",
	"TellFencing/before", "TellFencing/after*", // FenceWhenReachable begins beside the run
	"RaiseReachable/before", "RaiseReachable/after", // its first attempt
	"FailOver/before*", "FailOver/before-sent*", "FailOver/middle*", "FailOver/after*",
	"KeepLastMarks/before", "KeepLastMarks/middle*", "KeepLastMarks/after",
	"HandOverLastKnown/before", "HandOverLastKnown/middle*", "HandOverLastKnown/written*", "HandOverLastKnown/after",
	"Settle/before", "Settle/after*",
	"Switch/before*", "Switch/before-sent", "Switch/middle*", "Switch/after*",
	"Start/before", "Start/middle*", "Start/after",
	"Start/before 1", "Start/middle 1", "Start/after 1",
	"Target/before", "Target/middle*", "Target/after",
	"Write/before", "Write/middle*", "Write/after*",
	"Release/before", "Release/after*", // link/<name>
	"Release/before 1", "Release/after 1*", // runbook/<name>
}

// late are those of FenceWhenReachable once the dead cluster answers again.
var late = []string{"WhenReachable/answered", "WhenReachable/fenced", "WhenReachable/kept", "WhenReachable/after", "Close/before", "Close/after"}

// chosen are the points that are played.
func chosen(points []string) []string {
	var list []string
	for _, at := range points {
		name, star := strings.CutSuffix(at, "*")
		if star || *full {
			list = append(list, name)
		}
	}
	return list
}

// perDisaster is how many workloads lose their cluster at once: killing it, bringing it back and waiting for its fence is
// what takes long.
const perDisaster = 8

func TestWorkerKilledInAnUnplannedRun(t *testing.T) {
	t.Parallel()
	points := append([]string{""}, chosen(lines)...) // the first one is undisturbed
	for i := range (len(points) + perDisaster - 1) / perDisaster {
		some := points[i*perDisaster : min((i+1)*perDisaster, len(points))]
		t.Run(fmt.Sprintf("disaster %02d", i+1), func(t *testing.T) {
			t.Parallel()
			b, workloads := take(t, len(some))
			d := &disaster{t: t, bench: b, page: forsaken}
			if i == 0 {
				d.after = late
			}
			d.play(workloads, some, i*perDisaster)
		})
	}
}

// overMirrors are the points at which a run over MirrorMaker 2 is another one: it seals instead of stopping, translates
// offsets, finds transactions that the mirror has brought, and confirms the stop behind the clients' backs.
var overMirrors = []string{
	"Assess/middle", "Suspend/middle", "StopReachable/middle",
	"FailOver/before", "FailOver/middle*", "FailOver/after", "KeepLastMarks/middle",
	"HandOverLastKnown/before", "HandOverLastKnown/middle", "HandOverLastKnown/written*", "HandOverLastKnown/after",
	"Settle/before", "Settle/after*", "Switch/middle", "Start/middle", "Target/middle",
	"AwaitStopped/before*", "AwaitStopped/after", "Write/middle",
}

// lateOverMirrors: the end of the loss is found there by comparing records.
var lateOverMirrors = []string{"WhenReachable/fenced", "WhenReachable/kept"}

// On Apache Kafka all workloads share the connectors: the first run asks them to stop, and confirms it a minute later.
func TestWorkerKilledInAnUnplannedRunOverMirrorMaker(t *testing.T) {
	t.Parallel()
	points := append([]string{""}, chosen(overMirrors)...)
	var workloads []setup.Workload
	for i := range points {
		workloads = append(workloads, small(fmt.Sprintf("w%02d", i+1)))
	}
	d := &disaster{t: t, bench: newMirrorBench(t, workloads), page: mirrored, after: lateOverMirrors}
	d.play(workloads, points, 0)
	d.keeps("unplanned-over-mirrormaker")
}

// answering are the points at which an unplanned run is another one while its old cluster answers: it fences that itself.
var answering = []string{"RaiseReachable/before*", "RaiseReachable/middle*", "RaiseReachable/after*", "FailOver/middle"}

// turning are those of its rollback, after a link that refused to fail anything over, and before them those where the run
// makes what a rollback must find again.
var turning = []string{
	"Suspend/middle", "StopReachable/middle*", "RaiseReachable/middle*", "FailOver/before",
	"Switch/before", "Switch/middle*", "Switch/after", // the epoch is raised
	"Lift/before*", "Lift/middle*", "Lift/after",
	"Start/before", "Start/middle*", "Start/after",
	"Restore/before", "Restore/middle*", "Restore/after", "Write/middle", "Release/before 1",
}

func TestWorkerKilledInAnUnplannedRunFromAClusterThatAnswers(t *testing.T) {
	t.Parallel()
	for i, at := range chosen(answering) {
		each(t, i, at, scenario{page: unplanned}, true)
	}
	for i, at := range chosen(turning) {
		each(t, 20+i, at, scenario{page: unplanned, refused: true}, true)
	}
}

// An operator stops an unplanned run: before the mirrors are failed over everything comes back, after that it is refused.
func TestUnplannedRunIsStopped(t *testing.T) {
	t.Parallel()
	for i, at := range []string{"RaiseReachable/middle", "FailOver/middle", "Target/middle"} {
		want, answer := workflows.Aborted, ""
		if i > 0 {
			want, answer = workflows.Completed, "past its point of no return"
		}
		each(t, i, at, scenario{page: unplanned, want: want, crash: func(p *play) {
			ctx, done := p.context()
			defer done()
			_, err := p.Order(ctx, p.run.GetID(), workflows.UpdateAbort, workflows.Order{By: "ann", Reason: "exercise"})
			if answer == "" {
				require.NoError(p.t, err)
			} else {
				require.ErrorContains(p.t, err, answer)
			}
			require.NoError(p.t, p.bench.goOn(at))
		}}, true)
	}
}

// disaster is a lab whose cluster dies under several workloads at once. One after the other is failed over, each with the
// worker killed at a point of its own; then the dead cluster comes back, and everything is judged.
type disaster struct {
	t     *testing.T
	bench *bench
	page  page
	after []string // kill points once the cluster is back
	plays []*play
	acts  []*departed
}

// departed is one workload that was failed over.
type departed struct {
	*play

	line     *line
	result   workflows.Result
	switched time.Time
}

// play plays all of it; the first point has the number given.
func (d *disaster) play(workloads []setup.Workload, points []string, first int) {
	d.strikes(workloads)
	for i, at := range points {
		if d.t.Failed() {
			break // it may hold the link, and nobody may have started the worker again
		}
		d.leave(strings.TrimSpace(fmt.Sprintf("%02d %s", first+i, strings.ReplaceAll(at, "/", " "))), at)
	}
	if !d.t.Failed() {
		d.passes()
	}
}

// strikes lets traffic flow until every group's offsets are mirrored, and kills the cluster.
func (d *disaster) strikes(workloads []setup.Workload) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 4*patience)
	defer cancel()
	d.plays = d.bench.stage(d.t, workloads...)
	for _, p := range d.plays {
		p.page = d.page
		require.NoError(d.t, p.flows(ctx, "east", time.Time{}), "traffic on east")
		require.NoError(d.t, p.HandedOver(ctx, "east", "west"))
	}
	gone, err := d.plays[0].Lose("east")
	require.NoError(d.t, err)
	for _, p := range d.plays {
		p.gone = gone
	}
}

// leave fails the next workload over, with the worker killed at a point.
func (d *disaster) leave(name, at string) {
	p := d.plays[len(d.acts)]
	a := &departed{play: p}
	d.acts = append(d.acts, a)
	d.t.Run(name, func(t *testing.T) {
		p.t = t
		sc := scenario{page: d.page}.killedAt(at)
		a.line = results.line(t, sc)
		ctx, done := p.context()
		defer done()
		if at != "" {
			d.bench.order(t, "kill", sc.point, sc.pass)
		}
		p.start(ctx)
		if at != "" {
			p.crash(ctx, sc)
			a.line.step = p.step
		}
		require.NoError(t, p.approved())
		result, err := p.Ends(ctx, p.run)
		require.NoError(t, err, "how the run ended")
		require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
		require.NoError(t, p.flows(ctx, "west", time.Now()), "traffic on west after the run")
		a.result, a.switched = result, p.switched(ctx)
	})
}

// passes brings the cluster back, waits for its fence, and judges what stands.
func (d *disaster) passes() {
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*patience)
	defer cancel()
	d.kills(0)
	require.NoError(d.t, d.plays[0].BringBack(ctx, "east"))
	for _, a := range d.acts {
		a.t = d.t
		// Woken as the switch did it: its next attempt may be a minute away.
		require.NoError(d.t, a.Temporal.SignalWorkflow(ctx, "fence/"+a.Workload.Name+"/east", "", workflows.SignalSwitched, a.switched))
	}
	for i, at := range d.after {
		d.plays[0].dies(ctx, at)
		d.kills(i + 1) // one after the other: an attempt that ends early comes to the last point before another to the first
		d.bench.again(d.t, "worker")
	}
	for _, a := range d.acts {
		d.t.Run("afterwards "+a.Workload.Name+" "+a.line.point, func(t *testing.T) {
			a.t = t
			a.closes(ctx, "east")
			stands := a.look(ctx, a.result)
			a.left(stands)
			a.line.took(a.judged(ctx, "west", a.result))
			a.same(a.result.Outcome, stands)
			a.line.outcome = a.result.Outcome
		})
	}
}

// kills has the worker killed at one of the points once the cluster is back.
func (d *disaster) kills(i int) {
	if i < len(d.after) {
		d.bench.order(d.t, "kill", d.after[i], 0)
	}
}

// left is what every run away from a dead cluster leaves: the workload on west at the next epoch, its old cluster fenced, its
// groups closed there, and the loss closed.
func (p *play) left(s state) {
	p.t.Helper()
	require.Equal(p.t, "west", s.Cluster)
	require.EqualValues(p.t, 2, s.Epoch)
	require.Equal(p.t, "RUN", s.SwitchedBy)
	for client, is := range s.Clients {
		require.Contains(p.t, []string{"run", "running on west at epoch 2, killed false"}, is, client)
	}
	require.Equal(p.t, []string{
		"READ on GROUP W-billing for User:*", "READ on GROUP W-shipping for User:*",
		"WRITE on TOPIC W.00 for User:*", "WRITE on TOPIC W.01 for User:*", "WRITE on TOPIC W.02 for User:*",
	}, s.Denied["east"])
	for _, acl := range s.Denied["west"] {
		require.NotContains(p.t, acl, "User:*", "a copy of the fence")
	}
	require.Equal(p.t, "active west, epoch 2, held false, abandoned false, last outcome completed, unprotected true, "+
		"east fenced true, its loss closed true, 0 written after the switch", s.Entity)
	require.Contains(p.t, strings.Join(s.Records["west"], " "), "marks/EAST/RUN/00000")
	require.Contains(p.t, strings.Join(s.Records["east"], " "), "marks/EAST/RUN/00000", "the cluster that came back knows the marks (P20)")
	require.Equal(p.t, 6, s.Positions, "3 topics of 2 partitions")
	require.Equal(p.t, 12, s.Offsets, "2 groups in 6 partitions")
}

// switched is when the workload left the cluster.
func (p *play) switched(ctx context.Context) time.Time {
	p.t.Helper()
	status, err := p.Status(ctx, p.run.GetID())
	require.NoError(p.t, err)
	i := slices.IndexFunc(status.Steps, func(s workflows.StepStatus) bool { return s.Step == workflows.SwitchTraffic })
	require.NotNil(p.t, status.Steps[i].Ended)
	return *status.Steps[i].Ended
}

// closes waits until what an unplanned run left behind is fenced; there is nothing where the run did so itself.
func (p *play) closes(ctx context.Context, cluster string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	there := false
	require.NoError(p.t, story.Until(ctx, "an answer of what fences "+cluster, func() (_ bool, err error) {
		_, there, err = p.Fencing(ctx, cluster)
		return err == nil, err // a worker that was killed a moment ago is asked first, in vain
	}))
	if !there {
		return
	}
	f, err := p.Fenced(ctx, cluster)
	require.NoError(p.t, err)
	require.True(p.t, f.Loss.Closed(), f.Ended)
}
