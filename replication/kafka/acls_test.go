package kafka

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

func count(outcomes []replication.Outcome, s replication.Status) int {
	n := 0
	for _, o := range outcomes {
		if o.Status == s {
			n++
		}
	}
	return n
}

// One broker whose authorizer lags behind means "not fenced", and is named; so does one that does not answer.
func TestP06_EveryBrokerAnswersForItself(t *testing.T) {
	fence := replication.TopicFence([]string{"a", "b"})
	t.Run("all say so", func(t *testing.T) {
		c := as(t, fake(t), admin)
		none, err := c.ACLsOnEveryBroker(short(t), fence, false)
		require.NoError(t, err)
		require.Equal(t, 3, count(none, replication.OK), "absent everywhere")
		require.NoError(t, c.CreateACLs(short(t), fence))
		there, err := c.ACLsOnEveryBroker(short(t), fence, true)
		require.NoError(t, err)
		require.Equal(t, 3, count(there, replication.OK))
		gone, err := c.ACLsOnEveryBroker(short(t), fence, false)
		require.NoError(t, err)
		require.Equal(t, 3, count(gone, replication.Pending))
		require.Contains(t, gone[0].Reason, "2 of 2 still stand")
	})
	t.Run("one lags behind", func(t *testing.T) {
		f := fake(t)
		c := as(t, f, admin)
		require.NoError(t, c.CreateACLs(short(t), fence))
		onNode(f, kmsg.DescribeACLs, 1, func(req kmsg.Request) (kmsg.Response, error, bool) {
			return req.ResponseKind(), nil, true
		})
		outcomes, err := c.ACLsOnEveryBroker(short(t), fence, true)
		require.NoError(t, err)
		require.Equal(t, 2, count(outcomes, replication.OK))
		require.Equal(t, replication.Pending, outcomes[1].Status)
		require.Contains(t, outcomes[1].Name, "broker 1 at 127.0.0.1:")
		require.Contains(t, outcomes[1].Reason, "2 of 2 are not there yet")
	})
	t.Run("one does not answer", func(t *testing.T) {
		f := fake(t)
		c := as(t, f, admin)
		require.NoError(t, c.CreateACLs(short(t), fence))
		onNode(f, kmsg.DescribeACLs, 2, func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("cut"), true
		})
		for _, present := range []bool{true, false} {
			outcomes, err := c.ACLsOnEveryBroker(short(t), fence, present)
			require.NoError(t, err)
			require.Equal(t, replication.Unclear, outcomes[2].Status, "silence is neither yes nor no")
		}
	})
	t.Run("one refuses", func(t *testing.T) {
		f := fake(t)
		c := as(t, f, admin)
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, Nodes: []int32{0}, Err: kerr.ClusterAuthorizationFailed, TopLevel: true, Count: -1})
		outcomes, err := c.ACLsOnEveryBroker(short(t), fence, false)
		require.NoError(t, err)
		require.Equal(t, replication.Failed, outcomes[0].Status)
	})
}

// Only what is named exactly goes; what merely resembles it belongs to somebody else.
func TestP04_DeleteTakesExactlyOurs(t *testing.T) {
	c := as(t, fake(t), admin)
	ours := replication.TopicFence([]string{"orders"})[0]
	others := []replication.ACL{}
	for _, change := range []func(*replication.ACL){
		func(a *replication.ACL) { a.Name = "orders.eu" },
		func(a *replication.ACL) { a.Name = "*" },
		func(a *replication.ACL) { a.Pattern = replication.PatternPrefixed },
		func(a *replication.ACL) { a.Principal = "User:checkout" },
		func(a *replication.ACL) { a.Host = "10.0.0.1" },
		func(a *replication.ACL) { a.Operation = replication.OpAll },
		func(a *replication.ACL) { a.Permission = replication.Allow },
		func(a *replication.ACL) { a.ResourceType = replication.ResourceGroup; a.Operation = "READ" },
		func(a *replication.ACL) { a.ResourceType = replication.ResourceTxnID },
	} {
		a := ours
		change(&a)
		others = append(others, a)
	}
	require.NoError(t, c.CreateACLs(short(t), append(others, ours)))
	require.NoError(t, c.CreateACLs(short(t), []replication.ACL{ours}), "twice is no error")
	require.NoError(t, c.DeleteACLs(short(t), []replication.ACL{ours}))
	require.NoError(t, c.DeleteACLs(short(t), []replication.ACL{ours}), "gone already is no error")
	left, err := c.ACLs(short(t))
	require.NoError(t, err)
	require.ElementsMatch(t, others, left)

	for _, word := range []string{"ANY", "", "MATCH", "?"} {
		for _, change := range []func(*replication.ACL){
			func(a *replication.ACL) { a.Operation = word }, func(a *replication.ACL) { a.Pattern = word },
			func(a *replication.ACL) { a.ResourceType = word }, func(a *replication.ACL) { a.Permission = word },
		} {
			a := ours
			change(&a)
			require.ErrorIs(t, c.DeleteACLs(short(t), []replication.ACL{a}), fault.ErrInvalid, "%+v", a)
		}
	}
	left, err = c.ACLs(short(t))
	require.NoError(t, err)
	require.ElementsMatch(t, others, left, "nothing vague was sent")
}

func TestManyACLs(t *testing.T) {
	c := as(t, fake(t), admin)
	topics := make([]string, 2*aclBatch+1)
	for i := range topics {
		topics[i] = fmt.Sprintf("topic-%05d", i)
	}
	fence := replication.TopicFence(topics)
	require.NoError(t, c.CreateACLs(short(t), fence))
	outcomes, err := c.ACLsOnEveryBroker(short(t), fence, true)
	require.NoError(t, err)
	require.Equal(t, 3, count(outcomes, replication.OK))
	require.NoError(t, c.DeleteACLs(short(t), fence))
	outcomes, err = c.ACLsOnEveryBroker(short(t), fence, false)
	require.NoError(t, err)
	require.Equal(t, 3, count(outcomes, replication.OK))
}

func TestACLsNeedRights(t *testing.T) {
	f := fake(t)
	c := as(t, f, tool)
	require.ErrorIs(t, c.CreateACLs(short(t), replication.TopicFence([]string{"a"})), fault.ErrDenied)
	_, err := c.ACLs(short(t))
	require.ErrorIs(t, err, fault.ErrDenied)
	allow(t, as(t, f, admin), tool, replication.ResourceCluster, replication.ClusterName, "ALTER", "DESCRIBE")
	require.NoError(t, c.CreateACLs(short(t), replication.TopicFence([]string{"a"})))
	acls, err := c.ACLs(short(t))
	require.NoError(t, err)
	require.Len(t, acls, 3)
}

// The pure evaluation answers as the brokers' authorizer does.
func TestGrantsAgreeWithEvaluation(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "orders", "orders.eu", "hidden", "read-only"))
	boss := as(t, f, admin)
	allow(t, boss, client, replication.ResourceTopic, "orders", "READ", "WRITE")
	allow(t, boss, client, replication.ResourceTopic, "read-only", "READ", "ALTER_CONFIGS")
	allow(t, boss, client, replication.ResourceGroup, "billing", "READ")
	allow(t, boss, client, replication.ResourceGroup, "not-born", "READ")
	allow(t, boss, client, replication.ResourceCluster, replication.ClusterName, "IDEMPOTENT_WRITE", "DESCRIBE")
	require.NoError(t, boss.CreateACLs(short(t), []replication.ACL{
		{ResourceType: "TOPIC", Pattern: "PREFIXED", Name: "orders.", Principal: "User:*", Host: "*", Operation: "ALL", Permission: "ALLOW"},
		{ResourceType: "TOPIC", Pattern: "LITERAL", Name: "orders", Principal: "User:*", Host: "*", Operation: "WRITE", Permission: "DENY"},
	}))
	cl := raw(t, f, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"))
	eventually(t, "group billing", func() bool { g := f.GroupInfo("billing"); return g != nil && len(g.Members) == 1 })
	defer cl.Close()

	acls, err := boss.ACLs(short(t))
	require.NoError(t, err)
	g, err := as(t, f, client).Grants(short(t), []string{"orders", "orders.eu", "hidden", "read-only"}, []string{"billing", "not-born", "foreign"})
	require.NoError(t, err)
	for topic, ops := range g.Topics {
		for _, op := range []string{"READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"} {
			r := replication.Request{Principal: "User:" + client, Host: "127.0.0.1", ResourceType: "TOPIC", Name: topic, Operation: op}
			require.Equal(t, slices.Contains(ops, op), replication.Allowed(acls, r), "%s on %s", op, topic)
		}
	}
	require.Equal(t, []string{"DESCRIBE", "READ"}, g.Topics["orders"], "the fence holds")
	require.Empty(t, g.Topics["hidden"])
	require.Contains(t, g.Topics, "hidden")
	require.Equal(t, []string{"DESCRIBE", "READ"}, g.Groups["billing"])
	require.Equal(t, []string{"DESCRIBE", "READ"}, g.Groups["not-born"], "a group of the standby does not exist yet")
	require.Empty(t, g.Groups["foreign"])
	require.Contains(t, g.Groups, "foreign")
	require.Equal(t, []string{"DESCRIBE", "IDEMPOTENT_WRITE"}, g.Cluster)
}

func TestP10_WhoIsHeldByNoACLIsFound(t *testing.T) {
	f := fake(t)
	boss := as(t, f, admin)
	held, free := "User:"+client, "User:"+admin
	_, err := boss.SuperUser(short(t), as(t, f, client), held)
	require.ErrorIs(t, err, fault.ErrNotFound, "nothing is proven without the topic")
	require.NoError(t, boss.EnsureProbe(short(t), held))
	require.NoError(t, boss.EnsureProbe(short(t), held), "twice is no error")

	super, err := boss.SuperUser(short(t), as(t, f, client), held)
	require.NoError(t, err)
	require.False(t, super)
	_, err = boss.SuperUser(short(t), boss, free)
	require.ErrorIs(t, err, fault.ErrNotFound, "nothing is proven without the DENY")
	require.NoError(t, boss.EnsureProbe(short(t), free))
	super, err = boss.SuperUser(short(t), boss, free)
	require.NoError(t, err)
	require.True(t, super)
}
