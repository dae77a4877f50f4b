package mirrormaker

import (
	"context"
	"errors"
	"fmt"

	"switchback/internal/fault"
	"switchback/replication"
)

// Sealed is a partition of a mirror that was stopped or sealed, and where Connect says that it is: Offset is that of the
// last record which it says it has mirrored, or Unknown.
type Sealed struct {
	replication.Partition // as the source calls it
	Offset                int64
	// TargetEnd is where the target ended when the mirror was sealed; Unknown looks up to where it ends now. What clients
	// have written since is no mirror's.
	TargetEnd int64
}

// Boundary is how far a partition of a sealed mirror is.
type Boundary struct {
	replication.Partition       // as the source calls it
	Reached               int64 // offset of the last source record that the target has; Unknown when it has none
	Next                  int64 // offset of the source from which a mirror that goes on loses and repeats nothing
	Target                int64 // offset of that record on the target; Unknown when it has none, or it has expired
}

// Boundaries finds how far a mirror that was stopped or sealed got (P18): the highest offset of the source that any run
// of consecutive records on the target reached. What Connect stored is where to begin to look, and neither a lower nor an
// upper bound (P17): a worker that died writes a part once more, and one that skips errors has stored what it never
// wrote.
//
// A mirror is told to go on at Next (P27). Partitions that leave it open are in no answer but named, with what was seen,
// by a *replication.Partial of kind fault.ErrConflict; those that cannot be read are in it as well.
func (c Comparer) Boundaries(ctx context.Context, stored []Sealed) ([]Boundary, error) {
	if len(stored) == 0 {
		return nil, nil
	}
	by := make(map[replication.Partition]Sealed, len(stored))
	var topics []string
	seen := map[string]bool{}
	for _, s := range stored {
		by[s.Partition] = s
		if !seen[s.Topic] {
			seen[s.Topic], topics = true, append(topics, s.Topic)
		}
	}
	ends, err := c.From.Ends(ctx, topics)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return nil, fmt.Errorf("read the ends of the source: %w", err)
	}
	var source []replication.Ends
	named := map[replication.Partition]bool{}
	for _, e := range ends {
		if _, wanted := by[e.Partition]; wanted {
			source, named[e.Partition] = append(source, e), true
		}
	}
	pairs, lost, err := c.pairs(ctx, source)
	if err != nil {
		return nil, err
	}
	bad := &replication.Partial{Op: "find how far the mirror got", Err: fault.ErrConflict, Failed: lost}
	for _, s := range stored {
		if !named[s.Partition] {
			bad.Failed = append(bad.Failed, replication.Outcome{Name: s.Name(), Status: replication.Unclear, Reason: "the source's ends are not known"})
		}
	}
	found := map[replication.Partition]Boundary{}
	syncs, err := c.syncs(ctx)
	if err != nil {
		syncs = nil // anchors less
	}
	err = c.compare(ctx, c.boundaryTasks(pairs, by), func() map[replication.Partition][]Sync { return syncs }, func(t *task) bool { return t.settled(t.low) }, func(t *task) {
		b, err := boundary(t, by[t.on].Offset)
		if err != nil {
			bad.Failed = append(bad.Failed, replication.Outcome{Name: t.on.Name(), Status: replication.Unclear, Reason: err.Error()})
			return
		}
		found[t.on] = b
	})
	if err != nil {
		return nil, err
	}
	var out []Boundary
	for _, s := range stored {
		if b, ok := found[s.Partition]; ok {
			out = append(out, b)
		}
	}
	if len(bad.Failed) > 0 {
		return out, bad
	}
	return out, nil
}

// boundaryTasks look back from the seal. While the source has records that were not found they go on to do so, as far as
// the limit allows: a part that was written once more hides what was written before it.
func (c Comparer) boundaryTasks(pairs []pair, by map[replication.Partition]Sealed) []*task {
	tasks := make([]*task, 0, len(pairs))
	for _, p := range pairs {
		s := by[p.on]
		if s.TargetEnd >= 0 {
			p.to.end = min(p.to.end, max(s.TargetEnd, p.to.start))
		}
		low := p.from.start
		if s.Offset >= 0 {
			low = min(max(s.Offset, p.from.start), p.from.end)
		}
		tasks = append(tasks, &task{pair: p, low: low, margin: margin, limit: c.limit()})
	}
	return tasks
}

// boundary judges one partition.
func boundary(t *task, stored int64) (Boundary, error) {
	b := Boundary{Partition: t.on, Reached: replication.Unknown, Next: t.from.start, Target: replication.Unknown}
	switch {
	case t.err != nil:
		return b, t.err
	case t.perhaps > t.reached:
		reached := "nothing"
		if t.reached != nobody {
			reached = fmt.Sprintf("offset %d", t.source[t.reached].offset)
		}
		return b, fmt.Errorf("%w: identical records leave open whether the target has the source up to %s or up to offset %d; look at the last records of both and set the connector's offset by hand",
			fault.ErrConflict, reached, t.source[t.perhaps].offset)
	case t.reached != nobody:
		at := t.source[t.reached]
		b.Reached, b.Next = at.offset, at.offset+1
		if j := t.last[t.reached]; j != nobody {
			b.Target = t.target[j].offset
		}
		return b, nil
	case len(t.target) == 0 && t.targetStart && t.to.start == 0, len(t.source) == 0 && t.sourceStart && stored < 0:
		return b, nil
	case len(t.source) == 0 && t.sourceStart: // nothing is left that a mirror could have missed
		b.Next = t.from.end
		return b, nil
	}
	return b, fmt.Errorf("%w: none of the source's %s from offset %d on was found among the target's %s from offset %d on",
		fault.ErrConflict, records(len(t.source)), t.sourceFrom(), records(len(t.target)), t.targetFrom())
}
