package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

var progressPartition = replication.Partition{Topic: replication.RecoveryTopic}

func progressKey(tail string, p replication.Partition) string { return tail + "/" + p.Name() }

// EnsureRecovery makes the topic that holds how far recoveries are, unless it is there. Progress is written every
// second, so its segments are small: only closed ones are compacted.
func (c *Cluster) EnsureRecovery(ctx context.Context) error {
	_, err := c.EnsureTopic(ctx, replication.NewTopic{Name: replication.RecoveryTopic, Partitions: 1, Configs: map[string]string{
		"cleanup.policy": "compact", "segment.bytes": strconv.Itoa(16 << 20), "min.cleanable.dirty.ratio": "0.1"}})
	if err != nil {
		return err
	}
	return c.Records(replication.RecoveryTopic).Ensure(ctx)
}

// Recoveries reads, on the cluster that records were copied to, how far each tail of a mark is: what was committed, up
// to the end as it was at the call. tail is the Tail of the job. A cluster without the topic is fault.ErrNotFound.
func (c *Cluster) Recoveries(ctx context.Context, tail string) ([]replication.Recovered, error) {
	ends, err := c.Ends(ctx, []string{replication.RecoveryTopic})
	if err != nil {
		if errors.Is(err, fault.ErrNotFound) {
			err = fault.Hint(err, "the topic is made by EnsureRecovery before the first recovery")
		}
		return nil, fmt.Errorf("read how far recoveries are: %w", err)
	}
	found := map[string]replication.Recovered{}
	for _, e := range ends {
		err := c.Read(ctx, e.Partition, e.Start, e.HighWatermark, true, func(r *kgo.Record) error {
			key := string(r.Key)
			if !strings.HasPrefix(key, tail+"/") {
				return nil
			}
			if r.Value == nil {
				delete(found, key)
				return nil
			}
			var one replication.Recovered
			if err := json.Unmarshal(r.Value, &one); err != nil {
				return c.fail("read how far recoveries are", fmt.Errorf("%w: the entry %q at offset %d of %s: %w", fault.ErrInvalid, key, r.Offset, replication.RecoveryTopic, err), reading)
			}
			found[key] = one
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]replication.Recovered, 0, len(found))
	for _, key := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[key])
	}
	return all, nil
}

// EnsureDiverted makes, on the other cluster, the topics that diverted records go to, unless they are there: with as many
// partitions as the topics have here, and their configs but for what would lose or change records. Those keep
// everything until somebody deletes them, and have room for the headers of a copy.
func (c *Cluster) EnsureDiverted(ctx context.Context, to *Cluster, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	wanted := make(map[string]bool, len(topics))
	for _, t := range topics {
		wanted[t] = true
	}
	found, err := c.Topics(ctx, func(name string) bool { return wanted[name] })
	if err != nil {
		return err
	}
	if len(found) < len(wanted) {
		return c.fail("find topics", fmt.Errorf("%w: of %s only %d are there", fault.ErrNotFound, strings.Join(topics, ", "), len(found)), reading)
	}
	own, err := c.TopicOverrides(ctx, topics)
	if err != nil {
		return err
	}
	effective, err := c.TopicConfigs(ctx, topics)
	if err != nil {
		return err
	}
	for _, t := range found {
		configs := divertedConfigs(own[t.Name], effective[t.Name])
		if _, err := to.EnsureTopic(ctx, replication.NewTopic{Name: t.Name + replication.DivertSuffix, Partitions: int32(t.Partitions), Configs: configs}); err != nil { //nolint:gosec // partitions are an int32
			return err
		}
	}
	return nil
}

// divertedConfigs of a topic, from what is set on the original and what counts for it.
func divertedConfigs(own, effective map[string]string) map[string]string {
	configs := maps.Clone(own)
	if configs == nil {
		configs = map[string]string{}
	}
	for name := range configs { // where replicas are and what they must do is the other cluster's own business
		if strings.Contains(name, "replication.throttled") || name == "min.insync.replicas" || strings.HasPrefix(name, "confluent.") ||
			name == "remote.storage.enable" || strings.HasPrefix(name, "local.retention.") {
			delete(configs, name)
		}
	}
	configs["cleanup.policy"], configs["retention.ms"], configs["retention.bytes"] = "delete", "-1", "-1"
	configs["message.timestamp.type"] = "CreateTime"
	if n, err := strconv.Atoi(effective["max.message.bytes"]); err == nil {
		configs["max.message.bytes"] = strconv.Itoa(n + replication.HeaderRoom)
	}
	return configs
}
