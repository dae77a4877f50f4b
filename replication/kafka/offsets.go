package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// Committed reads every offset that a group has committed, with RequireStable (P9). fault.ErrNotReady names the
// partitions for which a transaction is about to commit; nothing is returned then. A group without commits, also one
// that does not exist, has none.
func (c *Cluster) Committed(ctx context.Context, group string) (offsets map[replication.Partition]int64, err error) {
	err = coordinated(ctx, func() error { offsets, err = c.committed(ctx, group); return err })
	return offsets, err
}

func (c *Cluster) committed(ctx context.Context, group string) (map[replication.Partition]int64, error) {
	doing := "read offsets of group " + group
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group, rg.Topics, rg.MemberEpoch = group, nil, -1
	req.Groups = append(req.Groups, rg)
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return nil, c.fail(doing, err, reading)
	}
	if len(resp.Groups) != 1 {
		return nil, c.fail(doing, fmt.Errorf("%w: no answer for it", fault.ErrNotReady), reading)
	}
	g := resp.Groups[0]
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		if g.ErrorCode == kerr.GroupIDNotFound.Code {
			return map[replication.Partition]int64{}, nil
		}
		return nil, c.fail(doing, err, reading)
	}
	bad := partial{op: doing}
	offsets := map[replication.Partition]int64{}
	for _, t := range g.Topics {
		for _, p := range t.Partitions {
			on := replication.Partition{Topic: t.Topic, Partition: p.Partition}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				bad.add(on.Name(), err)
			} else if p.Offset >= 0 {
				offsets[on] = p.Offset
			}
		}
	}
	if err := bad.err(c); err != nil {
		return nil, err
	}
	return offsets, nil
}

// Commit sets offsets of a group that nobody reads with. fault.ErrConflict names the members of one that has any: their
// next commit would overwrite it. What was written is for the caller to read back, with Committed.
func (c *Cluster) Commit(ctx context.Context, group string, offsets map[replication.Partition]int64) error {
	doing := "write offsets of group " + group
	if len(offsets) == 0 {
		return nil
	}
	is, err := c.Group(ctx, group)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !is[0].Idle() {
		return c.fail(doing, notIdle(is[0]), writing)
	}
	partitions := make([]replication.Partition, 0, len(offsets))
	for p, o := range offsets {
		if o < 0 {
			return c.fail(doing, fmt.Errorf("%w: offset %d for %s", fault.ErrInvalid, o, p.Name()), writing)
		}
		partitions = append(partitions, p)
	}
	slices.SortFunc(partitions, func(a, b replication.Partition) int {
		if n := strings.Compare(a.Topic, b.Topic); n != 0 {
			return n
		}
		return int(a.Partition - b.Partition)
	})
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	for _, p := range partitions {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != p.Topic {
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic = p.Topic
			req.Topics = append(req.Topics, rt)
		}
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset = p.Partition, offsets[p]
		rt := &req.Topics[len(req.Topics)-1]
		rt.Partitions = append(rt.Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail(doing, err, writing)
	}
	bad := partial{op: doing, in: writing}
	answered := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			answered++
			bad.add(replication.Partition{Topic: t.Topic, Partition: p.Partition}.Name(), kerr.ErrorForCode(p.ErrorCode))
		}
	}
	if answered != len(offsets) {
		bad.add(group, fmt.Errorf("%w: %d of %d partitions were answered for", fault.ErrUnclear, answered, len(offsets)))
	}
	return bad.err(c)
}
