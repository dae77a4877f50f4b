package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"switchback/internal/fault"
	"switchback/replication"
)

// MaxValue is the largest value that a store keeps: it fits a topic with the default of max.message.bytes (1 MiB).
const MaxValue = 512 << 10

// Store is a compacted topic read as a map (P20): switchback.marks, switchback.positions. Safe for concurrent use; of
// two writers to one key the last one acknowledged wins.
type Store struct {
	c     *Cluster
	topic string
}

// Records opens a store. Nothing is asked of the cluster.
func (c *Cluster) Records(topic string) *Store { return &Store{c, topic} }

// Ensure makes the topic unless it is there, compacted, with one partition, so that writes have an order. One that is
// there and is not compacted is fault.ErrInvalid: it would forget.
func (s *Store) Ensure(ctx context.Context) error {
	_, err := s.c.EnsureTopic(ctx, replication.OwnTopicSpec(s.topic))
	if err != nil {
		return err
	}
	configs, err := s.c.TopicConfigs(ctx, []string{s.topic})
	if err != nil {
		return err
	}
	if policy := configs[s.topic]["cleanup.policy"]; policy != "compact" {
		return s.c.fail("check topic "+s.topic, fault.Hint(fmt.Errorf("%w: its cleanup.policy is %q", fault.ErrInvalid, policy),
			"set cleanup.policy=compact"), reading)
	}
	return nil
}

// Put writes entries, in the order of their keys, and returns when all are acknowledged by all in-sync replicas. After
// an error some may have been written; writing them again does no harm.
func (s *Store) Put(ctx context.Context, entries map[string][]byte) error {
	records := make([]*kgo.Record, 0, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		value := entries[key]
		if key == "" || value == nil || len(value) > MaxValue {
			return s.c.fail("write to "+s.topic, fmt.Errorf("%w: entry %q of %d bytes (a key, and at most %d bytes, are needed)",
				fault.ErrInvalid, key, len(value), MaxValue), writing)
		}
		records = append(records, &kgo.Record{Topic: s.topic, Key: []byte(key), Value: value})
	}
	return s.write(ctx, records)
}

// Delete forgets keys. One that is not there is no error.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	records := make([]*kgo.Record, 0, len(keys))
	for _, key := range keys {
		records = append(records, &kgo.Record{Topic: s.topic, Key: []byte(key)})
	}
	return s.write(ctx, records)
}

func (s *Store) write(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	return s.c.fail("write to "+s.topic, s.c.produce(ctx, records...), writing)
}

// archive is the prefix of what is kept for ever and seldom read: it is not remembered.
const archive = "marks/"

// remembered is what was read of a topic before: a run asks for its records in each step, and reads only what is new.
type remembered struct {
	mu      sync.Mutex
	id      [16]byte        // of the topic; zero before topic ids
	next    map[int32]int64 // by partition, the offset to go on from
	entries map[string][]byte
}

func (c *Cluster) remembered(topic string) *remembered {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records == nil {
		c.records = map[string]*remembered{}
	}
	if c.records[topic] == nil {
		c.records[topic] = &remembered{next: map[int32]int64{}, entries: map[string][]byte{}}
	}
	return c.records[topic]
}

// Load reads every entry whose key begins with prefix, up to the end of the topic as it was at the call. What it
// returns with a nil error is complete; with an error it returns nothing.
func (s *Store) Load(ctx context.Context, prefix string) (map[string][]byte, error) {
	var ends []replication.Ends
	var id [16]byte
	g, asking := errgroup.WithContext(ctx)
	g.Go(func() (err error) { ends, err = s.c.Ends(asking, []string{s.topic}); return err })
	g.Go(func() (err error) { id, err = s.c.topicID(asking, s.topic); return err })
	if err := g.Wait(); err != nil {
		if errors.Is(err, fault.ErrNotFound) {
			err = fault.Hint(err, "the topic is made when the runbook is protected")
		}
		return nil, fmt.Errorf("load %s: %w", s.topic, err)
	}
	m := s.c.remembered(s.topic)
	wanted := func(key string) bool { return !strings.HasPrefix(key, archive) }
	if strings.HasPrefix(prefix, archive) || strings.HasPrefix(archive, prefix) {
		m = &remembered{next: map[int32]int64{}, entries: map[string][]byte{}}
		wanted = func(key string) bool { return strings.HasPrefix(key, prefix) }
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	another := m.id != id
	for _, e := range ends {
		another = another || m.next[e.Partition.Partition] > e.HighWatermark
	}
	if another { // under the same name
		m.id, m.next, m.entries = id, map[int32]int64{}, map[string][]byte{}
	}
	for _, e := range ends {
		from := max(e.Start, m.next[e.Partition.Partition])
		err := s.c.Read(ctx, e.Partition, from, e.HighWatermark, false, func(r *kgo.Record) error {
			switch key := string(r.Key); {
			case !wanted(key):
			case r.Value == nil:
				delete(m.entries, key)
			default:
				m.entries[key] = r.Value
			}
			return nil
		})
		if err != nil { // what was read is read again next time, in the same order
			return nil, fmt.Errorf("load %s: %w", s.topic, err)
		}
		m.next[e.Partition.Partition] = e.HighWatermark
	}
	found := map[string][]byte{}
	for key, value := range m.entries {
		if strings.HasPrefix(key, prefix) {
			found[key] = value
		}
	}
	return found, nil
}
