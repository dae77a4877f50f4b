package ledger

import (
	"slices"
	"time"
)

// Outage is a cluster that was killed under its clients, and when it answered again.
type Outage struct {
	Cluster      string
	Killed, Back time.Time
}

// uncommitted are the records that a group may read again because its broker was killed: those that one of its members had
// processed and could not commit any more. That is what consumers do that commit after processing, and no failover.
type uncommitted struct {
	outages []Outage
	commits map[topicPartition][]Committed // of the group, by time
}

func uncommittedOf(l *Ledger, group string) uncommitted {
	u := uncommitted{outages: l.Outages, commits: map[topicPartition][]Committed{}}
	if len(l.Outages) == 0 {
		return u
	}
	for _, c := range l.Committed {
		if c.Group == group {
			p := topicPartition{c.Topic, c.Partition}
			u.commits[p] = append(u.commits[p], c)
		}
	}
	for _, list := range u.commits {
		slices.SortStableFunc(list, func(a, b Committed) int { return a.At.Compare(b.At) })
	}
	return u
}

// mayRepeat says whether a record that was read first and now again lies between the last commit before an outage and what
// had been processed by then, on the same cluster. A record that is fetched already may be processed after the kill.
func (u uncommitted) mayRepeat(first, again *Seen) bool {
	if first.Cluster != again.Cluster || first.Partition != again.Partition || first.Offset != again.Offset {
		return false
	}
	return slices.ContainsFunc(u.outages, func(o Outage) bool {
		return o.Cluster == again.Cluster && first.At.Before(o.Back) && again.At.After(o.Killed) && first.Offset >= u.committed(again)
	})
}

// committed is up to where the group had committed in the partition when a record was read.
func (u uncommitted) committed(at *Seen) int64 {
	last := int64(0)
	for _, c := range u.commits[topicPartition{at.Topic, at.Partition}] {
		if c.Cluster == at.Cluster && !c.At.After(at.At) {
			last = c.Offset
		}
	}
	return last
}
