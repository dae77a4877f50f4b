package linkservice

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/secret"
	"switchback/replication"
	"switchback/replication/clusterlinking"
)

// product is the link as Switchback sees it, hosted by a cluster.
func (l *lab) product(cluster string) *clusterlinking.Link {
	l.Helper()
	link, err := clusterlinking.New(clusterlinking.Config{
		REST: l.svc.URL, ClusterID: "lkc-" + cluster, Link: "east-west", Login: secret.Login{Username: "api", Password: secret.New("api-secret")},
	})
	l.ok(err)
	l.Cleanup(link.Close)
	return link
}

func (l *lab) reaches(link *clusterlinking.Link, state replication.MirrorState, topics ...string) {
	l.Helper()
	l.until(string(state), func() bool {
		mirrors, err := link.Mirrors(l.ctx())
		return err == nil && !slices.ContainsFunc(topics, func(t string) bool {
			return !slices.ContainsFunc(mirrors, func(m replication.Mirror) bool { return m.Topic == t && m.State == state })
		})
	})
}

// The whole way home over a bidirectional link: failed over with a tail that was never mirrored, the old side is cut back to what
// was approved and mirrors the new one, and the reversal lets the workload come home.
func TestTheWayHomeOverABidirectionalLink(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 2)
	l.bidirectional()
	l.mirror("orders")
	l.write(l.east, "orders", 0, "a", "b", "c")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 3 })
	forward, home := l.product("west"), l.product("east")
	l.reaches(forward, replication.MirrorActive, "orders")
	l.accepted(link1, "pause", "orders")
	l.reaches(forward, replication.MirrorPaused, "orders")
	l.write(l.east, "orders", 0, "stranded-1", "stranded-2")

	early, err := home.PreviewRestore(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.Failed, early[0].Status, "its mirror has not stopped: %s", early[0])
	_, err = forward.Stop(l.ctx(), replication.Failover, []string{"orders"})
	l.ok(err)
	l.reaches(forward, replication.MirrorStopped, "orders")

	preview, err := home.PreviewRestore(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, []replication.Cut{{Topic: "orders", Status: replication.OK, Records: 2, Partitions: []replication.Truncation{{Partition: 0, From: 3, Records: 2}}}}, preview)
	l.write(l.east, "orders", 1, "one more")
	_, err = home.Restore(l.ctx(), preview)
	require.ErrorContains(t, err, "now orders: 3 records go")
	require.Equal(t, int64(5), l.end(l.east, "orders", 0), "nothing was cut")
	preview, err = home.PreviewRestore(l.ctx(), []string{"orders"})
	l.ok(err)
	out, err := home.Restore(l.ctx(), preview)
	l.ok(err)
	require.Equal(t, replication.Pending, out[0].Status)
	l.reaches(home, replication.MirrorActive, "orders")
	again, err := home.Restore(l.ctx(), preview)
	l.ok(err)
	require.Equal(t, replication.OK, again[0].Status)

	l.write(l.west, "orders", 0, "new")
	l.until("mirrored home", func() bool { return l.end(l.east, "orders", 0) == 4 })
	may, err := home.ValidateReverse(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.OK, may[0].Status)
	out, err = home.Reverse(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.Pending, out[0].Status)
	l.reaches(home, replication.MirrorStopped, "orders")
	l.reaches(forward, replication.MirrorActive, "orders")
	require.True(t, l.refusesWrites(l.west, "orders"))
	require.False(t, l.refusesWrites(l.east, "orders"))
	l.write(l.east, "orders", 0, "at home")
	l.until("protected again", func() bool {
		end := l.end(l.east, "orders", 0)
		return end >= 5 && l.end(l.west, "orders", 0) == end
	})
}

// A one-way link says that it cannot be turned round; its topics are deleted and mirrored anew.
func TestTheWayHomeOverOneWayLinks(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	l.write(l.east, "orders", 0, "a")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 1 })
	forward := l.product("west")
	l.reaches(forward, replication.MirrorActive, "orders")
	paused, err := forward.Pause(l.ctx(), []string{"orders"}, true)
	l.ok(err)
	require.Equal(t, replication.Pending, paused[0].Status)
	l.reaches(forward, replication.MirrorPaused, "orders")
	resumed, err := forward.Pause(l.ctx(), []string{"orders"}, false)
	l.ok(err)
	require.NotEqual(t, replication.Failed, resumed[0].Status)
	_, err = forward.Stop(l.ctx(), replication.Failover, []string{"orders"})
	l.ok(err)
	l.reaches(forward, replication.MirrorStopped, "orders")
	l.write(l.west, "orders", 0, "new")

	l.call("POST", "/kafka/v3/clusters/lkc-east/links?link_name=east-west", `{"source_cluster_id":"lkc-west"}`, 204)
	home := l.product("east")
	preview, err := home.PreviewRestore(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.Failed, preview[0].Status)
	require.Contains(t, preview[0].Reason, "not bidirectional")
	free, err := home.Dependents(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Empty(t, free)
	refused, err := home.CreateMirrors(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.Failed, refused[0].Status, "the old topic is in the way")
	_, err = home.DeleteTopics(l.ctx(), []string{"orders"})
	l.ok(err)
	gone, err := home.DeleteTopics(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.OK, gone[0].Status, gone[0].Reason)
	made, err := home.CreateMirrors(l.ctx(), []string{"orders"})
	l.ok(err)
	require.NotEqual(t, replication.Failed, made[0].Status, made[0].Reason)
	l.reaches(home, replication.MirrorActive, "orders")
	l.until("mirrored home", func() bool { return l.end(l.east, "orders", 0) == 2 })
	standing, err := home.CreateMirrors(l.ctx(), []string{"orders"})
	l.ok(err)
	require.Equal(t, replication.OK, standing[0].Status)
}
