package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// Logs is what a Comparer asks of a cluster; *kafka.Cluster has it.
type Logs interface {
	Ends(ctx context.Context, topics []string) ([]replication.Ends, error)
	ReadRanges(ctx context.Context, ranges []replication.Range, committed bool, each func(int, *kgo.Record) error) error
	TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error)
}

// Comparer finds out what the target has of the source's records, by reading the ends of both logs (P33). It keeps
// fingerprints of records and no content. Safe for concurrent use.
type Comparer struct {
	From, To Logs
	Names    Names
	// Committed says that the mirror reads with isolation.level=read_committed: aborted records are not mirrored. The
	// target is always read committed, because an exactly-once mirror may leave aborted records there.
	Committed bool
	// Dropped says which records of the source the mirror's own filter leaves out; nil is none.
	Dropped func(*kgo.Record) bool
	// Limit is how many offsets of each log are compared at most for one partition; 0 is 100,000.
	Limit int64
}

const (
	usualLimit = 100_000
	margin     = 32      // offsets below the lowest position that are read at first
	grows      = 8       // by which a margin that was too small is multiplied
	budget     = 400_000 // offsets that are held at once, over all partitions
)

func (c Comparer) limit() int64 {
	if c.Limit > 0 {
		return c.Limit
	}
	return usualLimit
}

// pair is one partition on both clusters.
type pair struct {
	on       replication.Partition // as the source calls it
	remote   replication.Partition // as the target does
	from, to span
}

// span is what of a log can be compared.
type span struct{ start, end int64 }

// task is a pair under comparison: the records from low on, and before it as many as are needed.
type task struct {
	pair
	low    int64 // offset of the source
	margin int64
	limit  int64
	err    error
	alignment
}

func (t *task) sourceFrom() int64 { return max(t.from.start, t.low-t.margin) }
func (t *task) targetFrom() int64 {
	return max(t.to.start, t.to.end-(t.from.end-t.low)-3*t.margin)
}
func (t *task) size() int64 { return t.from.end - t.sourceFrom() + t.to.end - t.targetFrom() }

// exhausted: there is nothing more to look at, or it would be too much.
func (t *task) exhausted() bool {
	return t.sourceFrom() == t.from.start && t.targetFrom() == t.to.start || t.from.end-t.low+t.margin >= t.limit
}

// pairs finds the partitions on the target. lost are those that cannot be compared, by name on the source.
func (c Comparer) pairs(ctx context.Context, source []replication.Ends) (found []pair, lost []replication.Outcome, err error) {
	var topics []string
	seen := map[string]bool{}
	for _, e := range source {
		if !seen[e.Topic] {
			seen[e.Topic], topics = true, append(topics, c.Names.Remote(e.Topic))
		}
	}
	target, err := c.To.Ends(ctx, topics)
	some, ok := errors.AsType[*replication.Partial](err)
	if err != nil && !ok {
		return nil, nil, fmt.Errorf("read the ends of the target: %w", err)
	}
	ends := make(map[replication.Partition]replication.Ends, len(target))
	for _, e := range target {
		ends[e.Partition] = e
	}
	for _, s := range source {
		p := pair{on: s.Partition, remote: replication.Partition{Topic: c.Names.Remote(s.Topic), Partition: s.Partition.Partition}}
		t, there := ends[p.remote]
		end := s.HighWatermark
		if c.Committed {
			end = s.LastStable
		}
		p.from, p.to = span{s.Start, end}, span{t.Start, t.LastStable}
		switch {
		case s.Start < 0 || end < 0:
			lost = append(lost, replication.Outcome{Name: s.Name(), Status: replication.Unclear, Reason: "the source's ends are not known"})
		case !there:
			lost = append(lost, replication.Outcome{Name: s.Name(), Status: replication.Unclear, Reason: "the target does not have it" + why(some, p.remote)})
		case t.Start < 0 || t.LastStable < 0:
			lost = append(lost, replication.Outcome{Name: s.Name(), Status: replication.Unclear, Reason: "the target's ends are not known" + why(some, p.remote)})
		default:
			found = append(found, p)
		}
	}
	return found, lost, nil
}

func why(some *replication.Partial, on replication.Partition) string {
	if some == nil {
		return ""
	}
	for _, o := range some.Failed {
		if o.Name == on.Name() || o.Name == on.Topic {
			return ": " + o.Reason
		}
	}
	return ""
}

// compare reads both logs of every task and aligns them, further back until enough says that it will do or there is no
// more, and hands each task to done before it is forgotten. A task that could not be read has err set.
func (c Comparer) compare(ctx context.Context, tasks []*task, syncs func() map[replication.Partition][]Sync, enough func(*task) bool, done func(*task)) error {
	for len(tasks) > 0 {
		var now, later []*task
		var held int64
		for _, t := range tasks {
			if held += t.size(); len(now) > 0 && held > budget {
				later = append(later, t)
				continue
			}
			now = append(now, t)
		}
		if err := c.read(ctx, now); err != nil {
			return err
		}
		var again []*task
		for _, t := range now {
			if t.err == nil {
				t.alignment = align(t.window)
				if !enough(t) && syncs != nil {
					t.syncs = syncs()[t.on]
					t.alignment = align(t.window)
				}
				if !enough(t) && !t.exhausted() {
					t.margin *= grows
					t.alignment = alignment{}
					again = append(again, t)
					continue
				}
			}
			done(t)
			t.alignment = alignment{}
		}
		tasks = append(again, later...)
	}
	return nil
}

// read fills the windows of tasks, both clusters side by side. What cannot be read of some is their err.
func (c Comparer) read(ctx context.Context, tasks []*task) error {
	source, target := make([]replication.Range, len(tasks)), make([]replication.Range, len(tasks))
	for i, t := range tasks {
		source[i] = replication.Range{Partition: t.on, From: t.sourceFrom(), To: t.from.end}
		target[i] = replication.Range{Partition: t.remote, From: t.targetFrom(), To: t.to.end}
		t.window = window{sourceTo: t.from.end, targetTo: t.to.end, targetLow: t.to.start,
			sourceStart: t.sourceFrom() == t.from.start, targetStart: t.targetFrom() == t.to.start}
		t.whole = t.sourceFrom() == 0 && t.targetFrom() == 0
	}
	var wg sync.WaitGroup
	var ofSource, ofTarget error
	wg.Go(func() {
		ofSource = c.From.ReadRanges(ctx, source, c.Committed, func(i int, r *kgo.Record) error {
			if c.Dropped == nil || !c.Dropped(r) {
				tasks[i].source = append(tasks[i].source, fingerprintOf(r, false))
			}
			return nil
		})
	})
	wg.Go(func() {
		ofTarget = c.To.ReadRanges(ctx, target, true, func(i int, r *kgo.Record) error {
			tasks[i].target = append(tasks[i].target, fingerprintOf(r, true))
			return nil
		})
	})
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("compare records: %w: %w", fault.ErrNotReady, err)
	}
	return errors.Join(
		spread(ofSource, tasks, func(t *task) string { return t.on.Name() }),
		spread(ofTarget, tasks, func(t *task) string { return t.remote.Name() }))
}

// spread lays the failures of some ranges on their tasks; any other error is returned.
func spread(err error, tasks []*task, name func(*task) string) error {
	some, ok := errors.AsType[*replication.Partial](err)
	if !ok {
		return err
	}
	reasons := make(map[string]string, len(some.Failed))
	for _, o := range some.Failed {
		reasons[o.Name] = o.Reason
	}
	for _, t := range tasks {
		if reason, failed := reasons[name(t)]; failed && t.err == nil {
			t.err = fmt.Errorf("%w: %s", some.Err, reason)
		}
	}
	return nil
}
