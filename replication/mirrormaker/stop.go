package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// ValidateStop looks whether the mirrors are there to be stopped: Connect has no other way to ask, and stops a connector
// in whatever state it is. Stopping is for whole connectors: an OK says whose mirrors stop as well.
func (l *Link) ValidateStop(ctx context.Context, kind replication.StopKind, topics []string) ([]replication.Outcome, error) {
	if err := known(kind); err != nil {
		return nil, err
	}
	mirrors, err := l.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	byTopic := make(map[string]replication.Mirror, len(mirrors))
	var others []string
	for _, m := range mirrors {
		byTopic[m.SourceTopic] = m
		if !slices.Contains(topics, m.SourceTopic) {
			others = append(others, m.SourceTopic)
		}
	}
	out := make([]replication.Outcome, 0, len(topics))
	for _, t := range topics {
		o := replication.Outcome{Name: t, Status: replication.OK}
		m, there := byTopic[t]
		switch {
		case !there:
			o.Status, o.Reason = replication.Failed, "connector "+l.cfg.Source+" does not mirror it"
		case m.State == replication.MirrorStopped:
			o.Reason = "stopped already"
		case m.State == replication.MirrorUnknown:
			o.Status, o.Reason = replication.Unclear, m.Raw+" "+m.Reason
		case len(others) > 0:
			o.Reason = fmt.Sprintf("the mirrors of %d other topics stop as well: %s", len(others), few(others))
		}
		out = append(out, o)
	}
	return out, nil
}

func known(kind replication.StopKind) error {
	if kind != replication.Promote && kind != replication.Failover {
		return invalid(fmt.Sprintf("%q is no way to stop a mirror", kind), "use promote or failover")
	}
	return nil
}

func few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// Stop asks for all connectors of the link to be stopped, whatever the kind: an accepted topic is Pending. It is stopped
// when Mirrors says so, seconds later, and a minute later when the source is dead; the seal is what holds at once. To
// ask twice does no harm. A connector that is not there has nothing to stop, but the source's absence is an error.
func (l *Link) Stop(ctx context.Context, kind replication.StopKind, topics []string) ([]replication.Outcome, error) {
	if err := known(kind); err != nil {
		return nil, err
	}
	err := each(l.connectors(), func(_ int, name string) error {
		err := l.client.Stop(ctx, name)
		if name != l.cfg.Source && errors.Is(err, fault.ErrNotFound) {
			return nil
		}
		return err
	})
	status, reason := replication.Pending, "asked for: the connectors are stopped when they have no tasks"
	switch {
	case errors.Is(err, fault.ErrUnclear):
		status, reason = replication.Unclear, "no answer; read the mirror's state"
	case err != nil:
		status, reason = replication.Failed, "a connector could not be asked to stop"
	}
	out := make([]replication.Outcome, 0, len(topics))
	for _, t := range topics {
		out = append(out, replication.Outcome{Name: t, Status: status, Reason: reason})
	}
	return out, err
}

// Resume asks for all connectors of the link to run again. Before it, and before a seal is lifted, PatchOffsets: the
// offsets that Connect stored are older than what is there, and would be copied again (P27). Mirrors tells when they run.
func (l *Link) Resume(ctx context.Context) error {
	return each(l.connectors(), func(_ int, name string) error { return l.client.Resume(ctx, name) })
}

// Restart restarts the tasks that failed, as they do under a seal, from the offsets that Connect has stored.
func (l *Link) Restart(ctx context.Context) error {
	return each(l.connectors(), func(_ int, name string) error { return l.client.Restart(ctx, name) })
}

// PatchOffsets makes the source connector go on at the given offset of each partition, by the source's names: that of the
// first record that the target has not (P18, P27). 0 is a partition of which nothing is there. Partitions that are not
// named stay as they are; Connect keeps the offset before, that of the last record.
//
// fault.ErrNotReady unless the connector is stopped and has no tasks, fault.ErrInvalid for an offset that is unknown. What
// was written is read back: fault.ErrConflict names what reads differently, fault.ErrUnclear says that Connect did not
// answer and does not show it either.
func (l *Link) PatchOffsets(ctx context.Context, next map[replication.Partition]int64) error {
	doing := "set the offsets of connector " + l.cfg.Source
	c, err := l.client.Connector(ctx, l.cfg.Source)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !c.Idle() {
		return fault.Hint(fmt.Errorf("%s: %w: it is %s", doing, fault.ErrNotReady, c.raw()), "stop it and wait until it has no tasks")
	}
	for p, offset := range next {
		if offset < 0 {
			return fmt.Errorf("%s: where %s is to go on is unknown: %w", doing, p.Name(), fault.ErrInvalid)
		}
	}
	different, err := l.different(ctx, next)
	if err != nil || len(different) == 0 {
		return err
	}
	change := make([]Stored, 0, len(different))
	for _, p := range different {
		change = append(change, Stored{l.cfg.Names.Source, p, next[p] - 1})
	}
	written := l.client.SetOffsets(ctx, l.cfg.Source, change)
	if written != nil && !errors.Is(written, fault.ErrUnclear) {
		return written
	}
	for until := time.Now().Add(l.settle); ; {
		different, err = l.different(ctx, next)
		if err == nil && len(different) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(l.poll):
			if time.Now().Before(until) {
				continue
			}
		}
		switch {
		case err != nil:
			return errors.Join(written, err)
		case written != nil:
			return written
		}
		return fault.Hint(fmt.Errorf("%s: %w: %d read differently, %s first", doing, fault.ErrConflict, len(different), different[0].Name()),
			"somebody else may be changing the connector's offsets; do not resume it")
	}
}

// different are the partitions whose stored offsets do not make the connector go on at next, sorted.
func (l *Link) different(ctx context.Context, next map[replication.Partition]int64) ([]replication.Partition, error) {
	list, err := l.client.Offsets(ctx, l.cfg.Source)
	if err != nil {
		return nil, err
	}
	have := l.stored(list)
	var out []replication.Partition
	for p, offset := range next {
		last, there := have[p]
		if !there {
			last = replication.Unknown
		}
		if last != offset-1 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b replication.Partition) int {
		if a.Topic != b.Topic {
			return strings.Compare(a.Topic, b.Topic)
		}
		return int(a.Partition) - int(b.Partition)
	})
	return out, nil
}
