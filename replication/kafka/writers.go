package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// Writers lists the producers that the leaders of the partitions remember, for a day by default, with the transactional
// id where they have one and the login may DESCRIBE it. It needs READ on the topics. Partitions whose leader did not
// answer are named in a *replication.Partial, and so are transactional ids that could not be looked up.
func (c *Cluster) Writers(ctx context.Context, partitions []replication.Partition) ([]replication.Writer, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	at := map[string]int{}
	for _, p := range partitions {
		i, ok := at[p.Topic]
		if !ok {
			i = len(req.Topics)
			at[p.Topic] = i
			rt := kmsg.NewDescribeProducersRequestTopic()
			rt.Topic = p.Topic
			req.Topics = append(req.Topics, rt)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p.Partition)
	}
	bad := partial{op: "list writers"}
	var writers []replication.Writer
	answered := map[replication.Partition]bool{}
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			for _, t := range shard.Req.(*kmsg.DescribeProducersRequest).Topics {
				for _, p := range t.Partitions {
					on := replication.Partition{Topic: t.Topic, Partition: p}
					answered[on] = true
					bad.add(on.Name(), shard.Err)
				}
			}
			continue
		}
		for _, t := range shard.Resp.(*kmsg.DescribeProducersResponse).Topics {
			for _, p := range t.Partitions {
				on := replication.Partition{Topic: t.Topic, Partition: p.Partition}
				answered[on] = true
				bad.add(on.Name(), coded(p.ErrorCode, p.ErrorMessage))
				for _, a := range p.ActiveProducers {
					writers = append(writers, writer(on, a))
				}
			}
		}
	}
	for _, p := range partitions {
		if !answered[p] {
			bad.add(p.Name(), fmt.Errorf("%w: its leader did not answer", fault.ErrNotReady))
		}
	}
	c.nameTransactions(ctx, writers, &bad)
	slices.SortFunc(writers, func(a, b replication.Writer) int {
		if a.Topic != b.Topic {
			if a.Topic < b.Topic {
				return -1
			}
			return 1
		}
		return int(a.Partition.Partition - b.Partition.Partition)
	})
	return writers, bad.err(c)
}

func writer(on replication.Partition, a kmsg.DescribeProducersResponseTopicPartitionActiveProducer) replication.Writer {
	w := replication.Writer{Partition: on, ProducerID: a.ProducerID, Epoch: a.ProducerEpoch, LastSequence: a.LastSequence,
		TxnStartOffset: a.CurrentTxnStartOffset, CoordinatorEpoch: a.CoordinatorEpoch}
	if a.LastTimestamp >= 0 {
		w.LastTimestamp = time.UnixMilli(a.LastTimestamp)
	}
	if w.TxnStartOffset < 0 {
		w.TxnStartOffset = replication.Unknown
	}
	return w
}

// nameTransactions asks every transaction coordinator which transactional ids the producer ids belong to.
func (c *Cluster) nameTransactions(ctx context.Context, writers []replication.Writer, bad *partial) {
	if len(writers) == 0 {
		return
	}
	req := kmsg.NewPtrListTransactionsRequest()
	for _, w := range writers {
		if !slices.Contains(req.ProducerIDFilters, w.ProducerID) {
			req.ProducerIDFilters = append(req.ProducerIDFilters, w.ProducerID)
		}
	}
	names := map[int64]string{}
	for _, shard := range c.sharded(ctx, req) {
		err := shard.Err
		if err == nil {
			resp := shard.Resp.(*kmsg.ListTransactionsResponse)
			err = kerr.ErrorForCode(resp.ErrorCode)
			for _, t := range resp.TransactionStates {
				names[t.ProducerID] = t.TransactionalID
			}
		}
		bad.add(fmt.Sprintf("transactional ids on broker %d", shard.Meta.NodeID), err)
	}
	for i := range writers {
		writers[i].TransactionalID = names[writers[i].ProducerID]
	}
}

// EndTransactions aborts what is open under the transactional ids and fences whoever uses them, by taking a new epoch
// (P9). It returns when each abort is complete. Give it ids that Writers named only: an unknown id would be made. It
// needs WRITE on the ids, and none on the topics: a fence does not stand in its way.
func (c *Cluster) EndTransactions(ctx context.Context, transactionalIDs []string) error {
	bad := partial{op: "end transactions", in: writing}
	errs := make([]error, len(transactionalIDs))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i, id := range transactionalIDs {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			errs[i] = c.endTransaction(ctx, id)
		})
	}
	wg.Wait()
	for i, id := range transactionalIDs {
		bad.add(id, errs[i])
	}
	return bad.err(c)
}

func (c *Cluster) endTransaction(ctx context.Context, id string) error {
	for try := 0; ; try++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = kmsg.StringPtr(id)
		req.TransactionTimeoutMillis = 60_000
		req.ProducerID, req.ProducerEpoch = -1, -1
		resp, err := req.RequestWith(ctx, c.ask())
		if err != nil {
			return c.fail("end the transaction", err, writing)
		}
		err = kerr.ErrorForCode(resp.ErrorCode)
		if err == nil {
			return nil
		}
		// The abort of what was open goes on behind this answer; the same request succeeds when it is complete.
		waits := errors.Is(translate(err, writing), fault.ErrNotReady)
		if !waits || !pause(ctx, try) {
			return err
		}
	}
}

// AbortTransactions writes the abort marker for open transactions that no coordinator of this cluster knows: those that a
// mirror brought along with its records. Give it what Writers said of them. It needs ALTER on the cluster. A
// *replication.Partial names the partitions on which a transaction could not be ended.
func (c *Cluster) AbortTransactions(ctx context.Context, open []replication.Writer) error {
	if len(open) == 0 {
		return nil
	}
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	for _, w := range open {
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch = w.ProducerID, int16(w.Epoch), w.CoordinatorEpoch //nolint:gosec // epochs of producers are 16 bits
		t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
		t.Topic, t.Partitions = w.Topic, []int32{w.Partition.Partition}
		m.Topics = append(m.Topics, t)
		req.Markers = append(req.Markers, m)
	}
	bad := partial{op: "abort transactions", in: writing}
	answered := 0
	for _, shard := range c.sharded(ctx, req) {
		if shard.Err != nil {
			bad.add("a leader", shard.Err)
			continue
		}
		for _, m := range shard.Resp.(*kmsg.WriteTxnMarkersResponse).Markers {
			for _, t := range m.Topics {
				for _, p := range t.Partitions {
					answered++
					bad.add(fmt.Sprintf("producer id %d on %s-%d", m.ProducerID, t.Topic, p.Partition), kerr.ErrorForCode(p.ErrorCode))
				}
			}
		}
	}
	if answered < len(open) && len(bad.failed) == 0 {
		bad.add("some", fmt.Errorf("%w: %d of %d were answered for", fault.ErrUnclear, answered, len(open)))
	}
	return bad.err(c)
}
