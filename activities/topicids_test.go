package activities

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/replication"
)

// anew deletes a topic and makes it again under its name, with so many records in its first partition.
func (w *world) anew(site, topic string, records int) {
	w.t.Helper()
	ctx := context.Background()
	partitions := map[string]int32{"orders": 2, "payments": 1}[topic]
	w.drop(site, topic)
	_, err := kadm.NewClient(w.raw(site, admin)).CreateTopic(ctx, partitions, 1, nil, topic)
	require.NoError(w.t, err)
	for range records {
		w.put(site, topic, 0, "anew")
	}
}

func (w *world) drop(site string, topics ...string) {
	w.t.Helper()
	gone, err := kadm.NewClient(w.raw(site, admin)).DeleteTopics(context.Background(), topics...)
	require.NoError(w.t, err)
	require.NoError(w.t, gone.Error())
}

func (w *world) idsOn(site string) map[string]string {
	w.t.Helper()
	topics, err := w.as(site, admin).Topics(context.Background(), w.runbook().Topics.Match)
	require.NoError(w.t, err)
	return topicIDs(topics)
}

func markOn(marks []replication.Mark, on replication.Partition) replication.Mark {
	return marks[slices.IndexFunc(marks, func(m replication.Mark) bool { return m.Partition == on })]
}

func TestMarksKeepTheIDsOfTopics(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		marks  func(t *testing.T) *world
		source bool // whether anybody can read the source's
	}{
		"planned": {func(t *testing.T) *world {
			w := read(t)
			_, err := run[MarksResult](w, (*Mirrors)(nil).KeepMarks, MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8})
			require.NoError(t, err)
			return w
		}, true},
		"the source answers": {func(t *testing.T) *world {
			w := cutOff(t)
			w.find()
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			return w
		}, true},
		"the source is gone, and was watched": {func(t *testing.T) *world {
			w := cutOff(t)
			w.watched(time.Now())
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			require.EqualValues(t, 5, markOn(w.marks("west"), at("orders", 0)).SourceSeen)
			return w
		}, true},
		"the source is gone, and nobody watched": {func(t *testing.T) *world {
			w := cutOff(t)
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			return w
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := tc.marks(t)
			east, west := w.idsOn("east"), w.idsOn("west")
			require.NotEqual(t, east["orders"], west["orders"])
			marks := w.marks("west")
			require.NotEmpty(t, marks)
			for _, m := range marks {
				require.Equal(t, west[m.Topic], m.TargetTopic)
				require.NotEmpty(t, m.TargetTopic)
				require.Equal(t, "east", m.From)
				if tc.source {
					require.Equal(t, east[m.Topic], m.SourceTopic)
				} else {
					require.Empty(t, m.SourceTopic, "what nobody could read is not made up")
				}
			}
		})
	}
}

// A cluster comes back without what it had: it is fenced, and what was stranded is said to be gone, not waited for.
func TestP38_WhatIsGoneIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(w *world)
		gone      []string
		atLeast   int64
		closed    bool
	}{
		"one topic was deleted":         {func(w *world) { w.drop("east", "orders") }, []string{"orders: east has no such topic any more"}, 1, false},
		"another was deleted":           {func(w *world) { w.drop("east", "payments") }, []string{"payments: east has no such topic any more"}, 1, false},
		"made anew with fewer records":  {func(w *world) { w.anew("east", "orders", 1) }, []string{"orders: the topic on east is another one"}, 1, false},
		"made anew with more records":   {func(w *world) { w.anew("east", "orders", 9) }, []string{"orders: the topic on east is another one"}, 1, false},
		"it is empty, and forgot all":   {func(w *world) { w.drop("east", "orders", "payments", MarksTopic) }, []string{"orders: east has no", "payments: east has no"}, 1, false},
		"nothing was deleted after all": {func(*world) {}, nil, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			w.watched(time.Now())
			w = leave(t, w)
			w.find()
			tc.meanwhile(w)
			require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), allow(me, "TOPIC", "LITERAL", MarksTopic, "CREATE", "WRITE", "READ", "DESCRIBE")))
			var out FenceWhenResult
			since := time.Now()
			require.Eventually(t, func() bool { // an attempt has little time for its writes
				var err error
				out, err = w.whenReachable(since)
				return err == nil && out.Done
			}, time.Minute, time.Millisecond)
			require.Len(t, out.Gone, len(tc.gone))
			for i, says := range tc.gone {
				require.True(t, strings.HasPrefix(out.Gone[i], says), out.Gone[i])
				require.Contains(t, out.Text, "gone for ever")
			}
			require.Subset(t, w.denies("east"), []string{replication.TopicFence([]string{"orders"})[0].String()}, "fenced it is all the same")
			require.Equal(t, tc.atLeast, out.Loss.AtLeast, out.Loss.Why)
			require.Equal(t, tc.closed, out.Loss.Closed(), "%+v", out.Loss)
			require.Equal(t, w.marks("west"), w.marks("east"), "it has its copy")
			if tc.closed {
				require.EqualValues(t, 5, markOn(w.marks("west"), at("orders", 0)).SourceEnd, "as it was read behind the fence")
			}
		})
	}
}

// known puts the ids that the topics of east have now into the marks, as a sample would have.
func (w *world) known() {
	w.t.Helper()
	ids := w.idsOn("east")
	for _, p := range []replication.Partition{at("orders", 0), at("orders", 1), at("payments", 0)} {
		w.remark(p, func(m *replication.Mark) { m.SourceTopic = ids[m.Topic] })
	}
}

// A topic of that name is no proof that it is the one that was left: a recovery says so, and touches nothing of it.
func TestI4_ATopicMadeAnewIsNotRecovered(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(w *world)
		says      string
		left      int64
	}{
		"more records":          {func(w *world) { w.known(); w.anew("east", "orders", 9) }, "the topic on east is another one", 9},
		"fewer records":         {func(w *world) { w.known(); w.anew("east", "orders", 2) }, "the topic on east is another one", 2},
		"as many records":       {func(w *world) { w.known(); w.anew("east", "orders", 5) }, "the topic on east is another one", 5},
		"none":                  {func(w *world) { w.known(); w.anew("east", "orders", 0) }, "the topic on east is another one", 0},
		"on the new cluster":    {func(w *world) { w.anew("west", "orders", 5) }, "the topic on west is another one", 1},
		"its id was not known":  {func(w *world) { w.anew("east", "orders", 9) }, "is another one on each cluster", 5},
		"not known, and fewer":  {func(w *world) { w.anew("east", "orders", 2) }, "made anew under its name, or cut", 0},
		"nothing was made anew": {func(w *world) { w.known() }, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := stranded(t)
			tc.meanwhile(w)
			before := w.values("west", "orders", 0)
			plan, account, err := w.recoverAll(w.recovery(), "append")
			require.NoError(t, err)
			require.Empty(t, problemsOf(plan))
			if tc.says == "" {
				require.Empty(t, plan.Mismatched)
				require.EqualValues(t, 1, account.Total.Recovered)
				return
			}
			require.NotEmpty(t, plan.Mismatched, "the run parks, and names it")
			require.Contains(t, plan.Mismatched[0].Reason, tc.says)
			require.Zero(t, account.Total.Recovered)
			require.Equal(t, tc.left, account.Total.Left)
			require.False(t, account.Finished)
			require.Equal(t, before, w.values("west", "orders", 0))
		})
	}
}

// Between the plan and the copy, and between two attempts at it.
func TestI4_ATopicMadeAnewWhileItIsRecovered(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ site, mode string }{
		"on the old cluster, copied":  {"east", "append"},
		"on the new cluster, copied":  {"west", "append"},
		"on the old cluster, rewound": {"east", "rewind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := stranded(t)
			in := w.recovery()
			plan, err := w.planRecovery(in, tc.mode)
			require.NoError(t, err)
			in.Tail = plan.Tail
			_, err = run[TailResult](w, (*Recovery)(nil).PrepareRecovery, in)
			require.NoError(t, err)
			w.anew(tc.site, "orders", 7)
			before := w.values("west", "orders", 0)
			_, err = run[CopyResult](w, (*Recovery)(nil).CopyTails, CopyInput{RecoveryInput: in})
			require.Equal(t, TypeInvalid, typeOf(err), "%v", err)
			require.ErrorContains(t, err, "another one than it was")
			require.Equal(t, before, w.values("west", "orders", 0))
		})
	}
}

// What an older switch stranded is not forgotten because there is a newer one.
func TestI4_AnOlderTailIsNamed(t *testing.T) {
	t.Parallel()
	w := stranded(t)
	ctx := context.Background()
	old := func(change func(*replication.Mark)) {
		m := replication.Mark{Position: replication.Position{Partition: at("orders", 0), SourceEnd: 3, TargetEnd: 1}, From: "east", SourceCluster: "east-id", TargetCluster: "west-id",
			Boundary: 1, Epoch: 3, Run: "long-ago/r0"}
		change(&m)
		require.NoError(t, putList(ctx, w.recordsNow(), marksKey("east-id", m.Run), []replication.Mark{m}))
	}
	says := func() (text string) {
		plan, err := w.planRecovery(w.recovery(), "append")
		require.NoError(t, err)
		require.EqualValues(t, 1, plan.Total.Recovered, "the newest is recovered all the same")
		for _, f := range plan.Findings {
			if f.Check == "older tail" {
				require.Equal(t, LevelWarning, f.Level)
				text += f.Means
			}
		}
		require.Equal(t, text != "", len(plan.Older) == 1)
		return text
	}
	old(func(*replication.Mark) {})
	require.Equal(t, "an older tail, of run long-ago/r0, which left east at epoch 3, still has 2 offsets left: orders-0, offsets 1 to 3", says())
	old(func(m *replication.Mark) { m.SourceEnd, m.SourceSeen = replication.Unknown, 2 })
	require.Contains(t, says(), "still has at least 1 offsets left")
	old(func(m *replication.Mark) { m.SourceEnd, m.From, m.TargetCluster = replication.Unknown, "", "third-id" })
	require.Contains(t, says(), "which left east-id at epoch 3, still has an unknown number of offsets left")
	old(func(m *replication.Mark) { m.SourceEnd = 1 })
	require.Empty(t, says(), "a planned run strands nothing")

	// By the account of its own recovery, where there was one.
	old(func(m *replication.Mark) { m.SourceEnd = replication.Unknown })
	tail := "east-id/long-ago/r0"
	list := []replication.Stranded{{Tail: replication.Tail{Partition: at("orders", 1), From: 1, To: 3, Treatment: replication.TreatReport}}}
	require.NoError(t, putList(ctx, w.recordsNow(), tailsKey(tail, "r1"), list))
	require.NoError(t, w.recordsNow().put(ctx, map[string]any{recoveryKey(tail): keptPlan{Shards: 1, Run: "r1"}}))
	require.Contains(t, says(), "still has 2 offsets left: orders-1, offsets 1 to 3")
	require.NoError(t, w.recordsNow().put(ctx, map[string]any{recoveredKey(tail): keptDone{Run: "r2"}}))
	require.Empty(t, says(), "it was finished, or given up by name")
}
