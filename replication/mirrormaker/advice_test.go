package mirrormaker

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

// levels are the worst level of each check.
func levels(t *testing.T, l *Link) (worst map[string]string, means string) {
	t.Helper()
	list, err := l.Advice(t.Context())
	require.NoError(t, err)
	rank := map[string]int{fine: 1, warning: 2, problem: 3}
	worst = map[string]string{}
	for _, a := range list {
		require.NotContains(t, a.Means+a.Do, canary)
		require.True(t, a.Level == fine || a.Do != "", "%s says what to do", a.Check)
		if rank[a.Level] > rank[worst[a.Check]] {
			worst[a.Check] = a.Level
		}
		means += a.Means + "\n"
	}
	return worst, means
}

func TestAGoodLinkGetsNoAdvice(t *testing.T) {
	_, l := newConnect(t, 2)
	worst, means := levels(t, l)
	require.Equal(t, map[string]string{"connectors": fine, "offset syncs": fine, "checkpoints": fine, "read_committed": fine, "exactly-once": fine,
		"connect workers": fine, "principals": fine, "mirror's grants": fine}, worst, means)
}

func TestAdvice(t *testing.T) {
	source := func(key, value string) func(*connect, *Link) {
		return func(s *connect, _ *Link) {
			if value == "" {
				delete(s.connectors["east-west.source"].config, key)
				return
			}
			s.connectors["east-west.source"].config[key] = value
		}
	}
	for _, tc := range []struct {
		name         string
		change       func(*connect, *Link)
		check, level string
		says         string
	}{
		{"P17", source("errors.tolerance", "all"), "errors.tolerance", problem, "counted as mirrored and lost"},
		{"P19", source("source.consumer.isolation.level", ""), "read_committed", warning, "uncommitted"},
		{"P37", func(s *connect, _ *Link) { s.exactly = false }, "exactly-once", warning, "twice"},
		{"P20", source("topics", ".*"), "filter", problem, "switchback.marks"},
		{"json", source("value.converter", "org.apache.kafka.connect.json.JsonConverter"), "converters", problem, "JsonConverter"},
		{"the worker's converter", source("header.converter", ""), "converters", warning, "header.converter is not set"},
		{"a transform", func(s *connect, l *Link) {
			source("transforms", "mask")(s, l)
			source("transforms.mask.type", "org.example.Mask")(s, l)
		}, "transforms", problem, "mask (org.example.Mask)"},
		{"a filter", func(s *connect, l *Link) {
			source("transforms", "own")(s, l)
			source("transforms.own.type", smtFilter)(s, l)
		}, "transforms", warning, "leaves out records"},
		{"no grant for offset syncs", func(_ *connect, l *Link) { l.cfg.To.(*kafkaCluster).acls = ungranted("WRITE", "mm2-offset-syncs.") }, "mirror's grants", warning, "no grant to write to mm2-offset-syncs.east.internal"},
		{"no grant for configs", func(_ *connect, l *Link) { l.cfg.To.(*kafkaCluster).acls = ungranted("ALTER_CONFIGS", "payments.in") }, "mirror's grants", warning, "such as payments.in"},
		{"syncs on the source", source("offset-syncs.topic.location", ""), "offset syncs", warning, "gone with it"},
		{"no syncs", source("emit.offset-syncs.enabled", "false"), "offset syncs", warning, "no anchors"},
		{"another policy", source("replication.policy.class", ""), "connectors", problem, "DefaultReplicationPolicy"},
		{"another alias", source("source.cluster.alias", "ost"), "connectors", problem, "source.cluster.alias=ost"},
		{"another class", source("connector.class", checkpointClass), "connectors", problem, "connector.class"},
		{"disabled", source("enabled", "false"), "connectors", problem, "enabled=false"},
		{"a filter class", source("topic.filter.class", "org.example.F"), "connectors", warning, "topic.filter.class"},
		{"no heartbeat", func(s *connect, _ *Link) { delete(s.connectors, "east-west.heartbeat") }, "connectors", problem, "east-west.heartbeat"},
		{"no checkpoint", func(_ *connect, l *Link) { l.cfg.Checkpoint = "" }, "checkpoints", warning, "nobody knows"},
		{"no checkpoints", func(s *connect, _ *Link) {
			s.connectors["east-west.checkpoint"].config["emit.checkpoints.enabled"] = "false"
		}, "checkpoints", warning, "nobody knows"},
		{"a worker down", func(s *connect, _ *Link) { s.workers[1].Close() }, "connect workers", warning, "does not answer"},
		{"elsewhere", func(s *connect, _ *Link) { s.cluster = "cluster-north" }, "connect workers", problem, "cluster-north"},
		{"elsewhere by override", func(s *connect, l *Link) {
			s.cluster = "cluster-north"
			source("producer.override.bootstrap.servers", "west:9092")(s, l)
		}, "connect workers", warning, "west:9092"},
		{"P10: another login", source("target.cluster.sasl.jaas.config", `x required username="root" password="`+canary+`";`), "principals", problem, "User:root"},
		{"P10: another producer", source("producer.override.sasl.jaas.config", `x required username="root" password="`+canary+`";`), "principals", problem, "User:root"},
		{"P10: a super user", func(_ *connect, l *Link) { l.cfg.To.(*kafkaCluster).acls = nil }, "principals", problem, "super user"},
		{"no ACLs to be read", func(_ *connect, l *Link) { l.cfg.To = &noACLs{l.cfg.To} }, "principals", warning, "cannot be told"},
		{"a name", func(s *connect, l *Link) {
			source("topics", "orders|device-.*")(s, l)
			l.cfg.From.(*kafkaCluster).topics = []string{"device-heartbeats"}
		}, "names", warning, "device-heartbeats"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, l := newConnect(t, 2)
			tc.change(s, l)
			worst, means := levels(t, l)
			require.Equal(t, tc.level, worst[tc.check], means)
			require.Contains(t, means, tc.says)
			for check, level := range worst {
				if check != tc.check && tc.name != "P20" && tc.name != "P19" {
					require.Equal(t, fine, level, check)
				}
			}
		})
	}
}

// noACLs lets nobody read them.
type noACLs struct{ Cluster }

func (n *noACLs) ACLs(context.Context) ([]replication.ACL, error) {
	return nil, errors.New("not authorized")
}
