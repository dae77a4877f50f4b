package activities

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

func (w *world) handOverLastKnown() (HandOverResult, error) {
	return run[HandOverResult](w, (*Groups)(nil).HandOverLastKnown, w.handOverInput(soon()))
}

func TestHandOverLastKnown(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	out, err := w.handOverLastKnown()
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, []int{out.Groups, out.Offsets})
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 3, at("orders", 1): 0}, w.committed("west", "billing"), "where the link had brought it, and the runbook's word for the rest")
	require.Contains(t, out.Deviations, "group billing, orders-1: no commit: set to the start, as the runbook says")
	offsets, err := offsetsOf(context.Background(), w.as("west", admin).Records(MarksTopic), w.guard().Run.ID())
	require.NoError(t, err)
	require.Len(t, offsets["billing"], 2)
	require.True(t, offsets["billing"][0].ReadBack)
	again, err := w.handOverLastKnown()
	require.NoError(t, err)
	require.Equal(t, out.Deviations, again.Deviations, "a second attempt knows what had stood before the first")
}

func TestKilledWhileHandingOverLastKnown(t *testing.T) {
	t.Parallel()
	everywhere(t, cutOff, func(w *world) error { _, err := w.handOverLastKnown(); return err })
}

// A source that answers and is fenced knows better than the link.
func TestAFencedSourceSaysWhereGroupsStand(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.find()
	out, err := w.handOverLastKnown()
	require.NoError(t, err)
	require.Contains(t, out.Deviations[0]+out.Deviations[len(out.Deviations)-1], "it answers but is not fenced")
	require.EqualValues(t, 3, w.committed("west", "billing")[at("orders", 0)])

	w = cutOff(t)
	w.find()
	_, err = w.raiseReachable()
	require.NoError(t, err)
	out, err = w.handOverLastKnown()
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 4, at("orders", 1): 3}, w.committed("west", "billing"))
	require.Equal(t, []string{"group billing, orders-0: exact; moved forward from 3, which west had"}, out.Deviations)
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing"})[0].String(), "closed before it was read")
}

// Beyond the target's end lies what is lost: the group goes on at the end, and the report says so.
func TestOffsetsAreClampedToWhatTheTargetHas(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 5, at("orders", 1): 3}) // synced beyond the mirror
	out, err := w.handOverLastKnown()
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 4, at("orders", 1): 3}, w.committed("west", "billing"))
	require.Contains(t, out.Deviations, "group billing, orders-0: clamped from 5 down to the end 4; moved back from 5, which west had")
}

// P24: a group of which nothing is known gets an offset for every partition that its clients may read.
func TestP24_NothingKnownIsTheRunbooksWord(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{Topics: []replication.Topic{{Name: "orders", Partitions: 2}, {Name: "payments", Partitions: 1}},
		Groups: []string{"billing-new"}}))
	w.trace = nil
	w.link.groups["billing-new"] = true // held back like the others
	in := w.handOverInput(soon())
	in.Clients[0].Groups = []string{"billing-new"}
	in.Groups.Include = []string{"billing-new"}
	out, err := run[HandOverResult](w, (*Groups)(nil).HandOverLastKnown, in)
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 0}, w.committed("west", "billing-new"))
	require.Contains(t, out.Deviations, "group billing-new, orders-0 and 1 more partitions: no commit: set to the start, as the runbook says")
}

// P24: a topic that a group was seen to read, and of which the link brought nothing, is not left to auto.offset.reset.
func TestP24_ATopicThatAGroupWasSeenToReadGetsTheRunbooksWord(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reads []string
		has   bool
	}{"seen": {[]string{"orders", "payments"}, true}, "never seen": {nil, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			w.fill("payments", 0, 2)
			require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{Topics: []replication.Topic{{Name: "orders", Partitions: 2}, {Name: "payments", Partitions: 1}},
				Groups: []string{"billing"}, Reads: map[string][]string{"billing": tc.reads}}))
			w.trace = nil
			out, err := w.handOverLastKnown()
			require.NoError(t, err)
			offset, has := w.committed("west", "billing")[at("payments", 0)]
			require.Equal(t, tc.has, has)
			require.Zero(t, offset)
			require.EqualValues(t, 3, w.committed("west", "billing")[at("orders", 0)], "what is known stays")
			if tc.has {
				require.Contains(t, out.Deviations, "group billing, orders-1 and 1 more partitions: no commit: set to the start, as the runbook says")
			}
		})
	}
}

func TestP25_AGroupWithMembersStaysAsItIs(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.raw("west", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	w.stable("west", "billing")
	before := w.committed("west", "billing")
	out, err := w.handOverLastKnown()
	require.NoError(t, err, "one group holds up no other")
	require.Zero(t, out.Groups)
	require.Len(t, out.Deviations, 1)
	require.Contains(t, out.Deviations[0], "group billing: it has members on west")
	require.Equal(t, before, w.committed("west", "billing"))
}
