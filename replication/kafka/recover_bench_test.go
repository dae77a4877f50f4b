package kafka

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

const (
	benchRecords    = 200_000
	benchBytes      = 512
	benchPartitions = 4
)

// benchPair strands records in batches that are not compressed, as most producers write them.
func benchPair(b *testing.B) *pair {
	b.Helper()
	p := newPair(b, benchPartitions, "orders")
	cl := unguardedRaw(b, p.east, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(benchRecords))
	noise := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for i := range benchRecords {
		at := rnd.IntN(len(noise) - benchBytes)
		cl.Produce(context.Background(), &kgo.Record{Topic: "orders", Partition: int32(i % benchPartitions), Value: noise[at : at+benchBytes]}, nil)
	}
	require.NoError(b, cl.Flush(context.Background()))
	return p
}

func report(b *testing.B) {
	b.SetBytes(benchRecords * benchBytes)
	b.ReportMetric(float64(benchRecords)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkRecover copies with progress, headers and transactions.
func BenchmarkRecover(b *testing.B) {
	for range b.N {
		b.StopTimer()
		p := benchPair(b)
		job := p.job(p.tails(replication.TreatAppend, "orders"))
		b.StartTimer()
		all, err := p.old.Recover(context.Background(), p.to, job, nil)
		require.NoError(b, err)
		require.EqualValues(b, benchRecords/benchPartitions, all[0].Tally.Recovered)
		b.StopTimer()
		p.close()
		b.StartTimer()
	}
	report(b)
}

// BenchmarkPlainLoop is what Recover is held against: consume and produce, nothing else.
func BenchmarkPlainLoop(b *testing.B) {
	for range b.N {
		b.StopTimer()
		p := benchPair(b)
		b.StartTimer()
		from := unguardedRaw(b, p.east, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		to := unguardedRaw(b, p.west, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond))
		for n := 0; n < benchRecords; {
			fetches := from.PollFetches(context.Background())
			require.NoError(b, fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				n++
				to.Produce(context.Background(), &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value,
					Headers: r.Headers, Timestamp: r.Timestamp}, nil)
			})
		}
		require.NoError(b, to.Flush(context.Background()))
		b.StopTimer()
		p.close()
		b.StartTimer()
	}
	report(b)
}
