// Package replication is the pure core of a switch: what positions, marks, verdicts and outcomes are, and how they are
// judged. No I/O, no clock. Adapters for Cluster Linking, MirrorMaker 2 and Kafka live in the folders below it and
// speak in these words; package activities calls them through Link.
package replication

import (
	"context"
	"time"
)

// Partition names one partition of a topic.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// Unknown is the value of an offset that nobody has told. It is never zero and never a number to calculate with.
const Unknown int64 = -1

// Ends are the ends of one partition's log on one cluster. Every field is an offset, or Unknown.
type Ends struct {
	Partition
	Start         int64 `json:"start"`         // log start offset
	LogEnd        int64 `json:"logEnd"`        // LEO: next offset the leader will write, seen with OffsetForLeaderEpoch
	HighWatermark int64 `json:"highWatermark"` // first offset that is not replicated to all in-sync replicas
	LastStable    int64 `json:"lastStable"`    // LSO: first offset of an open transaction, or the high watermark
	LeaderEpoch   int32 `json:"leaderEpoch"`
}

// Position is how far one partition of a mirror is. Unknown stays Unknown.
type Position struct {
	Partition
	SourceEnd  int64     `json:"sourceEnd"`  // high watermark on the source
	Replicated int64     `json:"replicated"` // what the link says it has fetched up to; a hint
	TargetEnd  int64     `json:"targetEnd"`  // high watermark on the target
	Seen       time.Time `json:"seen"`
}

// Mark is the position at the moment the mirror stopped, kept for ever. Its SourceEnd is the end behind the fence, Unknown until a
// source that was lost was read there.
type Mark struct {
	Position
	From          string `json:"from,omitempty"` // the source's name in the runbook; empty in marks of before it was kept
	SourceCluster string `json:"sourceCluster"`  // cluster id, not name
	TargetCluster string `json:"targetCluster"`
	// SourceTopic and TargetTopic are the ids of the topic on both clusters: one that was deleted and made again under its name
	// has another. Empty where nobody could read it; then nothing follows from it.
	SourceTopic string `json:"sourceTopic,omitempty"`
	TargetTopic string `json:"targetTopic,omitempty"`
	// SourceSeen is the source's end when it was last seen before it was lost: less than SourceEnd, or all that is known.
	SourceSeen int64 `json:"sourceSeen,omitempty"`
	// Boundary is the source offset of the first record that the target has not; Unknown until it was found by comparison.
	Boundary int64  `json:"boundary"`
	Epoch    int64  `json:"epoch"` // of the switch that the mark belongs to
	Run      string `json:"run"`
}

// Status of an Outcome.
type Status string

// The statuses of one thing among many.
const (
	OK      Status = "ok"
	Pending Status = "pending"
	Failed  Status = "failed"
	Unclear Status = "unknown"
)

// Outcome is the result for one topic, group or partition of an operation on many. A nil error of the operation never
// means that all went well.
type Outcome struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// MirrorState of one topic, the same words for every backend.
type MirrorState string

// The states a mirror can be in.
const (
	MirrorActive     MirrorState = "active"
	MirrorPaused     MirrorState = "paused"
	MirrorStarting   MirrorState = "starting" // pending mirror, synchronizing, restoring
	MirrorStopping   MirrorState = "stopping" // promote or failover accepted, not done
	MirrorStopped    MirrorState = "stopped"  // a normal, writable topic
	MirrorSourceLost MirrorState = "source unavailable"
	MirrorFailed     MirrorState = "failed"
	MirrorUnknown    MirrorState = "unknown" // a word that this version does not know; never ready
)

// Mirror is one mirrored topic of a link.
type Mirror struct {
	Topic       string          `json:"topic"`       // on the target
	SourceTopic string          `json:"sourceTopic"` // on the source
	Partitions  int             `json:"partitions"`
	State       MirrorState     `json:"state"`
	Raw         string          `json:"raw"`              // the backend's own word for State
	Reason      string          `json:"reason,omitempty"` // why it failed, as the backend says
	Lag         map[int32]int64 `json:"lag,omitempty"`    // the link's own claim, a hint; absent is unknown
	Fetched     map[int32]int64 `json:"fetched,omitempty"`
	Since       time.Time       `json:"since,omitzero"`
}

// Direction in which a link can be used.
type Direction string

// What a link can do about the way back.
const (
	OneWay        Direction = "one-way"
	Bidirectional Direction = "bidirectional"
)

// LinkStatus is the state of a link as a whole.
type LinkStatus struct {
	Name          string        `json:"name"`
	ID            string        `json:"id"`
	Direction     Direction     `json:"direction"`
	Healthy       bool          `json:"healthy"`
	Reason        string        `json:"reason,omitempty"`
	SourceCluster string        `json:"sourceCluster"` // cluster id the link believes in; "" if it does not say
	Topics        []string      `json:"topics"`        // every topic on it, other workloads' too
	Syncs         Syncs         `json:"syncs"`
	Tasks         []Outcome     `json:"tasks,omitempty"` // the link's background tasks
	RefreshWait   time.Duration `json:"refreshWait"`     // how long a change of topics, groups, ACLs may take to be noticed (P16)
}

// Syncs are the settings of a link that a run suspends and puts back exactly (P3). Filters are kept as the backend's
// own text, because turning a sync off clears them.
type Syncs struct {
	Offsets Sync `json:"offsets"`
	ACLs    Sync `json:"acls"`
	Topics  Sync `json:"topics"` // auto-create of mirrors
}

// Sync is one of them.
type Sync struct {
	Enabled  bool          `json:"enabled"`
	Interval time.Duration `json:"interval"` // of one cycle; 0 if the backend does not say
	Filter   string        `json:"filter"`   // the backend's own text; "" when there is none
	Default  bool          `json:"default"`  // the setting was not set at all: restoring resets it
}

// Suspension says what SuspendSyncs is to hold back, for this runbook alone where the backend can filter.
type Suspension struct {
	Topics []string `json:"topics"`
	Groups []string `json:"groups"`
}

// StopKind says how mirrors are stopped.
type StopKind string

// Promote proves that nothing lags before it stops; Failover stops whatever the lag.
const (
	Promote  StopKind = "promote"
	Failover StopKind = "failover"
)

// Translated is where a group continues on the target.
type Translated struct {
	Partition
	Source int64  `json:"source"` // committed offset on the source, Unknown when there was none
	Target int64  `json:"target"`
	Proof  string `json:"proof"` // exact, or in words how far off
	// Behind is how many records the group may read again at most; Unknown when nobody can say.
	Behind int64 `json:"behind,omitempty"`
}

// GroupOffsets are where one group stands, and where it goes on.
type GroupOffsets struct {
	Group   string       `json:"group"`
	Offsets []Translated `json:"offsets"`
}

// Denial is a right that ACLs on the target take from a link.
type Denial string

// What a link can be denied (P5, P10).
const (
	DenySyncs  Denial = "syncs"  // its administration of the cluster: no ACL is copied, no topic created
	DenyGroups Denial = "groups" // to write offsets of the named groups
	DenyTopics Denial = "topics" // to write to the named topics, or to change them: the seal
)

// Advice is what a backend finds about its own configuration, for preflight. Level is ok, warning or problem.
type Advice struct {
	Check string `json:"check"`
	Level string `json:"level"`
	Means string `json:"means"`
	Do    string `json:"do,omitempty"`
}

// Link is a replication backend as activities see it: Cluster Linking or MirrorMaker 2. Every method asks or does one
// thing, obeys its context and returns the sentinel errors of package fault. A request accepted is not a thing done:
// callers read the state until it is what was asked for.
type Link interface {
	// Status reads the link. fault.ErrNotFound when there is none of that name.
	Status(ctx context.Context) (LinkStatus, error)
	// Mirrors reads every mirror of the link, other workloads' too.
	Mirrors(ctx context.Context) ([]Mirror, error)
	// SuspendSyncs turns off ACL sync and holds auto-create and offset sync back for what s names. It may be repeated.
	SuspendSyncs(ctx context.Context, before Syncs, s Suspension) error
	// RestoreSyncs puts back exactly what was there before, taking out only what was held back by SuspendSyncs with the
	// same before and held: what another workload changed meanwhile stays (P3). While keepACLsOff is set ACL sync stays
	// off, filters kept.
	RestoreSyncs(ctx context.Context, before Syncs, held Suspension, keepACLsOff bool) error
	// Advice is what the link's own configuration means for a run; preflight shows it.
	Advice(ctx context.Context) ([]Advice, error)
	// Prefix is what the target puts before the name of a mirrored topic; empty where mirrors keep their names.
	Prefix() string
	// Denials are the ACLs on the target that take the link a right. None where the backend has
	// calls of its own for it. Names are the source's. Callers own them, read them back from every broker and lift them again (P4, P6).
	Denials(what Denial, names []string) []ACL
	// HoldsBack makes sure that the suspension keeps the link from writing offsets of the groups; fault.ErrNotReady names
	// those that it still writes. It asks nothing of a link whose Denials do that.
	HoldsBack(ctx context.Context, groups []string) error
	// Translate says where groups go on on the target for each committed offset on the source, all in one pass.
	Translate(ctx context.Context, groups []GroupOffsets) ([]GroupOffsets, error)
	// LastKnown says where groups go on by what the link itself has brought over, when the source cannot be read. onTarget
	// is what the target holds for them now, for every partition that counts; Target stays Unknown where nothing came.
	LastKnown(ctx context.Context, onTarget []GroupOffsets) ([]GroupOffsets, error)
	// Synced says which of the groups the link's offset sync covers with these settings: an outcome per group.
	Synced(s Syncs, groups []string) []Outcome
	// Drained compares what the target has with the source's ends: an outcome per partition, OK when all is there.
	Drained(ctx context.Context, source []Ends) ([]Outcome, error)
	// ValidateStop asks whether mirrors could be stopped, and changes nothing: an outcome per topic.
	ValidateStop(ctx context.Context, kind StopKind, topics []string) ([]Outcome, error)
	// Stop asks for mirrors to be stopped: an outcome per topic, Pending when accepted. Never repeated blindly: after
	// an error whose fault.Unclear is true, read Mirrors and decide by their state.
	Stop(ctx context.Context, kind StopKind, topics []string) ([]Outcome, error)
	// StopIsFinal is true where a stop cannot be taken back (P15). Where it can, the Denials of DenyTopics are the seal that
	// holds a link whose tasks take long to stop.
	StopIsFinal() bool
	// PatchOffsets tells stopped mirrors where to go on: the source offset of the first record that the target has not. It
	// reads back what was stored. fault.ErrInvalid where a stop is final.
	PatchOffsets(ctx context.Context, next map[Partition]int64) error
	// Resume lets stopped mirrors go on; never before PatchOffsets, and the seal's end (P27). fault.ErrInvalid where a stop
	// is final.
	Resume(ctx context.Context) error
}
