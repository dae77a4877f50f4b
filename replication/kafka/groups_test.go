package kafka

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"switchback/internal/fault"
	"switchback/replication"
)

func any1(string) bool { return true }

// join makes a consumer of the group and waits until it is in.
func join(t *testing.T, f *kfake.Cluster, group string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl := raw(t, f, append([]kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics("a"), kgo.DisableAutoCommit()}, opts...)...)
	eventually(t, "join "+group, func() bool {
		g := f.GroupInfo(group)
		return g != nil && g.State == "Stable" && len(g.Members) == 1
	})
	return cl
}

func TestCommitAndReadBack(t *testing.T) {
	f := fake(t, kfake.SeedTopics(3, "a", "b"))
	c := as(t, f, admin)
	want := map[replication.Partition]int64{part("a", 0): 5, part("b", 2): 0, part("a", 2): 7}
	require.NoError(t, c.Commit(short(t), "billing", want))
	got, err := c.Committed(short(t), "billing")
	require.NoError(t, err)
	require.Equal(t, want, got)
	none, err := c.Committed(short(t), "never-seen")
	require.NoError(t, err)
	require.Empty(t, none)
	require.ErrorIs(t, c.Commit(short(t), "billing", map[replication.Partition]int64{part("a", 0): replication.Unknown}), fault.ErrInvalid)

	groups, err := c.Group(short(t), "billing", "never-seen")
	require.NoError(t, err)
	require.Equal(t, []string{"Empty", "Dead"}, []string{groups[0].State, groups[1].State})
	require.True(t, groups[0].Idle() && groups[1].Idle())
}

func TestCommitIsRefusedForMembers(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	join(t, f, "billing", kgo.ClientID("billing-1"))
	err := c.Commit(short(t), "billing", map[replication.Partition]int64{part("a", 0): 1})
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "of client billing-1 at")
	require.NotEmpty(t, fault.HintOf(err))
	got, err := c.Committed(short(t), "billing")
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestCommitNamesFailures(t *testing.T) {
	f := fake(t, kfake.SeedTopics(2, "a"))
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: "a", Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed})
	err := as(t, f, admin).Commit(short(t), "g", map[replication.Partition]int64{part("a", 0): 1, part("a", 1): 1})
	require.ErrorIs(t, err, fault.ErrDenied)
	require.ErrorContains(t, err, "a-1")
	require.NotContains(t, err.Error(), "a-0")
}

// A transaction that is about to commit offsets: the answer is not ready, never the old offset.
func TestP09_OffsetsAreReadStable(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	require.NoError(t, c.Commit(short(t), "billing", map[replication.Partition]int64{part("a", 0): 3}))
	byName := kversion.Stable() // later versions name topics by id
	byName.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 5)
	txn := raw(t, f, kgo.TransactionalID("eos"), kgo.MaxVersions(byName))
	require.NoError(t, txn.BeginTransaction())
	require.NoError(t, txn.ProduceSync(short(t), &kgo.Record{Topic: "a", Value: []byte("v")}).FirstErr())
	id, epoch, err := txn.ProducerID(short(t))
	require.NoError(t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = "eos", id, epoch, "billing"
	added, err := add.RequestWith(short(t), txn)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(added.ErrorCode))
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = "eos", "billing", id, epoch, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = "a"
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Offset = 9
	rt.Partitions = append(rt.Partitions, rp)
	commit.Topics = append(commit.Topics, rt)
	committed, err := commit.RequestWith(short(t), txn)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(committed.Topics[0].Partitions[0].ErrorCode))

	got, err := c.Committed(short(t), "billing")
	require.ErrorIs(t, err, fault.ErrNotReady)
	require.ErrorContains(t, err, "a-0")
	require.Nil(t, got)

	require.NoError(t, c.EndTransactions(short(t), []string{"eos"}))
	got, err = c.Committed(short(t), "billing")
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{part("a", 0): 3}, got, "aborted")
}

// Static members do not leave when they close; those proven gone are removed, in either protocol.
func TestP08_RemoveMembers(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{
		"classic":        {kgo.Balancers(kgo.RangeBalancer())},
		"classic static": {kgo.Balancers(kgo.RangeBalancer()), kgo.InstanceID("billing-1")},
		"consumer":       {kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer())},
	} {
		t.Run(name, func(t *testing.T) {
			f := fake(t, kfake.SeedTopics(1, "a"))
			c := as(t, f, admin)
			cl := join(t, f, "billing", opts...)
			if strings.Contains(name, "static") {
				cl.Close()
			}
			groups, err := c.Groups(short(t), any1)
			require.NoError(t, err)
			require.Len(t, groups, 1)
			g := groups[0]
			require.Equal(t, strings.Fields(name)[0], g.Type)
			require.Len(t, g.Members, 1)
			require.Equal(t, []string{"a"}, g.Members[0].Topics)
			require.False(t, g.Idle())
			require.Equal(t, strings.Contains(name, "static"), g.Members[0].InstanceID == "billing-1")

			// The process is gone; its heartbeats no longer reach the broker.
			onNode(f, kmsg.Heartbeat, -1, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
			onNode(f, kmsg.JoinGroup, -1, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
			onNode(f, kmsg.ConsumerGroupHeartbeat, -1, func(r kmsg.Request) (kmsg.Response, error, bool) {
				return nil, nil, r.(*kmsg.ConsumerGroupHeartbeatRequest).MemberEpoch >= 0
			})
			require.NoError(t, c.RemoveMembers(short(t), "billing", g.Members))
			require.NoError(t, c.RemoveMembers(short(t), "billing", g.Members), "gone already is no error")
			after, err := c.Group(short(t), "billing")
			require.NoError(t, err)
			require.True(t, after[0].Idle(), "%+v", after[0])
			require.NoError(t, c.Commit(short(t), "billing", map[replication.Partition]int64{part("a", 0): 0}))
		})
	}
}

func TestP08_GroupFenceKeepsAGroupClosed(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	boss := as(t, f, admin)
	allow(t, boss, tool, replication.ResourceGroup, "billing", "READ")
	allow(t, boss, tool, replication.ResourceTopic, "a", "READ")
	c := as(t, f, tool)
	at := map[replication.Partition]int64{part("a", 0): 1}
	require.NoError(t, c.Commit(short(t), "billing", at))
	require.NoError(t, boss.CreateACLs(short(t), replication.GroupFence([]string{"billing"})))
	require.ErrorIs(t, c.Commit(short(t), "billing", at), fault.ErrDenied)
	offsets, err := boss.Committed(short(t), "billing")
	require.NoError(t, err)
	require.Equal(t, at, offsets)
}

func TestShareGroupsAreNamed(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	raw(t, f, kgo.ShareGroup("queue"), kgo.ConsumeTopics("a"))
	var g replication.Group
	eventually(t, "share group", func() bool {
		groups, err := c.Groups(short(t), any1)
		if err != nil || len(groups) != 1 {
			return false
		}
		g = groups[0]
		return true
	})
	require.Equal(t, replication.GroupShare, g.Type)
	require.True(t, g.Opaque)
	require.False(t, g.Idle(), "nothing is known of its members")
	err := c.Commit(short(t), "queue", map[replication.Partition]int64{part("a", 0): 1})
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.ErrorContains(t, err, "share group")
}

// A broker that does not answer may hide a group: that is said.
func TestGroupsSayWhoDidNotAnswer(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListGroups}, Nodes: []int32{1}, Err: kerr.UnknownServerError, TopLevel: true, Count: -1})
	_, err := c.Groups(short(t), any1)
	require.ErrorContains(t, err, "groups on broker 1")
}

// A coordinator that is still coming up is waited for, for a moment.
func TestCoordinatorComesUp(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	h := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups, kmsg.OffsetFetch}, Group: "g", Err: kerr.CoordinatorNotAvailable, Count: 3})
	c := as(t, f, admin)
	groups, err := c.Group(short(t), "g")
	require.NoError(t, err)
	require.Equal(t, "Dead", groups[0].State)
	_, err = c.Committed(short(t), "g")
	require.NoError(t, err)
	require.Positive(t, h.Hits())
}
