package replication

import (
	"fmt"
	"strings"
	"time"
)

// Name is the partition as Kafka's own tools print it: orders-3.
func (p Partition) Name() string { return fmt.Sprintf("%s-%d", p.Topic, p.Partition) }

// Broker is one live broker of a cluster.
type Broker struct {
	ID   int32  `json:"id"`
	Host string `json:"host"`
	Port int32  `json:"port"`
}

// Identity is which cluster answered, and with which brokers.
type Identity struct {
	ClusterID  string   `json:"clusterId"`
	Brokers    []Broker `json:"brokers"`    // sorted by id; those that the cluster holds for live
	Controller int32    `json:"controller"` // on KRaft any broker, which forwards
}

// Range is a stretch of one partition's log: offsets from From up to, not including, To.
type Range struct {
	Partition
	From, To int64
}

// Topic is one topic of a cluster.
type Topic struct {
	Name              string `json:"name"`
	ID                string `json:"id"` // base64 as Kafka prints it, "" before topic ids
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replicationFactor"`
	Internal          bool   `json:"internal,omitempty"`
	// Offline are brokers that hold replicas of it and are down: one that the cluster does not list any more.
	Offline []int32 `json:"offline,omitempty"`
}

// NewTopic describes a topic to be made. ReplicationFactor 0 means 3, or as many brokers as there are if fewer.
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Configs           map[string]string
}

// Writer is a producer that the leader of a partition remembers, also one that has gone: it writes if LastSequence
// grows between two looks, or if it holds a transaction open.
type Writer struct {
	Partition
	ProducerID      int64     `json:"producerId"`
	Epoch           int32     `json:"epoch"`
	LastSequence    int32     `json:"lastSequence"`
	LastTimestamp   time.Time `json:"lastTimestamp,omitzero"` // of its last batch
	TxnStartOffset  int64     `json:"txnStartOffset"`         // of its open transaction, Unknown if none is open
	TransactionalID string    `json:"transactionalId,omitempty"`
	// CoordinatorEpoch is needed to end a transaction whose coordinator is on another cluster.
	CoordinatorEpoch int32 `json:"coordinatorEpoch"`
}

// Last names the writer as well as Kafka can, and says where it wrote last.
func (w Writer) Last() string {
	who := fmt.Sprintf("producer id %d", w.ProducerID)
	if w.TransactionalID != "" {
		who = fmt.Sprintf("transactional id %s (%s)", w.TransactionalID, who)
	}
	return fmt.Sprintf("%s on %s, last at %s", who, w.Name(), w.LastTimestamp.UTC().Format(time.RFC3339))
}

// Writing are the writers of after that are at work: what they wrote is not what they had written before, or they
// hold a transaction open.
func Writing(before, after []Writer) []Writer {
	type key struct {
		Partition
		id int64
	}
	was := map[key]Writer{}
	for _, w := range before {
		was[key{w.Partition, w.ProducerID}] = w
	}
	var at []Writer
	for _, w := range after {
		b, known := was[key{w.Partition, w.ProducerID}]
		same := known && b.Epoch == w.Epoch && b.LastSequence == w.LastSequence && b.LastTimestamp.Equal(w.LastTimestamp)
		if !same || w.TxnStartOffset != Unknown {
			at = append(at, w)
		}
	}
	return at
}

// The types of groups, in Kafka's words.
const (
	GroupClassic  = "classic"
	GroupConsumer = "consumer" // the newer protocol, whose members are assigned by the broker
	GroupShare    = "share"
	GroupStreams  = "streams"
)

// Group is a consumer group and who is in it.
type Group struct {
	Name     string   `json:"name"`
	State    string   `json:"state"`    // Empty, Stable, PreparingRebalance, Dead (it does not exist), ...
	Type     string   `json:"type"`     // classic, consumer, share, streams
	Protocol string   `json:"protocol"` // assignor
	Members  []Member `json:"members,omitempty"`
	// Opaque is set for a group whose members cannot be listed (share and streams): an empty Members says nothing then.
	Opaque bool `json:"opaque,omitempty"`
}

// Idle says whether nobody can be reading with the group: it is empty, or it does not exist.
func (g Group) Idle() bool {
	return !g.Opaque && len(g.Members) == 0 && (g.State == "Empty" || g.State == "Dead")
}

// Member is one member of a group.
type Member struct {
	ID         string   `json:"id"`
	InstanceID string   `json:"instanceId,omitempty"` // of a static member, which does not leave when it closes
	ClientID   string   `json:"clientId"`
	Host       string   `json:"host"`
	Topics     []string `json:"topics,omitempty"` // subscribed or assigned
}

// String names the member for an operator.
func (m Member) String() string {
	s := m.ID
	if m.InstanceID != "" {
		s = m.InstanceID + " (static)"
	}
	return strings.TrimSpace(s + " of client " + m.ClientID + " at " + m.Host)
}

// Grants is what one principal may do, as the brokers themselves see it. Operations are in Kafka's words (READ,
// ALTER_CONFIGS) and sorted. A topic or group that is absent could not be asked.
type Grants struct {
	Topics  map[string][]string `json:"topics"`
	Groups  map[string][]string `json:"groups"`
	Cluster []string            `json:"cluster"`
}

// Canary is one record that went through a topic.
type Canary struct {
	Offset    int64         `json:"offset"`
	RoundTrip time.Duration `json:"roundTrip"` // produce to read back, read_committed
	At        time.Time     `json:"at"`        // when it was acknowledged, by the caller's clock
	// Skew is the broker's clock minus the caller's, right to half a round trip; Skewed says whether it is known,
	// which takes a topic with message.timestamp.type=LogAppendTime.
	Skew   time.Duration `json:"skew"`
	Skewed bool          `json:"skewed"`
}

// Partial is the error of an operation on many things of which some failed. What is not in Failed went well.
type Partial struct {
	Op     string
	Failed []Outcome
	Err    error // of the first that failed, with its sentinel of package fault
}

func (p *Partial) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d failed: ", p.Op, len(p.Failed))
	for i, o := range p.Failed {
		if i == 5 {
			fmt.Fprintf(&b, "; and %d more", len(p.Failed)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(o.Name + ": " + o.Reason)
	}
	return b.String()
}

// Unwrap lets errors.Is see the sentinel of the first failure.
func (p *Partial) Unwrap() error { return p.Err }
