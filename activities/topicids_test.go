package activities

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/replication"
)

// anew deletes a topic and makes it again under its name, with so many records in its first partition.
func (w *world) anew(site, topic string, records int) {
	w.t.Helper()
	ctx := context.Background()
	partitions := map[string]int32{"orders": 2, "payments": 1}[topic]
	w.drop(site, topic)
	_, err := kadm.NewClient(w.raw(site, admin)).CreateTopic(ctx, partitions, 1, nil, topic)
	require.NoError(w.t, err)
	for range records {
		w.put(site, topic, 0, "anew")
	}
}

func (w *world) drop(site string, topics ...string) {
	w.t.Helper()
	gone, err := kadm.NewClient(w.raw(site, admin)).DeleteTopics(context.Background(), topics...)
	require.NoError(w.t, err)
	require.NoError(w.t, gone.Error())
}

func (w *world) idsOn(site string) map[string]string {
	w.t.Helper()
	topics, err := w.as(site, admin).Topics(context.Background(), w.runbook().Topics.Match)
	require.NoError(w.t, err)
	return topicIDs(topics)
}

func markOn(marks []replication.Mark, on replication.Partition) replication.Mark {
	return marks[slices.IndexFunc(marks, func(m replication.Mark) bool { return m.Partition == on })]
}

func TestMarksKeepTheIDsOfTopics(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		marks  func(t *testing.T) *world
		source bool // whether anybody can read the source's
	}{
		"planned": {func(t *testing.T) *world {
			w := read(t)
			_, err := run[MarksResult](w, (*Mirrors)(nil).KeepMarks, MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8})
			require.NoError(t, err)
			return w
		}, true},
		"the source answers": {func(t *testing.T) *world {
			w := cutOff(t)
			w.find()
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			return w
		}, true},
		"the source is gone, and was watched": {func(t *testing.T) *world {
			w := cutOff(t)
			w.watched(time.Now())
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			require.EqualValues(t, 5, markOn(w.marks("west"), at("orders", 0)).SourceSeen)
			return w
		}, true},
		"the source is gone, and nobody watched": {func(t *testing.T) *world {
			w := cutOff(t)
			_, err := w.keepLastMarks()
			require.NoError(t, err)
			return w
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := tc.marks(t)
			east, west := w.idsOn("east"), w.idsOn("west")
			require.NotEqual(t, east["orders"], west["orders"])
			marks := w.marks("west")
			require.NotEmpty(t, marks)
			for _, m := range marks {
				require.Equal(t, west[m.Topic], m.TargetTopic)
				require.NotEmpty(t, m.TargetTopic)
				require.Equal(t, "east", m.From)
				if tc.source {
					require.Equal(t, east[m.Topic], m.SourceTopic)
				} else {
					require.Empty(t, m.SourceTopic, "what nobody could read is not made up")
				}
			}
		})
	}
}

// A cluster comes back without what it had: it is fenced, and what was stranded is said to be gone, not waited for.
func TestP38_WhatIsGoneIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(w *world)
		gone      []string
		atLeast   int64
		closed    bool
	}{
		"one topic was deleted":         {func(w *world) { w.drop("east", "orders") }, []string{"orders: east has no such topic any more"}, 1, false},
		"another was deleted":           {func(w *world) { w.drop("east", "payments") }, []string{"payments: east has no such topic any more"}, 1, false},
		"made anew with fewer records":  {func(w *world) { w.anew("east", "orders", 1) }, []string{"orders: the topic on east is another one"}, 1, false},
		"made anew with more records":   {func(w *world) { w.anew("east", "orders", 9) }, []string{"orders: the topic on east is another one"}, 1, false},
		"it is empty, and forgot all":   {func(w *world) { w.drop("east", "orders", "payments", MarksTopic) }, []string{"orders: east has no", "payments: east has no"}, 1, false},
		"nothing was deleted after all": {func(*world) {}, nil, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			w.watched(time.Now())
			w = leave(t, w)
			w.find()
			tc.meanwhile(w)
			require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), allow(me, "TOPIC", "LITERAL", MarksTopic, "CREATE", "WRITE", "READ", "DESCRIBE")))
			var out FenceWhenResult
			since := time.Now()
			require.Eventually(t, func() bool { // an attempt has little time for its writes
				var err error
				out, err = w.whenReachable(since)
				return err == nil && out.Done
			}, time.Minute, time.Millisecond)
			require.Len(t, out.Gone, len(tc.gone))
			for i, says := range tc.gone {
				require.True(t, strings.HasPrefix(out.Gone[i], says), out.Gone[i])
				require.Contains(t, out.Text, "gone for ever")
			}
			require.Subset(t, w.denies("east"), []string{replication.TopicFence([]string{"orders"})[0].String()}, "fenced it is all the same")
			require.Equal(t, tc.atLeast, out.Loss.AtLeast, out.Loss.Why)
			require.Equal(t, tc.closed, out.Loss.Closed(), "%+v", out.Loss)
			require.Equal(t, w.marks("west"), w.marks("east"), "it has its copy")
			if tc.closed {
				require.EqualValues(t, 5, markOn(w.marks("west"), at("orders", 0)).SourceEnd, "as it was read behind the fence")
			}
		})
	}
}
