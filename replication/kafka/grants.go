package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// ProbeTopic is one that nobody uses, and on which everything is denied to whoever is to be proven: who sees it all the
// same is held by no ACL (P10).
const ProbeTopic = "switchback.probe"

// Grants asks the brokers what this cluster's own login may do: open the cluster as a client and ask. The login itself is
// proven by it. A topic or group that the login may not even DESCRIBE has an empty list; a topic that does not exist is
// named in a *replication.Partial.
func (c *Cluster) Grants(ctx context.Context, topics, groups []string) (replication.Grants, error) {
	bad := partial{op: "read authorized operations"}
	g := replication.Grants{Topics: map[string][]string{}, Groups: map[string][]string{}}
	if err := c.clusterGrants(ctx, &g); err != nil {
		return g, err
	}
	if err := c.topicGrants(ctx, topics, &g, &bad); err != nil {
		return g, err
	}
	c.groupGrants(ctx, groups, &g, &bad)
	return g, bad.err(c)
}

func (c *Cluster) clusterGrants(ctx context.Context, g *replication.Grants) error {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, c.ask())
	if err == nil {
		err = coded(resp.ErrorCode, resp.ErrorMessage)
	}
	if errors.Is(err, kerr.ClusterAuthorizationFailed) {
		g.Cluster = []string{}
		return nil
	}
	if err != nil {
		return c.fail("read authorized operations of the cluster", err, reading)
	}
	g.Cluster = operations(resp.ClusterAuthorizedOperations)
	return nil
}

func (c *Cluster) topicGrants(ctx context.Context, topics []string, g *replication.Grants, bad *partial) error {
	if len(topics) == 0 {
		return nil
	}
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail("read authorized operations of topics", err, reading)
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case t.Topic == nil:
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			g.Topics[*t.Topic] = []string{}
		case err != nil && !errors.Is(err, kerr.LeaderNotAvailable):
			bad.add(*t.Topic, err)
		default:
			g.Topics[*t.Topic] = operations(t.AuthorizedOperations)
		}
	}
	return nil
}

func (c *Cluster) groupGrants(ctx context.Context, groups []string, g *replication.Grants, bad *partial) {
	if len(groups) == 0 {
		return
	}
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, true
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			for _, n := range shard.Req.(*kmsg.DescribeGroupsRequest).Groups {
				// Without DESCRIBE not even the coordinator is told.
				if errors.Is(shard.Err, kerr.GroupAuthorizationFailed) {
					g.Groups[n] = []string{}
				} else {
					bad.add(n, shard.Err)
				}
			}
			continue
		}
		for _, r := range shard.Resp.(*kmsg.DescribeGroupsResponse).Groups {
			switch err := coded(r.ErrorCode, r.ErrorMessage); {
			case errors.Is(err, kerr.GroupAuthorizationFailed):
				g.Groups[r.Group] = []string{}
			case r.AuthorizedOperations == math.MinInt32: // told only of groups that are there, and of this protocol
				if err == nil {
					err = kerr.GroupIDNotFound
				}
				bad.add(r.Group, err)
			default:
				g.Groups[r.Group] = operations(r.AuthorizedOperations)
			}
		}
	}
}

// operations reads the bit field in which brokers say them: bit n is the operation that the protocol numbers n.
func operations(bits int32) []string {
	ops := []string{}
	if bits == math.MinInt32 { // not asked for, or not known
		return ops
	}
	for n := range 31 {
		op := kmsg.ACLOperation(n)
		if name := op.String(); bits&(1<<n) != 0 && name != "UNKNOWN" {
			ops = append(ops, name)
		}
	}
	slices.Sort(ops)
	return ops
}

// EnsureProbe makes the probe topic, and on it a DENY for the principal. Both stay.
func (c *Cluster) EnsureProbe(ctx context.Context, principal string) error {
	if _, err := c.EnsureTopic(ctx, replication.NewTopic{Name: ProbeTopic, Partitions: 1}); err != nil {
		return err
	}
	return c.CreateACLs(ctx, []replication.ACL{probeDeny(principal)})
}

func probeDeny(principal string) replication.ACL {
	return replication.ACL{ResourceType: replication.ResourceTopic, Pattern: replication.PatternLiteral,
		Name: ProbeTopic, Principal: principal, Host: replication.Anywhere, Operation: replication.OpAll, Permission: replication.Deny}
}

// SuperUser finds out whether ACLs hold a client, which is logged in as the principal, by what it sees of the probe topic:
// super.users cannot be read. It changes nothing. fault.ErrNotFound while the probe topic, or its DENY, is not there.
func (c *Cluster) SuperUser(ctx context.Context, client *Cluster, principal string) (bool, error) {
	const doing = "probe the authorizer"
	if _, err := c.leaders(ctx, []string{ProbeTopic}); err != nil {
		return false, fault.Hint(c.fail(doing, err, reading), "a run makes the topic %s in preflight; a dry run does not", ProbeTopic)
	}
	acls, err := c.ACLs(ctx)
	if err != nil {
		return false, err
	}
	if deny := probeDeny(principal); len(replication.Missing([]replication.ACL{deny}, acls)) > 0 {
		return false, c.fail(doing, fmt.Errorf("%w: %s", fault.ErrNotFound, deny), reading)
	}
	seen, err := client.Grants(ctx, []string{ProbeTopic}, nil)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return false, c.fail(doing, err, reading)
	}
	return len(seen.Topics[ProbeTopic]) > 0, nil
}
