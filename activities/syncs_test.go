package activities

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

func (w *world) suspend() (SyncsResult, error) {
	return run[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
}

func (w *world) restore(keepACLsOff bool) (SyncsResult, error) {
	return run[SyncsResult](w, (*Syncs)(nil).Restore, SyncsInput{Guard: w.guard(), Route: w.route(), KeepACLsOff: keepACLsOff})
}

func TestSuspendAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.link.describe()
	out, err := w.suspend()
	require.NoError(t, err)
	require.Equal(t, []string{"others"}, out.Others)
	require.Contains(t, w.link.describe(), "acls {false")
	require.Contains(t, w.link.describe(), "groups held [billing], topics held [orders payments]")
	back, err := w.restore(false)
	require.NoError(t, err)
	require.True(t, back.Changed)
	require.Equal(t, before, w.link.describe())
	_, err = w.restore(false)
	require.NoError(t, err)
	require.Equal(t, before, w.link.describe())
}

func TestRestoreLeavesAloneWhatWasNeverSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.link.describe()
	out, err := w.restore(false)
	require.NoError(t, err)
	require.False(t, out.Changed)
	require.Equal(t, before, w.link.describe())
	require.Empty(t, w.trace)
}

// The first look is the truth of before, whatever the first attempt had changed when it died.
func TestP03_TheFirstLookIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.link.describe()
	n := 0
	w.after["link.SuspendSyncs"] = func(context.Context) error {
		if n++; n == 1 {
			return errDown
		}
		return nil
	}
	out, err := attempts[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Attempt)
	require.Contains(t, out.Text, "ACL sync off (was on)")
	_, err = w.restore(false)
	require.NoError(t, err)
	require.Equal(t, before, w.link.describe(), "as before, although the second attempt saw it off")
}

func TestP03_KilledWhileSuspendingAndRestoring(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world { return newWorld(t) }, func(w *world) error { _, err := w.suspend(); return err })
	everywhere(t, calm, func(w *world) error { _, err := w.restore(false); return err })
}

func TestP05_ACLSyncStaysOffWhileAFenceStands(t *testing.T) {
	t.Parallel()
	w := calm(t)
	out, err := w.restore(true)
	require.NoError(t, err)
	require.Contains(t, out.Text, "ACL sync stays off while the fence stands")
	require.Contains(t, w.link.describe(), "acls {false")
	require.Contains(t, w.link.describe(), "groups held [], topics held []")
}

// Two workloads leave over one link. Who comes back first leaves ACL sync off, because the other one's fence would be copied to where
// its clients are; who comes back last puts it back as it was before either left.
func TestP05_ACLSyncStaysOffWhileAFenceOfAnotherWorkloadStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.link.describe()
	_, err := w.suspend()
	require.NoError(t, err)
	other := SyncsInput{Guard: w.guard(), Route: w.route()}
	leaves := func(id string) {
		other.Guard.Run = Run{Runbook: "returns", WorkflowID: "planned-returns", FirstRunID: id}
		require.NoError(t, w.recordsNow().putScope(t.Context(), other.Guard.Run.ID(), Scope{Topics: []replication.Topic{{Name: "returns", Partitions: 1}}}))
	}
	leaves("r2")
	_, err = run[SyncsResult](w, (*Syncs)(nil).Suspend, other)
	require.NoError(t, err)
	stands := func(runbook string, acls []replication.ACL) {
		require.NoError(t, w.recordsNow().put(t.Context(), map[string]any{aclsKey(runbook, "east"): OwnedACLs{Run: "r", ACLs: acls}}))
	}
	fence := replication.TopicFence([]string{"returns"})
	stands("returns", fence)
	stands("orders", nil)
	out, err := w.restore(false)
	require.NoError(t, err)
	require.Contains(t, out.Text, "ACL sync stays off while a fence of returns stands")
	require.Contains(t, w.link.describe(), "acls {false")
	stands("returns", nil)
	_, err = run[SyncsResult](w, (*Syncs)(nil).Restore, other)
	require.NoError(t, err)
	require.Equal(t, before, w.link.describe())

	w.link.now.ACLs = replication.Sync{} // its owner turns it off for good: that counts from now on
	leaves("r3")
	_, err = run[SyncsResult](w, (*Syncs)(nil).Suspend, other)
	require.NoError(t, err)
	_, err = run[SyncsResult](w, (*Syncs)(nil).Restore, other)
	require.NoError(t, err)
	require.Contains(t, w.link.describe(), "acls {false")
}

func TestP34_QuietAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begun := time.Now()
	out, err := w.suspend()
	require.NoError(t, err)
	require.False(t, out.QuietAt.Before(begun.Add(time.Second+cycleGrace)), "a whole cycle passes first")

	on := func(interval time.Duration) replication.Sync {
		return replication.Sync{Enabled: true, Interval: interval}
	}
	for _, tc := range []struct {
		syncs replication.Syncs
		want  time.Duration
	}{
		{replication.Syncs{}, 0},
		{replication.Syncs{Offsets: replication.Sync{Interval: time.Hour}}, 0}, // off
		{replication.Syncs{Offsets: on(2 * time.Second), ACLs: on(7 * time.Second)}, 7*time.Second + cycleGrace},
		{replication.Syncs{Offsets: on(0)}, 30*time.Second + cycleGrace}, // unknown is not zero
		{replication.Syncs{ACLs: on(0)}, 5*time.Second + cycleGrace},
	} {
		require.Equal(t, tc.want, longestCycle(tc.syncs))
	}
}

// In a disaster the workers of Kafka Connect may stand still as well: what ACLs hold is held without a word from them.
func TestP34_ADisasterWaitsForNoWordOfALinkThatACLsHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link.seals, w.link.silent = true, true
	lost := w.route()
	lost.SourceLost = true
	out, err := run[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: lost})
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, w.link.Denials(replication.DenySyncs, nil), w.ownedOn("west"))
	require.NotEmpty(t, w.denies("west"))
}

// A link that was just made may say that there is none: a step of a run is not given up for that.
func TestALinkThatIsNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link.statusNo = 1
	_, err := w.suspend()
	require.Equal(t, TypeNotFound, typeOf(err), "%v", err)
	require.Empty(t, w.trace)
}

// Restoring takes a slow service several requests: what one attempt cannot finish, the next one goes on with.
func TestRestoreThatDoesNotFinishInOneAttempt(t *testing.T) {
	t.Parallel()
	w := calm(t)
	n := 0
	w.before["link.RestoreSyncs"] = func(ctx context.Context) error {
		if n++; n == 1 {
			return hanging(ctx)
		}
		return nil
	}
	out, err := attempts[SyncsResult](w, (*Syncs)(nil).Restore, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Attempt)
	require.Contains(t, w.link.describe(), "acls {true")
}
