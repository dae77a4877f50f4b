package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// newest asks ListOffsets for the record with the largest timestamp.
const newest int64 = -3

// Newest is the largest timestamp of a record in each partition of the topics. Partitions without records are left out.
// A *replication.Partial names those that could not be asked.
func (c *Cluster) Newest(ctx context.Context, topics []string) (map[replication.Partition]time.Time, error) {
	times := map[replication.Partition]time.Time{}
	err := c.byTime(ctx, topics, newest, func(p kmsg.ListOffsetsResponseTopicPartition, at replication.Partition) {
		if p.Timestamp >= 0 {
			times[at] = time.UnixMilli(p.Timestamp)
		}
	})
	return times, err
}

// OffsetsAt is the first offset of each partition of the topics whose record is at least as young as when. Partitions
// without such a record are left out. A *replication.Partial names those that could not be asked.
func (c *Cluster) OffsetsAt(ctx context.Context, topics []string, when time.Time) (map[replication.Partition]int64, error) {
	offsets := map[replication.Partition]int64{}
	err := c.byTime(ctx, topics, when.UnixMilli(), func(p kmsg.ListOffsetsResponseTopicPartition, at replication.Partition) {
		if p.Offset >= 0 {
			offsets[at] = p.Offset
		}
	})
	return offsets, err
}

// byTime asks every leader of the topics' partitions the same of its own.
func (c *Cluster) byTime(ctx context.Context, topics []string, timestamp int64, each func(kmsg.ListOffsetsResponseTopicPartition, replication.Partition)) error {
	found, err := c.leaders(ctx, topics)
	if found == nil && err != nil {
		return err
	}
	bad := partial{op: "list offsets by time"}
	byBroker := map[int32][]*look{}
	for _, l := range found {
		if l.broker < 0 {
			bad.add(l.Name(), kerr.LeaderNotAvailable)
			continue
		}
		byBroker[l.broker] = append(byBroker[l.broker], newLook(l))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for broker, led := range byBroker {
		wg.Go(func() {
			resp, err := listRequest(led, timestamp, 0).RequestWith(ctx, c.on(broker))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				err = c.fail(fmt.Sprintf("list offsets on broker %d", broker), err, reading)
				for _, l := range led {
					bad.add(l.Name(), err)
				}
				return
			}
			answered := map[replication.Partition]bool{}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					at := replication.Partition{Topic: t.Topic, Partition: p.Partition}
					answered[at] = true
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						bad.add(at.Name(), err)
						continue
					}
					each(p, at)
				}
			}
			for _, l := range led {
				if !answered[l.Partition] {
					bad.add(l.Name(), fmt.Errorf("%w: the leader did not answer for it", fault.ErrNotReady))
				}
			}
		})
	}
	wg.Wait()
	if len(bad.failed) > 0 {
		return bad.err(c)
	}
	return err // topics that are not there
}
