package activities

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

// Two workloads leave by the same connectors. Who comes back first leaves them denied to copy ACLs while the other one's fence stands,
// and who comes back last lifts that.
func TestP05_SyncsStayDeniedWhileAFenceOfAnotherWorkloadStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link.seals = true
	denied := w.link.Denials(replication.DenySyncs, nil)[0]
	_, err := w.suspend()
	require.NoError(t, err)
	require.Contains(t, w.denies("west"), denied.String())
	stands := func(runbook, site string, acls ...replication.ACL) {
		require.NoError(t, w.recordsNow().put(t.Context(), map[string]any{aclsKey(runbook, site): OwnedACLs{Run: "r", ACLs: acls}}))
	}
	lift := func(runbook string) {
		in := FenceInput{Guard: w.guard(), Route: w.route(), Topics: w.runbook().Topics}
		in.Guard.Run.Runbook = runbook
		_, err := run[FenceResult](w, (*Fences)(nil).Lift, in)
		require.NoError(t, err)
	}
	byName := replication.TopicFence([]string{"payments"})[0]
	byName.Principal = "User:checkout"
	stands("payments", "east", byName) // no fence: its standby is closed to a client
	stands("returns", "east", replication.TopicFence([]string{"returns"})...)
	for range 2 { // a second try gives nothing away again
		lift("orders")
		require.Contains(t, w.denies("west"), denied.String(), "it would copy the fence of returns to where its clients are")
	}
	ours, err := w.recordsNow().owned(t.Context(), "orders", "west")
	require.NoError(t, err)
	require.Empty(t, ours.ACLs)

	lift("returns")
	require.NotContains(t, w.denies("west"), denied.String())
}
