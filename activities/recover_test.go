package activities

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
	"switchback/replication/kafka"
	"switchback/runbooks"
)

// recoverers are the real engine between both fakes.
type worldRecoverers struct{ w *world }

func (r worldRecoverers) Open(_ context.Context, from, to Site) (Recoverer, error) {
	return worldRecoverer{w: r.w, old: r.w.as(from.Name, me), to: r.w.as(to.Name, me)}, nil
}

type worldRecoverer struct {
	w       *world
	old, to *kafka.Cluster
}

func (r worldRecoverer) Close()                                   {}
func (r worldRecoverer) EnsureRecovery(ctx context.Context) error { return r.to.EnsureRecovery(ctx) }
func (r worldRecoverer) EnsureDiverted(ctx context.Context, topics []string) error {
	return r.old.EnsureDiverted(ctx, r.to, topics)
}
func (r worldRecoverer) Stranded(ctx context.Context, tails []replication.Tail) ([]replication.Stranded, error) {
	return r.old.Stranded(ctx, r.to, tails)
}
func (r worldRecoverer) Recover(ctx context.Context, job replication.CopyJob, told func([]replication.Recovered)) (out []replication.Recovered, err error) {
	err = r.w.do(ctx, "west.Recover "+job.ID, func() (err error) { out, err = r.old.Recover(ctx, r.to, job, told); return err })
	return out, err
}
func (r worldRecoverer) Recoveries(ctx context.Context, tail string) ([]replication.Recovered, error) {
	return r.to.Recoveries(ctx, tail)
}
func (r worldRecoverer) Prints(ctx context.Context, old bool, ranges []replication.Range) (map[replication.Partition][]Print, error) {
	on, prints := r.to, map[replication.Partition][]Print{}
	if old {
		on = r.old
	}
	var mu sync.Mutex
	return prints, on.ReadRanges(ctx, ranges, false, func(i int, rec *kgo.Record) error {
		mu.Lock()
		defer mu.Unlock()
		prints[ranges[i].Partition] = append(prints[ranges[i].Partition],
			Print{Offset: rec.Offset, Sum: sha256.Sum256(fmt.Appendf(nil, "%q %q %q", rec.Key, rec.Value, rec.Headers)), Timestamp: rec.Timestamp.UnixMilli()})
		return nil
	})
}

// stranded is a world whose old cluster came back and is fenced: east has offset 4 of orders-0, which west never got, and
// west has taken something of its own since.
func stranded(t *testing.T, more ...string) *world {
	w, since := left(t)
	ctx := context.Background()
	grants := allow(me, "CLUSTER", "LITERAL", replication.ClusterName, "CREATE")
	for _, topic := range []string{"orders", "payments"} {
		grants = append(grants, allow(me, "TOPIC", "LITERAL", topic, "WRITE", "DESCRIBE")...)
		grants = append(grants, allow(me, "TOPIC", "LITERAL", topic+replication.DivertSuffix, "WRITE", "DESCRIBE")...)
	}
	require.NoError(t, w.as("west", admin).CreateACLs(ctx, grants))
	w.put("east", "orders", 0, more...)
	w.put("west", "orders", 0, "of west")
	w.find()
	require.Eventually(t, func() bool { // a loaded machine may not get all of it done within the time for writes of one attempt
		out, err := w.whenReachable(since)
		return err == nil && out.Done
	}, time.Minute, time.Millisecond)
	w.epoch++ // the switch
	w.trace = nil
	return w
}

func (w *world) put(site, topic string, partition int32, values ...string) {
	w.t.Helper()
	cl := w.raw(site, admin)
	for _, v := range values {
		require.NoError(w.t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: partition, Key: []byte(v), Value: []byte(v)}).FirstErr())
	}
}

// values of a partition, as a read_committed consumer meets them.
func (w *world) values(site, topic string, partition int32) (list []string) {
	w.t.Helper()
	c := w.as(site, admin)
	ends, err := c.Ends(context.Background(), []string{topic})
	require.NoError(w.t, err)
	for _, e := range ends {
		if e.Partition == at(topic, partition) {
			require.NoError(w.t, c.Read(context.Background(), e.Partition, e.Start, e.HighWatermark, true, func(r *kgo.Record) error {
				list = append(list, string(r.Value))
				return nil
			}))
		}
	}
	return list
}

func (w *world) recovery() RecoveryInput {
	g := w.guard()
	return RecoveryInput{Guard: g, Route: w.route()}
}

// other is the guard of another run that recovers from the same marks.
func (in RecoveryInput) other(id string) RecoveryInput {
	in.Guard.Run.WorkflowID = id
	return in
}

func (w *world) planRecovery(in RecoveryInput, mode string) (RecoveryPlan, error) {
	return run[RecoveryPlan](w, (*Recovery)(nil).PlanRecovery, PlanRecoveryInput{RecoveryInput: in, Topics: w.runbook().Topics, Groups: w.runbook().Groups, Recovery: runbooks.Recovery{Default: mode}})
}

// recoverAll goes through all activities of a recovery in their order.
func (w *world) recoverAll(in RecoveryInput, mode string) (plan RecoveryPlan, account AccountResult, err error) {
	if plan, err = w.planRecovery(in, mode); err != nil {
		return plan, account, err
	}
	in.Tail = plan.Tail
	if _, err = run[TailResult](w, (*Recovery)(nil).PrepareRecovery, in); err != nil {
		return plan, account, err
	}
	for shard := range plan.Shards {
		if _, err = run[CopyResult](w, (*Recovery)(nil).CopyTails, CopyInput{RecoveryInput: in, Shard: shard}); err != nil {
			return plan, account, err
		}
	}
	if _, err = run[RewindResult](w, (*Recovery)(nil).RewindGroups, RewindInput{RecoveryInput: in, Groups: w.runbook().Groups}); err != nil {
		return plan, account, err
	}
	account, err = run[AccountResult](w, (*Recovery)(nil).Account, AccountInput{RecoveryInput: in, Final: true})
	return plan, account, err
}

func problemsOf(p RecoveryPlan) (list []string) {
	for _, f := range p.Findings {
		if f.Level == LevelProblem {
			list = append(list, f.Means)
		}
	}
	return list
}

func TestRecoveryByAppend(t *testing.T) {
	t.Parallel()
	w := stranded(t, "late 1", "late 2")
	plan, account, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	require.Empty(t, problemsOf(plan))
	require.Empty(t, plan.Mismatched)
	require.Equal(t, 1, plan.Partitions)
	require.EqualValues(t, 3, plan.Total.Recovered)
	require.Equal(t, []int64{4, 7}, []int64{plan.Worst[0].From, plan.Worst[0].To})
	require.EqualValues(t, 4, plan.Worst[0].FirstOffset)
	require.EqualValues(t, 6, plan.Worst[0].LastOffset)

	require.Equal(t, []string{"v", "v", "v", "v", "of west", "v", "late 1", "late 2"}, w.values("west", "orders", 0))
	require.EqualValues(t, 3, account.Total.Recovered)
	require.Equal(t, account.Total.Offsets, account.Total.Sum())
	require.True(t, account.Finished)
	now, err := w.as("east", admin).TopicOverrides(context.Background(), []string{"orders"})
	require.NoError(t, err)
	require.Empty(t, now["orders"]["retention.ms"], "the tail is kept no longer")

	// Again: there is nothing left, and nothing is copied twice.
	again, err := w.planRecovery(w.recovery().other("second"), "append")
	require.NoError(t, err)
	require.True(t, again.Finished, again.Text)
}

func TestADryRunOfARecoveryWritesNothing(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	plan, err := run[RecoveryPlan](w, (*Recovery)(nil).PlanRecovery, PlanRecoveryInput{RecoveryInput: w.recovery(), Topics: w.runbook().Topics, Groups: w.runbook().Groups, Recovery: runbooks.Recovery{Default: "append"}, DryRun: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, plan.Total.Recovered)
	require.Empty(t, w.trace)
}

func TestRecoveryByDivertAndReport(t *testing.T) {
	t.Parallel()
	w := stranded(t, "late")
	_, account, err := w.recoverAll(w.recovery(), "report")
	require.NoError(t, err)
	require.EqualValues(t, 2, account.Total.Left)
	require.False(t, account.Finished, "what is only reported exists nowhere else")
	require.NotEmpty(t, account.Standing)
	now, err := w.as("east", admin).TopicOverrides(context.Background(), []string{"orders"})
	require.NoError(t, err)
	require.Equal(t, "-1", now["orders"]["retention.ms"], "it is kept")

	_, account, err = w.recoverAll(w.recovery().other("second"), "divert")
	require.NoError(t, err)
	require.EqualValues(t, 2, account.Total.Recovered)
	require.True(t, account.Finished)
	require.Equal(t, []string{"v", "late"}, w.values("west", "orders"+replication.DivertSuffix, 0))
	require.Equal(t, []string{"v", "v", "v", "v", "of west"}, w.values("west", "orders", 0))
}

// TestP31_RewoundRefusesAppend, and the other way round.
func TestP31_RewoundRefusesAppend(t *testing.T) {
	t.Parallel()
	w := stranded(t, "late")
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 6})
	plan, account, err := w.recoverAll(w.recovery(), "rewind")
	require.NoError(t, err)
	require.Empty(t, plan.Read, "nobody reads twice what is not copied")
	require.EqualValues(t, 2, account.Total.Left)
	require.False(t, account.Finished)
	committed, err := w.as("east", admin).Committed(context.Background(), "billing")
	require.NoError(t, err)
	require.EqualValues(t, 4, committed[at("orders", 0)], "at the mark")
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing"})[0].String(), "the groups are closed again")
	require.Equal(t, []string{"v", "v", "v", "v", "of west"}, w.values("west", "orders", 0))

	// Its readers have gone on since: they are not set back again.
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 5})
	_, _, err = w.recoverAll(w.recovery().other("second"), "rewind")
	require.NoError(t, err)
	committed, err = w.as("east", admin).Committed(context.Background(), "billing")
	require.NoError(t, err)
	require.EqualValues(t, 5, committed[at("orders", 0)])

	plan, account, err = w.recoverAll(w.recovery().other("third"), "append")
	require.NoError(t, err)
	require.Contains(t, plan.Worst[0].Gone, "rewind")
	require.EqualValues(t, 2, account.Total.Left)
	require.Equal(t, []string{"v", "v", "v", "v", "of west"}, w.values("west", "orders", 0))

	w = stranded(t)
	in := w.recovery()
	plan, err = w.planRecovery(in, "append")
	require.NoError(t, err)
	in.Tail = plan.Tail
	_, err = run[TailResult](w, (*Recovery)(nil).PrepareRecovery, in)
	require.NoError(t, err)
	_, err = run[CopyResult](w, (*Recovery)(nil).CopyTails, CopyInput{RecoveryInput: in})
	require.NoError(t, err)
	plan, err = w.planRecovery(in.other("second"), "rewind")
	require.NoError(t, err)
	require.Contains(t, plan.Worst[0].Gone, "append")
}

// TestP32_WhoWouldReadTwice: groups that read stranded records before their cluster was lost.
func TestP32_WhoWouldReadTwice(t *testing.T) {
	t.Parallel()
	w := stranded(t, "late 1", "late 2")
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 6, at("orders", 1): 3})
	plan, err := w.planRecovery(w.recovery(), "append")
	require.NoError(t, err)
	require.Equal(t, []replication.ReadAlready{{Group: "billing", Topic: "orders", Records: 2}}, plan.Read)
	require.True(t, slices.ContainsFunc(plan.Findings, func(f Finding) bool { return f.Check == "read already" && f.Level == LevelWarning }))
	plan, err = w.planRecovery(w.recovery(), "divert")
	require.NoError(t, err)
	require.Empty(t, plan.Read, "copies go elsewhere")
}

// TestP30_AnotherRunKeepsTheShards, whatever it would choose, so that its copies fence those of the first.
func TestP30_AnotherRunKeepsTheShards(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	in := w.recovery()
	first, err := w.planRecovery(in, "append")
	require.NoError(t, err)
	require.Equal(t, 1, first.Shards)
	require.NoError(t, w.recordsNow().put(context.Background(), map[string]any{recoveryKey(first.Tail): keptPlan{Shards: 3, Run: in.Guard.Run.ID()}}))
	second, err := w.planRecovery(in.other("second"), "append")
	require.NoError(t, err)
	require.Equal(t, 3, second.Shards)
	require.Equal(t, copierID("orders", first.Tail, 2), copierID("orders", second.Tail, 2), "it names no run that copies")
	seen := map[int]bool{}
	for p := range int32(64) {
		shard := shardOf(at("orders", p), 3)
		require.Less(t, shard, 3)
		seen[shard] = true
	}
	require.Len(t, seen, 3)
}

// TestP18_TheBoundaryIsCompared: a mark is not trusted.
func TestP18_TheBoundaryIsCompared(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mark func(m *replication.Mark)
		says string
	}{
		"too high":    {func(m *replication.Mark) { m.Boundary = 5 }, "before the mark 5, is another one on each cluster"},
		"beyond":      {func(m *replication.Mark) { m.Boundary = 99 }, "made anew under its name"},
		"not known":   {func(m *replication.Mark) { m.Boundary = replication.Unknown }, "the mark says no offset"},
		"what it was": {func(*replication.Mark) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := stranded(t, "late")
			w.remark(at("orders", 0), tc.mark)
			plan, account, err := w.recoverAll(w.recovery(), "append")
			require.NoError(t, err)
			if tc.says == "" {
				require.Empty(t, plan.Mismatched)
				return
			}
			require.Len(t, plan.Mismatched, 1)
			require.Contains(t, plan.Mismatched[0].Reason, tc.says)
			require.Zero(t, account.Total.Recovered, "it is left alone")
			require.False(t, account.Finished)
			require.Equal(t, []string{"v", "v", "v", "v", "of west"}, w.values("west", "orders", 0))
		})
	}
}

// remark changes a mark behind the product's back.
func (w *world) remark(on replication.Partition, change func(*replication.Mark)) {
	w.t.Helper()
	run := w.guard().Run.ID()
	marks, err := marksOf(context.Background(), w.as("west", admin).Records(MarksTopic), run)
	require.NoError(w.t, err)
	for i := range marks {
		if marks[i].Partition == on {
			change(&marks[i])
		}
	}
	require.NoError(w.t, putList(context.Background(), w.recordsNow(), marksKey("east-id", run), marks))
}

// TestP31_NotBehindAFence: an old cluster that is not fenced, or not quiet, is not read.
func TestP31_NotBehindAFence(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	require.NoError(t, w.as("east", admin).DeleteACLs(context.Background(), replication.TopicFence([]string{"orders"})))
	plan, err := w.planRecovery(w.recovery(), "append")
	require.NoError(t, err)
	require.Len(t, problemsOf(plan), 1)
	require.Contains(t, problemsOf(plan)[0], "east is not fenced on every broker")
}

// What no mark knows, or is not there any more, is left by name.
func TestWhatCannotBeRecoveredIsNamed(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	w.remark(at("payments", 0), func(m *replication.Mark) { m.Partition.Partition = 7 })
	w.remark(at("payments", 7), func(m *replication.Mark) { m.Topic = "payments.gone" })
	w.put("east", "payments", 0, "born late")
	plan, account, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	require.Empty(t, problemsOf(plan))
	said := map[string]string{}
	for _, s := range plan.Worst {
		said[s.Name()] = s.Gone
	}
	require.Contains(t, said["payments.gone-7"], "deleted there")
	require.Contains(t, said["payments-0"], "has no mark")
	require.EqualValues(t, 1, account.Total.Left)
	require.EqualValues(t, 1, account.Total.Recovered)
	require.False(t, account.Finished)
}

// A run that has lost its epoch copies nothing, and one that loses it meanwhile stops.
func TestP35_ACopyStopsWithItsEpoch(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	in := w.recovery()
	plan, err := w.planRecovery(in, "append")
	require.NoError(t, err)
	in.Tail = plan.Tail
	_, err = run[TailResult](w, (*Recovery)(nil).PrepareRecovery, in)
	require.NoError(t, err)
	w.before["west.Recover "+copierID("orders", plan.Tail, 0)] = func(ctx context.Context) error {
		w.entries["consul.west"].state.Epoch++
		<-ctx.Done() // a long copy
		return context.Cause(ctx)
	}
	_, err = run[CopyResult](w, (*Recovery)(nil).CopyTails, CopyInput{RecoveryInput: in})
	require.Equal(t, TypeStale, typeOf(err))
	_, err = run[CopyResult](w, (*Recovery)(nil).CopyTails, CopyInput{RecoveryInput: in})
	require.Equal(t, TypeStale, typeOf(err))
	require.Equal(t, []string{"v", "v", "v", "v", "of west"}, w.values("west", "orders", 0))
}

// Killed at every write of each activity, before or after it: a second try ends where the first would have.
func TestKilledWhileRecovering(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"append", "rewind"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			whole := stranded(t, "late")
			_, want, err := whole.recoverAll(whole.recovery(), mode)
			require.NoError(t, err)
			for n := range len(whole.trace) {
				for _, after := range []bool{false, true} {
					w := stranded(t, "late")
					w.kill = &kill{at: n, after: after}
					_, _, _ = w.recoverAll(w.recovery(), mode) // nobody hears what a dead process says
					w.kill = nil
					_, got, err := w.recoverAll(w.recovery().other("second"), mode)
					require.NoError(t, err, "after being killed at write %d (%v): %v", n, after, w.trace)
					if got.Total.Offsets > 0 { // otherwise the first one had finished
						require.Equal(t, want.Total, got.Total)
					}
					require.Equal(t, whole.values("west", "orders", 0), w.values("west", "orders", 0), "killed at write %d (%v)", n, after)
					require.Equal(t, whole.denies("east"), w.denies("east"))
				}
			}
		})
	}
}

func TestAccountsAddUp(t *testing.T) {
	tail := replication.Tail{Partition: at("orders", 0), From: 10, To: 20, Start: 12, Treatment: replication.TreatAppend, Into: at("orders", 0)}
	begun := replication.Begin(tail)
	begun.Next, begun.Run, begun.Tally = 15, "r1", replication.Tally{Expired: 2, Recovered: 2, Aborted: 1}
	for name, tc := range map[string]struct {
		s    replication.Stranded
		done *replication.Recovered
		want replication.Tally
	}{
		"nothing done":    {replication.Stranded{Tail: tail}, nil, replication.Tally{Expired: 2, Left: 8}},
		"half of it":      {replication.Stranded{Tail: tail}, &begun, replication.Tally{Expired: 2, Recovered: 2, Aborted: 1, Left: 5}},
		"gone meanwhile":  {replication.Stranded{Tail: tail, Gone: "why"}, nil, replication.Tally{Expired: 2, Left: 8}},
		"only reported":   {replication.Stranded{Tail: replication.Tail{Partition: at("orders", 0), From: 10, To: 20, Start: 12, Treatment: replication.TreatReport}}, nil, replication.Tally{Expired: 2, Left: 8}},
		"everything gone": {replication.Stranded{Tail: replication.Tail{Partition: at("orders", 0), From: 10, To: 20, Start: 30, Treatment: replication.TreatAppend}}, nil, replication.Tally{Expired: 10}},
	} {
		done := map[replication.Partition]replication.Recovered{}
		if tc.done != nil {
			done[tc.s.Partition] = *tc.done
		}
		got, err := accountsOf([]replication.Stranded{tc.s}, done)
		require.NoError(t, err, name)
		require.Equal(t, tc.want, got[0].Tally, name)
		require.Equal(t, got[0].Offsets(), got[0].Tally.Sum(), name)
	}
	begun.Tally.Recovered = 1
	_, err := accountsOf([]replication.Stranded{{Tail: tail}}, map[replication.Partition]replication.Recovered{tail.Partition: begun})
	require.ErrorContains(t, err, "does not add up")
}
