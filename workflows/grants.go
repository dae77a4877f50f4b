package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// GrantsRequest is what FixGrants is started with.
type GrantsRequest struct {
	Runbook string `json:"runbook"`
	From    string `json:"from,omitempty"` // the cluster that the workload must be on; empty: what discovery says
	To      string `json:"to"`             // the cluster on which clients lack grants
	By      string `json:"by,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"` // say what is missing and change nothing
	// Unplanned goes on without the cluster that the workload is on: then what clients need is judged by their roles.
	Unplanned bool `json:"unplanned,omitempty"`
}

var granter *activities.Grants

// fixing is one run of FixGrants.
type fixing struct {
	in     GrantsRequest
	status Status
}

// FixGrants creates the ALLOWs that the runbook's clients lack on the cluster To, and says what it changed. It holds the
// runbook meanwhile, so that no run meets grants that are half made. A dry run takes no lock and writes nothing.
func FixGrants(ctx workflow.Context, in GrantsRequest) (activities.GrantsResult, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &fixing{in: in, status: Status{Run: run, Workflow: "FixGrants", Runbook: in.Runbook, From: in.From, To: in.To, By: in.By,
		Phase: "grants", WaitsFor: "what clients lack on " + in.To, Started: workflow.Now(ctx)}}
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (Status, error) { return f.status.copy(), nil }); err != nil {
		return activities.GrantsResult{}, err
	}
	err := workflow.UpsertTypedSearchAttributes(ctx, AttributeRunbook.ValueSet(in.Runbook), AttributeWorkflow.ValueSet("FixGrants"), AttributePhase.ValueSet(f.status.Phase))
	if err != nil {
		return activities.GrantsResult{}, err
	}
	out, err := f.run(ctx)
	f.status.Ended, f.status.Outcome, f.status.Sentence, f.status.WaitsFor = workflow.Now(ctx), Completed, out.Text, ""
	if err != nil {
		f.status.Outcome, f.status.Sentence = FailedRun, plain(err)
	}
	f.status.Phase = f.status.Outcome
	workflow.SetCurrentDetails(ctx, grantsPage(f.status, out))
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributePhase.ValueSet(f.status.Phase), AttributeOutcome.ValueSet(f.status.Outcome)) // fails only on a value of the wrong type
	return out, err
}

func (f *fixing) run(ctx workflow.Context) (out activities.GrantsResult, err error) {
	until := workflow.Now(ctx).Add(preflightBudget)
	var snap activities.Snapshot
	if err := workflow.ExecuteActivity(quickRead(ctx, until, "snapshot of the runbook"), books.Snapshot, activities.SnapshotInput{Runbook: f.in.Runbook}).Get(ctx, &snap); err != nil {
		return out, err
	}
	var seen activities.ReadDiscoveryResult
	if err := workflow.ExecuteActivity(quickRead(ctx, until, "where clients go now"), discovery.Read, activities.ReadDiscoveryInput{Entries: snap.Runbook.Discovery}).Get(ctx, &seen); err != nil {
		return out, err
	}
	route, err := way(snap.Runbook, seen.Required(), f.in.From, f.in.To)
	if err != nil {
		return out, err
	}
	route.SourceLost = f.in.Unplanned
	epoch := seen.Required().Epoch
	f.status.From, f.status.Epoch = route.From.Name, epoch
	in := activities.GrantsInput{Runbook: snap.Runbook, Route: route, DryRun: f.in.DryRun,
		Guard: activities.Guard{Run: f.status.Run, Discovery: snap.Runbook.RequiredDiscovery(), Epoch: epoch}}
	fix := func() error {
		return workflow.ExecuteActivity(atomicWrite(ctx, until, "grants on "+route.To.Name), granter.FixGrants, in).Get(ctx, &out)
	}
	if f.in.DryRun {
		return out, fix()
	}
	return out, f.held(ctx, seen, fix)
}

// held does something while the runbook is held. What another run left behind is not for this one to settle.
func (f *fixing) held(ctx workflow.Context, seen activities.ReadDiscoveryResult, do func() error) error {
	entity := "runbook/" + f.in.Runbook
	var got activities.Acquired
	acquire := activities.Acquire{Entity: entity, Run: f.status.Run, Kind: kindGrants, From: f.status.From, To: f.in.To,
		SeenEpoch: seen.HighestEpoch(), SeenActive: seen.Required().Cluster}
	err := workflow.ExecuteActivity(atomicWrite(ctx, workflow.Now(ctx).Add(lockBudget), "take "+entity), locks.Acquire, acquire).Get(ctx, &got)
	switch {
	case err == nil && got.Abandoned != nil:
		err = fmt.Errorf("run %s was closed before it had released the runbook: start the run that settles it first, then come back", got.Abandoned.Run.ID())
	case err == nil:
		err = do()
	}
	// A lost answer may have been a yes, and releasing what is not held changes nothing. No outcome: this was no run of
	// the runbook, and the last one stays the last.
	safe, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	release := activities.Release{Entity: entity, Run: f.status.Run, Unsettled: got.Abandoned != nil}
	freed := workflow.ExecuteActivity(atomicWrite(safe, workflow.Now(safe).Add(releaseBudget), "release "+entity), locks.Release, release).Get(safe, nil)
	return errors.Join(err, freed)
}

// grantsPage is the result in Markdown.
func grantsPage(s Status, out activities.GrantsResult) string {
	b := fmt.Appendf(nil, "## Grants of `%s` on %s\n\n**%s.** %s\n\n", s.Runbook, s.To, s.Outcome, s.Sentence)
	for _, acl := range out.ACLs {
		b = fmt.Appendf(b, "- %s\n", acl)
	}
	for _, advice := range out.Advice {
		b = fmt.Appendf(b, "\n%s\n", advice)
	}
	return string(b)
}

// kindGrants is how an entity knows a holder that only grants.
const kindGrants = "grants"
