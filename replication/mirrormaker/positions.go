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

// mirror is a topic by both of its names. err is set where nobody can say whether the connector mirrors it.
type mirror struct {
	source     string
	target     replication.Topic
	unfiltered error
}

// internal are names that MirrorMaker 2 never mirrors: its own and Kafka's.
func internal(topic string) bool {
	return strings.HasPrefix(topic, "__") || strings.HasPrefix(topic, ".") ||
		strings.HasPrefix(topic, "mm2") && strings.HasSuffix(topic, ".internal") || strings.HasSuffix(topic, ".checkpoints.internal")
}

// mirrored are the topics of the target that the source connector's filter selects, by the source's names. The target is
// asked because it is there when the source is gone.
func (l *Link) mirrored(ctx context.Context, source settings) ([]mirror, error) {
	filter := source.topics().matcher()
	var list []mirror
	topics, err := l.cfg.To.Topics(ctx, func(name string) bool {
		_, ok := l.onSource(name)
		return ok
	})
	if err != nil {
		return nil, fmt.Errorf("list the topics of the target: %w", err)
	}
	for _, t := range topics {
		name, _ := l.onSource(t.Name)
		if mirrors, err := filter.match(name); mirrors || err != nil {
			list = append(list, mirror{name, t, err})
		}
	}
	return list, nil
}

// onSource is what the source calls a topic of the target; false for one that cannot be a mirror of the workload's.
func (l *Link) onSource(topic string) (string, bool) {
	name, ok := l.cfg.Names.Upstream(topic)
	return name, ok && !internal(name) && !strings.HasSuffix(name, heartbeatsTopic) && l.cfg.Names.Oddity(name) == ""
}

// Mirrors reads every topic that the source connector mirrors, with its partitions on the target, the state of the
// connectors, and what Connect has stored for each partition: the next offset to be fetched, a hint (P17). It takes one
// request for the connectors and one for the offsets of all topics.
func (l *Link) Mirrors(ctx context.Context) ([]replication.Mirror, error) {
	v, err := l.look(ctx)
	if err != nil {
		return nil, err
	}
	var topics []mirror
	var stored []Stored
	err = each([]func() error{
		func() (err error) { topics, err = l.mirrored(ctx, v.source.settings); return err },
		func() (err error) { stored, err = l.client.Offsets(ctx, l.cfg.Source); return err },
	}, func(_ int, do func() error) error { return do() })
	if err != nil {
		return nil, err
	}
	fetched := map[string]map[int32]int64{}
	for p, offset := range l.stored(stored) {
		if fetched[p.Topic] == nil {
			fetched[p.Topic] = map[int32]int64{}
		}
		fetched[p.Topic][p.Partition] = offset + 1
	}
	state, raw, reason := v.state()
	out := make([]replication.Mirror, 0, len(topics))
	for _, t := range topics {
		m := replication.Mirror{
			Topic: t.target.Name, SourceTopic: t.source, Partitions: t.target.Partitions,
			State: state, Raw: raw, Reason: reason, Fetched: fetched[t.source],
		}
		if t.unfiltered != nil && m.Fetched == nil { // one with stored offsets is mirrored, whatever the filter says
			m.State, m.Reason = replication.MirrorUnknown, t.unfiltered.Error()
		}
		out = append(out, m)
	}
	return out, nil
}

// stored are the offsets that count: those of the connector's own alias. Others are somebody's typing error, or older
// than a change of the alias, and have no effect.
func (l *Link) stored(list []Stored) map[replication.Partition]int64 {
	out := make(map[replication.Partition]int64, len(list))
	for _, s := range list {
		if s.Cluster == l.cfg.Names.Source {
			out[s.Partition] = s.Offset
		}
	}
	return out
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
