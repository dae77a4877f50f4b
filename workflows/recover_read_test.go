package workflows_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// letIn is a recovery that rewinds, and lets groups read on the old cluster for two hours.
func letIn(t *testing.T) (*play, *salvager, workflows.RecoverInput) {
	p, s := newRecovery(t)
	p.book.Recovery = &runbooks.Recovery{Default: "rewind", ReadFor: runbooks.Duration(2 * time.Hour)}
	s.opened = "kafka/orders/recovery/east"
	return p, s, bringBack
}

// Groups are let in after their offsets were set, and closed out before the account is taken.
func TestGroupsReadOnTheOldCluster(t *testing.T) {
	p, s, in := letIn(t)
	out, err := p.bring(t, in)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	for i, earlier := range []string{"RewindGroups", "OpenReading", "AwaitReading", "CloseReading"} {
		p.before(t, earlier, []string{"OpenReading", "AwaitReading", "CloseReading", "Account"}[i])
	}
	require.Equal(t, 1, s.closed)
	require.Contains(t, out.Deviations[0], "billing/1, which read on east, did not say that it had stopped (running on app-1)")
	require.Contains(t, p.lastReport(t).Standing, "of what was rewound on east, group billing has read 4 of 10 offsets")
	asked := p.inputs["AwaitReading"].(activities.ReadingInput)
	require.Equal(t, []string{"billing"}, asked.Clients, "no producer")
	require.InDelta(t, 2*time.Hour, asked.Until.Sub(p.inputs["OpenReading"].(activities.ReadingInput).Until), float64(20*time.Minute))
}

// Without a time nobody is let in; the run's own time counts before the runbook's.
func TestNobodyReadsWithoutATime(t *testing.T) {
	p, s, in := letIn(t)
	p.book.Recovery.ReadFor = 0
	out, err := p.bring(t, in)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Zero(t, s.closed)
	require.NotContains(t, p.inputs, "OpenReading")

	p, s, in = letIn(t)
	in.ReadFor = runbooks.Duration(24 * time.Hour)
	_, err = p.bring(t, in)
	require.NoError(t, err)
	require.Equal(t, 1, s.closed)
	require.Greater(t, p.inputs["AwaitReading"].(activities.ReadingInput).Until.Sub(p.now()), 23*time.Hour)
}

// In a topic that is not rewound a group stands where it stood when its cluster was lost.
func TestReadersMeetOtherTopicsToo(t *testing.T) {
	p, s, in := letIn(t)
	rewound, other := s.plan.Topics[0], s.plan.Topics[0]
	rewound.Topic, rewound.Treatment = "customers", replication.TreatRewind
	s.plan.Topics = []activities.StrandedTopic{rewound, other}
	out, err := p.bring(t, in)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.True(t, slices.ContainsFunc(p.lastReport(t).Findings, func(f report.Finding) bool {
		return f.Check == "reading" && strings.Contains(f.Means, "stand in orders where they stood when it was lost")
	}))
}

// Whatever fails, and whoever aborts: groups that were let in are closed out again.
func TestReadersAreClosedOutHoweverItEnds(t *testing.T) {
	for _, at := range []string{"OpenReading", "AwaitReading", "CloseReading"} {
		t.Run(at+" fails", func(t *testing.T) {
			p, s, in := letIn(t)
			p.fail[at] = []error{final(activities.TypeInvalid, "it broke")}
			p.tell(30*time.Minute, workflows.UpdateRetry, by("alice"))
			out, err := p.bring(t, in)
			require.NoError(t, err)
			require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
			require.Contains(t, p.answers[0], "retry", "it did not park")
			require.Equal(t, 1, s.closed)
		})
		t.Run("aborted at "+at, func(t *testing.T) {
			p, s, in := letIn(t)
			p.hook = p.once(at, func() { p.give(workflows.UpdateAbort, by("alice")) })
			out, err := p.bring(t, in)
			require.NoError(t, err)
			require.Equal(t, workflows.Aborted, out.Outcome, out.Sentence)
			require.Equal(t, 1, s.closed)
		})
	}
}
