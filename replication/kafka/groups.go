package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// Groups lists the groups that match, with their members, sorted by name. A group that the login may not DESCRIBE is
// not among them. The members of share and streams groups cannot be listed here: such a group is Opaque.
func (c *Cluster) Groups(ctx context.Context, match func(string) bool) ([]replication.Group, error) {
	bad := partial{op: "list groups"}
	byName, err := c.listGroups(ctx, match, &bad)
	if err != nil {
		return nil, err
	}
	return c.describe(ctx, byName, &bad)
}

// Group describes groups by name. One that does not exist has the state Dead; one that may not be described is named in
// a *replication.Partial.
func (c *Cluster) Group(ctx context.Context, names ...string) (groups []replication.Group, err error) {
	err = coordinated(ctx, func() error { groups, err = c.group(ctx, names); return err })
	return groups, err
}

// coordinated tries again for a moment while a group's coordinator comes up. The first question about any group makes a
// new cluster create its offsets topic, and a standby may be just that.
func coordinated(ctx context.Context, ask func() error) error {
	for try := 0; ; try++ {
		err := ask()
		coming := errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress) || errors.Is(err, kerr.NotCoordinator)
		if !coming || try == 8 || !pause(ctx, try) {
			return err
		}
	}
}

func (c *Cluster) group(ctx context.Context, names []string) ([]replication.Group, error) {
	bad := partial{op: "describe groups"}
	byName, err := c.listGroups(ctx, func(n string) bool { return slices.Contains(names, n) }, &bad)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if byName[n] == nil {
			byName[n] = &replication.Group{Name: n, Type: replication.GroupClassic, State: "Dead"}
		}
	}
	return c.describe(ctx, byName, &bad)
}

// listGroups asks every broker: each coordinates some of the groups. A broker that does not answer may hide any group,
// so it is in the error.
func (c *Cluster) listGroups(ctx context.Context, match func(string) bool, bad *partial) (map[string]*replication.Group, error) {
	found := map[string]*replication.Group{}
	answers := 0
	var last error
	for _, shard := range c.sharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		err := shard.Err
		if err == nil {
			err = kerr.ErrorForCode(shard.Resp.(*kmsg.ListGroupsResponse).ErrorCode)
		}
		if err != nil {
			last = err
			bad.add(fmt.Sprintf("groups on broker %d", shard.Meta.NodeID), err)
			continue
		}
		answers++
		for _, g := range shard.Resp.(*kmsg.ListGroupsResponse).Groups {
			if !match(g.Group) {
				continue
			}
			kind := strings.ToLower(g.GroupType)
			if kind == "" { // brokers before the newer protocols
				kind = replication.GroupClassic
			}
			found[g.Group] = &replication.Group{Name: g.Group, State: g.GroupState, Type: kind}
		}
	}
	if answers == 0 {
		return nil, c.fail("list groups", last, reading)
	}
	return found, nil
}

// describe fills in the members, type by type.
func (c *Cluster) describe(ctx context.Context, byName map[string]*replication.Group, bad *partial) ([]replication.Group, error) {
	var classic, consumer []string
	groups := make([]*replication.Group, 0, len(byName))
	for _, g := range byName {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *replication.Group) int { return strings.Compare(a.Name, b.Name) })
	for _, g := range groups {
		switch g.Type {
		case replication.GroupClassic:
			classic = append(classic, g.Name)
		case replication.GroupConsumer:
			consumer = append(consumer, g.Name)
		default:
			g.Opaque = true
		}
	}
	if len(classic) > 0 {
		c.describeClassic(ctx, classic, byName, bad)
	}
	if len(consumer) > 0 {
		c.describeConsumer(ctx, consumer, byName, bad)
	}
	described := make([]replication.Group, 0, len(groups))
	for _, g := range groups {
		if !slices.ContainsFunc(bad.failed, func(o replication.Outcome) bool { return o.Name == g.Name }) {
			described = append(described, *g)
		}
	}
	return described, bad.err(c)
}

func (c *Cluster) describeClassic(ctx context.Context, names []string, into map[string]*replication.Group, bad *partial) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = names
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			for _, n := range shard.Req.(*kmsg.DescribeGroupsRequest).Groups {
				bad.add(n, shard.Err)
			}
			continue
		}
		for _, r := range shard.Resp.(*kmsg.DescribeGroupsResponse).Groups {
			g := into[r.Group]
			if g == nil {
				continue
			}
			if r.ErrorCode == kerr.GroupIDNotFound.Code { // said by newer brokers in place of the state Dead
				g.State = "Dead"
				continue
			}
			if err := coded(r.ErrorCode, r.ErrorMessage); err != nil {
				bad.add(r.Group, err)
				continue
			}
			g.State, g.Protocol = r.State, r.Protocol
			for _, m := range r.Members {
				g.Members = append(g.Members, replication.Member{ID: m.MemberID, InstanceID: deref(m.InstanceID),
					ClientID: m.ClientID, Host: m.ClientHost, Topics: subscription(r.ProtocolType, m)})
			}
		}
	}
}

func (c *Cluster) describeConsumer(ctx context.Context, names []string, into map[string]*replication.Group, bad *partial) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = names
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			for _, n := range shard.Req.(*kmsg.ConsumerGroupDescribeRequest).Groups {
				bad.add(n, shard.Err)
			}
			continue
		}
		for _, r := range shard.Resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
			g := into[r.Group]
			if g == nil {
				continue
			}
			if err := coded(r.ErrorCode, r.ErrorMessage); err != nil {
				bad.add(r.Group, err)
				continue
			}
			g.State, g.Protocol = r.State, r.AssignorName
			for _, m := range r.Members {
				g.Members = append(g.Members, replication.Member{ID: m.MemberID, InstanceID: deref(m.InstanceID),
					ClientID: m.ClientID, Host: m.ClientHost, Topics: m.SubscribedTopics})
			}
		}
	}
}

// subscription reads the topics that a classic member subscribes to; members of other kinds (Connect) have none.
func subscription(protocolType string, m kmsg.DescribeGroupsResponseGroupMember) []string {
	meta := kmsg.NewConsumerMemberMetadata()
	if protocolType != "consumer" || meta.ReadFrom(m.ProtocolMetadata) != nil {
		return nil
	}
	return meta.Topics
}

func notIdle(g replication.Group) error {
	if g.Opaque {
		return fault.Hint(fmt.Errorf("%w: it is a %s group, whose members and positions cannot be handled", fault.ErrInvalid, g.Type),
			"leave it out of the runbook's groups")
	}
	names := make([]string, len(g.Members))
	for i, m := range g.Members {
		names[i] = m.String()
	}
	return fault.Hint(fmt.Errorf("%w: it is %s and has %d members: %s", fault.ErrConflict, g.State, len(names), strings.Join(names, ", ")),
		"stop these first; a member whose process is proven gone can be removed")
}

// RemoveMembers takes members out of a group whose processes are proven gone (P8): static members and Streams do not
// leave when they close. One that has left meanwhile is no error.
func (c *Cluster) RemoveMembers(ctx context.Context, group string, members []replication.Member) error {
	doing := "remove members of group " + group
	if len(members) == 0 {
		return nil
	}
	is, err := c.Group(ctx, group)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch {
	case is[0].Opaque:
		return c.fail(doing, notIdle(is[0]), writing)
	case is[0].Type == replication.GroupConsumer:
		return c.removeConsumers(ctx, group, members)
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range members {
		rm := kmsg.NewLeaveGroupRequestMember()
		rm.MemberID, rm.Reason = m.ID, kmsg.StringPtr("its process is gone; removed by switchback")
		if m.InstanceID != "" {
			rm.InstanceID = &m.InstanceID
		}
		req.Members = append(req.Members, rm)
	}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail(doing, err, writing)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil && resp.ErrorCode != kerr.UnknownMemberID.Code {
		return c.fail(doing, err, writing)
	}
	bad := partial{op: doing, in: writing}
	for _, m := range resp.Members {
		if m.ErrorCode != kerr.UnknownMemberID.Code {
			bad.add(m.MemberID, kerr.ErrorForCode(m.ErrorCode))
		}
	}
	return bad.err(c)
}

// removeConsumers ends members of the newer protocol: each leaves by a heartbeat with epoch -1, a static one for good.
func (c *Cluster) removeConsumers(ctx context.Context, group string, members []replication.Member) error {
	bad := partial{op: "remove members of group " + group, in: writing}
	for _, m := range members {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = group, m.ID, -1
		if m.InstanceID != "" {
			req.InstanceID = &m.InstanceID
		}
		resp, err := req.RequestWith(ctx, c.ask())
		if err == nil && resp.ErrorCode != kerr.UnknownMemberID.Code && resp.ErrorCode != kerr.GroupIDNotFound.Code {
			err = coded(resp.ErrorCode, resp.ErrorMessage)
		}
		bad.add(m.ID, err)
	}
	return bad.err(c)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
