//go:build crash

package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// engineOrder names the file with the job of a process that does nothing but recover.
const engineOrder = "SWITCHBACK_TEST_ENGINE"

// engineJob is what that process does.
type engineJob struct {
	Old, To []string // bootstrap servers that ask for no login
	Job     replication.CopyJob
}

// twoClusters are real brokers without anything else.
func twoClusters(t *testing.T) map[string][]string {
	t.Helper()
	if missing := apache.Missing(); missing != "" {
		t.Skip(missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	runtime, err := apache.Fetch(ctx)
	require.NoError(t, err)
	running, dir, at := &tree.Tree{}, t.TempDir(), map[string][]string{}
	t.Cleanup(func() { require.NoError(t, running.Down(context.Background())) })
	for name, id := range map[string]string{"east": "east-AAAAAAAAAAAAAAAAA", "west": "west-AAAAAAAAAAAAAAAAA"} {
		free, err := servers.FreePorts(ctx, 3)
		require.NoError(t, err)
		specs, err := apache.Cluster{Name: "kafka-" + name, ID: id, Dir: filepath.Join(dir, name), Logs: filepath.Join(dir, "logs"),
			Nodes: []apache.Node{{Client: free[0], Internal: free[1], Controller: free[2]}}}.Brokers(ctx, runtime)
		require.NoError(t, err)
		require.NoError(t, running.Start(ctx, specs...))
		at[name] = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(free[1]))} // the internal listener knows no users
	}
	return at
}

func engineCluster(t *testing.T, name string, at []string) *kafka.Cluster {
	t.Helper()
	c, err := kafka.Open(kafka.Config{Name: name, Bootstrap: at})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// TestEngineAsAProcess is no test but the process that TestP30_... starts and kills.
func TestEngineAsAProcess(t *testing.T) {
	file := os.Getenv(engineOrder)
	if file == "" {
		return // it is nobody's order
	}
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var order engineJob
	require.NoError(t, json.Unmarshal(raw, &order))
	_, err = engineCluster(t, "east", order.Old).Recover(t.Context(), engineCluster(t, "west", order.To), order.Job,
		func([]replication.Recovered) { fmt.Println("told") })
	require.NoError(t, err)
}

// strandRecords writes records with and without keys, and transactions that were committed and aborted.
func strandRecords(t *testing.T, at []string, topic string, partitions int32, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression()} {
		opts := []kgo.Opt{kgo.SeedBrokers(at...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec)}
		plain, err := kgo.NewClient(opts...)
		require.NoError(t, err)
		var all []*kgo.Record
		for j := range n / 2 {
			r := &kgo.Record{Topic: topic, Partition: int32(j) % partitions, Value: bytes.Repeat([]byte{byte(j), byte(j >> 8)}, 256),
				Timestamp: time.UnixMilli(1_700_000_000_000 + int64(j))}
			if j%3 > 0 {
				r.Key = strconv.AppendInt(nil, int64(j), 10)
				r.Headers = []kgo.RecordHeader{{Key: "h", Value: r.Key}}
			}
			all = append(all, r)
		}
		require.NoError(t, plain.ProduceSync(ctx, all...).FirstErr())
		plain.Close()
		tx, err := kgo.NewClient(append(opts, kgo.TransactionalID(fmt.Sprint("app-", i)))...)
		require.NoError(t, err)
		for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
			require.NoError(t, tx.BeginTransaction())
			for p := range partitions {
				require.NoError(t, tx.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: p, Value: []byte("in a transaction")}).FirstErr())
			}
			require.NoError(t, tx.EndTransaction(ctx, commit))
		}
		tx.Close()
	}
}

// committedRecords reads a partition from its beginning with read_committed. Brokers write the end of a transaction to its
// partitions a moment after they have acknowledged it.
func committedRecords(t *testing.T, c *kafka.Cluster, p replication.Partition) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var at replication.Ends
	require.Eventually(t, func() bool {
		ends, err := c.Ends(ctx, []string{p.Topic})
		for _, e := range ends {
			if e.Partition == p {
				at = e
			}
		}
		return err == nil && at.HighWatermark == at.LastStable
	}, 15*time.Second, 50*time.Millisecond, "an open transaction on %s", p.Name())
	var all []*kgo.Record
	require.NoError(t, c.Read(ctx, p, at.Start, at.HighWatermark, true, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	}))
	return all
}

// TestP30_ExactlyOnceThroughKillsOnApacheKafka kills a process that recovers ten times with -9, on real brokers.
func TestP30_ExactlyOnceThroughKillsOnApacheKafka(t *testing.T) {
	const kills, partitions, records = 10, 4, 60_000
	at := twoClusters(t)
	old, to := engineCluster(t, "east", at["east"]), engineCluster(t, "west", at["west"])
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	for _, c := range []*kafka.Cluster{old, to} {
		require.NoError(t, c.CreateTopic(ctx, replication.NewTopic{Name: "orders", Partitions: partitions}))
	}
	require.NoError(t, to.EnsureRecovery(ctx))
	strandRecords(t, at["east"], "orders", partitions, records)
	ends, err := old.Ends(ctx, []string{"orders"})
	require.NoError(t, err)
	order := engineJob{Old: at["east"], To: at["west"], Job: replication.CopyJob{ID: "orders/east/7/0", Tail: "east/7", Cluster: "east-AAAAAAAAAAAAAAAAA", Rate: 2500}}
	for _, e := range ends {
		order.Job.Tails = append(order.Job.Tails, replication.Tail{Partition: e.Partition, To: e.LogEnd, Treatment: replication.TreatAppend, Into: e.Partition})
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 30))
	file := filepath.Join(t.TempDir(), "job.json")
	engine := func(run string) (*exec.Cmd, *bufio.Scanner) {
		order.Job.Run = run
		raw, err := json.Marshal(order)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, raw, 0o600))
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestEngineAsAProcess$", "-test.v")
		cmd.Env = append(os.Environ(), engineOrder+"="+file)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		return cmd, bufio.NewScanner(out)
	}
	for k := range kills {
		cmd, out := engine(fmt.Sprint("run-", k))
		for after := 1 + rnd.IntN(2); after > 0 && out.Scan(); { // so many commits, and then somewhere before the next
			if out.Text() == "told" {
				after--
			}
		}
		select {
		case <-time.After(time.Duration(rnd.Int64N(int64(600 * time.Millisecond)))):
		case <-ctx.Done():
		}
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), "killed", "it had ended before it was killed: strand more records")
	}
	order.Job.Rate = 0
	cmd, out := engine("run-last")
	for out.Scan() {
		t.Log(out.Text())
	}
	require.NoError(t, cmd.Wait())

	all, err := to.Recoveries(ctx, "east/7")
	require.NoError(t, err)
	require.Len(t, all, partitions)
	var total replication.Tally
	for _, r := range all {
		require.True(t, r.Done(), "%+v", r)
		total = total.Plus(r.Tally)
		want, got := committedRecords(t, old, r.Partition), committedRecords(t, to, r.Into)
		require.Len(t, got, len(want), "%s: each record once", r.Name())
		for i := range want {
			same := bytes.Equal(want[i].Key, got[i].Key) && (want[i].Key == nil) == (got[i].Key == nil) && bytes.Equal(want[i].Value, got[i].Value) &&
				want[i].Timestamp.Equal(got[i].Timestamp) && len(got[i].Headers) == len(want[i].Headers)+7
			require.True(t, same, "%s: %v is not a copy of %v", r.Name(), got[i], want[i])
		}
	}
	t.Logf("%d kills: %+v", kills, total)
	require.EqualValues(t, 2*partitions, total.Aborted)
}

// TestRecoverOnApacheKafkaWhatItRefuses shows what an embedded broker does not: that a batch which real brokers refuse
// leaves the transaction and its order whole, and which records they do refuse.
func TestRecoverOnApacheKafkaWhatItRefuses(t *testing.T) {
	at := twoClusters(t)
	old, to := engineCluster(t, "east", at["east"]), engineCluster(t, "west", at["west"])
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, topic := range []string{"orders", "customers"} {
		require.NoError(t, old.CreateTopic(ctx, replication.NewTopic{Name: topic, Partitions: 1}))
	}
	require.NoError(t, to.CreateTopic(ctx, replication.NewTopic{Name: "orders", Partitions: 1, Configs: map[string]string{"max.message.bytes": "2000"}}))
	require.NoError(t, to.CreateTopic(ctx, replication.NewTopic{Name: "customers", Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact"}}))
	require.NoError(t, to.EnsureRecovery(ctx))
	write := func(cluster, topic string, pairs ...string) {
		cl, err := kgo.NewClient(kgo.SeedBrokers(at[cluster]...), kgo.ProducerBatchCompression(kgo.NoCompression()))
		require.NoError(t, err)
		defer cl.Close()
		for i := 0; i < len(pairs); i += 2 {
			r := &kgo.Record{Topic: topic, Value: []byte(pairs[i+1])}
			if pairs[i] != "" {
				r.Key = []byte(pairs[i])
			}
			require.NoError(t, cl.ProduceSync(ctx, r).FirstErr())
		}
	}
	noise := make([]byte, 3000)
	for i, rnd := 0, rand.New(rand.NewPCG(1, 1)); i < len(noise); i++ {
		noise[i] = byte(rnd.Uint32())
	}
	write("east", "orders", "a", "1", "big", string(noise), "b", "2", "soft", string(make([]byte, 5000)), "bigger", string(noise), "c", "3")
	write("east", "customers", "a", "a1", "", "no key", "b", "b1", "c", "c1")
	write("west", "customers", "b", "live")
	job := replication.CopyJob{ID: "refused", Tail: "east/8", Run: "run-1", Cluster: "east-AAAAAAAAAAAAAAAAA", Tails: []replication.Tail{
		{Partition: replication.Partition{Topic: "orders"}, To: 6, Treatment: replication.TreatAppend, Into: replication.Partition{Topic: "orders"}},
		{Partition: replication.Partition{Topic: "customers"}, To: 4, Treatment: replication.TreatAppend, Into: replication.Partition{Topic: "customers"}, Compacted: true},
	}}
	all, err := old.Recover(ctx, to, job, nil)
	require.NoError(t, err)
	require.Equal(t, replication.Tally{Recovered: 4, Refused: 2}, all[0].Tally)
	require.Equal(t, replication.Tally{Recovered: 2, Refused: 1, Superseded: 1}, all[1].Tally)
	keys := func(topic string) (list []string) {
		for _, r := range committedRecords(t, to, replication.Partition{Topic: topic}) {
			list = append(list, string(r.Key)+"="+string(r.Value[:min(len(r.Value), 4)]))
		}
		return list
	}
	require.Equal(t, []string{"a=1", "b=2", "soft=\x00\x00\x00\x00", "c=3"}, keys("orders"))
	require.Equal(t, []string{"b=live", "a=a1", "c=c1"}, keys("customers"))
	for _, r := range all {
		for _, o := range r.Refusals {
			t.Log(r.Name(), o)
		}
	}
	stored, err := to.Recoveries(ctx, "east/8")
	require.NoError(t, err)
	require.ElementsMatch(t, all, stored)
}
