package activities

import (
	"context"
	"slices"
	"strings"
	"time"

	"switchback/replication"
)

// prefixed is a cluster that puts a prefix before the names of mirrored topics. Activities speak of a topic by its name
// on the source alone; here that becomes what the target calls it, and back. ACLs and records keep their own names.
type prefixed struct {
	Kafka
	prefix string
}

// renamed wraps the target of a link that renames its mirrors.
func renamed(on Kafka, prefix string) Kafka {
	if prefix == "" {
		return on
	}
	return prefixed{on, prefix}
}

func (p prefixed) there(topics []string) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = p.prefix + t
	}
	return names
}

func (p prefixed) here(topic string) (string, bool) { return strings.CutPrefix(topic, p.prefix) }

// keyed turns the keys of a map by partition, leaving out what is no mirror.
func (p prefixed) keyed(m map[replication.Partition]int64) map[replication.Partition]int64 {
	out := make(map[replication.Partition]int64, len(m))
	for at, offset := range m {
		if name, ok := p.here(at.Topic); ok {
			out[replication.Partition{Topic: name, Partition: at.Partition}] = offset
		}
	}
	return out
}

func (p prefixed) Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error) {
	topics, err := p.Kafka.Topics(ctx, func(name string) bool {
		here, ok := p.here(name)
		return ok && match(here)
	})
	for i := range topics {
		topics[i].Name, _ = p.here(topics[i].Name)
	}
	return topics, err
}

func (p prefixed) TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error) {
	configs, err := p.Kafka.TopicConfigs(ctx, p.there(topics))
	out := make(map[string]map[string]string, len(configs))
	for name, c := range configs {
		here, _ := p.here(name)
		out[here] = c
	}
	return out, err
}

func (p prefixed) Ends(ctx context.Context, topics []string) ([]replication.Ends, error) {
	ends, err := p.Kafka.Ends(ctx, p.there(topics))
	for i := range ends {
		ends[i].Topic, _ = p.here(ends[i].Topic)
	}
	return ends, err
}

func (p prefixed) Writers(ctx context.Context, partitions []replication.Partition) ([]replication.Writer, error) {
	there := make([]replication.Partition, len(partitions))
	for i, at := range partitions {
		there[i] = replication.Partition{Topic: p.prefix + at.Topic, Partition: at.Partition}
	}
	writers, err := p.Kafka.Writers(ctx, there)
	for i := range writers {
		writers[i].Topic, _ = p.here(writers[i].Topic)
	}
	return writers, err
}

func (p prefixed) Committed(ctx context.Context, group string) (map[replication.Partition]int64, error) {
	committed, err := p.Kafka.Committed(ctx, group)
	return p.keyed(committed), err
}

func (p prefixed) Commit(ctx context.Context, group string, offsets map[replication.Partition]int64) error {
	there := make(map[replication.Partition]int64, len(offsets))
	for at, offset := range offsets {
		there[replication.Partition{Topic: p.prefix + at.Topic, Partition: at.Partition}] = offset
	}
	return p.Kafka.Commit(ctx, group, there)
}

func (p prefixed) AbortTransactions(ctx context.Context, open []replication.Writer) error {
	there := slices.Clone(open)
	for i := range there {
		there[i].Topic = p.prefix + there[i].Topic
	}
	return p.Kafka.AbortTransactions(ctx, there)
}

func (p prefixed) Newest(ctx context.Context, topics []string) (map[replication.Partition]time.Time, error) {
	times, err := p.Kafka.Newest(ctx, p.there(topics))
	out := make(map[replication.Partition]time.Time, len(times))
	for at, when := range times {
		name, _ := p.here(at.Topic)
		out[replication.Partition{Topic: name, Partition: at.Partition}] = when
	}
	return out, err
}

func (p prefixed) RecordSize(ctx context.Context, ends []replication.Ends) (map[string]int64, error) {
	there := slices.Clone(ends)
	for i := range there {
		there[i].Topic = p.prefix + there[i].Topic
	}
	sizes, err := p.Kafka.RecordSize(ctx, there)
	out := make(map[string]int64, len(sizes))
	for topic, size := range sizes {
		name, _ := p.here(topic)
		out[name] = size
	}
	return out, err
}

func (p prefixed) Grants(ctx context.Context, topics, groups []string) (replication.Grants, error) {
	grants, err := p.Kafka.Grants(ctx, p.there(topics), groups)
	byName := make(map[string][]string, len(grants.Topics))
	for name, ops := range grants.Topics {
		if here, ok := p.here(name); ok {
			byName[here] = ops
		}
	}
	grants.Topics = byName
	return grants, err
}
