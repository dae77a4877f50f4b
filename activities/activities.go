// Package activities is all that a run does to the outside: one struct per outside system, one file per concept.
//
// Each activity looks, then acts: it may run twice, be killed at any line, or find that it already happened. What it
// needs of a system it declares as a small interface; package worker fills these in. Decisions that can be pure are in
// package replication. Start reading at Guard, then preflight.go and the files in the order of the steps: syncs.go,
// clients.go, fence.go, quiesce.go, drain.go, handover.go, promote.go, marks.go, discovery.go, verify.go, report.go.
package activities

import (
	"time"

	"switchback/runbooks"
)

// Run names the run on whose behalf an activity acts. Continue-as-new and reset keep it the same.
type Run struct {
	Runbook    string `json:"runbook"`
	WorkflowID string `json:"workflowId"`
	FirstRunID string `json:"firstRunId"`
}

// ID is how discovery (switchedBy), records and reports name the run.
func (r Run) ID() string { return r.WorkflowID + "/" + r.FirstRunID }

// Guard is checked by every activity before it acts: the required discovery entry must still hold Epoch (P35). Nothing
// is changed otherwise, and the error is of type TypeStale.
type Guard struct {
	Run       Run                `json:"run"`
	Discovery runbooks.Discovery `json:"discovery"`
	Epoch     int64              `json:"epoch"`
}

// Site is one cluster by its name in the runbook.
type Site struct {
	Name    string           `json:"name"`
	Cluster runbooks.Cluster `json:"cluster"`
	// TopicPrefix is what clients put before the names of the workload's topics there.
	TopicPrefix string `json:"topicPrefix,omitempty"`
}

// Route is where a run goes: from one site to another over a link.
type Route struct {
	From Site          `json:"from"`
	To   Site          `json:"to"`
	Link runbooks.Link `json:"link"`
	// SourceLost lets activities go on without an answer from From; what needs one says that it has none.
	SourceLost bool `json:"sourceLost,omitempty"`
}

// Acted is part of the result of every activity that changes something. Attempt > 1 means that earlier attempts failed or
// were lost sight of; whoever undoes or starts clients outlives their writes first (P35c).
type Acted struct {
	Changed bool      `json:"changed"`
	Attempt int32     `json:"attempt"`
	Started time.Time `json:"started"`       // of this attempt, by Temporal's clock
	Late    time.Time `json:"late,omitzero"` // when the writes of earlier attempts have ended, by Temporal's clock
}

// LateUntil is when the writes of earlier attempts have ended for certain; zero when there was none. A worker from before
// Late was known only says when it began itself.
func (a Acted) LateUntil() time.Time {
	switch {
	case a.Attempt <= 1:
		return time.Time{}
	case a.Late.IsZero():
		return a.Started.Add(WriteDeadline)
	}
	return a.Late
}

// WriteDeadline bounds all writes of one attempt of an activity, counted from when Temporal handed it out (P35a).
const WriteDeadline = 2 * time.Second
