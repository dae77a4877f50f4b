package replication

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Levels of a Difference: without what is a problem the workload could not be moved without loss, or not at all; a warning
// makes its protection weaker.
const (
	LevelWarning = "warning"
	LevelProblem = "problem"
)

// Kinds of differences.
const (
	KindLink        = "link"
	KindMirror      = "mirror"
	KindOffsetSync  = "offset sync"
	KindACLSync     = "ACL sync"
	KindAutoCreate  = "auto-create"
	KindConnector   = "connector"
	KindTopicConfig = "topic config"
	KindOwnTopic    = "own topic"
	KindStandby     = "closed standby"
	KindCredentials = "credentials"
	KindFence       = "fence"
	KindWriters     = "other writers"
)

// Difference is one thing about the standing protection of a workload that is not as it should be.
type Difference struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"` // of what it is about: a topic, a connector, a setting
	Level  string `json:"level"`
	Is     string `json:"is"`
	Should string `json:"should"`
	// Mend says in words what mending it changes, and what that costs. Empty where it cannot be mended; then Do says what a
	// person does.
	Mend string `json:"mend,omitempty"`
	Do   string `json:"do,omitempty"`
	// Action and Set are what whoever found it does to mend it: a word of its own, and settings with their new values.
	Action string            `json:"action,omitempty"`
	Set    map[string]string `json:"set,omitempty"`
}

// ID is the same for the same difference, and for no other: what was shown is told by it from what came meanwhile.
func (d Difference) ID() string {
	type fields Difference                                  // without its String
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", fields(d))) // quoted, so that no two run together; keys in order
	return hex.EncodeToString(sum[:6])
}

// Mendable says whether it can be mended.
func (d Difference) Mendable() bool { return d.Mend != "" }

// String is the difference in one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s %s is %s, should be %s", d.Kind, d.Name, d.Is, d.Should)
}

// Stands says whether protection stands in spite of the differences: none is a problem.
func Stands(list []Difference) bool {
	return !slices.ContainsFunc(list, func(d Difference) bool { return d.Level == LevelProblem })
}

// Protection is what a link is to keep for a workload, and what is known of its clusters.
type Protection struct {
	Topics []Topic          // of the source, that the runbook selects
	There  map[string]Topic // of the target, by the source's names: mirrors, and topics that are none
	Groups []string
	// Holding are the partitions of There that hold records.
	Holding []Partition
	// Held says why nothing that stands still may be let go: a fence or a seal stands, a switch lies behind. Empty when free.
	Held string
	// Denied says that some runbook owns an ACL on one of the clusters: ACL sync would copy it (P5).
	Denied bool
	// Moved says that the workload was moved between these clusters before: offsets that connectors remember may be those of
	// that day (P27).
	Moved bool
	// ACLsBefore is what ACL sync was before a run of this runbook had suspended it; nil when none has.
	ACLsBefore *Sync
}

// Protector is a Link that can be made and repaired.
type Protector interface {
	Link
	// Differences looks, and changes nothing. Differences of the link that is not there at all are one of KindLink.
	Differences(ctx context.Context, want Protection) ([]Difference, error)
	// Mend does what the differences say: an outcome for each, by its ID, OK or Failed with the reason. It may be repeated. What is asked
	// for and takes its time, such as a mirror that fills, is OK when it was accepted; another look tells.
	Mend(ctx context.Context, want Protection, list []Difference) ([]Outcome, error)
}

// OwnTopicSpecs are Switchback's own topics as they should be on every cluster (P20): each is kept for ever but the canary's,
// whose records the brokers stamp. Positions are written all the time, and read whole by a worker that starts in a disaster: their
// segments are small, because compaction leaves the newest one alone.
func OwnTopicSpecs() []NewTopic {
	compacted := map[string]string{"cleanup.policy": "compact"}
	return []NewTopic{
		{Name: OwnTopics + "marks", Partitions: 1, Configs: compacted},
		{Name: OwnTopics + "positions", Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "segment.ms": "600000"}},
		{Name: RecoveryTopic, Partitions: 1, Configs: compacted},
		{Name: OwnTopics + "canary", Partitions: 1, Configs: map[string]string{"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"}},
	}
}

// driftConfigs decide whether a record that fits on the source fits on the target, or lives as long there.
var driftConfigs = []string{"cleanup.policy", "max.message.bytes", "message.timestamp.type", "min.insync.replicas", "retention.bytes", "retention.ms"}

// DriftConfigs are the configs that are compared.
func DriftConfigs() []string { return slices.Clone(driftConfigs) }

// Drift compares the configs of mirrored topics with those of their sources, by the source's names. A topic that one side lacks is
// not compared.
func Drift(topics []Topic, there map[string]Topic, from, to map[string]map[string]string) (list []Difference) {
	for _, t := range topics {
		here, mirrored := there[t.Name]
		if !mirrored || from[t.Name] == nil || to[t.Name] == nil {
			continue
		}
		if here.Partitions != t.Partitions {
			list = append(list, Difference{Kind: KindTopicConfig, Name: t.Name + " partitions", Level: LevelProblem,
				Is: strconv.Itoa(here.Partitions), Should: strconv.Itoa(t.Partitions),
				Do: "the link follows its source by itself when it looks next; if it has not, look at the link's tasks. A topic with fewer partitions than its mirror was made anew: mirror it anew"})
		}
		for _, key := range driftConfigs {
			is, should := to[t.Name][key], from[t.Name][key]
			if is == should || should == "" {
				continue
			}
			d := Difference{Kind: KindTopicConfig, Name: t.Name + " " + key, Level: LevelWarning, Is: is, Should: should}
			if key == "cleanup.policy" || key == "max.message.bytes" {
				d.Level = LevelProblem
			}
			if n, err := strconv.Atoi(should); key == "min.insync.replicas" && (err != nil || n > here.ReplicationFactor) {
				d.Do = fmt.Sprintf("its mirror has a replication factor of %d: give it more replicas first, or lower min.insync.replicas on the source", here.ReplicationFactor)
			} else {
				d.Mend, d.Action, d.Set = fmt.Sprintf("set %s=%s on the mirror", key, should), "set", map[string]string{key: should}
			}
			list = append(list, d)
		}
	}
	return list
}

// OwnTopicsLack compares Switchback's own topics of one cluster with what they should be. has are those that are there, configs
// theirs.
func OwnTopicsLack(cluster string, has []Topic, configs map[string]map[string]string) (list []Difference) {
	for _, want := range OwnTopicSpecs() {
		on := want.Name + " on " + cluster
		if !slices.ContainsFunc(has, func(t Topic) bool { return t.Name == want.Name }) {
			list = append(list, Difference{Kind: KindOwnTopic, Name: on, Level: LevelProblem, Is: "missing", Should: "there",
				Mend: "make it, with " + settings(want.Configs), Action: "create"})
			continue
		}
		for key, should := range want.Configs {
			if is := configs[want.Name][key]; is != should {
				level := LevelWarning
				if key == "cleanup.policy" {
					level = LevelProblem // it forgets
				}
				list = append(list, Difference{Kind: KindOwnTopic, Name: on, Level: level, Is: key + "=" + is, Should: key + "=" + should,
					Mend: "set " + key + "=" + should, Action: "set", Set: map[string]string{key: should}})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Difference) int { return strings.Compare(a.Name+a.Should, b.Name+b.Should) })
	return list
}

func settings(m map[string]string) string {
	var parts []string
	for k, v := range m {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// Closed denies WRITE on the topics to each principal by its name: nobody but the mirror writes to a standby (P11).
func Closed(principals, topics []string) []ACL {
	acls := make([]ACL, 0, len(principals)*len(topics))
	for _, p := range principals {
		for _, t := range topics {
			acls = append(acls, ACL{ResourceTopic, PatternLiteral, t, p, Anywhere, OpWrite, Deny})
		}
	}
	return acls
}

// OwnTopicSpec is that of one of them; of any other name, a compacted topic of one partition.
func OwnTopicSpec(name string) NewTopic {
	for _, t := range OwnTopicSpecs() {
		if t.Name == name {
			return t
		}
	}
	return NewTopic{Name: name, Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact"}}
}
