package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// anywhere are all records that either cluster has of the workload's topics, wherever they lie.
func (w *world) anywhere() map[string]bool {
	w.t.Helper()
	all := map[string]bool{}
	for _, site := range []string{"east", "west"} {
		c := w.as(site, admin)
		there, err := c.Topics(context.Background(), w.runbook().Topics.Match)
		require.NoError(w.t, err)
		for _, topic := range there {
			for p := range int32(topic.Partitions) { //nolint:gosec // a handful
				for _, value := range w.values(site, topic.Name, p) {
					all[fmt.Sprintf("%s-%d %s", topic.Name, p, value)] = true
				}
			}
		}
	}
	return all
}

// cuttingLink is a cutLink that takes what it says: a topic is made anew, with what the other cluster has of it.
type cuttingLink struct{ *cutLink }

func (c *cuttingLink) Restore(ctx context.Context, approved []replication.Cut) ([]replication.Outcome, error) {
	there, err := c.w.as("west", admin).Topics(ctx, func(name string) bool {
		return slices.ContainsFunc(approved, func(a replication.Cut) bool { return a.Topic == name })
	})
	if err != nil {
		return nil, err
	}
	east := kadm.NewClient(c.w.raw("east", admin))
	for _, topic := range there {
		if _, err := east.DeleteTopic(ctx, topic.Name); err != nil {
			return nil, err
		}
		if _, err := east.CreateTopic(ctx, int32(topic.Partitions), 1, nil, topic.Name); err != nil { //nolint:gosec // a handful
			return nil, err
		}
		for p := range int32(topic.Partitions) { //nolint:gosec // a handful
			for _, value := range c.w.values("west", topic.Name, p) {
				if err := c.w.raw("east", admin).ProduceSync(ctx, &kgo.Record{Topic: topic.Name, Partition: p, Key: []byte(value), Value: []byte(value)}).FirstErr(); err != nil {
					return nil, err
				}
			}
		}
	}
	return c.cutLink.Restore(ctx, approved)
}

// connectors is the way home over MirrorMaker 2: nothing is taken.
type connectors struct{ *fakeLink }

func (c *connectors) CreateStopped(ctx context.Context, _ replication.Link, _ string) (list []replication.Outcome, err error) {
	err = c.w.do(ctx, "back.CreateStopped", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range c.mirrors {
			m.State, m.Raw = replication.MirrorStopped, "STOPPED"
		}
		return nil
	})
	return list, err
}

// onlyEast is a record that no other is like.
const onlyEast = "only east has it"

// unheard are the writes of each way of which the first answer is lost.
var unheard = map[Way][]string{
	WayRebuild: {"back.DeleteTopics", "back.CreateMirrors", "east.DeleteACLs"}, WayRestore: {"back.Restore"},
	WayResume: {"back.CreateStopped"}, WayAnew: {"back.CreateMirrors"},
}

// Whatever a way home does, and wherever it stops: after each of its writes every record that either cluster had is still on one of
// them. Before a recovery nothing goes at all; behind it what goes has a copy. An answer that was lost changes nothing.
func TestI9_EveryRecordIsSomewhereAfterEachWriteOfEachWayHome(t *testing.T) {
	t.Parallel()
	for way, links := range map[Way]func(w *world, back *backLink) replication.Link{
		WayRebuild: func(_ *world, back *backLink) replication.Link { return back },
		WayRestore: func(_ *world, back *backLink) replication.Link {
			cuts := []replication.Cut{{Topic: "orders", Status: replication.OK, Records: 2}, {Topic: "payments", Status: replication.OK}}
			return &cuttingLink{&cutLink{backLink: back, cuts: func() []replication.Cut { return cuts }}}
		},
		WayResume: func(w *world, back *backLink) replication.Link {
			back.seals = true
			for _, m := range w.link.mirrors { // of both directions
				back.mirrors[m.Topic] = &fakeMirror{Mirror: replication.Mirror{Topic: m.Topic, SourceTopic: m.Topic, Partitions: m.Partitions}}
			}
			return &connectors{back.fakeLink}
		},
		WayAnew: func(w *world, back *backLink) replication.Link { // somebody has made east anew
			_, err := kadm.NewClient(w.raw("east", admin)).DeleteTopics(context.Background(), "orders", "payments")
			require.NoError(w.t, err)
			return back
		},
	} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			for _, lost := range append([]string{""}, unheard[way]...) {
				w := stranded(t, onlyEast)
				w.back = links(w, newBack(w))
				w.turnedRound(t, way, lost)
			}
		})
	}
}

// turnedRound goes the whole way; the first answer of one of its writes is lost.
func (w *world) turnedRound(t *testing.T, way Way, lost string) {
	t.Helper()
	before, looked := w.anywhere(), 0
	require.Equal(t, way != WayAnew, before["orders-0 "+onlyEast])
	w.wrote = func(point string) {
		if !strings.HasPrefix(point, "back.") && !strings.HasPrefix(point, "link.") && !strings.HasPrefix(point, "west.Recover") {
			return // no record of the workload is touched
		}
		looked++
		now := w.anywhere()
		for record := range before {
			assert.True(t, now[record], "%s is nowhere any more after %s", record, point) // not the test's own goroutine
		}
	}
	in := w.turn()
	in.Deadline = time.Now().Add(2 * time.Minute) // of a loaded machine
	if way == WayAnew {
		in.Accept = []string{"orders", "payments"} // what went with them is lost, whatever anybody does now
	}
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, way, plan.Way)
	if way == WayRebuild || way == WayRestore {
		require.EqualValues(t, 2, plan.Unsaved)
		_, err = w.position(in)
		require.Error(t, err, "nothing was approved")
		require.Equal(t, before, w.anywhere())
	}
	if way != WayAnew {
		_, account, err := w.recoverAll(w.recovery(), "append")
		require.NoError(t, err)
		require.EqualValues(t, 2, account.Total.Recovered)
	}
	if lost != "" {
		n := 0
		w.after[lost] = func(context.Context) error {
			if n++; n == 1 {
				return errDown
			}
			return nil
		}
	}
	_, err = w.examine(in)
	require.NoError(t, err)
	_, err = attempts[TurnedResult](w, (*Turns)(nil).Position, in)
	require.NoError(t, err)
	_, err = attempts[GivenWay](w, (*Turns)(nil).GiveWay, in)
	require.NoError(t, err)
	_, err = attempts[TurnedResult](w, (*Turns)(nil).Flow, in)
	require.NoError(t, err)
	require.Positive(t, looked, "%v", w.trace)
}
