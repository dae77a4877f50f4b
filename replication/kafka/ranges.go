package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// rangeBytes of one partition in an answer about many: the ends of logs are short, and a long one takes several answers.
const rangeBytes = 1 << 20

// stretch is a range that is being read.
type stretch struct {
	replication.Range
	index int // in the caller's list
	at    leader
	tries int
}

// ReadRanges reads many stretches side by side, one question to each broker for all that it leads. each gets the index
// of the Range and a record; the records of one Range come in order, those of several at the same time. Like Read it
// ends when it knows that a Range holds no more, and committed skips aborted records and waits for open transactions.
// Ranges that could not be read to their end are named by a *replication.Partial with the sentinel of the first; an error
// of each ends everything. A partition may be in the list once: fault.ErrInvalid.
func (c *Cluster) ReadRanges(ctx context.Context, ranges []replication.Range, committed bool, each func(int, *kgo.Record) error) error {
	open := make([]*stretch, 0, len(ranges))
	seen := make(map[replication.Partition]bool, len(ranges))
	for i, r := range ranges {
		if seen[r.Partition] {
			return c.fail("read "+r.Name(), fmt.Errorf("%w: it was asked for twice", fault.ErrInvalid), reading)
		}
		seen[r.Partition] = true
		if r.From < r.To {
			open = append(open, &stretch{Range: r, index: i})
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bad := partial{op: "read records"}
	for round := 0; len(open) > 0; round++ {
		if round > 0 && !pause(ctx, round) {
			return c.fail("read records", ctx.Err(), reading)
		}
		byBroker, err := c.lead(ctx, open, &bad)
		if err != nil {
			return err
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		var stop error
		open = nil
		for broker, led := range byBroker {
			wg.Go(func() {
				moved, failed, err := c.stretches(ctx, broker, led, committed, each)
				mu.Lock()
				defer mu.Unlock()
				open = append(open, moved...)
				bad.failed = append(bad.failed, failed.failed...)
				if bad.first == nil {
					bad.first = failed.first
				}
				if err != nil && stop == nil {
					stop = err
					cancel()
				}
			})
		}
		wg.Wait()
		if stop != nil {
			return stop
		}
	}
	return bad.err(c)
}

// lead finds who leads each stretch now; those that nobody leads, or that have been asked for often enough, fail.
func (c *Cluster) lead(ctx context.Context, open []*stretch, bad *partial) (map[int32][]*stretch, error) {
	var topics []string
	seen := map[string]bool{}
	for _, s := range open {
		if !seen[s.Topic] {
			seen[s.Topic], topics = true, append(topics, s.Topic)
		}
	}
	found, err := c.leaders(ctx, topics)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return nil, err
	}
	at := make(map[replication.Partition]leader, len(found))
	for _, l := range found {
		at[l.Partition] = l
	}
	by := map[int32][]*stretch{}
	for _, s := range open {
		l, ok := at[s.Partition]
		switch s.tries++; {
		case !ok && errors.Is(err, fault.ErrNotFound), !ok && err == nil:
			bad.add(s.Name(), fmt.Errorf("%w: there is no such partition", fault.ErrNotFound))
		case !ok:
			bad.add(s.Name(), err)
		case l.broker < 0 || s.tries > lookAttempts:
			bad.add(s.Name(), kerr.LeaderNotAvailable)
		default:
			s.at = l
			by[l.broker] = append(by[l.broker], s)
		}
	}
	return by, nil
}

// stretches reads from one broker what it leads. moved are those that another leader may answer for.
func (c *Cluster) stretches(ctx context.Context, broker int32, led []*stretch, committed bool, each func(int, *kgo.Record) error) (moved []*stretch, failed partial, err error) {
	for len(led) > 0 {
		if ctx.Err() != nil {
			return nil, failed, c.fail("read records", ctx.Err(), reading)
		}
		answers, throttled, err := c.fetchMany(ctx, broker, led, committed)
		if err != nil {
			err = c.fail(fmt.Sprintf("read records on broker %d", broker), err, reading)
			if ctx.Err() != nil {
				return nil, failed, err
			}
			for _, s := range led {
				failed.add(s.Name(), err)
			}
			return moved, failed, nil
		}
		var empty, rest []*stretch // those that got nothing are asked for first
		for _, s := range led {
			a, ok := answers[s.Partition]
			if !ok {
				a.err = fmt.Errorf("%w: the leader's answer does not hold the partition", fault.ErrNotReady)
			}
			done, err := s.take(a, committed, throttled, each)
			switch {
			case err != nil && !errors.Is(err, errStop):
				if errors.Is(translate(err, reading), fault.ErrNotReady) && s.tries <= lookAttempts {
					moved = append(moved, s)
				} else {
					failed.add(s.Name(), err)
				}
			case err != nil:
				return nil, failed, errors.Unwrap(err)
			case done:
			case len(a.fp.Records) == 0:
				empty = append(empty, s)
			default:
				rest = append(rest, s)
			}
		}
		led = append(empty, rest...)
	}
	return moved, failed, nil
}

// errStop marks an error of the caller's own function.
var errStop = errors.New("stopped by the reader")

type stopped struct{ error }

func (s stopped) Unwrap() error   { return s.error }
func (s stopped) Is(e error) bool { return e == errStop }

// take hands an answer's records on; done says that the stretch has ended.
func (s *stretch) take(a fetched, committed, throttled bool, each func(int, *kgo.Record) error) (done bool, err error) {
	if a.err != nil {
		return false, a.err
	}
	for _, r := range a.fp.Records {
		if r.Offset >= s.To {
			return true, nil
		}
		if err := each(s.index, r); err != nil {
			return false, stopped{err}
		}
	}
	bound := a.fp.HighWatermark
	if committed {
		bound = a.fp.LastStableOffset
	}
	if a.next > s.From {
		s.From = a.next
		return s.From >= s.To, nil
	}
	// An answer that came without bytes because others filled it says nothing; one that came alone says that the rest
	// holds no record.
	return a.alone && !throttled && bound >= s.To, nil
}

// fetched is an answer for one partition.
type fetched struct {
	fp    kgo.FetchPartition
	next  int64
	alone bool // nothing else in the answer had bytes: this one was not cut short
	err   error
}

// fetchMany asks one broker once for all of led.
func (c *Cluster) fetchMany(ctx context.Context, broker int32, led []*stretch, committed bool) (map[replication.Partition]fetched, bool, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait/time.Millisecond), 1, fetchBytes
	isolation := kgo.ReadUncommitted()
	if committed {
		req.IsolationLevel, isolation = 1, kgo.ReadCommitted()
	}
	at := make(map[replication.Partition]*stretch, len(led))
	topics := map[string]int{}
	for _, s := range led {
		at[s.Partition] = s
		i, ok := topics[s.Topic]
		if !ok {
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic = s.Topic
			i, topics[s.Topic] = len(req.Topics), len(req.Topics)
			req.Topics = append(req.Topics, rt)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.FetchOffset = s.Partition.Partition, s.at.epoch, s.From
		rp.PartitionMaxBytes = rangeBytes
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, c.on(broker))
	if err != nil {
		return nil, false, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, false, err
	}
	answers := make(map[replication.Partition]fetched, len(led))
	full := 0
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			s := at[replication.Partition{Topic: t.Topic, Partition: p.Partition}]
			if s == nil {
				continue
			}
			var a fetched
			a.fp, a.next = kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: s.From, IsolationLevel: isolation,
				Topic: t.Topic, Partition: p.Partition}, p, kgo.DefaultDecompressor(), nil)
			a.err = a.fp.Err
			if len(p.RecordBatches) > 0 {
				full++
			}
			if a.err == nil && a.next == s.From && len(p.RecordBatches) > 0 {
				a.err = fmt.Errorf("%w: the broker sent %d bytes that hold no whole batch at offset %d", fault.ErrInvalid, len(p.RecordBatches), s.From)
			}
			answers[s.Partition] = a
		}
	}
	for p, a := range answers {
		a.alone = full == 0
		answers[p] = a
	}
	return answers, resp.ThrottleMillis > 0, nil
}
