package workflows_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

var bringBack = workflows.RecoverInput{Runbook: "orders", Reason: "east is back", By: "carol"}

// salvager stands for the old cluster, which is fenced, and the copies of what it has: ten offsets of one topic in two
// shards. Its methods carry the names of the real activities.
type salvager struct {
	w        *world
	plan     activities.RecoveryPlan
	copied   map[int]int64 // by shard
	rewound  bool
	accounts []activities.AccountInput
	opened   string // where the groups read on the old cluster; empty lets nobody in
	closed   int    // how often they were closed again
	blocks   int    // copies that go on until they are cancelled
}

const strandedOffsets = 10

// newRecovery is a workload that was moved to west, and whose old cluster is back.
func newRecovery(t *testing.T) (*play, *salvager) {
	w := newWorld(t)
	w.cluster, w.epoch = "west", 8
	w.book.Recovery = &runbooks.Recovery{Default: "append"}
	fenced := time.Date(2026, 3, 14, 4, 0, 0, 0, time.UTC)
	w.entity.Fencing = []activities.Fencing{{Cluster: "east", Fenced: &fenced}}
	total := activities.StrandedTopic{Topic: "orders", Treatment: replication.TreatAppend, Into: "orders", Partitions: 2, Offsets: strandedOffsets, Tally: replication.Tally{Recovered: strandedOffsets}}
	s := &salvager{w: w, copied: map[int]int64{}, plan: activities.RecoveryPlan{
		Tail: "east-id/unplanned/r1", Epoch: 8, Marked: fenced, Shards: 2, Partitions: 2, Topics: []activities.StrandedTopic{total}, Total: total, Text: "10 offsets are stranded",
		Read: []replication.ReadAlready{{Group: "billing", Topic: "orders", Records: 3}},
	}}
	p := newPlay(t, w)
	p.RegisterActivity(s)
	return p, s
}

func (s *salvager) all() (n int64) {
	for _, c := range s.copied {
		n += c
	}
	return n
}

func (s *salvager) PlanRecovery(ctx context.Context, in activities.PlanRecoveryInput) (activities.RecoveryPlan, error) {
	if _, err := s.w.begin(ctx, in); err != nil {
		return activities.RecoveryPlan{}, err
	}
	return s.plan, s.w.guarded(in.Guard)
}

func (s *salvager) PrepareRecovery(ctx context.Context, in activities.RecoveryInput) (activities.TailResult, error) {
	acted, err := s.w.begin(ctx, in)
	return activities.TailResult{Acted: acted}, err
}

func (s *salvager) CopyTails(ctx context.Context, in activities.CopyInput) (activities.CopyResult, error) {
	acted, err := s.w.begin(ctx, in)
	if err == nil {
		err = s.w.guarded(in.Guard)
	}
	if err != nil {
		return activities.CopyResult{}, err
	}
	s.w.mu.Lock()
	blocks := s.blocks > 0
	if blocks {
		s.blocks--
		s.copied[in.Shard] = max(s.copied[in.Shard], 2) // what was committed stays
	} else {
		s.copied[in.Shard] = strandedOffsets / 2
	}
	s.w.mu.Unlock()
	if blocks {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			activity.RecordHeartbeat(ctx) // which tells it of its cancellation
		}
		return activities.CopyResult{}, ctx.Err()
	}
	return activities.CopyResult{Acted: acted, Partitions: 1}, s.w.end(ctx)
}

func (s *salvager) Progress(ctx context.Context, in activities.RecoveryInput) (activities.RecoveryProgress, error) {
	_, err := s.w.begin(ctx, in)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return activities.RecoveryProgress{Handled: s.all(), Total: strandedOffsets, Tally: replication.Tally{Recovered: s.all()}, At: s.w.now()}, err
}

func (s *salvager) RewindGroups(ctx context.Context, in activities.RewindInput) (activities.RewindResult, error) {
	acted, err := s.w.begin(ctx, in)
	if err != nil {
		return activities.RewindResult{}, err
	}
	s.rewound = true
	return activities.RewindResult{Acted: acted, Text: "nothing to rewind"}, s.w.end(ctx)
}

func (s *salvager) OpenReading(ctx context.Context, in activities.ReadingInput) (activities.ReadingResult, error) {
	acted, err := s.w.begin(ctx, in)
	if err != nil {
		return activities.ReadingResult{}, err
	}
	return activities.ReadingResult{Acted: acted, Prefix: s.opened, Text: "opened"}, s.w.end(ctx)
}

func (s *salvager) AwaitReading(ctx context.Context, in activities.ReadingInput) (activities.ReadingResult, error) {
	acted, err := s.w.begin(ctx, in)
	return activities.ReadingResult{Acted: acted, Text: "billing has read 4 of 10 offsets"}, err
}

func (s *salvager) CloseReading(ctx context.Context, in activities.ReadingInput) (activities.ReadingResult, error) {
	acted, err := s.w.begin(ctx, in)
	if err != nil {
		return activities.ReadingResult{}, err
	}
	s.closed++
	out := activities.ReadingResult{Acted: acted, Text: "closed", Groups: []activities.GroupRead{{Group: "billing", Read: 4, Of: 10}},
		Left: []replication.Outcome{{Name: "billing/1", Status: replication.Pending, Reason: "running on app-1"}}}
	return out, s.w.end(ctx)
}

func (s *salvager) Account(ctx context.Context, in activities.AccountInput) (activities.AccountResult, error) {
	acted, err := s.w.begin(ctx, in)
	if err != nil {
		return activities.AccountResult{}, err
	}
	s.w.mu.Lock()
	s.accounts = append(s.accounts, in)
	total := activities.StrandedTopic{Topic: "orders", Treatment: replication.TreatAppend, Partitions: 2, Offsets: strandedOffsets, Tally: replication.Tally{Recovered: s.all(), Left: strandedOffsets - s.all()}}
	s.w.mu.Unlock()
	return activities.AccountResult{Acted: acted, Total: total, Topics: []activities.StrandedTopic{total}, Finished: total.Left == 0, Text: "the account"}, s.w.end(ctx)
}

func (p *play) bring(t *testing.T, in workflows.RecoverInput) (workflows.Result, error) {
	t.Helper()
	p.ExecuteWorkflow(workflows.RecoverLaggedData, in)
	return p.ended(t)
}

func TestRecoveryInOrder(t *testing.T) {
	p, s := newRecovery(t)
	p.book.Gates.Recovery = runbooks.Gate{Approvals: 1, Expiry: runbooks.Duration(time.Hour)}
	p.tell(time.Second, workflows.UpdateApprove, by("carol"))
	p.tell(2*time.Second, workflows.UpdateApprove, by("alice"))
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Contains(t, p.answers[0], "cannot approve it too")
	require.EqualValues(t, strandedOffsets, s.all())
	require.Equal(t, "west", p.cluster)
	require.EqualValues(t, 8, p.epoch, "a recovery switches nothing")
	var names []string
	for _, row := range p.status(t).Steps {
		names = append(names, string(row.Step))
		require.Equal(t, workflows.Done, row.State, "%s: %s", row.Step, row.Text)
	}
	require.Equal(t, runbooks.RecoverLaggedDataSteps, names)
	p.before(t, "PlanRecovery", "PrepareRecovery")
	p.before(t, "PrepareRecovery", "CopyTails")
	p.before(t, "CopyTails", "RewindGroups")
	p.before(t, "RewindGroups", "Account")
	p.before(t, "Account", "Write")
	last := p.released[len(p.released)-1]
	require.Empty(t, last.Active, "the workload stays where it is")
	require.Nil(t, last.UnprotectedSince)
	require.Empty(t, p.inputs["Acquire"].(activities.Acquire).To, "a run that goes nowhere is not refused because the workload is there")

	var in activities.ReportInput
	require.NoError(t, json.Unmarshal([]byte(`{"report":`+p.reports[0]+`}`), &in))
	r := p.lastReport(t)
	require.Equal(t, report.KindRecovery, r.Kind)
	require.True(t, r.LaggedData.Settled)
	require.True(t, r.LaggedData.Finished)
	require.EqualValues(t, strandedOffsets, r.LaggedData.Total.Sum())
	require.Equal(t, []report.ReadAlready{{Group: "billing", Topic: "orders", Records: 3}}, r.LaggedData.ReadAlready)
	require.Nil(t, r.Protection.UnprotectedSince)
	require.Contains(t, r.Markdown(), "What became of it")
}

// failing at each activity, before it acted and after it acted with the answer lost for good: before the copy nothing was done, and the
// run fails; from the copy on it parks, and a retry ends it well.
func TestRecoveryFailingAtEachStep(t *testing.T) {
	for _, tc := range []struct {
		activity, outcome string
		copied            int64
		acts              bool
	}{
		{"Snapshot", workflows.FailedRun, 0, false},
		{"Read", workflows.FailedRun, 0, false},
		{"Acquire", workflows.FailedRun, 0, true},
		{"Entity", workflows.FailedRun, 0, false},
		{"PlanRecovery", workflows.FailedRun, 0, false},
		{"PrepareRecovery", workflows.Completed, strandedOffsets, false},
		{"CopyTails", workflows.Completed, strandedOffsets, true},
		{"RewindGroups", workflows.Completed, strandedOffsets, true},
		{"Account", workflows.Completed, strandedOffsets, true},
		{"Write", workflows.Completed, strandedOffsets, true},
		{"Release", workflows.Completed, strandedOffsets, true},
	} {
		for _, after := range []bool{false, true} {
			if after && !tc.acts {
				continue // before is the same
			}
			t.Run(fmt.Sprintf("%s after it acted %v", tc.activity, after), func(t *testing.T) {
				p, s := newRecovery(t)
				list := p.fail
				if after {
					list = p.failAfter
				}
				list[tc.activity] = []error{final(activities.TypeInvalid, "it broke")}
				p.tell(30*time.Minute, workflows.UpdateRetry, by("alice"))
				p.tell(31*time.Minute, workflows.UpdateRetry, by("alice"))
				out, err := p.bring(t, bringBack)
				require.Equal(t, tc.copied, s.all())
				if tc.outcome == workflows.FailedRun {
					require.ErrorContains(t, err, "it broke")
					require.Empty(t, p.holder)
					return
				}
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				if tc.activity != "CopyTails" { // the other shard got on meanwhile, so the copies were simply started again
					require.Contains(t, p.answers[0], "retry", "it did not park")
				}
			})
		}
	}
}

// To skip leaves the rest, by name: the account says so, and the run completes.
func TestASkippedCopyLeavesTheRest(t *testing.T) {
	p, s := newRecovery(t)
	p.fail["PrepareRecovery"] = []error{final(activities.TypeInvalid, "it broke")}
	p.tell(30*time.Minute, workflows.UpdateSkip, by("alice"))
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Zero(t, s.all())
	require.EqualValues(t, strandedOffsets, p.lastReport(t).LaggedData.Total.Left)
	require.Contains(t, out.Sentence, "what is left is kept on east")
}

// Stopping at each step, by abort or by cancelling the workflow, ends the run there; what was recovered stays, and the report has the
// account. Behind the account there is nothing to stop.
func TestRecoveryStoppedAtEachStep(t *testing.T) {
	for _, how := range []string{"cancel", workflows.UpdateAbort} {
		for _, tc := range []struct {
			activity, outcome string
			account           bool
			copied            int64
		}{
			{"Snapshot", workflows.Aborted, false, 0}, {"Read", workflows.Aborted, false, 0}, {"Acquire", workflows.Aborted, false, 0}, {"Entity", workflows.Aborted, false, 0},
			{"PlanRecovery", workflows.Aborted, false, 0}, {"PrepareRecovery", workflows.Aborted, false, 0}, {"CopyTails", workflows.Aborted, true, strandedOffsets},
			{"RewindGroups", workflows.Aborted, true, strandedOffsets}, {"Account", workflows.Aborted, true, strandedOffsets},
			{"Write", workflows.Completed, true, strandedOffsets}, {"Release", workflows.Completed, true, strandedOffsets},
		} {
			t.Run(how+"/"+tc.activity, func(t *testing.T) {
				p, s := newRecovery(t)
				if tc.activity == "CopyTails" {
					s.blocks = 1
				}
				p.hook = p.once(tc.activity, func() { p.halt(how) })
				out, err := p.bring(t, bringBack)
				require.NoError(t, err)
				require.Equal(t, tc.outcome, out.Outcome, out.Sentence)
				if require.Equal(t, tc.copied > 0, s.all() > 0); tc.activity == "CopyTails" {
					require.Less(t, s.all(), tc.copied, "one shard was stopped, the other one maybe not begun")
				} else {
					require.Equal(t, tc.copied, s.all())
				}
				require.Equal(t, "west@8", fmt.Sprintf("%s@%d", p.cluster, p.epoch), "the workload stays where it is")
				require.False(t, p.fenced)
				for _, a := range s.accounts[max(0, len(s.accounts)-1):] {
					require.Equal(t, tc.outcome == workflows.Completed, a.Final, "an aborted run ends nothing")
				}
				if len(p.reports) == 0 {
					require.Contains(t, []string{"Snapshot", "Read"}, tc.activity, "it knew its way, and is reported")
					return
				}
				r := p.lastReport(t)
				require.Equal(t, tc.account, r.LaggedData != nil && r.LaggedData.Settled)
				if tc.account && tc.outcome == workflows.Aborted {
					require.Contains(t, out.Sentence, "what was recovered stays")
				}
			})
		}
	}
}

// A hold stops the copies, which are awaited; to resume starts them again.
func TestRecoveryIsHeldBetweenTransactions(t *testing.T) {
	p, s := newRecovery(t)
	s.blocks = 1
	p.hook = p.once("CopyTails", func() { p.give(workflows.UpdateHold, by("alice")) })
	p.tell(2*time.Minute, workflows.UpdateRollback, by("alice"))
	p.tell(10*time.Minute, workflows.UpdateResume, by("alice"))
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome, out.Sentence)
	require.Contains(t, p.answers[0], "copies stop between two transactions")
	require.Contains(t, p.answers[1], "what was recovered stays recovered")
	require.GreaterOrEqual(t, p.count("CopyTails"), 2, "they were started again")
	require.EqualValues(t, strandedOffsets, s.all())
}

// TestP18_MarksThatDoNotMatchParkTheRun: to skip leaves those partitions, and recovers the others.
func TestP18_MarksThatDoNotMatchParkTheRun(t *testing.T) {
	p, s := newRecovery(t)
	s.plan.Mismatched = []replication.Outcome{{Name: "orders-1", Status: replication.Unclear, Reason: "the records say before offset 90"}}
	p.tell(time.Minute, workflows.UpdateSkip, by("alice"))
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, p.answers[0], "skip plan")
	require.EqualValues(t, strandedOffsets, s.all())
}

func TestRecoveriesThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*play, *salvager, *workflows.RecoverInput)
		says   string
	}{
		"not fenced": {func(p *play, _ *salvager, _ *workflows.RecoverInput) {
			p.entity.Fencing = []activities.Fencing{{Cluster: "east", Workflow: "fence/orders/east", Waiting: "east to answer"}}
		}, "east is not fenced yet, so somebody may still write there and what is stranded is not known: fence/orders/east waits for east to answer"},
		"no way":    {func(p *play, _ *salvager, _ *workflows.RecoverInput) { p.book.Recovery = nil }, "the run names no way"},
		"wrong way": {func(_ *play, _ *salvager, in *workflows.RecoverInput) { in.Default = "discard" }, `"discard" is no way`},
		"from here": {func(_ *play, _ *salvager, in *workflows.RecoverInput) { in.From = "west" }, "nothing can be stranded there"},
		"a problem": {func(_ *play, s *salvager, _ *workflows.RecoverInput) {
			s.plan.Findings = []activities.Finding{{Check: "fence", Level: activities.LevelProblem, Means: "east is not fenced on every broker"}}
		}, "east is not fenced on every broker"},
		"left behind": {func(p *play, _ *salvager, _ *workflows.RecoverInput) {
			p.abandoned = &activities.Holder{Kind: report.KindPlanned, Run: activities.Run{WorkflowID: "dead"}}
		}, "has to be settled first"},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := newRecovery(t)
			in := bringBack
			tc.change(p, s, &in)
			_, err := p.bring(t, in)
			require.ErrorContains(t, err, tc.says)
			require.Zero(t, s.all())
			require.Empty(t, p.holder)
		})
	}
}

// One whose holder was a recovery that somebody terminated goes on with it.
func TestP30_ARecoveryGoesOnAfterOneThatWasTerminated(t *testing.T) {
	p, s := newRecovery(t)
	p.abandoned = &activities.Holder{Kind: report.KindRecovery, Run: activities.Run{WorkflowID: "dead"}}
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.EqualValues(t, strandedOffsets, s.all())
	require.Equal(t, 1, s.closed, "it may have let groups in on the old cluster")
	require.False(t, p.released[len(p.released)-1].Unsettled)
}

func TestNothingIsLeftToRecover(t *testing.T) {
	p, s := newRecovery(t)
	s.plan = activities.RecoveryPlan{Tail: "east-id/r1", Finished: true, Text: "everything was accounted for"}
	out, err := p.bring(t, bringBack)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, out.Outcome)
	require.Contains(t, out.Sentence, "nothing is left to recover")
	require.Zero(t, p.count("CopyTails"))
}

func TestPlanRecoverLaggedData(t *testing.T) {
	p, s := newRecovery(t)
	p.ExecuteWorkflow(workflows.PlanRecoverLaggedData, bringBack)
	require.NoError(t, p.GetWorkflowError())
	var plan workflows.RecoveryPlan
	require.NoError(t, p.GetWorkflowResult(&plan))
	require.True(t, plan.GoesIfNow)
	require.Equal(t, "east", plan.From)
	require.Equal(t, "west", plan.To)
	require.Equal(t, s.plan.Read, plan.Stranded.Read)
	require.Len(t, plan.Steps, len(runbooks.RecoverLaggedDataSteps))
	require.True(t, p.inputs["PlanRecovery"].(activities.PlanRecoveryInput).DryRun)
	require.Zero(t, p.count("Acquire"))
	require.Zero(t, s.all())
}
