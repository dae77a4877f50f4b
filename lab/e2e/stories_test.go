package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

	"switchback/internal/secret"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

var (
	stories = flag.Int("stories", 10, "how many random stories are played")
	seed    = flag.Uint64("seed", 0, "of the first random story; 0 takes one from the clock")
)

// Random stories: planned and unplanned runs, recoveries and ways home in any order, with the worker and servers killed in
// their middle. After each story the ledger judges all of it, and I1 to I9 hold. A story depends on its seed alone, as far as
// anything that runs on several processes can: `-stories 1 -seed N` plays it again.
func TestRandomStories(t *testing.T) {
	t.Parallel()
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixMilli() % 1_000_000)
	}
	for i := range *stories {
		n := first + uint64(i)
		t.Run(fmt.Sprint(n), func(t *testing.T) { randomly(t, n).whole() })
	}
}

// tale is one random story. The clusters' names are where the workload is and where it is not; the rest is what a model of it
// has to know to say what may happen next, and what must be so in the end.
type tale struct {
	*play
	*rand.Rand
	points   story.Points
	at, off  string
	runs     int
	lost     bool  // a cluster was lost at some time: groups may read again, as its report says
	stranded bool  // on off, and not recovered
	accepted int64 // offsets that exist nowhere and whose loss was accepted by name
	reports  []workflows.Result
	told     []string
}

func randomly(t *testing.T, n uint64) *tale {
	rng := rand.New(rand.NewPCG(n, 7)) //nolint:gosec // it is to be repeatable
	points := story.Points(t.TempDir())
	oneWay := rng.IntN(2) == 0
	s := up(t, points.Obeyed, treated(runbooks.Recovery{Default: "append"}), edited(steady), func(o *setup.Options) { o.OneWayLink, o.Canary = oneWay, canary })
	x := &tale{play: s.play(t, "orders"), Rand: rng, points: points, at: "east", off: "west"}
	x.tell("seed %d, one-way links %v", n, oneWay)
	t.Cleanup(func() { t.Log("the story:\n  " + strings.Join(x.told, "\n  ")) })
	return x
}

// canary is in every password of a random story.
const canary = "canary-5d11-"

// steady budgets outlast every outage of a story.
func steady(b *runbooks.Runbook) {
	minute := runbooks.Duration(time.Minute)
	b.Objectives.RTO = 3 * minute
	b.Budgets.StopClients, b.Budgets.Drain, b.Budgets.StartClients, b.Budgets.Promote, b.Budgets.Verify = minute, minute, minute, minute, minute
}

func (x *tale) tell(format string, args ...any) {
	x.told = append(x.told, fmt.Sprintf(format, args...))
}

// whole plays moves until the story is long enough and the workload is protected, and has it judged.
func (x *tale) whole() {
	x.flows(x.at)
	for range 1 + x.IntN(2) {
		x.away()
		x.back()
	}
	x.judged()
}

// away is what may happen to a workload that is protected.
func (x *tale) away() {
	x.handedOver()
	switch x.IntN(5) {
	case 0:
		x.aborted()
		x.planned()
	case 1, 2:
		x.planned()
	default:
		x.disaster()
	}
}

// back is what may happen until it is protected again.
func (x *tale) back() {
	if x.stranded && x.IntN(2) == 0 {
		x.recovered()
	}
	switch x.IntN(4) {
	case 0:
		x.forward()
	case 1:
		if x.stranded {
			x.acceptsLoss()
			return
		}
		fallthrough
	default:
		x.home(workflows.FailbackInput{})
	}
}

func (x *tale) handedOver() {
	x.stage.does(x.t, "the groups' offsets are mirrored", func(ctx context.Context) error { return x.HandedOver(ctx, x.at, x.off) })
}

// mishap is what happens in the middle of a run: the worker is killed at a point, or held there while a server is away.
type mishap struct{ point, server string }

func (f mishap) String() string {
	switch {
	case f.point == "":
		return "undisturbed"
	case f.server == "":
		return "the worker killed at " + f.point
	}
	return f.server + " killed while the worker is at " + f.point
}

// any is one of the points, or nothing. Where servers may be away there, one of them is, sometimes.
func (x *tale) any(points []string, servers ...string) (f mishap) {
	if x.IntN(4) > 0 {
		f.point = points[x.IntN(len(points))]
		if len(servers) > 0 && !strings.HasSuffix(f.point, "/before") && x.IntN(3) == 0 {
			f.server = servers[x.IntN(len(servers))]
		}
	}
	return f
}

// plays starts a run, lets the fault happen, and returns how the run ended. What it leaves is on `at`.
func (x *tale) plays(flow string, in any, f mishap, ask func(id string) error) workflows.Result {
	x.t.Helper()
	x.runs++
	id := fmt.Sprintf("%02d-%s", x.runs, strings.ToLower(flow))
	x.tell("%s from %s: %s", id, x.at, f)
	switch {
	case f.point != "" && f.server == "":
		require.NoError(x.t, x.points.Kill(f.point))
	case f.point != "":
		require.NoError(x.t, x.points.Hold(f.point))
	}
	run, err := x.Start(x.t.Context(), id, flow, in)
	require.NoError(x.t, err)
	x.t.Cleanup(func() {
		if x.t.Failed() {
			x.describe(id)
		}
	})
	asked := make(chan error, 1)
	go func() { // beside what strikes: the worker may die before anybody is asked
		if ask == nil {
			asked <- nil
			return
		}
		asked <- ask(id)
	}()
	if f.point != "" {
		x.strikes(run, f)
	}
	require.NoError(x.t, <-asked, "approve %s", id)
	out := x.ended(run)
	x.tell("  %s: %s", out.Outcome, out.Sentence)
	return out
}

func (x *tale) ended(run sdk.WorkflowRun) workflows.Result {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 2*patience)
	defer cancel()
	out, err := x.Ends(ctx, run)
	require.NoError(x.t, ctx.Err(), "every run ends, or says who must do what (I5): %s", run.GetID())
	require.NotEmpty(x.t, out.Outcome, "%v", err)
	return out
}

// strikes waits until the worker is at the point, or the run has ended without coming there.
func (x *tale) strikes(run sdk.WorkflowRun, f mishap) {
	x.t.Helper()
	var met bool
	x.stage.does(x.t, f.String(), func(ctx context.Context) error {
		return story.Until(ctx, f.String(), func() (bool, error) {
			if met = x.points.Reached(f.point); met {
				return true, nil
			}
			status, err := x.Status(ctx, run.GetID())
			return err == nil && status.Outcome != "" && !status.Ended.IsZero(), err
		})
	})
	if !met {
		x.points.Forget(f.point)
		x.tell("  it did not come to %s", f.point)
		return
	}
	if f.server == "" {
		x.stage.does(x.t, "the death of the worker", func(ctx context.Context) error { _, err := x.stage.Wait(ctx, "worker"); return err })
		require.NoError(x.t, x.points.GoOn(f.point))
		x.stage.does(x.t, "start the worker again", func(ctx context.Context) error { return x.stage.StartAgain(ctx, "worker") })
		return
	}
	begun := time.Now()
	require.NoError(x.t, x.stage.Kill(f.server))
	require.NoError(x.t, x.points.GoOn(f.point))
	<-time.After(time.Duration(1+x.IntN(3)) * time.Second) // an outage takes its time
	x.stage.does(x.t, "start "+f.server+" again", func(ctx context.Context) error { return x.stage.StartAgain(ctx, f.server) })
	x.Outages = append(x.Outages, ledger.Outage{Cluster: f.server, Killed: begun, Back: time.Now()})
}

func (x *tale) turned() { x.at, x.off = x.off, x.at }

func (x *tale) planned() {
	x.t.Helper()
	f := x.any([]string{
		"Suspend/middle", "Stop/middle", "Raise/middle", "Quiesce/middle", "Drain/middle", "HandOver/middle", "HandOver/written",
		"Promote/before-sent", "Promote/middle", "KeepMarks/middle", "Switch/before-sent", "Switch/middle", "Start/middle",
		"Target/middle", "Write/middle", "Preflight/after", "Release/before",
	})
	if x.IntN(4) == 0 {
		f = x.any([]string{"Stop/middle", "Raise/middle", "HandOver/middle", "Promote/middle", "Switch/middle", "Start/middle"}, "consul", "temporal")
	}
	out := x.plays("PlannedFailover", workflows.PlannedInput{Runbook: "orders", To: x.off, Reason: "exercise", By: setup.Requester, Override: "exercise"}, f, nil)
	require.Equal(x.t, workflows.Completed, out.Outcome, "%s", out.Sentence)
	x.reports = append(x.reports, out)
	x.turned()
	x.flows(x.at)
}

// aborted starts a planned run and stops it before its point of no return.
func (x *tale) aborted() {
	x.t.Helper()
	points := []string{"Suspend/middle", "Stop/middle", "Raise/middle", "Quiesce/middle", "HandOver/middle"}
	point := points[x.IntN(len(points))]
	x.runs++
	id := fmt.Sprintf("%02d-aborted", x.runs)
	x.tell("%s at %s", id, point)
	require.NoError(x.t, x.points.Hold(point))
	run, err := x.Start(x.t.Context(), id, "PlannedFailover", workflows.PlannedInput{Runbook: "orders", To: x.off, Reason: "exercise", By: setup.Requester, Override: "exercise"})
	require.NoError(x.t, err)
	x.stage.does(x.t, "come to "+point, func(ctx context.Context) error { return x.points.Held(ctx, point) })
	x.order(run, workflows.UpdateAbort)
	require.NoError(x.t, x.points.GoOn(point))
	out := x.ended(run)
	require.Equal(x.t, workflows.Aborted, out.Outcome, "%s", out.Sentence)
	x.flows(x.at)
}

// disaster loses the cluster under traffic, leaves it, and brings it back.
func (x *tale) disaster() {
	x.t.Helper()
	if x.at == "east" && x.IntN(3) > 0 {
		x.tell("the mirror is held up")
		x.stage.holdUp(x.t, x.Workload)
		x.flows(x.at)
	}
	x.tell("%s is lost", x.at)
	gone := x.dies(x.at)
	x.lost = true
	f := x.any([]string{
		"Assess/middle", "Suspend/middle", "StopReachable/middle", "FailOver/before-sent", "FailOver/middle", "KeepLastMarks/middle",
		"HandOverLastKnown/middle", "HandOverLastKnown/written", "Settle/after", "Switch/before-sent", "Switch/middle", "Start/middle", "Target/middle", "Write/middle",
	})
	out := x.plays("UnplannedFailover",
		workflows.UnplannedInput{Runbook: "orders", To: x.off, Reason: "exercise", By: setup.Requester, Outage: gone, Override: "exercise"}, f, x.approvedByOthers)
	require.Equal(x.t, workflows.Completed, out.Outcome, "%s", out.Sentence)
	x.turned()
	x.flows(x.at)
	x.stage.does(x.t, "start "+x.off+" again", func(ctx context.Context) error { return x.BringBack(ctx, x.off) })
	fenced := x.fenced(x.off)
	x.tell("  %s", fenced.Ended)
	missing, err := x.Missing(x.t.Context(), x.at)
	require.NoError(x.t, err)
	require.LessOrEqual(x.t, missing-x.accepted, fenced.Loss.AtLeast, "no report says less than the ledger (I3)")
	x.stranded = fenced.Loss.AtLeast > 0
}

// approvedByOthers gives the approvals, after the one that may not have asked for the run and approve it (I8).
func (x *tale) approvedByOthers(id string) error {
	ctx, cancel := context.WithTimeout(x.t.Context(), patience)
	defer cancel()
	if err := x.Reaches(ctx, id, string(workflows.Approve)); err != nil {
		return err
	}
	if _, err := x.Order(ctx, id, workflows.UpdateApprove, workflows.Order{By: setup.Requester, Reason: "exercise"}); err == nil {
		return errors.New("who asked for the run has approved it (I8)")
	}
	return x.Approve(ctx, id)
}

func (x *tale) recovered() {
	x.t.Helper()
	f := x.any([]string{"PlanRecovery/middle", "PrepareRecovery/middle", "CopyTails/begun", "CopyTails/middle", "Account/middle", "ReleaseTail/middle", "Write/middle"}, "temporal")
	out := x.plays("RecoverLaggedData", workflows.RecoverInput{Runbook: "orders", Reason: "exercise", By: setup.Requester}, f, func(id string) error {
		ctx, cancel := context.WithTimeout(x.t.Context(), patience)
		defer cancel()
		return x.ApproveRecovery(ctx, id)
	})
	require.Equal(x.t, workflows.Completed, out.Outcome, "%s", out.Sentence)
	x.allBack(out)
}

// allBack: the sum is whole, and every stranded record is there once (I4).
func (x *tale) allBack(out workflows.Result) {
	x.t.Helper()
	v := x.judge(x.at, out.Report)
	require.Empty(x.t, v.Disagreements, "%s", v)
	require.Equal(x.t, v.Recovered.Stranded, v.Recovered.Back, "%s", v)
	x.stranded = false
}

// turning are points of a way home and of what runs within it.
var turning = []string{
	"Examine/middle", "Position/before", "Position/delete", "Position/middle", "Position/create", "GiveWay/before", "GiveWay/middle", "Flow/before", "Flow/middle",
	"InStep/before", "Write/middle", "CopyTails/middle", "Account/middle", "HandOver/middle", "Promote/middle", "Switch/middle",
}

func (x *tale) failback(in workflows.FailbackInput, f mishap) workflows.Result {
	x.t.Helper()
	in.Runbook, in.Reason, in.By, in.Override = "orders", "exercise", setup.Requester, "exercise"
	return x.plays("Failback", in, f, nil)
}

func (x *tale) home(in workflows.FailbackInput) {
	x.t.Helper()
	in.To = x.off
	out := x.failback(in, x.any(turning))
	require.Equal(x.t, workflows.Completed, out.Outcome, "%s", out.Sentence)
	x.parts(out)
	x.turned()
	x.protected()
}

// forward stays, and has the other cluster mirror this one.
func (x *tale) forward() {
	x.t.Helper()
	out := x.failback(workflows.FailbackInput{FailForward: true}, x.any(turning[:10]))
	require.Equal(x.t, workflows.Completed, out.Outcome, "%s", out.Sentence)
	x.parts(out)
	x.protected()
}

// acceptsLoss goes home without a recovery: refused until every topic is named (I9).
func (x *tale) acceptsLoss() {
	x.t.Helper()
	out := x.failback(workflows.FailbackInput{To: x.off, NoRecovery: true}, mishap{})
	require.Equal(x.t, workflows.FailedRun, out.Outcome, "%s", out.Sentence)
	require.Contains(x.t, out.Sentence, "exist nowhere else")
	status, err := x.Status(x.t.Context(), fmt.Sprintf("%02d-failback", x.runs))
	require.NoError(x.t, err)
	require.Positive(x.t, status.Turn.Unsaved)
	x.accepted += status.Turn.Unsaved
	x.home(workflows.FailbackInput{NoRecovery: true, AcceptLoss: x.Workload.TopicNames()})
	x.stranded = false
}

// parts holds the reports of the runs within a way home against the ledger, as far as they can be while traffic flows.
func (x *tale) parts(out workflows.Result) {
	x.t.Helper()
	for _, part := range x.report(out).Parts {
		raw, err := os.ReadFile(part.Report)
		require.NoError(x.t, err)
		r, err := report.Parse(raw)
		require.NoError(x.t, err)
		if r.Kind == report.KindRecovery {
			total := r.LaggedData.Total
			require.Equal(x.t, total.Stranded, total.Sum(), "what became of it adds up (I4)")
			x.stranded = false
		} else {
			x.reports = append(x.reports, workflows.Result{Run: part.Run, Report: part.Report})
		}
	}
}

// protected: traffic flows, the other cluster mirrors this one, and no fence is left.
func (x *tale) protected() {
	x.t.Helper()
	x.flows(x.at)
	entity := x.stage.entity(x.t, "orders")
	require.Equal(x.t, x.at, entity.Active)
	require.Nil(x.t, entity.UnprotectedSince)
	require.Empty(x.t, x.stage.denied(x.t, x.at))
}

// judged ends the traffic, and holds everything against what the clients wrote down.
func (x *tale) judged() {
	x.t.Helper()
	x.stage.does(x.t, "the groups read everything", func(ctx context.Context) error { return x.SettleOn(ctx, x.at) })
	v := x.judge(x.at, "")
	if x.lost {
		ctx, cancel := context.WithTimeout(x.t.Context(), patience)
		defer cancel()
		var err error
		v, err = x.JudgeRoundtrip(ctx, x.at, "", ledger.Roundtrip{Stranded: 1, Recovered: 1})
		require.NoError(x.t, err)
		require.LessOrEqual(x.t, int64(v.Lost), x.accepted, "%s", v)
		v.Lost, v.NeverRead = 0, max(0, v.NeverRead-int(x.accepted)*len(x.Workload.Groups()))
	}
	require.True(x.t, v.Well(), "%s", v)
	require.NotZero(x.t, v.Acknowledged)
	if !x.lost {
		for _, out := range x.reports {
			w := x.judge(x.at, out.Report)
			require.Empty(x.t, w.Disagreements, "report of %s", out.Run)
		}
	}
	x.keepsSecrets()
}

// keepsSecrets: none is in a log, a report, a ledger or a runbook (I7).
func (x *tale) keepsSecrets() {
	x.t.Helper()
	for _, folder := range []string{"logs", "reports", "ledger", "runbooks", "worker"} {
		require.NoError(x.t, filepath.WalkDir(filepath.Join(x.stage.Dir(), folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			require.NoError(x.t, err)
			require.False(x.t, bytes.Contains(raw, []byte(canary)), "%s has a secret", path)
			return nil
		}))
	}
	require.True(x.t, slices.ContainsFunc(x.stage.Secrets(), func(s secret.Value) bool { return strings.Contains(s.Reveal(), canary) }), "the canary is sought for")
}
