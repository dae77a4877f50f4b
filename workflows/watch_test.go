package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
	"switchback/workflows"
)

// sentry is Watch in the test environment, and what it looks at.
type sentry struct {
	*testsuite.TestWorkflowEnvironment
	book    runbooks.Runbook
	broken  error // of the runbook
	cluster string
	epoch   int64
	consul  string // why it cannot be read
	silent  bool
	failing error // of Sample
	looks   []activities.WatchInput
}

var watchBegan = time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC)

func newSentry() *sentry {
	var suite testsuite.WorkflowTestSuite
	s := &sentry{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), book: testBook(), cluster: "east", epoch: 7}
	s.book.Links = append(s.book.Links, runbooks.Link{From: "west", To: "east"})
	s.SetStartTime(watchBegan)
	s.SetTestTimeout(20 * time.Second)
	s.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "watch/orders"})
	workflows.Register(s)
	for name, f := range map[string]any{"Snapshot": s.snapshot, "Read": s.read, "Sample": s.sample} {
		s.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return s
}

func (s *sentry) snapshot(context.Context, activities.SnapshotInput) (activities.Snapshot, error) {
	return activities.Snapshot{Runbook: s.book}, s.broken
}

func (s *sentry) read(context.Context, activities.ReadDiscoveryInput) (activities.ReadDiscoveryResult, error) {
	return activities.ReadDiscoveryResult{Entries: []activities.DiscoveryEntry{
		{Required: true, Address: "consul.west", Error: s.consul, Cluster: s.cluster, Epoch: s.epoch}}}, nil
}

func (s *sentry) sample(_ context.Context, in activities.WatchInput) (activities.WatchResult, error) {
	s.looks = append(s.looks, in)
	out := in.Before
	if in.Epoch != s.epoch {
		return out, final(activities.TypeStale, "discovery holds another epoch")
	}
	if s.failing != nil {
		return out, s.failing
	}
	out.Silent = s.silent
	if s.silent {
		out.QuietSince, out.Why = out.LastAnswer.Add(time.Second), "no broker answers"
		return out, nil
	}
	out.Seen, out.LastAnswer, out.QuietSince, out.Why = s.Now(), s.Now(), time.Time{}, ""
	out.Topics, out.Partitions, out.Lag, out.Next = 1, 2, 12, s.Now().Add(in.Every)
	out.Worst = []activities.TopicLag{{Topic: "orders", Partitions: 2, Lag: 12, Worst: 1, WorstLag: 9, Rate: 3.5}}
	return out, nil
}

// live lets Watch go on for so long. It never ends by itself; what carries over is returned.
func (s *sentry) live(t *testing.T, d time.Duration, in workflows.WatchInput) workflows.WatchInput {
	t.Helper()
	s.RegisterDelayedCallback(func() { s.SetContinueAsNewSuggested(true) }, d)
	s.pace()
	s.ExecuteWorkflow(workflows.Watch, in)
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, s.GetWorkflowError(), &next)
	var carried workflows.WatchInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &carried))
	return carried
}

// pace makes each look take ten seconds of the test environment's clock, which stands still while an activity runs.
func (s *sentry) pace() {
	s.OnActivity("Sample", mock.Anything, mock.Anything).Return(s.sample).After(10 * time.Second)
}

func (s *sentry) status(t *testing.T) (out workflows.WatchStatus) {
	t.Helper()
	answer, err := s.QueryWorkflow(workflows.QueryStatus)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&out))
	return out
}

func TestWatchShowsWhereThePositionsAre(t *testing.T) {
	s := newSentry()
	carried := s.live(t, 5*time.Minute, workflows.WatchInput{Runbook: "orders"})
	require.Greater(t, len(s.looks), 10)
	first := s.looks[0]
	require.Equal(t, "east", first.Route.From.Name)
	require.Equal(t, "west", first.Route.To.Name)
	require.Equal(t, activities.Run{Runbook: "orders", WorkflowID: "watch/orders", FirstRunID: first.Run.FirstRunID}, first.Run)
	require.Equal(t, 10*time.Second, first.Every)
	require.Equal(t, 30*time.Second, first.SilentAfter)
	require.Equal(t, watchBegan, first.Until.UTC(), "the first look is told at once")
	require.True(t, s.looks[1].Until.After(s.looks[1].Before.Next))
	got := s.status(t)
	require.Equal(t, workflows.PhaseWatching, got.Phase)
	require.Equal(t, "east", got.Active)
	require.EqualValues(t, 12, got.Links[0].Lag)
	require.Empty(t, got.Trouble)
	require.Len(t, carried.Carried, 1, "the next execution knows what this one saw")
	require.Equal(t, s.looks[len(s.looks)-1].Before.Seen.Before(carried.Carried[0].Seen), true)
}

// P20: Watch moves with the active cluster, and what it saw before the switch stays what it was.
func TestP20_WatchMovesWithTheActiveCluster(t *testing.T) {
	s := newSentry()
	s.RegisterDelayedCallback(func() { s.cluster, s.epoch = "west", 8 }, 95*time.Second)
	carried := s.live(t, 4*time.Minute, workflows.WatchInput{Runbook: "orders"})
	last := s.looks[len(s.looks)-1]
	require.Equal(t, "west", last.Route.From.Name)
	require.EqualValues(t, 8, last.Epoch)
	got := s.status(t)
	require.Equal(t, "west", got.Active)
	require.Len(t, got.Links, 1)
	require.Equal(t, "west", got.Links[0].From)
	require.Equal(t, workflows.PhaseWatching, got.Phase)
	require.Len(t, carried.Carried, 2)
}

func TestWatchWithoutAWayBackSaysThatNothingIsProtected(t *testing.T) {
	s := newSentry()
	s.cluster, s.epoch = "west", 8
	s.book.Links = s.book.Links[:1]
	s.live(t, 10*time.Minute, workflows.WatchInput{Runbook: "orders"})
	require.Empty(t, s.looks)
	got := s.status(t)
	require.Equal(t, workflows.PhaseBlind, got.Phase)
	require.Contains(t, got.Trouble, "the runbook has no link that leads away from there: it is not protected")
}

func TestWatchSaysLoudlyThatTheSourceIsSilent(t *testing.T) {
	s := newSentry()
	s.RegisterDelayedCallback(func() { s.silent = true }, 95*time.Second)
	s.live(t, 4*time.Minute, workflows.WatchInput{Runbook: "orders", SilentAfter: time.Minute})
	got := s.status(t)
	require.Equal(t, workflows.PhaseSilent, got.Phase)
	l := got.Links[0]
	require.WithinRange(t, l.LastAnswer, watchBegan.Add(80*time.Second), watchBegan.Add(95*time.Second))
	says := l.Says("orders", watchBegan.Add(10*time.Minute))
	require.Contains(t, says, "**EAST DOES NOT ANSWER.** Its last answer was at "+l.LastAnswer.Format(time.RFC3339))
	require.Contains(t, says, "west lacked **12 records** of east")
	require.Contains(t, says, "`switchback plan unplanned orders --to west`")
	l.TargetDead = true
	require.Contains(t, l.Says("orders", watchBegan), "look at the worker's own network first")
}

func TestWatchSurvivesEveryError(t *testing.T) {
	s := newSentry()
	at := func(d time.Duration, do func()) { s.RegisterDelayedCallback(do, d) }
	at(1*time.Minute, func() { s.broken = final(activities.TypeInvalid, "orders.yaml:3: a key is unknown") })
	at(5*time.Minute, func() {
		require.Contains(t, s.status(t).Trouble, "what was read before is used: orders.yaml:3")
		s.broken = nil
	})
	at(10*time.Minute, func() { s.consul = "connection refused" })
	at(15*time.Minute, func() {
		got := s.status(t)
		require.Contains(t, got.Trouble, "connection refused")
		require.Equal(t, workflows.PhaseWatching, got.Phase, "Consul is away, Kafka is not: it goes on looking")
		s.consul = ""
	})
	at(20*time.Minute, func() { s.failing = final(activities.TypeNotFound, "switchback.positions does not exist") })
	at(25*time.Minute, func() {
		got := s.status(t)
		require.Equal(t, workflows.PhaseBlind, got.Phase)
		require.Contains(t, got.Links[0].Trouble, "switchback.positions does not exist")
		require.False(t, got.Links[0].Seen.IsZero(), "what was seen is still known")
		s.failing = errors.New("something nobody has thought of")
	})
	at(30*time.Minute, func() { s.failing = nil })
	s.live(t, 40*time.Minute, workflows.WatchInput{Runbook: "orders"})
	got := s.status(t)
	require.Equal(t, workflows.PhaseWatching, got.Phase)
	require.Empty(t, got.Trouble)
	require.Empty(t, got.Links[0].Trouble)
}

func TestWatchEndsWhenItIsCancelledAndNeverBefore(t *testing.T) {
	s := newSentry()
	s.pace()
	s.RegisterDelayedCallback(s.CancelWorkflow, 3*time.Minute)
	s.ExecuteWorkflow(workflows.Watch, workflows.WatchInput{Runbook: "orders"})
	require.True(t, s.IsWorkflowCompleted())
	require.ErrorContains(t, s.GetWorkflowError(), "canceled")
	require.False(t, s.Now().Before(watchBegan.Add(3*time.Minute)))
}

func TestWatchClampsWhatIsDangerous(t *testing.T) {
	s := newSentry()
	s.live(t, time.Minute, workflows.WatchInput{Runbook: "orders", Every: time.Nanosecond, SilentAfter: 48 * time.Hour})
	require.Equal(t, time.Second, s.looks[0].Every)
	require.Equal(t, time.Hour, s.looks[0].SilentAfter)
}
