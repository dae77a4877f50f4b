package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/report"
	"switchback/runbooks"
)

// PlannedInput starts a planned failover; plain JSON such as {"runbook":"orders","to":"west","reason":"quarterly
// exercise"}. From is what discovery says when empty. By is who asks. Override says why a second switch soon after the
// last one is right.
type PlannedInput struct {
	Runbook  string `json:"runbook"`
	To       string `json:"to"`
	From     string `json:"from,omitempty"`
	Reason   string `json:"reason"`
	By       string `json:"by,omitempty"`
	Override string `json:"override,omitempty"`
}

// plannedFailover moves a workload so that nothing is lost and nothing is read twice.
type plannedFailover struct{ *failover }

// PlannedFailover runs one. See conclude for how it ends.
func PlannedFailover(ctx workflow.Context, in PlannedInput) (Result, error) {
	base, err := newFailover(ctx, report.KindPlanned, "PlannedFailover", in, Preflight)
	if err != nil {
		return Result{}, err
	}
	f := &plannedFailover{base}
	f.mayTurn, f.tell, f.ending = true, f.nothingLost, func() string { return "" }
	err = f.inOrder(f.page()...) // how it ended is in the status
	if isEscalated(err) {
		escalated(f).run()
	}
	return f.conclude()
}

// page is the runbook's page: plan, status and report list the same steps.
func (f *plannedFailover) page() []step {
	return []step{
		{name: Preflight, do: f.preflight, budget: fixed(preflightBudget)},
		{name: Approve, do: f.awaitApproval, budget: f.expiry},
		{name: SuspendSyncs, do: f.suspendSyncs, budget: fixed(suspendBudget), undo: undo{name: undoSyncs, do: f.restoreSyncs}},
		{name: StopProducers, do: f.stopProducers, budget: f.stopTime,
			undo: undo{name: undoProducers, do: f.startAgain(runbooks.RoleProducer, runbooks.RoleBoth)}},
		{name: FenceSource, do: f.fenceSource, budget: fixed(fenceBudget), quiet: true,
			undo: undo{name: undoFences, do: f.liftFences}},
		{name: ProveQuiescence, do: f.proveQuiescence, budget: fixed(quiesceBudget), quiet: true},
		{name: Drain, do: f.drain, budget: f.drainTime, quiet: true},
		{name: StopConsumers, do: f.stopConsumers, budget: f.catchUpAndStop, quiet: true, with: FenceSource,
			undo: undo{name: undoConsumers, do: f.startAgain(runbooks.RoleConsumer)}},
		{name: HandOverOffsets, do: f.handOverOffsets, budget: fixed(handOverBudget), quiet: true},
		{name: Promote, do: f.promote, budget: f.promoteTime, quiet: true}, // point of no return on Cluster Linking
		{name: KeepMarks, do: f.keepMarks, budget: fixed(marksBudget), quiet: true, until: VerifyTarget, skip: true},
		{name: SwitchTraffic, do: f.switchTraffic, budget: fixed(switchBudget), quiet: true},
		{name: StartClients, do: f.startClients, budget: f.startTime, quiet: true, skip: true},
		{name: VerifyTarget, do: f.verify, budget: f.verifyTime, skip: true},
		{name: WriteReport, do: f.report, budget: fixed(reportBudget), skip: true, always: true},
	}
}

func (f *plannedFailover) expiry() time.Duration    { return expiryOf(f.book.Gates.Planned) }
func (f *plannedFailover) drainTime() time.Duration { return f.book.Budgets.Drain.D() }
func (f *plannedFailover) catchUpAndStop() time.Duration {
	return f.book.Budgets.CatchUp.D() + f.book.Budgets.StopClients.D()
}

// awaitApproval repeats a preflight that has become old meanwhile.
func (f *plannedFailover) awaitApproval(ctx workflow.Context, until time.Time) (string, error) {
	gate, said := f.book.Gates.Planned, ""
	switch {
	case f.nested:
		said = "approved with the run that it is part of"
	case gate.Approvals > 0:
		if err := f.awaitApprovals(ctx, until, gate, f.in.By, 0, nil); err != nil {
			return "", err
		}
	}
	if workflow.Now(ctx).Sub(f.checked) > preflightKeeps {
		if err := f.check(ctx, workflow.Now(ctx).Add(preflightBudget)); err != nil {
			return "", err
		}
	}
	return or(said, f.approved(gate.Approvals)), nil
}
