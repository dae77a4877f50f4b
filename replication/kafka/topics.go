package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// Topics lists the topics that match, sorted by name. A topic that the login may not DESCRIBE is not among them: Kafka
// does not tell that it exists.
func (c *Cluster) Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error) {
	resp, err := c.metadata(ctx, nil)
	if err != nil {
		return nil, err
	}
	bad := partial{op: "list topics"}
	var topics []replication.Topic
	for _, t := range resp.Topics {
		if t.Topic == nil || !match(*t.Topic) {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			bad.add(*t.Topic, err)
			continue
		}
		topic := replication.Topic{Name: *t.Topic, Partitions: len(t.Partitions), Internal: t.IsInternal, Offline: offline(t)}
		if t.TopicID != [16]byte{} {
			topic.ID = base64.RawURLEncoding.EncodeToString(t.TopicID[:])
		}
		if len(t.Partitions) > 0 {
			topic.ReplicationFactor = len(t.Partitions[0].Replicas)
		}
		topics = append(topics, topic)
	}
	slices.SortFunc(topics, func(a, b replication.Topic) int { return strings.Compare(a.Name, b.Name) })
	return topics, bad.err(c)
}

// topicID is zero before topic ids, and for a topic that is not there.
func (c *Cluster) topicID(ctx context.Context, topic string) (id [16]byte, err error) {
	resp, err := c.metadata(ctx, []string{topic})
	if err != nil {
		return id, err
	}
	for _, t := range resp.Topics {
		if t.Topic != nil && *t.Topic == topic {
			id = t.TopicID
		}
	}
	return id, nil
}

// offline are the brokers that hold replicas of the topic and are not there.
func offline(t kmsg.MetadataResponseTopic) (brokers []int32) {
	for _, p := range t.Partitions {
		brokers = append(brokers, p.OfflineReplicas...)
	}
	slices.Sort(brokers)
	return slices.Compact(brokers)
}

// TopicConfigs reads the effective configuration of topics, defaults included.
func (c *Cluster) TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string, len(topics))
	err := c.describeConfigs(ctx, topics, func(topic string, e kmsg.DescribeConfigsResponseResourceConfig) {
		if all[topic] == nil {
			all[topic] = map[string]string{}
		}
		if e.Value != nil {
			all[topic][e.Name] = *e.Value
		}
	})
	return all, err
}

// describeConfigs hands every config of every topic to each.
func (c *Cluster) describeConfigs(ctx context.Context, topics []string, each func(string, kmsg.DescribeConfigsResponseResourceConfig)) error {
	if len(topics) == 0 {
		return nil
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, t := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, t
		req.Resources = append(req.Resources, r)
	}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail("read topic configs", err, reading)
	}
	bad := partial{op: "read topic configs"}
	answered := make(map[string]bool, len(topics))
	for _, r := range resp.Resources {
		answered[r.ResourceName] = true
		if err := coded(r.ErrorCode, r.ErrorMessage); err != nil {
			bad.add(r.ResourceName, err)
			continue
		}
		for _, e := range r.Configs {
			each(r.ResourceName, e)
		}
	}
	for _, t := range topics {
		if !answered[t] {
			bad.add(t, fmt.Errorf("%w: the broker did not answer for it", fault.ErrNotFound))
		}
	}
	return bad.err(c)
}

// CreateTopic makes a topic and waits until its leaders are known. fault.ErrConflict when it exists.
func (c *Cluster) CreateTopic(ctx context.Context, t replication.NewTopic) error {
	doing := "create topic " + t.Name
	if t.ReplicationFactor == 0 {
		id, err := c.Identity(ctx)
		if err != nil {
			return err
		}
		t.ReplicationFactor = int16(max(1, min(3, len(id.Brokers))))
	}
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Name, t.Partitions, t.ReplicationFactor
	for name, value := range t.Configs {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = name, kmsg.StringPtr(value)
		rt.Configs = append(rt.Configs, rc)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = int32(requestTimeout / time.Millisecond)
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return c.fail(doing, err, writing)
	}
	for _, r := range resp.Topics {
		if err := coded(r.ErrorCode, r.ErrorMessage); err != nil {
			return c.fail(doing, err, writing)
		}
	}
	// Brokers learn of a new topic one after the other, and say meanwhile that there is none.
	for try := 0; ; try++ {
		leaders, err := c.leaders(ctx, []string{t.Name})
		if err == nil && len(leaders) == int(t.Partitions) {
			return nil
		}
		if !pause(ctx, try) {
			return c.fail("wait for topic "+t.Name, fmt.Errorf("%w: its leaders are not known yet", fault.ErrNotReady), writing)
		}
	}
}

// EnsureTopic makes the topic unless it exists, and says whether it did. What exists is left as it is.
func (c *Cluster) EnsureTopic(ctx context.Context, t replication.NewTopic) (made bool, err error) {
	found, err := c.leaders(ctx, []string{t.Name})
	if err == nil && len(found) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return false, err
	}
	if err := c.CreateTopic(ctx, t); err != nil {
		if errors.Is(err, fault.ErrConflict) {
			return false, nil // somebody else was faster
		}
		return false, err
	}
	return true, nil
}

// leader of one partition, as metadata says now.
type leader struct {
	replication.Partition
	broker int32
	epoch  int32
}

// leaders finds the leader of every partition of the topics, in the order of the topics. Partitions without a leader are
// not in it but in the error, as are topics that are not there.
func (c *Cluster) leaders(ctx context.Context, topics []string) ([]leader, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	resp, err := c.metadata(ctx, topics)
	if err != nil {
		return nil, err
	}
	bad := partial{op: "find leaders"}
	byName := make(map[string]*kmsg.MetadataResponseTopic, len(resp.Topics))
	for i := range resp.Topics {
		if t := &resp.Topics[i]; t.Topic != nil {
			byName[*t.Topic] = t
		}
	}
	var found []leader
	for _, name := range topics {
		t := byName[name]
		if t == nil {
			bad.add(name, fmt.Errorf("%w: metadata does not mention it", fault.ErrNotFound))
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			bad.add(name, err)
			continue
		}
		slices.SortFunc(t.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition) - int(b.Partition) })
		for _, p := range t.Partitions {
			l := leader{replication.Partition{Topic: name, Partition: p.Partition}, p.Leader, p.LeaderEpoch}
			if p.Leader < 0 {
				bad.add(l.Name(), kerr.LeaderNotAvailable)
				l.broker = -1
			}
			found = append(found, l)
		}
	}
	return found, bad.err(c)
}
