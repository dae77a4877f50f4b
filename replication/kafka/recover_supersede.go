package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// keysAtOnce is how many different keys of a tail are kept at a time, as hashes: some 30 MB. A longer tail is handled in
// stretches of so many, and what the other cluster has written since the switch is read once for each.
const keysAtOnce = 500_000

// keys of a stretch of a tail, by hash: whether the other cluster has a newer value. It never holds a key itself.
type keys struct {
	seeds [2]maphash.Seed
	newer map[[2]uint64]bool
}

func newKeys() *keys {
	return &keys{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, newer: map[[2]uint64]bool{}}
}

func (k *keys) hash(key []byte) [2]uint64 {
	return [2]uint64{maphash.Bytes(k.seeds[0], key), maphash.Bytes(k.seeds[1], key)}
}

// errFull ends the reading of a stretch.
var errFull = errors.New("enough keys for one stretch")

// learn reads the keys of a tail from where it stands, and says where the stretch of them ends.
func (c *Cluster) learn(ctx context.Context, p replication.Partition, from, to int64, most int) (*keys, int64, error) {
	k, end := newKeys(), to
	err := c.tail(p, from, to).pieces(ctx, func(p *piece) error {
		for i := range p.records {
			if key := p.records[i].key; key != nil {
				k.newer[k.hash(key)] = false
			}
		}
		if len(k.newer) >= most {
			end = p.next
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return k, end, err
}

// look marks the keys of which committed records that are no copies lie in a stretch of the other cluster's log.
func (k *keys) look(ctx context.Context, c *Cluster, p replication.Partition, from, to int64, copied func(*record) bool) error {
	if from >= to {
		return nil
	}
	return c.tail(p, from, to).pieces(ctx, func(p *piece) error {
		for i := range p.records {
			r := &p.records[i]
			if r.key == nil || copied(r) {
				continue
			}
			if h := k.hash(r.key); !k.newer[h] {
				if _, mine := k.newer[h]; mine {
					k.newer[h] = true
				}
			}
		}
		return nil
	})
}

// outdated says that the other cluster has a newer value of the record's key.
func (k *keys) outdated(r *record) bool { return r.key != nil && k.newer[k.hash(r.key)] }

// compacted handles, one after the other, the tails of compacted topics that are appended: a record whose key was
// written anew on the other cluster since the switch is superseded, also when that happens while it is being copied.
func (r *recovery) compacted(ctx context.Context) error {
	for _, t := range r.tails {
		if t.guarded() {
			if err := r.survive(ctx, t, r.guard(ctx, t)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *recovery) guard(ctx context.Context, t *copying) error {
	for t.now.Next < t.now.To {
		known, end, err := r.old.learn(ctx, t.now.Partition, t.now.Next, t.now.To, keysAtOnce)
		if err != nil {
			return err
		}
		g := &guard{recovery: r, t: t, keys: known, seen: t.now.Since}
		if err := g.copy(ctx, end); err != nil {
			return err
		}
	}
	return nil
}

// guard copies one stretch of a compacted tail.
type guard struct {
	*recovery
	t    *copying
	keys *keys
	seen int64 // up to where the other cluster's log was looked at
}

func (g *guard) copy(ctx context.Context, end int64) error {
	return g.reader(g.t, end).pieces(ctx, func(p *piece) error {
		if err := g.allow(ctx, len(p.records)); err != nil {
			return err
		}
		for {
			done, err := g.attempt(ctx, p)
			if done || err != nil {
				return err
			}
		}
	})
}

// attempt looks, writes what is not superseded, looks whether somebody wrote between, and commits. Somebody who did makes
// it start again: it is not done then, and nothing of it stays.
func (g *guard) attempt(ctx context.Context, p *piece) (done bool, err error) {
	if err := g.catchUp(ctx); err != nil {
		return false, err
	}
	before := g.t.now
	kept := &piece{next: p.next, tally: p.tally, codec: p.codec}
	for i := range p.records {
		if g.keys.outdated(&p.records[i]) {
			kept.tally.Superseded++
			continue
		}
		kept.records = append(kept.records, p.records[i])
	}
	wrote, err := g.handle(ctx, g.t, kept)
	if err != nil {
		return false, err
	}
	finish, cancel := grace(ctx)
	defer cancel()
	between, err := g.between(finish, wrote)
	if err != nil || between {
		g.t.now = before
		return false, errors.Join(err, g.tx.end(finish, false))
	}
	return true, g.commit(finish)
}

// catchUp marks what was committed on the other cluster up to now.
func (g *guard) catchUp(ctx context.Context) error {
	ends, err := g.to.endOf(ctx, g.t.now.Into)
	if err != nil {
		return err
	}
	from := max(g.seen, ends.Start)
	if err := g.keys.look(ctx, g.to, g.t.now.Into, from, ends.HighWatermark, g.copied); err != nil {
		return err
	}
	g.seen = max(g.seen, ends.HighWatermark)
	return nil
}

func (g *guard) copied(r *record) bool { return r.hasHeader(replication.HeaderFrom(g.job.Cluster)) }

// between says that somebody wrote a key of the stretch after it was looked at and before our last copy, in a transaction
// or not: which of them is the newer one is then no longer for us to say.
func (g *guard) between(ctx context.Context, wrote span) (bool, error) {
	if wrote.last == replication.Unknown {
		return false, nil
	}
	copied, found := CopiedFrom(g.job.Cluster), false
	err := g.to.Read(ctx, g.t.now.Into, g.seen, wrote.last, false, func(r *kgo.Record) error {
		if r.Key == nil || copied(r) {
			return nil
		}
		if newer, mine := g.keys.newer[g.keys.hash(r.Key)]; mine && !newer {
			found = true
		}
		return nil
	})
	return found, err
}

// endOf reads the ends of one partition.
func (c *Cluster) endOf(ctx context.Context, p replication.Partition) (replication.Ends, error) {
	ends, err := c.Ends(ctx, []string{p.Topic})
	for _, e := range ends {
		if e.Partition == p && e.HighWatermark != replication.Unknown && e.Start != replication.Unknown {
			return e, nil
		}
	}
	if err == nil {
		err = c.fail("read the ends of "+p.Name(), fmt.Errorf("%w: there is no such partition", fault.ErrNotFound), reading)
	}
	return replication.Ends{}, err
}
