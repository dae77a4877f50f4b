package mirrormaker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// Checkpoints is the newest checkpoint of each group and partition, all of them or none: a part is an error.
type Checkpoints struct {
	byGroup map[string]map[replication.Partition]Checkpoint
	broken  map[string]map[replication.Partition]bool
	// Strange counts records that are no checkpoints at all; nobody can say whom they are about.
	Strange int
}

// Of is the newest checkpoint of a group for a partition as the target calls it. fault.ErrNotFound when the mirror wrote
// none; fault.ErrInvalid when its newest is of a kind that is not understood.
func (c *Checkpoints) Of(group string, on replication.Partition) (Checkpoint, error) {
	if c == nil {
		return Checkpoint{}, fault.ErrNotFound
	}
	if c.broken[group][on] {
		return Checkpoint{}, fmt.Errorf("%w: the newest checkpoint of group %s for %s is not understood", fault.ErrInvalid, group, on.Name())
	}
	if found, ok := c.byGroup[group][on]; ok {
		return found, nil
	}
	return Checkpoint{}, fault.ErrNotFound
}

// Groups counts the groups that have a checkpoint.
func (c *Checkpoints) Groups() int { return len(c.byGroup) }

func (c *Checkpoints) add(key, value []byte, r *kgo.Record) {
	about, err := checkpointKey(key)
	if err != nil {
		c.Strange++
		return
	}
	group := c.byGroup[about.Group]
	delete(c.broken[about.Group], about.On)
	if value == nil { // forgotten
		delete(group, about.On)
		return
	}
	found, err := about.at(value)
	if err != nil {
		delete(group, about.On)
		if c.broken[about.Group] == nil {
			c.broken[about.Group] = map[replication.Partition]bool{}
		}
		c.broken[about.Group][about.On] = true
		return
	}
	found.At = r.Timestamp
	if group == nil {
		group = map[replication.Partition]Checkpoint{}
		c.byGroup[about.Group] = group
	}
	group[about.On] = found
}

// ReadCheckpoints reads the whole topic of checkpoints in one pass, up to where it ended at the call. fault.ErrNotFound
// when there is none, fault.ErrInvalid when it holds records and not one checkpoint.
func ReadCheckpoints(ctx context.Context, target Logs, names Names) (*Checkpoints, error) {
	c := &Checkpoints{byGroup: map[string]map[replication.Partition]Checkpoint{}, broken: map[string]map[replication.Partition]bool{}}
	n := 0
	err := readWhole(ctx, target, names.Checkpoints(), func(r *kgo.Record) error {
		n++
		c.add(r.Key, r.Value, r)
		return nil
	})
	if err != nil {
		if errors.Is(err, fault.ErrNotFound) {
			err = fault.Hint(err, "the checkpoint connector makes it with its first checkpoint; alias and separator must be those of the connector")
		}
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	if n > 0 && c.Strange == n {
		return nil, fmt.Errorf("read checkpoints: %w: none of the %d records of %s is a checkpoint", fault.ErrInvalid, n, names.Checkpoints())
	}
	return c, nil
}

// readWhole reads a topic up to the ends that it has at the call, or fails. Workers with exactly-once support write with
// transactions: what is not committed does not count.
func readWhole(ctx context.Context, logs Logs, topic string, each func(*kgo.Record) error) error {
	ends, err := logs.Ends(ctx, []string{topic})
	if err != nil {
		return err
	}
	if len(ends) == 0 {
		return fmt.Errorf("%s: %w", topic, fault.ErrNotFound)
	}
	ranges := make([]replication.Range, len(ends))
	for i, e := range ends {
		if e.Start < 0 || e.LastStable < 0 {
			return fmt.Errorf("the ends of %s are not known: %w", e.Name(), fault.ErrNotReady)
		}
		ranges[i] = replication.Range{Partition: e.Partition, From: e.Start, To: e.LastStable}
	}
	return logs.ReadRanges(ctx, ranges[:1], true, func(_ int, r *kgo.Record) error { return each(r) })
}

// LastKnown says where groups go on when the source cannot be read: at their newest checkpoints, which are never past
// what a group has committed. Partitions have the source's names; what comes in as Target is what the target's own group
// holds. What is Unknown afterwards the mirror has brought nothing for.
func (c Comparer) LastKnown(ctx context.Context, onTarget []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	known, err := ReadCheckpoints(ctx, c.To, c.Names)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	ends, err := c.targetEnds(ctx, onTarget)
	if err != nil {
		return nil, err
	}
	out := make([]replication.GroupOffsets, len(onTarget))
	for i, g := range onTarget {
		out[i] = replication.GroupOffsets{Group: g.Group, Offsets: make([]replication.Translated, len(g.Offsets))}
		for j, o := range g.Offsets {
			held := o.Target
			remote := replication.Partition{Topic: c.Names.Remote(o.Topic), Partition: o.Partition.Partition}
			t := byCheckpoint(known, g.Group, o.Partition, remote, ends[remote])
			if t.Target != replication.Unknown && held > t.Target {
				t.Proof += fmt.Sprintf("; the target's group stands beyond it, at %d", held)
			}
			out[i].Offsets[j] = t
		}
	}
	return out, nil
}

// targetEnds are the ends of all topics of groups, by the target's names. Topics that are not there are left out.
func (c Comparer) targetEnds(ctx context.Context, groups []replication.GroupOffsets) (map[replication.Partition]replication.Ends, error) {
	var topics []string
	seen := map[string]bool{}
	for _, g := range groups {
		for _, o := range g.Offsets {
			if !seen[o.Topic] {
				seen[o.Topic], topics = true, append(topics, c.Names.Remote(o.Topic))
			}
		}
	}
	ends := map[replication.Partition]replication.Ends{}
	if len(topics) == 0 {
		return ends, nil
	}
	found, err := c.To.Ends(ctx, topics)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return nil, fmt.Errorf("read the ends of the target: %w", err)
	}
	for _, e := range found {
		ends[e.Partition] = e
	}
	return ends, nil
}

// byCheckpoint is where the newest checkpoint of a group puts it. Records behind: at most all that the target has from
// there on.
func byCheckpoint(known *Checkpoints, group string, on, remote replication.Partition, end replication.Ends) replication.Translated {
	t := replication.Translated{Partition: on, Source: replication.Unknown, Target: replication.Unknown, Behind: replication.Unknown, Proof: ProofNoCheckpoint}
	found, err := known.Of(group, remote)
	if err != nil {
		if !errors.Is(err, fault.ErrNotFound) {
			t.Proof += ": " + err.Error()
		}
		return t
	}
	t.Source, t.Target, t.Proof = found.Upstream, found.Downstream, ProofCheckpoint
	if end.Partition == remote && end.HighWatermark >= 0 {
		t.Behind = max(0, end.HighWatermark-max(found.Downstream, end.Start))
		t.Proof += fmt.Sprintf(", up to %s behind", records(int(t.Behind)))
	} else {
		t.Proof += ", behind by an unknown number of records"
	}
	return t
}
