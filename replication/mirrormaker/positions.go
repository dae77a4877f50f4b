package mirrormaker

import (
	"context"
	"fmt"
	"strings"

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
