package activities

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

// rewound is a world in which two records of orders-0 were rewound on east, and the input of those who read them there.
func rewound(t *testing.T) (*world, ReadingInput) {
	w := stranded(t, "late")
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 6})
	plan, _, err := w.recoverAll(w.recovery(), "rewind")
	require.NoError(t, err)
	w.trace = nil
	in := ReadingInput{RecoveryInput: w.recovery(), Groups: w.runbook().Groups, Clients: []string{billing}, Credentials: w.runbook().Credentials, Until: late()}
	in.Tail = plan.Tail
	return w, in
}

const readingPlace = "consul.west/kafka/orders/recovery/east"

func (w *world) reading(in ReadingInput) (out ReadingResult, err error) {
	if _, err = run[ReadingResult](w, (*Recovery)(nil).OpenReading, in); err != nil {
		return out, err
	}
	in.Until = time.Now().Add(time.Second) // nobody reads
	if out, err = run[ReadingResult](w, (*Recovery)(nil).AwaitReading, in); err != nil {
		return out, err
	}
	in.Until = soon()
	_, err = run[ReadingResult](w, (*Recovery)(nil).CloseReading, in)
	return out, err
}

// Groups are let in on the old cluster for a time, by keys that move nobody else, and are closed out again.
func TestRewoundRecordsAreReadWhereTheyAre(t *testing.T) {
	t.Parallel()
	w, in := rewound(t)
	fence := replication.GroupFence([]string{"billing"})[0].String()
	require.Contains(t, w.denies("east"), fence)
	before := w.entries["consul.west"].state

	in.Until = time.Now().Add(time.Minute)
	out, err := run[ReadingResult](w, (*Recovery)(nil).OpenReading, in)
	require.NoError(t, err)
	require.Equal(t, "kafka/orders/recovery/east", out.Prefix)
	require.Equal(t, []GroupRead{{Group: "billing", Read: 0, Of: 2}}, out.Groups)
	require.NotContains(t, w.denies("east"), fence)
	require.Contains(t, w.denies("east"), replication.TopicFence([]string{"orders"})[0].String(), "producers stay fenced")
	told := w.entries[readingPlace].state
	require.Equal(t, "east", told.Cluster)
	require.Equal(t, "kafka/east/{client}", told.Credentials)
	require.Equal(t, DesiredRun, told.Clients[billing].Desired)
	require.NotContains(t, told.Clients, checkout, "nobody produces there")
	require.Equal(t, before, w.entries["consul.west"].state, "the keys that move the workload are not touched")

	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 6})
	out, err = run[ReadingResult](w, (*Recovery)(nil).AwaitReading, in)
	require.NoError(t, err)
	require.True(t, out.Groups[0].All())
	out, err = run[ReadingResult](w, (*Recovery)(nil).CloseReading, in)
	require.NoError(t, err)
	require.Equal(t, "billing has read 2 of 2 offsets; closed again", out.Text)
	require.Contains(t, w.denies("east"), fence)
	told = w.entries[readingPlace].state
	require.Empty(t, told.Cluster+told.BootstrapServers+told.Credentials)
	require.Equal(t, DesiredStop, told.Clients[billing].Desired)

	// The next time counts on, so that whoever read there before starts anew.
	again := in
	again.RecoveryInput = in.other("second")
	_, err = run[ReadingResult](w, (*Recovery)(nil).OpenReading, again)
	require.NoError(t, err)
	require.Equal(t, told.Epoch+1, w.entries[readingPlace].state.Epoch)
}

// When its time is over the groups are closed, also to an instance that does not stop, and what they have not read is said.
func TestReadingEndsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w, in := rewound(t)
	_, err := run[ReadingResult](w, (*Recovery)(nil).OpenReading, in)
	require.NoError(t, err)
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 5})
	w.entries[readingPlace].state.Clients[billing] = ClientEntry{Desired: DesiredRun, Instances: []Instance{{ID: "1", State: "running", Host: "app-1"}}}
	out, err := run[ReadingResult](w, (*Recovery)(nil).AwaitReading, in)
	require.NoError(t, err)
	require.Equal(t, "billing has read 1 of 2 offsets", out.Text)
	in.Until = late()
	out, err = run[ReadingResult](w, (*Recovery)(nil).CloseReading, in)
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "billing/1", Status: replication.Pending, Reason: "running on app-1"}}, out.Left)
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing"})[0].String())
}

// A run that was terminated while groups read is closed by the next one, which may not even know what was rewound.
func TestReadersOfARunThatIsGoneAreClosedOut(t *testing.T) {
	t.Parallel()
	w, in := rewound(t)
	_, err := run[ReadingResult](w, (*Recovery)(nil).OpenReading, in)
	require.NoError(t, err)
	in.RecoveryInput, in.Until = in.other("second"), soon()
	in.Tail = ""
	out, err := run[ReadingResult](w, (*Recovery)(nil).CloseReading, in)
	require.NoError(t, err)
	require.Equal(t, "closed again", out.Text)
	require.Contains(t, w.denies("east"), replication.GroupFence([]string{"billing"})[0].String())
	require.Empty(t, w.entries[readingPlace].state.BootstrapServers)
}

// Nobody is let in where nothing was rewound.
func TestNothingRewoundNothingToRead(t *testing.T) {
	t.Parallel()
	w := stranded(t, "late")
	plan, _, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	in := ReadingInput{RecoveryInput: w.recovery(), Groups: w.runbook().Groups, Clients: []string{billing}, Credentials: w.runbook().Credentials, Until: soon()}
	in.Tail = plan.Tail
	denies := w.denies("east")
	out, err := run[ReadingResult](w, (*Recovery)(nil).OpenReading, in)
	require.NoError(t, err)
	require.Empty(t, out.Prefix)
	_, err = run[ReadingResult](w, (*Recovery)(nil).CloseReading, in)
	require.NoError(t, err)
	require.Equal(t, denies, w.denies("east"))
	require.Zero(t, w.took(readingPlace+".Switch"))
}

// Killed at every write: a second try, and the closing after it, leave what an undisturbed run leaves.
func TestKilledWhileGroupsReadOnTheOldCluster(t *testing.T) {
	t.Parallel()
	whole, in := rewound(t)
	_, err := whole.reading(in)
	require.NoError(t, err)
	writes := len(whole.trace)
	require.GreaterOrEqual(t, writes, 6, "%v", whole.trace)
	for n := range writes {
		w, in := rewound(t)
		w.kill = &kill{at: n, after: true}
		_, _ = w.reading(in) // nobody hears what a dead process says
		w.kill = nil
		_, err := w.reading(in)
		require.NoError(t, err, "killed after write %d of %v", n, w.trace)
		require.Equal(t, whole.denies("east"), w.denies("east"), "killed after write %d", n)
		require.Equal(t, whole.entries[readingPlace].state, w.entries[readingPlace].state, "killed after write %d", n)
		committed, err := w.as("east", admin).Committed(context.Background(), "billing")
		require.NoError(t, err)
		require.EqualValues(t, 4, committed[at("orders", 0)])
	}
}
