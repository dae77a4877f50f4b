package workflows

import (
	"fmt"
	"strings"
	"time"

	"switchback/activities"
	"switchback/replication"
)

// facts are what the steps learned that the report tells.
type facts struct {
	Preflight string                     `json:"-"`
	Findings  []activities.Finding       `json:"checks,omitempty"`
	Stopped   []activities.ClientState   `json:"stopped,omitempty"`
	Running   []activities.ClientState   `json:"running,omitempty"`
	Killed    []string                   `json:"killed,omitempty"`
	HandOver  *activities.HandOverResult `json:"handOver,omitempty"`
	Promoted  time.Time                  `json:"promoted,omitzero"`
	Switched  time.Time                  `json:"switched,omitzero"`
	Entries   []replication.Outcome      `json:"entries,omitempty"`
	Verify    *activities.VerifyResult   `json:"verify,omitempty"`
}

// Record is what the workflow knows of a run: its status, the snapshot's hash and the facts.
type Record struct {
	Status
	SHA256 string `json:"sha256"`
	Owner  string `json:"owner"`
	facts
}

func (f *plannedFailover) record(now time.Time) Record {
	s := f.status.copy()
	s.Ended = now
	return Record{Status: s, SHA256: f.sha256, Owner: f.book.Metadata.Owner, facts: f.facts}
}

func anyPending(list []replication.Outcome) bool {
	for _, o := range list {
		if o.Status != replication.OK {
			return true
		}
	}
	return false
}

func outcomes(list []replication.Outcome) string {
	var parts []string
	for _, o := range list {
		if o.Status != replication.OK {
			parts = append(parts, fmt.Sprintf("%s: %s (%s)", o.Name, o.Status, o.Reason))
		}
	}
	return strings.Join(parts, "; ")
}
