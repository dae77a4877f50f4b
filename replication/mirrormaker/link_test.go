package mirrormaker

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

const refusedTrace = "org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer send callback\n\tat x\n" +
	"Caused by: org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [orders]\n"

func TestStatus(t *testing.T) {
	_, l := newConnect(t, 1)
	st, err := l.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, replication.LinkStatus{
		Name: "east-west.source", ID: "cluster-west/east-west.source", Direction: replication.OneWay, Healthy: true, Topics: []string{"orders", "payments.in"},
		Syncs: replication.Syncs{
			Offsets: replication.Sync{Enabled: true, Interval: 3 * time.Second, Filter: `{"groups":{"include":"billing,shipping-.*","exclude":"console-consumer-.*, connect-.*, __.*"},"topics":{"include":".*","exclude":"mm2.*\\.internal, .*\\.replica, __.*"},"checkpoints":true}`},
			ACLs:    replication.Sync{Enabled: true, Interval: 5 * time.Second, Default: true},
			Topics:  replication.Sync{Enabled: true, Interval: time.Second, Default: true, Filter: `{"include":"orders, payments\\..*","exclude":"payments\\.secret"}`},
		},
		Tasks: []replication.Outcome{{Name: "east-west.source", Status: replication.OK}, {Name: "east-west.source-0", Status: replication.OK}, {Name: "east-west.source-1", Status: replication.OK},
			{Name: "east-west.checkpoint", Status: replication.OK}, {Name: "east-west.checkpoint-0", Status: replication.OK},
			{Name: "east-west.heartbeat", Status: replication.OK}, {Name: "east-west.heartbeat-0", Status: replication.OK}},
		RefreshWait: 30 * time.Second,
	}, st)
}

func TestStatusSaysWhyALinkIsNotHealthy(t *testing.T) {
	for want, change := range map[string]func(*connect){
		"task 1 of connector east-west.source is FAILED: org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer send callback: org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [orders]": func(s *connect) {
			s.connectors["east-west.source"].tasks[0] = taskOf(1, "FAILED", refusedTrace)
		},
		"connector east-west.source runs no tasks":         func(s *connect) { s.connectors["east-west.source"].tasks = nil },
		"connector east-west.checkpoint is PAUSED":         func(s *connect) { s.connectors["east-west.checkpoint"].state = "PAUSED" },
		"connector east-west.heartbeat is not there":       func(s *connect) { delete(s.connectors, "east-west.heartbeat") },
		"task 0 of connector east-west.source is NEW_WORD": func(s *connect) { s.connectors["east-west.source"].tasks[1] = taskOf(0, "NEW_WORD", "") },
	} {
		s, l := newConnect(t, 1)
		change(s)
		st, err := l.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, st.Reason)
		require.False(t, st.Healthy)
	}
}

func TestACheckpointConnectorWithoutGroupsIsHealthy(t *testing.T) {
	s, l := newConnect(t, 1)
	s.connectors["east-west.checkpoint"].tasks = nil
	st, err := l.Status(t.Context())
	require.NoError(t, err)
	require.True(t, st.Healthy, st.Reason)
}

func TestMirrors(t *testing.T) {
	s, l := newConnect(t, 1)
	s.connectors["east-west.source"].offsets = append(s.connectors["east-west.source"].offsets,
		object{"partition": object{"cluster": "typo", "partition": 0, "topic": "orders"}, "offset": object{"offset": 99}},
		object{"partition": object{"cluster": "east", "partition": 0, "topic": "payments.in"}, "offset": nil},
		object{"partition": object{"cluster": "east", "partition": -1, "topic": "orders"}, "offset": object{"offset": 5}})
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Equal(t, []replication.Mirror{
		{Topic: "orders", SourceTopic: "orders", Partitions: 2, State: replication.MirrorActive, Raw: "RUNNING, tasks 2 RUNNING", Fetched: map[int32]int64{0: 42, 1: 8}},
		{Topic: "payments.in", SourceTopic: "payments.in", Partitions: 2, State: replication.MirrorActive, Raw: "RUNNING, tasks 2 RUNNING"},
	}, ms)
	require.Len(t, s.calls, 2, "one request for the connectors, one for the offsets of all topics")
}

func TestMirrorsUnderTheDefaultPolicy(t *testing.T) {
	_, l := newConnect(t, 1, func(c *Config) {
		c.Names.Policy = PolicyDefault
		c.To = &kafkaCluster{topics: []string{"orders", "east.orders", "east.payments.in", "east.west.orders", "east.payments.secret", "east.heartbeats", "east.checkpoints.internal"}}
	})
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Len(t, ms, 2)
	require.Equal(t, []string{"east.orders", "orders", "east.payments.in", "payments.in"}, []string{ms[0].Topic, ms[0].SourceTopic, ms[1].Topic, ms[1].SourceTopic})
	require.Equal(t, map[int32]int64{0: 42, 1: 8}, ms[0].Fetched)
	require.Equal(t, "east.", l.Prefix())
}

func TestStatesOfMirrors(t *testing.T) {
	running, failed := Task{State: Running}, Task{State: Failed, Why: "x"}
	idle, busy := &Connector{State: Stopped}, &Connector{State: Running, Tasks: []Task{running}}
	for _, tc := range []struct {
		source     Connector
		checkpoint *Connector
		want       replication.MirrorState
	}{
		{Connector{State: Running, Tasks: []Task{running, running}}, busy, replication.MirrorActive},
		{Connector{State: Running}, busy, replication.MirrorStarting},
		{Connector{State: Running, Tasks: []Task{running, failed}}, busy, replication.MirrorFailed},
		{Connector{State: Running, Tasks: []Task{running, {State: Restarting}}}, busy, replication.MirrorStarting},
		{Connector{State: Running, Tasks: []Task{running, {State: "NEW"}}}, busy, replication.MirrorUnknown},
		{Connector{State: Paused, Tasks: []Task{{State: Paused}}}, busy, replication.MirrorPaused},
		{Connector{State: Failed}, busy, replication.MirrorFailed},
		{Connector{State: Unassigned}, busy, replication.MirrorStarting},
		{Connector{State: Stopped, Tasks: []Task{running}}, idle, replication.MirrorStopping},
		{Connector{State: Stopped}, busy, replication.MirrorStopping},
		{Connector{State: Stopped}, idle, replication.MirrorStopped},
		{Connector{State: Stopped}, nil, replication.MirrorStopped},
		{Connector{}, nil, replication.MirrorUnknown},
		{Connector{State: "DESTROYED"}, nil, replication.MirrorUnknown},
	} {
		got, raw, _ := look{source: tc.source, checkpoint: tc.checkpoint}.state()
		require.Equal(t, tc.want, got, raw)
	}
}

func TestStopIsOnlyTheIntent(t *testing.T) {
	s, l := newConnect(t, 1)
	s.slow = 3
	state := func() replication.MirrorState {
		ms, err := l.Mirrors(t.Context())
		require.NoError(t, err)
		return ms[0].State
	}
	valid, err := l.ValidateStop(t.Context(), replication.Promote, []string{"orders", "nowhere"})
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "orders", Status: replication.OK, Reason: "the mirrors of 1 other topics stop as well: payments.in"},
		{Name: "nowhere", Status: replication.Failed, Reason: "connector east-west.source does not mirror it"}}, valid)
	require.Zero(t, s.count("PUT"), "validating changes nothing")

	out, err := l.Stop(t.Context(), replication.Failover, []string{"orders"})
	require.NoError(t, err)
	require.Equal(t, replication.Pending, out[0].Status)
	require.Equal(t, 3, s.count("PUT"), "source, checkpoint and heartbeat")
	require.ErrorIs(t, l.PatchOffsets(t.Context(), map[replication.Partition]int64{{Topic: "orders"}: 1}), fault.ErrNotReady)
	require.Equal(t, replication.MirrorActive, state(), "nothing of it shows yet")
	require.Equal(t, replication.MirrorStopping, state(), "STOPPED, with tasks")
	require.Eventually(t, func() bool { return state() == replication.MirrorStopped }, time.Second, time.Millisecond)
	require.False(t, l.StopIsFinal())

	_, err = l.Stop(t.Context(), "sometime", []string{"orders"})
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.NoError(t, l.Resume(t.Context()))
	require.Eventually(t, func() bool { return state() == replication.MirrorActive }, time.Second, time.Millisecond)
}

func TestStopSaysWhatIsNotKnown(t *testing.T) {
	s, l := newConnect(t, 2)
	s.after = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "checkpoint") {
			reply(w, 500, object{"error_code": 500, "message": "Request timed out"})
			return true
		}
		return false
	}
	out, err := l.Stop(t.Context(), replication.Failover, []string{"orders"})
	require.ErrorIs(t, err, fault.ErrUnclear)
	require.Equal(t, replication.Unclear, out[0].Status)
	require.Equal(t, 3, s.count("PUT"), "each once, and the source's too")

	s.after = nil
	delete(s.connectors, "east-west.heartbeat")
	_, err = l.Stop(t.Context(), replication.Failover, []string{"orders"})
	require.NoError(t, err, "what is not there does not run")
	delete(s.connectors, "east-west.source")
	out, err = l.Stop(t.Context(), replication.Failover, []string{"orders"})
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.Equal(t, replication.Failed, out[0].Status)
}

// stopped is a link whose connectors are stopped.
func stopped(t *testing.T, change ...func(*Config)) (*connect, *Link) {
	s, l := newConnect(t, 1, change...)
	for _, c := range s.connectors {
		c.state, c.tasks = "STOPPED", nil
	}
	return s, l
}

func TestP27_OffsetsArePatchedToTheBoundaryAndReadBack(t *testing.T) {
	s, l := stopped(t)
	next := map[replication.Partition]int64{{Topic: "orders"}: 98, {Topic: "orders", Partition: 1}: 0, {Topic: "payments.in"}: 1}
	require.NoError(t, l.PatchOffsets(t.Context(), next))
	got, err := l.client.Offsets(t.Context(), "east-west.source")
	require.NoError(t, err)
	slices.SortFunc(got, func(a, b Stored) int { return strings.Compare(a.Topic, b.Topic) })
	require.Equal(t, "[orders-0=97 payments.in-0=0]", fmt.Sprint(got))
	require.NoError(t, l.PatchOffsets(t.Context(), next))
	require.Equal(t, 1, s.count("PATCH"), "what is there is not written again")
	require.ErrorIs(t, l.PatchOffsets(t.Context(), map[replication.Partition]int64{{Topic: "orders"}: replication.Unknown}), fault.ErrInvalid)
}

func TestP27_WhatDoesNotReadBackIsNoSuccess(t *testing.T) {
	next := map[replication.Partition]int64{{Topic: "orders"}: 98}
	s, l := stopped(t)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool { // accepted, and without effect: as for an alias that nobody has
		if r.Method == http.MethodPatch {
			reply(w, 200, object{"message": "The offsets for this connector have been altered successfully"})
		}
		return r.Method == http.MethodPatch
	}
	err := l.PatchOffsets(t.Context(), next)
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "orders-0")

	s, l = stopped(t)
	unclear := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			reply(w, 500, object{"error_code": 500, "message": "Request timed out"})
		}
		return r.Method == http.MethodPatch
	}
	s.hook = unclear
	require.ErrorIs(t, l.PatchOffsets(t.Context(), next), fault.ErrUnclear)
	s.hook, s.after = nil, unclear
	require.NoError(t, l.PatchOffsets(t.Context(), next), "it had been acted upon, and reads back")
	require.Equal(t, 2, s.count("PATCH"))
}

func TestP10_DenialsNameEachPrincipalForWhatItWrites(t *testing.T) {
	_, l := newConnect(t, 1, func(c *Config) { c.Names.Policy, c.Data, c.Admin = PolicyDefault, "User:mm2-data", "User:mm2" })
	say := func(acls []replication.ACL) (lines []string) {
		for _, a := range acls {
			lines = append(lines, a.String())
		}
		return lines
	}
	require.Equal(t, []string{
		"DENY WRITE on TOPIC LITERAL east.orders for User:mm2-data from *",
		"DENY WRITE on TOPIC LITERAL east.orders for User:mm2 from *",
		"DENY ALTER on TOPIC LITERAL east.orders for User:mm2 from *",
		"DENY ALTER_CONFIGS on TOPIC LITERAL east.orders for User:mm2 from *",
	}, say(l.Denials(replication.DenyTopics, []string{"orders"})))
	require.Equal(t, []string{"DENY READ on GROUP LITERAL billing for User:mm2 from *"}, say(l.Denials(replication.DenyGroups, []string{"billing"})))
	require.Equal(t, []string{
		"DENY ALTER on CLUSTER LITERAL kafka-cluster for User:mm2 from *",
		"DENY CREATE on CLUSTER LITERAL kafka-cluster for User:mm2 from *",
		"DENY CREATE on TOPIC LITERAL * for User:mm2 from *",
	}, say(l.Denials(replication.DenySyncs, nil)))

	_, one := newConnect(t, 1)
	require.Len(t, one.Denials(replication.DenyTopics, []string{"orders"}), 3, "one principal for both is denied once")
}

func TestP05_SyncsAreSuspendedWithoutTouchingAConnector(t *testing.T) {
	s, l := newConnect(t, 1)
	require.NoError(t, l.SuspendSyncs(t.Context(), replication.Syncs{}, replication.Suspension{Groups: []string{"billing"}}))
	require.NoError(t, l.RestoreSyncs(t.Context(), replication.Syncs{}, replication.Suspension{}, true))
	require.NoError(t, l.HoldsBack(t.Context(), []string{"billing"}))
	require.Empty(t, s.calls)
}

func TestSynced(t *testing.T) {
	s, l := newConnect(t, 1)
	outcome := func(groups ...string) (out []replication.Status) {
		st, err := l.Status(t.Context())
		require.NoError(t, err)
		for _, o := range l.Synced(st.Syncs, groups) {
			out = append(out, o.Status)
		}
		return out
	}
	require.Equal(t, []replication.Status{replication.OK, replication.OK, replication.Failed, replication.Failed}, outcome("billing", "shipping-eu", "billing-2", "console-consumer-1"))
	config := s.connectors["east-west.checkpoint"].config
	config["groups"] = `(?!secret).*, billing`
	require.Equal(t, []replication.Status{replication.OK, replication.Unclear}, outcome("billing", "shipping-eu"), "what only Java understands is not guessed")
	config["emit.checkpoints.enabled"] = "false"
	require.Equal(t, []replication.Status{replication.Failed}, outcome("billing"))
	l.cfg.Checkpoint = ""
	require.Equal(t, []replication.Status{replication.Failed}, outcome("billing"))
}

func TestAFilterThatIsNotUnderstoodIsNotReady(t *testing.T) {
	s, l := newConnect(t, 1)
	s.connectors["east-west.source"].config["topics"] = `(?!local).*`
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	states := map[string]replication.MirrorState{}
	for _, m := range ms {
		states[m.Topic] = m.State
	}
	require.Equal(t, map[string]replication.MirrorState{"orders": replication.MirrorActive, "payments.in": replication.MirrorUnknown, "local": replication.MirrorUnknown}, states,
		"stored offsets prove a mirror")
}

func TestDedicatedModeIsRefused(t *testing.T) {
	missing := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(404)
		return true
	}
	s, l := newConnect(t, 1)
	s.hook = missing
	_, err := l.Status(t.Context())
	require.ErrorIs(t, err, fault.ErrUnreachable, "a worker that is starting answers like this as well")
	require.ErrorContains(t, err, "is no Kafka Connect, or one that is starting")
	require.ErrorContains(t, err, "dedicated mode")

	dedicated := func(c *Config) { c.To = &kafkaCluster{topics: []string{"mm2-configs.east.internal"}} }
	s, l = newConnect(t, 1, dedicated)
	for name := range s.connectors {
		delete(s.connectors, name)
	}
	_, err = l.Status(t.Context())
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorContains(t, err, "the target holds mm2-configs.east.internal, as MirrorMaker 2 in dedicated mode makes it")

	s, l = newConnect(t, 1, dedicated)
	s.workers[0].Close()
	_, err = l.Mirrors(t.Context())
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.ErrorContains(t, err, "dedicated mode")
}

// compared notes what it was opened with and asked.
type compared struct {
	names     Names
	committed bool
}

func (c *compared) Translate(_ context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return groups, nil
}
func (c *compared) LastKnown(_ context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return groups, nil
}
func (c *compared) Drained(context.Context, []replication.Ends) ([]replication.Outcome, error) {
	return []replication.Outcome{{Name: "orders-0", Status: replication.OK}}, nil
}

func (c *compared) Boundaries(_ context.Context, sealed []Sealed) (out []Boundary, err error) {
	for _, s := range sealed {
		if s.Offset == replication.Unknown {
			err = &replication.Partial{Op: "find how far", Failed: []replication.Outcome{{Name: s.Name()}}, Err: fault.ErrConflict}
			continue
		}
		out = append(out, Boundary{Partition: s.Partition, Reached: s.Offset + 8, Next: s.Offset + 9})
	}
	return out, err
}

func TestP18_BoundariesAreFoundFromWhatWasStored(t *testing.T) {
	_, l := newConnect(t, 1, func(cfg *Config) { cfg.Compare = func(Names, bool) Records { return &compared{} } })
	mark := func(partition int32, replicated int64) replication.Mark {
		return replication.Mark{Boundary: replication.Unknown, Position: replication.Position{Partition: replication.Partition{Topic: "orders", Partition: partition}, Replicated: replicated}}
	}
	found, err := l.Boundaries(t.Context(), []replication.Mark{mark(0, 91), mark(1, replication.Unknown)})
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "orders-1")
	require.Equal(t, []int64{99, replication.Unknown}, []int64{found[0].Boundary, found[1].Boundary}, "90 was stored; what was left open stays open")
}

func TestRecordsAreComparedFromWhereTheConnectorKeepsItsOffsetSyncs(t *testing.T) {
	c := &compared{}
	s, l := newConnect(t, 1, func(cfg *Config) {
		cfg.Compare = func(n Names, committed bool) Records { c.names, c.committed = n, committed; return c }
	})
	for range 3 {
		out, err := l.Drained(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, out, 1)
	}
	_, err := l.Translate(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, SyncsOnTarget, c.names.Syncs)
	require.True(t, c.committed)
	require.Len(t, s.calls, 2, "its configuration and status, once")

	s.workers[0].Close() // Connect is gone with the source: checkpoints need neither
	_, err = l.LastKnown(t.Context(), nil)
	require.NoError(t, err)
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no worker":     func(c *Config) { c.Connect = nil },
		"no address":    func(c *Config) { c.Connect = []string{"connect:8083"} },
		"a password":    func(c *Config) { c.Connect = []string{"https://u:" + canary + "@host"} },
		"dots":          func(c *Config) { c.Source = ".." },
		"one alias":     func(c *Config) { c.Names.Target = "east" },
		"no policy":     func(c *Config) { c.Names.Policy = "other" },
		"no principals": func(c *Config) { c.Data = "" },
	} {
		cfg := Config{Workers: Workers{Connect: []string{"https://connect:8083"}}, Source: "s", Names: Names{Source: "east", Target: "west", Policy: PolicyIdentity},
			Data: "User:a", Admin: "User:a", To: &kafkaCluster{}, Compare: func(Names, bool) Records { return nil }}
		_, err := New(cfg)
		require.NoError(t, err)
		change(&cfg)
		_, err = New(cfg)
		require.ErrorIs(t, err, fault.ErrInvalid, name)
		require.NotContains(t, err.Error(), canary)
	}
}

func TestTenThousandPartitionsTakeOneRequest(t *testing.T) {
	var names []string
	s, l := newConnect(t, 1, func(cfg *Config) {
		for i := range 1000 {
			names = append(names, fmt.Sprintf("payments.a-rather-long-name-of-a-topic-%d", i))
		}
		cfg.To = &kafkaCluster{topics: names}
	})
	c := s.connectors["east-west.source"]
	for _, name := range names {
		for p := range 10 {
			c.offsets = append(c.offsets, stored(name, p, 1<<40))
		}
	}
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Len(t, ms, 1000)
	require.Len(t, ms[999].Fetched, 10)
	require.Len(t, s.calls, 2)
}
