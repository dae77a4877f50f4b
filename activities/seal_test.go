package activities

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/replication"
)

// sealing is a world whose link is held by ACLs, quiet and in step.
func sealing(t *testing.T) *world {
	w := newWorld(t)
	w.link.seals = true
	// Retried as in a run: on a busy machine one attempt's time for writes may not suffice.
	_, err := attempts[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	w.fill("orders", 0, 5)
	_, err = attempts[FenceResult](w, (*Fences)(nil).Raise, w.fenceInput())
	require.NoError(t, err)
	w.trace = nil
	return w
}

func (w *world) sealed(until time.Time) (PromoteResult, error) {
	in := w.waitInput(until)
	in.SealProven = true
	return run[PromoteResult](w, (*Mirrors)(nil).Promote, in)
}

func (w *world) unseal(until time.Time) (UnsealResult, error) {
	return run[UnsealResult](w, (*Mirrors)(nil).Unseal, UnsealInput{WaitInput: w.waitInput(until)})
}

func TestSealDeniesKeepsMarksAndAsksForTheStop(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	w.link.takes = time.Hour // a dead source's connectors
	out, err := w.sealed(soon())
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Contains(t, w.denies("west"), "DENY WRITE on TOPIC LITERAL orders for User:mm2 from *")
	require.Contains(t, w.ownedOn("west"), w.link.Denials(replication.DenyTopics, []string{"orders"})[0])
	require.Contains(t, w.link.describe(), "orders=stopping")
	marks, err := getList[replication.Mark](context.Background(), w.recordsNow().to, marksKey("east-id", w.guard().Run.ID()))
	require.NoError(t, err)
	require.Equal(t, int64(5), marks[0].Boundary)
	require.Equal(t, int64(5), marks[0].TargetEnd)
}

// Nothing is written while the seal is read back: a broker may be slower to know of it than an attempt may write.
func TestP06_ABrokerThatIsSlowToKnowTheSealIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	knows := time.Now().Add(WriteDeadline + time.Second)
	w.west.ControlKey(int16(kmsg.DescribeACLs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.west.KeepControl()
		if w.west.CurrentNode() != 1 || time.Now().After(knows) || req.(*kmsg.DescribeACLsRequest).Operation != kmsg.ACLOperationWrite {
			return nil, nil, false
		}
		return req.ResponseKind(), nil, true
	})
	_, err := w.sealed(time.Now().Add(30 * time.Second))
	require.NotEqual(t, TypeNotReady, typeOf(err), "%v", err)
	require.True(t, time.Now().After(knows))
	_, err = w.sealed(time.Now().Add(30 * time.Second)) // the next attempt, if its time for writes was over
	require.NoError(t, err)
}

// A cycle of ACL sync that had begun before it was denied may have copied the fence (P34): no client could write behind the
// switch.
func TestP05_P34_ASealRemovesCopiesOfTheFence(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	w.deny("west", "orders")
	out, err := w.sealed(soon())
	require.NoError(t, err)
	require.Equal(t, 1, out.Copied)
	require.NotContains(t, w.denies("west"), replication.TopicFence([]string{"orders"})[0].String())
	require.Contains(t, w.denies("west"), "DENY WRITE on TOPIC LITERAL orders for User:mm2 from *", "the seal itself stands")
}

func TestKilledWhileSealing(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w := sealing(t)
		w.link.takes = time.Hour // what it is asked for counts, not when it comes
		return w
	}, func(w *world) error { _, err := w.sealed(soon()); return err })
}

func TestP10_ASealThatNobodyProvedWaitsForTheStop(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	w.link.takes = time.Hour
	_, err := w.promote(late())
	require.ErrorContains(t, err, "mirrors to stop")
	w.link.takes = 50 * time.Millisecond
	w.link.set("orders", replication.MirrorActive, "RUNNING")
	w.link.set("payments", replication.MirrorActive, "RUNNING")
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.Contains(t, out.Text, "has stopped")
}

func TestP10_WhoIsNotHeldByTheSealIsSeen(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	looks := 0
	w.ends = func(site string, e []replication.Ends) {
		if site == "west" {
			looks++
			e[0].LogEnd += int64(looks)
		}
	}
	_, err := w.sealed(soon())
	require.ErrorContains(t, err, "west grows behind the seal")
}

func TestP27_OffsetsArePatchedBeforeTheSealIsLifted(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	_, err := w.sealed(soon())
	require.NoError(t, err)
	w.trace = nil
	out, err := w.unseal(soon())
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, int64(5), w.link.patched[replication.Partition{Topic: "orders"}])
	require.NotContains(t, w.denies("west"), "DENY WRITE on TOPIC LITERAL orders for User:mm2 from *")
	order := []string{}
	for _, what := range w.trace {
		for _, known := range []string{"link.PatchOffsets", "west.DeleteACLs", "link.Resume"} {
			if len(what) >= len(known) && what[:len(known)] == known {
				order = append(order, known)
			}
		}
	}
	require.Equal(t, []string{"link.PatchOffsets", "west.DeleteACLs", "link.Resume"}, order)
	again, err := w.unseal(soon())
	require.NoError(t, err)
	require.False(t, again.Changed)
}

func TestKilledWhileUnsealing(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w := sealing(t)
		_, err := w.sealed(soon())
		require.NoError(t, err)
		w.trace = nil
		return w
	}, func(w *world) error { _, err := w.unseal(soon()); return err })
}

func TestP05_TheFenceIsRefusedWhileTheMirrorMayCopyACLs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link.seals = true
	_, err := w.raise()
	require.ErrorContains(t, err, "would copy the fence")
	_, err = w.suspend()
	require.NoError(t, err)
	_, err = w.raise()
	require.NoError(t, err)
}

// What a run that was closed by hand left is taken back by the next one, in its name.
func TestP27_AnotherRunsSealIsLiftedTheSameWay(t *testing.T) {
	t.Parallel()
	w := sealing(t)
	_, err := w.sealed(soon())
	require.NoError(t, err)
	next := UnsealInput{WaitInput: w.waitInput(soon()), Owner: w.guard().Run.ID()}
	next.Guard.Run.FirstRunID = "r2"
	out, err := run[UnsealResult](w, (*Mirrors)(nil).Unseal, next)
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, int64(5), w.link.patched[replication.Partition{Topic: "orders"}])
	next.Owner = "died/early"
	out, err = run[UnsealResult](w, (*Mirrors)(nil).Unseal, next)
	require.NoError(t, err)
	require.False(t, out.Changed)
}
