package mirrormaker

import (
	"fmt"

	"switchback/replication"
)

// superseded says for each record of the source whether a later one has its key: compaction may have taken it.
func superseded(source []fingerprint) []bool {
	gone := make([]bool, len(source))
	later := make(map[uint64]bool, len(source))
	for i := len(source) - 1; i >= 0; i-- {
		if k := source[i].key; k != 0 {
			gone[i] = later[k]
			later[k] = true
		}
	}
	return gone
}

// place is where one position of the source lies on the target.
type place struct {
	target  int64 // offset
	found   bool  // false: nothing near the position was found on the target
	again   int64 // records after it that the group has read already, or meets twice
	ahead   int64 // records below the position that the target has not: the group is ahead of the mirror
	missing int64 // records at or beyond it that the target lacks, although it has later ones
}

// exact says whether the record after the last one read on the source is the next on the target, and none is met twice.
func (p place) exact() bool { return p.found && p.again == 0 && p.ahead == 0 && p.missing == 0 }

// places finds positions: offsets of the source, in any order.
//
// With replays, the result is the last offset of the target after which each record at or beyond the position still
// occurs (P33). A record of the target that is nobody's is never jumped over once the position is reached, unless the
// source's compaction explains it: a group that had gone on there would not have met it either.
func (a *alignment) places(positions []int64) []place {
	n, m := len(a.source), len(a.target)
	least := make([]int, n+1) // by source index: the first of the last occurrences of it and all after it
	have := make([]int, n+1)  // how many of them the target has
	least[n] = m
	copies, ahead := a.copies(), map[identity]int{}
	for i := n - 1; i >= 0; i-- {
		least[i], have[i] = least[i+1], have[i+1]
		if a.last[i] != nobody {
			least[i], have[i] = min(least[i], a.last[i]), have[i]+1
		}
		// Of identical records as many must lie ahead as the group has not read, whichever is which.
		if at := copies[a.identity(a.source[i])]; len(at) > 0 && i <= a.reached && i > a.expired {
			ahead[a.identity(a.source[i])]++
			least[i] = min(least[i], at[max(0, len(at)-ahead[a.identity(a.source[i])])])
		}
	}
	before := fill(n + 1) // the nearest record below that the target has
	for i := range n {
		before[i+1] = before[i]
		if a.last[i] != nobody {
			before[i+1] = i
		}
	}
	open := make([]int, m+1) // by target index: the next record that is nobody's
	open[m] = m
	gone, inOrder := a.explained()
	left := make([]int, m+1) // how many of what is explained lie ahead
	for j := m - 1; j >= 0; j-- {
		open[j], left[j] = open[j+1], left[j+1]
		switch {
		case gone[j]:
			left[j]++
		case a.of[j] == nobody:
			open[j] = j
		}
	}
	out := make([]place, len(positions))
	for k, offset := range positions {
		i := from(a.source, offset)
		p := &out[k]
		to := least[i]
		switch prev := before[i]; {
		case prev != nobody:
			to = min(to, open[a.first[prev]+1])
			p.found = true
		case !a.sourceStart: // the position may lie anywhere before the stretch
			continue
		case have[i] > 0: // the first that is left on the source: what the target has before it is older
			to = min(to, open[a.firstOf(i)])
			p.found = true
		case m == 0 && a.targetStart: // nothing, or nothing more, is on the target
			p.found = true
		default:
			continue
		}
		p.target = a.targetTo
		if to < m {
			p.target = a.target[to].offset
		}
		p.again = int64(m - to - have[i])
		if inOrder { // they are as new as what is ahead
			p.again -= int64(left[to])
		}
		p.ahead = int64(max(0, i-a.reached-1))
		p.missing = int64(max(0, a.reached+1-i) - have[i])
	}
	return out
}

// explained are the records of the target that the source's compaction has taken there: nobody's, and with a later record of
// the target that has their key and is the source's. inOrder says that nothing was mirrored twice as far as anybody can
// see, so that each of them stands on the target where it stood on the source.
func (a *alignment) explained() (gone []bool, inOrder bool) {
	gone, inOrder = make([]bool, len(a.target)), true
	if !a.compacted {
		return gone, false
	}
	later, seen := map[uint64]bool{}, map[identity]bool{}
	for j := len(a.target) - 1; j >= 0; j-- {
		t := a.target[j]
		if a.of[j] == nobody {
			gone[j] = t.key != 0 && later[t.key]
			inOrder = inOrder && !seen[a.identity(t)]
			seen[a.identity(t)] = true
		} else if t.key != 0 {
			later[t.key] = true
		}
	}
	highest, newest := nobody, int64(unstamped)
	for j, i := range a.of {
		if i == nobody {
			inOrder = inOrder && (!gone[j] || a.target[j].stamp >= newest)
			continue
		}
		inOrder = inOrder && i > highest
		highest, newest = i, a.target[j].stamp
	}
	return gone, inOrder
}

// copies are where the target has records of which the source has several that are the same.
func (a *alignment) copies() map[identity][]int {
	seen := make(map[identity]bool, len(a.source))
	at := map[identity][]int{}
	for _, s := range a.source {
		id := a.identity(s)
		if seen[id] {
			at[id] = nil
		}
		seen[id] = true
	}
	if len(at) == 0 {
		return nil
	}
	for j, t := range a.target {
		id := a.identity(t)
		if _, several := at[id]; several {
			at[id] = append(at[id], j)
		}
	}
	return at
}

// firstOf is where the target has the first of the records from i on that it has at all.
func (a *alignment) firstOf(i int) int {
	for ; i < len(a.source); i++ {
		if a.first[i] != nobody {
			return a.first[i]
		}
	}
	return len(a.target)
}

// settled says whether looking further back can change nothing for positions from lowest on: the target has a record
// below it, and has all that come after it, or nothing is left to look at.
func (a *alignment) settled(lowest int64) bool {
	if a.sourceStart && a.targetStart {
		return a.reached != nobody || len(a.source) == 0 || len(a.target) == 0
	}
	i := from(a.source, lowest)
	below := i == 0 && a.sourceStart && len(a.source) > 0 && a.first[0] != nobody
	for k := 0; k < i && !below; k++ {
		below = a.first[k] != nobody
	}
	if !below {
		return false
	}
	for ; i <= a.reached; i++ {
		if a.first[i] == nobody && !a.targetStart {
			return false // before a replay that ended early there may be more
		}
	}
	return a.targetStart || a.reached == len(a.source)-1
}

// drained judges whether the target has the source's records, as far as the stretch goes. compacted says that the target
// may lack records that a later one with their key has superseded.
func (a *alignment) drained(compacted bool) (replication.Status, string) {
	n := len(a.source)
	switch {
	case n == 0 && a.sourceStart:
		return replication.OK, ""
	case n == 0:
		return replication.Unclear, "the last offsets of the source hold no record that is mirrored, and it was not read further back"
	case a.reached == nobody && len(a.target) == 0 && a.targetStart:
		return replication.Pending, records(n) + " to go at least: the target is empty"
	case a.reached == nobody:
		return replication.Unclear, "none of the last records of the source was found among the last records of the target"
	case a.reached < n-1 && a.perhaps == n-1:
		return replication.Unclear, "identical records leave open whether the target has the source's last one, or an earlier one twice"
	case a.reached < n-1:
		return replication.Pending, records(n-1-a.reached) + " to go"
	}
	begin := a.expired + 1
	for begin < n && a.first[begin] == nobody && (!a.sourceStart || !a.targetStart) {
		begin++ // those before the first that was found may lie before the target's stretch
	}
	gone := superseded(a.source)
	for i := begin; i < n; i++ {
		if a.first[i] == nobody && (!compacted || !gone[i]) {
			return replication.Unclear, fmt.Sprintf("the target lacks the record at offset %d of the source, although it has later ones: "+
				"it was compacted away, filtered by a transform, or skipped", a.source[i].offset)
		}
	}
	if a.expired == n-1 {
		return replication.OK, "the last record has expired on the target; the mirror had noted where it was written"
	}
	return replication.OK, ""
}

func records(n int) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}
