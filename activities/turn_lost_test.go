package activities

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
	"switchback/runbooks"
)

// connectorLink is the way home over connectors: nothing is taken, they are told where to begin.
type connectorLink struct{ *fakeLink }

func (c *connectorLink) CreateStopped(ctx context.Context, _ replication.Link, _ string) (list []replication.Outcome, err error) {
	return list, c.w.do(ctx, "back.CreateStopped", func() error { return nil })
}

// byConnectors is homeward over connectors, which are stopped.
func byConnectors(t *testing.T) (*world, *connectorLink) {
	w := stranded(t)
	back := &connectorLink{newLink(w)}
	back.seals = true
	for name := range back.mirrors {
		back.set(name, replication.MirrorStopped, "STOPPED")
	}
	w.back = back
	return w, back
}

// said are the findings of a check that forbid the run.
func said(p TurnPlan, check string) (list []string) {
	for _, f := range p.Findings {
		if f.Check == check && f.Level == LevelProblem {
			list = append(list, f.Means)
		}
	}
	return list
}

// A cluster that comes back without its records, or without some, has nothing that could go; what was stranded there is lost for
// ever. That is said, and given up by name; then everything that it lacks is mirrored from the start.
func TestI4_WhatWentWithTheClusterIsGivenUpByName(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(w *world)
		way       Way
		next      map[replication.Partition]int64
	}{
		"all of it is gone": {func(w *world) {
			w.drop("east", "orders", "payments", MarksTopic, PositionsTopic, CanaryTopic)
		}, WayAnew,
			map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 0}},
		"its topics were made again, empty": {func(w *world) { w.anew("east", "orders", 0); w.anew("east", "payments", 0) }, WayAnew,
			map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 0}},
		"one topic is gone": {func(w *world) { w.drop("east", "orders") }, WayResume,
			map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 3}},
		"one topic was made again, empty": {func(w *world) { w.known(); w.anew("east", "orders", 0) }, WayResume,
			map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := stranded(t)
			back := &connectorLink{newLink(w)}
			back.seals = true
			for _, one := range []string{"orders", "payments", "others"} {
				back.set(one, replication.MirrorStopped, "STOPPED")
			}
			w.back = back
			w.remark(at("payments", 0), func(m *replication.Mark) { m.Boundary, m.TargetEnd, m.SourceEnd = 3, 3, 3 })
			w.write("east", "payments", 0, 3)
			w.write("west", "payments", 0, 4)
			tc.meanwhile(w)
			require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), allow(me, "TOPIC", "PREFIXED", "switchback.", "CREATE")))
			in := w.turn()
			plan, err := w.examine(in)
			require.NoError(t, err)
			require.Equal(t, tc.way, plan.Way)
			require.Len(t, said(plan, "lost"), 1, "%v", plan.Findings)
			require.Contains(t, said(plan, "lost")[0], "topic orders: recovery impossible: east came back without")
			require.Contains(t, said(plan, "lost")[0], "so 1 offsets that were stranded in it are lost for ever")
			require.EqualValues(t, 1, plan.Lost)
			in.Accept = []string{"payments"}
			plan, err = w.examine(in)
			require.NoError(t, err)
			require.Len(t, said(plan, "lost"), 1, "another topic's name is no consent")

			in.Accept = []string{"orders"}
			plan, err = w.examine(in)
			require.NoError(t, err)
			require.Empty(t, problemsIn(plan.Findings), "%v", plan.Findings)
			require.Contains(t, plan.Text, "recovery impossible")
			_, err = w.position(in)
			require.NoError(t, err)
			require.Equal(t, tc.next, back.patched)
		})
	}
}

// The same over links that mirror whole topics: there is nothing to delete of what is not there.
func TestI4_AnEmptyClusterIsMirroredAnew(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(w *world)
		deleted   []string
	}{
		"all of it is gone":               {func(w *world) { w.drop("east", "orders", "payments") }, nil},
		"one topic is gone":               {func(w *world) { w.drop("east", "orders") }, []string{"payments"}},
		"one topic was made again, empty": {func(w *world) { w.anew("east", "orders", 0) }, []string{"orders", "payments"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, back := homeward(t)
			tc.meanwhile(w)
			in := w.turn()
			plan, err := w.examine(in)
			require.NoError(t, err)
			require.Len(t, said(plan, "lost"), 1, "%v", plan.Findings)
			in.Accept = []string{"orders"}
			plan, err = w.examine(in)
			require.NoError(t, err)
			require.Empty(t, problemsIn(plan.Findings), "%v", plan.Findings)
			_, err = w.position(in)
			require.NoError(t, err)
			require.Equal(t, tc.deleted, back.deleted)
			after, err := w.planRecovery(w.recovery(), "append")
			require.NoError(t, err)
			require.True(t, after.Finished, "nobody looks for it again")
			require.Contains(t, after.Text, "given up by run")
		})
	}
}

// Another cluster answers under the old one's name: what was stranded is not there, whatever is.
func TestI4_AnotherClusterUnderTheOldName(t *testing.T) {
	t.Parallel()
	w, back := byConnectors(t)
	w.east = w.cluster("east-new")
	for _, user := range []string{me, admin} {
		delete(w.conns, "east"+user)
	}
	w.provision("east")
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), replication.TopicFence([]string{"orders", "payments"})))
	in := w.turn()
	in.Route.To.Cluster.ID = "east-id"
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, []string{"east answers as cluster east-new, the runbook says east-id"}, said(plan, "cluster identity"), "before anything is copied")
	in.Route.To.Cluster.ID = "east-new"
	plan, err = w.examine(in)
	require.NoError(t, err)
	require.Empty(t, said(plan, "cluster identity"))
	require.Len(t, said(plan, "lost"), 1, "%v", plan.Findings)
	require.Contains(t, said(plan, "lost")[0], "east is another cluster now (its id was east-id, and is east-new)")
	in.Accept = []string{"orders"}
	_, err = w.examine(in)
	require.NoError(t, err)
	_, err = w.position(in)
	require.NoError(t, err)
	require.EqualValues(t, 0, back.patched[at("orders", 0)])
	found, err := w.planRecovery(w.recovery(), "append")
	require.NoError(t, err)
	require.Contains(t, strings.Join(problemsOf(found), "\n"), "east is another cluster now")
}

// Marks say nothing of a topic that was made anew on either side: neither is it cut or deleted, nor does a connector begin there.
func TestI9_ATopicMadeAnewIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		site    string
		records int
	}{
		"on the old cluster, with more":  {"east", 9},
		"on the old cluster, as many":    {"east", 5},
		"on the old cluster, with fewer": {"east", 1},
		"on the new cluster, with more":  {"west", 9},
		"on the new cluster, as many":    {"west", 5},
		"on the new cluster, empty":      {"west", 0},
	} {
		for _, kind := range []string{"mirrored whole", "by connectors"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var w *world
				var deleted func() bool
				if kind == "by connectors" {
					var back *connectorLink
					w, back = byConnectors(t)
					deleted = func() bool { return back.patched != nil }
				} else {
					var back *backLink
					w, back = homeward(t)
					deleted = func() bool { return back.deleted != nil }
				}
				w.known()
				w.anew(tc.site, "orders", tc.records)
				in := w.turn()
				in.Accept = []string{"orders"}
				plan, err := w.examine(in)
				require.NoError(t, err)
				require.Len(t, said(plan, "marks"), 1, "%v", plan.Findings)
				require.Contains(t, said(plan, "marks")[0], "orders: the topic on "+tc.site+" is another one than it was")
				_, err = w.position(in)
				require.Error(t, err, "nothing was approved")
				require.False(t, deleted())
			})
		}
	}
}

// Where a link cuts topics back, one that is not there is mirrored anew beside them.
func TestARestoreMirrorsWhatIsMissing(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	link := &cutLink{backLink: back}
	link.cuts = func() []replication.Cut { return []replication.Cut{{Topic: "payments", Status: replication.OK}} }
	w.back = link
	w.drop("east", "orders")
	in := w.turn()
	in.Accept = []string{"orders"}
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, WayRestore, plan.Way)
	require.Empty(t, problemsIn(plan.Findings), "%v", plan.Findings)
	_, err = w.position(in)
	require.NoError(t, err)
	require.Equal(t, 1, link.restore)
	require.Empty(t, back.deleted)
	require.Contains(t, w.idsOn("east"), "orders")
}

// The connectors that led away are put to rest where an empty cluster begins, before their seal is lifted: its marks are of records
// that it has not (P27).
func TestP27_ConnectorsOfAnEmptyClusterRestAtItsBeginning(t *testing.T) {
	t.Parallel()
	w, _ := byConnectors(t)
	w.remark(at("orders", 0), func(m *replication.Mark) { m.Boundary = replication.Unknown })
	w.drop("east", "orders", "payments")
	for _, topic := range []string{"orders", "payments"} {
		w.link.set(topic, replication.MirrorStopped, "STOPPED")
	}
	mirror := runbooks.Principals{Data: "User:mm2-data", Admin: "User:mm2"}
	seal := replication.TopicFence([]string{"orders"})[0]
	seal.Principal = mirror.Data
	require.NoError(t, w.as("west", admin).CreateACLs(t.Context(), []replication.ACL{seal}))
	in := w.turn()
	in.Opposite.MirrorMaker = &runbooks.MirrorMaker{Principals: mirror}
	in.Accept = []string{"orders", "payments"}
	require.NoError(t, w.recordsNow().put(t.Context(), map[string]any{aclsKey(in.Guard.Run.Runbook, "west"): OwnedACLs{Run: "r/1", ACLs: []replication.ACL{seal}}}))
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, WayAnew, plan.Way)
	_, err = w.position(in)
	require.NoError(t, err)
	require.Equal(t, map[replication.Partition]int64{at("orders", 0): 0, at("orders", 1): 0, at("payments", 0): 0}, w.link.patched)
	require.NotContains(t, w.denies("west"), seal.String())
}
