package mirrormaker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// ReadSyncs reads the whole topic of offset syncs, up to where it ended at the call: by partition as the source calls
// it, every sync that compaction has left, oldest first. They are the mirror's claims; a record that is the same on both
// sides makes one an anchor. What is no sync is left out: an anchor less. fault.ErrNotFound when there is no such topic.
func ReadSyncs(ctx context.Context, logs Logs, names Names) (map[replication.Partition][]Sync, error) {
	found := map[replication.Partition][]Sync{}
	err := readWhole(ctx, logs, names.OffsetSyncs(), func(r *kgo.Record) error {
		if s, err := DecodeSync(r.Key, r.Value); err == nil {
			found[s.On] = append(found[s.On], s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read offset syncs: %w", err)
	}
	return found, nil
}

// syncs reads the offset syncs from the cluster where they are.
func (c Comparer) syncs(ctx context.Context) (map[replication.Partition][]Sync, error) {
	if c.Names.Syncs == SyncsOnTarget {
		return ReadSyncs(ctx, c.To, c.Names)
	}
	return ReadSyncs(ctx, c.From, c.Names)
}
