package clients

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/ledger"
)

// ProducerConfig is a producer: so many records a second over so many keys.
type ProducerConfig struct {
	Config
	Rate      int           // records per second
	Every     time.Duration // how often they are sent
	Keys      int           // each written by this instance alone
	ValueSize int           // bytes
}

// flushTime is how long a producer that was told to end waits for what it has sent to be acknowledged.
const flushTime = 10 * time.Second

// pingTime is how long a cluster has to say that it is there.
const pingTime = time.Second

// producer keeps one record of a key in flight at a time, so that a record that is given up halts its key until it was
// sent again: the order within a key holds whatever happens.
type producer struct {
	config ProducerConfig
	client *kgo.Client
	book   *ledger.Writer

	mu    sync.Mutex
	next  []int64   // sequence to send, by key
	busy  []bool    // in flight
	fails error     // of the ledger: a producer that cannot write it down must not go on
	well  time.Time // of the last acknowledgement
	last  error     // why the last record was not acknowledged
}

// Producer writes until ctx ends, then waits for what is in flight and ends. What was not acknowledged is sent again by
// its next life, under the same sequence: it was never in the ledger.
func Producer(ctx context.Context, config ProducerConfig) error {
	book, err := ledger.OpenWriter(config.Ledger, config.Instance)
	if err != nil {
		return err
	}
	defer book.Close()
	last, err := ledger.LastAcked(config.Ledger, config.Instance)
	if err != nil {
		return err
	}
	// One request at a time to each broker: what becomes of a batch is known before the next one is sent.
	client, err := kgo.NewClient(append(config.Options,
		kgo.MaxProduceRequestsInflightPerBroker(1), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(0),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.MetadataMinAge(50*time.Millisecond), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	p := &producer{config: config, client: client, book: book, next: make([]int64, config.Keys), busy: make([]bool, config.Keys), well: time.Now()}
	for i := range p.next {
		p.next[i] = last[p.key(i)] + 1
	}
	p.write(ctx)
	// End: no new records, wait for those in flight. What a fence refuses is given up when the time is over.
	// Nothing is waited for of a cluster that is gone: the next life waits for this one's end.
	flush, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	begun := time.Now()
	go func() {
		if !answers(flush, client) {
			cancel()
		}
	}()
	err = client.Flush(flush)
	client.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	inFlight := 0
	for _, busy := range p.busy {
		if busy {
			inFlight++
		}
	}
	if err != nil {
		err = fmt.Errorf("%d records were neither acknowledged nor refused within %s; the next life sends them again, so they may be there twice: %w", inFlight, time.Since(begun).Round(time.Millisecond), err)
	}
	return errors.Join(err, p.fails)
}

// answers says whether any broker of the cluster is there.
func answers(ctx context.Context, client *kgo.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return client.Ping(ctx) == nil
}

func (p *producer) key(i int) string { return fmt.Sprintf("%s/%d", p.config.Instance, i) }

// giveUp is how long a producer goes on without an acknowledgement before it ends with an error, to be started anew by
// whoever watches over it: a client that was refused once may not recover by itself.
const giveUp = 10 * time.Second

// write sends at the rate until ctx ends, the ledger fails, or nothing is acknowledged any more.
func (p *producer) write(ctx context.Context) {
	ticker := time.NewTicker(p.config.Every)
	defer ticker.Stop()
	start, sent, at := time.Now(), 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		due := int(time.Since(start).Seconds() * float64(p.config.Rate))
		for tries := 0; sent < due && tries < p.config.Keys; tries++ {
			ok, failed := p.send(at)
			if failed {
				return
			}
			if ok {
				sent++
			}
			at = (at + 1) % p.config.Keys
		}
		if sent < due { // every key is in flight: what was missed is not made up for in a burst
			start, sent = time.Now(), 0
		}
	}
}

// send produces the next record of a key, unless one is in flight.
func (p *producer) send(i int) (sent, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails != nil {
		return false, true
	}
	if p.last != nil && time.Since(p.well) > giveUp {
		p.fails = fmt.Errorf("nothing was acknowledged for %s: %w", giveUp, p.last)
		return false, true
	}
	if p.busy[i] {
		return false, false
	}
	p.busy[i] = true
	seq := p.next[i]
	record := &kgo.Record{
		Topic: p.config.Prefix + p.config.Topics[i%len(p.config.Topics)], Key: []byte(p.key(i)),
		Value: ledger.EncodeValue(seq, p.config.ValueSize),
	}
	p.client.Produce(context.Background(), record, func(r *kgo.Record, err error) { p.done(i, seq, r, err) })
	return true, false
}

// done writes an acknowledgement down at once; a record that failed is sent again under its sequence.
func (p *producer) done(i int, seq int64, r *kgo.Record, err error) {
	if err == nil {
		err = p.book.Acked(ledger.Acked{
			At: time.Now(), Cluster: p.config.Cluster, Epoch: p.config.Epoch, Client: p.config.Client, Instance: p.config.Instance,
			Topic: p.config.logical(r.Topic), Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), Seq: seq,
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy[i], p.next[i], p.well, p.last = false, seq+1, time.Now(), nil
		p.fails = errors.Join(p.fails, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[i], p.last = false, err
}
