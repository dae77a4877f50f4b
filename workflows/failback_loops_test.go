package workflows_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/replication"
	"switchback/workflows"
)

// Where everything is when a failback has changed nothing, and after each part of it.
const (
	outThere  = "on west@8, nothing mirrors, protected false"
	following = "on west@8, east of west, protected false" // home mirrors again
	backHome  = "on east@9, east of west, protected false" // that mirror has become what the workload writes to
	mirroring = "on east@9, west of east, protected false"
	cameHome  = "on east@9, west of east, protected true"
	stayed    = "on west@8, east of west, protected true"
)

func (u *turner) state() string {
	mirror := u.mirror
	if mirror == "" {
		mirror = "nothing mirrors"
	}
	told := len(u.w.released) > 0 && u.w.released[len(u.w.released)-1].Protected
	return fmt.Sprintf("on %s@%d, %s, protected %v", u.w.cluster, u.w.epoch, mirror, told)
}

// stopped is what an abort or a cancellation leaves that comes while a call of an activity runs. The parts of a failback that are runs
// of their own are called like their workflow.
type stopped struct {
	call   string
	nth    int // from 0
	state  string
	stands string // what the run's sentence says of it
}

// The calls of each part of a failback, with what stopping it there leaves. Where the run is past its last part it completes.
var (
	before = []stopped{{"Snapshot", 0, outThere, ""}, {"Read", 0, outThere, ""}, {"Acquire", 0, outThere, ""}, {"Examine", 0, outThere, ""}}
	thence = []stopped{
		{"Examine", 1, outThere, "what was recovered"}, {"Acquire", 1, outThere, "what was recovered"}, {"Position", 0, outThere, "what was recovered"},
		{"GiveWay", 0, outThere, "what was recovered"}, {"Flow", 0, following, "what was recovered"}, {"InStep", 0, following, "what was recovered, east mirrors west"},
	}
	moving = []stopped{{"PlannedFailover", 0, following, "what was recovered, east mirrors west"}}
	after  = []stopped{
		{"Examine", 2, backHome, "what was recovered, the workload is on east"}, {"Acquire", 2, backHome, "what was recovered, the workload is on east"}, {"Position", 1, backHome, "what was recovered, the workload is on east"},
		{"GiveWay", 1, backHome, "what was recovered, the workload is on east"}, {"Flow", 1, mirroring, "what was recovered, the workload is on east"}, {"Restore", 0, mirroring, "what was recovered, the workload is on east"},
		{"Differences", 0, mirroring, "what was recovered, the workload is on east"}, {"Mend", 0, mirroring, "what was recovered, the workload is on east"}, {"Differences", 1, mirroring, "what was recovered, the workload is on east"},
	}
)

// unsaid are the rows with nothing recovered.
func unsaid(rows []stopped) (out []stopped) {
	for _, row := range rows {
		row.stands = strings.TrimPrefix(strings.TrimPrefix(row.stands, "what was recovered"), ", ")
		out = append(out, row)
	}
	return out
}

// wayBack is one way of a failback: what it finds, how it ends when nothing disturbs it, and what stopping it leaves.
type wayBack struct {
	name  string
	set   func(p *play, u *turner, in *workflows.FailbackInput)
	end   string
	stops []stopped
}

// waysBack are all of them: over links that restore or rebuild, over connectors, to a cluster that is empty, without a recovery,
// forward, and home again by a run that finds the workload there.
func waysBack() []wayBack {
	by := func(way activities.Way) func(*play, *turner, *workflows.FailbackInput) {
		return func(_ *play, u *turner, _ *workflows.FailbackInput) {
			for i := range u.plans {
				u.plans[i].Way = way
			}
		}
	}
	recover := []stopped{{"RecoverLaggedData", 0, outThere, ""}}
	whole := slices.Concat(before, recover, thence, moving, after)
	unrecovered := slices.Concat(before, unsaid(slices.Concat(thence, moving, after)))
	ways := []wayBack{
		{string(activities.WayRestore), by(activities.WayRestore), cameHome, whole},
		{string(activities.WayRebuild), by(activities.WayRebuild), cameHome, whole},
		{string(activities.WayResume), by(activities.WayResume), cameHome, whole},
		{string(activities.WayAnew), by(activities.WayAnew), cameHome, unrecovered},
		{"after a planned failover", func(_ *play, u *turner, _ *workflows.FailbackInput) {
			for i := range u.plans {
				u.plans[i].Stranded, u.plans[i].Goes = 0, 0
			}
		}, cameHome, unrecovered},
		{"without a recovery", func(_ *play, _ *turner, in *workflows.FailbackInput) { in.NoRecovery = true }, cameHome, unrecovered},
	}
	forward := slices.Concat(before, recover, thence)
	for _, d := range []string{"Differences 0", "Mend 0", "Differences 1"} {
		var row stopped
		_, _ = fmt.Sscan(d, &row.call, &row.nth)
		row.state, row.stands = following, "what was recovered, east mirrors west"
		forward = append(forward, row)
	}
	for _, way := range []activities.Way{activities.WayRestore, activities.WayRebuild, activities.WayResume} {
		set := by(way)
		ways = append(ways, wayBack{"forward, " + string(way), func(p *play, u *turner, in *workflows.FailbackInput) {
			set(p, u, in)
			in.FailForward = true
		}, stayed, forward})
	}
	var rest []stopped
	for _, row := range after {
		row.stands = ""
		switch row.call {
		case "Examine", "Position", "GiveWay", "Acquire":
			row.state = "on east@9, nothing mirrors, protected false"
			if row.nth = 0; row.call == "Acquire" {
				row.nth = 1 // behind the runbook's
			}
		case "Flow":
			row.nth = 0
		case "Restore":
			continue // a run before this one has, or Protect does
		}
		rest = append(rest, row)
	}
	return append(ways, wayBack{"home already", func(p *play, u *turner, _ *workflows.FailbackInput) {
		p.cluster, p.epoch = "east", 9
		u.plans = u.plans[2:]
	}, cameHome, rest})
}

// plays sets a way up; protection lacks something that can be mended, so that everything is called.
func (way wayBack) plays(t *testing.T) (*play, *turner, workflows.FailbackInput) {
	t.Helper()
	p, u := newFailback(t)
	u.differs = []replication.Difference{{Kind: "offset sync", Name: "billing", Level: replication.LevelProblem, Is: "off", Should: "on", Mend: "turning it on"}}
	in := goHome
	way.set(p, u, &in)
	return p, u, in
}

// Every activity that a way calls, each time that it calls it, fails for good: before it acted, and after it acted with the answer
// lost. Before anything was changed the run fails, from then on it parks, and a retry ends it as if nothing had happened.
func TestFailbackFailingAtEachStep(t *testing.T) {
	for _, way := range waysBack() {
		p, u, in := way.plays(t)
		_, err := p.home(t, in)
		require.NoError(t, err)
		require.Equal(t, way.end, u.state(), way.name)
		nth, looked := map[string]int{}, false
		for _, call := range p.called {
			n := nth[call]
			nth[call]++
			fails := !looked
			looked = looked || call == "Examine" || call == "Acquire" && p.cluster == "east" && way.name == "home already"
			for when, list := range map[string]func(*play) map[string][]error{
				"before it acted": func(p *play) map[string][]error { return p.fail }, "after it acted": func(p *play) map[string][]error { return p.failAfter },
			} {
				if when == "after it acted" && !slices.Contains([]string{"Acquire", "Position", "GiveWay", "Flow", "Restore", "Mend", "Release"}, call) {
					continue // a look changes nothing
				}
				t.Run(fmt.Sprintf("%s/%s %d %s", way.name, call, n, when), func(t *testing.T) {
					p, u, in := way.plays(t)
					if call == "Examine" { // the try that fails has taken no answer
						u.steady()
					}
					list(p)[call] = append(make([]error, n), final(activities.TypeInvalid, "it broke"))
					for at := range 4 {
						p.tell(time.Duration(30+at)*time.Minute, workflows.UpdateRetry, by("alice"))
					}
					out, err := p.home(t, in)
					if fails {
						require.ErrorContains(t, err, "it broke")
						require.Empty(t, u.parts)
						require.Empty(t, u.mirror)
						require.Zero(t, u.fences)
						require.Empty(t, p.holder)
						return
					}
					require.NoError(t, err)
					require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
					require.Equal(t, way.end, u.state())
					require.NotEmpty(t, p.answers)
				})
			}
		}
	}
}

// steady makes Examine answer by where the workload is, however often it is asked.
func (u *turner) steady() {
	out, back := u.plans[0], u.plans[len(u.plans)-1]
	u.asked = func() activities.TurnPlan {
		if u.w.cluster == "east" {
			return back
		}
		return out
	}
}

// Stopping at each step, by abort or by cancelling the workflow, ends the run there: what it did stays, and is said. Once all is done
// there is nothing to stop.
func TestFailbackStoppedAtEachStep(t *testing.T) {
	for _, how := range []string{"cancel", workflows.UpdateAbort} {
		for _, way := range waysBack() {
			for _, at := range way.stops {
				t.Run(fmt.Sprintf("%s/%s/%s %d", how, way.name, at.call, at.nth), func(t *testing.T) {
					p, u, in := way.plays(t)
					u.stops(p, at, how)
					out, err := p.home(t, in)
					require.NoError(t, err)
					require.Equal(t, workflows.Aborted, out.Outcome, out.Sentence)
					require.Equal(t, at.state, u.state())
					if at.stands == "" {
						require.NotContains(t, out.Sentence, "what stands")
					} else {
						require.Contains(t, out.Sentence, "; what stands: "+at.stands)
					}
					for _, r := range p.released {
						require.False(t, r.Unsettled, "it left nothing that another run has to take back")
					}
				})
			}
			for _, call := range []string{"Write", "Release"} {
				t.Run(fmt.Sprintf("%s/%s/%s", how, way.name, call), func(t *testing.T) {
					p, u, in := way.plays(t)
					u.stops(p, stopped{call: call}, how)
					out, err := p.home(t, in)
					require.NoError(t, err)
					require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
					require.Equal(t, way.end, u.state())
				})
			}
		}
	}
}

// stops has the run stopped while a call runs.
func (u *turner) stops(p *play, at stopped, how string) {
	stop := func() { p.give(how, by("alice")) }
	if how == "cancel" {
		stop = p.CancelWorkflow
	}
	if at.call == "RecoverLaggedData" || at.call == "PlannedFailover" {
		u.within[at.call] = stop
		return
	}
	calls := 0
	p.hook = func(name string) {
		if name != at.call {
			return
		}
		if calls++; calls == at.nth+1 {
			stop()
		}
	}
}
