package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

const (
	fetchBytes = 8 << 20 // of one answer; a larger batch still comes whole
	fetchWait  = 250 * time.Millisecond
)

// Read hands the records of one partition from offset from up to, not including, offset to, to each, in order. It ends
// when it knows that there are no more: compaction and transaction markers leave offsets without a record. With
// committed set it skips aborted records, and waits for open transactions to end. fault.ErrConflict when from lies
// outside of the log.
func (c *Cluster) Read(ctx context.Context, p replication.Partition, from, to int64, committed bool, each func(*kgo.Record) error) error {
	doing := "read " + p.Name()
	var at leader
	for try, known := 0, false; from < to; {
		if !known {
			led, err := c.leaderOf(ctx, p)
			if err != nil {
				return err
			}
			at, known = led, true
		}
		fp, next, wait, err := c.fetch(ctx, at, from, committed)
		if errors.Is(translate(err, reading), fault.ErrNotReady) && try < lookAttempts && pause(ctx, try) {
			try, known = try+1, false // the leader moved
			continue
		}
		if err != nil {
			return c.fail(doing, err, reading)
		}
		try = 0
		for _, r := range fp.Records {
			if r.Offset >= to {
				return nil
			}
			if err := each(r); err != nil {
				return err
			}
		}
		bound := fp.HighWatermark
		if committed {
			bound = fp.LastStableOffset
		}
		switch {
		case next > from:
			from = next
		case wait: // held back, by a quota or by an open transaction: ask again
			if ctx.Err() != nil {
				return c.fail(doing, ctx.Err(), reading)
			}
		case bound >= to: // nothing came although there is nothing to wait for: the rest holds no record
			return nil
		default:
			if ctx.Err() != nil {
				return c.fail(doing, fmt.Errorf("%w: offset %d of %d is not readable yet: %w", fault.ErrNotReady, bound, to, ctx.Err()), reading)
			}
		}
	}
	return nil
}

func (c *Cluster) leaderOf(ctx context.Context, p replication.Partition) (leader, error) {
	led, err := c.leaders(ctx, []string{p.Topic})
	for _, l := range led {
		if l.Partition == p && l.broker >= 0 {
			return l, nil
		}
	}
	if err == nil {
		err = c.fail("find the leader of "+p.Name(), fmt.Errorf("%w: there is no such partition", fault.ErrNotFound), reading)
	}
	return leader{}, err
}

// fetch asks the leader once. next is where to go on; throttled says that an empty answer means nothing.
func (c *Cluster) fetch(ctx context.Context, at leader, from int64, committed bool) (fp kgo.FetchPartition, next int64, throttled bool, err error) {
	answer, throttled, err := c.fetchRaw(ctx, at, from, committed, fetchBytes)
	if err != nil {
		return fp, from, false, err
	}
	isolation := kgo.ReadUncommitted()
	if committed {
		isolation = kgo.ReadCommitted()
	}
	fp, next = kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from, IsolationLevel: isolation,
		Topic: at.Topic, Partition: at.Partition.Partition}, answer, kgo.DefaultDecompressor(), nil)
	if fp.Err == nil && next == from && len(answer.RecordBatches) > 0 {
		fp.Err = fmt.Errorf("%w: the broker sent %d bytes that hold no whole batch at offset %d", fault.ErrInvalid, len(answer.RecordBatches), from)
	}
	return fp, next, throttled, fp.Err
}

// fetchRaw asks the leader once for at most so many bytes. The answer's own error code is left to the caller.
func (c *Cluster) fetchRaw(ctx context.Context, at leader, from int64, committed bool, most int32) (*kmsg.FetchResponseTopicPartition, bool, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait/time.Millisecond), 1, most
	if committed {
		req.IsolationLevel = 1
	}
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = at.Topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.CurrentLeaderEpoch, rp.FetchOffset, rp.PartitionMaxBytes = at.Partition.Partition, at.epoch, from, most
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c.on(at.broker))
	if err != nil {
		return nil, false, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, false, err
	}
	for i := range resp.Topics {
		if len(resp.Topics[i].Partitions) > 0 { // one was asked for
			return &resp.Topics[i].Partitions[0], resp.ThrottleMillis > 0, nil
		}
	}
	return nil, false, fmt.Errorf("%w: the leader's answer does not hold the partition", fault.ErrNotReady)
}

// produce writes records with acks=all by an idempotent producer and returns when every one is acknowledged. On error
// some may have been written: fault.ErrUnclear, unless none can have been. The client is dropped then, because a
// producer id that was refused once stays refused for a client. So does a topic that was made anew under its name, which is no
// error for anybody here: a client that does not know the old one writes to it.
func (c *Cluster) produce(ctx context.Context, records ...*kgo.Record) error {
	err := c.produceOnce(ctx, records...)
	if errors.Is(err, kerr.UnknownTopicID) {
		err = c.produceOnce(ctx, records...)
	}
	return err
}

func (c *Cluster) produceOnce(ctx context.Context, records ...*kgo.Record) error {
	client, err := c.writer(ctx)
	if err != nil {
		return err
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		c.mu.Lock()
		if c.producer == client {
			c.producer = nil
		}
		c.mu.Unlock()
		client.Close()
		return err
	}
	return nil
}

// writer is the client that produces, made when it is first needed. It has been answered once: what a producer does
// about a broker that refuses its login, or is not there, is to wait for the delivery time-out, and to call that unclear.
func (c *Cluster) writer(ctx context.Context) (*kgo.Client, error) {
	c.mu.Lock()
	client := c.producer
	c.mu.Unlock()
	if client != nil {
		return client, nil
	}
	client, err := kgo.NewClient(append(c.opts[:len(c.opts):len(c.opts)],
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(retryTimeout+requestTimeout),
		kgo.UnknownTopicRetries(2),
		// A caller whose deadline has passed must not be kept waiting; every record here may be written twice.
		kgo.AllowIdempotentProduceCancellation(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrInvalid, err)
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	if _, err := req.RequestWith(ctx, prompt{client}); err != nil {
		client.Close()
		return nil, c.fail("log in to write", err, reading)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.producer != nil { // made by another call meanwhile
		client.Close()
		return c.producer, nil
	}
	c.producer = client
	return client, nil
}

// EnsureCanary makes the topic for canaries unless it is there. The brokers stamp its records, which tells their clock.
func (c *Cluster) EnsureCanary(ctx context.Context, topic string) error {
	_, err := c.EnsureTopic(ctx, replication.NewTopic{Name: topic, Partitions: 1, Configs: map[string]string{
		"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"}})
	return err
}

// Canary writes one record with acks=all and reads it back with read_committed. The topic must exist.
func (c *Cluster) Canary(ctx context.Context, topic string) (replication.Canary, error) {
	begin := time.Now()
	r := &kgo.Record{Topic: topic, Value: []byte(begin.UTC().Format(time.RFC3339Nano))}
	if err := c.produce(ctx, r); err != nil {
		return replication.Canary{}, c.fail("write a canary to "+topic, err, writing)
	}
	out := replication.Canary{Offset: r.Offset, At: time.Now()}
	var back *kgo.Record
	on := replication.Partition{Topic: topic, Partition: r.Partition}
	err := c.Read(ctx, on, r.Offset, r.Offset+1, true, func(got *kgo.Record) error { back = got; return nil })
	if err != nil {
		return out, err
	}
	if back == nil || string(back.Value) != string(r.Value) {
		return out, c.fail("read the canary back", fmt.Errorf("%w: offset %d of %s holds something else", fault.ErrConflict, r.Offset, on.Name()), reading)
	}
	out.RoundTrip = time.Since(begin)
	if back.Attrs.TimestampType() == 1 {
		out.Skew, out.Skewed = skew(begin, out.At, back.Timestamp), true
	}
	return out, nil
}

// skew of the broker's clock, which stamped a record somewhere between sent and acknowledged.
func skew(sent, acknowledged, stamp time.Time) time.Duration {
	return stamp.Sub(sent.Add(acknowledged.Sub(sent) / 2))
}
