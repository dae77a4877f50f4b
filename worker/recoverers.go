package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/activities"
	"switchback/replication"
)

// recoverers open pairs of clusters for copying what was stranded. Their connections are the ones that are kept.
type recoverers struct{ *systems }

func (r recoverers) Open(ctx context.Context, from, to activities.Site) (activities.Recoverer, error) {
	old, err := clusters(r).Open(ctx, from)
	if err != nil {
		return nil, err
	}
	present, err := clusters(r).Open(ctx, to)
	if err != nil {
		old.Close()
		return nil, err
	}
	return &recoverer{old: old.(*cluster), to: present.(*cluster)}, nil
}

// recoverer is such a pair.
type recoverer struct{ old, to *cluster }

func (r *recoverer) Close() {
	r.old.Close()
	r.to.Close()
}

func (r *recoverer) EnsureRecovery(ctx context.Context) error { return r.to.EnsureRecovery(ctx) }

func (r *recoverer) EnsureDiverted(ctx context.Context, topics []string) error {
	return r.old.EnsureDiverted(ctx, r.to.Cluster, topics)
}

func (r *recoverer) Stranded(ctx context.Context, tails []replication.Tail) ([]replication.Stranded, error) {
	return r.old.Stranded(ctx, r.to.Cluster, tails)
}

func (r *recoverer) Recover(ctx context.Context, job replication.CopyJob, told func([]replication.Recovered)) ([]replication.Recovered, error) {
	return r.old.Recover(ctx, r.to.Cluster, job, told)
}

func (r *recoverer) Recoveries(ctx context.Context, tail string) ([]replication.Recovered, error) {
	return r.to.Recoveries(ctx, tail)
}

// Prints reads ranges as they lie in the log, committed or not: the mirror copied them so.
func (r *recoverer) Prints(ctx context.Context, old bool, ranges []replication.Range) (map[replication.Partition][]activities.Print, error) {
	on := r.to
	if old {
		on = r.old
	}
	prints := make(map[replication.Partition][]activities.Print, len(ranges))
	var mu sync.Mutex
	err := on.ReadRanges(ctx, ranges, false, func(i int, record *kgo.Record) error {
		one := activities.Print{Offset: record.Offset, Sum: printOf(record), Timestamp: record.Timestamp.UnixMilli()}
		mu.Lock()
		defer mu.Unlock()
		prints[ranges[i].Partition] = append(prints[ranges[i].Partition], one)
		return nil
	})
	return prints, err
}

// printOf is a sum over key, value and headers, each with its length before it; null is not the same as empty.
func printOf(r *kgo.Record) (sum [32]byte) {
	h := sha256.New()
	part := func(b []byte) {
		n := int64(-1)
		if b != nil {
			n = int64(len(b))
		}
		_ = binary.Write(h, binary.BigEndian, n) // a hash takes everything
		h.Write(b)
	}
	part(r.Key)
	part(r.Value)
	for _, header := range r.Headers {
		part([]byte(header.Key))
		part(header.Value)
	}
	h.Sum(sum[:0])
	return sum
}
