package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// How often partitions whose leader moved between metadata and the question are asked again.
const lookAttempts = 4

// How often partitions are asked that have a new leader: it gives no offset before its followers have fetched from it, which
// takes as long as their fetches wait (replica.fetch.wait.max.ms, half a second).
const electedAttempts = 8

// Special timestamps of ListOffsets.
const (
	latest   int64 = -1
	earliest int64 = -2
)

// look is one partition under examination: what is known of its ends, and what went wrong.
type look struct {
	replication.Ends
	broker int32
	err    error
}

// Ends reads start, high watermark, last stable offset and log end offset of every partition of the topics, in their
// order. A value that could not be read is replication.Unknown, and the error, a *replication.Partial, names the
// partition, or the topic if not even its partitions are known. A result with a nil error is complete.
//
// The log end offset is read last: it never shrinks, so log end = high watermark proves that nothing was waiting for a
// follower when the high watermark was read.
func (c *Cluster) Ends(ctx context.Context, topics []string) ([]replication.Ends, error) {
	found, err := c.leaders(ctx, topics)
	missing, ok := errors.AsType[*replication.Partial](err)
	if err != nil && !ok {
		return nil, err
	}
	bad := partial{op: "read ends"}
	looks := make([]*look, len(found))
	for i, l := range found {
		looks[i] = newLook(l)
	}
	if ok { // topics that are not there; partitions without a leader are among the looks
		here := map[string]bool{}
		for _, l := range found {
			here[l.Name()] = true
		}
		for _, o := range missing.Failed {
			if !here[o.Name] {
				bad.failed, bad.first = append(bad.failed, o), missing.Err
			}
		}
	}
	open := looks
	for try := 0; ; try++ {
		c.lookAt(ctx, open)
		if open = movable(open); len(open) == 0 || try+1 >= attempts(open) || !pause(ctx, try) || !c.findAgain(ctx, open) {
			break
		}
	}
	ends := make([]replication.Ends, len(looks))
	for i, l := range looks {
		ends[i] = l.Ends
		bad.add(l.Name(), l.err)
	}
	return ends, bad.err(c)
}

func newLook(l leader) *look {
	k := &look{broker: l.broker, Ends: replication.Ends{Partition: l.Partition, LeaderEpoch: l.epoch, Start: replication.Unknown,
		LogEnd: replication.Unknown, HighWatermark: replication.Unknown, LastStable: replication.Unknown}}
	if l.broker < 0 {
		k.err = kerr.LeaderNotAvailable
	}
	return k
}

// movable are those that another leader may answer for.
func movable(looks []*look) []*look {
	var again []*look
	for _, l := range looks {
		if l.err != nil && errors.Is(translate(l.err, reading), fault.ErrNotReady) {
			again = append(again, l)
		}
	}
	return again
}

func attempts(looks []*look) int {
	if slices.ContainsFunc(looks, func(l *look) bool { return errors.Is(l.err, kerr.OffsetNotAvailable) }) {
		return electedAttempts
	}
	return lookAttempts
}

// findAgain asks who leads now; false when metadata cannot be had.
func (c *Cluster) findAgain(ctx context.Context, looks []*look) bool {
	var topics []string
	at := map[replication.Partition]*look{}
	for _, l := range looks {
		if at[l.Partition] = l; len(topics) == 0 || topics[len(topics)-1] != l.Topic {
			topics = append(topics, l.Topic)
		}
	}
	found, err := c.leaders(ctx, topics)
	if found == nil && err != nil {
		return false
	}
	for _, f := range found {
		if l := at[f.Partition]; l != nil {
			*l = *newLook(f)
		}
	}
	return true
}

// lookAt asks every leader at once.
func (c *Cluster) lookAt(ctx context.Context, looks []*look) {
	byBroker := map[int32][]*look{}
	for _, l := range looks {
		if l.broker >= 0 {
			byBroker[l.broker] = append(byBroker[l.broker], l)
		}
	}
	var wg sync.WaitGroup
	for broker, led := range byBroker {
		wg.Go(func() {
			type answer struct {
				offsets map[replication.Partition]int64
				errs    map[replication.Partition]error
				into    func(*look) *int64
			}
			answers := []*answer{
				{into: func(l *look) *int64 { return &l.Start }},
				{into: func(l *look) *int64 { return &l.HighWatermark }},
				{into: func(l *look) *int64 { return &l.LastStable }},
			}
			var asked sync.WaitGroup
			for i, q := range []struct {
				timestamp int64
				isolation int8
			}{{earliest, 0}, {latest, 0}, {latest, 1}} {
				asked.Go(func() {
					answers[i].offsets, answers[i].errs = c.listOffsets(ctx, broker, led, q.timestamp, q.isolation)
				})
			}
			asked.Wait()
			last := &answer{into: func(l *look) *int64 { return &l.LogEnd }}
			last.offsets, last.errs = c.logEnds(ctx, broker, led)
			for _, a := range append(answers, last) {
				for _, l := range led {
					if err := a.errs[l.Partition]; err != nil {
						if l.err == nil {
							l.err = err
						}
						continue
					}
					*a.into(l) = a.offsets[l.Partition]
				}
			}
		})
	}
	wg.Wait()
}

// perTopic groups partitions of one broker by topic, keeping their order.
func perTopic(led []*look, add func(topic string, of []*look)) {
	for i := 0; i < len(led); {
		j := i
		for j < len(led) && led[j].Topic == led[i].Topic {
			j++
		}
		add(led[i].Topic, led[i:j])
		i = j
	}
}

// listOffsets asks one broker: for each partition either an offset or an error.
func (c *Cluster) listOffsets(ctx context.Context, broker int32, led []*look, timestamp int64, isolation int8) (map[replication.Partition]int64, map[replication.Partition]error) {
	offsets, errs := make(map[replication.Partition]int64, len(led)), map[replication.Partition]error{}
	resp, err := listRequest(led, timestamp, isolation).RequestWith(ctx, c.on(broker))
	if err != nil {
		return offsets, all(led, c.fail(fmt.Sprintf("list offsets on broker %d", broker), err, reading))
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			at := replication.Partition{Topic: t.Topic, Partition: p.Partition}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				errs[at] = err
			} else if p.Offset >= 0 {
				offsets[at] = p.Offset
			}
		}
	}
	return offsets, unanswered(led, offsets, errs)
}

func listRequest(led []*look, timestamp int64, isolation int8) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	perTopic(led, func(topic string, of []*look) {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for _, l := range of {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = l.Partition.Partition, timestamp, l.LeaderEpoch
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	})
	return req
}

// logEnds asks one broker for the end of the current leader epoch, which is the log end offset of the leader.
func (c *Cluster) logEnds(ctx context.Context, broker int32, led []*look) (map[replication.Partition]int64, map[replication.Partition]error) {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	perTopic(led, func(topic string, of []*look) {
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		for _, l := range of {
			rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = l.Partition.Partition, l.LeaderEpoch, l.LeaderEpoch
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	})
	offsets, errs := make(map[replication.Partition]int64, len(led)), map[replication.Partition]error{}
	resp, err := req.RequestWith(ctx, c.on(broker))
	if err != nil {
		return offsets, all(led, c.fail(fmt.Sprintf("read log ends on broker %d", broker), err, reading))
	}
	epochs := make(map[replication.Partition]int32, len(led))
	for _, l := range led {
		epochs[l.Partition] = l.LeaderEpoch
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			at := replication.Partition{Topic: t.Topic, Partition: p.Partition}
			switch err := kerr.ErrorForCode(p.ErrorCode); {
			case err != nil:
				errs[at] = err
			case p.LeaderEpoch != epochs[at]: // the end of an older epoch is not the end of the log
				errs[at] = fmt.Errorf("%w: asked for the end of leader epoch %d, answered for %d", fault.ErrNotReady, epochs[at], p.LeaderEpoch)
			case p.EndOffset >= 0:
				offsets[at] = p.EndOffset
			}
		}
	}
	return offsets, unanswered(led, offsets, errs)
}

func all(led []*look, err error) map[replication.Partition]error {
	errs := make(map[replication.Partition]error, len(led))
	for _, l := range led {
		errs[l.Partition] = err
	}
	return errs
}

// unanswered adds an error for each partition that got neither an offset nor an error: silence is not zero.
func unanswered(led []*look, offsets map[replication.Partition]int64, errs map[replication.Partition]error) map[replication.Partition]error {
	for _, l := range led {
		if _, ok := offsets[l.Partition]; !ok && errs[l.Partition] == nil {
			errs[l.Partition] = fmt.Errorf("%w: the leader gave no offset", fault.ErrNotReady)
		}
	}
	return errs
}
