package mirrormaker

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

// back is the other direction's link, on an eastern Connect cluster without connectors.
func back(t *testing.T, change ...func(*Config)) (*connect, *Link) {
	t.Helper()
	s, l := newConnect(t, 1, append([]func(*Config){func(c *Config) {
		c.Source, c.Checkpoint, c.Heartbeat = "west-east.source", "west-east.checkpoint", "west-east.heartbeat"
		c.Names = Names{Source: "west", Target: "east", Policy: PolicyIdentity}
		c.From, c.To = c.To, &kafkaCluster{id: "cluster-east", topics: []string{"orders", "payments.in"}}
	}}, change...)...)
	s.connectors, s.cluster = map[string]*connector{}, "cluster-east"
	return s, l
}

// The connectors of the way back are those of the way there with both clusters exchanged; what was recovered from a cluster is
// not mirrored to it again (P26), and none of them runs before its offsets are set (P27).
func TestP26_ConnectorsOfTheWayBackLeaveOutWhatWasRecovered(t *testing.T) {
	s, forward := newConnect(t, 1)
	s.connectors["east-west.heartbeat"].config["source.cluster.alias"] = "east"
	s.connectors["east-west.heartbeat"].config["target.cluster.alias"] = "west"
	s.connectors["east-west.heartbeat"].config["source.cluster.bootstrap.servers"] = "east:9092"
	s.connectors["east-west.heartbeat"].config["target.cluster.bootstrap.servers"] = "west:9092"
	s.connectors["east-west.source"].config["transforms"] = "mine"
	s.connectors["east-west.source"].config["transforms.mine.type"] = smtFilter
	s.connectors["east-west.source"].config["target.cluster.sasl.jaas.config"] = "of west " + canary
	s.connectors["east-west.source"].config["producer.override.bootstrap.servers"] = "west:9092"
	b, l := back(t)
	out, err := l.CreateStopped(t.Context(), forward, "cluster-east")
	require.NoError(t, err)
	require.Len(t, out, 3)
	require.NotContains(t, fmt.Sprintf("%+v", out), canary)

	got := b.connectors["west-east.source"]
	want := maps.Clone(s.connectors["east-west.source"].config)
	for key, value := range map[string]string{
		"name": "west-east.source", "source.cluster.alias": "west", "target.cluster.alias": "east",
		"source.cluster.bootstrap.servers": "west:9092", "target.cluster.bootstrap.servers": "east:9092", "producer.override.bootstrap.servers": "east:9092",
		"source.cluster.sasl.jaas.config": "of west " + canary, "target.cluster.sasl.jaas.config": jaas,
		"target.cluster.ssl.keystore.password": canary,
		"transforms":                           "mine,switchbackRecovered", "predicates": "switchbackRecovered",
		"transforms.switchbackRecovered.type":      "org.apache.kafka.connect.transforms.Filter",
		"transforms.switchbackRecovered.predicate": "switchbackRecovered",
		"predicates.switchbackRecovered.type":      "org.apache.kafka.connect.transforms.predicates.HasHeaderKey",
		"predicates.switchbackRecovered.name":      "switchback.from.cluster-east",
	} {
		want[key] = value
	}
	delete(want, "source.cluster.ssl.keystore.password")
	require.Equal(t, want, got.config)
	for _, name := range l.connectors() {
		require.Equal(t, "STOPPED", b.connectors[name].state)
	}
	require.NotContains(t, b.connectors["west-east.checkpoint"].config, "transforms", "checkpoints are no records of the workload")

	again, err := l.CreateStopped(t.Context(), forward, "cluster-east")
	require.NoError(t, err)
	for _, o := range again {
		require.Equal(t, "it was there, stopped", o.Reason)
	}
	require.NoError(t, l.PatchOffsets(t.Context(), map[replication.Partition]int64{{Topic: "orders"}: 7, {Topic: "orders", Partition: 1}: 0}))
	stored, err := l.client.Offsets(t.Context(), "west-east.source")
	require.NoError(t, err)
	require.Equal(t, []Stored{{"west", replication.Partition{Topic: "orders"}, 6}}, stored)
}

// One that somebody had made already, for the last time that the workload went home, gets the filter that it lacks.
func TestP26_AStoppedConnectorGetsTheFilter(t *testing.T) {
	_, forward := newConnect(t, 1)
	b, l := back(t, func(c *Config) { c.Checkpoint, c.Heartbeat = "", "" })
	config := sourceConfig()
	config["source.cluster.alias"], config["target.cluster.alias"], config["topics"] = "west", "east", "orders"
	b.connectors["west-east.source"] = &connector{config: config, state: "STOPPED"}
	out, err := l.CreateStopped(t.Context(), forward, "cluster-east")
	require.NoError(t, err)
	require.Contains(t, out[0].Reason, "leaves out recovered records from now on")
	got := b.connectors["west-east.source"]
	require.Equal(t, "switchback.from.cluster-east", got.config["predicates.switchbackRecovered.name"])
	require.Equal(t, "orders", got.config["topics"], "the rest is its owner's")
	require.Equal(t, "STOPPED", got.state)
}

func TestWhatCannotBeTurnedRoundIsRefused(t *testing.T) {
	for want, change := range map[string]func(forward, back *connect, l *Link){
		"other names on each cluster":             func(_, _ *connect, l *Link) { l.cfg.Names.Policy = PolicyDefault },
		"aliases of both directions do not agree": func(_, _ *connect, l *Link) { l.cfg.Names.Target = "north" },
		"it is RUNNING": func(_, b *connect, l *Link) {
			b.connectors[l.cfg.Source] = &connector{config: sourceConfig(), state: "RUNNING"}
		},
		"does not say source.cluster.bootstrap.servers": func(f, _ *connect, _ *Link) {
			delete(f.connectors["east-west.source"].config, "target.cluster.bootstrap.servers")
		},
		"writes to brokers that are not its target's": func(f, _ *connect, _ *Link) {
			f.connectors["east-west.source"].config["producer.override.bootstrap.servers"] = "north:9092"
		},
		"read the configuration of connector east-west.sour": func(f, _ *connect, _ *Link) { delete(f.connectors, "east-west.source") },
		"Invalid value *** for configuration source.cluster.sasl.jaas.config": func(_, b *connect, _ *Link) {
			b.refuses = "source.cluster.sasl.jaas.config"
		},
	} {
		t.Run(want, func(t *testing.T) {
			f, forward := newConnect(t, 1)
			b, l := back(t)
			change(f, b, l)
			before := len(b.connectors)
			_, err := l.CreateStopped(t.Context(), forward, "cluster-east")
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), canary)
			require.Len(t, b.connectors, before, "nothing is made")
		})
	}
	_, l := back(t)
	_, err := l.CreateStopped(t.Context(), nil, "cluster-east")
	require.ErrorIs(t, err, fault.ErrInvalid)
}
