package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"switchback/report"
)

// reader is one partition as a group reads it.
type reader struct {
	group string
	topicPartition
}

func (r reader) compare(q reader) int {
	return cmp.Or(cmp.Compare(r.group, q.group), r.topicPartition.compare(q.topicPartition))
}

// reading is how far a reader came on the source, and where it began on the target. -1: never.
type reading struct {
	epoch       int64 // of the last record that was read before the switch, which counts only if the source held it then
	onSource    bool
	last, first int64
}

// offsets: each handed-over offset is the one after the last record that the group read on the source; on the target the
// group began there or later, and passed nothing over.
func (c *comparison) offsets() {
	readings := c.readings()
	readers := slices.SortedFunc(maps.Keys(readings), reader.compare)
	if len(c.r.Offsets) == 0 {
		used, counts := map[string]int{}, map[string]int{}
		for _, r := range readers {
			if readings[r].onSource {
				used[r.group]++
			}
		}
		for _, g := range c.r.Groups {
			counts[g.Group] = g.Partitions
		}
		c.counts("group", used, counts)
		return
	}
	written := c.written()
	there := c.writtenThere(written)
	known := map[reader]bool{}
	for _, o := range c.r.Offsets {
		r := reader{o.Group, topicPartition{o.Topic, o.Partition}}
		known[r] = true
		c.offset(r, o, readings[r], written[r.topicPartition], there[r.topicPartition])
		c.translation(r, o)
	}
	for _, r := range readers {
		if readings[r].onSource && !known[r] {
			c.disagree("the report hands over no offset of group %s in %s, where it read up to offset %d on %s", r.group, r.topicPartition, readings[r].last, c.r.From)
		}
	}
}

// offset checks one handed-over offset; written are the offsets that were acknowledged in its partition, sorted, and there
// is where those records are on the target.
func (c *comparison) offset(r reader, o report.GroupOffset, did *reading, written, there []int64) {
	if did == nil {
		did = &reading{last: -1, first: -1}
	}
	switch {
	case did.onSource && o.Source == nil:
		c.disagree("the report says that group %s had no offset in %s; it read up to offset %d on %s", r.group, r.topicPartition, did.last, c.r.From)
	case did.onSource && *o.Source != did.last+1 && !c.uncommitted(r, *o.Source):
		c.disagree("the report says that group %s was at offset %d of %s; it read up to offset %d on %s", r.group, *o.Source, r.topicPartition, did.last, c.r.From)
	case did.last < 0 && o.Source != nil && len(written) > 0 && written[0] < *o.Source:
		c.disagree("the report says that group %s was at offset %d of %s; it never read there, and offset %d was acknowledged", r.group, *o.Source, r.topicPartition, written[0])
	}
	if o.Target == nil || did.first < 0 {
		return // where it read nothing on the target, records that it owes are among those never read
	}
	if did.first < *o.Target {
		c.disagree("the report says that group %s was handed offset %d of %s; on %s it began at offset %d, which is before it", r.group, *o.Target, r.topicPartition, c.r.To, did.first)
		return
	}
	from, _ := slices.BinarySearch(there, *o.Target)
	to, _ := slices.BinarySearch(there, did.first)
	if skipped := to - from; skipped > 0 {
		c.disagree("the report says that group %s was handed offset %d of %s; on %s it began at offset %d and passed over %d acknowledged records", r.group, *o.Target, r.topicPartition, c.r.To, did.first, skipped)
	}
}

// uncommitted says whether a group was at an offset because its broker was killed before it could commit what it had read from there on.
func (c *comparison) uncommitted(r reader, from int64) bool {
	killed, beyond := uncommittedOf(c.of, r.group), false
	for i := range c.of.Seen {
		s := &c.of.Seen[i]
		if s.Group != r.group || s.Topic != r.topic || s.Partition != r.partition || s.Cluster != c.r.From || s.Offset < from || !c.old(s.Cluster, s.Epoch) {
			continue
		}
		if beyond = true; !killed.lacks(s) {
			return false
		}
	}
	return beyond
}

func (c *comparison) readings() map[reader]*reading {
	out := map[reader]*reading{}
	for i := range c.of.Seen {
		s := &c.of.Seen[i]
		r := reader{s.Group, topicPartition{s.Topic, s.Partition}}
		did := out[r]
		if did == nil {
			did = &reading{epoch: -1, last: -1, first: -1}
			out[r] = did
		}
		switch {
		case c.new(s.Cluster, s.Epoch):
			if did.first < 0 || s.Offset < did.first {
				did.first = s.Offset
			}
		case s.Epoch > *c.r.Epoch.Before || s.Epoch < did.epoch:
		case s.Epoch > did.epoch:
			did.epoch, did.onSource, did.last = s.Epoch, s.Cluster == c.r.From, s.Offset
		default:
			did.last = max(did.last, s.Offset)
		}
	}
	return out
}

// written is the offsets that were acknowledged in each partition up to the switch and after it, sorted; where the target
// has offsets of its own those of the source alone.
func (c *comparison) written() map[topicPartition][]int64 {
	out := map[topicPartition][]int64{}
	for i := range c.of.Acked {
		a := &c.of.Acked[i]
		if c.renumbered.on && a.Cluster != c.r.From {
			continue
		}
		if a.Epoch <= *c.r.Epoch.Before || c.new(a.Cluster, a.Epoch) {
			p := topicPartition{a.Topic, a.Partition}
			out[p] = append(out[p], a.Offset)
		}
	}
	for _, offsets := range out {
		slices.Sort(offsets)
	}
	return out
}

// tolerance is how far the report's times may be from the clients': instances say when they stop and start, the ledger
// knows only when records came and went.
const tolerance = time.Second

// startUp is what a program may need from its start, up to which the report counts, to its first record: seconds where
// the machine is busy.
const startUp = 3 * time.Second

// windows: the report's interruption is not much shorter than what the clients went through, and no client's instances all
// worked on after the report says that the first of them had stopped.
func (c *comparison) windows() {
	var producers, consumers windows
	silent := map[string]map[string]time.Time{} // by client and instance: last heard on the source
	note := func(w *windows, at time.Time, cluster string, epoch int64, client, instance string) {
		if c.old(cluster, epoch) {
			if silent[client] == nil {
				silent[client] = map[string]time.Time{}
			}
			silent[client][instance] = at
		}
		if c.old(cluster, epoch) || c.new(cluster, epoch) {
			w.add(instance, cluster, at)
		}
	}
	for i := range c.of.Acked {
		a := &c.of.Acked[i]
		note(&producers, a.At, a.Cluster, a.Epoch, a.Client, a.Instance)
	}
	for i := range c.of.Seen {
		s := &c.of.Seen[i]
		note(&consumers, s.At, s.Cluster, s.Epoch, s.Client, s.Instance)
	}
	wrote, standstill := c.r.SwitchWindow.ProducersSeconds, c.r.SwitchWindow.ConsumersSeconds
	if c.unplanned { // nobody could work since the outage, and the time from there on is what the report claims
		wrote = c.r.RTO.Seconds
	}
	c.window("producers", wrote, producers.worst)
	// Consumers have nothing to read while producers stand still, whether they are stopped or not.
	if p := wrote; standstill != nil && p != nil && *p > *standstill {
		standstill = p
	}
	c.window("consumers", standstill, consumers.worst)
	for _, w := range c.r.SwitchWindow.Clients {
		if w.StoppedAt == nil || len(silent[w.Client]) == 0 {
			continue
		}
		first := slices.MinFunc(slices.Collect(maps.Values(silent[w.Client])), time.Time.Compare)
		if first.Sub(*w.StoppedAt) > tolerance {
			c.disagree("the report says that the first instance of client %s stopped at %s; all of them worked on %s until %s or later",
				w.Client, w.StoppedAt.Format(time.RFC3339Nano), c.r.From, first.Format(time.RFC3339Nano))
		}
	}
}

func (c *comparison) window(who string, claimed, seen *float64) {
	if claimed != nil && seen != nil && *claimed < *seen/2 && *seen-*claimed > startUp.Seconds() {
		c.disagree("the report says that %s stood still for %.2f s; one of their instances did for %.2f s", who, *claimed, *seen)
	}
}
