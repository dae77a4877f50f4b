package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/replication"
)

// TopicOverrides reads what is set on the topics themselves: not the brokers' defaults. It needs DESCRIBE_CONFIGS.
func (c *Cluster) TopicOverrides(ctx context.Context, topics []string) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string, len(topics))
	err := c.describeConfigs(ctx, topics, func(topic string, e kmsg.DescribeConfigsResponseResourceConfig) {
		if all[topic] == nil {
			all[topic] = map[string]string{}
		}
		if e.Source == kmsg.ConfigSourceDynamicTopicConfig && e.Value != nil {
			all[topic][e.Name] = *e.Value
		}
	})
	return all, err
}

// AlterTopicConfigs sets the named configs of topics and leaves all others alone; nil takes a setting away, so that the
// brokers' default counts again. It needs ALTER_CONFIGS. A *replication.Partial names topics that were not changed.
func (c *Cluster) AlterTopicConfigs(ctx context.Context, changes map[string]map[string]*string) error {
	if len(changes) == 0 {
		return nil
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, topic := range sortedKeys(changes) {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		for _, name := range sortedKeys(changes[topic]) {
			rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			rc.Name, rc.Value, rc.Op = name, changes[topic][name], kmsg.IncrementalAlterConfigOpSet
			if rc.Value == nil {
				rc.Op = kmsg.IncrementalAlterConfigOpDelete
			}
			r.Configs = append(r.Configs, rc)
		}
		req.Resources = append(req.Resources, r)
	}
	bad := partial{op: "alter topic configs", in: writing}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail(bad.op, err, writing)
	}
	for _, r := range resp.Resources {
		bad.add(r.ResourceName, coded(r.ErrorCode, r.ErrorMessage))
	}
	return bad.err(c)
}

// sortedKeys keeps requests the same however often they are made.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// RecordSize is the size in bytes of an average record of each topic, as it lies in the log: compressed, with its share
// of the batch. Topics without records are left out. It needs DESCRIBE on the cluster.
func (c *Cluster) RecordSize(ctx context.Context, ends []replication.Ends) (map[string]int64, error) {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	records := map[string]int64{}
	at := map[string]int{}
	for _, e := range ends {
		i, ok := at[e.Topic]
		if !ok {
			i, at[e.Topic] = len(req.Topics), len(req.Topics)
			rt := kmsg.NewDescribeLogDirsRequestTopic()
			rt.Topic = e.Topic
			req.Topics = append(req.Topics, rt)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, e.Partition.Partition)
		if e.HighWatermark != replication.Unknown && e.Start != replication.Unknown {
			records[e.Topic] += e.HighWatermark - e.Start
		}
	}
	if len(req.Topics) == 0 {
		return nil, nil
	}
	bad := partial{op: "read the sizes of logs"}
	largest := map[replication.Partition]int64{} // of its replicas: one may lag
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			bad.add("a broker", shard.Err)
			continue
		}
		for _, d := range shard.Resp.(*kmsg.DescribeLogDirsResponse).Dirs {
			for _, t := range d.Topics {
				for _, p := range t.Partitions {
					on := replication.Partition{Topic: t.Topic, Partition: p.Partition}
					largest[on] = max(largest[on], p.Size)
				}
			}
		}
	}
	bytes := map[string]int64{}
	for p, size := range largest {
		bytes[p.Topic] += size
	}
	sizes := make(map[string]int64, len(bytes))
	for topic, n := range records {
		if n > 0 && bytes[topic] > 0 {
			sizes[topic] = bytes[topic] / n
		}
	}
	return sizes, bad.err(c)
}
