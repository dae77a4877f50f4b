package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"switchback/replication"
)

// A cluster may come back without what it had: empty and new, with some of its topics deleted, or with others under their names.
// What was stranded in those is gone for ever. Nobody waits for it: it is said, and counted as far as it was ever seen.

// goneFor is how long topics must be missing before they are given up: a cluster that starts may list them late.
const goneFor = 2 * time.Second

// missed finds out which topics that have marks are not there any more, and why.
func (o *old) missed(ctx context.Context) error {
	marks, err := marksOf(ctx, o.r.records.to, o.in.Guard.Run.ID())
	if err != nil || len(marks) == 0 {
		return err
	}
	since := time.Now()
	err = until(ctx, since.Add(quietTime), lookEvery, func(ctx context.Context) (bool, string, error) {
		if o.gone, err = o.without(ctx, marks); err != nil {
			return false, "", err
		}
		return len(o.gone) == 0 || time.Since(since) >= goneFor, firstFew(slices.Sorted(maps.Values(o.gone))), nil
	})
	if err != nil {
		o.wait("its topics to be listed: %v", err)
	}
	return nil
}

// without says of each marked topic that is gone why that is so.
func (o *old) without(ctx context.Context, marks []replication.Mark) (map[string]string, error) {
	from := o.in.Route.From.Name
	id, err := o.r.from.Identity(ctx)
	if err != nil {
		return nil, wrap("read the identity of "+from, err)
	}
	there, err := o.r.from.Topics(ctx, o.in.Topics.Match)
	if err != nil {
		return nil, wrap("list topics of "+from, err)
	}
	ids, gone := topicIDs(there), map[string]string{}
	for _, m := range marks {
		listed := slices.ContainsFunc(there, func(t replication.Topic) bool { return t.Name == m.Topic })
		why := otherCluster(from, m, id.ClusterID)
		if why == "" && !listed {
			why = from + " has no such topic any more"
		}
		if why = cmp.Or(why, madeAnew(from, m.SourceTopic, ids[m.Topic])); why != "" {
			gone[m.Topic] = why
		}
	}
	return gone, nil
}

// otherCluster says that another cluster answers under a name than the one that was marked; empty where it is the same, or where
// nobody knew its id.
func otherCluster(site string, m replication.Mark, id string) string {
	if m.SourceCluster == id || m.SourceCluster == "" || m.SourceCluster == site || m.From != "" && m.From != site {
		return ""
	}
	return fmt.Sprintf("%s is another cluster now (its id was %s, and is %s)", site, m.SourceCluster, id)
}

// present are the topics that can be read for what is stranded.
func (o *old) present() []string {
	return slices.DeleteFunc(slices.Clone(o.topics), func(t string) bool { return o.gone[t] != "" })
}

// giveUp takes the end of what is gone from the evidence: what is there now is not what was.
func (o *old) giveUp(known []replication.Known) {
	for i, k := range known {
		if o.gone[k.Topic] != "" {
			known[i].End, known[i].Gone = replication.Unknown, true
		}
	}
}

// tellGone names what is gone.
func (o *old) tellGone() {
	for _, topic := range slices.Sorted(maps.Keys(o.gone)) {
		o.out.Gone = append(o.out.Gone, topic+": "+o.gone[topic])
	}
	if n := len(o.out.Gone); n > 0 {
		o.out.Text += fmt.Sprintf("; what was stranded in %d topics is gone for ever: %s", n, firstFew(o.out.Gone))
		o.out.Gone = o.out.Gone[:min(n, lossesShown)]
	}
}

// keepEnds puts what was read behind the fence into the marks: should the cluster be lost again, that is how much was stranded.
func (o *old) keepEnds(ctx context.Context, marks []replication.Mark, known []replication.Known) error {
	ends := make(map[replication.Partition]int64, len(known))
	for _, k := range known {
		ends[k.Partition] = k.End
	}
	changed := false
	for i, m := range marks {
		if end, ok := ends[m.Partition]; ok && end != replication.Unknown && m.SourceEnd == replication.Unknown {
			marks[i].SourceEnd, changed = end, true
		}
	}
	if !changed {
		return nil
	}
	return o.keep(ctx, marks)
}

// keep stores the run's marks anew, on both clusters.
func (o *old) keep(ctx context.Context, marks []replication.Mark) error {
	rec := o.r.records
	rec.alone = false
	return putList(ctx, rec, marksKey(marks[0].SourceCluster, o.in.Guard.Run.ID()), marks)
}

// bounds asks a link whose target has offsets of its own to find by comparison what the target has (P18), and keeps that.
func (o *old) bounds(ctx context.Context, marks []replication.Mark) ([]replication.Mark, error) {
	link, ok := o.r.link.(replication.Bounded)
	var open []int
	for i, m := range marks {
		if m.Boundary == replication.Unknown && o.gone[m.Topic] == "" {
			open = append(open, i)
		}
	}
	if !ok || len(open) == 0 {
		return marks, nil
	}
	ask := make([]replication.Mark, len(open))
	for j, i := range open {
		ask[j] = marks[i]
	}
	found, err := link.Boundaries(ctx, ask)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		o.wait("both clusters to be compared: %v", err)
		return marks, nil
	}
	if len(found) != len(ask) {
		return marks, nil
	}
	for j, i := range open {
		marks[i] = found[j]
	}
	return marks, o.keep(ctx, marks)
}
