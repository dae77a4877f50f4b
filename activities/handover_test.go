package activities

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/replication"
)

func (w *world) handOverInput(until time.Time) HandOverInput {
	return HandOverInput{Guard: w.guard(), Route: w.route(), Groups: w.runbook().Groups, Clients: w.runbook().Clients[1:], Deadline: until}
}

func (w *world) handOver(until time.Time) (HandOverResult, error) {
	return run[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(until))
}

func at(topic string, partition int32) replication.Partition {
	return replication.Partition{Topic: topic, Partition: partition}
}

func (w *world) commit(site, group string, offsets map[replication.Partition]int64) {
	w.t.Helper()
	require.NoError(w.t, w.as(site, admin).Commit(context.Background(), group, offsets))
}

func (w *world) committed(site, group string) map[replication.Partition]int64 {
	w.t.Helper()
	offsets, err := w.as(site, admin).Committed(context.Background(), group)
	require.NoError(w.t, err)
	return offsets
}

// join makes a member of a group on the source, and waits until it is in.
func (w *world) join(group string, opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl := w.raw("east", admin, append([]kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
		kgo.HeartbeatInterval(50 * time.Millisecond)}, opts...)...)
	w.stable("east", group)
	return cl
}

func (w *world) stable(site, group string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		g := w.fake(site).GroupInfo(group)
		return g != nil && g.State == "Stable" && len(g.Members) == 1
	}, 10*time.Second, 5*time.Millisecond)
}

// read is a world whose group has read some of what both clusters have.
func read(t *testing.T) *world {
	w := calm(t)
	w.fill("orders", 0, 5)
	w.fill("orders", 1, 3)
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 4})
	return w
}

// More groups than one attempt can write are handed over in parts, and what was handed over stays so.
func TestP35_AHandOverGoesOnWhereAnAttemptEnded(t *testing.T) {
	t.Parallel()
	w := read(t)
	groups := []string{"billing-0", "billing-1", "billing-2", "billing-3", "billing-4"}
	for i, group := range groups {
		w.commit("east", group, map[replication.Partition]int64{at("orders", 0): int64(i)})
	}
	r, err := w.outside().opened(t.Context(), w.guard(), w.route())
	require.NoError(t, err)
	defer r.close()
	target, err := r.to.Ends(t.Context(), []string{"orders"})
	require.NoError(t, err)
	h := handover{r: r, run: "run-1", target: target, withoutCommit: replication.WithoutCommitEarliest, inPart: 2}
	w.link.failing = 2
	_, err = h.inParts(t.Context(), groups)
	require.Error(t, err)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 1, at("orders", 1): 0}, w.committed("west", groups[1]))
	require.Empty(t, w.committed("west", groups[2]))
	handed, err := h.inParts(t.Context(), groups)
	require.NoError(t, err)
	require.EqualValues(t, 4, w.link.passes.Load(), "the first part is not translated again")
	require.Len(t, handed, len(groups))
	stored, err := offsetsOf(t.Context(), r.records.to, "run-1")
	require.NoError(t, err)
	require.Equal(t, handed, stored)
	for i, group := range groups {
		require.Equal(t, map[replication.Partition]int64{at("orders", 0): int64(i), at("orders", 1): 0}, w.committed("west", group), group)
	}
}

// Where nothing tells where a group goes on, the runbook does, and the run says so: it does not go back for it.
func TestHandOverWithoutATranslation(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.link.unknown = "no checkpoint"
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.Contains(t, out.Deviations, "group billing, orders-0: no checkpoint: set to the start, as the runbook says")
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0}, w.committed("west", "billing"))
}

func TestHandOver(t *testing.T) {
	t.Parallel()
	w := read(t)
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.Equal(t, []int{1, 2, 1}, []int{out.Groups, out.Offsets, out.Exact})
	require.Equal(t, []string{"group billing, orders-1: no commit: set to the start, as the runbook says"}, out.Deviations)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 4, at("orders", 1): 0}, w.committed("west", "billing"))
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing"})[0].String())
	again, err := w.handOver(soon())
	require.NoError(t, err)
	require.Equal(t, out.Text, again.Text)
}

func TestKilledWhileHandingOver(t *testing.T) {
	t.Parallel()
	everywhere(t, read, func(w *world) error { _, err := w.handOver(soon()); return err })
}

func TestHandOverWithoutGroups(t *testing.T) {
	t.Parallel()
	w := calm(t)
	require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{Topics: []replication.Topic{{Name: "orders", Partitions: 2}}}))
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.Zero(t, out.Groups)
}

// Empty, then denied on every broker, then still empty, then read.
func TestP08_GroupsAreClosedInOrder(t *testing.T) {
	t.Parallel()
	w := read(t)
	member := w.join("billing", kgo.ClientID("billing-1"))
	fenced := false
	w.before["east.CreateACLs"] = func(context.Context) error {
		fenced = true
		require.Empty(t, w.fake("east").GroupInfo("billing").Members, "the group was closed while it had members: their commit on leaving would be refused")
		return nil
	}
	w.before["west.Commit"] = func(context.Context) error {
		require.True(t, fenced, "an offset was read that could still move")
		return nil
	}
	time.AfterFunc(100*time.Millisecond, func() {
		_ = member.CommitRecords(context.Background(), &kgo.Record{Topic: "orders", Partition: 0, Offset: 4})
		member.Close()
	})
	_, err := w.handOver(soon())
	require.NoError(t, err)
	require.EqualValues(t, 5, w.committed("west", "billing")[at("orders", 0)], "the commit on closing counts")
}

// A member that somebody starts between the look and the fence is seen, because groups are looked at behind the fence.
func TestP08_StillEmptyBehindTheFence(t *testing.T) {
	t.Parallel()
	w := read(t)
	in := w.handOverInput(late())
	in.Clients = nil // not proven stopped
	w.before["east.CreateACLs"] = func(context.Context) error { w.join("billing", kgo.ClientID("slipped-in")); return nil }
	_, err := run[HandOverResult](w, (*Groups)(nil).HandOver, in)
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "slipped-in")
	require.Zero(t, w.took("west.Commit"))
}

func TestP08_AStaticMemberThatIsProvenStoppedIsRemoved(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.join("billing", kgo.ClientID("billing-1"), kgo.InstanceID("static-1")).Close() // does not leave
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.Len(t, out.Removed, 1)
	require.Contains(t, out.Removed[0], "static member static-1")

	// Not proven: it is named at the deadline, and stays.
	w = read(t)
	w.join("billing", kgo.ClientID("billing-1"), kgo.InstanceID("static-1")).Close()
	in := w.handOverInput(late())
	in.Clients = nil
	_, err = run[HandOverResult](w, (*Groups)(nil).HandOver, in)
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "static member static-1")
	require.Zero(t, w.took("east.RemoveMembers"))
	require.Zero(t, w.took("east.CreateACLs"), "not closed while it has a member")
}

// A consumer that refuses to leave comes back when it is removed: a process that is gone would not.
func TestP08_WhoComesBackIsNamed(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.join("billing", kgo.ClientID("squatter"))
	w.after["east.RemoveMembers"] = func(context.Context) error {
		w.join("billing", kgo.ClientID("squatter-again"))
		return nil
	}
	_, err := w.handOver(late())
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "squatter")
	require.Equal(t, 1, w.took("east.RemoveMembers"))
	require.Zero(t, w.took("west.Commit"))
}

func TestP08_AForeignGroupIsNobodysToEmpty(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.join("billing-of-others", kgo.ClientID("stranger"))
	_, err := w.handOver(late())
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "group billing-of-others to be empty (stranger on")
	require.Zero(t, w.took("east.RemoveMembers"))
}

// A group that turns up while the others are being closed is closed too.
func TestP16_AGroupBornBehindTheFence(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.before["east.CreateACLs"] = func(context.Context) error {
		if w.took("east.CreateACLs") == 1 {
			w.commit("east", "billing-new", map[replication.Partition]int64{at("orders", 0): 2})
		}
		return nil
	}
	out, err := attempts[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(soon()))
	require.NoError(t, err)
	require.Equal(t, 2, out.Groups)
	require.Contains(t, w.link.describe(), "groups held [billing billing-new]")
	_, err = w.restore(false)
	require.NoError(t, err)
	require.Contains(t, w.link.describe(), "groups held []")
	require.EqualValues(t, 2, w.committed("west", "billing-new")[at("orders", 0)])
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing-new"})[0].String())
}

func TestP24_EveryPartitionGetsAnOffset(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int64{replication.WithoutCommitEarliest: 0, replication.WithoutCommitLatest: 3} {
		w := read(t)
		in := w.handOverInput(soon())
		in.Groups.WithoutCommit = policy
		_, err := run[HandOverResult](w, (*Groups)(nil).HandOver, in)
		require.NoError(t, err)
		require.Equal(t, map[replication.Partition]int64{at("orders", 0): 4, at("orders", 1): want}, w.committed("west", "billing"))
	}
}

// A group that was there, and never committed anything, would start wherever auto.offset.reset says.
func TestP24_AGroupThatNeverCommittedGetsOffsetsToo(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.fill("orders", 0, 5)
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.Equal(t, 2, out.Offsets)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0}, w.committed("west", "billing"))
}

func TestP25_AGroupAliveOnTheTargetIsRefused(t *testing.T) {
	t.Parallel()
	w := read(t)
	cl := w.raw("west", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.ClientID("elsewhere"))
	require.NotNil(t, cl)
	w.stable("west", "billing")
	_, err := w.handOver(soon())
	require.Equal(t, TypeConflict, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "a group is unique over both clusters")
}

func TestP09_OffsetsThatAreAboutToChangeAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := read(t)
	asked := w.unstable("east", 1)
	out, err := attempts[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(soon()))
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Attempt, "a transaction that is about to commit is no reason to give up")
	require.Greater(t, asked(), int64(1))
	require.EqualValues(t, 4, w.committed("west", "billing")[at("orders", 0)])
}

// unstable has a cluster answer the first requests for the offsets of billing like one where a transaction is about to
// commit some, if RequireStable is asked for; every request must. It returns how often it was asked by Switchback.
func (w *world) unstable(site string, times int64) (asked func() int64) {
	var n atomic.Int64
	cluster := w.fake(site)
	cluster.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if r := req.(*kmsg.OffsetFetchRequest); len(r.Groups) == 1 && r.Groups[0].Topics != nil { // a member's own, at its start
			return nil, nil, false
		}
		assert.True(w.t, req.(*kmsg.OffsetFetchRequest).RequireStable)
		if n.Add(1) > times {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		rp.ErrorCode = 88 // UNSTABLE_OFFSET_COMMIT
		rt.Topic, rt.Partitions = "orders", append(rt.Partitions, rp)
		rg := kmsg.NewOffsetFetchResponseGroup()
		rg.Group, rg.Topics = "billing", append(rg.Topics, rt)
		resp.Groups = append(resp.Groups, rg)
		return resp, nil, true
	})
	return n.Load
}

// The offset sync of a link that nobody suspended writes over what was handed over.
func TestOffsetSyncWritingOverIsCaught(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.after["west.Commit"] = func(context.Context) error {
		w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 1})
		return nil
	}
	_, err := w.handOver(soon())
	require.Equal(t, TypeConflict, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "orders-0 was written as 4 and reads back as 1")

	w = read(t) // and one that is on for a group is refused beforehand
	w.link.groups = map[string]bool{}
	_, err = w.handOver(soon())
	require.ErrorContains(t, err, "offsets of billing are still synced")
	require.Zero(t, w.took("west.Commit"))
}

func TestManyOffsetsFitTheirRecords(t *testing.T) {
	t.Parallel()
	list := make([]ReadBack, 20_000)
	for i := range list {
		list[i] = ReadBack{Translated: replication.Translated{Partition: at("a-topic-with-a-rather-long-name", int32(i)), Proof: replication.ProofExact}, Group: "billing"}
	}
	entries := map[string]any{}
	require.NoError(t, chunks(entries, "offsets/run/billing/", list))
	raw := map[string][]byte{}
	for key, v := range entries {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), chunkBytes+1024)
		raw[key] = b
	}
	got, err := getList[ReadBack](context.Background(), loaded(raw), "offsets/run/billing/")
	require.NoError(t, err)
	require.Equal(t, list, got)
	require.True(t, slices.IsSortedFunc(got, func(a, b ReadBack) int { return int(a.Partition.Partition - b.Partition.Partition) }))
}

// A group may stand beyond its place on the target, from older days or by a sync that went too far: it is set back, and that
// is said.
func TestP29_AGroupThatStandsTooFarIsSetBackAndNamed(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 5, at("orders", 1): 0})
	out, err := w.handOver(soon())
	require.NoError(t, err)
	require.EqualValues(t, 4, w.committed("west", "billing")[at("orders", 0)])
	require.Contains(t, out.Deviations, "group billing, orders-0: moved back from 5, which west had")
	require.Len(t, out.Deviations, 2, "and the partition without a commit")
}
