package workflows_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

func TestPlannedFailoverInOrder(t *testing.T) {
	p := newPlay(t, newWorld(t))
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Equal(t, "checkout west@8, billing west@8, keys west@8, fence true, groups closed true, syncs false", p.state())
	require.EqualValues(t, 8, out.Epoch)
	require.Empty(t, out.Deviations)

	status := p.status(t)
	var names []string
	for _, s := range status.Steps {
		names = append(names, string(s.Step))
		require.Equal(t, workflows.Done, s.State, "%s: %s", s.Step, s.Text)
	}
	require.Equal(t, runbooks.PlannedFailoverSteps, names)

	// The two that run beside others have no place of their own in the order.
	order := slices.DeleteFunc(slices.Clone(p.called), func(n string) bool { return n == "KeepMarks" })
	i := slices.Index(order, "Stop")
	require.Equal(t, []string{"Snapshot", "Read", "Acquire", "Check", "Acquire", "Suspend", "Stop"}, order[:i+1])
	p.before(t, "Stop", "Raise")
	p.before(t, "Raise", "Quiesce")
	p.before(t, "Quiesce", "Drain")
	p.before(t, "Drain", "HandOver")
	p.before(t, "HandOver", "Promote")
	p.before(t, "Promote", "Switch")
	p.before(t, "Promote", "KeepMarks")
	p.before(t, "Switch", "Start")
	require.Equal(t, []string{"Start", "Start", "Target", "Write", "Release", "Release"}, order[len(order)-6:])
	require.Equal(t, 1, p.marks)
	require.Len(t, p.released, 2)
	require.Equal(t, "link/east-west", p.released[0].Entity)
	require.Equal(t, "runbook/orders", p.released[1].Entity)
	require.Equal(t, "west", p.released[1].Active)
	require.EqualValues(t, 8, p.released[1].Epoch)
	require.NotNil(t, p.released[1].UnprotectedSince)
}

// Whoever wrote to the source behind the stop all the same left records there. They have a name, and the report does not
// say that nothing was lost.
func TestP23_StrandedRecordsAreNeverSilent(t *testing.T) {
	w := newWorld(t)
	w.stranded = []string{"2 records of orders.00-3 from offset 17"}
	p := newPlay(t, w)
	out, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Len(t, out.Deviations, 1)
	require.Contains(t, out.Deviations[0], "orders.00-3")
	rep, err := report.Parse([]byte(p.reports[len(p.reports)-1]))
	require.NoError(t, err)
	require.False(t, rep.RPO.Known)
	require.Nil(t, rep.RPO.Records)
	require.Nil(t, rep.RPO.Met)
	require.Contains(t, rep.RPO.Text, "at least 2 records of orders.00-3")
}
