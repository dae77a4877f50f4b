package mirrormaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/replication/kafka"
)

var (
	_ Logs    = (*kafka.Cluster)(nil)
	_ Records = Comparer{}
)

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// broker is one fake cluster, the product's view of it, and a client of the workload's.
type broker struct {
	fake    *kfake.Cluster
	cluster *kafka.Cluster
	client  *kgo.Client
}

func newBroker(t testing.TB, name string, opts ...kfake.Opt) *broker {
	t.Helper()
	f, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID(name)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	c, err := kafka.Open(kafka.Config{Name: name, Bootstrap: f.ListenAddrs()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	b := &broker{fake: f, cluster: c}
	b.client = b.open(t)
	return b
}

func (b *broker) open(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.fake.ListenAddrs()...), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(1 << 20)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func write(t testing.TB, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	require.NoError(t, cl.ProduceSync(soon(t), records...).FirstErr())
}

// copyAll mirrors a partition as MirrorMaker 2 does with read_committed, and notes offset syncs.
func copyAll(t testing.TB, from, to *broker, n Names, on replication.Partition, crash func() bool) {
	t.Helper()
	ends, err := from.cluster.Ends(soon(t), []string{on.Topic})
	require.NoError(t, err)
	var all []*kgo.Record
	require.NoError(t, from.cluster.Read(soon(t), on, 0, ends[on.Partition].LastStable, true, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	}))
	for i, done := 0, 0; i < len(all); i++ {
		r := &kgo.Record{Topic: n.Remote(on.Topic), Partition: on.Partition, Key: all[i].Key, Value: all[i].Value, Headers: all[i].Headers, Timestamp: all[i].Timestamp}
		write(t, to.client, r)
		if i%10 == 0 {
			key, value := EncodeSync(Sync{on, all[i].Offset, r.Offset})
			write(t, to.client, &kgo.Record{Topic: n.OffsetSyncs(), Key: key, Value: value})
			done = i
		}
		if crash != nil && crash() {
			i = done
		}
	}
}

func TestOnBrokers(t *testing.T) {
	n := Names{Source: "east", Target: "west", Policy: PolicyDefault, Syncs: SyncsOnTarget}
	from := newBroker(t, "east", kfake.SeedTopics(3, "orders"))
	to := newBroker(t, "west", kfake.SeedTopics(3, "east.orders"), kfake.SeedTopics(1, n.OffsetSyncs(), n.Checkpoints()))
	c := Comparer{From: from.cluster, To: to.cluster, Names: n, Committed: true}
	r := rand.New(rand.NewPCG(1, 2))
	txn := from.open(t, kgo.TransactionalID("payments"))
	for p := range int32(2) { // the third stays empty
		for i := range 12 {
			require.NoError(t, txn.BeginTransaction())
			for k := range 1 + r.IntN(4) {
				write(t, txn, &kgo.Record{Topic: "orders", Partition: p, Key: []byte("k"), Value: fmt.Appendf(nil, "v%d-%d", i, k),
					Headers: []kgo.RecordHeader{{Key: "n", Value: []byte{byte(i)}}}})
			}
			end := kgo.TryCommit
			if i%3 == 2 { // the last one too
				end = kgo.TryAbort
			}
			require.NoError(t, txn.EndTransaction(soon(t), end))
			write(t, from.client, &kgo.Record{Topic: "orders", Partition: p, Value: fmt.Appendf(nil, "plain %d", i)})
		}
		require.NoError(t, txn.BeginTransaction())
		write(t, txn, &kgo.Record{Topic: "orders", Partition: p, Value: []byte("aborted")})
		require.NoError(t, txn.EndTransaction(soon(t), kgo.TryAbort))
	}
	ends, err := from.cluster.Ends(soon(t), []string{"orders"})
	require.NoError(t, err)

	outcomes, err := c.Drained(soon(t), ends)
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.Pending, replication.Pending, replication.OK},
		[]replication.Status{outcomes[0].Status, outcomes[1].Status, outcomes[2].Status})

	copyAll(t, from, to, n, replication.Partition{Topic: "orders", Partition: 0}, nil)
	copyAll(t, from, to, n, replication.Partition{Topic: "orders", Partition: 1}, func() bool { return r.IntN(12) == 0 })
	outcomes, err = c.Drained(soon(t), ends)
	require.NoError(t, err)
	for _, o := range outcomes {
		require.Equal(t, replication.OK, o.Status, "%s: %s", o.Name, o.Reason)
	}

	for p := range int32(2) {
		on := replication.Partition{Topic: "orders", Partition: p}
		w := &world{on: on, end: ends[p].HighWatermark, truth: nil}
		read := func(b *broker, topic string) (list []*kgo.Record) {
			e, err := b.cluster.Ends(soon(t), []string{topic})
			require.NoError(t, err)
			require.NoError(t, b.cluster.Read(soon(t), replication.Partition{Topic: topic, Partition: p}, 0, e[p].LastStable, true, func(r *kgo.Record) error {
				list = append(list, r)
				return nil
			}))
			return list
		}
		w.source, w.target = read(from, "orders"), read(to, "east.orders")
		for _, r := range w.target {
			for _, s := range w.source {
				if content(s) == content(r) {
					w.truth = append(w.truth, s.Offset)
				}
			}
		}
		require.Len(t, w.truth, len(w.target))
		for _, got := range translate(t, c, on, w.everyPosition()...) {
			w.judge(t, got, on.Name())
			if p == 0 && got.Source <= w.end {
				require.Equal(t, replication.ProofExact, got.Proof)
			}
		}
		b, err := c.Boundaries(soon(t), []Sealed{{Partition: on, Offset: 5, TargetEnd: replication.Unknown}})
		require.NoError(t, err)
		require.Equal(t, w.source[len(w.source)-1].Offset, b[0].Reached)
	}
}

func TestReadCheckpoints(t *testing.T) {
	n := Names{Source: "east", Target: "west", Policy: PolicyDefault}
	to := newBroker(t, "west", kfake.SeedTopics(1, n.Checkpoints(), "east.orders"))
	on := replication.Partition{Topic: "east.orders"}
	put := func(c Checkpoint) {
		key, value := EncodeCheckpoint(c)
		write(t, to.client, &kgo.Record{Topic: n.Checkpoints(), Key: key, Value: value})
	}
	put(Checkpoint{Group: "billing", On: on, Upstream: 5, Downstream: 4})
	put(Checkpoint{Group: "billing", On: on, Upstream: 9, Downstream: 7})
	put(Checkpoint{Group: "gone", On: on, Upstream: 9, Downstream: 7})
	put(Checkpoint{Group: "newer", On: on, Upstream: 9, Downstream: 7})
	key, value := EncodeCheckpoint(Checkpoint{Group: "gone", On: on})
	write(t, to.client, &kgo.Record{Topic: n.Checkpoints(), Key: key}, // a tombstone
		&kgo.Record{Topic: n.Checkpoints(), Key: []byte("nonsense"), Value: value})
	key, _ = EncodeCheckpoint(Checkpoint{Group: "newer", On: on})
	write(t, to.client, &kgo.Record{Topic: n.Checkpoints(), Key: key, Value: []byte{0, 9, 1, 2}})
	for i := range 10 {
		write(t, to.client, &kgo.Record{Topic: "east.orders", Value: fmt.Appendf(nil, "%d", i)})
	}

	found, err := ReadCheckpoints(soon(t), to.cluster, n)
	require.NoError(t, err)
	require.Equal(t, 1, found.Strange)
	newest, err := found.Of("billing", on)
	require.NoError(t, err)
	require.EqualValues(t, 7, newest.Downstream)
	require.False(t, newest.At.IsZero())
	_, err = found.Of("gone", on)
	require.ErrorIs(t, err, fault.ErrNotFound)
	_, err = found.Of("newer", on)
	require.ErrorIs(t, err, fault.ErrInvalid)

	c := Comparer{To: to.cluster, Names: n}
	source := replication.Partition{Topic: "orders"}
	ask := func(group string, held int64) replication.GroupOffsets {
		return replication.GroupOffsets{Group: group, Offsets: []replication.Translated{{Partition: source, Source: replication.Unknown, Target: held}}}
	}
	got, err := c.LastKnown(soon(t), []replication.GroupOffsets{ask("billing", 9), ask("gone", -1), ask("newer", 3)})
	require.NoError(t, err)
	require.Equal(t, replication.Translated{Partition: source, Source: 9, Target: 7, Behind: 3, Proof: "checkpoint, up to 3 records behind; the target's group stands beyond it, at 9"}, got[0].Offsets[0])
	require.Equal(t, replication.Translated{Partition: source, Source: -1, Target: -1, Behind: -1, Proof: "no checkpoint"}, got[1].Offsets[0])
	require.Contains(t, got[2].Offsets[0].Proof, "is not understood")
}

func TestReadCheckpointsIsCompleteOrAnError(t *testing.T) {
	n := Names{Source: "east", Target: "west", Policy: PolicyDefault}
	to := newBroker(t, "west", kfake.SeedTopics(1, n.Checkpoints()))
	_, err := ReadCheckpoints(soon(t), to.cluster, Names{Source: "nowhere"})
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.Contains(t, fault.HintOf(err), "alias")
	write(t, to.client, &kgo.Record{Topic: n.Checkpoints(), Key: []byte("?"), Value: []byte("?")})
	_, err = ReadCheckpoints(soon(t), to.cluster, n)
	require.ErrorIs(t, err, fault.ErrInvalid)

	many := newMemory()
	on := replication.Partition{Topic: n.Checkpoints()}
	many.set(on, 0, 10, nil)
	many.fail[on] = fault.ErrDenied
	found, err := ReadCheckpoints(soon(t), many, n)
	require.ErrorIs(t, err, fault.ErrDenied)
	require.Nil(t, found)
	_, err = (Comparer{To: many, Names: n}).LastKnown(soon(t), nil)
	require.ErrorIs(t, err, fault.ErrDenied)
}

// fillBoth writes n records to each partition of both clusters, as a mirror would leave them.
func fillBoth(b *testing.B, from, to *broker, partitions int32, n int) {
	for p := range partitions {
		for _, at := range []*broker{from, to} {
			records := make([]*kgo.Record, n)
			for i := range records {
				records[i] = &kgo.Record{Topic: "orders", Partition: p, Key: fmt.Appendf(nil, "k%d", i%97), Value: fmt.Appendf(nil, "%0128d", i), Timestamp: time.UnixMilli(int64(1_000_000 + i))}
			}
			for len(records) > 0 { // in batches as producers make them
				k := min(100, len(records))
				write(b, at.client, records[:k]...)
				records = records[k:]
			}
		}
	}
}

// 1,000 groups in 40 partitions of 5,000 records: at the end of them as groups are when a planned run asks, and anywhere.
func BenchmarkTranslate(b *testing.B) {
	const partitions, n = 40, 5_000
	from, to := newBroker(b, "east", kfake.SeedTopics(partitions, "orders")), newBroker(b, "west", kfake.SeedTopics(partitions, "orders"))
	fillBoth(b, from, to, partitions, n)
	c := Comparer{From: from.cluster, To: to.cluster, Names: names, Committed: true}
	for name, position := range map[string]func(r *rand.Rand) int64{
		"at the end":   func(*rand.Rand) int64 { return n },
		"near the end": func(r *rand.Rand) int64 { return n - r.Int64N(50) },
		"anywhere":     func(r *rand.Rand) int64 { return r.Int64N(n) },
	} {
		b.Run(name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			groups := make([]replication.GroupOffsets, 1000)
			for g := range groups {
				groups[g].Group = fmt.Sprintf("group-%d", g)
				for p := range int32(partitions) {
					groups[g].Offsets = append(groups[g].Offsets, replication.Translated{Partition: replication.Partition{Topic: "orders", Partition: p}, Source: position(r)})
				}
			}
			for b.Loop() {
				out, err := c.Translate(soon(b), groups)
				require.NoError(b, err)
				for _, g := range out {
					for _, o := range g.Offsets {
						if o.Proof != replication.ProofExact || o.Target != o.Source {
							b.Fatalf("%+v", o)
						}
					}
				}
			}
		})
	}
}

func BenchmarkReadCheckpoints(b *testing.B) {
	to := newBroker(b, "west", kfake.SeedTopics(1, names.Checkpoints()))
	var records []*kgo.Record
	for i := range 30_000 {
		key, value := EncodeCheckpoint(Checkpoint{Group: fmt.Sprintf("group-%d", i%750), On: replication.Partition{Topic: "orders", Partition: int32(i / 750)}, Upstream: int64(i), Downstream: int64(i)})
		records = append(records, &kgo.Record{Topic: names.Checkpoints(), Key: key, Value: value})
	}
	write(b, to.client, records...)
	for b.Loop() {
		found, err := ReadCheckpoints(soon(b), to.cluster, names)
		require.NoError(b, err)
		require.Equal(b, 750, found.Groups())
	}
}

func BenchmarkDrained(b *testing.B) {
	const partitions = 400
	from, to := newBroker(b, "east", kfake.SeedTopics(partitions, "orders")), newBroker(b, "west", kfake.SeedTopics(partitions, "orders"))
	fillBoth(b, from, to, partitions, 500)
	c := Comparer{From: from.cluster, To: to.cluster, Names: names, Committed: true}
	ends, err := from.cluster.Ends(soon(b), []string{"orders"})
	require.NoError(b, err)
	for b.Loop() {
		out, err := c.Drained(soon(b), ends)
		require.NoError(b, err)
		for _, o := range out {
			require.Equal(b, replication.OK, o.Status)
		}
	}
}
