package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Brokers are a cluster of several as its super user sees it. Close it.
type Brokers struct {
	client    *kgo.Client
	processes []string
}

// Brokers opens a cluster.
func (s *Story) Brokers(cluster string) (*Brokers, error) {
	client, err := s.Lab.Kafka(cluster, "lab", kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &Brokers{client, s.Lab.BrokerProcesses(cluster)}, nil
}

// Close ends the connections.
func (b *Brokers) Close() { b.client.Close() }

// Process is the name of a broker's process.
func (b *Brokers) Process(id int32) string { return b.processes[id-1] }

// Spare is the broker with the highest id that does not lead the controllers: one that may fail without an election among
// them, which nobody could do anything during.
func (b *Brokers) Spare(ctx context.Context) (id int32, err error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{{}}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, b.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("ask who leads the controllers: %w", err)
	}
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return 0, errors.New("ask who leads the controllers: nobody knows")
	}
	id = int32(len(b.processes)) //nolint:gosec // three
	if resp.Topics[0].Partitions[0].LeaderID == id {
		id--
	}
	return id, nil
}

// Follows makes a broker a follower of everything: whatever happens to it, every partition has its leader still.
func (b *Brokers) Follows(ctx context.Context, id int32) error {
	return b.assign(ctx, func(string) bool { return true }, func(replicas []int32) []int32 {
		rest := slices.DeleteFunc(slices.Clone(replicas), func(r int32) bool { return r == id })
		if len(rest) < len(replicas) {
			rest = append(rest, id)
		}
		return rest
	})
}

// Alone leaves topics to one broker: without it they have no leader.
func (b *Brokers) Alone(ctx context.Context, id int32, topics ...string) error {
	return b.assign(ctx, func(t string) bool { return slices.Contains(topics, t) }, func([]int32) []int32 { return []int32{id} })
}

// Turn puts the first replica of every partition of some topics last, and has the next one lead.
func (b *Brokers) Turn(ctx context.Context, topics ...string) error {
	return b.assign(ctx, func(t string) bool { return slices.Contains(topics, t) }, func(replicas []int32) []int32 {
		return append(slices.Clone(replicas[1:]), replicas[0])
	})
}

// Trust has partitions of a topic without a leader led by a replica that lives again. Kafka itself does not believe that a broker
// that was killed still has all that it alone had, and waits until an operator says so.
func (b *Brokers) Trust(ctx context.Context, topic string) error {
	admin := kadm.NewClient(b.client)
	return Until(ctx, "leaders of "+topic, func() (bool, error) {
		found, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return false, err
		}
		var elect kadm.TopicsSet
		for _, p := range found[topic].Partitions.Sorted() {
			if p.Leader < 0 {
				elect.Add(topic, p.Partition)
			}
		}
		if len(elect) == 0 {
			return true, nil
		}
		_, err = admin.ElectLeaders(ctx, kadm.ElectLiveReplica, elect)
		return false, errors.Join(err, fmt.Errorf("%v have none", elect))
	})
}

// assign gives topics other replicas, and waits until they have them, in step, led by the first.
func (b *Brokers) assign(ctx context.Context, which func(topic string) bool, to func([]int32) []int32) error {
	admin := kadm.NewClient(b.client)
	topics, err := admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return fmt.Errorf("list the topics: %w", err)
	}
	var req kadm.AlterPartitionAssignmentsReq
	var elect kadm.TopicsSet
	want := map[string]map[int32][]int32{}
	for _, t := range topics {
		if !which(t.Topic) {
			continue
		}
		want[t.Topic] = map[int32][]int32{}
		for _, p := range t.Partitions {
			replicas := to(p.Replicas)
			want[t.Topic][p.Partition] = replicas
			elect.Add(t.Topic, p.Partition)
			if !slices.Equal(replicas, p.Replicas) {
				req.Assign(t.Topic, p.Partition, replicas)
			}
		}
	}
	if _, err := admin.AlterPartitionAssignments(ctx, req); err != nil {
		return fmt.Errorf("give partitions other replicas: %w", err)
	}
	return Until(ctx, "partitions to have the replicas and leaders that they shall have", func() (bool, error) {
		if _, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect); err != nil {
			return false, err
		}
		now, err := admin.ListTopicsWithInternal(ctx)
		if err != nil {
			return false, err
		}
		var not []string
		for topic, partitions := range want {
			for id, replicas := range partitions {
				p := now[topic].Partitions[id]
				if p.Leader != replicas[0] || len(p.Replicas) != len(replicas) || len(p.ISR) != len(replicas) {
					not = append(not, fmt.Sprintf("%s-%d has %v, in step %v, led by %d", topic, id, p.Replicas, p.ISR, p.Leader))
				}
			}
		}
		return len(not) == 0, errors.New(strings.Join(not, "; "))
	})
}

// GivenUp waits until the cluster has given up a broker: the partitions that it led have other leaders, or none. Answers of a
// client's cache go on listing it.
func (b *Brokers) GivenUp(ctx context.Context, id int32) error {
	return Until(ctx, "the cluster to give up broker "+fmt.Sprint(id), func() (bool, error) {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{}
		m, err := req.RequestWith(ctx, b.client)
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(m.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == id }), nil
	})
}

// Waits waits until an activity of a run says the right words of what it waits for, and returns them.
func (s *Story) Waits(ctx context.Context, id string, right func(said string) bool) (said string, err error) {
	err = Until(ctx, "the right words of run "+id, func() (bool, error) {
		all, err := s.said(ctx, id)
		if err != nil {
			return false, err
		}
		if i := slices.IndexFunc(all, right); i >= 0 {
			said = all[i]
			return true, nil
		}
		return false, fmt.Errorf("it says %q", all)
	})
	return said, err
}

// said is what the activities of a run that are under way say in their heartbeats, and why they failed the last time.
func (s *Story) said(ctx context.Context, id string) (all []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	run, err := s.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil, err
	}
	for _, a := range run.GetPendingActivities() {
		for _, p := range a.GetHeartbeatDetails().GetPayloads() {
			all = append(all, string(p.GetData()))
		}
		if why := a.GetLastFailure().GetMessage(); why != "" {
			all = append(all, why)
		}
	}
	return all, nil
}

// Leader is the broker that leads the first partition of a topic.
func (b *Brokers) Leader(ctx context.Context, topic string) (id int32, err error) {
	topics, err := kadm.NewClient(b.client).ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("ask who leads %s: %w", topic, err)
	}
	if id = topics[topic].Partitions[0].Leader; id < 1 {
		return 0, fmt.Errorf("ask who leads %s: nobody does", topic)
	}
	return id, nil
}
