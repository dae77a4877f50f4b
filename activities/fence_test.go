package activities

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/replication"
)

// calm is a world in which the syncs are suspended, as after the first step of a run.
func calm(t *testing.T) *world {
	w := newWorld(t)
	// Retried as in a run: on a busy machine one attempt's time for writes may not suffice.
	_, err := attempts[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	w.trace = nil
	return w
}

func (w *world) fenceInput() FenceInput {
	return FenceInput{Guard: w.guard(), Route: w.route(), Topics: w.runbook().Topics}
}

func (w *world) raise() (FenceResult, error) {
	return run[FenceResult](w, (*Fences)(nil).Raise, w.fenceInput())
}

func (w *world) lift() (FenceResult, error) {
	return run[FenceResult](w, (*Fences)(nil).Lift, w.fenceInput())
}

func (w *world) ownedOn(site string) []replication.ACL {
	owned, err := w.recordsNow().owned(context.Background(), "orders", site)
	require.NoError(w.t, err)
	return owned.ACLs
}

func TestRaiseFencesAndLiftOpens(t *testing.T) {
	t.Parallel()
	w := calm(t)
	out, err := w.raise()
	require.NoError(t, err)
	require.Equal(t, []int{2, 3}, []int{out.Topics, out.Brokers})
	require.True(t, out.Changed)
	cl := w.raw("east", checkout)
	require.Error(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	again, err := w.raise()
	require.NoError(t, err)
	require.Equal(t, out.Text, again.Text)
	require.Equal(t, 1, w.took("east.CreateACLs"), "what stands is not made again")

	lifted, err := w.lift()
	require.NoError(t, err)
	require.Equal(t, 2, lifted.Topics)
	require.Empty(t, w.denies("east"))
	require.NoError(t, w.raw("east", checkout).ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	again, err = w.lift()
	require.NoError(t, err)
	require.False(t, again.Changed)
}

func TestKilledWhileFencing(t *testing.T) {
	t.Parallel()
	everywhere(t, calm, func(w *world) error { _, err := w.raise(); return err })
	everywhere(t, func(t *testing.T) *world {
		w := calm(t)
		_, err := w.raise()
		require.NoError(t, err)
		w.trace = nil
		return w
	}, func(w *world) error { _, err := w.lift(); return err })
}

func TestP04_TheOwnerIsRecordedBeforeTheFenceIsMade(t *testing.T) {
	t.Parallel()
	w := calm(t)
	_, err := w.raise()
	require.NoError(t, err)
	require.Less(t, slices.Index(w.trace, "west.Put"), slices.Index(w.trace, "east.CreateACLs"))
	require.Less(t, slices.Index(w.trace, "east.Put"), slices.Index(w.trace, "east.CreateACLs"))
	require.ElementsMatch(t, replication.TopicFence([]string{"orders", "payments"}), w.ownedOn("east"))

	// Created, and the process died before it could remember anything: the next run of the runbook knows whose it is.
	w = calm(t)
	w.kill = &kill{at: slices.Index(w.trace, "east.CreateACLs")}
	w.kill.at, w.kill.after = 2, true // two records, then the ACLs
	_, err = w.raise()
	require.Error(t, err)
	require.Equal(t, "east.CreateACLs", w.trace[2])
	require.Len(t, w.denies("east"), 2)
	w.kill = nil
	_, err = w.lift()
	require.NoError(t, err)
	require.Empty(t, w.denies("east"), "no orphan")
}

func TestP04_AForeignEqualACLStays(t *testing.T) {
	t.Parallel()
	w := calm(t)
	foreign := replication.TopicFence([]string{"payments"})
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), foreign))
	_, err := w.raise()
	require.NoError(t, err)
	require.Equal(t, replication.TopicFence([]string{"orders"}), w.ownedOn("east"))
	_, err = w.lift()
	require.NoError(t, err)
	require.Equal(t, []string{foreign[0].String()}, w.denies("east"))
}

func TestP05_NoFenceWhileACLSyncIsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.raise()
	require.Equal(t, TypeConflict, typeOf(err))
	require.ErrorContains(t, err, "ACL sync of link east-west is on")
	require.Empty(t, w.denies("east"))
	_, err = run[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(soon()))
	require.Equal(t, TypeConflict, typeOf(err))
	require.Empty(t, w.trace)
}

// Authorizers are caches: what one broker says, another may not know yet.
// Somebody turned ACL sync on while the fence stood: what it copied goes with the fence, and nothing else does.
func TestP05_CopiesOfTheFenceGoWithIt(t *testing.T) {
	t.Parallel()
	w := calm(t)
	_, err := w.raise()
	require.NoError(t, err)
	w.deny("west", "orders")
	w.deny("west", "strangers")
	_, err = w.lift()
	require.NoError(t, err)
	require.Empty(t, w.denies("east"))
	require.Equal(t, []string{replication.TopicFence([]string{"strangers"})[0].String()}, w.denies("west"))
}

func TestP06_EveryBrokerIsAskedItself(t *testing.T) {
	old := readBackTime
	readBackTime = 600 * time.Millisecond
	t.Cleanup(func() { readBackTime = old })
	for name, answer := range map[string]func(req kmsg.Request) (kmsg.Response, error, bool){
		"answers differently": func(req kmsg.Request) (kmsg.Response, error, bool) { return req.ResponseKind(), nil, true },
		"does not answer":     func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true },
	} {
		t.Run(name, func(t *testing.T) {
			w := calm(t)
			// The broker that is asked for the plain list is left alone: it is asked by whoever is first.
			acls, err := w.as("east", admin).ACLs(context.Background())
			require.NoError(t, err)
			require.NotEmpty(t, acls)
			w.east.ControlKey(int16(kmsg.DescribeACLs), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.east.KeepControl()
				if w.east.CurrentNode() != 1 || req.(*kmsg.DescribeACLsRequest).PermissionType != kmsg.ACLPermissionTypeDeny {
					return nil, nil, false
				}
				return answer(req)
			})
			_, err = w.raise()
			require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
			require.ErrorContains(t, err, "broker 1 at ")
			require.NotContains(t, err.Error(), "broker 2 at ")
		})
	}
}

func TestP16_ATopicBornBeforeTheFenceIsFencedToo(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.before["east.CreateACLs"] = func(ctx context.Context) error {
		if w.took("east.CreateACLs") == 1 { // while the fence is being made
			require.NoError(t, w.as("east", admin).CreateTopic(ctx, replication.NewTopic{Name: "payments.new", Partitions: 1}))
			require.NoError(t, w.as("east", admin).CreateACLs(ctx, allow(me, "TOPIC", "LITERAL", "payments.new", "READ")))
		}
		return nil
	}
	out, err := w.raise()
	require.NoError(t, err)
	require.Equal(t, []string{"payments.new"}, out.Born)
	require.Equal(t, 3, out.Topics)
	require.Len(t, w.denies("east"), 3)
	scope, err := w.recordsNow().scope(context.Background(), w.guard().Run.ID())
	require.NoError(t, err)
	require.Contains(t, scope.TopicNames(), "payments.new")
	require.Equal(t, map[string][]string{"billing": {"orders"}}, scope.Reads)
}

// No activity that changes something does so once the epoch is another's.
func TestP35_AnotherEpochChangesNothing(t *testing.T) {
	t.Parallel()
	for name, act := range writingActivities {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.state()
			w.entries["consul.west"].state.Epoch, w.entries["consul.west"].state.SwitchedBy = 8, "another run"
			err := act(w)
			require.Equal(t, TypeStale, typeOf(err), "%v", err)
			require.ErrorContains(t, err, "8")
			w.entries["consul.west"].state.Epoch, w.entries["consul.west"].state.SwitchedBy = 7, "somebody"
			require.Equal(t, before, w.state())
			require.NotContains(t, w.trace, "east.CreateACLs")
		})
	}
}

var writingActivities = map[string]func(w *world) error{
	"Suspend": func(w *world) error {
		_, err := run[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
		return err
	},
	"Restore": func(w *world) error {
		_, err := run[SyncsResult](w, (*Syncs)(nil).Restore, SyncsInput{Guard: w.guard(), Route: w.route()})
		return err
	},
	"Raise":   func(w *world) error { _, err := w.raise(); return err },
	"Lift":    func(w *world) error { _, err := w.lift(); return err },
	"Quiesce": func(w *world) error { _, err := w.quiesce(soon()); return err },
	"HandOver": func(w *world) error {
		_, err := run[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(soon()))
		return err
	},
	"Promote": func(w *world) error { _, err := w.promote(soon()); return err },
	"Switch": func(w *world) error {
		_, err := run[SwitchResult](w, (*Discovery)(nil).Switch, w.switchInput())
		return err
	},
	"Stop": func(w *world) error {
		_, err := run[ClientsResult](w, (*Clients)(nil).Stop, ClientsInput{Guard: w.guard(), Clients: w.runbook().Clients, Deadline: soon()})
		return err
	},
	"Start": func(w *world) error {
		_, err := run[ClientsResult](w, (*Clients)(nil).Start, ClientsInput{Guard: w.guard(), Clients: w.runbook().Clients, Deadline: soon()})
		return err
	},
}

// A write that hangs ends at the deadline, which is counted from the start of the attempt.
func TestP35_WritesEndAtTheirDeadline(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.before["east.CreateACLs"] = hanging
	begun := time.Now()
	_, err := w.raise()
	took := time.Since(begun)
	require.Equal(t, TypeUnclear, typeOf(err), "%v", err)
	require.Greater(t, took, WriteDeadline-100*time.Millisecond)
	require.Less(t, took, WriteDeadline+time.Second)
	require.Empty(t, w.denies("east"))
}

// A cancellation comes before or after an atomic write, never in the middle of it.
func TestP35_CancellationDoesNotInterruptAWrite(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.before["east.CreateACLs"] = func(ctx context.Context) error {
		w.cancel()
		time.AfterFunc(100*time.Millisecond, func() {})
		return ctx.Err()
	}
	_, _ = w.raise()
	require.Len(t, w.denies("east"), 2)
	require.Len(t, w.ownedOn("east"), 2)
}

// The result of a retry says so, and until when the attempt before it may still write: one that failed left a word when it
// began.
func TestP35_ARetrySaysSo(t *testing.T) {
	t.Parallel()
	w := calm(t)
	first := true
	w.after["east.CreateACLs"] = func(context.Context) error {
		defer func() { first = false }()
		if first {
			return errDown
		}
		return nil
	}
	begun := time.Now()
	out, err := attempts[FenceResult](w, (*Fences)(nil).Raise, w.fenceInput())
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Attempt)
	require.False(t, out.LateUntil().Before(begun.Add(WriteDeadline)), "before the attempt that failed began")
	require.True(t, out.LateUntil().Before(out.Started.Add(WriteDeadline)))
	require.Zero(t, Acted{Attempt: 1, Started: begun}.LateUntil())
	require.Equal(t, begun.Add(WriteDeadline), Acted{Attempt: 2, Started: begun}.LateUntil(), "of a worker that does not say more")
}

func TestRaiseAThousandTopicsInsideTheWriteDeadline(t *testing.T) {
	w := calm(t)
	var topics []replication.Topic
	var acls []replication.ACL
	for i := range 1000 {
		name := fmt.Sprintf("payments.of-a-rather-long-name-%04d", i)
		topics = append(topics, replication.Topic{Name: name, Partitions: 10})
		require.NoError(t, w.east.CreateTopic(name, 10, nil))
		acls = append(acls, allow(me, "TOPIC", "LITERAL", name, "READ")...)
	}
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), acls))
	topics = append(topics, replication.Topic{Name: "orders", Partitions: 2}, replication.Topic{Name: "payments", Partitions: 1})
	require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{Topics: topics}))
	out, err := w.raise()
	require.NoError(t, err)
	require.EqualValues(t, 1, out.Attempt)
	require.Equal(t, 1002, out.Topics)
	t.Logf("raised in %s", time.Since(out.Started).Round(time.Millisecond))
}
