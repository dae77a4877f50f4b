package activities

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"
)

// Fencing is how far FenceWhenReachable is with a cluster that was left without a fence, as the runbook's entity shows it.
type Fencing struct {
	Cluster  string     `json:"cluster"`
	Workflow string     `json:"workflow"` // its id
	Run      Run        `json:"run"`      // that left the cluster
	Since    time.Time  `json:"since"`
	Waiting  string     `json:"waiting,omitempty"` // for what; as of when the entity was told
	Fenced   *time.Time `json:"fenced,omitempty"`
	Wrote    []string   `json:"wrote,omitempty"`   // who wrote there after the switch (P23)
	Written  int64      `json:"written,omitempty"` // how many records; replication.Unknown
	Loss     *Loss      `json:"loss,omitempty"`    // closed
}

// Names of the entity's Update about fences, and what it says of one.
const (
	UpdateFencing = "fencing"
	FencingWaits  = "waiting"
	FencingDone   = "fenced"
	FencingGone   = "not needed any more"
)

// TellFencing is what an entity is told of a cluster that waits for its fence.
type TellFencing struct {
	Entity  string  `json:"entity"`
	State   string  `json:"state"`
	Fencing Fencing `json:"fencing"`
}

// TellFencing sends the Update. It is refused while a run holds the runbook that goes to that cluster.
func (a *Locks) TellFencing(ctx context.Context, in TellFencing) error {
	return a.update(ctx, in.Entity, UpdateFencing, "fencing/"+in.State+"/"+in.Fencing.Run.ID()+"/"+in.Fencing.Cluster, in, nil)
}

// EndFencing names a workflow that waits to fence a cluster.
type EndFencing struct {
	Workflow string `json:"workflow"`
}

// EndFencingResult has what the workflow would have gone on with, in its own words: a run that does not go to the cluster
// after all lets it wait again with that. Empty where none was cancelled.
type EndFencingResult struct {
	Left json.RawMessage `json:"left,omitempty"`
}

// EndFencing cancels that workflow and waits for its end: behind it nothing of it can act any more (P13). One that is
// not there, or has ended, is fine.
func (a *Locks) EndFencing(ctx context.Context, in EndFencing) (out EndFencingResult, err error) {
	err = a.Temporal.CancelWorkflow(ctx, in.Workflow, "")
	var gone *serviceerror.NotFound
	if err != nil && !errors.As(err, &gone) {
		return out, wrap("cancel "+in.Workflow, err)
	}
	err = a.Temporal.GetWorkflow(ctx, in.Workflow, "").Get(ctx, nil)
	var ended *temporal.WorkflowExecutionError
	var cancelled *temporal.CanceledError
	switch {
	case errors.As(err, &cancelled) && cancelled.HasDetails():
		return out, wrap("read what "+in.Workflow+" had left to do", cancelled.Details(&out.Left))
	case err == nil || errors.As(err, &ended) || errors.As(err, &gone):
		return out, nil // however it ended, it has
	}
	return out, wrap("wait for the end of "+in.Workflow, err)
}
