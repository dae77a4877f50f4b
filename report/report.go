// Package report is a finished run on paper: JSON for machines and archives, Markdown for whoever reads it at night.
//
// Start reading at Report. Everything here is a value in and bytes out: no file, no network, no clock, and no field that
// could hold a secret. What is not known is null in JSON and "unknown" in Markdown, never zero.
package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
)

// SchemaName is the version of the shape; readers look at it first.
const SchemaName = "switchback/report/v1"

// Schema is the JSON Schema of a report, generated from the types of this package.
//
//go:embed schema.json
var Schema []byte

// The kinds of reports.
const (
	KindPlanned   = "planned failover"
	KindUnplanned = "unplanned failover"
	KindRecovery  = "recovery"
	KindFailback  = "failback"
)

// The outcomes of a run.
const (
	Completed  = "completed"
	RolledBack = "rolled back"
	Aborted    = "aborted"
	Failed     = "failed"
	Rejected   = "rejected"
)

// The statuses of a step.
const (
	StepDone       = "done"
	StepFailed     = "failed"
	StepSkipped    = "skipped"
	StepRolledBack = "rolled back"
	StepNotReached = "not reached"
)

// The levels of a finding.
const (
	OK      = "ok"
	Warning = "warning"
	Problem = "problem"
)

// Report is one finished run. Times are UTC, durations are seconds.
type Report struct {
	Schema         string              `json:"schema" jsonschema:"enum=switchback/report/v1"`
	Runbook        string              `json:"runbook"`
	Kind           string              `json:"kind"` // planned failover, unplanned failover, recovery, failback
	Run            Run                 `json:"run"`
	From           string              `json:"from"`
	To             string              `json:"to"`
	Reason         string              `json:"reason"`
	RequestedBy    string              `json:"requestedBy"`
	SnapshotSHA256 string              `json:"snapshotSHA256"` // of the runbook's file, as the run used it
	Outcome        string              `json:"outcome" jsonschema:"enum=completed,enum=rolled back,enum=aborted,enum=failed,enum=rejected"`
	OutcomeReason  string              `json:"outcomeReason,omitempty"`
	Epoch          Epoch               `json:"epoch"`
	Started        time.Time           `json:"started"`
	Ended          time.Time           `json:"ended"`
	Steps          []Step              `json:"steps"`             // in the order of the workflow
	Earlier        []Step              `json:"earlier,omitempty"` // of the planned run that was escalated into this one
	Decisions      []Decision          `json:"decisions,omitempty"`
	Findings       []Finding           `json:"findings,omitempty"`  // of preflight
	Positions      []PartitionPosition `json:"positions,omitempty"` // every partition; absent in a compact report
	Offsets        []GroupOffset       `json:"offsets,omitempty"`   // every group and partition; absent in a compact report
	Topics         []TopicPositions    `json:"topics,omitempty"`    // in place of positions
	Groups         []GroupOffsets      `json:"groups,omitempty"`    // in place of offsets
	SwitchWindow   SwitchWindow        `json:"switchWindow"`
	Objectives     Objectives          `json:"objectives"`
	RTO            Measured            `json:"rto"`
	RPO            RPO                 `json:"rpo"`
	Recovery       *Recovery           `json:"recovery,omitempty"`   // of an unplanned run: what its RTO is made of
	Loss           *Loss               `json:"loss,omitempty"`       // of an unplanned run: what is known of its RPO
	LaggedData     *LaggedData         `json:"laggedData,omitempty"` // of a recovery: what became of what was stranded
	Parts          []Part              `json:"parts,omitempty"`      // of a failback: the runs that it is made of
	Protection     Protection          `json:"protection"`
	Deviations     []string            `json:"deviations,omitempty"` // what was not as the runbook or the plan had it
	Standing       []string            `json:"standing,omitempty"`   // fences and seals that stand, syncs that are off, and why
	Details        string              `json:"details,omitempty"`    // where the whole report is, if this is not it
}

// Run is what Temporal calls it.
type Run struct {
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
}

// Epoch of the runbook. After is null when nothing was switched.
type Epoch struct {
	Before *int64 `json:"before" jsonschema:"nullable"`
	After  *int64 `json:"after" jsonschema:"nullable"`
}

// Step is one step of the workflow. Started is null when it was not reached.
type Step struct {
	Name            string     `json:"name"`
	Status          string     `json:"status" jsonschema:"enum=done,enum=failed,enum=skipped,enum=rolled back,enum=not reached"`
	Started         *time.Time `json:"started" jsonschema:"nullable"`
	DurationSeconds *float64   `json:"durationSeconds" jsonschema:"nullable"`
	BudgetSeconds   *float64   `json:"budgetSeconds" jsonschema:"nullable"` // null: it has none
	Result          string     `json:"result,omitempty"`                    // one sentence
	Attempts        int        `json:"attempts"`
}

// Decision is what a person said: approve, reject, hold, resume, retry, skip, rollback, escalate, abort, acknowledge,
// override.
type Decision struct {
	Kind   string    `json:"kind"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// Finding is one check of preflight: what it means and what to do.
type Finding struct {
	Check string `json:"check"`
	Level string `json:"level" jsonschema:"enum=ok,enum=warning,enum=problem"`
	Means string `json:"means"`
	Do    string `json:"do,omitempty"`
}

// PartitionPosition is where a partition ended on both clusters, in offsets. Mark is where its mirror stopped.
type PartitionPosition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	SourceEnd *int64 `json:"sourceEnd" jsonschema:"nullable"`
	TargetEnd *int64 `json:"targetEnd" jsonschema:"nullable"`
	Mark      *int64 `json:"mark" jsonschema:"nullable"`
}

// GroupOffset is one offset that was handed over. Source is null where the group had never committed.
type GroupOffset struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Source    *int64 `json:"source" jsonschema:"nullable"`
	Target    *int64 `json:"target" jsonschema:"nullable"`
	Proof     string `json:"proof"`    // exact, or in words how far off
	ReadBack  bool   `json:"readBack"` // the target was read afterwards and says Target
}

// TopicPositions counts the partitions of a topic. InStep, Behind and Ahead compare what the target has (the mark, or the
// target's end where no mark is known) with the source's end; Missing is null if any partition is unknown.
type TopicPositions struct {
	Topic      string `json:"topic"` // "all" when the topics themselves were too many
	Partitions int    `json:"partitions"`
	InStep     int    `json:"inStep"`
	Behind     int    `json:"behind"`
	Ahead      int    `json:"ahead"` // the target has more than the source: somebody else wrote there, or the source's end is old
	Unknown    int    `json:"unknown"`
	Missing    *int64 `json:"missing" jsonschema:"nullable"` // records the target lacks
}

// GroupOffsets counts the partitions of a group that were handed over.
type GroupOffsets struct {
	Group      string `json:"group"` // "all" when the groups themselves were too many
	Partitions int    `json:"partitions"`
	Exact      int    `json:"exact"`
	ReadBack   int    `json:"readBack"`
	Unknown    int    `json:"unknown"` // without an offset on the target
}

// SwitchWindow is how long clients could not work: from the last stop to the first start of their role, and as the
// canary saw it.
type SwitchWindow struct {
	Clients          []ClientWindow `json:"clients,omitempty"`
	ProducersSeconds *float64       `json:"producersSeconds" jsonschema:"nullable"`
	ConsumersSeconds *float64       `json:"consumersSeconds" jsonschema:"nullable"`
	CanarySeconds    *float64       `json:"canarySeconds" jsonschema:"nullable"`
}

// ClientWindow is one client's.
type ClientWindow struct {
	Client    string     `json:"client"`
	Role      string     `json:"role"`
	StoppedAt *time.Time `json:"stoppedAt" jsonschema:"nullable"`
	StartedAt *time.Time `json:"startedAt" jsonschema:"nullable"`
	Seconds   *float64   `json:"seconds" jsonschema:"nullable"`
}

// Objectives are the runbook's.
type Objectives struct {
	RTOSeconds float64 `json:"rtoSeconds"`
	RPOSeconds float64 `json:"rpoSeconds"`
	RPORecords int64   `json:"rpoRecords"`
}

// Measured is a time against its objective. Both are null where there was nothing to measure.
type Measured struct {
	Seconds *float64 `json:"seconds" jsonschema:"nullable"`
	Met     *bool    `json:"met" jsonschema:"nullable"`
}

// RPO is the loss in records. Records is a number only if Known: a bound that is still open stands in Text.
type RPO struct {
	Records *int64 `json:"records" jsonschema:"nullable"`
	Known   bool   `json:"known"`
	Met     *bool  `json:"met" jsonschema:"nullable"`
	Text    string `json:"text,omitempty"` // why it is not known, or its bounds
}

// Recovery splits the time from the outage to the first write on the new cluster. A part is null while one of its ends is
// unknown.
type Recovery struct {
	Outage           *time.Time `json:"outage" jsonschema:"nullable"`           // when the active cluster was lost
	DetectionSeconds *float64   `json:"detectionSeconds" jsonschema:"nullable"` // until the run was asked for
	DecisionSeconds  *float64   `json:"decisionSeconds" jsonschema:"nullable"`  // until it was approved
	RunSeconds       *float64   `json:"runSeconds" jsonschema:"nullable"`       // until producers worked again
	Text             string     `json:"text,omitempty"`                         // how the outage's beginning is known
}

// Loss is what the old cluster has, or may have, that the new one has not. AtLeast counts records that were seen to exist;
// AtMost is null while the number is open; Estimate is extrapolated, and no bound.
type Loss struct {
	AtLeast  int64       `json:"atLeast"`
	AtMost   *int64      `json:"atMost" jsonschema:"nullable"`
	Open     bool        `json:"open"` // somebody may still write there, because it is not fenced
	Estimate *int64      `json:"estimate" jsonschema:"nullable"`
	Bytes    *int64      `json:"bytes" jsonschema:"nullable"` // of AtLeast, estimated
	Seconds  *float64    `json:"seconds" jsonschema:"nullable"`
	Why      string      `json:"why"`
	Topics   []TopicLoss `json:"topics,omitempty"`   // the worst ones
	ClosedAt *time.Time  `json:"closedAt,omitempty"` // when it was counted behind the fence of the old cluster, after the run
}

// TopicLoss is the loss of one topic.
type TopicLoss struct {
	Topic    string   `json:"topic"`
	AtLeast  int64    `json:"atLeast"`
	AtMost   *int64   `json:"atMost" jsonschema:"nullable"`
	Estimate *int64   `json:"estimate" jsonschema:"nullable"`
	Bytes    *int64   `json:"bytes" jsonschema:"nullable"`
	Seconds  *float64 `json:"seconds" jsonschema:"nullable"`
	Why      string   `json:"why,omitempty"`
}

// Protection says whether another disaster would find a copy.
type Protection struct {
	UnprotectedSince *time.Time `json:"unprotectedSince" jsonschema:"nullable"`
	ProtectedBy      string     `json:"protectedBy,omitempty"` // the link towards the standby
	Text             string     `json:"text,omitempty"`
}

// Offset is v, or unknown (nil) when it is negative, as package replication writes it.
func Offset(v int64) *int64 {
	if v < 0 {
		return nil
	}
	return &v
}

// Seconds is d in seconds, for the fields of a report.
func Seconds(d time.Duration) *float64 { s := d.Seconds(); return &s }

// JSON is the report with its schema's name, indented. It fails on a number that JSON has no word for.
func (r Report) JSON() ([]byte, error) {
	r.Schema = SchemaName
	if r.Steps == nil {
		r.Steps = []Step{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("write report of %s: %w", r.Runbook, err)
	}
	return b.Bytes(), nil
}

// Parse reads what JSON wrote, and refuses another schema and unknown fields.
func Parse(data []byte) (Report, error) {
	var r Report
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	if r.Schema != SchemaName {
		return Report{}, fmt.Errorf("read report: its schema is %q, this version reads %s", r.Schema, SchemaName)
	}
	return r, nil
}
