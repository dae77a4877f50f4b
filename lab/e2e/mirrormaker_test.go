package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/replication"
	"switchback/workflows"
)

// onMirrors is a lab on Apache Kafka and MirrorMaker 2 with worker and traffic.
func onMirrors(t *testing.T, changes ...func(*setup.Options)) *stage {
	t.Helper()
	return up(t, append([]func(*setup.Options){onApache(t)}, changes...)...)
}

func policy(name string) func(*setup.Options) { return func(o *setup.Options) { o.Policy = name } }

// denials are the ACLs of a cluster that deny somebody something, but for the probe's.
func (p *play) denials(cluster string) []string {
	p.t.Helper()
	return slices.DeleteFunc(p.stage.acls(p.t, cluster), func(acl string) bool {
		return !strings.HasPrefix(acl, "DENY") || strings.Contains(acl, "switchback.probe")
	})
}

// A run over real brokers and a real mirror, first one that comes back from the middle of the window, then one that goes
// to its end: nothing lost, nothing read twice, and a report that the ledger agrees with, where offsets differ between the
// clusters. Every connection is encrypted: clients, brokers, Connect and what its connectors do, its REST API.
func TestPlannedFailoverOverMirrorMaker(t *testing.T) {
	s := onMirrors(t, edited(hasty), encrypted)
	p := s.play(t, "orders")
	p.flows("east")
	require.Empty(t, p.denials("west"))

	run, let := p.start("comes-back"), member(p)
	p.reaches(run, string(workflows.HandOverOffsets))
	p.order(run, workflows.UpdateAbort)
	let()
	back := p.ends(run, workflows.Aborted)
	require.Empty(t, p.denials("east"), "every DENY of the run is gone")
	require.Empty(t, p.denials("west"), "every DENY of the run is gone")
	p.flows("east")

	out := p.ends(p.start("goes-over"), workflows.Completed)
	p.flows("west")
	require.ElementsMatch(t, p.fence(), p.denials("east"))
	for _, acl := range p.denials("west") {
		require.NotContains(t, acl, "User:*", "P5: no copy of the fence came over")
		require.Contains(t, acl, "User:mm2-", "the seal holds the mirror alone")
	}
	link := s.mirrorMaker(t, setup.Identity)
	settles(t, link, replication.MirrorStopped)
	v := p.clean("west", back, out)
	require.True(t, v.Agrees)
	for _, o := range p.report(out).Offsets {
		require.Equal(t, replication.ProofExact, o.Proof, "%s %s-%d", o.Group, o.Topic, o.Partition)
	}
	t.Logf("switch window of the producers %.2f s, of the consumers %.2f s", *v.SwitchWindowSeconds, *v.ConsumerWindowSeconds)
}

// The default policy renames topics: clients are told the prefix.
func TestPlannedFailoverOverRenamedMirrors(t *testing.T) {
	s := onMirrors(t, policy(setup.Default))
	p := s.play(t, "orders")
	p.flows("east")
	out := p.ends(p.start("renamed"), workflows.Completed)
	p.flows("west")
	require.True(t, p.clean("west", out).Agrees)
}
