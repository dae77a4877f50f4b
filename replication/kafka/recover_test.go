package kafka

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// pair is an old cluster and a new one, as a recovery sees them.
type pair struct {
	t            testing.TB
	east, west   *kfake.Cluster
	old, to      *Cluster
	oldRaw, live *kgo.Client
}

func newPair(t testing.TB, partitions int32, topics ...string) *pair {
	t.Helper()
	plain := []kfake.Opt{kfake.NumBrokers(2), kfake.SeedTopics(partitions, topics...)}
	p := &pair{t: t}
	var err error
	p.east, err = kfake.NewCluster(append(plain, kfake.ClusterID("east-id"))...)
	require.NoError(t, err)
	t.Cleanup(p.east.Close)
	p.west, err = kfake.NewCluster(append(plain, kfake.ClusterID("west-id"))...)
	require.NoError(t, err)
	t.Cleanup(p.west.Close)
	p.old, p.to = unguarded(t, "east", p.east), unguarded(t, "west", p.west)
	p.oldRaw, p.live = unguardedRaw(t, p.east), unguardedRaw(t, p.west)
	require.NoError(t, p.to.EnsureRecovery(short(t)))
	return p
}

// close ends the clusters before the test does; a benchmark needs their memory.
func (p *pair) close() {
	p.east.Close()
	p.west.Close()
}

// unguarded opens a fake that asks for no login: recoveries make many connections, and SCRAM costs more than all else.
func unguarded(t testing.TB, name string, f *kfake.Cluster) *Cluster {
	t.Helper()
	c, err := Open(Config{Name: name, Bootstrap: f.ListenAddrs()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func unguardedRaw(t testing.TB, f *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(f.ListenAddrs()...), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics()}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// tails of every partition of a topic of the old cluster, from the beginning, into the same one on the new.
func (p *pair) tails(treatment replication.Treatment, topics ...string) []replication.Tail {
	p.t.Helper()
	ends, err := p.old.Ends(short(p.t), topics)
	require.NoError(p.t, err)
	var tails []replication.Tail
	for _, e := range ends {
		tail := replication.Tail{Partition: e.Partition, To: e.LogEnd, Start: e.Start, Treatment: treatment}
		switch treatment {
		case replication.TreatAppend:
			tail.Into = e.Partition
		case replication.TreatDivert:
			tail.Into = part(e.Topic+replication.DivertSuffix, e.Partition.Partition)
		}
		tails = append(tails, tail)
	}
	return tails
}

func (p *pair) job(tails []replication.Tail) replication.CopyJob {
	return replication.CopyJob{ID: "orders/east-id/7/0", Tail: "east-id/7", Run: "run-1", Cluster: "east-id", Tails: tails}
}

// committed reads a partition with read_committed.
func committed(t testing.TB, c *Cluster, p replication.Partition) []*kgo.Record {
	t.Helper()
	ends, err := c.endOf(short(t), p)
	require.NoError(t, err)
	var all []*kgo.Record
	require.NoError(t, c.Read(short(t), p, ends.Start, ends.HighWatermark, true, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	}))
	return all
}

// origin is the offset that a copy says it had, Unknown for a record that is none.
func origin(t testing.TB, r *kgo.Record) int64 {
	t.Helper()
	for _, h := range r.Headers {
		if h.Key == replication.HeaderOffset {
			n, err := strconv.ParseInt(string(h.Value), 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	return replication.Unknown
}

// requireCopy compares a copy with its original byte by byte, but for the headers that were appended.
func requireCopy(t testing.TB, want, got *kgo.Record) {
	t.Helper()
	at := fmt.Sprintf("%s/%d offset %d", want.Topic, want.Partition, want.Offset)
	require.Equal(t, want.Key, got.Key, at)
	require.Equal(t, want.Key == nil, got.Key == nil, at)
	require.True(t, bytes.Equal(want.Value, got.Value), at)
	require.Equal(t, want.Value == nil, got.Value == nil, at)
	require.Equal(t, want.Timestamp.UnixMilli(), got.Timestamp.UnixMilli(), at)
	require.Len(t, got.Headers, len(want.Headers)+7, at)
	for i, h := range want.Headers {
		require.Equal(t, h, got.Headers[i], at)
	}
	ours := map[string]string{}
	for _, h := range got.Headers[len(want.Headers):] {
		ours[h.Key] = string(h.Value)
	}
	require.Equal(t, map[string]string{
		replication.HeaderOrigin: "east-id", replication.HeaderTopic: want.Topic, replication.HeaderPartition: strconv.Itoa(int(want.Partition)),
		replication.HeaderOffset: strconv.FormatInt(want.Offset, 10), replication.HeaderTimestamp: strconv.FormatInt(want.Timestamp.UnixMilli(), 10),
		replication.HeaderRun: ours[replication.HeaderRun], replication.HeaderFrom("east-id"): ""}, ours, at)
}

// transact writes n records in a transaction of the old cluster, and commits it or not.
func (p *pair) transact(id string, on replication.Partition, n int, commit kgo.TransactionEndTry) {
	p.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.east.ListenAddrs()...), kgo.TransactionalID(id), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics())
	require.NoError(p.t, err)
	defer cl.Close()
	require.NoError(p.t, cl.BeginTransaction())
	for i := range n {
		r := &kgo.Record{Topic: on.Topic, Partition: on.Partition, Value: fmt.Appendf(nil, "%s-%d", id, i)}
		require.NoError(p.t, cl.ProduceSync(short(p.t), r).FirstErr())
	}
	require.NoError(p.t, cl.EndTransaction(short(p.t), commit))
}

// strand writes records of every kind to the old cluster: with and without keys, values, headers, in batches of every
// codec, in transactions that were committed and aborted.
func (p *pair) strand(rnd *rand.Rand, n int, parts ...replication.Partition) {
	p.t.Helper()
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for _, codec := range codecs {
		cl := unguardedRaw(p.t, p.east, kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(2*time.Millisecond))
		var all []*kgo.Record
		for i := range n / len(codecs) {
			on := parts[rnd.IntN(len(parts))]
			r := &kgo.Record{Topic: on.Topic, Partition: on.Partition, Timestamp: time.UnixMilli(1_700_000_000_000 + rnd.Int64N(1e9))}
			if i%3 != 0 {
				r.Key = fmt.Appendf(nil, "key-%d", rnd.IntN(50))
			}
			if i%7 != 0 {
				r.Value = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, rnd.IntN(200))
			}
			for h := range rnd.IntN(3) {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprintf("h%d", h), Value: [][]byte{nil, {}, []byte("x")}[rnd.IntN(3)]})
			}
			all = append(all, r)
		}
		require.NoError(p.t, cl.ProduceSync(short(p.t), all...).FirstErr())
		cl.Close()
		on := parts[rnd.IntN(len(parts))]
		p.transact("kept", on, 1+rnd.IntN(3), kgo.TryCommit)
		p.transact("dropped", on, 1+rnd.IntN(3), kgo.TryAbort)
	}
}

// requireRecovered compares the copies with what is stranded, record by record, and the sums with the offsets.
func (p *pair) requireRecovered(all []replication.Recovered) {
	p.t.Helper()
	for _, r := range all {
		require.True(p.t, r.Done(), "%+v", r)
		require.Equal(p.t, r.Offsets(), r.Tally.Sum())
		want := committed(p.t, p.old, r.Partition)
		got := committed(p.t, p.to, r.Into)
		require.Len(p.t, got, len(want), "%s: each record once", r.Name())
		for i := range want {
			requireCopy(p.t, want[i], got[i])
		}
		require.EqualValues(p.t, len(want), r.Tally.Recovered)
		if len(got) > 0 {
			require.Equal(p.t, got[0].Offset, r.FirstCopy)
			require.Equal(p.t, got[len(got)-1].Offset, r.LastCopy)
		}
	}
}

func TestRecoverCopiesByteForByteAndCountsWhatIsNone(t *testing.T) {
	p := newPair(t, 4, "orders")
	rnd := rand.New(rand.NewPCG(1, 1))
	var parts []replication.Partition
	for i := range int32(4) {
		parts = append(parts, part("orders", i))
	}
	p.strand(rnd, 2000, parts...)
	tails := p.tails(replication.TreatAppend, "orders")

	seen, err := p.old.Stranded(short(t), p.to, tails)
	require.NoError(t, err)
	var told int
	all, err := p.old.Recover(short(t), p.to, p.job(tails), func([]replication.Recovered) { told++ })
	require.NoError(t, err)
	require.Positive(t, told)
	p.requireRecovered(all)
	for i, s := range seen {
		require.Equal(t, all[i].Tally, s.Tally, "the look said what came")
		require.Equal(t, all[i].Bytes, s.Bytes)
		require.Zero(t, s.Gone)
	}
	stored, err := p.to.Recoveries(short(t), "east-id/7")
	require.NoError(t, err)
	require.ElementsMatch(t, all, stored)

	again, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	require.Equal(t, all, again, "nothing is left to do")
	p.requireRecovered(again)
}

func TestRecoverCountsWhatIsOnlyReported(t *testing.T) {
	p := newPair(t, 1, "orders")
	p.strand(rand.New(rand.NewPCG(2, 2)), 50, part("orders", 0))
	tails := p.tails(replication.TreatReport, "orders")
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	require.True(t, all[0].Done())
	require.EqualValues(t, len(committed(t, p.old, part("orders", 0))), all[0].Tally.Left)
	require.Positive(t, all[0].Tally.Aborted)

	appended, err := p.old.Recover(short(t), p.to, p.job(p.tails(replication.TreatAppend, "orders")), nil)
	require.NoError(t, err, "what was only reported may be copied after all")
	p.requireRecovered(appended)

	_, err = p.old.Recover(short(t), p.to, p.job(p.tails(replication.TreatRewind, "orders")), nil)
	require.ErrorIs(t, err, fault.ErrConflict, "but not rewound once it was copied")
}

func TestP30_WhoeverHadTheJobBeforeIsFenced(t *testing.T) {
	p := newPair(t, 1, "orders")
	first, err := p.to.transactional(short(t), "job")
	require.NoError(t, err)
	defer first.close()
	own := packer{}
	_, err = first.write(short(t), part("orders", 0), own.pack([]record{plainRecord([]byte("k"), []byte("late"), 1)}, batchLimit, kgo.CodecNone))
	require.NoError(t, err)
	second, err := p.to.transactional(short(t), "job")
	require.NoError(t, err)
	defer second.close()
	require.ErrorIs(t, first.end(short(t), true), fault.ErrConflict)
	require.Empty(t, committed(t, p.to, part("orders", 0)))
	_, err = first.write(short(t), part("orders", 0), own.pack([]record{plainRecord([]byte("k"), []byte("later"), 1)}, batchLimit, kgo.CodecNone))
	require.Error(t, err)
	require.Empty(t, committed(t, p.to, part("orders", 0)))
}

func TestP31_NothingStaysOpenWhenItIsStopped(t *testing.T) {
	p := newPair(t, 2, "orders")
	p.strand(rand.New(rand.NewPCG(3, 3)), 1000, part("orders", 0), part("orders", 1))
	job := p.job(p.tails(replication.TreatAppend, "orders"))
	job.Rate = 200
	ctx, stop := context.WithCancel(short(t))
	begin := time.Now()
	all, err := p.old.Recover(ctx, p.to, job, func([]replication.Recovered) { stop() })
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(begin), 10*time.Second)
	ends, err := p.to.Ends(short(t), []string{"orders", replication.RecoveryTopic})
	require.NoError(t, err)
	var copied int64
	for _, e := range ends {
		require.Equal(t, e.HighWatermark, e.LastStable, "an open transaction on %s", e.Name())
	}
	for _, r := range all {
		copied += r.Tally.Recovered
		require.False(t, r.Done())
	}
	require.Positive(t, copied, "what was written is committed")
	job.Rate = 0
	all, err = p.old.Recover(short(t), p.to, job, nil)
	require.NoError(t, err)
	p.requireRecovered(all)
}
