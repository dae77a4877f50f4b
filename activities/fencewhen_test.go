package activities

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// left is a world after an unplanned switch to west, at epoch 8, without an answer from east: marks are kept, groups are
// handed over, and east has records that west never got. Since is when it was switched.
func left(t *testing.T) (w *world, since time.Time) {
	w = leave(t, cutOff(t))
	return w, time.Now()
}

// leave takes the workload of a world whose source is out of reach to west.
func leave(t *testing.T, w *world) *world {
	w.link.mu.Lock()
	w.link.takes = 0
	w.link.mu.Unlock()
	_, err := w.failOver(soon(), false)
	require.NoError(t, err)
	_, err = w.keepLastMarks()
	require.NoError(t, err)
	_, err = w.handOverLastKnown()
	require.NoError(t, err)
	w.entries["consul.west"].state.Cluster, w.entries["consul.west"].state.Epoch = "west", w.epoch+1
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), slices.Concat(allow(me, "TOPIC", "LITERAL", "orders", "ALTER_CONFIGS"), allow(me, "TOPIC", "LITERAL", "payments", "ALTER_CONFIGS"))))
	w.trace = nil
	return w
}

func (w *world) whenReachable(switched time.Time) (FenceWhenResult, error) {
	guard := w.guard()
	guard.Epoch = w.epoch + 1
	return run[FenceWhenResult](w, (*Fences)(nil).WhenReachable, FenceWhenInput{Guard: guard, Route: w.route(), Topics: w.runbook().Topics, Groups: w.runbook().Groups, Switched: switched, Listen: w.listen})
}

func TestP13_AClusterThatComesBackIsFencedFirst(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	out, err := w.whenReachable(since)
	require.NoError(t, err, "that it is away is what this is for")
	require.False(t, out.Done)
	require.Contains(t, out.Waiting, "east to answer")
	require.Empty(t, w.trace)

	w.find()
	out, err = w.whenReachable(since)
	require.NoError(t, err)
	require.True(t, out.Done, out.Waiting)
	first := slices.IndexFunc(w.trace, func(p string) bool { return p == "east.CreateACLs" })
	require.Less(t, first, slices.Index(w.trace, "east.AlterTopicConfigs"), "fenced before anything else")
	require.Subset(t, w.denies("east"), []string{replication.TopicFence([]string{"orders"})[0].String(), replication.GroupFence([]string{"billing"})[0].String()})
	require.Equal(t, [2]int64{1, 1}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})
	require.Empty(t, out.Wrote)
	require.Zero(t, out.Since)
	again, err := w.whenReachable(since)
	require.NoError(t, err)
	require.True(t, again.Done)
	require.Equal(t, out.Text, again.Text)
}

// An attempt listens for the cluster: one that comes back in its middle is fenced then, and not a minute later.
func TestP13_AnAttemptListensForTheCluster(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	w.listen = time.Minute
	w.heard = func(text string) {
		if strings.Contains(text, "east to answer") {
			w.find()
		}
	}
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.True(t, out.Done, out.Waiting)
	require.NotEmpty(t, w.denies("east"))
}

func TestKilledWhileFencingWhatCameBack(t *testing.T) {
	t.Parallel()
	var since time.Time
	everywhere(t, func(t *testing.T) *world {
		w, at := left(t)
		since = at
		w.find()
		return w
	}, func(w *world) error { _, err := w.whenReachable(since); return err })
}

// It outlived its reason: a run has brought the workload home meanwhile, and a fence would stop it there.
func TestP13_NoFenceOnceTheWorkloadIsBack(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	w.find()
	home := func() {
		w.entries["consul.west"].state.Cluster, w.entries["consul.west"].state.Epoch = "east", w.epoch+2
	}
	home()
	_, err := w.whenReachable(since)
	require.Equal(t, TypeStale, typeOf(err))
	require.Empty(t, w.trace)

	// Between two looks: what was made is taken back.
	w, since = left(t)
	w.find()
	w.after["east.CreateACLs"] = func(context.Context) error { home(); return nil }
	_, err = w.whenReachable(since)
	require.Equal(t, TypeStale, typeOf(err))
	require.Empty(t, w.denies("east"))
	require.Empty(t, w.ownedOn("east"))

	// A third cluster, or the same switch counted from before it: east is still given up.
	w, since = left(t)
	w.find()
	w.epoch--
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.NotEmpty(t, w.denies("east"), out.Waiting)
}

// The stranded tail does not expire, and what stood before is known to whoever recovers it.
func TestP13_TheTailIsKept(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	w.find()
	ctx := context.Background()
	day, compact := "86400000", "compact"
	require.NoError(t, w.as("east", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{"orders": {"retention.ms": &day, "cleanup.policy": &compact}}))
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.True(t, out.Done, out.Waiting)
	now, err := w.as("east", admin).TopicOverrides(ctx, []string{"orders", "payments"})
	require.NoError(t, err)
	require.Equal(t, []string{"-1", "delete", "-1"}, []string{now["orders"]["retention.ms"], now["orders"]["cleanup.policy"], now["payments"]["retention.ms"]})

	in := w.fenceInput()
	in.Guard.Epoch = w.epoch + 1
	back, err := run[TailResult](w, (*Fences)(nil).ReleaseTail, in)
	require.NoError(t, err)
	require.Equal(t, 2, back.Topics)
	now, err = w.as("east", admin).TopicOverrides(ctx, []string{"orders", "payments"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"retention.ms": day, "cleanup.policy": compact}, now["orders"])
	require.Empty(t, now["payments"])
	back, err = run[TailResult](w, (*Fences)(nil).ReleaseTail, in)
	require.NoError(t, err)
	require.False(t, back.Changed)
}

func TestTheTailNeedsARight(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	w.find()
	require.NoError(t, w.as("east", admin).DeleteACLs(context.Background(), allow(me, "TOPIC", "LITERAL", "orders", "ALTER_CONFIGS")))
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.False(t, out.Done)
	require.Contains(t, out.Waiting, "grant Switchback ALTER_CONFIGS")
	require.Len(t, w.denies("east"), 3, "fenced it is all the same")
}

func TestP20_TheRunsRecordsAreCopied(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	require.Empty(t, w.marks("east"))
	w.find()
	_, err := w.whenReachable(since)
	require.NoError(t, err)
	require.Equal(t, w.marks("west"), w.marks("east"))
	offsets, err := offsetsOf(context.Background(), w.as("east", admin).Records(MarksTopic), w.guard().Run.ID())
	require.NoError(t, err)
	require.Len(t, offsets["billing"], 2)
}

// A client that was cut off has gone on writing: stranded data with a name, never silence.
func TestP23_WhoWroteAfterTheSwitchIsNamed(t *testing.T) {
	t.Parallel()
	w, _ := left(t)
	since := time.Now().Add(-10 * time.Millisecond)
	cl := w.raw("east", checkout, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for range 3 {
		require.NoError(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Partition: 0, Value: []byte("v"), Timestamp: time.Now().Add(time.Second)}).FirstErr())
	}
	w.find()
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.True(t, out.Done, out.Waiting)
	require.EqualValues(t, 3, out.Since)
	require.Equal(t, []string{"a producer that Kafka cannot name"}, out.Wrote, "the leaders remember nobody")
	require.Equal(t, [2]int64{4, 4}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})

	w.describeProducers(77)
	out, err = w.whenReachable(since)
	require.NoError(t, err)
	require.Contains(t, strings.Join(out.Wrote, "\n"), "producer id 77 on orders-0, last at")
	require.NotContains(t, strings.Join(out.Wrote, "\n"), "producer id 1 ", "yesterday's is not meant")
	require.Contains(t, out.Text, "after the switch producer id 77")
}

func TestP05_NoLateFenceWhileACLSyncIsOn(t *testing.T) {
	t.Parallel()
	w, since := left(t)
	w.find()
	w.link.now.ACLs.Enabled = true
	out, err := w.whenReachable(since)
	require.NoError(t, err)
	require.False(t, out.Done)
	require.Contains(t, out.Waiting, "ACL sync to be turned off")
	require.Empty(t, w.denies("east"))
}

// Writes of a long attempt count their time from before the look that allowed them: a worker that stood still in between has none.
func TestP35_ALateWriteOfALongAttemptHasLooked(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	o := &old{Outside: w.outside(), in: FenceWhenInput{Guard: w.guard(), Route: w.route()}}
	began := time.Now()
	ctx, err := o.wanted(context.Background())
	require.NoError(t, err)
	require.WithinRange(t, clockOf(ctx).started, began, time.Now())
	_, cancel, err := writing(ctx)
	require.NoError(t, err)
	cancel()
	frozen := context.WithValue(ctx, clockKey{}, clock{started: clockOf(ctx).started.Add(-WriteDeadline)})
	_, _, err = writing(frozen)
	require.ErrorIs(t, err, errWritesOver)

	entry := w.entries["consul.west"]
	entry.mu.Lock()
	entry.state.Cluster, entry.state.Epoch = "east", w.epoch+2
	entry.mu.Unlock()
	_, err = o.wanted(context.Background())
	require.ErrorIs(t, err, fault.ErrStale, "the workload is there again: its transactions are its own")
}
