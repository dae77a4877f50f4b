package activities

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// Locks talks to the entity workflows `runbook/<name>` and `link/<name>` (P1, P3).
type Locks struct{ Temporal client.Client }

// Names that the entity workflow and its callers share.
const (
	EntityWorkflow = "Entity"
	UpdateAcquire  = "acquire"
	UpdateRelease  = "release"
	QueryEntity    = "status"
)

// TaskTimeout is for workflow tasks, wherever a workflow is started: a worker that dies while it decides what comes next
// costs the switch window this much, and by default it would cost 10 s. A task takes milliseconds; a worker that stands
// still for longer only has it decided again.
const TaskTimeout = 2 * time.Second

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
	// Parent is the id of the workflow that started the run as its child. If that one holds the entity, the run holds it within.
	Parent string `json:"parent,omitempty"`
}

// Acquired is the entity's answer. NextEpoch is the absolute number of the switch, fixed before it is used (P2).
type Acquired struct {
	NextEpoch int64     `json:"nextEpoch"`
	Active    string    `json:"active"`
	Since     time.Time `json:"since"`
	Abandoned *Holder   `json:"abandoned,omitempty"` // a holder that closed without releasing: undo or finish it first
	// LastSwitch is when the workload last changed its cluster, for the anti-flap time.
	LastSwitch *time.Time `json:"lastSwitch,omitempty"`
	// Nested says that the run holds the entity within its parent, which holds it too: what was approved there is approved here.
	Nested  bool `json:"nested,omitempty"`
	Fencing bool `json:"fencing,omitempty"` // something waits to fence the cluster that the run goes to: end it first (P13)
}

// Holder is who holds an entity. Within is the parent that started it and holds the entity too, before and after it.
type Holder struct {
	Run   Run       `json:"run"`
	Kind  string    `json:"kind"`
	To    string    `json:"to,omitempty"`
	Since time.Time `json:"since"`
	// Unfenced is To where something waited to fence that when the run took the entity. The run ends it, and when it is closed before
	// it got there, nobody else would ever fence that (P13).
	Unfenced string  `json:"unfenced,omitempty"`
	Within   *Holder `json:"within,omitempty"`
}

// Release ends a hold and tells the entity where the workload is now. Releasing what is not held changes nothing.
type Release struct {
	Entity           string     `json:"entity"`
	Run              Run        `json:"run"`
	Outcome          string     `json:"outcome"`
	Active           string     `json:"active,omitempty"` // "" leaves it
	Epoch            int64      `json:"epoch,omitempty"`  // what discovery holds now; 0 leaves it
	UnprotectedSince *time.Time `json:"unprotectedSince,omitempty"`
	Protected        bool       `json:"protected,omitempty"` // the workload is mirrored again: unprotected no more
	Report           string     `json:"report,omitempty"`
	Unsettled        bool       `json:"unsettled,omitempty"` // what Abandoned left is still there for the next run
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
	Fencing          []Fencing  `json:"fencing,omitempty"` // clusters that were left without a fence, and what became of it
}

// Acquire sends the Update with start; idempotent by the run. TypeHeld names the holder and what to do.
func (a *Locks) Acquire(ctx context.Context, in Acquire) (Acquired, error) {
	var out Acquired
	err := a.update(ctx, in.Entity, UpdateAcquire, "acquire/"+in.Run.ID(), in, &out)
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) {
		return out, refusal(refused.Message())
	}
	return out, err
}

// refusal is an entity's own sentence, of the type errHeld.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == errHeld }

// Release sends the Update.
func (a *Locks) Release(ctx context.Context, in Release) error {
	return a.update(ctx, in.Entity, UpdateRelease, "release/"+in.Run.ID(), in, nil)
}

// update starts the entity if it does not run, and waits for the Update's answer. A refusal of the validator and an
// error of the handler both arrive as application errors.
func (a *Locks) update(ctx context.Context, entity, name, id string, arg, out any) error {
	start := a.Temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID:                       entity,
		TaskQueue:                activity.GetInfo(ctx).TaskQueue,
		WorkflowTaskTimeout:      TaskTimeout,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            "Who holds " + entity + ", and where its workload is",
	}, EntityWorkflow, EntityState{})
	handle, err := a.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: id, UpdateName: name, Args: []any{arg}, WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err != nil {
		return wrap(name+" "+entity, err)
	}
	return wrap(name+" "+entity, handle.Get(ctx, out))
}

// EntityState is what an entity carries from one of its executions to the next; the zero value is a new one.
type EntityState struct {
	Status EntityStatus `json:"status"`
	// HeldEpoch is the number fixed for the present holder, so that its repeated acquire is told the same.
	HeldEpoch int64 `json:"heldEpoch,omitempty"`
}

// HolderClosed asks Temporal whether the holder's workflow is closed: the only proof on which a holder is replaced. A
// holder whose chain was continued as new or reset is closed only when the newest execution of that chain is.
func (a *Locks) HolderClosed(ctx context.Context, in Holder) (bool, error) {
	newest, err := a.Temporal.DescribeWorkflowExecution(ctx, in.Run.WorkflowID, "")
	var gone *serviceerror.NotFound
	switch {
	case errors.As(err, &gone):
		return true, nil // past its retention: closed long ago
	case err != nil:
		return false, wrap("ask Temporal about the holder "+in.Run.ID(), err)
	}
	info := newest.GetWorkflowExecutionInfo()
	if first := info.GetFirstRunId(); first != "" && first != in.Run.FirstRunID {
		return true, nil // the workflow id was used again by another run: a new one starts only when the old is closed
	}
	return info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// Entity asks the entity for its status; the zero value with the name when it does not exist yet.
func (a *Locks) Entity(ctx context.Context, entity string) (EntityStatus, error) {
	out := EntityStatus{Entity: entity}
	answer, err := a.Temporal.QueryWorkflow(ctx, entity, "", QueryEntity)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return out, nil
	}
	if err != nil {
		return out, wrap("ask "+entity, err)
	}
	return out, wrap("decode status of "+entity, answer.Get(&out))
}
