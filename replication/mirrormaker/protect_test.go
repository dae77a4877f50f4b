package mirrormaker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

func wanted() replication.Protection {
	return replication.Protection{Topics: []replication.Topic{{Name: "orders", Partitions: 2}, {Name: "payments.in", Partitions: 2}}, Groups: []string{"billing", "shipping-1"},
		Holding: []replication.Partition{{Topic: "orders"}, {Topic: "orders", Partition: 1}}}
}

// whole makes the double's connectors need nothing.
func protected(s *connect) {
	s.connectors["east-west.source"].config["topics.exclude"] = `switchback\..*`
	s.connectors["east-west.checkpoint"].config["topics"] = `orders, payments\..*`
	s.connectors["east-west.checkpoint"].config["topics.exclude"] = `switchback\..*`
	s.connectors["east-west.checkpoint"].config["sync.group.offsets.enabled"] = "true"
}

// Each line of the table breaks one thing: what is shown, what mending it does, and that nothing is left then.
func TestDifferences(t *testing.T) {
	source, checkpoint := "east-west.source", "east-west.checkpoint"
	set := func(name, key, value string) func(*connect, *replication.Protection) {
		return func(s *connect, _ *replication.Protection) { s.connectors[name].config[key] = value }
	}
	state := func(name, state string, tasks ...object) func(*connect, *replication.Protection) {
		return func(s *connect, _ *replication.Protection) {
			s.connectors[name].state, s.connectors[name].tasks = state, tasks
		}
	}
	for name, tc := range map[string]struct {
		breaks  func(*connect, *replication.Protection)
		shown   string // the only difference; empty for none
		do      string // where it cannot be mended
		config  map[string]string
		of      string
		running string // connector that runs at the end
	}{
		"nothing": {breaks: func(*connect, *replication.Protection) {}},
		"a topic outside of the pattern": {breaks: set(source, "topics", "orders"), shown: `mirror east-west.source topics is orders, should be orders,payments\.in`,
			of: source, config: map[string]string{"topics": `orders,payments\.in`, "target.cluster.sasl.jaas.config": jaas}},
		"an excluded topic":               {breaks: set(source, "topics.exclude", `switchback\..*, payments\..*`), shown: "mirror east-west.source topics", do: "payments.in is excluded"},
		"a pattern that Java alone knows": {breaks: set(source, "topics", "(?=x)y"), shown: "mirror east-west.source topics", do: "is not understood"},
		"own topics are mirrored (P20)": {breaks: func(s *connect, _ *replication.Protection) {
			s.connectors[source].config["topics"], s.connectors[source].config["topics.exclude"] = ".*", "x"
		}, shown: "connector east-west.source topics.exclude is x", of: source, config: map[string]string{"topics.exclude": `x, switchback\..*`}},
		"a group outside of the pattern": {breaks: set(checkpoint, "groups", "billing"), shown: `offset sync east-west.checkpoint groups is billing, should be billing,shipping-1`,
			of: checkpoint, config: map[string]string{"groups": `billing,shipping-1`}},
		"no checkpoints":               {breaks: set(checkpoint, "emit.checkpoints.enabled", "false"), shown: "emit.checkpoints.enabled is false", of: checkpoint, config: map[string]string{"emit.checkpoints.enabled": "true"}},
		"offset sync off":              {breaks: set(checkpoint, "sync.group.offsets.enabled", "false"), shown: "sync.group.offsets.enabled is false", of: checkpoint, config: map[string]string{"sync.group.offsets.enabled": "true"}},
		"tolerant of everything (P17)": {breaks: set(source, "errors.tolerance", "all"), shown: "errors.tolerance is all", of: source, config: map[string]string{"errors.tolerance": "none"}},
		"a converter":                  {breaks: set(source, "value.converter", "JsonConverter"), shown: "value.converter is JsonConverter", of: source, config: map[string]string{"value.converter": bytesConverter}},
		"uncommitted records":          {breaks: set(source, "source.consumer.isolation.level", ""), shown: "source.consumer.isolation.level", of: source, config: map[string]string{"source.consumer.isolation.level": "read_committed"}},
		"workers without exactly-once": {breaks: func(s *connect, _ *replication.Protection) { s.exactly = false }, shown: "connector east-west.source is at least once", do: "on the workers"},
		"another alias":                {breaks: set(source, "source.cluster.alias", "north"), shown: "source.cluster.alias=north", do: "correct the runbook"},
		"paused":                       {breaks: state(source, "PAUSED", taskOf(0, "PAUSED", "")), shown: "connector east-west.source is PAUSED", running: source},
		"a failed task":                {breaks: state(source, "RUNNING", taskOf(0, "FAILED", "boom")), shown: "is FAILED: boom", running: source},
		"a failed task behind a seal": {breaks: func(s *connect, w *replication.Protection) {
			state(source, "RUNNING", taskOf(0, "FAILED", "boom"))(s, w)
			w.Held = "a seal stands"
		}, shown: "is FAILED: boom", do: "a seal stands"},
		"a stopped checkpoint": {breaks: state(checkpoint, "STOPPED"), shown: "connector east-west.checkpoint is STOPPED", running: checkpoint},
		"no tasks yet":         {breaks: state(source, "RUNNING"), shown: "runs no tasks", do: "look again"},
		"a heartbeat that is gone": {breaks: func(s *connect, _ *replication.Protection) { delete(s.connectors, "east-west.heartbeat") }, shown: "connector east-west.heartbeat is not there",
			of: "east-west.heartbeat", running: "east-west.heartbeat",
			config: map[string]string{"connector.class": heartbeatClass, "source.cluster.bootstrap.servers": "east:9092", "target.cluster.sasl.jaas.config": jaas}},
		"a checkpoint that is gone": {breaks: func(s *connect, _ *replication.Protection) { delete(s.connectors, checkpoint) }, shown: "connector east-west.checkpoint is not there",
			of: checkpoint, running: checkpoint, config: map[string]string{"connector.class": checkpointClass, "groups": "billing,shipping-1", "sync.group.offsets.enabled": "true", "source.cluster.alias": "east"}},
		"nothing to make it after": {breaks: func(s *connect, _ *replication.Protection) {
			for _, n := range []string{source, checkpoint, "east-west.heartbeat"} {
				delete(s.connectors, n)
			}
		}, shown: "not there", do: "POST its configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newConnect(t, 1)
			protected(s)
			want := wanted()
			tc.breaks(s, &want)
			list, err := l.Differences(t.Context(), want)
			require.NoError(t, err)
			require.Zero(t, s.count("POST"), "a look changes nothing")
			if tc.shown == "" {
				require.Empty(t, list)
				return
			}
			require.NotEmpty(t, list)
			if name != "nothing to make it after" {
				require.Len(t, list, 1, "%v", list)
			}
			require.Contains(t, list[0].String(), tc.shown)
			if tc.do != "" {
				require.False(t, list[0].Mendable())
				require.Contains(t, list[0].Do, tc.do)
				return
			}
			require.True(t, list[0].Mendable(), list[0].Do)
			out, err := l.Mend(t.Context(), want, list)
			require.NoError(t, err)
			require.Equal(t, []replication.Outcome{{Name: list[0].ID(), Status: replication.OK}}, out)
			for key, value := range tc.config {
				require.Equal(t, value, s.connectors[tc.of].config[key], key)
			}
			if tc.running != "" {
				for range 4 {
					_, err := l.client.Connector(t.Context(), tc.running)
					require.NoError(t, err)
				}
				c, err := l.client.Connector(t.Context(), tc.running)
				require.NoError(t, err)
				require.Equal(t, Running, c.State)
			}
		})
	}
}

// A source connector that was stopped goes on from offsets that are older than what the target has: it is never resumed here, and
// one that is gone is made only where Connect remembers how far it was, on a workload that was never moved.
func TestP27_AMirrorIsNeverLetGoFromOldOffsets(t *testing.T) {
	const source = "east-west.source"
	t.Run("stopped", func(t *testing.T) {
		s, l := newConnect(t, 1)
		protected(s)
		s.connectors[source].state, s.connectors[source].tasks = "STOPPED", nil
		list, err := l.Differences(t.Context(), wanted())
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.False(t, list[0].Mendable())
		require.Contains(t, list[0].Do, "run failback")
	})
	t.Run("gone after a move", func(t *testing.T) {
		s, l := newConnect(t, 1)
		protected(s)
		delete(s.connectors, source)
		want := wanted()
		want.Moved = true
		list, err := l.Differences(t.Context(), want)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.False(t, list[0].Mendable())
	})
	for name, tc := range map[string]struct {
		remembered []object
		state      State
	}{
		"gone, and remembered":            {[]object{stored("orders", 0, 41), stored("orders", 1, 7)}, Running},
		"gone, and remembered in part":    {[]object{stored("orders", 0, 41)}, Stopped},
		"gone, and nothing is remembered": {nil, Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newConnect(t, 1)
			protected(s)
			delete(s.connectors, source)
			s.remembered = map[string][]object{source: tc.remembered}
			list, err := l.Differences(t.Context(), wanted())
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.True(t, list[0].Mendable(), list[0].Do)
			out, err := l.Mend(t.Context(), wanted(), list)
			require.NoError(t, err)
			for range 4 {
				_, _ = l.client.Connector(t.Context(), source)
			}
			c, err := l.client.Connector(t.Context(), source)
			require.NoError(t, err)
			require.Equal(t, tc.state, c.State)
			if tc.state == Stopped {
				require.Equal(t, replication.Failed, out[0].Status)
				require.Contains(t, out[0].Reason, "would be copied once more")
			}
			require.Equal(t, "read_committed", s.connectors[source].config["source.consumer.isolation.level"])
			require.NotContains(t, out[0].Reason, canary)
		})
	}
}

// Two settings of one connector cost one restart.
func TestSettingsOfOneConnectorGoInOneRequest(t *testing.T) {
	s, l := newConnect(t, 1)
	protected(s)
	s.connectors["east-west.checkpoint"].config["groups"] = "billing"
	s.connectors["east-west.checkpoint"].config["emit.checkpoints.enabled"] = "false"
	list, err := l.Differences(t.Context(), wanted())
	require.NoError(t, err)
	require.Len(t, list, 2)
	before := s.count("PUT")
	out, err := l.Mend(t.Context(), wanted(), list)
	require.NoError(t, err)
	require.Len(t, out, 2)
	require.Equal(t, 2, s.count("PUT")-before, "one asks whether it would do, one writes")
	left, err := l.Differences(t.Context(), wanted())
	require.NoError(t, err)
	require.Empty(t, left)
}
