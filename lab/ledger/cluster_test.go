package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func cluster(t *testing.T) (context.Context, *kgo.Client, []kgo.Opt) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.SeedTopics(3, "orders", "stock"), kfake.SeedTopics(1, "single", "empty"))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	options := []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...)}
	client, err := kgo.NewClient(append(options, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx, client, options
}

func record(topic, key string, seq int64) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: []byte(key), Value: EncodeValue(seq, 40)}
}

func TestReadCluster(t *testing.T) {
	ctx, client, options := cluster(t)
	want := map[id]int{}
	for seq := int64(1); seq <= 40; seq++ {
		for _, topic := range []string{"orders", "stock"} {
			for k := range 5 {
				r := record(topic, fmt.Sprintf("w1/%d", k), seq)
				require.NoError(t, client.ProduceSync(ctx, r).FirstErr())
				want[id{topic, string(r.Key), seq}]++
			}
		}
	}
	log, err := ReadCluster(ctx, "east", []string{"orders", "stock", "empty"}, options...)
	require.NoError(t, err)
	require.Equal(t, "east", log.Name)
	require.Len(t, log.Records, 400)
	got, next := map[id]int{}, map[topicPartition]int64{}
	for _, r := range log.Records {
		got[id{r.Topic, r.Key, r.Seq}]++
		p := topicPartition{r.Topic, r.Partition}
		require.Equal(t, next[p], r.Offset)
		next[p]++
	}
	require.Equal(t, want, got)

	log, err = ReadCluster(ctx, "east", nil, options...)
	require.NoError(t, err)
	require.Empty(t, log.Records, "no topics are not all topics")
	_, err = ReadCluster(ctx, "east", []string{"orders", "nowhere"}, options...)
	require.ErrorContains(t, err, "read the log of cluster east")
}

func TestReadClusterBeginsWhereTheLogBegins(t *testing.T) {
	ctx, client, options := cluster(t)
	for seq := int64(1); seq <= 5; seq++ {
		require.NoError(t, client.ProduceSync(ctx, record("single", "w1/0", seq)).FirstErr())
	}
	_, err := kadm.NewClient(client).DeleteRecords(ctx, kadm.Offsets{"single": {0: {Topic: "single", Partition: 0, At: 3}}})
	require.NoError(t, err)
	log, err := ReadCluster(ctx, "east", []string{"single"}, options...)
	require.NoError(t, err)
	require.Equal(t, []LogRecord{{"single", 0, 3, "w1/0", 4, ""}, {"single", 0, 4, "w1/0", 5, ""}}, log.Records)
}

// TestReadClusterReadsCommittedOnly has an aborted transaction in the middle, a marker as the last entry, and a
// transaction that is still open.
func TestReadClusterReadsCommittedOnly(t *testing.T) {
	ctx, _, options := cluster(t)
	seq := int64(0)
	write := func(end *kgo.TransactionEndTry) {
		seq++
		client, err := kgo.NewClient(append(options, kgo.TransactionalID(fmt.Sprintf("t%d", seq)))...)
		require.NoError(t, err)
		t.Cleanup(client.Close)
		require.NoError(t, client.BeginTransaction())
		require.NoError(t, client.ProduceSync(ctx, record("single", "w1/0", seq)).FirstErr())
		if end != nil {
			require.NoError(t, client.EndTransaction(ctx, *end))
		}
	}
	commit, abort := kgo.TryCommit, kgo.TryAbort
	write(&commit)
	write(&abort)
	write(&commit)
	write(&abort)
	log, err := ReadCluster(ctx, "east", []string{"single"}, options...)
	require.NoError(t, err)
	require.Equal(t, []LogRecord{{"single", 0, 0, "w1/0", 1, ""}, {"single", 0, 4, "w1/0", 3, ""}}, log.Records)
	write(nil)
	log, err = ReadCluster(ctx, "east", []string{"single"}, options...)
	require.NoError(t, err)
	require.Len(t, log.Records, 2)
}

func TestReadClusterNamesWhatIsNotOfTheLab(t *testing.T) {
	ctx, client, options := cluster(t)
	foreign := &kgo.Record{Topic: "single", Value: []byte("private words")}
	require.NoError(t, client.ProduceSync(ctx, record("single", "w1/0", 1), foreign).FirstErr())
	_, err := ReadCluster(ctx, "east", []string{"single"}, options...)
	require.ErrorContains(t, err, "single-0 at offset 1")
	require.NotContains(t, err.Error(), "private")
}

func TestReadClusterEndsWithItsContext(t *testing.T) {
	ctx, _, options := cluster(t)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err := ReadCluster(ctx, "east", []string{"single"}, options...)
	require.ErrorIs(t, err, context.Canceled)
}
