package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
)

// UnplannedInput starts an unplanned failover; plain JSON such as {"runbook":"orders","to":"west","reason":"east is gone",
// "by":"carol","outage":"2026-03-14T02:57:00Z"}. Outage is when the active cluster was lost, as far as somebody knows.
type UnplannedInput struct {
	Runbook  string    `json:"runbook"`
	To       string    `json:"to"`
	From     string    `json:"from,omitempty"`
	Reason   string    `json:"reason"`
	By       string    `json:"by,omitempty"`
	Outage   time.Time `json:"outage,omitzero"`
	Override string    `json:"override,omitempty"` // why a second switch soon after the last one is right
	// Clients says what to do about instances that cannot be reached: go-on (the default) names them, wait parks for them.
	Clients string `json:"clients,omitempty"`
}

// What to do about clients that cannot be reached.
const (
	ClientsGoOn = "go-on"
	ClientsWait = "wait"
)

func (in UnplannedInput) common() PlannedInput {
	return PlannedInput{Runbook: in.Runbook, To: in.To, From: in.From, Reason: in.Reason, By: in.By, Override: in.Override}
}

// unplannedFailover moves a workload whose cluster is gone, as fast as possible, and states the loss to the record.
type unplannedFailover struct {
	*failover
	disaster  UnplannedInput
	requester string // who cannot approve it
	entered   bool   // the runbook is held already
	asked     time.Time
	agreed    time.Time // when it was approved
	outage    time.Time // when the active cluster was lost, as far as it is known
	assessed  activities.AssessResult
	marked    *activities.LastMarksResult
	waits     bool      // FenceWhenReachable has still to close the loss
	unfenced  bool      // and to fence the cluster first
	stopping  bool      // the mirror is sealed, and its tasks have still to stop
	lateFence time.Time // until when a fence that was lost sight of may still be made
}

// UnplannedFailover runs one. See conclude for how it ends.
func UnplannedFailover(ctx workflow.Context, in UnplannedInput) (Result, error) {
	base, err := newFailover(ctx, report.KindUnplanned, "UnplannedFailover", in.common(), Assess)
	if err != nil {
		return Result{}, err
	}
	newUnplanned(base, in).run()
	return base.conclude()
}

func newUnplanned(f *failover, in UnplannedInput) *unplannedFailover {
	u := &unplannedFailover{failover: f, disaster: in, requester: f.in.By, asked: f.status.Started, outage: in.Outage}
	f.route.SourceLost, f.tell, f.ending = true, u.stated, u.sentence
	return u
}

func (u *unplannedFailover) run() { _ = u.inOrder(u.page()...) } // how it ended is in the status

// page is the runbook's page: plan, status and report list the same steps. What does not depend on each other runs side by
// side; between the decision and the first start six activities follow each other at most.
func (u *unplannedFailover) page() []step {
	return []step{
		{name: Assess, do: u.assess, budget: fixed(preflightBudget)},
		{name: Approve, do: u.awaitApproval, budget: u.expiry},
		{name: SuspendSyncs, do: u.holdBackSyncs, budget: fixed(fenceBudget), quiet: true, until: FailOver,
			undo: undo{name: undoSyncs, do: u.restoreSyncs}},
		{name: StopClients, do: u.stopReachable, budget: u.stopTime, quiet: true, until: FailOver, skip: true,
			undo: undo{name: undoClients, do: u.startAgain(everyRole...)}},
		{name: FenceSource, do: u.fenceReachable, budget: fixed(reachBudget), quiet: true,
			undo: undo{name: undoFences, do: u.liftReached}},
		{name: FailOver, do: u.failOver, budget: u.promoteTime, quiet: true}, // the point of no return
		{name: KeepMarks, do: u.keepLastMarks, budget: fixed(marksBudget), quiet: true, until: SettleTransactions, skip: true},
		{name: HandOverOffsets, do: u.handOverLastKnown, budget: fixed(handOverBudget), quiet: true, skip: true},
		{name: SettleTransactions, do: u.settleTransactions, budget: fixed(quiesceBudget), quiet: true, skip: true},
		{name: SwitchTraffic, do: u.switchOver, budget: fixed(switchBudget), quiet: true},
		{name: StartClients, do: u.startClients, budget: u.startTime, quiet: true, skip: true},
		{name: VerifyTarget, do: u.confirm, budget: u.verifyTime, skip: true},
		{name: WriteReport, do: u.report, budget: fixed(reportBudget), skip: true, always: true},
	}
}
