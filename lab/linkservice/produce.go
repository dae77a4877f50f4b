package linkservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/lab/kafka"
)

// produce writes what was fetched, in rounds of one batch for each partition: a produce request holds no more.
func (r *runner) produce(flows map[string]flow, got map[tp]fetched) error {
	for round := 0; ; round++ {
		requests, sent := r.requests(flows, got, round)
		if len(sent) == 0 {
			break
		}
		if err := r.produceRound(requests, sent); err != nil {
			return err
		}
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for p, f := range got {
		m := r.l.Mirrors[p.topic]
		if m == nil || int(p.partition) >= len(m.Fetched) || !r.copied(m) {
			continue
		}
		next, lag := r.next[p], max(0, f.high-r.next[p])
		if m.Fetched[p.partition] != next || m.Lags[p.partition] != lag {
			m.Fetched[p.partition], m.Lags[p.partition] = next, lag
			r.s.dirty = true
		}
	}
	return nil
}

func (r *runner) requests(flows map[string]flow, got map[tp]fetched, round int) (map[int32]*kmsg.ProduceRequest, map[tp]batch) {
	requests, sent := map[int32]*kmsg.ProduceRequest{}, map[tp]batch{}
	for p, f := range got {
		if _, ok := flows[p.topic]; !ok || round >= len(f.batches) {
			continue
		}
		sent[p] = f.batches[round]
		if sent[p].blank {
			continue
		}
		leader := r.leaders.target[p]
		if requests[leader] == nil {
			requests[leader] = newProduce()
		}
		addProduce(requests[leader], p, f.batches[round].mirrored())
	}
	return requests, sent
}

func newProduce() *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, int32(kafka.MirrorTimeout.Milliseconds())
	return req
}

func addProduce(req *kmsg.ProduceRequest, p tp, records []byte) {
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = p.partition, records
	for i := range req.Topics {
		if req.Topics[i].Topic == p.topic {
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
			return
		}
	}
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = p.topic
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
}

// produceRound sends one batch per partition. A batch must land at its own offset; anything else ends the mirror.
func (r *runner) produceRound(requests map[int32]*kmsg.ProduceRequest, sent map[tp]batch) error {
	r.producing.Lock()
	defer r.producing.Unlock()
	for p, b := range sent { // a trimmed head, or the middle of a batch, at the start of a mirror
		switch next := r.next[p]; {
		case b.base > next && next > 0:
			r.failMirror(p.topic, "ILLEGAL_STATE", fmt.Sprintf("partition %d: %s: %d follows %d", p.partition, errGap, b.base, next))
			return errGap
		case b.base > next:
			if err := r.fill(r.ctx, p, b.base); err != nil {
				return err
			}
		case b.base < next:
			return fmt.Errorf("%s/%d: batch at %d, expected %d", p.topic, p.partition, b.base, next)
		}
	}
	still := r.flows()
	for p, b := range sent {
		if _, ok := still[p.topic]; ok && b.blank {
			if err := r.mark(r.ctx, p, b); err != nil {
				return err
			}
		}
	}
	for leader, req := range requests {
		for _, t := range req.Topics {
			if _, ok := still[t.Topic]; !ok {
				return fmt.Errorf("%s has stopped", t.Topic)
			}
		}
		if err := r.send(r.ctx, leader, req, func(p tp, offset int64) error {
			if offset != sent[p].base {
				r.failMirror(p.topic, "ILLEGAL_STATE", fmt.Sprintf("partition %d: offset %d of the source landed at %d", p.partition, sent[p].base, offset))
				return errors.New("offsets differ")
			}
			r.next[p] = sent[p].next
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) send(ctx context.Context, leader int32, req *kmsg.ProduceRequest, landed func(tp, int64) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	resp, err := r.target().client.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return fmt.Errorf("produce to broker %d: %w", leader, err)
	}
	for _, t := range resp.(*kmsg.ProduceResponse).Topics {
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				err = errors.Join(err, fmt.Errorf("produce to %s/%d: %w", t.Topic, p.Partition, e))
				continue
			}
			err = errors.Join(err, landed(tp{t.Topic, p.Partition}, p.BaseOffset))
		}
	}
	return err
}

// mark takes offsets that hold nothing to read with markers of transactions that nobody has begun: they stand in the log, and
// no consumer sees them.
func (r *runner) mark(ctx context.Context, p tp, b batch) error {
	const most = 500 // of one request
	for r.next[p] < b.next {
		req := kmsg.NewPtrWriteTxnMarkersRequest()
		n := min(b.next-r.next[p], most)
		for i := range n {
			m := kmsg.NewWriteTxnMarkersRequestMarker()
			m.ProducerID = nobody + r.next[p] + i
			t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
			t.Topic, t.Partitions = p.topic, []int32{p.partition}
			m.Topics = append(m.Topics, t)
			req.Markers = append(req.Markers, m)
		}
		resp, err := r.target().client.Broker(int(r.leaders.target[p])).Request(ctx, req)
		if err != nil {
			return fmt.Errorf("write markers to %s/%d: %w", p.topic, p.partition, err)
		}
		for _, m := range resp.(*kmsg.WriteTxnMarkersResponse).Markers {
			for _, t := range m.Topics {
				for _, one := range t.Partitions {
					if err := kerr.ErrorForCode(one.ErrorCode); err != nil {
						return fmt.Errorf("write markers to %s/%d: %w", p.topic, p.partition, err)
					}
				}
			}
		}
		r.next[p] += n
	}
	return nil
}

// nobody is where ids of producers begin that no cluster gives out.
const nobody = int64(1) << 52

// fill brings the target's end to an offset with records that are deleted at once, because the source has none there.
func (r *runner) fill(ctx context.Context, p tp, to int64) error {
	for r.next[p] < to {
		n := min(to-r.next[p], 10_000)
		req := newProduce()
		addProduce(req, p, filler(int32(n), time.Now().UnixMilli()))
		if err := r.send(ctx, r.leaders.target[p], req, func(tp, int64) error { r.next[p] += n; return nil }); err != nil {
			return err
		}
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: p.topic, Partition: p.partition, At: to})
	if _, err := kadm.NewClient(r.target().client).DeleteRecords(ctx, offsets); err != nil {
		return fmt.Errorf("trim %s/%d to %d: %w", p.topic, p.partition, to, err)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if m := r.l.Mirrors[p.topic]; m != nil && int(p.partition) < len(m.Start) {
		m.Start[p.partition] = to
		r.s.dirty = true
	}
	return nil
}
