package mirrormaker

import (
	"context"
	"fmt"
	"slices"

	"switchback/replication"
)

const (
	neighbours = 64    // records on each side of a position far from the end that are compared
	crowd      = 2_000 // offsets between positions that are compared together
	wide       = 8_192 // offsets of the target that a position is looked for in, at most
)

// farther looks for positions that lie too far back for all records after them to be compared: near each of them, where
// the offset syncs, or the beginnings of both logs, say that it must be. What it finds is taken out of open.
func (tr *translation) farther(ctx context.Context, pairs []pair, open map[replication.Partition][]question) {
	for _, p := range pairs {
		list := slices.DeleteFunc(slices.Clone(open[p.on]), func(q question) bool {
			return q.offset < p.from.start || q.offset >= p.from.end-tr.limit()
		})
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b question) int { return int(a.offset - b.offset) })
		answered := map[*replication.Translated]bool{}
		for len(list) > 0 && ctx.Err() == nil {
			n := 1
			for n < len(list) && list[n].offset-list[0].offset <= crowd {
				n++
			}
			tr.nearby(ctx, p, list[:n], answered)
			list = list[n:]
		}
		open[p.on] = slices.DeleteFunc(open[p.on], func(q question) bool { return answered[q.into] })
		if len(open[p.on]) == 0 {
			delete(open, p.on)
		}
	}
}

// nearby compares the surroundings of a few positions, in the order of their offsets.
func (tr *translation) nearby(ctx context.Context, p pair, list []question, answered map[*replication.Translated]bool) {
	first, last := list[0].offset, list[len(list)-1].offset
	low, high, ok := bracket(p, tr.syncs()[p.on], first, last)
	if !ok || high-low > wide {
		return
	}
	t := &task{pair: p, low: first, margin: neighbours}
	t.from.end = min(p.from.end, last+neighbours)
	// A task looks at the end of a log; here both are cut off where the neighbourhood ends.
	t.to = span{max(p.to.start, low-2*neighbours), min(p.to.end, high+2*neighbours)}
	t.margin = max(neighbours, t.to.end-t.to.start)
	if err := tr.read(ctx, []*task{t}); err != nil || t.err != nil {
		return
	}
	t.whole = t.whole && p.to.start == 0 && p.from.start == 0
	t.targetStart = t.to.start == p.to.start
	t.syncs = tr.syncs()[p.on]
	a := align(t.window)
	for _, q := range list {
		if q.offset == 0 && p.from.start == 0 && p.to.start == 0 {
			q.into.Target, q.into.Behind = 0, replication.Unknown
			q.into.Proof = "both logs begin with it; what the mirror wrote twice is read twice"
			answered[q.into] = true
			continue
		}
		i := from(a.source, q.offset)
		if i == 0 || i == len(a.source) || a.last[i-1] == nobody || a.first[i] != a.first[i-1]+1 || a.first[i] != a.last[i] {
			continue
		}
		q.into.Target, q.into.Behind = a.target[a.first[i]].offset, replication.Unknown
		q.into.Proof = fmt.Sprintf("the record at the commit was found; the %d offsets after it were not compared, and what the mirror wrote twice is read twice", p.from.end-q.offset)
		answered[q.into] = true
	}
}

// bracket says between which offsets of the target a stretch of the source must lie, by the nearest offset syncs. It is a
// guess that records confirm or do not: replays move it.
func bracket(p pair, syncs []Sync, first, last int64) (low, high int64, ok bool) {
	below, above := Sync{Upstream: -1}, Sync{Upstream: -1}
	if p.from.start == 0 && p.to.start == 0 {
		below = Sync{Upstream: 0, Downstream: 0}
	}
	for _, s := range syncs {
		if s.Downstream < p.to.start || s.Downstream >= p.to.end {
			continue
		}
		if s.Upstream <= first && s.Upstream >= below.Upstream {
			below = s
		}
		if s.Upstream >= last && (above.Upstream < 0 || s.Upstream <= above.Upstream) {
			above = s
		}
	}
	switch {
	case below.Upstream >= 0 && above.Upstream >= 0:
		low = max(below.Downstream, above.Downstream-(above.Upstream-first))
		high = min(above.Downstream, below.Downstream+(last-below.Upstream))
	case below.Upstream >= 0:
		low, high = below.Downstream, below.Downstream+(last-below.Upstream)
		low = max(low, high-wide/2-(last-first)) // without gaps it is the upper end
	case above.Upstream >= 0:
		low, high = above.Downstream-(above.Upstream-first), above.Downstream
		high = min(high, low+wide/2+(last-first))
	default:
		return 0, 0, false
	}
	if low > high {
		low, high = high, low
	}
	return low, high, true
}
