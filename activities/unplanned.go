package activities

import (
	"time"

	"switchback/replication"
	"switchback/runbooks"
)

// What an unplanned failover asks of activities. The cluster that it leaves may be dead, half dead, or alive and cut off;
// Route.SourceLost says so, and then nothing here needs an answer from it.

// AssessInput is the whole runbook and the way to go. With DryRun nothing is written anywhere. Outage is when the active
// cluster was lost, as the operator says; zero when nobody said.
type AssessInput struct {
	Run     Run              `json:"run"`
	Runbook runbooks.Runbook `json:"runbook"`
	Route   Route            `json:"route"`
	Epoch   int64            `json:"epoch"`
	Outage  time.Time        `json:"outage,omitzero"`
	DryRun  bool             `json:"dryRun,omitempty"`
}

// AssessResult says who answers, what is known, and what would be lost if the run went now.
type AssessResult struct {
	Findings    []Finding   `json:"findings"` // a problem forbids the run: nothing of the target's can be doubtful
	From        Reach       `json:"from"`
	To          Reach       `json:"to"`
	Topics      int         `json:"topics"`
	Partitions  int         `json:"partitions"`
	Groups      int         `json:"groups"`
	Sampled     time.Time   `json:"sampled,omitzero"` // when both ends were last seen; zero: never
	LastAnswer  time.Time   `json:"lastAnswer,omitzero"`
	Loss        Loss        `json:"loss"`
	Losses      []TopicLoss `json:"losses,omitempty"`  // the worst fifty
	Clients     []string    `json:"clients,omitempty"` // what clients that tolerate no loss or no duplicates would meet
	LinkName    string      `json:"linkName"`
	StopIsFinal bool        `json:"stopIsFinal"`
	SealProven  bool        `json:"sealProven"` // ACLs hold the mirror's principals (P10); true where none are needed
}

// Reach is how much of a site answers Switchback.
type Reach struct {
	Site       string   `json:"site"`
	Answers    bool     `json:"answers"`
	Brokers    int      `json:"brokers"`              // that answer
	Silent     []string `json:"silent,omitempty"`     // brokers that do not
	Leaderless []string `json:"leaderless,omitempty"` // partitions of the runbook without a leader; at most twenty
	Why        string   `json:"why,omitempty"`        // what it says instead of an answer
}

// Loss and TopicLoss are judged by package replication.
type (
	Loss      = replication.Loss
	TopicLoss = replication.TopicLoss
)

// FenceReachResult says what of the source is fenced. Fenced is true only when every broker that the cluster holds for
// live said so; whoever is cut off may write until then.
type FenceReachResult struct {
	Acted
	Fenced bool   `json:"fenced"`
	Topics int    `json:"topics"`
	Text   string `json:"text"`
}

// FenceWhenInput is for one attempt of FenceWhenReachable. Switched is when the workload left that cluster; Epoch is the
// number under which it left: a higher one in discovery is checked before and after (P13).
type FenceWhenInput struct {
	Guard    Guard             `json:"guard"`
	Route    Route             `json:"route"`
	Topics   runbooks.Patterns `json:"topics"`
	Groups   runbooks.Groups   `json:"groups"`
	Switched time.Time         `json:"switched"`
	Listen   time.Duration     `json:"listen"` // for an answer of a cluster that is away, before the attempt says so
}

// FenceWhenResult is one attempt. Done: the old cluster is fenced on every broker, its stranded tail is kept from
// expiring, the marks are on it, and the loss is closed.
type FenceWhenResult struct {
	Acted
	Done    bool        `json:"done"`
	Waiting string      `json:"waiting,omitempty"` // for what
	Wrote   []string    `json:"wrote,omitempty"`   // who wrote there after the switch, as well as Kafka can name them (P23)
	Since   int64       `json:"since"`             // records written after the marks that a client sent after the switch; replication.Unknown
	Loss    Loss        `json:"loss"`              // closed: AtLeast = AtMost, but for topics that are gone
	Losses  []TopicLoss `json:"losses,omitempty"`
	Gone    []string    `json:"gone,omitempty"` // topics that it came back without, and why: what was stranded in them is lost for ever
	At      time.Time   `json:"at"`
	Text    string      `json:"text"`
}

// StopReachableResult names the instances that could not be stopped: they are unknown, not stopped (P22).
type StopReachableResult struct {
	ClientsResult
	Unknown []replication.Outcome `json:"unknown,omitempty"`
}

// FailOverResult says how the mirrors were stopped.
type FailOverResult struct {
	Acted
	Topics  int      `json:"topics"`
	Waits   bool     `json:"waits"` // the backend's tasks still have to stop; the seal holds them meanwhile
	Hanging []string `json:"hanging,omitempty"`
	Text    string   `json:"text"`
}

// LastMarksInput is for the marks of an unplanned run. Its Route's source is never waited for, and Outage, when nobody
// said it, is now.
type LastMarksInput struct {
	MarksInput
	Outage time.Time `json:"outage,omitzero"`
}

// LastMarksResult says what is known of the loss at the stop.
type LastMarksResult struct {
	Partitions int         `json:"partitions"`
	Loss       Loss        `json:"loss"`
	Losses     []TopicLoss `json:"losses,omitempty"` // the worst fifty
	Text       string      `json:"text"`
}
