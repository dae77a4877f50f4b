package replication

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	outage = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	seen   = outage.Add(-10 * time.Second)
)

// known is a partition whose target holds 100 records; nothing else is known of it.
func known(change func(*Known)) Known {
	k := Known{Partition: Partition{"orders", 0}, Held: 100, Seen: Unknown, End: Unknown, Rate: -1, Size: Unknown}
	if change != nil {
		change(&k)
	}
	return k
}

func sampledAt(k *Known, end int64) { k.Seen, k.Sampled = end, seen }

func TestLosses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Known)
		want   Loss // without Why
		why    string
	}{
		"read behind the fence": {func(k *Known) { k.End, k.Fenced = 107, true },
			Loss{AtLeast: 7, AtMost: 7, Estimate: 7, Bytes: Unknown, Seconds: -1}, "behind its fence"},
		"behind the fence, nothing is missing":     {func(k *Known) { k.End, k.Fenced = 100, true }, Loss{}, "behind its fence"},
		"the target has more than the source says": {func(k *Known) { k.End, k.Fenced = 90, true }, Loss{}, "behind its fence"},
		"the source is read and not fenced": {func(k *Known) { k.End = 107 },
			Loss{AtLeast: 7, AtMost: Unknown, Estimate: 7, Bytes: Unknown, Seconds: -1}, "not fenced"},
		"the last sample shows more": {func(k *Known) { sampledAt(k, 104) },
			Loss{AtLeast: 4, AtMost: Unknown, Estimate: Unknown, Bytes: Unknown, Seconds: -1}, "last seen at 2026-11-21T11:59:50Z"},
		"the target got more since": {func(k *Known) { sampledAt(k, 80) },
			Loss{AtLeast: 0, AtMost: Unknown, Estimate: Unknown, Bytes: 0, Seconds: 10}, "last seen"},
		"with a rate": {func(k *Known) { sampledAt(k, 104); k.Rate = 3 },
			Loss{AtLeast: 4, AtMost: Unknown, Estimate: 34, Bytes: Unknown, Seconds: -1}, "last seen"},
		"with a size, and the time of the newest record": {func(k *Known) { sampledAt(k, 104); k.Size, k.Newest = 50, outage.Add(-12*time.Second) },
			Loss{AtLeast: 4, AtMost: Unknown, Estimate: Unknown, Bytes: 200, Seconds: 12}, "last seen"},
		"nobody ever looked": {nil, Loss{AtLeast: 0, AtMost: Unknown, Estimate: Unknown, Bytes: 0, Seconds: -1}, "no sample"},
		"the target is not known": {func(k *Known) { k.Held = Unknown; sampledAt(k, 104) },
			Loss{AtLeast: 0, AtMost: Unknown, Estimate: Unknown, Bytes: 0, Seconds: -1}, "is not known"},
		"P17: the link's claim is no bound": {func(k *Known) { k.Hint, k.End, k.Fenced = true, 107, true },
			Loss{AtLeast: 0, AtMost: Unknown, Estimate: 7, Bytes: 0, Seconds: -1}, "the link's own claim"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, topics := Losses([]Known{known(c.change)}, outage)
			require.Contains(t, got.Why, c.why)
			require.Equal(t, TopicLoss{"orders", got}, topics[0])
			got.Why = ""
			require.Equal(t, c.want, got)
		})
	}
}

// An extrapolation is an estimate: it moves neither bound, however high it is.
func TestP21_AnEstimateIsNoBound(t *testing.T) {
	t.Parallel()
	slow, _ := Losses([]Known{known(func(k *Known) { sampledAt(k, 104) })}, outage)
	fast, _ := Losses([]Known{known(func(k *Known) { sampledAt(k, 104); k.Rate = 1e6 })}, outage)
	require.Equal(t, [2]int64{slow.AtLeast, slow.AtMost}, [2]int64{fast.AtLeast, fast.AtMost})
	require.Greater(t, fast.Estimate, int64(1e6))
	require.Equal(t, "at least 4 records, open; about 10000004 by estimate", fast.String())
}

// One partition that is open opens the whole; only a source that was read behind its fence closes it.
func TestP38_OpenUntilFenced(t *testing.T) {
	t.Parallel()
	closed := known(func(k *Known) { k.End, k.Fenced = 103, true })
	open := known(func(k *Known) { k.Partition.Partition, k.End = 1, 105 })
	total, _ := Losses([]Known{closed, open}, outage)
	require.False(t, total.Closed())
	require.Equal(t, [3]int64{8, Unknown, 8}, [3]int64{total.AtLeast, total.AtMost, total.Estimate})
	require.Equal(t, "at least 8 records, open", total.String())
	open.Fenced = true
	total, _ = Losses([]Known{closed, open}, outage)
	require.True(t, total.Closed())
	require.Equal(t, "8 records", total.String())
	require.Equal(t, "nothing is lost", Loss{}.String())
	none, topics := Losses(nil, outage)
	require.False(t, none.Closed(), "no partition is not no loss")
	require.Empty(t, topics)
}

func TestTheWorstTopicComesFirst(t *testing.T) {
	t.Parallel()
	of := func(topic string, end int64) Known {
		return known(func(k *Known) { k.Topic, k.End, k.Fenced = topic, end, true })
	}
	_, topics := Losses([]Known{of("a", 101), of("b", 150), of("c", 120), of("d", 101)}, outage)
	var names []string
	for _, l := range topics {
		names = append(names, l.Topic)
	}
	require.Equal(t, []string{"b", "c", "a", "d"}, names)
}
