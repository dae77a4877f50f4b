package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// ClusterLog is what a cluster holds of some topics, sorted by topic, partition and offset.
type ClusterLog struct {
	Name    string
	Records []LogRecord
}

// LogRecord is one record of a log, without its padding.
type LogRecord struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       string
	Seq       int64
	Origin    string // the cluster from which a recovery has copied it, by its id as Kafka says it; empty: nothing has
}

type topicPartition struct {
	topic     string
	partition int32
}

// WithoutPrefix takes a prefix off the names of a log's topics, which a mirror has put there: after that a record has the same name
// on both clusters.
func (c ClusterLog) WithoutPrefix(prefix string) ClusterLog {
	for i := range c.Records {
		c.Records[i].Topic = strings.TrimPrefix(c.Records[i].Topic, prefix)
	}
	return c
}

// Named gives the origins of copies the names that the lab has for its clusters.
func (c ClusterLog) Named(name func(id string) string) ClusterLog {
	for i := range c.Records {
		if id := c.Records[i].Origin; id != "" {
			c.Records[i].Origin = name(id)
		}
	}
	return c
}

func origin(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == replication.HeaderOrigin {
			return string(h.Value)
		}
	}
	return ""
}

// ReadCluster reads the topics from their start up to the last stable offsets of this moment, committed records only.
// It fails when a topic is missing, when a record was not written by the lab's producers, and when ctx ends first.
func ReadCluster(ctx context.Context, name string, topics []string, options ...kgo.Opt) (ClusterLog, error) {
	out := ClusterLog{Name: name}
	if len(topics) == 0 { // to Kafka no topics are all topics
		return out, nil
	}
	wrap := func(err error) error { return fmt.Errorf("read the log of cluster %s: %w", name, err) }
	// Markers of transactions are kept, because one may be the last entry before the end.
	client, err := kgo.NewClient(append(slices.Clone(options),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return out, wrap(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return out, wrap(err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return out, wrap(err)
	}

	from, open := map[string]map[int32]kgo.Offset{}, map[topicPartition]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if start.Offset >= end.Offset {
			return
		}
		if from[end.Topic] == nil {
			from[end.Topic] = map[int32]kgo.Offset{}
		}
		from[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
		open[topicPartition{end.Topic, end.Partition}] = end.Offset
	})
	client.AddConsumePartitions(from)
	texts := parser{}
	for len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return out, wrap(fmt.Errorf("%d partitions were not read to their end: %w", len(open), err))
		}
		if err := fetches.Err(); err != nil {
			return out, wrap(err)
		}
		var foreign error
		fetches.EachRecord(func(r *kgo.Record) {
			p := topicPartition{r.Topic, r.Partition}
			end, ok := open[p]
			if !ok || foreign != nil {
				return
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				seq, err := DecodeValue(r.Value)
				if err != nil {
					foreign = fmt.Errorf("%s-%d at offset %d: %w", r.Topic, r.Partition, r.Offset, err)
					return
				}
				out.Records = append(out.Records, LogRecord{texts.one(r.Topic), r.Partition, r.Offset, texts.one(string(r.Key)), seq, texts.one(origin(r))})
			}
			if r.Offset >= end-1 {
				delete(open, p)
				client.PauseFetchPartitions(map[string][]int32{r.Topic: {r.Partition}})
			}
		})
		if foreign != nil {
			return out, wrap(foreign)
		}
	}
	slices.SortFunc(out.Records, func(a, b LogRecord) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return out, nil
}
