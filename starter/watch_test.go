package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/workflows"
)

// watchFake is a Temporal that can be asked to cancel a workflow.
type watchFake struct {
	*fake
	cancelled []string
}

func (f *watchFake) CancelWorkflow(_ context.Context, id, _ string) error {
	if len(f.queries[id+"/status"]) == 0 {
		return serviceerror.NewNotFound("workflow not found for ID: " + id)
	}
	f.cancelled = append(f.cancelled, id)
	return nil
}

func (f *watchFake) ask(t *testing.T, args ...string) told {
	return f.asked(t, func(c *cli) {
		c.dial = func(context.Context, *cli) (client.Client, error) { return f, nil }
	}, args...)
}

func seenBy(change func(*workflows.WatchStatus)) workflows.WatchStatus {
	s := workflows.WatchStatus{Runbook: "orders", Active: "east", Epoch: 7, EverySeconds: 10, SilentAfterSeconds: 30, Phase: workflows.PhaseWatching, Looked: at,
		Links: []workflows.WatchedLink{{From: "east", To: "west", WatchResult: activities.WatchResult{
			Seen: at.Add(-4 * time.Second), LastAnswer: at.Add(-4 * time.Second), Topics: 60, Partitions: 600, Lag: 12, Unknown: 1,
			Worst: []activities.TopicLag{
				{Topic: "payments", Partitions: 1, Unknown: 1, Worst: -1, WorstLag: -1},
				{Topic: "orders", Partitions: 4, Lag: 12, Worst: 3, WorstLag: 9, Rate: 41.25},
				{Topic: "returns", Partitions: 1, Worst: 0},
			}}}}}
	if change != nil {
		change(&s)
	}
	return s
}

func newWatchFake(answers ...any) *watchFake {
	f := &watchFake{fake: newFake()}
	f.queries["watch/orders/status"] = answers
	return f
}

func TestWatchStartsItOnceAndShowsPositions(t *testing.T) {
	f := newWatchFake(serviceerror.NewWorkflowNotReady("no task yet"), workflows.WatchStatus{Runbook: "orders", Phase: workflows.PhaseBlind}, seenBy(nil))
	a := f.ask(t, "watch", "orders", "--once", "--every", "5s", "--silent-after", "1m")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "watch-positions.txt", a.out)
	require.Len(t, f.started, 1)
	require.Equal(t, "watch/orders", f.started[0].ID)
	require.Equal(t, enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, f.started[0].WorkflowIDConflictPolicy)
	require.Equal(t, []any{workflows.WatchInput{Runbook: "orders", Every: 5 * time.Second, SilentAfter: time.Minute}}, f.inputs)
}

func TestWatchSaysThatTheSourceIsSilent(t *testing.T) {
	f := newWatchFake(seenBy(func(s *workflows.WatchStatus) {
		s.Phase, s.Links[0].Silent, s.Links[0].QuietSince = workflows.PhaseSilent, true, at.Add(-3*time.Second)
		s.Links[0].Why = "no broker of east answers"
	}))
	a := f.ask(t, "watch", "orders", "--once")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, "EAST DOES NOT ANSWER. Its last answer was at 2026-03-14T02:59:56Z; looks have failed since 2026-03-14T02:59:57Z.")
	require.Contains(t, a.out, "switchback plan unplanned orders --to west")
}

func TestWatchAsJSONAndNotWell(t *testing.T) {
	f := newWatchFake(seenBy(func(s *workflows.WatchStatus) { s.Links[0].Why = "orders-3 has no leader" }))
	a := f.ask(t, "watch", "orders", "--once", "-o", "json")
	require.Equal(t, 1, a.code)
	goldenJSON(t, "watch-positions.json", a.out)
}

func TestWatchFollowsUntilInterrupted(t *testing.T) {
	later := seenBy(func(s *workflows.WatchStatus) { s.Looked, s.Links[0].Lag = at.Add(30*time.Second), 77 })
	f := newWatchFake(seenBy(nil), seenBy(nil), later)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs bytes.Buffer
	c := &cli{stdout: writer(func(p []byte) (int, error) {
		if out.Write(p); strings.Contains(out.String(), "lacked 77 records") {
			interrupt()
		}
		return len(p), nil
	}), stderr: &errs, now: func() time.Time { return at }, getenv: func(string) string { return "" },
		dial: func(context.Context, *cli) (client.Client, error) { return f, nil }}
	require.Equal(t, 1, c.run(ctx, []string{"watch", "orders"}))
	require.Contains(t, out.String(), "west lacked 12 records of east")
	require.Equal(t, 2, strings.Count(out.String(), "is on east"), "what did not change is not repeated")
	require.Contains(t, errs.String(), "interrupted. What was started goes on")
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestWatchStop(t *testing.T) {
	f := newWatchFake(seenBy(nil))
	a := f.ask(t, "watch", "orders", "--stop")
	require.Equal(t, 0, a.code, a.err)
	require.Equal(t, []string{"watch/orders"}, f.cancelled)
	require.Empty(t, f.started)
	require.Contains(t, a.out, "Its last sample stays, and grows old.")

	a = f.ask(t, "watch", "payments", "--stop")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "nobody watches payments")
}

func TestWatchIsMisused(t *testing.T) {
	for _, args := range [][]string{{"watch"}, {"watch", "orders", "--once", "--stop"}, {"watch", "orders", "--every", "-1s"}} {
		require.Equal(t, 2, newWatchFake().ask(t, args...).code, args)
	}
}

func TestWatchWithoutAWorkerSaysSo(t *testing.T) {
	f := newWatchFake(workflows.WatchStatus{Runbook: "orders", Phase: workflows.PhaseBlind})
	f.workers = 0
	a := f.ask(t, "watch", "orders", "--once", "--timeout", "1s")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "Watch begins when a worker does")
	require.Contains(t, a.err, "has seen nothing yet after 1s")
}
