package activities

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

func (w *world) failOver(until time.Time, sealProven bool) (FailOverResult, error) {
	in := w.waitInput(until)
	in.SealProven = sealProven
	return run[FailOverResult](w, (*Mirrors)(nil).FailOver, in)
}

func TestFailOverStopsEveryMirrorWithoutTheSource(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	out, err := w.failOver(soon(), false)
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, 2, out.Topics)
	require.Contains(t, w.link.describe(), "[orders=stopped others=active payments=stopped]")
	require.Equal(t, []string{"link.Stop failover orders,payments"}, w.trace)
	again, err := w.failOver(soon(), false)
	require.NoError(t, err)
	require.False(t, again.Changed)
	require.Len(t, w.trace, 1, "never asked twice")
}

func TestKilledWhileFailingOver(t *testing.T) {
	t.Parallel()
	everywhere(t, cutOff, func(w *world) error { _, err := w.failOver(soon(), false); return err })
}

// Mirrors in every state in which a disaster may find them.
func TestFailOverFromEveryState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set     func(w *world)
		asked   []string // what was sent
		hanging []string
	}{
		"the source is unavailable": {func(w *world) { w.link.set("orders", replication.MirrorSourceLost, "SOURCE_UNAVAILABLE") },
			[]string{"link.Stop failover orders,payments"}, nil},
		"paused": {func(w *world) { w.link.set("orders", replication.MirrorPaused, "LINK_PAUSED") }, []string{"link.Stop failover orders,payments"}, nil},
		"stopped by an earlier attempt": {func(w *world) { w.link.set("orders", replication.MirrorStopped, "STOPPED") },
			[]string{"link.Stop failover payments"}, nil},
		"stopping": {func(w *world) {
			w.link.set("orders", replication.MirrorStopping, "PENDING_STOPPED")
			w.link.mirrors["orders"].done = time.Now().Add(100 * time.Millisecond)
		}, []string{"link.Stop failover payments"}, nil},
		"one failed, and the link refuses it": {func(w *world) {
			w.link.set("orders", replication.MirrorFailed, "FAILED")
			w.link.refuse["orders"] = "the mirror has failed"
		}, []string{"link.Stop failover payments"}, []string{"orders"}},
		"the link does not hear the first time": {func(w *world) { w.link.deaf["orders"] = 1 },
			[]string{"link.Stop failover orders,payments", "link.Stop failover orders"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := cutOff(t)
			c.set(w)
			out, err := w.failOver(soon(), false)
			require.NoError(t, err)
			require.Equal(t, c.asked, w.trace)
			require.Equal(t, c.hanging, out.Hanging)
			if c.hanging != nil {
				require.Contains(t, out.Text, "nobody can write to them there: orders")
			}
		})
	}
}

// A state that nobody knows is never acted upon: the run waits, and names it.
func TestFailOverLeavesTheUnknownAlone(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.link.set("orders", replication.MirrorUnknown, "PENDING_NEW_THING")
	_, err := w.failOver(late(), false)
	require.Equal(t, TypeNotReady, typeOf(err))
	require.ErrorContains(t, err, "orders: PENDING_NEW_THING")
	require.Equal(t, []string{"link.Stop failover payments"}, w.trace)
}

func TestFailOverWhenTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.after["link.Stop"] = func(context.Context) error { return fmt.Errorf("reset by peer: %w", fault.ErrUnclear) }
	_, err := w.failOver(soon(), false)
	require.NoError(t, err)
	require.Len(t, w.trace, 1, "the states say that it was heard")
}

func TestP15_NothingWasFailedOver(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.link.refuse["orders"], w.link.refuse["payments"] = "no", "no"
	_, err := w.failOver(soon(), false)
	require.Equal(t, TypePromoteRefused, typeOf(err))
	require.Empty(t, w.trace)

	w = cutOff(t)
	w.entries["consul.west"].state.Epoch = 9
	_, err = w.failOver(soon(), false)
	require.Equal(t, TypeStale, typeOf(err))
	require.Empty(t, w.trace)
}

// A mirror that ACLs hold is sealed and only asked; nobody waits a minute for the connectors of a dead source.
func TestP10_ASealedMirrorIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	w.lose("east")
	w.link.takes = time.Hour
	out, err := w.failOver(soon(), true)
	require.NoError(t, err)
	require.True(t, out.Waits)
	require.Subset(t, w.ownedOn("west"), w.link.Denials(replication.DenyTopics, []string{"orders", "payments"}))
	require.Equal(t, 1, w.took("link.Stop"))

	_, err = w.failOver(late(), false)
	require.Equal(t, TypeNotReady, typeOf(err), "without a proof the stop counts")
	w.link.takes = 0
	_, err = run[FailOverResult](w, (*Mirrors)(nil).AwaitStopped, w.waitInput(soon()))
	require.NoError(t, err)
}

// The seal was read back and the target grows all the same: whoever writes is not held by ACLs.
func TestP10_ASealThatDoesNotHoldIsNotTrusted(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	w.lose("east")
	looks := int64(0)
	w.ends = func(site string, ends []replication.Ends) {
		if site == "west" {
			looks++
			ends[0].LogEnd += looks
		}
	}
	out, err := w.failOver(soon(), true)
	require.NoError(t, err)
	require.False(t, out.Waits)
	require.Contains(t, out.Text, "the seal alone did not hold it")
}

func TestKilledWhileSealingALostSource(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w := sealing(t)
		w.lose("east")
		return w
	}, func(w *world) error { _, err := w.failOver(soon(), true); return err })
}
