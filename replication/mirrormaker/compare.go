package mirrormaker

import (
	"hash/maphash"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"
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
	compacted   bool  // the source may lack records that a later one with their key has superseded, and the target may have them
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
