package activities

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

func (w *world) settle() (QuiesceResult, error) {
	return run[QuiesceResult](w, (*Logs)(nil).Settle, w.waitInput(soon()))
}

// open leaves a transaction open on a topic of a cluster.
func (w *world) open(site, id, topic string) {
	w.t.Helper()
	cl := w.raw(site, admin, kgo.TransactionalID(id))
	require.NoError(w.t, cl.BeginTransaction())
	require.NoError(w.t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: 0, Value: []byte("v")}).FirstErr())
}

func (w *world) held(site string) bool {
	w.t.Helper()
	ends, err := w.as(site, admin).Ends(context.Background(), []string{"orders", "payments"})
	require.NoError(w.t, err)
	return slices.ContainsFunc(ends, func(e replication.Ends) bool { return e.LastStable < e.HighWatermark })
}

func TestSettleFindsNothingToDo(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	out, err := w.settle()
	require.NoError(t, err)
	require.False(t, out.Changed)
	require.Equal(t, 3, out.Partitions)
	require.Empty(t, w.trace)
}

// A source that was fenced before it fell silent may have had its fence copied; no planned promote has looked for that.
func TestP05_P34_SettleRemovesCopiesOfTheFence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 4)
	_, err := w.suspend()
	require.NoError(t, err)
	_, err = w.raise()
	require.NoError(t, err)
	w.deny("west", "orders")
	out, err := w.settle()
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Contains(t, out.Text, "removed 1 copies of the fence")
	require.Empty(t, w.denies("west"))
	require.NotEmpty(t, w.denies("east"), "the fence itself stands")
}

// A transaction that the mirror brought along has no coordinator here: it would stay open for ever, and every
// read_committed consumer would stand still before it.
func TestP19_ATransactionThatWasBroughtIsEnded(t *testing.T) {
	t.Parallel()
	for name, seals := range map[string]bool{"by its marker": false, "by its transactional id": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			w.link.seals = seals
			require.NoError(t, w.as("west", admin).CreateACLs(context.Background(), allow(me, "CLUSTER", "LITERAL", replication.ClusterName, "CLUSTER_ACTION")))
			w.open("west", "brought-1", "orders")
			require.True(t, w.held("west"))
			out, err := w.settle()
			require.NoError(t, err)
			require.False(t, w.held("west"))
			require.Len(t, out.EndedTransactions, 1)
			require.Contains(t, out.Text, "open since offset 4")
		})
	}
}

// Who has begun after the stop is a client at work: it is left alone.
func TestP19_AClientsOwnTransactionIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	_, err := w.keepLastMarks()
	require.NoError(t, err)
	w.open("west", "checkout-1", "orders")
	out, err := w.settle()
	require.NoError(t, err)
	require.Empty(t, out.EndedTransactions)
	require.True(t, w.held("west"))
}

func TestKilledWhileSettling(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w := cutOff(t)
		w.link.seals = true
		w.open("west", "brought-1", "orders")
		return w
	}, func(w *world) error { _, err := w.settle(); return err })
}
