package setup_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
)

func TestWhatDoesNotGoTogether(t *testing.T) {
	for name, c := range map[string]struct {
		options setup.Options
		want    string
	}{
		"MirrorMaker without brokers": {setup.Options{Link: setup.MirrorMaker}, "MirrorMaker 2 runs on Kafka Connect, which needs real brokers: choose Kafka apache with it"},
		"a policy of nobody":          {setup.Options{Kafka: setup.Apache, Policy: setup.Default}, "policy default is MirrorMaker's"},
		"two brokers":                 {setup.Options{Kafka: setup.Apache, Brokers: 2}, "2 brokers are no cluster of Apache Kafka here: choose 1 or 3"},
		"another Kafka":               {setup.Options{Kafka: "redpanda"}, `there is no kind of Kafka "redpanda": choose kfake or apache`},
		"another link":                {setup.Options{Link: "replicator"}, `there is no link "replicator"`},
		"another policy":              {setup.Options{Policy: "legacy"}, `there is no policy "legacy"`},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Dir = t.TempDir()
			_, err := setup.Open(t.Context(), c.options)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, setup.Build(t.Context(), c.options), c.want)
		})
	}
}

// A folder keeps what it was made with: whoever says nothing gets that, and whoever says otherwise is told.
func TestAFolderKeepsItsKind(t *testing.T) {
	made := setup.Options{Dir: t.TempDir(), Kafka: setup.Apache, Link: setup.MirrorMaker, Policy: setup.Default, Brokers: 3}
	first, err := setup.Open(t.Context(), made)
	require.NoError(t, err)
	again, err := setup.Open(t.Context(), setup.Options{Dir: made.Dir})
	require.NoError(t, err)
	require.Equal(t, setup.MirrorMaker, again.Options().Link)
	require.Equal(t, []string{"east.orders.00"}, again.TopicNames("west", setup.Workload{Name: "orders", Topics: 1}))
	require.Equal(t, []string{"orders.00"}, again.TopicNames("east", setup.Workload{Name: "orders", Topics: 1}))
	require.Equal(t, []string{"kafka-west-1", "kafka-west-2", "kafka-west-3"}, again.BrokerProcesses("west"))
	require.Equal(t, first.Bootstrap("east"), again.Bootstrap("east"))
	_, err = setup.Open(t.Context(), setup.Options{Dir: made.Dir, Kafka: setup.Kfake})
	require.ErrorContains(t, err, "the lab in this folder was made with apache, not kfake: choose another folder, or remove this one")

	old, err := setup.Open(t.Context(), setup.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	require.Equal(t, []string{"west"}, old.BrokerProcesses("west"))
	require.Equal(t, setup.Identity, old.Options().Policy)
}
