package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"switchback/report"
)

// Compare holds every number of a run's report that the ledger can check against the ledger. Each disagreement is one
// sentence; none means that the report tells what the clients saw. The offsets of both clusters are taken for the same, as a
// byte-for-byte mirror keeps them, unless the ledger says that they are renumbered. A compact report has counts only, and only those are checked.
func Compare(l *Ledger, v Verdict, r report.Report) []string {
	c := comparison{of: l, r: r, renumbered: renumbered(l, r)}
	c.outcome()
	used := c.epochs()
	c.loss(v)
	if used && r.Outcome == report.Completed && r.Epoch.Before != nil && r.Epoch.After != nil {
		c.positions()
		c.offsets()
		c.windows()
	}
	return c.says
}

type comparison struct {
	of   *Ledger
	r    report.Report
	says []string

	renumbered renumbering
	unplanned  bool
}

func (c *comparison) disagree(format string, args ...any) {
	c.says = append(c.says, fmt.Sprintf(format, args...))
}

// old is what clients did on the source before the switch, new what they did on the target after it.
func (c *comparison) old(cluster string, epoch int64) bool {
	return cluster == c.r.From && epoch == *c.r.Epoch.Before
}
func (c *comparison) new(cluster string, epoch int64) bool {
	return cluster == c.r.To && epoch == *c.r.Epoch.After
}

// outcome: producers wrote last where the report says that the workload is. What later runs did is not looked at.
func (c *comparison) outcome() {
	home := c.r.From
	switch c.r.Outcome {
	case report.Completed:
		home = c.r.To
	case report.Failed:
		return // parked somewhere in between, and the report says where
	}
	last := map[string]*Acked{}
	for i := range c.of.Acked {
		if a := &c.of.Acked[i]; c.ofThisRun(a.Epoch) {
			last[a.Instance] = a
		}
	}
	for _, instance := range slices.Sorted(maps.Keys(last)) {
		if a := last[instance]; a.Cluster != home {
			c.disagree("the report says that the run was %s, which leaves clients on %s; producer %s wrote last on %s, at epoch %d", c.r.Outcome, home, instance, a.Cluster, a.Epoch)
		}
	}
}

// ofThisRun is false for epochs that only a later run can have made.
func (c *comparison) ofThisRun(epoch int64) bool {
	switch {
	case c.r.Epoch.After != nil:
		return epoch <= *c.r.Epoch.After
	case c.r.Epoch.Before != nil:
		return epoch <= *c.r.Epoch.Before
	}
	return true
}

// epochs: what clients carried while the run went on is what the report says they should have. It returns whether clients
// worked at the report's epochs at all: if not, comparing what happened at them says nothing.
func (c *comparison) epochs() bool {
	type carried struct {
		cluster string
		epoch   int64
	}
	during, ever := map[carried]bool{}, map[carried]bool{}
	note := func(at time.Time, cluster string, epoch int64) {
		it := carried{cluster, epoch}
		ever[it] = true
		if !at.Before(c.r.Started) && !at.After(c.r.Ended) {
			during[it] = true
		}
	}
	for i := range c.of.Acked {
		note(c.of.Acked[i].At, c.of.Acked[i].Cluster, c.of.Acked[i].Epoch)
	}
	for i := range c.of.Seen {
		note(c.of.Seen[i].At, c.of.Seen[i].Cluster, c.of.Seen[i].Epoch)
	}
	expected, before, after := map[carried]bool{}, c.r.Epoch.Before, c.r.Epoch.After
	switch {
	case before == nil:
		return false // nothing is claimed
	case after != nil:
		expected[carried{c.r.From, *before}], expected[carried{c.home(), *after}] = true, true
	case c.r.Outcome == report.Completed: // the workload was there already
		expected[carried{c.r.To, *before}] = true
	default:
		expected[carried{c.r.From, *before}] = true
	}
	sorted := func(m map[carried]bool) []carried {
		return slices.SortedFunc(maps.Keys(m), func(a, b carried) int {
			return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.cluster, b.cluster))
		})
	}
	for _, it := range sorted(during) {
		if !expected[it] {
			c.disagree("clients worked on %s at epoch %d during the run, which the report knows nothing of: it says %s", it.cluster, it.epoch, c.epochWords())
		}
	}
	used := true
	for _, it := range sorted(expected) {
		if !ever[it] {
			used = false
			c.disagree("the report says %s; no client worked on %s at epoch %d", c.epochWords(), it.cluster, it.epoch)
		}
	}
	return used
}

func (c *comparison) epochWords() string {
	if c.r.Epoch.After == nil {
		return fmt.Sprintf("epoch %d and no switch", *c.r.Epoch.Before)
	}
	return fmt.Sprintf("epoch %d on %s, then %d on %s", *c.r.Epoch.Before, c.r.From, *c.r.Epoch.After, c.home())
}

// home is where the report's last epoch belongs: a run that was taken back raises the epoch on the cluster that it did
// not leave.
func (c *comparison) home() string {
	if c.r.Outcome == report.RolledBack || c.r.Outcome == report.Aborted {
		return c.r.From
	}
	return c.r.To
}

// loss: a number of lost records is the ledger's number, and no count of missing records is below it.
func (c *comparison) loss(v Verdict) {
	if c.r.RPO.Known && c.r.RPO.Records != nil && *c.r.RPO.Records != int64(v.Lost) {
		c.disagree("the report says that %d records were lost, the ledger says %d", *c.r.RPO.Records, v.Lost)
	}
	missing := int64(0)
	topics := c.r.TopicSummary()
	for _, t := range topics {
		if t.Missing == nil {
			return
		}
		missing += *t.Missing
	}
	if len(topics) > 0 && missing < int64(v.Lost) {
		c.disagree("by the report's positions the target lacks %d records, the ledger says that %d are lost", missing, v.Lost)
	}
}

// positions: no partition that clients used is missing, nothing was acknowledged on the source at or beyond an end that the
// report gives, and nothing on the target below what came from the source.
func (c *comparison) positions() {
	// Acknowledged last on the source, the offset of the last such record on the target, and acknowledged first on the target;
	// -1: never.
	type extent struct{ last, there, first int64 }
	extents := map[topicPartition]*extent{}
	at := func(a *Acked) *extent {
		p := topicPartition{a.Topic, a.Partition}
		if extents[p] == nil {
			extents[p] = &extent{-1, -1, -1}
		}
		return extents[p]
	}
	for i := range c.of.Acked {
		switch a := &c.of.Acked[i]; {
		case c.old(a.Cluster, a.Epoch):
			e := at(a)
			e.last, e.there = max(e.last, a.Offset), max(e.there, c.renumbered.onTarget(a))
		case c.new(a.Cluster, a.Epoch):
			if e := at(a); e.first < 0 || a.Offset < e.first {
				e.first = a.Offset
			}
		}
	}
	partitions := slices.SortedFunc(maps.Keys(extents), topicPartition.compare)
	if len(c.r.Positions) == 0 {
		used, counts := map[string]int{}, map[string]int{}
		for _, p := range partitions {
			used[p.topic]++
		}
		for _, t := range c.r.Topics {
			counts[t.Topic] = t.Partitions
		}
		c.counts("topic", used, counts)
		return
	}
	known := map[topicPartition]bool{}
	for _, pos := range c.r.Positions {
		p := topicPartition{pos.Topic, pos.Partition}
		known[p] = true
		e := extents[p]
		if e == nil {
			continue
		}
		for _, end := range []struct {
			words  string
			offset *int64
			last   int64
		}{{"the source's end", pos.SourceEnd, e.last}, {"the target's end", pos.TargetEnd, e.there}, {"the mark", pos.Mark, e.last}} {
			if end.offset == nil || end.last < *end.offset {
				continue
			}
			at := ""
			if end.last != e.last {
				at = fmt.Sprintf(", which is offset %d of %s,", end.last, c.r.To)
			}
			c.disagree("the report says that %s of %s was %d; %s acknowledged offset %d%s at epoch %d", end.words, p, *end.offset, c.r.From, e.last, at, *c.r.Epoch.Before)
		}
		words, below := "the source's end", pos.SourceEnd
		if c.renumbered.on {
			words, below = "the target's end", pos.TargetEnd
		}
		if below != nil && e.first >= 0 && e.first < *below {
			c.disagree("the report says that %s of %s was %d; %s acknowledged offset %d, which is below it, at epoch %d", words, p, *below, c.r.To, e.first, *c.r.Epoch.After)
		}
	}
	for _, p := range partitions {
		if !known[p] {
			c.disagree("the report has no position of %s, to which producers wrote", p)
		}
	}
}

// counts checks a compact report: it counts at least the partitions that clients used.
func (c *comparison) counts(what string, used, counts map[string]int) {
	if all, ok := counts["all"]; ok && len(counts) == 1 {
		total := 0
		for _, n := range used {
			total += n
		}
		used, counts = map[string]int{"all": total}, map[string]int{"all": all}
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if used[name] > counts[name] {
			c.disagree("the report counts %d partitions of %s %s, and clients used %d", counts[name], what, name, used[name])
		}
	}
}

func (p topicPartition) String() string { return fmt.Sprintf("%s-%d", p.topic, p.partition) }

func (p topicPartition) compare(q topicPartition) int {
	return cmp.Or(cmp.Compare(p.topic, q.topic), cmp.Compare(p.partition, q.partition))
}
