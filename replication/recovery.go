package replication

import (
	"fmt"
	"time"

	"switchback/internal/fault"
)

// RecoveryTopic holds how far recoveries are: on the cluster that the records are copied to, compacted, written in the
// same transactions as the copies (P30). Its keys are <tail id>/<topic>/<partition>, its values a Recovered in JSON.
const RecoveryTopic = "switchback.recovery"

// Treatment is what happens to the stranded records of a topic; the words of the runbook's recovery.
type Treatment string

// The treatments.
const (
	TreatAppend Treatment = "append" // to the end of the topic on the new cluster
	TreatDivert Treatment = "divert" // to <topic>.recovered on the new cluster
	TreatRewind Treatment = "rewind" // nothing is copied: the groups on the old cluster are set to the marks
	TreatReport Treatment = "report" // nothing is done: it is named
)

// DivertSuffix is put behind a topic's name for records that are diverted.
const DivertSuffix = ".recovered"

// Copies says whether records are copied.
func (t Treatment) Copies() bool { return t == TreatAppend || t == TreatDivert }

// Tail is what is stranded of one partition on the cluster that was left: its offsets from From up to, not including, To.
type Tail struct {
	Partition           // as the old cluster names it
	From      int64     `json:"from"` // the mark's boundary: the first offset that the new cluster has not
	To        int64     `json:"to"`   // the end behind the fence, where LEO = HW = LSO (P31)
	Start     int64     `json:"start"`
	Treatment Treatment `json:"treatment"`
	// ID is that of the topic on the old cluster, and IntoID of the one that is appended to; empty where nobody knows it.
	ID     string `json:"id,omitempty"`
	IntoID string `json:"intoId,omitempty"`
	// Into is where copies go on the new cluster. Zero for treatments that copy nothing.
	Into Partition `json:"into,omitzero"`
	// Compacted says that the topic keeps one value of each key there: append leaves out records whose key the new cluster
	// has written anew at or beyond Since, an offset of Into (the mark's target end).
	Compacted bool  `json:"compacted,omitempty"`
	Since     int64 `json:"since"`
}

// Offsets is how long the tail is.
func (t Tail) Offsets() int64 { return max(0, t.To-t.From) }

// SameTopic says whether two ids can be those of one topic: where one is not known, nothing speaks against it.
func SameTopic(a, b string) bool { return a == "" || b == "" || a == b }

// Tally says what became of each offset of a tail, or of many. Its fields add up to the tail's length once all is done.
type Tally struct {
	Recovered  int64 `json:"recovered"`
	Superseded int64 `json:"superseded"` // the new cluster has a newer value of the key
	Expired    int64 `json:"expired"`    // gone from the old cluster before anybody read it
	Aborted    int64 `json:"aborted"`    // records of transactions that were aborted
	Blank      int64 `json:"blank"`      // offsets without a record: markers of transactions, or compacted away
	Refused    int64 `json:"refused"`    // the new cluster does not take them, with a reason
	Left       int64 `json:"left"`       // on purpose: rewound, or only reported
}

// Sum of all fields.
func (t Tally) Sum() int64 {
	return t.Recovered + t.Superseded + t.Expired + t.Aborted + t.Blank + t.Refused + t.Left
}

// Plus adds two tallies.
func (t Tally) Plus(o Tally) Tally {
	return Tally{t.Recovered + o.Recovered, t.Superseded + o.Superseded, t.Expired + o.Expired, t.Aborted + o.Aborted, t.Blank + o.Blank, t.Refused + o.Refused, t.Left + o.Left}
}

// Recovered is how far the recovery of one tail is, as it is stored in RecoveryTopic. What it was done with is part of it: a
// partition that was rewound refuses append (P31).
type Recovered struct {
	Tail
	Next  int64  `json:"next"` // the first offset of the old cluster that was not handled
	Run   string `json:"run"`  // that handled it last
	Tally Tally  `json:"tally"`
	Bytes int64  `json:"bytes"` // of recovered keys, values and headers
	// Refusals name the first records that were refused: offset and reason, at most ten.
	Refusals []Outcome `json:"refusals,omitempty"`
	// FirstCopy and LastCopy are the offsets of the first and the last copy in Into, Unknown without one.
	FirstCopy int64 `json:"firstCopy"`
	LastCopy  int64 `json:"lastCopy"`
}

// Done says that every offset of the tail is accounted for.
func (r Recovered) Done() bool { return r.Next >= r.To && r.Tally.Sum() == r.Offsets() }

// Begin is the progress of a tail of which nothing was handled.
func Begin(t Tail) Recovered {
	return Recovered{Tail: t, Next: t.From, FirstCopy: Unknown, LastCopy: Unknown}
}

// GoOn is the progress with which a tail is gone on with that was begun before, perhaps under another plan. What was only
// reported may be handled after all. fault.ErrConflict when the tail is not the one that was begun, or when records of it
// were handled in another way: a partition that was rewound refuses append (P31).
func (r Recovered) GoOn(t Tail) (Recovered, error) {
	refuse := func(format string, args ...any) (Recovered, error) {
		return r, fmt.Errorf("%w: %s", fault.ErrConflict, fmt.Sprintf(format, args...))
	}
	switch {
	case r.Partition != t.Partition:
		return refuse("the progress is that of %s", r.Name())
	case !SameTopic(r.ID, t.ID), r.Into == t.Into && !SameTopic(r.IntoID, t.IntoID):
		return refuse("it was begun with another topic of that name, which was deleted and made anew since")
	case r.From != t.From:
		return refuse("it was begun at offset %d, and now at %d", r.From, t.From)
	case t.To < r.To:
		return refuse("it ended at offset %d, and now ends at %d", r.To, t.To)
	case r.Next == r.From, r.Treatment == TreatReport && t.Treatment != TreatReport:
		return Begin(t), nil
	case r.Treatment != t.Treatment:
		return refuse("run %s has handled offsets %d to %d with %s, and they cannot be handled with %s as well", r.Run, r.From, r.Next, r.Treatment, t.Treatment)
	case r.Into != t.Into:
		return refuse("run %s has copied offsets %d to %d to %s, and the rest cannot go to %s", r.Run, r.From, r.Next, r.Into.Name(), t.Into.Name())
	}
	r.Tail = t
	return r, nil
}

// Stranded is what a look at a tail finds, before anything is done. Never a value.
type Stranded struct {
	Tail
	Tally                 // what would become of it; Recovered is what would be copied
	Bytes       int64     `json:"bytes"` // of keys, values and headers
	First       time.Time `json:"first,omitzero"`
	Last        time.Time `json:"last,omitzero"`
	FirstOffset int64     `json:"firstOffset"` // of the first and last record there is; Unknown without one
	LastOffset  int64     `json:"lastOffset"`
	Done        int64     `json:"done"` // offsets that an earlier recovery has handled already
	// Large are records that would be copied, and that the topic may refuse with the headers of a copy.
	Large int64 `json:"large,omitempty"`
	// Gone says why nothing can be said or done, such as a topic that was deleted or made anew; empty where it can.
	Gone string `json:"gone,omitempty"`
	// Notes are what an operator should know before records are copied, in sentences.
	Notes []string `json:"notes,omitempty"`
}

// ReadAlready says that a group had read stranded records on the old cluster, and would read their copies again (P32).
type ReadAlready struct {
	Group   string `json:"group"`
	Topic   string `json:"topic"`
	Records int64  `json:"records"` // offsets between the mark and its last commit there
}

// CopyJob is one shard of a recovery: tails that one transactional producer copies.
type CopyJob struct {
	// ID is the transactional id: runbook + source cluster id + mark id + shard, never the run (P30).
	ID   string `json:"id"`
	Tail string `json:"tail"` // prefix of the keys in RecoveryTopic: source cluster id and mark id
	Run  string `json:"run"`  // for the headers, and for the progress
	// Cluster is the id of the old cluster, for the headers.
	Cluster string  `json:"cluster"`
	Tails   []Tail  `json:"tails"`
	Rate    float64 `json:"rate,omitempty"` // records a second at most; 0 is no limit
}

// Headers that copies carry (design section 6). Values are text.
const (
	HeaderOrigin    = "switchback.origin.cluster"
	HeaderTopic     = "switchback.origin.topic"
	HeaderPartition = "switchback.origin.partition"
	HeaderOffset    = "switchback.origin.offset"
	HeaderTimestamp = "switchback.origin.timestamp" // milliseconds
	HeaderRun       = "switchback.origin.run"
)

// HeaderRoom is how many bytes the headers of a copy add to a record at most: names of topics and ids are at most 249
// bytes. A topic whose records are as large as it allows needs that much more in max.message.bytes to take their copies.
const HeaderRoom = 2 << 10

// HeaderFrom is a header whose key alone tells where a copy comes from: what mirrors records back to that cluster leaves
// out those that carry it (P26). Connect's predicates see keys of headers and no values.
func HeaderFrom(clusterID string) string { return "switchback.from." + clusterID }
