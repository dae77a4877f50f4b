package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

func TestAlterTopicConfigsChangesNothingElse(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	ctx := short(t)
	require.NoError(t, c.CreateTopic(ctx, replication.NewTopic{Name: "a", Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact", "retention.ms": "5000"}}))
	forever := "-1"
	require.NoError(t, c.AlterTopicConfigs(ctx, map[string]map[string]*string{"a": {"retention.ms": &forever}}))
	set, err := c.TopicOverrides(ctx, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}, set["a"], "what the brokers set by themselves is not the topic's")
	require.NoError(t, c.AlterTopicConfigs(ctx, map[string]map[string]*string{"a": {"retention.ms": nil}}))
	set, err = c.TopicOverrides(ctx, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"cleanup.policy": "compact"}, set["a"])

	err = as(t, f, tool).AlterTopicConfigs(ctx, map[string]map[string]*string{"a": {"retention.ms": &forever}})
	require.ErrorIs(t, err, fault.ErrDenied)
	require.ErrorIs(t, c.AlterTopicConfigs(ctx, map[string]map[string]*string{"none": {"retention.ms": &forever}}), fault.ErrNotFound)
	require.NoError(t, c.AlterTopicConfigs(ctx, nil))
}

func TestTimesAndSizesOfRecords(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	ctx := short(t)
	require.NoError(t, c.CreateTopic(ctx, replication.NewTopic{Name: "a", Partitions: 2}))
	first := time.UnixMilli(1_700_000_000_000)
	cl := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 4 {
		require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "a", Partition: 0, Value: make([]byte, 100), Timestamp: first.Add(time.Duration(i) * time.Minute)}).FirstErr())
	}
	newest, err := c.Newest(ctx, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]time.Time{part("a", 0): first.Add(3 * time.Minute)}, newest, "a partition without records has no time")
	offsets, err := c.OffsetsAt(ctx, []string{"a"}, first.Add(90*time.Second))
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{part("a", 0): 2}, offsets)
	ends, err := c.Ends(ctx, []string{"a"})
	require.NoError(t, err)
	sizes, err := c.RecordSize(ctx, ends)
	require.NoError(t, err)
	require.Positive(t, sizes["a"], "compressed, as it lies in the log")
	_, err = c.Newest(ctx, []string{"none"})
	require.ErrorIs(t, err, fault.ErrNotFound)
}

// P19: what a mirror brought along has no coordinator here. Only the marker ends it.
func TestP19_AbortTransactionsWithoutACoordinator(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	ctx := short(t)
	require.NoError(t, c.CreateTopic(ctx, replication.NewTopic{Name: "a", Partitions: 1}))
	cl := raw(t, f, kgo.TransactionalID("brought"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: []byte("v")}).FirstErr())
	writers, err := c.Writers(ctx, []replication.Partition{part("a", 0)})
	require.NoError(t, err)
	require.Len(t, writers, 1)
	require.NoError(t, c.AbortTransactions(ctx, writers))
	ends, err := c.Ends(ctx, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, ends[0].HighWatermark, ends[0].LastStable)
	require.ErrorIs(t, as(t, f, tool).AbortTransactions(ctx, writers), fault.ErrDenied)
	require.NoError(t, c.AbortTransactions(context.Background(), nil))
}
