package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Truncation is what cutting back one partition takes: the records from offset From on.
type Truncation struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`    // the first offset that goes, Unknown when the backend does not say
	Records   int64 `json:"records"` // how many go, Unknown when the backend does not say
}

// Cut is what truncating a topic back to where its mirror on the other cluster stopped would do.
type Cut struct {
	Topic string `json:"topic"`
	// Status is OK when the backend would do it, Failed when it would not, and Unclear when it does not say all: then nothing
	// may be cut, because unknown is not zero.
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Records is the sum over all partitions; Partitions are those that lose any, by number. Both are complete where Status
	// is OK.
	Records    int64        `json:"records"`
	Partitions []Truncation `json:"partitions,omitempty"`
}

// Equal says whether both take exactly the same.
func (c Cut) Equal(o Cut) bool {
	return c.Topic == o.Topic && c.Status == o.Status && c.Records == o.Records && slices.Equal(c.Partitions, o.Partitions)
}

// String says what would be gone.
func (c Cut) String() string {
	if c.Status != OK {
		return fmt.Sprintf("%s: %s (%s)", c.Topic, c.Status, c.Reason)
	}
	if c.Records == 0 {
		return c.Topic + ": nothing goes"
	}
	var parts []string
	for _, p := range c.Partitions {
		parts = append(parts, fmt.Sprintf("%d from offset %d of partition %d", p.Records, p.From, p.Partition))
	}
	return fmt.Sprintf("%s: %d records go: %s", c.Topic, c.Records, strings.Join(parts, ", "))
}

// Reverser is a Link that can turn its mirrors round, as Cluster Linking does over a bidirectional link. The way back is the
// link whose target is the cluster that the workload was driven from: its topics there are the old sources.
type Reverser interface {
	Link
	// PreviewRestore asks what Restore would take from each topic of the link's target, and changes nothing. A backend that
	// cannot do it, such as one with a one-way link, says so for each topic: which links can is found out by this.
	PreviewRestore(ctx context.Context, topics []string) ([]Cut, error)
	// Restore truncates topics of the link's target back to where their mirrors on the source stopped, and makes them mirrors
	// of those. Before anything is sent the preview is repeated: fault.ErrConflict names what it says differently from
	// approved (P28). Pending is accepted; read Mirrors until they are active. A topic that is a mirror already is OK.
	// Records beyond the cut are destroyed.
	Restore(ctx context.Context, approved []Cut) ([]Outcome, error)
	// ValidateReverse asks whether active mirrors of the link could be reversed, and changes nothing: an outcome per topic.
	ValidateReverse(ctx context.Context, topics []string) ([]Outcome, error)
	// Reverse makes the active mirrors of the link writable, once they have everything, and their sources mirrors of them:
	// the link of the other direction mirrors from then on. Pending is accepted: this link's mirrors are then starting, and
	// at the end stopped. After an error whose fault.ErrUnclear is true, read the Mirrors of both directions.
	Reverse(ctx context.Context, topics []string) ([]Outcome, error)
}

// Rebuilder is a Link that must be deleted and made anew to mirror the other way, as a one-way Cluster Link must.
type Rebuilder interface {
	Link
	// Dependents are what stands in the way of deleting topics of the link's target (P28): other links that name them, and
	// mirrors whose stop is still under way. None is free to go; an outcome for each, Failed with the reason.
	Dependents(ctx context.Context, topics []string) ([]Outcome, error)
	// Pause lets the mirrors of the link stand still, or go on again: an outcome per topic.
	Pause(ctx context.Context, topics []string, on bool) ([]Outcome, error)
	// DeleteTopics deletes topics of the link's target for good: an outcome per topic, OK also for one that is not there, Pending
	// for one that is still listed. Marks and recovery come first (I9).
	DeleteTopics(ctx context.Context, topics []string) ([]Outcome, error)
	// CreateMirrors makes a mirror for each topic of the source: an outcome per topic, Pending until Mirrors says active; OK for
	// a mirror of this link that is there.
	CreateMirrors(ctx context.Context, topics []string) ([]Outcome, error)
}

// Mirrored is a Link made of connectors, which can be made after those of the other direction, as MirrorMaker 2's can.
type Mirrored interface {
	Link
	// CreateStopped makes the connectors of this link that are not there, stopped, from the configuration of those of the
	// other direction: aliases and clusters are swapped, everything else stays. Those that are there must be stopped and get
	// what they lack. target is the id of the cluster that this link mirrors to: records that were copied from there (HeaderFrom) are left
	// out on their way home (P26). What was made is read back. An outcome per connector: OK, with what was done as its
	// reason. Then PatchOffsets, the lifting of seals, and Resume, in this order (P27).
	//
	// fault.ErrNotReady when one of them runs, fault.ErrInvalid where the other direction's configuration cannot be turned
	// round, with the reason.
	CreateStopped(ctx context.Context, opposite Link, target string) ([]Outcome, error)
}
