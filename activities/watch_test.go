package activities

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// watched is a world under Watch: activities reach it through the real adapter, and one cluster may be out of reach.
type watched struct {
	*world
	mu      sync.Mutex
	silent  map[string]bool
	partial map[string]bool // one partition has no leader
	gauges  []WatchResult
}

func newWatched(t testing.TB) *watched {
	return &watched{world: newWorld(t), silent: map[string]bool{}, partial: map[string]bool{}}
}

func (w *watched) set(site string, silent, partial bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[site], w.partial[site] = silent, partial
}

func (w *watched) Open(ctx context.Context, site Site) (Kafka, error) {
	k, err := w.world.Open(ctx, site)
	return &flaky{Kafka: k, w: w, site: site.Name}, err
}

func (w *watched) Watched(_, _, _ string, lag int64, seen, last time.Time, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gauges = append(w.gauges, WatchResult{Lag: lag, Seen: seen, LastAnswer: last, Silent: silent})
}

// flaky is a cluster that may not answer, or only in part.
type flaky struct {
	Kafka
	w    *watched
	site string
}

func (k *flaky) Identity(ctx context.Context) (replication.Identity, error) {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if k.w.silent[k.site] {
		return replication.Identity{}, fmt.Errorf("no broker of %s answers: %w", k.site, fault.ErrUnreachable)
	}
	return k.Kafka.Identity(ctx)
}

func (k *flaky) Ends(ctx context.Context, topics []string) ([]replication.Ends, error) {
	ends, err := k.Kafka.Ends(ctx, topics)
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if k.w.partial[k.site] && err == nil {
		ends[0].HighWatermark = replication.Unknown
		err = &replication.Partial{Op: "read ends", Failed: []replication.Outcome{{Name: ends[0].Name(), Reason: "no leader"}}, Err: fault.ErrNotReady}
	}
	return ends, err
}

func (w *watched) input(forTime time.Duration) WatchInput {
	book := w.runbook()
	return WatchInput{Run: Run{Runbook: "orders", WorkflowID: "watch/orders", FirstRunID: "r"}, Route: w.route(), Topics: book.Topics, Groups: book.Groups,
		Discovery: book.RequiredDiscovery(), Epoch: w.epoch, Every: 100 * time.Millisecond, SilentAfter: 300 * time.Millisecond,
		Until: time.Now().Add(forTime)}
}

// sample executes one attempt with the interceptor, as run does for the activities of a run.
func (w *watched) sample(in WatchInput) (out WatchResult, err error) {
	o := w.outside()
	o.Clusters = w
	return runOne[WatchResult](w.world, &Watch{Outside: o, Gauges: w}, (*Watch)(nil).Sample, in)
}

// runOne executes one attempt of an activity that the world does not register.
func runOne[R any](w *world, of, activity, in any) (out R, err error) {
	w.t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.mu.Lock()
	w.cancel = cancel
	w.mu.Unlock()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx, Interceptors: []interceptor.WorkerInterceptor{&Interceptor{}}})
	env.RegisterActivity(of)
	value, err := env.ExecuteActivity(activity, in)
	if err != nil {
		return out, err
	}
	return out, value.Get(&out)
}

func (w *watched) stored(site string) (Sample, error) {
	return lastSample(context.Background(), w.as(site, admin).Records(PositionsTopic), "orders", "")
}

func TestWatchKeepsWhereEveryPartitionIs(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.fill("orders", 0, 3)
	w.write("east", "orders", 1, 2)
	w.write("east", "payments", 0, 1)
	w.raw("east", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	w.stable("east", "billing")
	out, err := w.sample(w.input(250 * time.Millisecond))
	require.NoError(t, err)
	require.GreaterOrEqual(t, out.Samples, 2, "it goes on inside one execution")
	require.Equal(t, int64(3), out.Lag)
	require.Equal(t, 2, out.Topics)
	require.Equal(t, 3, out.Partitions)
	require.False(t, out.Silent)
	require.Empty(t, out.Why)
	require.Equal(t, "orders", out.Worst[0].Topic)
	require.Equal(t, int32(1), out.Worst[0].Worst)
	require.Equal(t, int64(2), out.Worst[0].WorstLag)
	require.False(t, out.LastAnswer.Before(out.Seen))

	s, err := w.stored("west")
	require.NoError(t, err)
	require.Equal(t, [5]string{"orders", "east", "west", "east-id", "west-id"}, [5]string{s.Runbook, s.From, s.To, s.SourceCluster, s.TargetCluster})
	require.Equal(t, w.epoch, s.Epoch)
	require.Equal(t, map[string][]string{"billing": {"orders"}}, s.Reads, "what its members subscribe to")
	var ends [][2]int64
	for _, p := range s.Positions {
		ends = append(ends, [2]int64{p.SourceEnd, p.TargetEnd})
	}
	require.Equal(t, [][2]int64{{3, 3}, {2, 0}, {1, 0}}, ends)
	_, err = w.stored("east")
	require.ErrorIs(t, err, fault.ErrNotFound, "samples are on the target alone: the source may be gone")
	require.Equal(t, int64(3), w.gauges[0].Lag)
}

func TestATopicThatIsNotMirroredYetIsUnknownAndNeverZero(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	require.NoError(t, w.as("east", admin).CreateTopic(t.Context(), replication.NewTopic{Name: "payments.new", Partitions: 2}))
	require.NoError(t, w.as("east", admin).CreateACLs(t.Context(), allow(me, "TOPIC", "LITERAL", "payments.new", "READ", "DESCRIBE")))
	out, err := w.sample(w.input(0))
	require.NoError(t, err)
	require.Equal(t, 1, out.Samples, out.Why)
	require.Equal(t, 2, out.Unknown)
	require.Equal(t, "payments.new", out.Worst[0].Topic, "what is not known comes first")
	require.Equal(t, replication.Unknown, out.Worst[0].WorstLag)
}

func TestP20_WhatWatchSawInPartNeverReplacesWhatItSawWhole(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*watched){
		"the source has no leader somewhere": func(w *watched) { w.set("east", false, true) },
		"the target has no leader somewhere": func(w *watched) { w.set("west", false, true) },
		"the source does not answer":         func(w *watched) { w.set("east", true, false) },
		"discovery does not answer":          func(w *watched) { w.entries["consul.west"].down = errDown },
		"the workload has moved":             func(w *watched) { w.entries["consul.west"].state.Epoch++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t)
			_, err := w.sample(w.input(0))
			require.NoError(t, err)
			before, err := w.stored("west")
			require.NoError(t, err)
			w.write("east", "orders", 0, 5)
			breakIt(w)
			out, err := w.sample(w.input(150 * time.Millisecond))
			if err == nil {
				require.Zero(t, out.Samples)
				require.NotEmpty(t, out.Why)
			}
			after, err := w.stored("west")
			require.NoError(t, err)
			require.Equal(t, before.Positions, after.Positions)
			require.Equal(t, before.Seen, after.Seen)
		})
	}
}

// Whoever writes to the new cluster moves its ends: what is seen after a switch says nothing about the loss.
func TestP20_WatchStopsWhereTheWorkloadHasMoved(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.entries["consul.west"].state.Epoch++
	_, err := w.sample(w.input(time.Minute))
	require.Equal(t, TypeStale, typeOf(err))
}

func TestWatchKilledAtEachWriteLeavesTheSampleBefore(t *testing.T) {
	t.Parallel()
	for n := range 2 {
		for _, after := range []bool{false, true} {
			w := newWatched(t)
			_, err := w.sample(w.input(0))
			require.NoError(t, err)
			before, err := w.stored("west")
			require.NoError(t, err)
			w.write("east", "orders", 0, 5)
			w.trace, w.kill = nil, &kill{at: n, after: after}
			_, _ = w.sample(w.input(0)) // nobody hears what a dead process says
			w.kill = nil
			got, err := w.stored("west")
			require.NoError(t, err)
			if n == 1 && after {
				require.True(t, got.Seen.After(before.Seen), "the header was written")
				continue
			}
			require.Equal(t, before, got, "killed at write %d (%v)", n, after)
		}
	}
}

func TestWatchSaysAtOnceWhenTheSourceFallsSilentAndWhenItIsBack(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	whole, err := w.sample(w.input(0))
	require.NoError(t, err)
	w.set("east", true, false)
	in := w.input(time.Minute)
	in.Before = whole
	out, err := w.sample(in)
	require.NoError(t, err)
	require.True(t, out.Silent)
	require.True(t, out.LastAnswer.Equal(whole.LastAnswer), "the outage begins after the last answer")
	require.True(t, out.Seen.Equal(whole.Seen))
	require.WithinRange(t, out.QuietSince, whole.LastAnswer, time.Now())
	require.Contains(t, out.Why, "no broker of east answers")
	require.Contains(t, out.Sentence(), "the source does not answer; its last answer was at "+clockTime(whole.LastAnswer))
	require.False(t, out.TargetDead)

	in = w.input(time.Minute)
	in.Before = out
	back := time.AfterFunc(300*time.Millisecond, func() { w.set("east", false, false) })
	defer back.Stop()
	again, err := w.sample(in)
	require.NoError(t, err)
	require.False(t, again.Silent)
	require.True(t, again.QuietSince.IsZero())
	require.True(t, again.Seen.After(whole.Seen))
}

func TestWatchThatBeginsInAnOutageKnowsTheLastAnswer(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	whole, err := w.sample(w.input(0))
	require.NoError(t, err)
	w.set("east", false, true) // half dead first
	half, err := w.sample(w.input(0))
	require.NoError(t, err)
	require.True(t, half.LastAnswer.After(whole.LastAnswer))
	require.False(t, half.Silent)
	w.set("east", true, false)
	out, err := w.sample(w.input(time.Minute)) // of a watch that was just started
	require.NoError(t, err)
	require.True(t, out.Silent)
	require.True(t, out.Seen.Equal(whole.Seen))
	require.True(t, out.LastAnswer.Equal(half.LastAnswer))
	s, err := w.stored("west")
	require.NoError(t, err)
	require.True(t, s.LastAnswer.Equal(half.LastAnswer))
}

func TestWatchTellsItsOwnNetworkFromAnOutage(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.set("east", true, false)
	w.set("west", true, false)
	out, err := w.sample(w.input(0))
	require.NoError(t, err)
	require.True(t, out.TargetDead)
}

// big is a cluster with so many topics and no network: what is left is what a sample costs this process.
type big struct {
	Kafka
	id     string
	topics []replication.Topic
	ends   []replication.Ends
	shelf  *shelf
}

func (b *big) Identity(context.Context) (replication.Identity, error) {
	return replication.Identity{ClusterID: b.id}, nil
}
func (b *big) Topics(context.Context, func(string) bool) ([]replication.Topic, error) {
	return append([]replication.Topic{}, b.topics...), nil
}
func (b *big) Groups(context.Context, func(string) bool) ([]replication.Group, error) {
	return nil, nil
}
func (b *big) Ends(context.Context, []string) ([]replication.Ends, error) {
	for i := range b.ends {
		b.ends[i].HighWatermark += 100
	}
	return b.ends, nil
}
func (b *big) Records(string) Records { return b.shelf }
func (b *big) Close()                 {}

// BenchmarkSample is a look at 1,000 topics of 10 partitions in which every partition moved. Every ten seconds it may
// take 500 ms of a core; brokers' answers are decoded beside that.
func BenchmarkSample(b *testing.B) {
	s := aSample(1000, 10, 0, sampled)
	cluster := func(id string) *big {
		c := &big{id: id, topics: s.Topics, shelf: newShelf()}
		for _, p := range s.Positions {
			c.ends = append(c.ends, replication.Ends{Partition: p.Partition, HighWatermark: p.SourceEnd})
		}
		return c
	}
	from, to := cluster("east-id"), cluster("west-id")
	w := newWorld(b)
	in := (&watched{world: w}).input(0)
	in.Topics = runbooks.Patterns{Include: []string{"*"}}
	watching := &watching{Outside: Outside{Clusters: pair{from, to}, Links: worldLinks{w}, Consuls: worldConsuls{w}}, in: in}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := watching.look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/100, "%core@10s")
}

// pair opens two clusters by name.
type pair struct{ east, west Kafka }

func (p pair) Open(_ context.Context, s Site) (Kafka, error) {
	if s.Name == "east" {
		return p.east, nil
	}
	return p.west, nil
}
func (p pair) OpenAs(ctx context.Context, s Site, _ string) (Kafka, error) { return p.Open(ctx, s) }
func (p pair) SuperUser(context.Context, Site, string, bool) (string, bool, error) {
	return "", false, errDown
}
