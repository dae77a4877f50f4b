package activities

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

func (w *world) promote(until time.Time) (PromoteResult, error) {
	return run[PromoteResult](w, (*Mirrors)(nil).Promote, w.waitInput(until))
}

func TestPromoteStopsEveryMirrorOfTheRunbook(t *testing.T) {
	t.Parallel()
	w := read(t)
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Equal(t, 2, out.Topics)
	require.Contains(t, w.link.describe(), "[orders=stopped others=active payments=stopped]")
	require.Equal(t, []string{"link.Stop promote orders,payments"}, w.trace)
	again, err := w.promote(soon())
	require.NoError(t, err)
	require.False(t, again.Changed)
	require.Len(t, w.trace, 1, "never asked twice")
}

func TestKilledWhilePromoting(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w := read(t)
		_, err := w.raise()
		require.NoError(t, err)
		require.NoError(t, w.as("west", admin).CreateACLs(context.Background(), replication.TopicFence([]string{"orders"})))
		w.trace = nil
		return w
	}, func(w *world) error { _, err := w.promote(soon()); return err })
}

func TestP15_RefusedMeansThatNothingWasSent(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world){
		"validate_only says no":   func(w *world) { w.link.refuse["payments"] = "records are missing" },
		"the target is behind":    func(w *world) { w.write("east", "orders", 0, 1) },
		"a mirror has failed":     func(w *world) { w.link.set("orders", replication.MirrorFailed, "FAILED") },
		"a mirror's state is new": func(w *world) { w.link.set("orders", replication.MirrorUnknown, "PENDING_NEW_THING") },
		"ACL sync came back":      func(w *world) { w.link.now.ACLs.Enabled = true },
		"a topic is not mirrored": func(w *world) { delete(w.link.mirrors, "payments") },
		"a mirror is only paused": func(w *world) { w.link.set("orders", replication.MirrorPaused, "PAUSED") },
		"an offset stays unknown": func(w *world) { w.ends = func(_ string, e []replication.Ends) { e[0].LogEnd = replication.Unknown } },
		"discovery stays away":    func(w *world) { w.entries["consul.west"].down = errDown },
		"somebody writes again":   func(w *world) { w.ends = slowFollower("east") },
		"the link is not found":   func(w *world) { delete(w.link.mirrors, "orders") },
	} {
		t.Run(name, func(t *testing.T) {
			w := read(t)
			spoil(w)
			_, err := w.promote(late())
			require.Equal(t, TypePromoteRefused, typeOf(err), "%v", err)
			require.ErrorContains(t, err, "nothing was promoted")
			require.Zero(t, w.took("link.Stop"))
		})
	}
}

// Once an attempt was lost sight of nobody can say that nothing was sent.
func TestP15_ARetryNeverSaysThatNothingWasSent(t *testing.T) {
	t.Parallel()
	for _, err := range []error{fault.ErrInvalid, errStillWriting, errTimeUp} {
		require.Equal(t, TypePromoteRefused, typeOf(toApplication(refused(Acted{Attempt: 1}, err))))
		require.NotEqual(t, TypePromoteRefused, typeOf(toApplication(refused(Acted{Attempt: 2}, err))))
	}
	require.Equal(t, TypeStale, typeOf(toApplication(refused(Acted{Attempt: 1}, fault.ErrStale))))
	require.Equal(t, TypeUnreachable, typeOf(toApplication(refused(Acted{Attempt: 1}, fault.ErrUnreachable))))
}

// What passes before anything is sent is waited out in the first attempt.
func TestP15_ATroubleThatPassesBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	w := read(t)
	e := w.entries["consul.west"]
	e.down = errDown
	time.AfterFunc(400*time.Millisecond, func() { e.mu.Lock(); defer e.mu.Unlock(); e.down = nil })
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.EqualValues(t, 1, out.Attempt)
}

// A lost answer: the state decides, and nothing is asked for twice.
func TestP15_ALostAnswerIsDecidedByTheState(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.link.takes = 1500 * time.Millisecond // longer than a topic may show no sign
	w.after["link.Stop"] = func(context.Context) error { return fmt.Errorf("connection reset: %w", fault.ErrUnclear) }
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.Empty(t, out.FailedOver)
	require.Equal(t, 1, w.took("link.Stop"))

	// Lost before it arrived: no mirror shows a sign, so it is asked again.
	w = read(t)
	w.link.deaf = map[string]int{"orders": 1, "payments": 1}
	out, err = w.promote(soon())
	require.NoError(t, err)
	require.Empty(t, out.FailedOver)
	require.Equal(t, 2, w.took("link.Stop"))
}

func TestP15_APromoteThatHangsGetsAFailover(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.link.hang["orders"] = true
	out, err := w.promote(time.Now().Add(3 * time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{"orders"}, out.FailedOver)
	require.Equal(t, []string{"link.Stop promote orders,payments", "link.Stop failover orders"}, w.trace)
}

func TestP15_NoFailoverWithoutEquality(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.link.hang["orders"] = true
	w.after["link.Stop"] = func(context.Context) error { w.write("east", "orders", 0, 1); return nil }
	_, err := w.promote(time.Now().Add(3 * time.Second))
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "a failover would lose records")
	require.Zero(t, w.took("link.Stop failover"))
}

// A failover that could not be sent is sent again.
func TestP15_AFailoverThatWasNotSentIsRepeated(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.link.hang["orders"] = true
	n := 0
	w.before["link.Stop failover orders"] = func(context.Context) error {
		if n++; n == 1 {
			return errDown
		}
		return nil
	}
	out, err := w.promote(time.Now().Add(4 * time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{"orders"}, out.FailedOver)
	require.Equal(t, 2, n)
}

// A mirror that fails, or says a new word, after promote was sent: past the point of no return, so it is named.
func TestAMirrorThatFailsWhilePromoting(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.after["link.Stop"] = func(context.Context) error {
		w.link.set("orders", replication.MirrorUnknown, "PENDING_NEW_THING")
		return nil
	}
	_, err := w.promote(time.Now().Add(3 * time.Second))
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "PENDING_NEW_THING")
	require.Equal(t, 1, w.took("link.Stop"), "what nobody knows is not acted upon")
}

func TestP05_P34_CopiesOfTheFenceAreRemovedFromTheTarget(t *testing.T) {
	t.Parallel()
	w := read(t)
	_, err := w.raise()
	require.NoError(t, err)
	foreign := replication.ACL{ResourceType: "TOPIC", Pattern: "LITERAL", Name: "orders", Principal: "User:intruder", Host: "*", Operation: "WRITE", Permission: "DENY"}
	require.NoError(t, w.as("west", admin).CreateACLs(context.Background(), append(replication.TopicFence([]string{"orders"}), foreign)))
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.Equal(t, 1, out.Copied)
	require.Equal(t, []string{foreign.String()}, w.denies("west"), "only copies of ours")
	require.Len(t, w.denies("east"), 2, "the fence itself stands")
}

func TestKeepMarks(t *testing.T) {
	t.Parallel()
	w := read(t)
	in := MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8}
	out, err := run[MarksResult](w, (*Mirrors)(nil).KeepMarks, in)
	require.NoError(t, err)
	require.Equal(t, 3, out.Partitions)
	for _, site := range []string{"east", "west"} {
		marks, err := getList[replication.Mark](context.Background(), w.as(site, admin).Records(MarksTopic), marksKey("east-id", w.guard().Run.ID()))
		require.NoError(t, err)
		require.Len(t, marks, 3)
		require.NotEmpty(t, marks[0].SourceTopic)
		require.Equal(t, replication.Mark{From: "east", SourceTopic: w.idsOn("east")["orders"], TargetTopic: w.idsOn("west")["orders"], Position: replication.Position{Partition: at("orders", 0), SourceEnd: 5, Replicated: replication.Unknown, TargetEnd: 5, Seen: marks[0].Seen},
			SourceCluster: "east-id", TargetCluster: "west-id", Boundary: 5, Epoch: 8, Run: w.guard().Run.ID()}, marks[0])
	}
}

// A sample with a hole never replaces a whole one.
func TestP20_APartNeverReplacesTheWhole(t *testing.T) {
	t.Parallel()
	w := read(t)
	in := MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8}
	_, err := run[MarksResult](w, (*Mirrors)(nil).KeepMarks, in)
	require.NoError(t, err)
	puts := w.took("west.Put")
	w.ends = func(site string, ends []replication.Ends) {
		if site == "east" {
			ends[1].HighWatermark = replication.Unknown
		}
	}
	_, err = run[MarksResult](w, (*Mirrors)(nil).KeepMarks, in)
	require.Error(t, err)
	require.ErrorContains(t, err, "orders-1")
	require.Equal(t, puts, w.took("west.Put"))

	// A store that cannot be read whole is an error, never a part.
	_, err = getList[replication.Mark](context.Background(), brokenStore{}, "marks/")
	require.ErrorIs(t, err, fault.ErrUnreachable)
}

type brokenStore struct{}

func (brokenStore) Put(context.Context, map[string][]byte) error { return errDown }
func (brokenStore) Load(context.Context, string) (map[string][]byte, error) {
	return map[string][]byte{"marks/00000": []byte("[]")}, errDown
}

func TestP20_RecordsAreOnBothClusters(t *testing.T) {
	t.Parallel()
	w := calm(t)
	ok := errors.New("the source is slow")
	w.before["east.Put"] = func(context.Context) error { return ok }
	_, err := w.raise()
	require.ErrorContains(t, err, "write records on the source")
	require.Empty(t, w.denies("east"), "nothing is made that is not recorded on both")
}
