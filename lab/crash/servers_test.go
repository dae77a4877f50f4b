//go:build crash

package crash

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/ledger"
)

// away is how long a server that was killed is gone.
const away = 3 * time.Second

// long is an outage of Temporal that outlasts every heartbeat, and the SDK's own patience.
const long = 20 * time.Second

// outages are where a server is killed while the worker is held there. The worker then goes on without it. All of them lie
// past preflight, which refuses a run when anything is away; the budgets outlast an outage of seconds, so every run
// completes. Those without a star are played with -full only.
var outages = map[string][]string{
	"consul": {
		"Suspend/middle", "Stop/middle*", "Raise/middle*", "Drain/before", "HandOver/middle*", "Promote/before-sent",
		"Switch/before-sent*", "Switch/middle*", "Start/middle*", "Target/middle",
	},
	// The login of the worker is in its memory; clients that start need their secrets.
	"vault": {"Suspend/before", "Stop/before*", "Raise/before*", "HandOver/before", "Promote/before*", "Switch/before*", "Start/before*"},
	"temporal": {
		"Suspend/middle", "Stop/middle*", "Raise/middle", "Quiesce/middle*", "HandOver/middle*", "Promote/middle*", "Switch/middle*",
		"Start/middle", "Write/middle", "Release/before 1",
	},
	"link": {"Suspend/middle*", "Raise/before", "Drain/middle*", "HandOver/before*", "Promote/before-sent", "Promote/middle*", "KeepMarks/before*"},
	"east": {
		"Suspend/before", "Stop/before*", "Raise/middle*", "Quiesce/middle*", "Drain/middle*", "HandOver/middle*", "Promote/before",
		"KeepMarks/middle",
	},
	"west": {"Suspend/before", "Drain/middle*", "HandOver/middle", "HandOver/written*", "Promote/middle*", "KeepMarks/middle*", "Start/middle*", "Target/middle*"},
}

// leastSteps of a run must have met an outage of each server.
const leastSteps = 5

func TestServersKilled(t *testing.T) {
	t.Parallel()
	for server, points := range outages {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			hit := map[string]bool{}
			for i, at := range chosen(points) {
				each(t, i, at, scenario{crash: func(p *play) { p.killed(server, at, away, 0); hit[p.step] = true }}, false)
			}
			require.GreaterOrEqual(t, len(hit), leastSteps, "steps that met an outage: %v", hit)
		})
	}
}

// The worker is in the middle of an atomic write, or of the switch window, when Temporal goes away: its context is
// cancelled while it writes, and nobody hears how the write ended.
func TestTemporalAway(t *testing.T) {
	t.Parallel()
	for i, at := range chosen([]string{
		"Suspend/middle", "Stop/middle*", "Raise/middle", "Quiesce/middle", "HandOver/middle", "HandOver/written*",
		"Promote/before-sent*", "Promote/middle", "KeepMarks/middle", "Switch/before-sent*", "Switch/middle", "Start/middle",
	}) {
		each(t, i, at, scenario{crash: func(p *play) { p.killed("temporal", at, long, cancelled) }}, true)
	}
	for i, at := range chosen([]string{"Switch/middle", "Lift/middle*", "Restore/middle"}) {
		each(t, 20+i, at, scenario{refused: true, crash: func(p *play) { p.killed("temporal", at, long, cancelled) }}, true)
	}
}

// cancelled is when the SDK has cancelled an activity that cannot beat any more, and the time for its writes is not over.
const cancelled = 1700 * time.Millisecond

// killed kills a server, lets the held worker go on after a while, and starts the server again.
func (p *play) killed(server, at string, away, held time.Duration) {
	p.t.Helper()
	point, _, _ := strings.Cut(at, " ")
	begun := time.Now()
	require.NoError(p.t, p.bench.Kill(server))
	<-time.After(held)
	require.NoError(p.t, p.bench.goOn(point))
	<-time.After(away - time.Since(begun))
	p.bench.again(p.t, server)
	p.Outages = append(p.Outages, ledger.Outage{Cluster: server, Killed: begun, Back: time.Now()})
}
