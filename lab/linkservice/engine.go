package linkservice

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

const (
	fetchWait  = 250 * time.Millisecond // long poll: new records end it at once
	fetchBytes = 8 << 20
	partBytes  = 1 << 20
)

// leaders are the brokers that lead partitions, by mirror topic, on both sides.
type leaders struct{ source, target map[tp]int32 }

// flow is a mirror that copies at the moment.
type flow struct {
	topic, source string
	partitions    int32
	from          string // mirror.start.offset.spec
}

// copied says whether records flow into the mirror; s.mu is held.
func (r *runner) copied(m *mirror) bool {
	if m == nil || m.Hold || r.s.effective(r.l, "cluster.link.paused") == "true" {
		return false
	}
	switch m.Status {
	case active, pendingMirror, pendingSync, pendingFill:
		return true
	case pendingStop:
		return m.Action == "promote"
	}
	return false
}

func (r *runner) flows() map[string]flow {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	out := map[string]flow{}
	for _, m := range r.l.Mirrors {
		if r.copied(m) {
			out[m.Topic] = flow{m.Topic, m.Source, m.Partitions, r.s.effective(r.l, "mirror.start.offset.spec")}
		}
	}
	return out
}

// copyLoop copies until the link ends. What it knows is only a cache: after any doubt it asks the target for its end
// offsets and goes on there, which is also how it starts after a crash.
func (r *runner) copyLoop() {
	for r.ctx.Err() == nil {
		rest := millis(r.s.cfg.Timings.EngineRestMillis)
		flows := r.flows()
		// Whatever happens to topics that are no mirrors meanwhile, such as being cut back, it is looked at anew.
		maps.DeleteFunc(r.next, func(p tp, _ int64) bool { _, ok := flows[p.topic]; return !ok })
		if len(flows) == 0 {
			rest = time.Second
		} else if err := r.copyOnce(flows); err != nil && r.ctx.Err() == nil {
			r.s.log.Debug("copying interrupted", "link", r.l.Name, "error", err)
			r.next = nil
			rest = 100 * time.Millisecond
		}
		select {
		case <-r.ctx.Done():
		case <-r.data:
		case <-time.After(rest):
		}
	}
}

func (r *runner) copyOnce(flows map[string]flow) error {
	if err := r.locate(flows); err != nil {
		return err
	}
	got, err := r.fetch(flows)
	if err != nil {
		return err
	}
	r.healthy()
	return r.produce(flows, got)
}

// locate finds leaders and where each partition goes on, if that is not known.
func (r *runner) locate(flows map[string]flow) error {
	known := r.next != nil
	for t, f := range flows {
		for p := range f.partitions {
			_, ok := r.next[tp{t, p}]
			known = known && ok
		}
	}
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	remote, err := r.remote()
	if err != nil {
		return err
	}
	local := kadm.NewClient(r.target().client)
	var topics, sources []string
	for t, f := range flows {
		topics, sources = append(topics, t), append(sources, f.source)
	}
	there, err := remote.Metadata(fresh(ctx), sources...)
	if err != nil {
		return fmt.Errorf("find leaders on the source: %w", err)
	}
	here, err := local.Metadata(fresh(ctx), topics...)
	if err != nil {
		return fmt.Errorf("find leaders on the target: %w", err)
	}
	ends, err := local.ListEndOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("read end offsets of the target: %w", err)
	}
	r.next, r.leaders = map[tp]int64{}, leaders{map[tp]int32{}, map[tp]int32{}}
	for t, f := range flows {
		for p := range f.partitions {
			end, ok := ends.Lookup(t, p)
			if !ok || end.Err != nil {
				delete(flows, t) // looked at again in the next round
				break
			}
			if src, ok := there.Topics[f.source].Partitions[p]; ok {
				r.leaders.source[tp{t, p}] = src.Leader
			}
			r.leaders.target[tp{t, p}] = here.Topics[t].Partitions[p].Leader
			r.next[tp{t, p}] = end.Offset
		}
	}
	return r.startLate(ctx, flows, remote)
}

// startLate skips what lies before mirror.start.offset.spec, for mirrors that are still empty.
func (r *runner) startLate(ctx context.Context, flows map[string]flow, remote *kadm.Client) error {
	for t, f := range flows {
		if f.from == "" || f.from == "earliest" {
			continue
		}
		var offsets kadm.ListedOffsets
		var err error
		if at, parseErr := time.Parse(time.RFC3339, f.from); parseErr == nil {
			offsets, err = remote.ListOffsetsAfterMilli(ctx, at.UnixMilli(), f.source)
		} else {
			offsets, err = remote.ListEndOffsets(ctx, f.source)
		}
		if err != nil {
			return err
		}
		for p := range f.partitions {
			if o, ok := offsets.Lookup(f.source, p); ok && o.Err == nil && r.next[tp{t, p}] == 0 && r.startOf(tp{t, p}) < 0 {
				if err := r.fill(ctx, tp{t, p}, o.Offset); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// startOf is the position that a mirror partition has reached by itself, -1 before its first.
func (r *runner) startOf(p tp) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if m := r.l.Mirrors[p.topic]; m != nil && int(p.partition) < len(m.Fetched) {
		return m.Fetched[p.partition]
	}
	return -1
}

// fetched is what one round brought for a partition.
type fetched struct {
	batches []batch
	high    int64
}

// fetch asks each leading broker of the source for all that it leads, in one request.
func (r *runner) fetch(flows map[string]flow) (map[tp]fetched, error) {
	requests := map[int32]*kmsg.FetchRequest{}
	for t, f := range flows {
		byLeader := map[int32]*kmsg.FetchRequestTopic{}
		for p := range f.partitions {
			leader, ok := r.leaders.source[tp{t, p}]
			if !ok || leader < 0 {
				continue
			}
			if byLeader[leader] == nil {
				rt := kmsg.NewFetchRequestTopic()
				rt.Topic = f.source
				byLeader[leader] = &rt
			}
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p, r.next[tp{t, p}], partBytes
			byLeader[leader].Partitions = append(byLeader[leader].Partitions, rp)
		}
		for leader, rt := range byLeader {
			if requests[leader] == nil {
				req := kmsg.NewPtrFetchRequest()
				req.ReplicaID, req.SessionEpoch, req.MinBytes, req.MaxBytes = -1, -1, 1, fetchBytes
				req.MaxWaitMillis, req.IsolationLevel = int32(fetchWait.Milliseconds()), 1 // what is not committed may be aborted yet
				requests[leader] = req
			}
			requests[leader].Topics = append(requests[leader].Topics, *rt)
		}
	}
	if len(requests) == 0 {
		return nil, errors.New("no partition of the source has a leader")
	}
	mirrors := map[string]string{} // source topic -> mirror topic
	for t, f := range flows {
		mirrors[f.source] = t
	}
	client := r.requester()
	if client == nil {
		return nil, errors.New("not connected")
	}
	var mu sync.Mutex
	out := map[tp]fetched{}
	g, ctx := errgroup.WithContext(r.ctx)
	for leader, req := range requests {
		g.Go(func() error {
			resp, err := client.Broker(int(leader)).Request(ctx, req)
			if err != nil {
				return fmt.Errorf("fetch from broker %d: %w", leader, err)
			}
			mu.Lock()
			defer mu.Unlock()
			return r.sort(resp.(*kmsg.FetchResponse), mirrors, out)
		})
	}
	return out, g.Wait()
}

// sort reads a fetch's answer into out. A mirror that cannot go on becomes FAILED.
func (r *runner) sort(resp *kmsg.FetchResponse, mirrors map[string]string, out map[tp]fetched) error {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			key := tp{mirrors[t.Topic], p.Partition}
			switch err := kerr.ErrorForCode(p.ErrorCode); {
			case errors.Is(err, kerr.OffsetOutOfRange):
				if err := r.outOfRange(key, t.Topic); err != nil {
					return err
				}
				continue
			case err != nil:
				return fmt.Errorf("fetch %s/%d: %w", t.Topic, p.Partition, err)
			}
			batches, err := split(p.RecordBatches, p.AbortedTransactions)
			if err != nil {
				why := "ILLEGAL_STATE"
				if errors.Is(err, errFormat) {
					why = "UNSUPPORTED_MESSAGE_FORMAT"
				}
				r.failMirror(key.topic, why, fmt.Sprintf("partition %d: %s", p.Partition, err))
				continue
			}
			out[key] = fetched{batches, p.HighWatermark}
		}
	}
	return nil
}

// outOfRange: the source was trimmed beyond what we have, which moves the mirror's start; or it was cut short.
func (r *runner) outOfRange(p tp, source string) error {
	ctx, cancel := context.WithTimeout(r.ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	remote, err := r.remote()
	if err != nil {
		return err
	}
	starts, err := remote.ListStartOffsets(ctx, source)
	if err != nil {
		return err
	}
	start, ok := starts.Lookup(source, p.partition)
	if !ok || start.Err != nil {
		return errors.New("the source's log start is not known")
	}
	if start.Offset > r.next[p] {
		return r.fill(ctx, p, start.Offset)
	}
	r.failMirror(p.topic, "UNEXPECTED_TRUNCATION", fmt.Sprintf("partition %d of the source ends before offset %d", p.partition, r.next[p]))
	return nil
}

func (r *runner) failMirror(topic, why, message string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if m := r.l.Mirrors[topic]; m != nil && r.copied(m) {
		m.fail(why, message)
		r.s.dirty = true
	}
}
