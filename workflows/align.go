package workflows

import (
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// alignID is the id of the workflow that brings a runbook's optional discovery entries to the truth.
func alignID(runbook string) string { return "align/" + runbook }

// AlignmentInput starts AlignDiscovery; Status is what it carries from one of its executions to the next.
type AlignmentInput struct {
	Runbook string               `json:"runbook"`
	Entries []runbooks.Discovery `json:"entries"`
	Status  AlignmentStatus      `json:"status"`
}

// AlignmentStatus is what its query `status` answers, and its result.
type AlignmentStatus struct {
	Since   time.Time `json:"since"`
	Tries   int       `json:"tries"`
	Pending string    `json:"pending,omitempty"` // which entries, and why; empty when all say the same
}

// AlignDiscovery brings the optional discovery entries of a runbook to what the required one says, whenever that is: the
// truth of now, not of the day when an entry could not be written (P2). It goes on until all say the same.
func AlignDiscovery(ctx workflow.Context, in AlignmentInput) (AlignmentStatus, error) {
	s := &in.Status
	if s.Since.IsZero() {
		s.Since = workflow.Now(ctx)
	}
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (AlignmentStatus, error) { return *s, nil }); err != nil {
		return *s, err
	}
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributeRunbook.ValueSet(in.Runbook),
		AttributeWorkflow.ValueSet("AlignDiscovery"), AttributePhase.ValueSet("waiting"))
	for pause := pauseFirst; ; pause = min(2*pause, pauseMost) {
		s.Tries++
		until := workflow.Now(ctx).Add(alignBudget)
		var out activities.SwitchResult
		err := workflow.ExecuteActivity(longWait(ctx, until, "align the other discovery entries"), discovery.Align,
			activities.AlignInput{Entries: in.Entries, Deadline: inside(ctx, until)}).Get(ctx, &out)
		switch {
		case ctx.Err() != nil:
			return *s, ctx.Err()
		case err != nil:
			s.Pending = plain(err)
		default:
			s.Pending = outcomes(out.Entries)
		}
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("## Discovery entries of `%s`\n\nSince %s, %d attempts. Waits for: %s\n",
			in.Runbook, s.Since.UTC().Format(time.RFC3339), s.Tries, or(s.Pending, "nothing, all say the same")))
		switch {
		case s.Pending == "":
			_ = workflow.UpsertTypedSearchAttributes(ctx, AttributePhase.ValueSet("done"), AttributeOutcome.ValueSet("done"))
			return *s, nil
		case workflow.GetInfo(ctx).GetContinueAsNewSuggested():
			return *s, workflow.NewContinueAsNewError(ctx, AlignDiscovery, in)
		}
		if err := workflow.Sleep(ctx, pause); err != nil {
			return *s, err
		}
	}
}

// startAlignment leaves what is pending to AlignDiscovery, which outlives the run. One that is there already does the same.
func (f *failover) startAlignment() error {
	ctx := workflow.WithChildOptions(f.safe, workflow.ChildWorkflowOptions{
		WorkflowID: alignID(f.in.Runbook), ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
		StaticSummary: "Bring the optional discovery entries of " + f.in.Runbook + " to the truth",
	})
	child := workflow.ExecuteChildWorkflow(ctx, AlignDiscovery, AlignmentInput{Runbook: f.in.Runbook, Entries: f.book.Discovery})
	err := child.GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil
	}
	return err
}
