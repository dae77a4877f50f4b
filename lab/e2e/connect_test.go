package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/lab/setup"
	"switchback/replication"
	"switchback/replication/kafka"
	"switchback/replication/mirrormaker"
	"switchback/runbooks"
)

// onConnect is a lab with real brokers and a real Connect worker, and nothing that moves by itself.
func onConnect(t *testing.T, changes ...func(*setup.Options)) *stage {
	t.Helper()
	apache := func(o *setup.Options) {
		o.Kafka, o.Link, o.WithoutWorker, o.WithoutClients = setup.Apache, setup.MirrorMaker, true, true
	}
	if missing := setup.Missing(setup.Options{Kafka: setup.Apache}); missing != "" {
		t.Skip(missing)
	}
	return up(t, append([]func(*setup.Options){apache}, changes...)...)
}

// cluster is one of the lab's, as Switchback itself sees it.
func (s *stage) cluster(t *testing.T, name string) *kafka.Cluster {
	return s.clusterAs(t, name, "switchback")
}

func (s *stage) clusterAs(t *testing.T, name, user string) *kafka.Cluster {
	t.Helper()
	security := runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"}
	if s.Options().TLS {
		security.Protocol, security.CA = "SASL_SSL", s.CA()
	}
	c, err := kafka.Open(kafka.Config{Name: name, Bootstrap: s.Bootstrap(name), Login: s.KafkaLogin(name, user), Security: security})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// mirrorMaker is the link from east to west.
func (s *stage) mirrorMaker(t *testing.T, policy string) *mirrormaker.Link {
	t.Helper()
	east, west := s.cluster(t, "east"), s.cluster(t, "west")
	l, err := mirrormaker.New(mirrormaker.Config{
		Workers: mirrormaker.Workers{Connect: []string{"http://127.0.0.1:1", s.ConnectURL("west")}, Login: s.ConnectLogin(), HTTP: s.HTTP()},
		Source:  "east-west.source", Checkpoint: "east-west.checkpoint", Heartbeat: "east-west.heartbeat",
		Names: mirrormaker.Names{Source: "east", Target: "west", Policy: policy}, Data: "User:mm2-data", Admin: "User:mm2-admin",
		From: east, To: west, Compare: func(n mirrormaker.Names, committed bool) mirrormaker.Records {
			return mirrormaker.Comparer{From: east, To: west, Names: n, Committed: committed}
		},
	})
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// settles waits until every mirror of the link is in a state, and returns them.
func settles(t *testing.T, l *mirrormaker.Link, state replication.MirrorState) (mirrors []replication.Mirror) {
	t.Helper()
	eventually(t, "the mirrors to be "+string(state), func() (ok bool, err error) {
		mirrors, err = l.Mirrors(t.Context())
		return len(mirrors) > 0 && !slices.ContainsFunc(mirrors, func(m replication.Mirror) bool { return m.State != state }), err
	})
	return mirrors
}

func (s *stage) produce(t *testing.T, cluster, topic string, n int) {
	t.Helper()
	client, err := s.Kafka(cluster, "checkout", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: int32(i % 2), Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "v%d", i)}
		require.NoError(t, client.ProduceSync(t.Context(), r).FirstErr())
	}
}

// A real Connect worker, the life of a link on it: it runs, is sealed, its tasks fail behind the seal, it stops, its offsets
// are set, and it goes on without a record twice (P10, P27).
func TestP27_AMirrorGoesOnWhereTheTargetEnds(t *testing.T) {
	s := onConnect(t)
	l := s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	west := s.cluster(t, "west")
	topic := s.TopicNames("west", small("orders"))[0]
	s.produce(t, "east", topic, 20)
	drained := func() {
		eventually(t, "the target to have everything", func() (bool, error) {
			ends, err := s.cluster(t, "east").Ends(t.Context(), []string{topic})
			if err != nil {
				return false, err
			}
			out, err := l.Drained(t.Context(), ends)
			return len(out) == 2 && !slices.ContainsFunc(out, func(o replication.Outcome) bool { return o.Status != replication.OK }), err
		})
	}
	drained()
	settles(t, l, replication.MirrorActive)
	eventually(t, "Connect to have stored offsets", func() (bool, error) {
		mirrors, err := l.Mirrors(t.Context())
		i := slices.IndexFunc(mirrors, func(m replication.Mirror) bool { return m.Topic == topic })
		return i >= 0 && maps.Equal(mirrors[i].Fetched, map[int32]int64{0: 10, 1: 10}), err
	})
	status, err := l.Status(t.Context())
	require.NoError(t, err)
	require.True(t, status.Healthy, status.Reason)
	require.True(t, status.Syncs.ACLs.Enabled)
	require.NotContains(t, fmt.Sprintf("%+v", status), "password")

	seal := l.Denials(replication.DenyTopics, []string{topic})
	require.NoError(t, west.CreateACLs(t.Context(), seal))
	s.produce(t, "east", topic, 2)
	failed := settles(t, l, replication.MirrorFailed)
	require.Contains(t, failed[0].Reason, "TopicAuthorizationException")
	next := map[replication.Partition]int64{{Topic: topic}: 10, {Topic: topic, Partition: 1}: 10}
	require.ErrorIs(t, l.PatchOffsets(t.Context(), next), fault.ErrNotReady)

	begun := time.Now()
	out, err := l.Stop(t.Context(), replication.Promote, []string{topic})
	require.NoError(t, err)
	require.Equal(t, replication.Pending, out[0].Status)
	settles(t, l, replication.MirrorStopped)
	t.Logf("the connectors stopped after %v", time.Since(begun).Round(time.Millisecond))

	require.NoError(t, l.PatchOffsets(t.Context(), map[replication.Partition]int64{{Topic: topic}: 0}), "0 is the start")
	require.NoError(t, l.PatchOffsets(t.Context(), next))
	require.NoError(t, west.DeleteACLs(t.Context(), seal))
	require.NoError(t, l.Resume(t.Context()))
	settles(t, l, replication.MirrorActive)
	drained()
	ends, err := west.Ends(t.Context(), []string{topic})
	require.NoError(t, err)
	for _, e := range ends {
		require.EqualValues(t, 11, e.HighWatermark, "%s has each record once", e.Name())
	}
}

// What Connect itself says where this client relies on it: states, conflicts, refusals, and what validation tells.
func TestConnectAnswersAsTheClientExpects(t *testing.T) {
	s := onConnect(t, func(o *setup.Options) { o.ExactlyOnce, o.Policy = true, setup.Default })
	l := s.mirrorMaker(t, mirrormaker.PolicyDefault)
	mirrors := settles(t, l, replication.MirrorActive)
	require.Equal(t, "east."+mirrors[0].SourceTopic, mirrors[0].Topic)
	c := l.Client()
	about, err := c.About(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, about.Version)
	health := c.Health(t.Context())
	require.Equal(t, []replication.Status{replication.Failed, replication.OK}, []replication.Status{health[0].Status, health[1].Status})

	list := []mirrormaker.Setting{{Name: "connector.class", Value: "org.apache.kafka.connect.mirror.MirrorSourceConnector"}, {Name: "source.cluster.alias", Value: "north"}}
	require.NoError(t, c.Create(t.Context(), "north-west.source", mirrormaker.Stopped, list))
	made := func() mirrormaker.Connector {
		connector, err := c.Connector(t.Context(), "north-west.source")
		require.NoError(t, err)
		return connector
	}
	eventually(t, "the connector to be stopped", func() (bool, error) { return made().Idle(), nil })
	require.ErrorIs(t, c.Create(t.Context(), "north-west.source", mirrormaker.Stopped, list), fault.ErrConflict)
	require.ErrorIs(t, c.Create(t.Context(), "broken", mirrormaker.Stopped, nil), fault.ErrInvalid)
	at := mirrormaker.Stored{Cluster: "north", Partition: replication.Partition{Topic: "orders"}, Offset: 41}
	require.NoError(t, c.SetOffsets(t.Context(), "north-west.source", []mirrormaker.Stored{at}))
	got, err := c.Offsets(t.Context(), "north-west.source")
	require.NoError(t, err)
	require.Equal(t, []mirrormaker.Stored{at}, got)
	at.Offset = replication.Unknown
	require.NoError(t, c.SetOffsets(t.Context(), "north-west.source", []mirrormaker.Stored{at}))
	got, err = c.Offsets(t.Context(), "north-west.source")
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, c.Forget(t.Context(), "north-west.source"))
	require.NoError(t, c.Delete(t.Context(), "north-west.source"))
	eventually(t, "the connector to be gone", func() (bool, error) {
		all, err := c.Connectors(t.Context())
		_, there := all["north-west.source"]
		return !there, err
	})
	_, err = c.Connector(t.Context(), "north-west.source")
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorIs(t, c.Stop(t.Context(), "nobody's"), fault.ErrNotFound)
	require.ErrorIs(t, c.SetOffsets(t.Context(), "east-west.source", nil), fault.ErrInvalid, "nothing to set")

	advice, err := l.Advice(t.Context())
	require.NoError(t, err)
	levels := map[string]string{}
	for _, a := range advice {
		if levels[a.Check] == "" || a.Level != "ok" {
			levels[a.Check] = a.Level
		}
		t.Logf("%s %s: %s", a.Level, a.Check, a.Means)
	}
	require.Equal(t, "ok", levels["principals"])
	require.Equal(t, "ok", levels["connectors"])
	require.Equal(t, "ok", levels["exactly-once"])
	require.Equal(t, "warning", levels["connect workers"], "one of the two does not answer")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NoError(t, c.Pause(ctx, "east-west.heartbeat"))
}

// beats waits until the heartbeat connector has written so many more records: a second each, and a cycle of every sync.
func (s *stage) beats(t *testing.T, n int64) {
	t.Helper()
	west := s.clusterAs(t, "west", "lab")
	end := func() int64 {
		ends, err := west.Ends(t.Context(), []string{"heartbeats"})
		if err != nil || len(ends) != 1 {
			return 0
		}
		return ends[0].HighWatermark
	}
	var from int64
	eventually(t, "the heartbeat connector to write", func() (bool, error) { from = end(); return from > 0, nil })
	eventually(t, "the heartbeat connector to go on", func() (bool, error) { return end() >= from+n, nil })
}

// What is denied to MirrorMaker 2's admin principal it does not do, without a change of its configuration and without a
// task that fails: no ACL is copied, no topic made, no group's offsets written. Lifted, it does all of it (P5, P34).
func TestP05_WhatIsDeniedToTheMirrorIsNotSynced(t *testing.T) {
	s := onConnect(t)
	l := s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	settles(t, l, replication.MirrorActive)
	east, west := s.clusterAs(t, "east", "lab"), s.clusterAs(t, "west", "lab")
	w := small("orders")
	topic, group := w.TopicNames()[0], w.Groups()[0]
	on := replication.Partition{Topic: topic}
	s.produce(t, "east", topic, 20)
	denied := append(l.Denials(replication.DenySyncs, nil), l.Denials(replication.DenyGroups, []string{group})...)
	require.NoError(t, west.CreateACLs(t.Context(), denied))
	s.beats(t, 2) // a cycle that had begun

	fence := replication.TopicFence([]string{topic})
	require.NoError(t, east.CreateACLs(t.Context(), fence))
	require.NoError(t, east.Commit(t.Context(), group, map[replication.Partition]int64{on: 10}))
	require.NoError(t, east.CreateTopic(t.Context(), replication.NewTopic{Name: "orders.new", Partitions: 1}))
	synced := func() (copied, made, written bool) {
		acls, err := west.ACLs(t.Context())
		require.NoError(t, err)
		topics, err := west.Topics(t.Context(), func(name string) bool { return name == "orders.new" })
		require.NoError(t, err)
		committed, err := west.Committed(t.Context(), group)
		require.NoError(t, err)
		return len(replication.Missing(fence, acls)) == 0, len(topics) > 0, committed[on] > 0
	}
	eventually(t, "a checkpoint of the group", func() (bool, error) {
		last, err := l.LastKnown(t.Context(), []replication.GroupOffsets{{Group: group, Offsets: []replication.Translated{{Partition: on, Target: replication.Unknown}}}})
		return err == nil && last[0].Offsets[0].Target == 10, err
	})
	s.beats(t, 5)
	copied, made, written := synced()
	require.False(t, copied, "the fence was copied to the cluster that clients are about to use")
	require.False(t, made, "a topic was made")
	require.False(t, written, "the group's offsets were written")
	status, err := l.Status(t.Context())
	require.NoError(t, err)
	require.True(t, status.Healthy, "nothing fails by it: %s", status.Reason)

	require.NoError(t, west.DeleteACLs(t.Context(), denied))
	eventually(t, "all of it to be synced once nothing is denied", func() (bool, error) {
		copied, made, written := synced()
		return copied && made && written, nil
	})
}
