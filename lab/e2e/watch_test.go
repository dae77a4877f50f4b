package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/workflows"
)

// watches asks Watch of a runbook how it is.
func (p *play) watches() (s workflows.WatchStatus, err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	answer, err := p.Temporal.QueryWorkflow(ctx, "watch/"+p.Workload.Name, "", workflows.QueryStatus)
	if err != nil {
		return s, err
	}
	return s, answer.Get(&s)
}

// seesThat waits until Watch has seen something of its one link.
func (p *play) seesThat(what string, is func(workflows.WatchStatus, workflows.WatchedLink) bool) (out workflows.WatchedLink) {
	p.t.Helper()
	eventually(p.t, "Watch to see "+what, func() (bool, error) {
		s, err := p.watches()
		if err != nil || len(s.Links) != 1 {
			return false, fmt.Errorf("%+v: %w", s, err)
		}
		out = s.Links[0]
		return is(s, out), fmt.Errorf("%+v", s)
	})
	return out
}

// Watch is started from a shell, sees records arrive, and when the source is killed keeps what it saw, says since when
// there was no answer, and how much the other cluster lacked.
func TestWatchKeepsThePositionsOfAClusterThatIsLost(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	o := s.operator(t)
	var first workflows.WatchStatus
	o.json(0, &first, "watch", "orders", "--once", "--every", "1s", "--silent-after", "3s", "--timeout", patience.String())
	require.Equal(t, "east", first.Active)
	require.Equal(t, workflows.PhaseWatching, first.Phase)
	require.Len(t, first.Links, 1)
	require.Equal(t, 3, first.Links[0].Topics)
	require.Equal(t, 6, first.Links[0].Partitions)
	require.Zero(t, first.Links[0].Unknown)

	moving := p.seesThat("records arrive", func(_ workflows.WatchStatus, l workflows.WatchedLink) bool {
		return l.Seen.After(first.Links[0].Seen) && len(l.Worst) == 3 && l.Worst[0].Rate > 0 && l.Worst[1].Rate > 0
	})
	o.runs(0, "watch", "orders", "--once", "--timeout", patience.String()) // it runs already: nothing starts anew
	began := time.Now()
	for _, broker := range s.BrokerProcesses("east") {
		require.NoError(t, s.Kill(broker))
	}
	gone := time.Now()
	silent := p.seesThat("that east is silent", func(s workflows.WatchStatus, _ workflows.WatchedLink) bool { return s.Phase == workflows.PhaseSilent })
	require.WithinRange(t, silent.LastAnswer, moving.LastAnswer, gone.Add(time.Second), "killed between %s and %s", began, gone)
	require.False(t, silent.Seen.After(silent.LastAnswer))
	require.False(t, silent.Seen.Before(moving.Seen))
	require.False(t, silent.TargetDead)
	require.Equal(t, 6, silent.Partitions)

	later := p.seesThat("the same for longer", func(_ workflows.WatchStatus, l workflows.WatchedLink) bool {
		return l.Next.After(silent.Next.Add(5 * time.Second))
	})
	require.True(t, later.Seen.Equal(silent.Seen), "the last whole sample stays")
	require.True(t, later.LastAnswer.Equal(silent.LastAnswer))
	require.Equal(t, silent.Lag, later.Lag)
	out, _ := o.runs(1, "watch", "orders", "--once", "--timeout", patience.String())
	require.Contains(t, out, "EAST DOES NOT ANSWER. Its last answer was at "+silent.LastAnswer.UTC().Format(time.RFC3339))

	o.runs(0, "watch", "orders", "--stop")
	eventually(t, "Watch to end", func() (bool, error) {
		about, err := p.Temporal.DescribeWorkflowExecution(t.Context(), "watch/orders", "")
		return err == nil && about.GetWorkflowExecutionInfo().GetCloseTime() != nil, err
	})
}
