package kafka

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

func TestEnds(t *testing.T) {
	f := fake(t, kfake.SeedTopics(4, "a", "b"))
	cl := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	produce(t, cl, part("a", 1), 5)
	produce(t, cl, part("b", 3), 2)
	adm := kadm.NewClient(cl)
	trim := kadm.Offsets{}
	trim.AddOffset("a", 1, 2, -1)
	_, err := adm.DeleteRecords(short(t), trim)
	require.NoError(t, err)

	ends, err := as(t, f, admin).Ends(short(t), []string{"b", "a"})
	require.NoError(t, err)
	require.Len(t, ends, 8)
	require.Equal(t, "b-0", ends[0].Name(), "in the order of the topics")
	for _, e := range ends {
		start, end := int64(0), int64(0)
		switch e.Partition {
		case part("a", 1):
			start, end = 2, 5
		case part("b", 3):
			end = 2
		}
		require.Equal(t, []int64{start, end, end, end}, []int64{e.Start, e.HighWatermark, e.LastStable, e.LogEnd}, e.Name())
	}
}

func TestEndsOfNothing(t *testing.T) {
	ends, err := as(t, fake(t, kfake.SeedTopics(1, "a")), admin).Ends(short(t), nil)
	require.NoError(t, err)
	require.Empty(t, ends, "no topic asked for is not every topic")
}

// The high watermark hides what waits for a follower; the log end does not.
func TestP07_LogEndComesFromTheLeader(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	cl := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	produce(t, cl, part("a", 0), 3)
	c := as(t, f, admin)
	first, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.True(t, replication.Quiescent(first, first).Quiet())

	onNode(f, kmsg.OffsetForLeaderEpoch, -1, func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		p := req.Topics[0].Partitions[0]
		if p.CurrentLeaderEpoch < 0 || p.LeaderEpoch != p.CurrentLeaderEpoch {
			return nil, fmt.Errorf("asked for epoch %d at %d", p.LeaderEpoch, p.CurrentLeaderEpoch), true
		}
		rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
		rp.Partition, rp.LeaderEpoch, rp.EndOffset = 0, p.LeaderEpoch, 7
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic, rt.Partitions = "a", append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	stalled, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.EqualValues(t, 3, stalled[0].HighWatermark)
	require.EqualValues(t, 7, stalled[0].LogEnd)
	q := replication.Quiescent(stalled, stalled)
	require.False(t, q.Quiet())
	require.Contains(t, q.Not[0].Reason, "4 records wait for a follower")
}

func TestP07_OpenTransactionHoldsTheStableEnd(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	txn := raw(t, f, kgo.TransactionalID("payments"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, txn.BeginTransaction())
	produce(t, txn, part("a", 0), 2)
	open, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.EqualValues(t, 2, open[0].HighWatermark)
	require.EqualValues(t, 0, open[0].LastStable)
	require.False(t, replication.Quiescent(open, open).Quiet())

	writers, err := c.Writers(short(t), []replication.Partition{part("a", 0)})
	require.NoError(t, err)
	require.Len(t, writers, 1)
	require.Equal(t, "payments", writers[0].TransactionalID)
	require.EqualValues(t, 0, writers[0].TxnStartOffset)
	require.Equal(t, writers, replication.Writing(writers, writers), "who holds a transaction open is at work")

	require.NoError(t, c.EndTransactions(short(t), []string{"payments"}))
	ended, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.EqualValues(t, 3, ended[0].LogEnd, "the marker takes an offset")
	require.True(t, replication.Quiescent(ended, ended).Quiet())
	require.Error(t, txn.EndTransaction(short(t), kgo.TryCommit), "the old producer is fenced")
}

// Whatever fails leaves Unknown, never zero, and is named.
func TestP07_FailureLeavesUnknown(t *testing.T) {
	for _, tc := range []struct {
		key   kmsg.Key
		known func(replication.Ends) bool
	}{
		{kmsg.OffsetForLeaderEpoch, func(e replication.Ends) bool { return e.HighWatermark == 0 && e.LogEnd == replication.Unknown }},
		{kmsg.ListOffsets, func(e replication.Ends) bool { return e.HighWatermark == replication.Unknown && e.LogEnd == 0 }},
	} {
		t.Run(tc.key.Name(), func(t *testing.T) {
			f := fake(t, kfake.SeedTopics(3, "a"))
			f.Fault(kfake.Fault{Keys: []kmsg.Key{tc.key}, Topic: "a", Partitions: []int32{1}, Err: kerr.KafkaStorageError, Count: -1})
			ends, err := as(t, f, admin).Ends(short(t), []string{"a"})
			require.Len(t, ends, 3)
			require.True(t, tc.known(ends[1]), "%+v", ends[1])
			var partial *replication.Partial
			require.ErrorAs(t, err, &partial)
			require.ErrorIs(t, err, fault.ErrNotReady)
			require.Len(t, partial.Failed, 1)
			require.Equal(t, "a-1", partial.Failed[0].Name)
			require.EqualValues(t, 0, ends[2].LogEnd)
			require.False(t, replication.Quiescent(ends, ends).Quiet())
		})
	}
}

func TestEndsNamesMissingTopics(t *testing.T) {
	f := fake(t, kfake.SeedTopics(2, "a"))
	ends, err := as(t, f, admin).Ends(short(t), []string{"gone", "a"})
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorContains(t, err, "gone")
	require.Len(t, ends, 2)
}

func TestEndsFollowsALeader(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "a", Err: kerr.NotLeaderForPartition, Count: 2})
	ends, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.EqualValues(t, 0, ends[0].LogEnd)
	require.EqualValues(t, 2, fault.Hits())

	require.NoError(t, f.MoveTopicPartition("a", 0, (f.LeaderFor("a", 0)+1)%3))
	moved, err := c.Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.Greater(t, moved[0].LeaderEpoch, ends[0].LeaderEpoch)
}

// A leader that was just elected gives no offset until its followers have fetched from it: that is waited for, and no reason
// to say that the cluster is not ready.
func TestEndsOfANewLeaderAreWaitedFor(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	elected := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "a", Err: kerr.OffsetNotAvailable, Count: 3 * (lookAttempts + 1)})
	ends, err := as(t, f, admin).Ends(short(t), []string{"a"})
	require.NoError(t, err)
	require.EqualValues(t, 0, ends[0].HighWatermark)
	require.EqualValues(t, 3*(lookAttempts+1), elected.Hits(), "three questions a look")
}

func TestTopicsAndConfigs(t *testing.T) {
	f := fake(t, kfake.SeedTopics(2, "orders", "other"))
	c := as(t, f, admin)
	require.NoError(t, c.CreateTopic(short(t), replication.NewTopic{Name: "orders.eu", Partitions: 5, Configs: map[string]string{"retention.ms": "1234"}}))
	require.ErrorIs(t, c.CreateTopic(short(t), replication.NewTopic{Name: "orders.eu", Partitions: 5}), fault.ErrConflict)
	topics, err := c.Topics(short(t), func(n string) bool { return n != "other" })
	require.NoError(t, err)
	require.Len(t, topics, 2)
	require.Equal(t, "orders.eu", topics[1].Name)
	require.Equal(t, 5, topics[1].Partitions)
	require.Equal(t, 3, topics[1].ReplicationFactor)
	require.NotEmpty(t, topics[1].ID)

	configs, err := c.TopicConfigs(short(t), []string{"orders.eu", "gone"})
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.Equal(t, "1234", configs["orders.eu"]["retention.ms"])
}

// A writer that goes around the supervisor is named.
func TestWritersThatGoOn(t *testing.T) {
	w := func(id int64, seq int32) replication.Writer {
		return replication.Writer{Partition: part("a", 0), ProducerID: id, LastSequence: seq, TxnStartOffset: replication.Unknown, LastTimestamp: time.Unix(int64(seq), 0)}
	}
	require.Equal(t, []replication.Writer{w(2, 6), w(3, 0)},
		replication.Writing([]replication.Writer{w(1, 9), w(2, 5)}, []replication.Writer{w(1, 9), w(2, 6), w(3, 0)}))
}

func BenchmarkEnds(b *testing.B) {
	topics := make([]string, 1000)
	for i := range topics {
		topics[i] = fmt.Sprintf("topic-%04d", i)
	}
	c := as(b, fake(b, kfake.SeedTopics(10, topics...)), admin)
	for b.Loop() {
		ends, err := c.Ends(b.Context(), topics)
		if err != nil || len(ends) != 10_000 {
			b.Fatal(len(ends), err)
		}
	}
}
