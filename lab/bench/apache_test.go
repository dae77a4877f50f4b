//go:build bench

package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/replication"
	"switchback/replication/kafka"
	"switchback/replication/mirrormaker"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// apacheRows are measured on Apache Kafka and MirrorMaker 2, each beside what an operator has without Switchback. Seconds.
type apacheRows struct {
	Planned   beside   `json:"planned"`   // the producers' window, by their ledgers
	Consumers beside   `json:"consumers"` // the consumers' window of the same run, by theirs
	Unplanned beside   `json:"unplanned"` // decision to the first acknowledgement on the new cluster, the source killed
	Groups    beside   `json:"groups"`    // where 1,000 groups go on in 40 partitions, by checkpoints
	Exact     *spread  `json:"exact"`     // the same where the source is there: exact, near the end
	Steps     []string `json:"steps"`     // where the planned window went, ours and by hand
}

// beside is one figure with Switchback and one by hand.
type beside struct {
	Switchback spread `json:"switchback"`
	ByHand     spread `json:"byHand"`
}

// Of the workload that is moved, and of the mirror's group offset sync, which the procedure by hand waits for.
const (
	apacheTopics     = 100
	apachePartitions = 4
	apacheRate       = 500
	syncEvery        = 5 * time.Second
)

// onApache is a lab on Apache Kafka and MirrorMaker 2, and the story of its one workload; without Java the test is skipped.
func onApache(t *testing.T) (*setup.Lab, *story.Story) {
	t.Helper()
	w := setup.DefaultWorkload("orders")
	w.Topics, w.Partitions, w.Rate = apacheTopics, apachePartitions, apacheRate
	o := setup.Options{Kafka: setup.Apache, Link: setup.MirrorMaker, Workloads: []setup.Workload{w}, EditRunbook: patientlyStopped,
		EditConnector: func(_ string, config map[string]string) {
			for _, key := range []string{"sync.group.offsets.interval.seconds", "emit.checkpoints.interval.seconds"} {
				if _, ok := config[key]; ok {
					config[key] = fmt.Sprint(syncEvery.Seconds())
				}
			}
		}}
	if missing := setup.Missing(o); missing != "" {
		t.Skip("nothing is measured on Apache Kafka: " + missing)
	}
	if results.Apache == nil {
		results.Apache = &apacheRows{}
	}
	lab := up(t, o)
	s, err := story.Open(lab, w)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	s.Dir = ledgerOf(lab.Dir(), w)
	return lab, s
}

// patientlyStopped has budgets for a machine that runs six JVMs besides; a connector whose source is dead takes a minute.
func patientlyStopped(b *runbooks.Runbook) {
	patient(b)
	b.Budgets.Promote = runbooks.Duration(100 * time.Second)
}

// TestApachePlanned moves 100 topics of 4 partitions at 500 records/s, by a run and by hand.
func TestApachePlanned(t *testing.T) {
	t.Run("switchback", func(t *testing.T) {
		_, s := onApache(t)
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		require.NoError(t, s.Flows(ctx, "east", time.Time{}, 100))
		require.NoError(t, s.HandedOver(ctx, "east", "west")) // the mirror has made every topic and caught up
		r, _ := failover(ctx, t, s)
		require.NoError(t, s.Flows(ctx, "west", time.Now(), 50))
		l := judged(ctx, t, s, r)
		worst := pause(l.acks, *r.Epoch.Before, *r.Epoch.After)
		results.Apache.Planned.Switchback.add(worst.seconds)
		results.Apache.Consumers.Switchback.add(pause(l.reads, *r.Epoch.Before, *r.Epoch.After).seconds)
		p := phases(r, l.acks, worst)
		for _, name := range append(append([]string{phaseEnd}, stepsOf(inWindow)...), phaseStart) {
			results.Apache.Steps = append(results.Apache.Steps, fmt.Sprintf("%s: %.2f", name, p[name]))
		}
		exact := 0
		for _, o := range r.Offsets {
			if o.Proof == replication.ProofExact {
				exact++
			}
		}
		t.Logf("%d of %d offsets were handed over exactly", exact, len(r.Offsets))
	})
	t.Run("by hand", func(t *testing.T) {
		lab, s := onApache(t)
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		require.NoError(t, s.Flows(ctx, "east", time.Time{}, 100))
		require.NoError(t, s.HandedOver(ctx, "east", "west"))
		o := newOperator(ctx, t, lab, s.Workload)
		before, after := o.plannedByHand(ctx, syncEvery)
		require.NoError(t, s.Flows(ctx, "west", time.Now(), 50))
		l := read(t, s)
		results.Apache.Planned.ByHand.add(pause(l.acks, before, after).seconds)
		results.Apache.Consumers.ByHand.add(pause(l.reads, before, after).seconds)
		results.Apache.Steps = append(results.Apache.Steps, o.steps...)
	})
}

func stepsOf(steps []workflows.Step) (names []string) {
	for _, s := range steps {
		names = append(names, string(s))
	}
	return names
}

// read takes figures from ledgers that nobody judges.
func read(t *testing.T, s *story.Story) (e events) {
	t.Helper()
	l, err := ledger.Read(s.Dir)
	require.NoError(t, err)
	for _, a := range l.Acked {
		e.acks = append(e.acks, event{a.Instance, a.Epoch, a.At})
	}
	for _, r := range l.Seen {
		e.reads = append(e.reads, event{r.Instance, r.Epoch, r.At})
	}
	return e
}

// TestApacheUnplanned kills the source under traffic. What is measured begins when people have decided.
func TestApacheUnplanned(t *testing.T) {
	t.Run("switchback", func(t *testing.T) {
		_, s := onApache(t)
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		gone := dies(ctx, t, s)
		run, err := s.PlanUnplanned(ctx, "unplanned-orders", "west", gone)
		require.NoError(t, err)
		require.NoError(t, s.Approve(ctx, run.GetID()))
		require.NoError(t, s.Flows(ctx, "west", time.Now(), 50))
		result, err := s.Ends(ctx, run)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
		raw, err := os.ReadFile(result.Report)
		require.NoError(t, err)
		r, err := report.Parse(raw)
		require.NoError(t, err)
		var decided time.Time
		for _, d := range r.Decisions {
			if d.Kind == "approve" && d.At.After(decided) {
				decided = d.At
			}
		}
		for _, step := range r.Steps {
			if step.DurationSeconds != nil {
				t.Logf("%s: %.2f s: %s", step.Name, *step.DurationSeconds, step.Result)
			}
		}
		results.Apache.Unplanned.Switchback.add(firstOn(t, s, "west").Sub(decided).Seconds())
	})
	t.Run("by hand", func(t *testing.T) {
		lab, s := onApache(t)
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		o := newOperator(ctx, t, lab, s.Workload)
		dies(ctx, t, s)
		decided := o.unplannedByHand(ctx)
		require.NoError(t, s.Flows(ctx, "west", time.Now(), 50))
		results.Apache.Unplanned.ByHand.add(firstOn(t, s, "west").Sub(decided).Seconds())
	})
}

// notices is how long after the death of a cluster people decide: its clients have tried again by then.
const notices = 5 * time.Second

func dies(ctx context.Context, t *testing.T, s *story.Story) (gone time.Time) {
	t.Helper()
	require.NoError(t, s.Flows(ctx, "east", time.Time{}, 100))
	require.NoError(t, s.HandedOver(ctx, "east", "west"))
	gone, err := s.Lose("east")
	require.NoError(t, err)
	<-time.After(notices)
	return gone
}

// firstOn is when a cluster first acknowledged anything.
func firstOn(t *testing.T, s *story.Story, cluster string) (first time.Time) {
	t.Helper()
	l, err := ledger.Read(s.Dir)
	require.NoError(t, err)
	for _, a := range l.Acked {
		if a.Cluster == cluster && (first.IsZero() || a.At.Before(first)) {
			first = a.At
		}
	}
	require.False(t, first.IsZero())
	return first
}

// The groups whose offsets are looked up. The checkpoints are written here, as the connector would have written them: it
// takes minutes for so many.
const (
	manyGroups     = 1000
	manyPartitions = 40
	manyRecords    = 1000 // in each partition, on both sides
)

// TestApacheGroups looks up where 1,000 groups go on in 40 partitions, with checkpoints alone and with RemoteClusterUtils.
func TestApacheGroups(t *testing.T) {
	lab, _ := onApacheIdle(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	names := mirrormaker.Names{Source: "bench", Target: "west", Policy: mirrormaker.PolicyIdentity, Syncs: mirrormaker.SyncsOnTarget}
	sum := fillGroups(ctx, t, lab, names)
	ask := make([]replication.GroupOffsets, manyGroups)
	stand := make([]replication.GroupOffsets, manyGroups)
	for g := range ask {
		ask[g].Group = groupName(g)
		stand[g].Group = groupName(g)
		for p := range int32(manyPartitions) {
			on := replication.Partition{Topic: "many", Partition: p}
			ask[g].Offsets = append(ask[g].Offsets, replication.Translated{Partition: on, Source: replication.Unknown, Target: replication.Unknown})
			stand[g].Offsets = append(stand[g].Offsets, replication.Translated{Partition: on, Source: standsAt(g, p), Target: replication.Unknown})
		}
	}
	results.Apache.Exact = &spread{}
	for range *looks {
		begun := time.Now()
		west := seen(t, lab, "west")
		found, err := mirrormaker.Comparer{To: west, Names: names}.LastKnown(ctx, ask)
		require.NoError(t, err)
		results.Apache.Groups.Switchback.add(time.Since(begun).Seconds())
		require.Equal(t, sum, total(found))

		begun = time.Now()
		found, err = mirrormaker.Comparer{From: seen(t, lab, "east"), To: seen(t, lab, "west"), Names: names, Committed: true}.Translate(ctx, stand)
		require.NoError(t, err)
		results.Apache.Exact.add(time.Since(begun).Seconds())
		require.Equal(t, sum, total(found))
		for _, o := range found[0].Offsets {
			require.Equal(t, replication.ProofExact, o.Proof)
		}
	}
	o := newOperator(ctx, t, lab, lab.Options().Workloads[0])
	said, err := o.tool(ctx, "testdata/Translate.java", o.properties("west"), names.Source, groupName(0)[:5]+".*", "3")
	if err != nil && strings.Contains(err.Error(), "compiler") {
		t.Skip("RemoteClusterUtils is not measured, because this java has no compiler: install a JDK")
	}
	require.NoError(t, err)
	for line := range strings.Lines(said) {
		var seconds float64
		var groups, offsets int
		var added int64
		_, err := fmt.Sscanf(line, "seconds=%g groups=%d offsets=%d sum=%d", &seconds, &groups, &offsets, &added)
		require.NoError(t, err, line)
		require.Equal(t, []any{manyGroups, manyGroups * manyPartitions, sum}, []any{groups, offsets, added}, "the same answer")
		results.Apache.Groups.ByHand.add(seconds)
	}
}

// onApacheIdle is onApache with nothing that moves.
func onApacheIdle(t *testing.T) (*setup.Lab, setup.Workload) {
	t.Helper()
	w := setup.DefaultWorkload("orders")
	w.Topics, w.Partitions = 1, 1
	o := setup.Options{Kafka: setup.Apache, Link: setup.MirrorMaker, Workloads: []setup.Workload{w}, WithoutWorker: true, WithoutClients: true}
	if missing := setup.Missing(o); missing != "" {
		t.Skip("nothing is measured on Apache Kafka: " + missing)
	}
	if results.Apache == nil {
		results.Apache = &apacheRows{}
	}
	return up(t, o), w
}

// seen is a cluster as the worker opens it: a login of its own.
func seen(t *testing.T, lab *setup.Lab, name string) *kafka.Cluster {
	t.Helper()
	c, err := kafka.Open(kafka.Config{Name: name, Bootstrap: lab.Bootstrap(name), Login: lab.KafkaLogin(name, "lab"),
		Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"}})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func groupName(g int) string { return fmt.Sprintf("many-%04d", g) }

// standsAt is near the end, as groups are that keep up.
func standsAt(g int, p int32) int64 { return manyRecords - int64((g*7+int(p)*13)%100) }

// fillGroups writes the same records to both clusters, and a checkpoint for each group and partition. It returns the sum of
// all offsets.
func fillGroups(ctx context.Context, t *testing.T, lab *setup.Lab, names mirrormaker.Names) (sum int64) {
	t.Helper()
	at := time.Now()
	for _, cluster := range setup.Clusters {
		client, err := lab.Kafka(cluster, "lab", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(1<<20))
		require.NoError(t, err)
		defer client.Close()
		admin := kadm.NewClient(client)
		compacted := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
		_, err1 := admin.CreateTopic(ctx, manyPartitions, 1, nil, "many")
		_, err2 := admin.CreateTopic(ctx, 1, 1, compacted, names.Checkpoints())
		_, err3 := admin.CreateTopic(ctx, 1, 1, compacted, names.OffsetSyncs())
		require.NoError(t, cmp.Or(err1, err2, err3))
		var batch []*kgo.Record
		for i := range manyRecords {
			for p := range int32(manyPartitions) {
				batch = append(batch, &kgo.Record{Topic: "many", Partition: p, Key: fmt.Appendf(nil, "k%d", i%97), Value: fmt.Appendf(nil, "%0200d", i), Timestamp: at.Add(time.Duration(i) * time.Millisecond)})
			}
		}
		require.NoError(t, client.ProduceSync(ctx, batch...).FirstErr())
		if cluster != "west" {
			continue
		}
		batch, sum = nil, 0
		for g := range manyGroups {
			for p := range int32(manyPartitions) {
				offset := standsAt(g, p)
				sum += offset
				key, value := mirrormaker.EncodeCheckpoint(mirrormaker.Checkpoint{Group: groupName(g), On: replication.Partition{Topic: "many", Partition: p}, Upstream: offset, Downstream: offset})
				batch = append(batch, &kgo.Record{Topic: names.Checkpoints(), Key: key, Value: value})
			}
		}
		require.NoError(t, client.ProduceSync(ctx, batch...).FirstErr())
	}
	return sum
}

func total(groups []replication.GroupOffsets) (sum int64) {
	for _, g := range groups {
		for _, o := range g.Offsets {
			sum += o.Target
		}
	}
	return sum
}
