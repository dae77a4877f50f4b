package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"switchback/internal/fault"
	"switchback/replication"
)

// Proofs of a translation, beside replication.ProofExact. They may be followed by numbers and reasons.
const (
	ProofCheckpoint   = "checkpoint"
	ProofNoCheckpoint = "no checkpoint"
	ProofNoCommit     = "no commit"
)

// question is one offset of one group, and where its answer goes.
type question struct {
	group  string
	offset int64
	into   *replication.Translated
}

// translation is one call of Translate.
type translation struct {
	Comparer
	syncs       func() map[replication.Partition][]Sync
	checkpoints func() *Checkpoints
	configs     func() map[string]map[string]string // of the source's topics
}

// Translate finds for each offset that a group has committed on the source where it goes on on the target: just after
// the record that matches the last one below it. Partitions have the source's names, in the answer too, in the order of
// the question. The proof is exact, or says in words how far behind; never is a group put beyond a record that it has
// not read. Where records do not tell it is the newest checkpoint that is not beyond the commit; where there is none
// Target is Unknown.
//
// Partitions that could not be read are answered by checkpoints as well, and named by a *replication.Partial.
func (c Comparer) Translate(ctx context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	tr := &translation{Comparer: c}
	tr.syncs = sync.OnceValue(func() map[replication.Partition][]Sync {
		found, err := c.syncs(ctx)
		if err != nil { // anchors less, never a wrong one
			return nil
		}
		return found
	})
	tr.checkpoints = sync.OnceValue(func() *Checkpoints {
		found, err := ReadCheckpoints(ctx, c.To, c.Names)
		if err != nil {
			return nil
		}
		return found
	})
	out, asked, topics := questions(groups)
	tr.configs = sync.OnceValue(func() map[string]map[string]string {
		found, err := c.From.TopicConfigs(ctx, topics)
		if err != nil { // then nothing is explained by compaction
			return nil
		}
		return found
	})
	if len(asked) == 0 {
		return out, nil
	}
	source, err := c.From.Ends(ctx, topics)
	unread, some := errors.AsType[*replication.Partial](err)
	if err != nil && !some {
		return nil, fmt.Errorf("read the ends of the source: %w", err)
	}
	pairs, lost, err := c.pairs(ctx, slices.DeleteFunc(source, func(e replication.Ends) bool { return asked[e.Partition] == nil }))
	if err != nil {
		return nil, err
	}
	bad := &replication.Partial{Op: "translate offsets", Err: fault.ErrNotReady, Failed: lost}
	if some {
		bad.Err = unread.Err
	}
	open := make(map[replication.Partition][]question, len(asked))
	for on, list := range asked {
		open[on] = list
	}
	var tasks []*task
	for _, p := range pairs {
		tasks = append(tasks, tr.task(p, asked[p.on]))
	}
	err = c.compare(ctx, tasks, tr.syncs, func(t *task) bool { return t.settled(t.low) }, func(t *task) {
		if t.err != nil {
			bad.Err = t.err
			bad.Failed = append(bad.Failed, replication.Outcome{Name: t.on.Name(), Status: replication.Unclear, Reason: t.err.Error()})
			return
		}
		open[t.on] = tr.answer(t, open[t.on])
		if len(open[t.on]) == 0 {
			delete(open, t.on)
		}
	})
	if err != nil {
		return nil, err
	}
	tr.farther(ctx, pairs, open)
	tr.fallBack(ctx, groups, open)
	for on := range open { // partitions that the source did not even name
		if !slices.ContainsFunc(source, func(e replication.Ends) bool { return e.Partition == on }) {
			bad.Failed = append(bad.Failed, replication.Outcome{Name: on.Name(), Status: replication.Unclear, Reason: "the source's ends are not known" + why(unread, on)})
		}
	}
	if len(bad.Failed) > 0 {
		return out, bad
	}
	return out, nil
}

// questions copies groups for the answers, and sorts what is to be found out by partition.
func questions(groups []replication.GroupOffsets) (out []replication.GroupOffsets, asked map[replication.Partition][]question, topics []string) {
	asked = map[replication.Partition][]question{}
	seen := map[string]bool{}
	out = make([]replication.GroupOffsets, len(groups))
	for i, g := range groups {
		out[i] = replication.GroupOffsets{Group: g.Group, Offsets: slices.Clone(g.Offsets)}
		for j := range out[i].Offsets {
			o := &out[i].Offsets[j]
			o.Target, o.Behind, o.Proof = replication.Unknown, replication.Unknown, ProofNoCommit
			if o.Source < 0 {
				o.Source = replication.Unknown
				continue
			}
			asked[o.Partition] = append(asked[o.Partition], question{g.Group, o.Source, o})
			if !seen[o.Topic] {
				seen[o.Topic], topics = true, append(topics, o.Topic)
			}
		}
	}
	return out, asked, topics
}

// task covers the positions that lie near enough to the end of the source.
func (tr *translation) task(p pair, asked []question) *task {
	low := p.from.end
	for _, q := range asked {
		if q.offset >= p.from.start && q.offset >= p.from.end-tr.limit() {
			low = min(low, q.offset)
		}
	}
	return &task{pair: p, low: low, margin: margin, limit: tr.limit() + margin}
}

// answer fills in what the windows tell, and returns the questions that they do not.
func (tr *translation) answer(t *task, asked []question) (open []question) {
	positions := make([]int64, len(asked))
	for i, q := range asked {
		positions[i] = min(q.offset, t.from.end)
	}
	found := t.places(positions)
	if slices.ContainsFunc(found, func(p place) bool { return p.again > 0 }) && compacts(tr.configs()[t.on.Topic]) {
		t.compacted = true
		found = t.places(positions)
	}
	for i, p := range found {
		q := asked[i]
		if !p.found || q.offset < t.from.start || q.offset < t.low {
			open = append(open, q)
			continue
		}
		q.into.Target, q.into.Behind, q.into.Proof = p.target, p.again+p.ahead, p.proof()
		if q.offset > t.from.end {
			q.into.Proof = fmt.Sprintf("the commit lies beyond the source's end %d and counts as that; %s", t.from.end, q.into.Proof)
		}
	}
	return open
}

// proof is exact, or says what is in the way of it.
func (p place) proof() string {
	switch {
	case p.exact():
		return replication.ProofExact
	case p.ahead > 0:
		return fmt.Sprintf("up to %s behind: the group has read %s that the target does not have yet", records(int(p.again+p.ahead)), records(int(p.ahead)))
	case p.again > 0 && p.missing > 0:
		return fmt.Sprintf("up to %s behind: the target has records that the source lacks, or has some twice, and lacks %s", records(int(p.again)), records(int(p.missing)))
	case p.again > 0:
		return fmt.Sprintf("up to %s behind: the target has some twice, or has records that the source lacks", records(int(p.again)))
	}
	return fmt.Sprintf("up to 0 records behind: the target lacks %s at or beyond the commit, compacted or expired", records(int(p.missing)))
}

// fallBack answers what records did not.
func (tr *translation) fallBack(ctx context.Context, groups []replication.GroupOffsets, open map[replication.Partition][]question) {
	if len(open) == 0 {
		return
	}
	ends, err := tr.targetEnds(ctx, groups)
	if err != nil {
		ends = map[replication.Partition]replication.Ends{}
	}
	for on, list := range open {
		remote := replication.Partition{Topic: tr.Names.Remote(on.Topic), Partition: on.Partition}
		for _, q := range list {
			t := byCheckpoint(tr.checkpoints(), q.group, on, remote, ends[remote])
			switch {
			case t.Target == replication.Unknown:
				q.into.Proof = t.Proof
			case t.Source > q.offset:
				q.into.Proof = fmt.Sprintf("%s that is not beyond the commit: the newest was made for offset %d", ProofNoCheckpoint, t.Source)
			default:
				q.into.Target, q.into.Behind, q.into.Proof = t.Target, t.Behind, t.Proof
			}
		}
	}
}
