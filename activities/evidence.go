package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// evidence is all that is known of a run's partitions while the source may be lost: what the target has, the last sample
// that Watch kept, what the link claims, and what the source says itself, if it answers.
type evidence struct {
	known   []replication.Known
	target  map[replication.Partition]replication.Ends
	fetched map[replication.Partition]int64 // the link's claim
	sample  *Sample                         // nil when there is none of this direction
	cluster string                          // id of the source; its name when nobody knows the id
	ids     map[string]string               // of the source's topics, as it says itself or the last sample; of some nobody knows it
	fenced  bool                            // every broker of the source says that the topics are fenced, and none is down
}

// lossesShown is how many topics a result names: the worst ones.
const lossesShown = 50

// loss judges the evidence.
func (e evidence) loss(outage time.Time) (replication.Loss, []replication.TopicLoss) {
	if outage.IsZero() {
		outage = time.Now()
	}
	total, topics := replication.Losses(e.known, outage)
	return total, topics[:min(len(topics), lossesShown)]
}

// extrasTime bounds what is good to know and not needed: sizes and times of records.
const extrasTime = 3 * time.Second

// unhurried is the time for the link's claim where nobody waits for the step.
const unhurried = 30 * time.Second

// claimTime bounds the link's claim while clients wait. A link whose stop is not final was asked to stop a moment ago, and may
// answer nobody before its tasks have: what it claimed in the last sample serves as well.
func claimTime(link replication.Link) time.Duration {
	if link.StopIsFinal() {
		return extrasTime
	}
	return glance
}

// gather asks everybody, side by side. Only the target has to answer, and the link within the time for its claim.
func gather(ctx context.Context, r *route, runbook string, topics []string, claim time.Duration) (e evidence, err error) {
	var target, source []replication.Ends
	var sources []replication.Topic
	var newest map[replication.Partition]time.Time
	var sizes map[string]int64
	e.fetched = map[replication.Partition]int64{}
	err = sideBySide(
		func() (err error) {
			if target, err = r.to.Ends(ctx, topics); ignoreMissing(err) != nil {
				return wrap("read the ends of "+r.names.To.Name, err)
			}
			ctx, cancel := context.WithTimeout(ctx, extrasTime)
			defer cancel()
			newest, _ = r.to.Newest(ctx, topics)    // without it the loss has no time
			sizes, _ = r.to.RecordSize(ctx, target) // without it, no size
			return nil
		},
		func() error {
			ctx, cancel := context.WithTimeout(ctx, claim)
			defer cancel()
			mirrors, _ := r.link.Mirrors(ctx) // a hint
			for _, m := range mirrors {
				for p, at := range m.Fetched {
					e.fetched[replication.Partition{Topic: m.SourceTopic, Partition: p}] = at
				}
			}
			return nil
		},
		func() (err error) { e.sample, e.cluster, err = seen(ctx, r, runbook); return err },
		func() error { source, e.fenced = ofTheSource(ctx, r, topics); return nil },
		func() error { // also a part of it helps
			sources, _ = r.from.Topics(ctx, func(name string) bool { return slices.Contains(topics, name) })
			return nil
		},
	)
	if err != nil {
		return e, err
	}
	e.ids = map[string]string{}
	if e.sample != nil {
		e.ids = topicIDs(e.sample.Topics)
	}
	maps.Copy(e.ids, topicIDs(sources))
	e.lay(topics, target, source, newest, sizes, r.link.StopIsFinal())
	return e, nil
}

// seen is the last sample of this direction and the source's cluster id.
func seen(ctx context.Context, r *route, runbook string) (*Sample, string, error) {
	cluster := r.names.From.Cluster.ID
	if id, err := r.from.Identity(ctx); err == nil {
		cluster = id.ClusterID
	}
	if cluster == "" {
		if status, err := r.link.Status(ctx); err == nil {
			cluster = status.SourceCluster
		}
	}
	s, err := lastSample(ctx, r.to.Records(PositionsTopic), runbook, cluster)
	switch {
	case errors.Is(err, fault.ErrNotFound), errors.Is(err, fault.ErrConflict), err == nil && s.From != r.names.From.Name:
		if cluster == "" {
			cluster = r.names.From.Name
		}
		return nil, cluster, nil
	case err != nil:
		return nil, cluster, err
	}
	return &s, s.SourceCluster, nil
}

// ofTheSource is what a source that answers says of its ends, and whether they were read behind the fence. What some of
// its brokers cannot say is missing.
func ofTheSource(ctx context.Context, r *route, topics []string) (ends []replication.Ends, fenced bool) {
	if _, yes := gone(r.from); yes {
		return nil, false
	}
	fenced = fencedNow(ctx, r, topics) // first: what is read afterwards is final
	ends, _ = r.from.Ends(ctx, topics)
	return ends, fenced
}

// fencedNow asks every broker of the source once.
func fencedNow(ctx context.Context, r *route, topics []string) bool {
	outcomes, err := r.from.ACLsOnEveryBroker(ctx, replication.TopicFence(topics), true)
	if bad, _ := notOK(outcomes); err != nil || len(outcomes) == 0 || len(bad) > 0 {
		return false
	}
	return len(absent(ctx, r.from, func(t string) bool { return slices.Contains(topics, t) })) == 0
}

// lay puts the evidence together, for every partition that anybody knows.
func (e *evidence) lay(topics []string, target, source []replication.Ends, newest map[replication.Partition]time.Time, sizes map[string]int64, sameOffsets bool) {
	e.target = make(map[replication.Partition]replication.Ends, len(target))
	at := map[replication.Partition]*replication.Known{}
	var order []*replication.Known
	of := func(p replication.Partition) *replication.Known {
		if at[p] == nil {
			at[p] = &replication.Known{Partition: p, Held: replication.Unknown, Hint: !sameOffsets, Seen: replication.Unknown,
				End: replication.Unknown, Fenced: e.fenced, Rate: -1, Newest: newest[p], Size: replication.Unknown}
			if size, ok := sizes[p.Topic]; ok {
				at[p].Size = size
			}
			order = append(order, at[p])
		}
		return at[p]
	}
	for _, t := range target {
		e.target[t.Partition] = t
		if k := of(t.Partition); sameOffsets {
			k.Held = t.HighWatermark
		}
	}
	if !sameOffsets {
		for p, fetched := range e.fetched {
			if at[p] != nil {
				at[p].Held = fetched
			}
		}
	}
	for _, s := range source {
		of(s.Partition).End = max(s.LogEnd, s.HighWatermark)
	}
	if e.sample != nil {
		e.layDown(topics, of)
	}
	for _, k := range order {
		e.known = append(e.known, *k)
	}
}

// layDown adds the last sample.
func (e *evidence) layDown(topics []string, of func(replication.Partition) *replication.Known) {
	wanted := make(map[string]bool, len(topics))
	for _, t := range topics {
		wanted[t] = true
	}
	partitions := map[string]int{}
	for _, t := range e.sample.Topics {
		partitions[t.Name] = t.Partitions
	}
	for _, p := range e.sample.Positions {
		if !wanted[p.Topic] {
			continue
		}
		k := of(p.Partition)
		if k.Hint && k.Held == replication.Unknown {
			k.Held = p.Replicated
		}
		if _, said := e.fetched[p.Partition]; !said && p.Replicated != replication.Unknown {
			e.fetched[p.Partition] = p.Replicated
		}
		if p.TargetEnd == replication.Unknown {
			continue // a bound takes a look at both ends (P21)
		}
		k.Seen, k.Sampled = p.SourceEnd, e.sample.Seen
		if len(e.sample.Rates) > 0 { // those that stand still have none
			k.Rate = e.sample.Rates[p.Topic] / float64(max(1, partitions[p.Topic]))
		}
	}
}
