package activities

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// cutOff is a world in which the source lives on, and neither the activities nor anybody on the other side can reach it.
// The target has less than the source: 4 of 5 and 3 of 3 records of orders. The group has read 4, of which 3 were synced.
func cutOff(t *testing.T) *world {
	w := calm(t)
	w.fill("orders", 0, 4)
	w.write("east", "orders", 0, 1)
	w.fill("orders", 1, 3)
	w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 4, at("orders", 1): 3})
	w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 3})
	w.lose("east")
	w.trace = nil
	return w
}

func (w *world) lose(site string) { w.away = map[string]error{site: errDown} }

func (w *world) find() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = nil
}

func (w *world) raiseReachable() (FenceReachResult, error) {
	return run[FenceReachResult](w, (*Fences)(nil).RaiseReachable, w.fenceInput())
}

func TestRaiseReachable(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	out, err := w.raiseReachable()
	require.NoError(t, err, "that the source is away is no error")
	require.False(t, out.Fenced)
	require.Contains(t, out.Text, "east does not answer")
	require.Empty(t, w.denies("east"))

	w.find()
	out, err = w.raiseReachable()
	require.NoError(t, err)
	require.True(t, out.Fenced)
	require.Equal(t, 2, out.Topics)
	require.Error(t, w.raw("east", checkout).ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	require.ElementsMatch(t, replication.TopicFence([]string{"orders", "payments"}), w.ownedOn("east"))
}

func TestKilledWhileRaisingReachable(t *testing.T) {
	t.Parallel()
	everywhere(t, calm, func(w *world) error { _, err := w.raiseReachable(); return err })
}

// P6: a broker that the cluster holds for live and that is silent may let anybody write.
func TestP06_AHalfDeadSourceIsNotFenced(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.east.ControlKey(int16(kmsg.DescribeACLs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.east.KeepControl()
		if w.east.CurrentNode() != 1 || req.(*kmsg.DescribeACLsRequest).PermissionType != kmsg.ACLPermissionTypeDeny {
			return nil, nil, false
		}
		return nil, nil, true
	})
	out, err := w.raiseReachable()
	require.NoError(t, err)
	require.False(t, out.Fenced)
	require.Contains(t, out.Text, "not fenced as a whole")
	require.Contains(t, out.Text, "broker 1 at ", "it is named")
}

// P6: what a broker knows that its cluster has given up nobody can say; one that is only cut off lets clients write.
func TestP06_ABrokerThatIsDownIsNotFenced(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.down = []int32{3}
	out, err := w.raiseReachable()
	require.NoError(t, err)
	require.False(t, out.Fenced)
	require.Contains(t, out.Text, "east is not fenced as a whole: brokers [3] are down")
	require.NotEmpty(t, w.denies("east"), "what answers is fenced at once")
	r, err := w.outside().open(context.Background(), w.route())
	require.NoError(t, err)
	defer r.close()
	require.False(t, fencedNow(context.Background(), r, []string{"orders"}), "nor is a loss closed")
	raised, err := w.raise()
	require.NoError(t, err, "a planned run has stopped the writers")
	require.Equal(t, w.down, raised.Down, "and names what it could not ask")
}

func TestP05_NoReachableFenceWhileACLSyncIsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.raiseReachable()
	require.Equal(t, TypeConflict, typeOf(err))
	require.Empty(t, w.denies("east"))
}

// Syncs are suspended beside the fence, which waits for that.
func TestP05_AReachableFenceWaitsForTheSuspension(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	raised := make(chan error, 1)
	before := w.link.looks.Load()
	go func() { _, err := w.raiseReachable(); raised <- err }()
	require.Eventually(t, func() bool { return w.link.looks.Load() > before }, 10*time.Second, time.Millisecond, "it looks, and finds them on")
	_, err := attempts[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	require.NoError(t, <-raised)
	require.NotEmpty(t, w.denies("east"))
}

// Everything that stands on the target works without the source, and takes no longer than a knock at it.
func TestP20_ADeadSourceHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := calm(t)
	in := SyncsInput{Guard: w.guard(), Route: w.route()}
	in.Route.SourceLost = true
	w.east.Close()
	began := time.Now()
	_, err := run[SyncsResult](w, (*Syncs)(nil).Suspend, in)
	require.NoError(t, err)
	require.Less(t, time.Since(began), WriteDeadline)
	_, err = run[SyncsResult](w, (*Syncs)(nil).Restore, in)
	require.NoError(t, err)
	var kept SuspendedSyncs
	require.NoError(t, records{to: w.as("west", admin).Records(MarksTopic)}.get(context.Background(), syncsKey("east-west", in.Guard.Run.ID()), &kept))
}

func TestSilenceIsRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lose("east")
	o := w.outside()
	o.Silence = NewSilence()
	_, yes := gone(o.openLost(context.Background(), w.route().From, false))
	require.True(t, yes)
	w.find()
	why, yes := gone(o.openLost(context.Background(), w.route().From, false))
	require.True(t, yes, "it was silent a moment ago")
	require.ErrorIs(t, why, fault.ErrUnreachable)
	_, yes = gone(o.openLost(context.Background(), w.route().From, true))
	require.False(t, yes, "whoever wants it itself asks again")
	_, yes = gone(o.openLost(context.Background(), w.route().From, false))
	require.False(t, yes, "and then everybody knows that it is back")
}

// barred are clusters whose credentials cannot be had.
type barred struct {
	Clusters
	opens int
}

func (b *barred) Open(context.Context, Site) (Kafka, error) {
	b.opens++
	return nil, fmt.Errorf("read secret kafka/east/switchback: %w", fault.ErrUnreachable)
}

// Where a region took its Vault along, nobody asks that Vault at each step.
func TestCredentialsThatAreLostAreNotAskedForAtEachStep(t *testing.T) {
	t.Parallel()
	b := &barred{}
	o := Outside{Clusters: b, Silence: NewSilence()}
	for range 3 {
		on := o.openLost(context.Background(), Site{Name: "east"}, false)
		why, yes := gone(on)
		require.True(t, yes)
		require.ErrorContains(t, why, "kafka/east/switchback")
		require.Equal(t, on, forLink(on), "the link is told the same")
	}
	require.Equal(t, 1, b.opens)
	o.openLost(context.Background(), Site{Name: "east"}, true)
	require.Equal(t, 2, b.opens, "whoever wants the source itself asks again")
}

// A Kafka that did not answer refuses everything at once, in a sentence that says so.
func TestLostRefusesEverything(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var l Kafka = lost{"east", errDown, nil}
	_, err := l.Ends(ctx, nil)
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.ErrorContains(t, err, "east does not answer, and the run goes on without it")
	require.True(t, sourceFailed(err))
	require.True(t, sourceFailed(wrap("own", l.CreateACLs(ctx, nil))))
	require.False(t, sourceFailed(errDown))
	require.True(t, sourceFailed(l.Records(MarksTopic).Put(ctx, nil)))
}

func (w *world) stopReachable(clients []runbooks.Client, until time.Time) (StopReachableResult, error) {
	return run[StopReachableResult](w, (*Clients)(nil).StopReachable, ClientsInput{Guard: w.guard(), Clients: clients, Deadline: until})
}

func TestP22_WhoCannotBeReachedIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clients := append(w.runbook().Clients, runbooks.Client{Name: stubborn, Role: runbooks.RoleProducer})
	out, err := w.stopReachable(clients, late())
	require.NoError(t, err, "nobody waits for a client of a region that burns")
	require.Len(t, out.Clients, 2)
	require.Equal(t, []replication.Outcome{{Name: stubborn + "/1", Status: replication.Unclear, Reason: "vanished without saying stopped"}}, out.Unknown)

	out, err = w.stopReachable(w.runbook().Clients, soon())
	require.NoError(t, err)
	require.Empty(t, out.Unknown)

	began := time.Now()
	out, err = run[StopReachableResult](w, (*Clients)(nil).StopReachable, ClientsInput{Guard: w.guard(), Clients: clients, Deadline: late(), GoOn: true})
	require.NoError(t, err)
	require.Equal(t, stubborn+"/1", out.Unknown[0].Name)
	require.Less(t, time.Since(began), 2*time.Second, "nothing is waited for that nobody will ever say")

	w.entries["consul.west"].down = errDown
	_, err = w.stopReachable(clients, time.Now().Add(300*time.Millisecond))
	require.Equal(t, TypeNotReady, typeOf(err), "without discovery there is no switch")
}

// Who was known to be away when everybody was to stop is away still: those that are there are waited for, and nobody else.
func TestP22_WhoWasAwayIsNotWaitedForAtTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := ClientsInput{Guard: w.guard(), Clients: append(w.runbook().Clients, runbooks.Client{Name: stubborn, Role: runbooks.RoleProducer}), Deadline: time.Now().Add(300 * time.Millisecond)}
	_, err := run[ClientsResult](w, (*Clients)(nil).Start, in)
	require.Equal(t, TypeNotReady, typeOf(err), "of this one nobody knew")

	in.Absent, in.Deadline = []string{stubborn + "/1"}, soon()
	out, err := run[ClientsResult](w, (*Clients)(nil).Start, in)
	require.NoError(t, err)
	require.Len(t, out.Clients, 2)
	require.Equal(t, stubborn+"/1", out.Absent[0].Name)
}
