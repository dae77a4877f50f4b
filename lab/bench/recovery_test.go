//go:build bench

package bench

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/apache"
	"switchback/lab/servers"
	"switchback/lab/tree"
	"switchback/replication"
	"switchback/replication/kafka"
)

var (
	stranded = flag.Int("stranded", 1_000_000, "records of a recovery")
	rounds   = flag.Int("rounds", 3, "how often they are copied in each way")
)

const (
	strandedBytes      = 512
	strandedPartitions = 4
	mostRecoveryMemory = 256 << 20
	eastID             = "east-AAAAAAAAAAAAAAAAA"
)

// ground is two brokers of Apache Kafka, a cluster each, with the same records on one of them for everybody.
type ground struct {
	t       *testing.T
	runtime apache.Runtime
	running *tree.Tree
	dir     string
	at      map[string]string // listeners that know no users, by cluster
	old, to *kafka.Cluster
}

func newGround(t *testing.T) *ground {
	t.Helper()
	if missing := apache.Missing(); missing != "" {
		t.Skip(missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	java, err := apache.Fetch(ctx)
	require.NoError(t, err)
	g := &ground{t: t, runtime: java, running: &tree.Tree{}, dir: t.TempDir(), at: map[string]string{}}
	t.Cleanup(func() { require.NoError(t, g.running.Down(context.Background())) })
	opened := map[string]*kafka.Cluster{}
	for name, id := range map[string]string{"east": eastID, "west": "west-AAAAAAAAAAAAAAAAA"} {
		free, err := servers.FreePorts(ctx, 3)
		require.NoError(t, err)
		specs, err := apache.Cluster{Name: "kafka-" + name, ID: id, Dir: filepath.Join(g.dir, name), Logs: filepath.Join(g.dir, "logs"),
			Nodes: []apache.Node{{Client: free[0], Internal: free[1], Controller: free[2]}}}.Brokers(ctx, java)
		require.NoError(t, err)
		require.NoError(t, g.running.Start(ctx, specs...))
		g.at[name] = net.JoinHostPort("127.0.0.1", strconv.Itoa(free[1]))
		opened[name], err = kafka.Open(kafka.Config{Name: name, Bootstrap: []string{g.at[name]}})
		require.NoError(t, err)
		t.Cleanup(opened[name].Close)
	}
	g.old, g.to = opened["east"], opened["west"]
	require.NoError(t, g.old.CreateTopic(ctx, replication.NewTopic{Name: "stranded", Partitions: strandedPartitions}))
	g.strand(ctx)
	require.NoError(t, g.to.EnsureRecovery(ctx))
	return g
}

func (g *ground) client(cluster string, opts ...kgo.Opt) *kgo.Client {
	g.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(g.at[cluster]), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	require.NoError(g.t, err)
	return cl
}

// strand writes records that do not compress, in batches as large as busy producers make them.
func (g *ground) strand(ctx context.Context) {
	g.t.Helper()
	cl := g.client("east", kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond))
	defer cl.Close()
	noise, rnd := make([]byte, 1<<20), rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for i := range *stranded {
		at := rnd.IntN(len(noise) - strandedBytes)
		cl.Produce(ctx, &kgo.Record{Topic: "stranded", Partition: int32(i % strandedPartitions), Value: noise[at : at+strandedBytes]}, nil)
	}
	require.NoError(g.t, cl.Flush(ctx))
}

// loop consumes and produces, and does nothing else.
func (g *ground) loop(ctx context.Context, into string) time.Duration {
	g.t.Helper()
	begin := time.Now()
	from := g.client("east", kgo.ConsumeTopics("stranded"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer from.Close()
	to := g.client("west", kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond))
	defer to.Close()
	for n := 0; n < *stranded; {
		fetches := from.PollFetches(ctx)
		require.NoError(g.t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			to.Produce(ctx, &kgo.Record{Topic: into, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}, nil)
		})
	}
	require.NoError(g.t, to.Flush(ctx))
	return time.Since(begin)
}

// recover copies them with the engine, exactly once, and says how much memory that took at most.
func (g *ground) recover(ctx context.Context, into string) (time.Duration, uint64) {
	g.t.Helper()
	job := replication.CopyJob{ID: "bench/" + into, Tail: "bench/" + into, Run: "bench", Cluster: eastID}
	ends, err := g.old.Ends(ctx, []string{"stranded"})
	require.NoError(g.t, err)
	for _, e := range ends {
		job.Tails = append(job.Tails, replication.Tail{Partition: e.Partition, To: e.LogEnd, Treatment: replication.TreatAppend,
			Into: replication.Partition{Topic: into, Partition: e.Partition.Partition}})
	}
	peak := watchMemory()
	begin := time.Now()
	all, err := g.old.Recover(ctx, g.to, job, nil)
	took, bytes := time.Since(begin), peak()
	require.NoError(g.t, err)
	var total replication.Tally
	for _, r := range all {
		require.True(g.t, r.Done())
		total = total.Plus(r.Tally)
	}
	require.EqualValues(g.t, *stranded, total.Recovered)
	return took, bytes
}

// watchMemory looks at what the process has of the heap until it is asked, and tells how much came on top at most.
func watchMemory() func() uint64 {
	debug.FreeOSMemory()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, peak := make(chan struct{}), uint64(0)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() uint64 {
		close(stop)
		done.Wait()
		return peak - min(peak, before.HeapInuse)
	}
}

// mirrorMaker lets MirrorMaker 2 copy them with its defaults, and measures from the first record that arrives.
func (g *ground) mirrorMaker(ctx context.Context) time.Duration {
	g.t.Helper()
	file := filepath.Join(g.dir, "mm2.properties")
	settings := []string{"clusters=east,west", "east.bootstrap.servers=" + g.at["east"], "west.bootstrap.servers=" + g.at["west"],
		"east->west.enabled=true", "west->east.enabled=false", "east->west.topics=stranded", "replication.factor=1",
		"checkpoints.topic.replication.factor=1", "heartbeats.topic.replication.factor=1", "offset-syncs.topic.replication.factor=1",
		"offset.storage.replication.factor=1", "status.storage.replication.factor=1", "config.storage.replication.factor=1"}
	require.NoError(g.t, os.WriteFile(file, []byte(strings.Join(settings, "\n")), 0o600))
	require.NoError(g.t, g.running.Start(ctx, tree.Spec{Name: "mirrormaker", Path: g.runtime.Java, Dir: g.dir,
		Args: []string{"-Xmx1g", "-cp", g.runtime.ClassPath, "org.apache.kafka.connect.mirror.MirrorMaker", file},
		Log:  filepath.Join(g.dir, "logs", "mirrormaker.log"), Grace: 5 * time.Second}))
	var first time.Time
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.NoError(g.t, ctx.Err(), "MirrorMaker 2 has not copied them all")
		}
		arrived := int64(0)
		ends, _ := g.to.Ends(ctx, []string{"east.stranded"}) // not there before it begins
		for _, e := range ends {
			arrived += max(0, e.HighWatermark)
		}
		if arrived > 0 && first.IsZero() {
			first = time.Now()
		}
		if arrived >= int64(*stranded) {
			return time.Since(first)
		}
	}
}

// TestRecovery copies the same records in three ways, one after the other on the same brokers.
func TestRecovery(t *testing.T) {
	g := newGround(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	var plain, ours spread
	most, n := uint64(0), 0
	topic := func() string {
		n++
		name := fmt.Sprint("copies-", n)
		require.NoError(t, g.to.CreateTopic(ctx, replication.NewTopic{Name: name, Partitions: strandedPartitions}))
		return name
	}
	rate := func(took time.Duration) float64 { return float64(*stranded) / took.Seconds() }
	for range *rounds {
		plain.add(rate(g.loop(ctx, topic())))
		took, bytes := g.recover(ctx, topic())
		ours.add(rate(took))
		most = max(most, bytes)
	}
	mm2 := rate(g.mirrorMaker(ctx))
	fmt.Printf("\n%d records of %d bytes in %d partitions, Apache Kafka %s, load %s, records a second, median of %d\n\n", *stranded, strandedBytes, strandedPartitions, apache.Version(), load(), *rounds)
	fmt.Println("| way | records/s | / plain loop | / MirrorMaker 2 |\n| --- | --- | --- | --- |")
	for _, row := range []struct {
		name string
		rate float64
	}{{"plain consume and produce", plain.Median}, {"recovery, exactly once", ours.Median}, {"MirrorMaker 2 with its defaults, at least once", mm2}} {
		fmt.Printf("| %s | %.0f | %.2f | %.2f |\n", row.name, row.rate, row.rate/plain.Median, row.rate/mm2)
	}
	fmt.Printf("\nThe recovery took %d MB of memory at most; every rate: plain %.0f, recovery %.0f\n", most>>20, plain.Each, ours.Each)
	require.Less(t, most, uint64(mostRecoveryMemory))
}
