package replication

import "fmt"

// Quiescence is the verdict on looks at the same partitions.
type Quiescence struct {
	Partitions int       `json:"partitions"`
	Looks      int       `json:"looks"`
	Not        []Outcome `json:"not,omitempty"` // partitions that are not quiescent, and why; Unclear where an offset is unknown
}

// Quiet says whether every partition is quiescent. Without a partition, or with one look only, nothing is proven.
func (q Quiescence) Quiet() bool { return q.Partitions > 0 && q.Looks >= 2 && len(q.Not) == 0 }

// Quiescent compares two or more looks, oldest first (P7): a partition is quiescent when in each of them its log end
// offset, its high watermark and its last stable offset are known and equal, and when they are the same in all of them.
// The high watermark alone hides batches that wait for a slow follower and will be acknowledged later.
func Quiescent(looks ...[]Ends) Quiescence {
	q := Quiescence{Looks: len(looks)}
	var order []Partition
	seen := map[Partition][]Ends{}
	for _, look := range looks {
		for _, e := range look {
			if seen[e.Partition] == nil {
				order = append(order, e.Partition)
			}
			seen[e.Partition] = append(seen[e.Partition], e)
		}
	}
	q.Partitions = len(order)
	for _, p := range order {
		if status, reason := quiescent(seen[p], len(looks)); status != OK {
			q.Not = append(q.Not, Outcome{Name: p.Name(), Status: status, Reason: reason})
		}
	}
	return q
}

func quiescent(ends []Ends, looks int) (Status, string) {
	if looks < 2 {
		return Unclear, "looked at once only"
	}
	if len(ends) < looks {
		return Unclear, fmt.Sprintf("seen in %d of %d looks", len(ends), looks)
	}
	for i, e := range ends {
		switch {
		case e.LogEnd == Unknown || e.HighWatermark == Unknown || e.LastStable == Unknown:
			return Unclear, fmt.Sprintf("an offset is unknown (log end %s, high watermark %s, last stable %s)",
				offset(e.LogEnd), offset(e.HighWatermark), offset(e.LastStable))
		case e.LogEnd > e.HighWatermark:
			return Pending, fmt.Sprintf("%d records wait for a follower: log end %d, high watermark %d",
				e.LogEnd-e.HighWatermark, e.LogEnd, e.HighWatermark)
		case e.LastStable < e.HighWatermark:
			return Pending, fmt.Sprintf("a transaction is open since offset %d: high watermark %d", e.LastStable, e.HighWatermark)
		case e.LogEnd != e.HighWatermark || e.LastStable != e.HighWatermark:
			return Unclear, fmt.Sprintf("the look contradicts itself: log end %d, high watermark %d, last stable %d",
				e.LogEnd, e.HighWatermark, e.LastStable)
		case i > 0 && e.LogEnd != ends[i-1].LogEnd:
			return Pending, fmt.Sprintf("still written to: log end %d, then %d", ends[i-1].LogEnd, e.LogEnd)
		}
	}
	return OK, ""
}

// Held lists the partitions of now whose last stable offset has not reached the high watermark of an earlier look: a
// transaction that was open then is open still. The two ends of one look prove nothing under traffic, because records come
// between reading them. A partition that was not seen earlier is measured against its own high watermark.
func Held(earlier, now []Ends) []Ends {
	reach := make(map[Partition]int64, len(earlier))
	for _, e := range earlier {
		reach[e.Partition] = e.HighWatermark
	}
	var held []Ends
	for _, e := range now {
		must, seen := reach[e.Partition]
		if !seen || e.HighWatermark < must {
			must = e.HighWatermark
		}
		if e.LastStable == Unknown || e.LastStable < must {
			held = append(held, e)
		}
	}
	return held
}

func offset(o int64) string {
	if o == Unknown {
		return "unknown"
	}
	return fmt.Sprint(o)
}
