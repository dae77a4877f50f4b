package activities

import (
	"context"
	"errors"
	"time"
)

// Locks talks to the entity workflows `runbook/<name>` and `link/<name>` (P1, P3).
type Locks struct{}

// Names that the entity workflow and its callers share.
const (
	EntityWorkflow  = "Entity"
	UpdateAcquire   = "acquire"
	UpdateRelease   = "release"
	QueryEntity     = "status"
	EntityTaskQueue = "" // the same as the caller's
)

// Acquire is what a run asks of an entity. SeenEpoch is the highest epoch seen in any discovery entry, 0 if none;
// an entity without history starts from it. SeenActive is the cluster that discovery names.
type Acquire struct {
	Entity     string `json:"entity"` // runbook/<name> or link/<name>
	Run        Run    `json:"run"`
	Kind       string `json:"kind"` // "planned failover"
	From       string `json:"from,omitempty"`
	To         string `json:"to,omitempty"`
	SeenEpoch  int64  `json:"seenEpoch"`
	SeenActive string `json:"seenActive,omitempty"`
}

// Acquired is the entity's answer. NextEpoch is the absolute number of the switch, fixed before it is used (P2).
type Acquired struct {
	NextEpoch int64     `json:"nextEpoch"`
	Active    string    `json:"active"`
	Since     time.Time `json:"since"`
	Abandoned *Holder   `json:"abandoned,omitempty"` // a holder that closed without releasing: undo or finish it first
}

// Holder is who holds an entity.
type Holder struct {
	Run   Run       `json:"run"`
	Kind  string    `json:"kind"`
	To    string    `json:"to,omitempty"`
	Since time.Time `json:"since"`
}

// Release ends a hold and tells the entity where the workload is now. Releasing what is not held changes nothing.
type Release struct {
	Entity           string     `json:"entity"`
	Run              Run        `json:"run"`
	Outcome          string     `json:"outcome"`
	Active           string     `json:"active,omitempty"` // "" leaves it
	Epoch            int64      `json:"epoch,omitempty"`  // what discovery holds now; 0 leaves it
	UnprotectedSince *time.Time `json:"unprotectedSince,omitempty"`
	Report           string     `json:"report,omitempty"`
}

// EntityStatus is what the entity's query answers and its page shows.
type EntityStatus struct {
	Entity           string     `json:"entity"`
	Active           string     `json:"active"`
	Epoch            int64      `json:"epoch"`
	Holder           *Holder    `json:"holder,omitempty"`
	Abandoned        *Holder    `json:"abandoned,omitempty"`
	LastRun          *Run       `json:"lastRun,omitempty"`
	LastOutcome      string     `json:"lastOutcome,omitempty"`
	LastReport       string     `json:"lastReport,omitempty"`
	LastSwitch       *time.Time `json:"lastSwitch,omitempty"`
	UnprotectedSince *time.Time `json:"unprotectedSince,omitempty"`
}

// Acquire sends the Update with start; idempotent by the run. TypeHeld names the holder and what to do.
func (a *Locks) Acquire(ctx context.Context, in Acquire) (Acquired, error) {
	return Acquired{}, errors.New("not written")
}

// Release sends the Update.
func (a *Locks) Release(ctx context.Context, in Release) error { return errors.New("not written") }

// HolderClosed asks Temporal whether the holder's workflow is closed: the only proof on which a holder is replaced.
func (a *Locks) HolderClosed(ctx context.Context, in Holder) (bool, error) {
	return false, errors.New("not written")
}
