package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// gathered reads ranges and keeps the offsets of each.
func gathered(t testing.TB, c *Cluster, committed bool, ranges ...replication.Range) ([][]int64, error) {
	t.Helper()
	var mu sync.Mutex
	got := make([][]int64, len(ranges))
	err := c.ReadRanges(short(t), ranges, committed, func(i int, r *kgo.Record) error {
		mu.Lock()
		defer mu.Unlock()
		got[i] = append(got[i], r.Offset)
		return nil
	})
	return got, err
}

func stretchOf(topic string, p int32, from, to int64) replication.Range {
	return replication.Range{Partition: part(topic, p), From: from, To: to}
}

func TestReadRanges(t *testing.T) {
	f := fake(t, kfake.SeedTopics(6, "a"), kfake.SeedTopics(1, "b"))
	c := as(t, f, admin)
	w := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range int32(6) {
		produce(t, w, part("a", p), int(p)+1)
	}
	got, err := gathered(t, c, true, stretchOf("a", 5, 2, 5), stretchOf("b", 0, 0, 0), stretchOf("a", 0, 0, 1), stretchOf("a", 3, 0, 4))
	require.NoError(t, err)
	require.Equal(t, [][]int64{{2, 3, 4}, nil, {0}, {0, 1, 2, 3}}, got)

	_, err = gathered(t, c, true, stretchOf("a", 1, 0, 1), stretchOf("a", 1, 1, 2))
	require.ErrorIs(t, err, fault.ErrInvalid)

	got, err = gathered(t, c, true, stretchOf("a", 1, 0, 2), stretchOf("gone", 0, 0, 1), stretchOf("a", 2, 90, 99), stretchOf("a", 17, 0, 1))
	some, ok := errors.AsType[*replication.Partial](err)
	require.True(t, ok, "%v", err)
	require.Len(t, some.Failed, 3)
	require.Equal(t, []int64{0, 1}, got[0])

	enough := errors.New("enough")
	err = c.ReadRanges(short(t), []replication.Range{stretchOf("a", 5, 0, 6)}, true, func(int, *kgo.Record) error { return enough })
	require.ErrorIs(t, err, enough)
}

// Markers and aborted records take offsets: a range ends although its last offsets hold nothing.
func TestReadRangesEndBehindHoles(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	txn := raw(t, f, kgo.TransactionalID("payments"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		require.NoError(t, txn.BeginTransaction())
		produce(t, txn, part("a", 0), 2)
		require.NoError(t, txn.EndTransaction(short(t), end))
	}
	got, err := gathered(t, c, true, stretchOf("a", 0, 0, 6))
	require.NoError(t, err)
	require.Equal(t, [][]int64{{0, 1}}, got)
	got, err = gathered(t, c, false, stretchOf("a", 0, 0, 6))
	require.NoError(t, err)
	require.Equal(t, [][]int64{{0, 1, 3, 4}}, got)

	require.NoError(t, txn.BeginTransaction())
	produce(t, txn, part("a", 0), 1)
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	err = c.ReadRanges(ctx, []replication.Range{stretchOf("a", 0, 0, 7)}, true, func(_ int, r *kgo.Record) error {
		if r.Offset > 1 {
			t.Errorf("read %d, which is not committed", r.Offset)
		}
		return nil
	})
	require.Error(t, err)
}

// More than one answer holds, from many partitions: each record comes once, in order.
func TestReadRangesTakeSeveralAnswers(t *testing.T) {
	f := fake(t, kfake.SeedTopics(8, "a"))
	c := as(t, f, admin)
	w := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	var ranges []replication.Range
	for p := range int32(8) {
		for range 30 {
			require.NoError(t, w.ProduceSync(short(t), &kgo.Record{Topic: "a", Partition: p, Value: make([]byte, 100<<10)}).FirstErr())
		}
		ranges = append(ranges, stretchOf("a", p, 0, 30))
	}
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "a", Err: kerr.NotLeaderForPartition, Count: 2})
	got, err := gathered(t, c, true, ranges...)
	require.NoError(t, err)
	for p, offsets := range got {
		require.Len(t, offsets, 30, "partition %d", p)
		for i, o := range offsets {
			require.EqualValues(t, i, o)
		}
	}
}

func TestReadRangesNamesWhatABrokerRefuses(t *testing.T) {
	f := fake(t, kfake.SeedTopics(3, "a"))
	w := raw(t, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var ranges []replication.Range
	for p := range int32(3) {
		produce(t, w, part("a", p), 1)
		ranges = append(ranges, stretchOf("a", p, 0, 1))
	}
	c := as(t, f, admin)
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "a", Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	got, err := gathered(t, c, true, ranges...)
	require.ErrorIs(t, err, fault.ErrDenied)
	require.ErrorContains(t, err, "a-1: ")
	require.Equal(t, []int64{0}, got[2])
}

func BenchmarkReadRanges(b *testing.B) {
	f := fake(b, kfake.SeedTopics(40, "a"))
	c := as(b, f, admin)
	w := raw(b, f, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var ranges []replication.Range
	for p := range int32(40) {
		var all []*kgo.Record
		for i := range 100 {
			all = append(all, &kgo.Record{Topic: "a", Partition: p, Value: fmt.Appendf(nil, "value %d", i)})
		}
		require.NoError(b, w.ProduceSync(short(b), all...).FirstErr())
		ranges = append(ranges, stretchOf("a", p, 0, 100))
	}
	b.ResetTimer()
	for b.Loop() {
		var n atomic.Int64
		require.NoError(b, c.ReadRanges(short(b), ranges, true, func(int, *kgo.Record) error { n.Add(1); return nil }))
		require.EqualValues(b, 4000, n.Load())
	}
}
