package ledger

import (
	"slices"

	"switchback/report"
)

// renumbering is where the target keeps the records that the source acknowledged, for mirrors that give records offsets of
// their own. The zero value says that offsets are the same on both.
type renumbering struct {
	on        bool
	source    map[topicPartition][]sourceRecord
	offsets   map[id][]int64             // on the target, ascending; more than one where a mirror has repeated itself
	partition map[topicPartition][]int64 // of all records there that were acknowledged anywhere, ascending
}

type sourceRecord struct {
	offset int64
	id     id
}

// renumbered follows every acknowledged record to the log of the run's target.
func renumbered(l *Ledger, r report.Report) renumbering {
	if l.Renumbered == nil {
		return renumbering{}
	}
	n := renumbering{on: true, source: map[topicPartition][]sourceRecord{}, offsets: map[id][]int64{}, partition: map[topicPartition][]int64{}}
	known := map[id]bool{}
	for i := range l.Acked {
		a := &l.Acked[i]
		it := id{a.Topic, a.Key, a.Seq}
		known[it] = true
		if a.Cluster == r.From {
			p := topicPartition{a.Topic, a.Partition}
			n.source[p] = append(n.source[p], sourceRecord{a.Offset, it})
		}
	}
	for _, record := range l.Renumbered[r.To].Records {
		it, p := id{record.Topic, record.Key, record.Seq}, topicPartition{record.Topic, record.Partition}
		if known[it] {
			n.offsets[it] = append(n.offsets[it], record.Offset)
			n.partition[p] = append(n.partition[p], record.Offset)
		}
	}
	return n
}

// onTarget is the offset on the target of a record that the source acknowledged; -1 when it is not there.
func (n renumbering) onTarget(a *Acked) int64 {
	if !n.on {
		return a.Offset
	}
	found := n.offsets[id{a.Topic, a.Key, a.Seq}]
	if len(found) == 0 {
		return -1
	}
	return found[0]
}

// moved counts what a group that goes on at an offset of the target, after one of the source, would skip of what it had
// not read, and read again of what it had.
func (n renumbering) moved(p topicPartition, source, target int64) (skipped, again int) {
	for _, record := range n.source[p] {
		there := n.offsets[record.id]
		switch {
		case len(there) == 0: // lost, which is another number
		case record.offset >= source && there[len(there)-1] < target:
			skipped++
		case record.offset < source && there[len(there)-1] >= target:
			again++
		}
	}
	return skipped, again
}

// translation: a group that was moved to another offset skips nothing, and where the report calls that exact it reads nothing again.
func (c *comparison) translation(r reader, o report.GroupOffset) {
	if !c.renumbered.on || o.Source == nil || o.Target == nil {
		return
	}
	skipped, again := c.renumbered.moved(r.topicPartition, *o.Source, *o.Target)
	if skipped > 0 {
		c.disagree("the report moves group %s from offset %d of %s to offset %d; %s holds %d records before it that the group had not read", r.group, *o.Source, r.topicPartition, *o.Target, c.r.To, skipped)
	}
	if again > 0 && o.Proof == exact {
		c.disagree("the report moves group %s from offset %d of %s to offset %d and calls it exact; %s holds %d records from there on that the group had read", r.group, *o.Source, r.topicPartition, *o.Target, c.r.To, again)
	}
}

// exact is what a report says of a translation that repeats nothing and skips nothing.
const exact = "exact"

// writtenThere is written in the numbers of the target.
func (c *comparison) writtenThere(written map[topicPartition][]int64) map[topicPartition][]int64 {
	if !c.renumbered.on {
		return written
	}
	for _, offsets := range c.renumbered.partition {
		slices.Sort(offsets)
	}
	return c.renumbered.partition
}
