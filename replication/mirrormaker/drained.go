package mirrormaker

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"switchback/replication"
)

// drainWindow is how many offsets are compared at most to see whether a partition is drained: a mirror that is farther
// behind is not, and is asked about again and again.
const drainWindow = 4 << 10

// Drained says for each partition, by the source's name, whether the target has everything up to the source's end: OK,
// Pending with what is to go, or Unclear with the reason. It is the comparison of records, from an anchor to the end:
// offsets differ between the clusters, and lag 0 of the mirror's own is a hint (P33). Transactions' markers and aborted
// records are looked past where the mirror leaves them out.
func (c Comparer) Drained(ctx context.Context, source []replication.Ends) ([]replication.Outcome, error) {
	pairs, lost, err := c.pairs(ctx, source)
	if err != nil {
		return nil, err
	}
	found := make(map[string]replication.Outcome, len(source))
	for _, o := range lost {
		found[o.Name] = o
	}
	held := map[replication.Partition]bool{}
	if c.Committed {
		for _, e := range source {
			held[e.Partition] = e.LastStable < e.HighWatermark
		}
	}
	var tasks []*task
	for _, p := range pairs {
		switch {
		case held[p.on]:
			found[p.on.Name()] = replication.Outcome{Name: p.on.Name(), Status: replication.Pending,
				Reason: fmt.Sprintf("a transaction is open on the source since offset %d: what follows it is not mirrored", p.from.end)}
		case p.from.start == p.from.end:
			found[p.on.Name()] = replication.Outcome{Name: p.on.Name(), Status: replication.OK}
		default:
			tasks = append(tasks, &task{pair: p, low: p.from.end, margin: margin, limit: min(drainWindow, c.limit())})
		}
	}
	syncs := sync.OnceValue(func() map[replication.Partition][]Sync {
		all, err := c.syncs(ctx)
		if err != nil {
			return nil // anchors less
		}
		return all
	})
	enough := func(t *task) bool {
		if len(t.source) == 0 {
			t.limit = c.limit() // markers and aborted records alone, so far
		}
		status, _ := t.drained(true)
		return status == replication.OK || status == replication.Pending && (t.reached != nobody || t.to.start == 0)
	}
	err = c.compare(ctx, tasks, syncs, enough, func(t *task) {
		o := replication.Outcome{Name: t.on.Name(), Status: replication.Unclear}
		if t.err != nil {
			o.Reason = t.err.Error()
		} else if o.Status, o.Reason = t.drained(false); o.Status == replication.Unclear && c.compacted(ctx, t.remote.Topic) {
			o.Status, o.Reason = t.drained(true)
		}
		found[o.Name] = o
	})
	if err != nil {
		return nil, err
	}
	out := make([]replication.Outcome, 0, len(source))
	for _, e := range source {
		out = append(out, found[e.Name()])
	}
	return out, nil
}

// compacted says whether a topic of the target may lose records that have been superseded. Unknown is no.
func (c Comparer) compacted(ctx context.Context, topic string) bool {
	configs, err := c.To.TopicConfigs(ctx, []string{topic})
	return err == nil && compacts(configs[topic])
}

func compacts(config map[string]string) bool {
	return strings.Contains(config["cleanup.policy"], "compact")
}
