package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"switchback/internal/fault"
	"switchback/replication"
)

const (
	// commitEvery keeps transactions short: an open one holds up every read_committed consumer of a live topic (P31).
	commitEvery = 800 * time.Millisecond
	// sideBySide is how many partitions are copied at the same time. Each has a few pieces in memory, which bounds it.
	sideBySide = 8
	// lastWords is how long a recovery that is stopped may take to end what it has begun.
	lastWords = 3 * time.Second
	// batchLimit is how large batches are made, however large the topic would take them.
	batchLimit = 1 << 20
	// namedRefusals is how many refused records are named one by one.
	namedRefusals = 10
)

// recovery is one job at work. What is in progress of its tails is committed with the copies; told is what was.
type recovery struct {
	old, to *Cluster
	job     replication.CopyJob
	tx      *transaction
	tails   []*copying
	rate    *rate.Limiter
	told    func([]replication.Recovered)
	every   time.Duration // between commits
	most    int           // records in a piece

	gate sync.RWMutex // held by those who write and account, all of it by who commits

	mu   sync.Mutex
	bad  partial // tails that could not be read
	lost int     // of them, because nobody answered
}

// copying is one tail of a job.
type copying struct {
	now       replication.Recovered // as it will be with the next commit
	committed replication.Recovered
	packer    packer
	codec     kgo.CompressionCodecType // that the topic asks for; asIs is that of the producers
	limit     int                      // bytes of a batch
}

const asIs kgo.CompressionCodecType = -2

// Recover copies the stranded records of a job's tails from this cluster, which was left and is fenced, to another, each
// exactly once whatever dies on the way (P30), and accounts for every offset of them. Tails whose treatment copies
// nothing are read and counted as left. Copies get the headers of package replication and keep everything else; batches
// are compressed as the topic on the other cluster asks for, with compression.type=producer as they were.
//
// told hears how far all tails are after each commit, at least every second while something happens; it must be quick.
// When ctx ends, what was written is committed and Recover returns with what it has: the call may be repeated and goes
// on from there. It returns what is committed with every error: fault.ErrConflict when another call with the same id took
// over, or when a tail does not go on from what was done before. Tails that cannot be read do not hold up the others: a
// *replication.Partial names them, with fault.ErrNotReady while a transaction is open before the end of one, with
// fault.ErrNotFound when a topic is gone. A job needs about 100 MB whatever its length.
func (c *Cluster) Recover(ctx context.Context, to *Cluster, job replication.CopyJob, told func([]replication.Recovered)) ([]replication.Recovered, error) {
	r := &recovery{old: c, to: to, job: job, told: told, every: commitEvery, most: pieceRecords, bad: partial{op: "recover"}}
	return r.run(ctx)
}

func (r *recovery) run(ctx context.Context) ([]replication.Recovered, error) {
	if err := r.begin(ctx); err != nil {
		return r.committed(), err
	}
	defer r.tx.close()
	err := r.plain(ctx)
	if err == nil { // what comes now takes its time before it writes, and may have to abort what it wrote
		finish, cancel := grace(ctx)
		err = r.commit(finish)
		cancel()
	}
	if err == nil {
		err = r.compacted(ctx)
	}
	if err == nil {
		err = r.bad.err(r.old)
	}
	// Also when ctx has ended: nothing may stay open.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if r.tx.isBroken() {
		return r.committed(), errors.Join(err, r.tx.leave(last))
	}
	if done := r.commit(last); done != nil {
		return r.committed(), errors.Join(err, done, r.tx.leave(last))
	}
	return r.committed(), err
}

func (r *recovery) committed() []replication.Recovered {
	all := make([]replication.Recovered, len(r.tails))
	for i, t := range r.tails {
		all[i] = t.committed
	}
	return all
}

// begin fences whoever had the job before, and only then reads how far it was.
func (r *recovery) begin(ctx context.Context) error {
	if r.job.ID == "" || r.job.Tail == "" || r.job.Cluster == "" {
		return r.to.fail("recover", fmt.Errorf("%w: a job needs an id, a tail and a cluster", fault.ErrInvalid), writing)
	}
	for _, tail := range r.job.Tails {
		if tail.Treatment.Copies() && tail.Into.Topic == "" {
			return r.to.fail("recover "+tail.Name(), fmt.Errorf("%w: it says not where copies go", fault.ErrInvalid), reading)
		}
	}
	tx, err := r.to.transactional(ctx, r.job.ID)
	if err != nil {
		return err
	}
	if err := r.resume(ctx); err != nil {
		tx.close()
		return err
	}
	r.tx = tx
	r.tx.expect(progressPartition)
	if r.job.Rate > 0 {
		r.rate = rate.NewLimiter(rate.Limit(r.job.Rate), max(1, int(r.job.Rate/10)))
	}
	return nil
}

// resume reads the progress, and what the topics on the other side ask for.
func (r *recovery) resume(ctx context.Context) error {
	stored, err := r.to.Recoveries(ctx, r.job.Tail)
	if err != nil {
		return err
	}
	before := make(map[replication.Partition]replication.Recovered, len(stored))
	for _, s := range stored {
		before[s.Partition] = s
	}
	configs, err := r.configs(ctx)
	if err != nil {
		return err
	}
	for _, tail := range r.job.Tails {
		now := replication.Begin(tail)
		if s, ok := before[tail.Partition]; ok {
			if now, err = s.GoOn(tail); err != nil {
				return r.to.fail("recover "+tail.Name(), err, reading)
			}
		}
		t := &copying{now: now, committed: now, codec: asIs, limit: batchLimit}
		t.packer.stamp = newStamper(r.job, tail.Partition)
		t.wants(configs[tail.Into.Topic])
		r.tails = append(r.tails, t)
	}
	return nil
}

// configs of the topics that copies go to. Without the right to read them the brokers' defaults are assumed.
func (r *recovery) configs(ctx context.Context) (map[string]map[string]string, error) {
	var topics []string
	seen := map[string]bool{}
	for _, t := range r.job.Tails {
		if t.Treatment.Copies() && !seen[t.Into.Topic] {
			seen[t.Into.Topic], topics = true, append(topics, t.Into.Topic)
		}
	}
	configs, err := r.to.TopicConfigs(ctx, topics)
	if errors.Is(err, fault.ErrDenied) {
		err = nil
	}
	return configs, err
}

// wants takes over what a topic's configuration says about batches.
func (t *copying) wants(config map[string]string) {
	if n, err := strconv.Atoi(config["max.message.bytes"]); err == nil {
		t.limit = min(n, batchLimit)
	}
	for codec, name := range map[kgo.CompressionCodecType]string{kgo.CodecNone: "uncompressed", kgo.CodecGzip: "gzip",
		kgo.CodecSnappy: "snappy", kgo.CodecLz4: "lz4", kgo.CodecZstd: "zstd"} {
		if config["compression.type"] == name {
			t.codec = codec
		}
	}
}

// plain handles all tails but those where newer values may stand on the other side.
func (r *recovery) plain(ctx context.Context) error {
	todo := make(chan *copying, len(r.tails))
	for _, t := range r.tails {
		if !t.now.Done() && !t.guarded() {
			todo <- t
		}
	}
	close(todo)
	if len(todo) == 0 {
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	var workers sync.WaitGroup
	for range min(sideBySide, len(todo)) {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			for t := range todo {
				if err := r.survive(ctx, t, r.copy(ctx, t)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	idle := make(chan struct{})
	go func() { workers.Wait(); close(idle) }()
	g.Go(func() error { return r.commitNowAndThen(ctx, idle) })
	return g.Wait()
}

// survive lets the other tails go on when one of them cannot be read: only what stops or breaks the writing is for all.
func (r *recovery) survive(ctx context.Context, t *copying, err error) error {
	if err == nil || ctx.Err() != nil || r.tx.isBroken() {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad.add(t.now.Name(), err)
	if errors.Is(err, fault.ErrUnreachable) {
		r.lost++
	}
	if r.lost >= sideBySide || errors.Is(err, fault.ErrUnauthenticated) {
		return err // it is not the tail's own trouble
	}
	return nil
}

// guarded says that newer values of a tail's keys are looked for.
func (t *copying) guarded() bool {
	return t.now.Treatment == replication.TreatAppend && t.now.Compacted
}

// commitNowAndThen ends the transaction every so often, until nobody writes any more.
func (r *recovery) commitNowAndThen(ctx context.Context, idle <-chan struct{}) error {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-idle:
			return nil
		case <-tick.C:
		}
		r.gate.Lock()
		err := error(nil)
		if !r.tx.isBroken() && ctx.Err() == nil { // who broke it, or stopped it, has the word
			finish, cancel := grace(ctx)
			err = r.commit(finish)
			cancel()
		}
		r.gate.Unlock()
		if err != nil {
			return err
		}
	}
}

// grace lets what was begun end although the context does, for a little while.
func grace(ctx context.Context) (context.Context, context.CancelFunc) {
	still, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWords/2, cancel) })
	return still, func() { stop(); cancel() }
}

// copy handles one tail from where it stands.
func (r *recovery) copy(ctx context.Context, t *copying) error {
	if t.now.Treatment.Copies() {
		defer r.tx.expect(t.now.Into)()
	}
	return r.reader(t, t.now.To).pieces(ctx, func(p *piece) error {
		if err := r.allow(ctx, len(p.records)); err != nil {
			return err
		}
		r.gate.RLock()
		defer r.gate.RUnlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := r.handle(ctx, t, p)
		return err
	})
}

// reader of a tail from where it stands, in pieces that the rate limit lets pass at once.
func (r *recovery) reader(t *copying, end int64) *tailReader {
	reader := r.old.tail(t.now.Partition, t.now.Next, end)
	reader.each = int64(t.packer.stamp.size(&record{}) + 2*binary.MaxVarintLen64)
	if reader.most = r.most; r.rate != nil {
		reader.most = min(r.most, r.rate.Burst())
	}
	return reader
}

// allow waits until the rate limit lets n records pass; never inside of a transaction's own work.
func (r *recovery) allow(ctx context.Context, n int) error {
	if r.rate == nil {
		return nil
	}
	if err := r.rate.WaitN(ctx, min(n, r.rate.Burst())); err != nil && ctx.Err() == nil {
		return context.DeadlineExceeded // it would, before the records may pass
	}
	return ctx.Err()
}
