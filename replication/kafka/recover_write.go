package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"switchback/internal/fault"
	"switchback/replication"
)

const (
	// transactionTimeout is when the brokers abort a transaction whose producer is gone (P31).
	transactionTimeout = 20 * time.Second
	// writePatience is how long a write is tried again while leaders move and brokers start.
	writePatience = 12 * time.Second
)

// transaction is a transactional producer that speaks the protocol itself, because a recovery needs what a producer library
// hides: which batch was refused, so that the records in it can be told apart and the rest of the transaction stands; the
// compression that each topic asks for; and never a new epoch by itself, which would fence the successor of a zombie.
//
// One batch is under way for a partition at a time, which keeps the order; several partitions are written side by side.
type transaction struct {
	c  *Cluster // its own connections
	id string

	mu       sync.Mutex
	producer int64
	epoch    int16
	sequence map[replication.Partition]int32
	leaders  map[replication.Partition]leader
	added    map[replication.Partition]bool // to the transaction that is open
	expected map[replication.Partition]bool // to be written to in each transaction: they are added together
	broken   bool                           // a part of it is missing: it can only be aborted
	unclear  bool                           // an answer was lost, and its request may arrive late
}

// refusal is a batch that the cluster does not take, whatever is tried: nothing of it was written.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// refusals are the codes that speak of the records and not of the cluster.
var refusals = []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTimestamp, kerr.InvalidRecord}

// transactional takes the transactional id over: whoever had it before is fenced, and its open transaction aborted.
func (c *Cluster) transactional(ctx context.Context, id string) (*transaction, error) {
	versions := kversion.Stable()
	// From these versions on a produce request opens the transaction by itself and each end of one makes a new epoch. The
	// older protocol, which every broker speaks, keeps one epoch for the writer's life.
	for key, most := range map[kmsg.Key]int16{kmsg.Produce: 11, kmsg.InitProducerID: 4, kmsg.AddPartitionsToTxn: 3, kmsg.EndTxn: 4} {
		versions.SetMaxKeyVersion(key.Int16(), most)
	}
	client, err := kgo.NewClient(append(c.opts[:len(c.opts):len(c.opts)], kgo.MaxVersions(versions))...)
	if err != nil {
		return nil, c.fail("write with a transaction", fmt.Errorf("%w: %w", fault.ErrInvalid, err), writing)
	}
	w := &transaction{c: &Cluster{name: c.name, opts: c.opts, client: client, logins: c.logins}, id: id, producer: -1, epoch: -1,
		sequence: map[replication.Partition]int32{}, leaders: map[replication.Partition]leader{}, added: map[replication.Partition]bool{},
		expected: map[replication.Partition]bool{}}
	if err := w.begin(ctx, -1, -1); err != nil {
		client.Close()
		return nil, err
	}
	return w, nil
}

func (w *transaction) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

func (w *transaction) close() { w.c.client.Close() }

// begin asks for a producer id and epoch. With those that the writer has it ends its own transaction, and fails when
// somebody took the transactional id over.
func (w *transaction) begin(ctx context.Context, producer int64, epoch int16) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = kmsg.StringPtr(w.id), int32(transactionTimeout/time.Millisecond)
	req.ProducerID, req.ProducerEpoch = producer, epoch
	return w.insist(ctx, "take over the transactional id "+w.id, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, w.c.ask())
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		w.producer, w.epoch = resp.ProducerID, resp.ProducerEpoch
		return nil
	})
}

// insist asks until the answer is a final one. Coordinators that load, and transactions that are being ended, pass.
func (w *transaction) insist(ctx context.Context, doing string, ask func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, writePatience+transactionTimeout)
	defer cancel()
	for try := 0; ; try++ {
		err := ask(bounded)
		if err == nil {
			return nil
		}
		// The end of one transaction is still being written for a few milliseconds when the next one begins.
		if !passes(err) || !wait(bounded, min(maxBackoff, 2*time.Millisecond<<min(try, 10))) {
			return w.c.fail(doing, err, writing)
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// passes says that a code may be another one soon.
func passes(err error) bool {
	code, ok := errors.AsType[*kerr.Error](err)
	return ok && (code.Retriable || errors.Is(err, kerr.ConcurrentTransactions))
}

// expect adds a partition whenever another one is added, until the function that it returns is called.
func (w *transaction) expect(p replication.Partition) (no func()) {
	set := func(yes bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.expected, p); yes {
			w.expected[p] = true
		}
	}
	set(true)
	return func() { set(false) }
}

// join makes a partition part of the transaction, which begins with the first, and those that are expected with it.
func (w *transaction) join(ctx context.Context, p replication.Partition) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.added[p] {
		return nil
	}
	parts := []replication.Partition{p}
	for other := range w.expected {
		if other != p {
			parts = append(parts, other)
		}
	}
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = w.id, w.producer, w.epoch
	for _, p := range parts {
		if w.added[p] {
			continue
		}
		i := slices.IndexFunc(req.Topics, func(t kmsg.AddPartitionsToTxnRequestTopic) bool { return t.Topic == p.Topic })
		if i < 0 {
			rt := kmsg.NewAddPartitionsToTxnRequestTopic()
			rt.Topic, i = p.Topic, len(req.Topics)
			req.Topics = append(req.Topics, rt)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p.Partition)
	}
	err := w.insist(ctx, "begin a transaction", func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, w.c.ask())
		if err != nil {
			return err
		}
		var worst error // what is refused for one is not attempted for the others
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil && (worst == nil || errors.Is(worst, kerr.OperationNotAttempted)) {
					worst = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
				}
			}
		}
		return worst
	})
	if err != nil {
		_, answered := errors.AsType[*kerr.Error](err)
		w.broken, w.unclear = true, w.unclear || !answered
		return err
	}
	for _, p := range parts {
		w.added[p] = true
	}
	return nil
}

// write appends a batch and returns the offset of its first record. A refusal leaves the transaction as it was; every
// other error breaks it.
func (w *transaction) write(ctx context.Context, to replication.Partition, b packed) (int64, error) {
	if err := w.join(ctx, to); err != nil {
		return 0, err
	}
	w.mu.Lock()
	sequence := w.sequence[to]
	b.sign(w.producer, w.epoch, sequence)
	w.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	var base int64
	var err error
	sent := false // without an answer that says that nothing was written
	for try := 0; ; try++ {
		var lost bool
		base, lost, err = w.send(bounded, to, b)
		sent = sent || lost
		if err == nil || !lost && !passes(err) || !pause(bounded, try) {
			break
		}
		w.forget(to)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.sequence[to] = following(sequence, b.records)
		return base, nil
	}
	if refused := (refusal{}); errors.As(err, &refused) {
		return 0, err
	}
	w.broken, w.unclear = true, w.unclear || sent
	return 0, w.c.fail("write to "+to.Name(), err, writing)
}

func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// following is the sequence number after n records; they go round within an int32.
func following(sequence, n int32) int32 {
	return int32((int64(sequence) + int64(n)) % (math.MaxInt32 + 1)) //nolint:gosec // less than 2^31
}

// send asks the leader once. lost says that the batch may be in the log, or get there yet.
func (w *transaction) send(ctx context.Context, to replication.Partition, b packed) (base int64, lost bool, err error) {
	at, err := w.leader(ctx, to)
	if err != nil {
		return 0, false, err
	}
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = kmsg.StringPtr(w.id), -1, int32(requestTimeout/time.Millisecond)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = to.Topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = to.Partition, b.bytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, w.c.on(at.broker))
	if err != nil {
		return 0, true, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, true, fmt.Errorf("%w: the leader's answer does not hold the partition", fault.ErrUnclear)
	}
	p := resp.Topics[0].Partitions[0]
	err = coded(p.ErrorCode, p.ErrorMessage)
	for _, e := range refusals {
		if errors.Is(err, e) {
			return 0, false, refusal{err}
		}
	}
	if err == nil { // also for an attempt again whose first answer was lost: the leader remembers where that batch is
		return p.BaseOffset, false, nil
	}
	return 0, errors.Is(err, kerr.RequestTimedOut) || errors.Is(err, kerr.NotEnoughReplicasAfterAppend), err
}

func (w *transaction) leader(ctx context.Context, p replication.Partition) (leader, error) {
	w.mu.Lock()
	at, ok := w.leaders[p]
	w.mu.Unlock()
	if ok {
		return at, nil
	}
	at, err := w.c.leaderOf(ctx, p)
	if err != nil {
		return at, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaders[p] = at
	return at, nil
}

func (w *transaction) forget(p replication.Partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.leaders, p)
}

// end commits or aborts what is open. After an error of a commit nobody knows whether it was done: the progress tells.
func (w *transaction) end(ctx context.Context, commit bool) error {
	if len(w.added) == 0 {
		return nil
	}
	doing := map[bool]string{true: "commit a transaction", false: "abort a transaction"}[commit]
	if commit && w.broken {
		return w.c.fail(doing, fmt.Errorf("%w: a part of it was not written", fault.ErrInvalid), writing)
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.id, w.producer, w.epoch, commit
	err := w.insist(ctx, doing, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, w.c.ask())
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		w.broken, w.unclear = true, true
		return err
	}
	clear(w.added)
	w.broken = false
	return nil
}

// leave ends what is open before the writer is given up. When a request of it may arrive late a new epoch keeps that
// out of the log; it is asked for with the old one, which fails where somebody took over.
func (w *transaction) leave(ctx context.Context) error {
	if !w.unclear {
		return w.end(ctx, false)
	}
	return w.begin(ctx, w.producer, w.epoch)
}
