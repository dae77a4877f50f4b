package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

func keyed(on replication.Partition, key, value string) *kgo.Record {
	r := &kgo.Record{Topic: on.Topic, Partition: on.Partition, Value: []byte(value)}
	if key != "" {
		r.Key = []byte(key)
	}
	return r
}

// guardedTails are appended and compacted; what lies on the new cluster by now is from before the switch.
func (p *pair) guardedTails(topic string) []replication.Tail {
	p.t.Helper()
	tails := p.tails(replication.TreatAppend, topic)
	for i := range tails {
		ends, err := p.to.endOf(short(p.t), tails[i].Into)
		require.NoError(p.t, err)
		tails[i].Compacted, tails[i].Since = true, ends.HighWatermark
	}
	return tails
}

func TestRecoverNeverOverwritesANewerValue(t *testing.T) {
	p := newPair(t, 1, "customers")
	on := part("customers", 0)
	require.NoError(t, p.live.ProduceSync(short(t), keyed(on, "mirrored", "old"), keyed(on, "a", "before the switch")).FirstErr())
	require.NoError(t, p.oldRaw.ProduceSync(short(t), keyed(on, "a", "a1"), keyed(on, "b", "b1"), keyed(on, "c", "c1"),
		keyed(on, "b", "b2"), keyed(on, "gone", "x"), keyed(on, "mirrored", "m1"), keyed(on, "", "no key")).FirstErr())
	tails := p.guardedTails("customers")
	copied := keyed(on, "c", "a copy")
	copied.Headers = []kgo.RecordHeader{{Key: replication.HeaderFrom("east-id")}}
	require.NoError(t, p.live.ProduceSync(short(t), keyed(on, "b", "live"), copied,
		&kgo.Record{Topic: on.Topic, Key: []byte("gone")}).FirstErr())

	seen, err := p.old.Stranded(short(t), p.to, tails)
	require.NoError(t, err)
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	want := replication.Tally{Recovered: 4, Superseded: 3}
	require.Equal(t, want, seen[0].Tally)
	require.Equal(t, want, all[0].Tally)
	last := map[string]string{}
	for _, r := range committed(t, p.to, on) {
		last[string(r.Key)] = string(r.Value)
	}
	require.Equal(t, map[string]string{"a": "a1", "b": "live", "c": "c1", "gone": "", "mirrored": "m1", "": "no key"}, last)
}

// nosy writes to a partition while a recovery copies to it, with and without transactions, until its context ends.
func (p *pair) nosy(ctx context.Context, rnd *rand.Rand, on replication.Partition, keys int) {
	tx, err := kgo.NewClient(kgo.SeedBrokers(p.west.ListenAddrs()...), kgo.TransactionalID(fmt.Sprint("live-", rnd.Uint64())),
		kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics())
	if err != nil {
		return
	}
	defer tx.Close()
	for n := 0; ctx.Err() == nil; n++ {
		r := keyed(on, fmt.Sprint("key-", rnd.IntN(keys)), fmt.Sprint("live-", n))
		if n%3 > 0 {
			_ = p.live.ProduceSync(ctx, r).FirstErr()
			continue
		}
		if tx.BeginTransaction() != nil {
			return
		}
		_ = tx.ProduceSync(ctx, r).FirstErr()
		_ = p.live.ProduceSync(ctx, keyed(on, fmt.Sprint("key-", rnd.IntN(keys)), fmt.Sprint("live-", n))).FirstErr()
		if tx.EndTransaction(context.WithoutCancel(ctx), kgo.TransactionEndTry(n%2 == 0)) != nil {
			return
		}
	}
}

func TestRecoverNeverOverwritesWhatIsWrittenMeanwhile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seed(t), 5))
	p := newPair(t, 2, "customers")
	var parts []replication.Partition
	for i := range int32(2) {
		on := part("customers", i)
		parts = append(parts, on)
		var all []*kgo.Record
		for n := range 1500 {
			all = append(all, keyed(on, fmt.Sprint("key-", rnd.IntN(600)), fmt.Sprint("stranded-", n)))
		}
		require.NoError(t, p.oldRaw.ProduceSync(short(t), all...).FirstErr())
	}
	tails := p.guardedTails("customers")
	ctx, stop := context.WithCancel(short(t))
	var writers sync.WaitGroup
	for i, on := range parts {
		own := rand.New(rand.NewPCG(rnd.Uint64(), uint64(i)))
		writers.Go(func() { p.nosy(ctx, own, on, 600) })
	}
	all := p.attack(rnd, p.job(tails), 20)
	stop()
	writers.Wait()
	for _, r := range all {
		require.Equal(t, r.Offsets(), r.Tally.Sum())
		if r.Topic != "customers" {
			continue // of an attack that outlived these
		}
		originals := committed(t, p.old, r.Partition)
		newer, copies := map[string]bool{}, map[int64]bool{}
		for _, got := range committed(t, p.to, r.Into) {
			from := origin(t, got)
			if from == replication.Unknown {
				newer[string(got.Key)] = true
				continue
			}
			require.False(t, newer[string(got.Key)], "%s was written anew before its copy at offset %d", got.Key, got.Offset)
			require.False(t, copies[from], "offset %d was copied twice", from)
			copies[from] = true
			requireCopy(t, originals[from], got)
		}
		require.EqualValues(t, len(copies), r.Tally.Recovered)
		for _, o := range originals { // what was left out had a newer value to give way to
			require.True(t, copies[o.Offset] || newer[string(o.Key)], "%s at %d is not there", o.Key, o.Offset)
		}
		t.Logf("%s: %+v", r.Name(), r.Tally)
	}
}

func TestP31_PlainCopiesAreCommittedBeforeCompactedOnesBegin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seed(t), 6))
	p := newPair(t, 1, "customers", "orders")
	on := part("customers", 0)
	var all []*kgo.Record
	for n := range 600 {
		all = append(all, keyed(on, fmt.Sprint("key-", rnd.IntN(300)), fmt.Sprint("stranded-", n)))
	}
	require.NoError(t, p.oldRaw.ProduceSync(short(t), all...).FirstErr())
	p.strand(rnd, 200, part("orders", 0))
	tails := append(p.guardedTails("customers"), p.tails(replication.TreatAppend, "orders")...)
	ctx, stop := context.WithCancel(short(t))
	var writer sync.WaitGroup
	writer.Go(func() { p.nosy(ctx, rnd, on, 300) })
	r := &recovery{old: p.old, to: p.to, job: p.job(tails), every: time.Hour, most: 20}
	orders := int64(0)
	r.told = func(all []replication.Recovered) {
		if all[0].Next > all[0].From {
			require.True(t, all[1].Done(), "the transaction of a compacted tail has nothing else in it")
		} else {
			orders++
		}
	}
	done, err := r.run(short(t))
	stop()
	writer.Wait()
	require.NoError(t, err)
	require.Positive(t, orders)
	require.True(t, done[0].Done())
	p.requireRecovered(done[1:])
}

func TestRecoverNamesWhatIsRefused(t *testing.T) {
	p := newPair(t, 1, "orders")
	on := part("orders", 0)
	limit := "2000"
	require.NoError(t, p.to.AlterTopicConfigs(short(t), map[string]map[string]*string{"orders": {"max.message.bytes": &limit}}))
	noise := func(n int) string {
		b, rnd := make([]byte, n), rand.New(rand.NewPCG(9, uint64(n)))
		for i := range b {
			b[i] = byte(rnd.Uint64())
		}
		return string(b)
	}
	require.NoError(t, p.oldRaw.ProduceSync(short(t), keyed(on, "a", "1"), keyed(on, "big", noise(1900)), keyed(on, "b", "2"),
		keyed(on, "soft", string(make([]byte, 5000))), keyed(on, "bigger", noise(4000)), keyed(on, "c", "3")).FirstErr())
	tails := p.tails(replication.TreatAppend, "orders")
	seen, err := p.old.Stranded(short(t), p.to, tails)
	require.NoError(t, err)
	require.Len(t, seen[0].Notes, 1)
	require.Contains(t, seen[0].Notes[0], "max.message.bytes=2000")
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	require.Equal(t, replication.Tally{Recovered: 4, Refused: 2}, all[0].Tally)
	require.Len(t, all[0].Refusals, 2)
	require.Equal(t, "offset 1", all[0].Refusals[0].Name)
	require.Contains(t, all[0].Refusals[0].Reason, "max.message.bytes of orders")
	var got []string
	for _, r := range committed(t, p.to, on) {
		got = append(got, string(r.Key))
	}
	require.Equal(t, []string{"a", "b", "soft", "c"}, got, "what can be compressed passes; the order stays")
}

func TestRecoverCompressesAsTheTopicAsks(t *testing.T) {
	for name, tc := range map[string]struct {
		by   kgo.CompressionCodec
		asks string
		want uint8
	}{
		"as it was":    {kgo.ZstdCompression(), "producer", uint8(kgo.CodecZstd)},
		"not at all":   {kgo.NoCompression(), "producer", uint8(kgo.CodecNone)},
		"as asked":     {kgo.GzipCompression(), "lz4", uint8(kgo.CodecLz4)},
		"uncompressed": {kgo.SnappyCompression(), "uncompressed", uint8(kgo.CodecNone)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1, "orders")
			require.NoError(t, p.to.AlterTopicConfigs(short(t), map[string]map[string]*string{"orders": {"compression.type": &tc.asks}}))
			cl := unguardedRaw(t, p.east, kgo.ProducerBatchCompression(tc.by))
			require.NoError(t, cl.ProduceSync(short(t), keyed(part("orders", 0), "k", string(make([]byte, 3000)))).FirstErr())
			all, err := p.old.Recover(short(t), p.to, p.job(p.tails(replication.TreatAppend, "orders")), nil)
			require.NoError(t, err)
			p.requireRecovered(all)
			require.Equal(t, tc.want, committed(t, p.to, part("orders", 0))[0].Attrs.CompressionType())
		})
	}
}

func TestRecoverSaysWhatIsGone(t *testing.T) {
	p := newPair(t, 2, "orders")
	on := part("orders", 0)
	produceTo := func(n int) {
		for i := range n {
			require.NoError(t, p.oldRaw.ProduceSync(short(t), keyed(on, "", fmt.Sprint(i))).FirstErr())
		}
	}
	produceTo(30)
	tails := p.tails(replication.TreatAppend, "orders")
	tails[0].From = 5
	require.NoError(t, asError(p.east.DeleteRecords("orders", 0, 12)))
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	require.Equal(t, replication.Tally{Expired: 7, Recovered: 18}, all[0].Tally)
	require.True(t, all[0].Done())
	require.Zero(t, all[1].Offsets())

	tails[0].To = 40
	_, err = p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.ErrorIs(t, err, fault.ErrConflict, "the log is shorter than it was seen")

	require.NoError(t, asError(p.east.DeleteTopic("orders")))
	seen, err := p.old.Stranded(short(t), p.to, tails[:1])
	require.NoError(t, err)
	require.Contains(t, seen[0].Gone, "orders")
	require.Zero(t, seen[0].Sum())
}

func TestRecoverGoesOnWithoutATailThatIsGone(t *testing.T) {
	p := newPair(t, 2, "orders", "payments")
	p.strand(rand.New(rand.NewPCG(6, 6)), 100, part("orders", 0), part("orders", 1))
	p.strand(rand.New(rand.NewPCG(7, 7)), 100, part("payments", 0), part("payments", 1))
	tails := p.tails(replication.TreatAppend, "payments", "orders")
	for i := range tails[:2] {
		tails[i].Compacted = true
	}
	require.NoError(t, asError(p.east.DeleteTopic("payments")))
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	missing, ok := errors.AsType[*replication.Partial](err)
	require.True(t, ok, "%v", err)
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.Len(t, missing.Failed, 2)
	require.Zero(t, all[0].Tally.Sum()+all[1].Tally.Sum())
	p.requireRecovered(all[2:])
}

// asError of the fake's methods, which return a typed nil when all went well.
func asError(err error) error {
	if code, ok := errors.AsType[*kerr.Error](err); ok && code == nil {
		return nil
	}
	return err
}

func TestP31_ATransactionThatIsOpenBehindTheFenceIsNotReadOver(t *testing.T) {
	p := newPair(t, 1, "orders")
	on := part("orders", 0)
	cl := unguardedRaw(t, p.east, kgo.TransactionalID("open"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(short(t), keyed(on, "k", "open")).FirstErr())
	tails := p.tails(replication.TreatAppend, "orders")
	require.EqualValues(t, 1, tails[0].To)
	ctx, cancel := context.WithTimeout(short(t), time.Second)
	defer cancel()
	all, err := p.old.Recover(ctx, p.to, p.job(tails), nil)
	require.Error(t, err)
	require.Zero(t, all[0].Tally.Sum())
	require.NoError(t, cl.EndTransaction(short(t), kgo.TryCommit))
	all, err = p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, all[0].Tally.Recovered)
}

func TestDivertedTopicsLoseNothing(t *testing.T) {
	p := newPair(t, 3, "customers")
	compact, ms := "compact", "1000"
	require.NoError(t, p.old.AlterTopicConfigs(short(t), map[string]map[string]*string{"customers": {"cleanup.policy": &compact, "retention.ms": &ms}}))
	p.strand(rand.New(rand.NewPCG(4, 4)), 300, part("customers", 0), part("customers", 1), part("customers", 2))
	for range 2 { // it may be repeated
		require.NoError(t, p.old.EnsureDiverted(short(t), p.to, []string{"customers"}))
	}
	configs, err := p.to.TopicConfigs(short(t), []string{"customers.recovered"})
	require.NoError(t, err)
	require.Equal(t, "delete", configs["customers.recovered"]["cleanup.policy"])
	require.Equal(t, "-1", configs["customers.recovered"]["retention.ms"])
	tails := p.tails(replication.TreatDivert, "customers")
	require.Len(t, tails, 3)
	all, err := p.old.Recover(short(t), p.to, p.job(tails), nil)
	require.NoError(t, err)
	p.requireRecovered(all)
}

func TestP26_CopiesAreToldByTheirHeader(t *testing.T) {
	is := CopiedFrom("east-id")
	require.True(t, is(&kgo.Record{Headers: []kgo.RecordHeader{{Key: "x"}, {Key: replication.HeaderFrom("east-id")}}}))
	require.False(t, is(&kgo.Record{Headers: []kgo.RecordHeader{{Key: replication.HeaderFrom("west-id")}}}))
	require.False(t, is(&kgo.Record{}))
}
