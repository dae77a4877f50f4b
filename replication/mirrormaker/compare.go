package mirrormaker

import (
	"fmt"
	"hash/maphash"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// unstamped is the time of a record that the target's broker stamped itself: it says nothing about the source's.
const unstamped int64 = -1 << 62

// fingerprint is what is kept of a record: enough to find it again, never its content.
type fingerprint struct {
	offset  int64
	content uint64 // of key, value and headers, byte for byte
	key     uint64 // of the key alone; 0 when there is none
	stamp   int64  // ms, or unstamped
}

var seed = maphash.MakeSeed()

// fingerprintOf hashes a record. A null and an empty key, value or header differ. The time of a record that the broker
// stamped is kept on the source, where the mirror read it, and dropped on the target (LogAppendTime).
func fingerprintOf(r *kgo.Record, onTarget bool) fingerprint {
	var h maphash.Hash
	h.SetSeed(seed)
	part := func(b []byte) {
		n := uint64(len(b)) + 1
		if b == nil {
			n = 0
		}
		maphash.WriteComparable(&h, n)
		_, _ = h.Write(b)
	}
	f := fingerprint{offset: r.Offset, stamp: r.Timestamp.UnixMilli()}
	part(r.Key)
	if r.Key != nil {
		f.key = h.Sum64() | 1
	}
	part(r.Value)
	for _, header := range r.Headers {
		part([]byte(header.Key))
		part(header.Value)
	}
	f.content = h.Sum64()
	if onTarget && r.Attrs.TimestampType() == 1 {
		f.stamp = unstamped
	}
	return f
}

// window is a stretch of both logs of one partition, up to the end of each.
type window struct {
	source, target []fingerprint
	sourceTo       int64 // the end of the source, as far as records count
	targetTo       int64
	// whole is set when both begin at offset 0: the first record of the one is the first of the other.
	whole bool
	// sourceStart, targetStart: nothing lies before the stretch.
	sourceStart, targetStart bool
	targetLow                int64  // the target's log start: what was below it has expired
	syncs                    []Sync // claims of the mirror; those whose record matches are believed
}

const nobody = -1

// alignment says which record of the source each record of the target is. It believes a record that occurs once in the
// source's stretch, an offset sync whose record is the same on both sides, and the start of both logs where both have
// it; from there it goes on record by record, forwards and backwards. Where the two ways contradict each other, or where
// identical records leave it open, a record of the target is nobody's.
type alignment struct {
	window
	of          []int // by target index: the source's index, or nobody
	first, last []int // by source index: where the target has it first and last, or nobody
	reached     int   // highest source index that the target has, or had, or nobody
	expired     int   // highest source index that the target had and that its retention took, or nobody
	perhaps     int   // what identical records leave open: the target may go as far as this; otherwise as reached
	unlike      bool  // the broker stamped the target's records: times were not compared
}

type identity struct {
	content uint64
	stamp   int64
}

func align(w window) alignment {
	a := alignment{window: w, reached: nobody, expired: nobody, perhaps: nobody}
	a.of = fill(len(w.target))
	a.first, a.last = fill(len(w.source)), fill(len(w.source))
	for _, t := range w.target {
		a.unlike = a.unlike || t.stamp == unstamped
	}
	believed, from := a.landmarks()
	forward := a.follow(believed, from)
	backward := a.trace(believed)
	for j := range w.target {
		switch f, b := forward[j], backward[j]; {
		case believed[j] != nobody:
			a.of[j] = believed[j]
		case f != nobody && b != nobody && f != b:
			a.perhaps = max(a.perhaps, f, b)
		case f != nobody:
			a.of[j] = f
		default:
			a.of[j] = b
		}
		if i := a.of[j]; i != nobody {
			if a.first[i] == nobody {
				a.first[i] = j
			}
			a.last[i] = j
			a.reached = max(a.reached, i)
		}
	}
	// The mirror says where a record was written once the broker has acknowledged it. Below the log start nobody can look,
	// and there was something there.
	for _, s := range w.syncs {
		if i, found := at(w.source, s.Upstream); found && w.targetStart && s.Downstream < w.targetLow {
			a.expired = max(a.expired, i)
		}
	}
	a.reached = max(a.reached, a.expired)
	a.perhaps = max(a.perhaps, a.reached)
	return a
}

// landmarks are the records of the target that are believed by themselves, and whether the two logs begin together.
func (a *alignment) landmarks() (believed []int, together bool) {
	believed = fill(len(a.target))
	const several = -2
	once := make(map[identity]int, len(a.source))
	for i, s := range a.source {
		if _, there := once[a.identity(s)]; there {
			once[a.identity(s)] = several
			continue
		}
		once[a.identity(s)] = i
	}
	pinned := len(a.target)
	for _, s := range a.syncs {
		i, found := at(a.source, s.Upstream)
		j, there := at(a.target, s.Downstream)
		if found && there && a.same(i, j) {
			believed[j] = i
			pinned = min(pinned, j)
		}
	}
	if a.whole {
		pinned = 0
	}
	for j, t := range a.target {
		// Where times are not compared an older record may look the same as one that is the only one of its kind in the
		// source's stretch: nothing before an anchor is believed then.
		if a.unlike && j < pinned {
			continue
		}
		if i, ok := once[a.identity(t)]; ok && i != several && believed[j] == nobody {
			believed[j] = i
		}
	}
	return believed, a.whole
}

// follow goes from what is believed to the records after it.
func (a *alignment) follow(believed []int, together bool) []int {
	of := fill(len(a.target))
	next := nobody
	if together {
		next = 0
	}
	for j := range a.target {
		switch {
		case believed[j] != nobody:
			of[j] = believed[j]
		case next != nobody && next < len(a.source) && a.same(next, j):
			of[j] = next
		}
		next = nobody
		if of[j] != nobody {
			next = of[j] + 1
		}
	}
	return of
}

// trace goes from what is believed to the records before it.
func (a *alignment) trace(believed []int) []int {
	of := fill(len(a.target))
	before := nobody
	for j := len(a.target) - 1; j >= 0; j-- {
		switch {
		case believed[j] != nobody:
			of[j] = believed[j]
		case before != nobody && a.same(before, j):
			of[j] = before
		}
		before = nobody
		if of[j] > 0 {
			before = of[j] - 1
		}
	}
	return of
}

func (a *alignment) identity(f fingerprint) identity {
	if a.unlike {
		return identity{content: f.content}
	}
	return identity{f.content, f.stamp}
}

func (a *alignment) same(source, target int) bool {
	return a.identity(a.source[source]) == a.identity(a.target[target])
}

// at finds the record at exactly an offset.
func at(records []fingerprint, offset int64) (int, bool) {
	i := sort.Search(len(records), func(i int) bool { return records[i].offset >= offset })
	return i, i < len(records) && records[i].offset == offset
}

// from is the index of the first record at or beyond an offset.
func from(records []fingerprint, offset int64) int {
	return sort.Search(len(records), func(i int) bool { return records[i].offset >= offset })
}

func fill(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = nobody
	}
	return s
}

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
// occurs (P33). A record of the target that is nobody's is never jumped over once the position is reached.
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
	for j := m - 1; j >= 0; j-- {
		open[j] = open[j+1]
		if a.of[j] == nobody {
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
			to = min(to, open[a.firstOf(i)], a.lookalike(i))
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
		p.ahead = int64(max(0, i-a.reached-1))
		p.missing = int64(max(0, a.reached+1-i) - have[i])
	}
	return out
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

// lookalike is the first record of the target that may be one of those from i on up to the first that was found: identical
// ones leave it open which.
func (a *alignment) lookalike(i int) int {
	wanted := map[identity]bool{}
	for ; i < len(a.source) && a.first[i] == nobody; i++ {
		wanted[a.identity(a.source[i])] = true
	}
	for j := range a.target {
		if len(wanted) == 0 {
			break
		}
		if a.of[j] == nobody && wanted[a.identity(a.target[j])] {
			return j
		}
	}
	return len(a.target)
}

// settled says whether looking further back can change nothing for positions from lowest on: the target has a record
// below it, and has all that come after it, or nothing is left to look at.
func (a *alignment) settled(lowest int64) bool {
	if a.sourceStart && a.targetStart {
		return true
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
