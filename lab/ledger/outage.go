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
// had been processed by then. A record that is fetched already may be processed after the kill. On the cluster itself it is the same
// offset; where the group went on elsewhere, because it was stopped while its cluster was away, it may have another.
func (u uncommitted) mayRepeat(first, again *Seen) bool {
	if first.Cluster == again.Cluster && (first.Partition != again.Partition || first.Offset != again.Offset) {
		return false
	}
	return slices.ContainsFunc(u.outages, func(o Outage) bool { return again.At.After(o.Killed) && u.took(o, first) }) &&
		first.Offset >= u.committed(first, again.At)
}

// took says whether a broker that was killed may have taken the commit of a record along.
func (u uncommitted) took(o Outage, s *Seen) bool {
	return o.Cluster == s.Cluster && s.At.Before(o.Back)
}

// lacks says whether outages are why a group never committed a record.
func (u uncommitted) lacks(s *Seen) bool {
	return slices.ContainsFunc(u.outages, func(o Outage) bool { return u.took(o, s) }) && s.Offset >= u.committed(s, time.Time{})
}

// committed is up to where the group had committed in a record's partition at a time, the zero time for the end.
func (u uncommitted) committed(of *Seen, at time.Time) int64 {
	last := int64(0)
	for _, c := range u.commits[topicPartition{of.Topic, of.Partition}] {
		if c.Cluster == of.Cluster && (at.IsZero() || !c.At.After(at)) {
			last = c.Offset
		}
	}
	return last
}
