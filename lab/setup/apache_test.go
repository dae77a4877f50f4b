package setup_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"switchback/lab/setup"
)

func needsApache(t *testing.T) {
	t.Helper()
	if missing := setup.Missing(setup.Options{Kafka: setup.Apache}); missing != "" {
		t.Skip(missing)
	}
}

func TestMirrorMaker(t *testing.T) {
	needsApache(t)
	o := servers(t, func(o *setup.Options) { o.Kafka, o.Link, o.Dir = setup.Apache, setup.MirrorMaker, "/tmp/apache-try/lab" })
	lab := up(t, o)
	require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	eventually(t, func() bool { return endOf(t, lab, "west", "orders.00") == 1 }, "the record is mirrored")
}
