package activities

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

func (w *world) switchInput() SwitchInput {
	book := w.runbook()
	return SwitchInput{Guard: w.guard(), Entries: book.Discovery, To: w.route().To, Epoch: w.epoch + 1, Credentials: book.Credentials, Clients: []string{checkout, billing}}
}

func (w *world) switched() (SwitchResult, error) {
	return run[SwitchResult](w, (*Discovery)(nil).Switch, w.switchInput())
}

func ok(name string) replication.Outcome {
	return replication.Outcome{Name: name, Status: replication.OK}
}

func TestSwitchWritesEverythingAndCopiesSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out, err := w.switched()
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, []replication.Outcome{ok("consul.west"), ok("consul.east")}, out.Entries)
	for _, e := range w.entries {
		s := e.state
		require.Equal(t, []any{"west", int64(8), "planned-orders/r1", "kafka/west/{client}", "SASL_PLAINTEXT", "SCRAM-SHA-512"},
			[]any{s.Cluster, s.Epoch, s.SwitchedBy, s.Credentials, s.SecurityProtocol, s.SASLMechanism})
		require.NotEmpty(t, s.BootstrapServers)
	}
	require.Equal(t, 1, w.took("vault.Copy kafka/west/checkout kafka/active/checkout"))
	again, err := w.switched()
	require.NoError(t, err)
	require.False(t, again.Changed)
}

func TestKilledWhileSwitching(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world { return newWorld(t) }, func(w *world) error { _, err := w.switched(); return err })
}

// The first answer was lost: the retry sees its own switchedBy, and the number is the one that was fixed before.
func TestP02_ARetrySeesItsOwnSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := 0
	w.after["consul.west.Switch"] = func(context.Context) error {
		if n++; n == 1 {
			return fmt.Errorf("connection reset: %w", fault.ErrUnclear)
		}
		return nil
	}
	out, err := attempts[SwitchResult](w, (*Discovery)(nil).Switch, w.switchInput())
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Attempt)
	require.False(t, out.Changed, "it had been done")
	require.EqualValues(t, 8, w.entries["consul.west"].state.Epoch, "absolute: a retry does not count on")
	require.Equal(t, []replication.Outcome{ok("consul.west"), ok("consul.east")}, out.Entries)
}

func TestP02_SomebodyElseSwitched(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]EntryState{
		"to the same number": {Cluster: "south", Epoch: 8, SwitchedBy: "another run"},
		"to a higher one":    {Cluster: "south", Epoch: 12, SwitchedBy: "another run"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.entries["consul.west"].state = state
			_, err := w.switched()
			require.Equal(t, TypeStale, typeOf(err), "%v", err)
			require.Equal(t, state, w.entries["consul.west"].state)
			require.EqualValues(t, 7, w.entries["consul.east"].state.Epoch, "the others follow the required one")
		})
	}
}

// Keys changed by somebody else between the read and the write: nothing is written, and Temporal tries again.
func TestKeysChangedBetweenReadAndWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.entries["consul.west"]
	e.between = func(s *EntryState) { s.Cluster = "south" }
	_, err := w.switched()
	require.Equal(t, TypeConflict, typeOf(err), "%v", err)
	require.Equal(t, "south", e.state.Cluster)
	require.EqualValues(t, 7, e.state.Epoch)
}

// Keys that somebody deleted are no other run's switch.
func TestAnEpochThatCannotBeReadIsNotStale(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.entries["consul.west"].state.Epoch = replication.Unknown
	_, err := w.lift()
	require.Equal(t, TypeConflict, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "put them back")
}

func TestP40_OthersAreSetUpwardsOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		epoch   int64
		cluster string
		want    replication.Status
		ends    int64
	}{
		"far behind":                          {2, "east", replication.OK, 8},
		"absent":                              {replication.Unknown, "", replication.OK, 8},
		"there already":                       {8, "west", replication.OK, 8},
		"the same number for another cluster": {8, "east", replication.Pending, 8},
		"higher":                              {9, "east", replication.Pending, 9},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			other := w.entries["consul.east"]
			other.state.Epoch, other.state.Cluster = tc.epoch, tc.cluster
			asked := 0 // an entry that is not below is never asked: the rule is this side's, not the entry's to keep
			w.before["consul.east.Switch"] = func(context.Context) error { asked++; return nil }
			out, err := w.switched()
			require.NoError(t, err)
			for range 2 {
				require.Equal(t, tc.want, out.Entries[1].Status, "%+v", out.Entries)
				require.Equal(t, tc.ends, other.state.Epoch)
				require.EqualValues(t, 8, w.entries["consul.west"].state.Epoch)
				if tc.want == replication.Pending {
					require.Zero(t, asked)
					require.Contains(t, out.Entries[1].Reason, fmt.Sprintf("holds epoch %d for %s, not below 8", tc.epoch, tc.cluster))
					require.Contains(t, out.Entries[1].Reason, "find out who wrote it")
				}
				out, err = run[SwitchResult](w, (*Discovery)(nil).Align, AlignInput{Entries: w.runbook().Discovery, Deadline: time.Now().Add(500 * time.Millisecond)})
				require.NoError(t, err)
			}
		})
	}
}

// An optional entry that does not answer holds up nobody inside of the switch window.
func TestP40_AnOptionalEntryOutOfReachIsPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.before["consul.east.Switch"] = hanging
	begun := time.Now()
	out, err := w.switched()
	require.NoError(t, err)
	require.Less(t, time.Since(begun), WriteDeadline)
	require.Equal(t, replication.Pending, out.Entries[1].Status)
	require.Equal(t, "west", w.entries["consul.west"].state.Cluster)
}

// Who was out of reach gets the truth of now, not that of the day when it failed.
func TestP02_P40_AlignWritesTheTruthOfNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.entries["consul.east"].down = errDown
	_, err := w.switched()
	require.NoError(t, err)
	in := AlignInput{Entries: w.runbook().Discovery, Deadline: late()}
	out, err := run[SwitchResult](w, (*Discovery)(nil).Align, in)
	require.NoError(t, err, "a deviation, no failure")
	require.Equal(t, replication.Pending, out.Entries[1].Status)

	w.entries["consul.east"].down = nil
	w.entries["consul.west"].state.Cluster, w.entries["consul.west"].state.Epoch, w.entries["consul.west"].state.SwitchedBy = "south", 9, "a later run"
	in.Deadline = soon()
	out, err = run[SwitchResult](w, (*Discovery)(nil).Align, in)
	require.NoError(t, err)
	require.Equal(t, replication.OK, out.Entries[1].Status)
	got := w.entries["consul.east"].state
	require.Equal(t, []any{"south", int64(9), "a later run"}, []any{got.Cluster, got.Epoch, got.SwitchedBy})
	_, err = run[SwitchResult](w, (*Discovery)(nil).Align, in)
	require.NoError(t, err)

	w.entries["consul.west"].down = errDown
	in.Deadline = late()
	_, err = run[SwitchResult](w, (*Discovery)(nil).Align, in)
	require.Error(t, err, "nobody knows what is true now")
}

// Each entry is read once and whole.
func TestP39_ReadSaysWhatEachEntrySays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.entries["consul.east"].down = errDown
	out, err := run[ReadDiscoveryResult](w, (*Discovery)(nil).Read, ReadDiscoveryInput{Entries: w.runbook().Discovery})
	require.NoError(t, err)
	require.Equal(t, []any{"east", int64(7), ""}, []any{out.Required().Cluster, out.Required().Epoch, out.Required().Error})
	require.Equal(t, map[string]string{checkout: DesiredRun, billing: DesiredRun}, out.Required().Desired)
	require.Contains(t, out.Entries[1].Error, "connection refused")
	require.Equal(t, replication.Unknown, out.Entries[1].Epoch)
	require.EqualValues(t, 7, out.HighestEpoch())
	require.Equal(t, replication.Unknown, ReadDiscoveryResult{}.Required().Epoch)
}

func TestP22_ClientsThatDoNotSayStoppedAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := ClientsInput{Guard: w.guard(), Clients: w.runbook().Clients, Deadline: soon()}
	out, err := run[ClientsResult](w, (*Clients)(nil).Stop, in)
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Len(t, out.Clients, 2)
	require.Equal(t, DesiredStop, w.entries["consul.west"].state.Clients[checkout].Desired)
	again, err := run[ClientsResult](w, (*Clients)(nil).Stop, in)
	require.NoError(t, err)
	require.False(t, again.Changed)

	in.Clients, in.Deadline = append(in.Clients, runbooks.Client{Name: stubborn}), late()
	_, err = run[ClientsResult](w, (*Clients)(nil).Stop, in)
	require.Equal(t, TypeNotReady, typeOf(err))
	require.ErrorContains(t, err, "stubborn/1: unknown (vanished without saying stopped)")
	require.Equal(t, DesiredStop, w.entries["consul.west"].state.Clients[stubborn].Desired)
}

func TestKilledWhileStoppingClients(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world { return newWorld(t) }, func(w *world) error {
		_, err := run[ClientsResult](w, (*Clients)(nil).Stop, ClientsInput{Guard: w.guard(), Clients: w.runbook().Clients, Deadline: soon()})
		return err
	})
}
