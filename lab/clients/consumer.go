package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/ledger"
)

// ConsumerConfig is a member of a group.
type ConsumerConfig struct {
	Config
	Group    string
	StaticID string        // group.instance.id; empty for a dynamic member
	Rest     time.Duration // between two polls
}

// Consumer reads until ctx ends. It commits after processing, and processing a record is to write it into the ledger.
// On a rebalance it commits what it has processed before it gives partitions away, so that nobody reads it again.
func Consumer(ctx context.Context, config ConsumerConfig) error {
	book, err := ledger.OpenWriter(config.Ledger, config.Instance)
	if err != nil {
		return err
	}
	defer book.Close()
	committed := commits{book: book, config: config, last: map[string]map[int32]int64{}}
	commit := func(_ context.Context, client *kgo.Client, _ map[string][]int32) {
		committing, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		if err := client.CommitUncommittedOffsets(committing); err != nil {
			fmt.Fprintf(os.Stderr, "%s: commit: %v\n", config.Instance, err) // tried again with the next batch
			return
		}
		if err := committed.note(client.CommittedOffsets()); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", config.Instance, err)
		}
	}
	options := append(config.Options,
		kgo.ConsumerGroup(config.Group), kgo.ConsumeTopics(config.onCluster()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(commit), kgo.FetchMaxWait(100*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.HeartbeatInterval(100*time.Millisecond), kgo.Balancers(kgo.StickyBalancer()), kgo.SessionTimeout(10*time.Second))
	if config.StaticID != "" {
		options = append(options, kgo.InstanceID(config.StaticID))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 1000)
		fetches.EachError(func(topic string, partition int32, err error) {
			if !errors.Is(err, context.Canceled) {
				fmt.Fprintf(os.Stderr, "%s: fetch %s-%d: %v\n", config.Instance, topic, partition, err)
			}
		})
		if err := process(book, config, fetches); err != nil {
			return err
		}
		if fetches.NumRecords() > 0 {
			commit(ctx, client, nil)
		}
		client.AllowRebalance()
		select {
		case <-ctx.Done():
		case <-time.After(config.Rest):
		}
	}
	// What could not be committed before is committed now, or the end is not well: it will be read again.
	ending, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if !answers(ending, client) { // it can be told nothing, not even that this member leaves
		leaving, cancel := context.WithTimeout(ending, pingTime)
		defer cancel()
		return errors.Join(errors.New("the cluster is gone: what was not committed is read again"), client.LeaveGroupContext(leaving))
	}
	if err := client.CommitUncommittedOffsets(ending); err != nil {
		return fmt.Errorf("commit at the end: %w", err)
	}
	return committed.note(client.CommittedOffsets())
}

// commits writes down up to where the group has committed: a record beyond that is read again when its broker dies.
type commits struct {
	mu     sync.Mutex
	book   *ledger.Writer
	config ConsumerConfig
	last   map[string]map[int32]int64
}

func (c *commits) note(offsets map[string]map[int32]kgo.EpochOffset) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var news []ledger.Committed
	for topic, partitions := range offsets {
		if c.last[topic] == nil {
			c.last[topic] = map[int32]int64{}
		}
		for partition, at := range partitions {
			if last, known := c.last[topic][partition]; known && last == at.Offset {
				continue
			}
			c.last[topic][partition] = at.Offset
			news = append(news, ledger.Committed{
				At: time.Now(), Cluster: c.config.Cluster, Epoch: c.config.Epoch, Client: c.config.Client, Instance: c.config.Instance, Group: c.config.Group,
				Topic: c.config.logical(topic), Partition: partition, Offset: at.Offset,
			})
		}
	}
	return c.book.Committed(news...)
}

// process writes down what was read, before it is committed.
func process(book *ledger.Writer, config ConsumerConfig, fetches kgo.Fetches) error {
	now := time.Now()
	seen := make([]ledger.Seen, 0, fetches.NumRecords())
	var wrong error
	fetches.EachRecord(func(r *kgo.Record) {
		seq, err := ledger.DecodeValue(r.Value)
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s-%d at %d: %w", r.Topic, r.Partition, r.Offset, err))
			return
		}
		seen = append(seen, ledger.Seen{
			At: now, Cluster: config.Cluster, Epoch: config.Epoch, Client: config.Client, Instance: config.Instance, Group: config.Group,
			Topic: config.logical(r.Topic), Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), Seq: seq,
		})
	})
	if len(seen) == 0 {
		return wrong
	}
	return errors.Join(wrong, book.Seen(seen...))
}
