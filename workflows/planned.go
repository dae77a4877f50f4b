package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// PlannedInput starts a planned failover; plain JSON such as {"runbook":"orders","to":"west","reason":"quarterly
// exercise"}. From is what discovery says when empty. By is who asks.
type PlannedInput struct {
	Runbook string `json:"runbook"`
	To      string `json:"to"`
	From    string `json:"from,omitempty"`
	Reason  string `json:"reason"`
	By      string `json:"by,omitempty"`
}

// Result is how a run ended. Exit codes follow Outcome: only completed is a success.
type Result struct {
	Run        string   `json:"run"`
	Runbook    string   `json:"runbook"`
	Outcome    string   `json:"outcome"`
	Sentence   string   `json:"sentence"`
	From       string   `json:"from"`
	To         string   `json:"to"`
	Epoch      int64    `json:"epoch"`
	Deviations []string `json:"deviations,omitempty"`
	Report     string   `json:"report,omitempty"`   // path of the JSON on the worker
	Markdown   string   `json:"markdown,omitempty"` // path of the same for people
}

// plannedFailover moves a workload so that nothing is lost and nothing is read twice.
type plannedFailover struct {
	*engine
	in        PlannedInput
	book      runbooks.Runbook
	sha256    string
	route     activities.Route
	guard     activities.Guard
	next      int64 // the epoch of the switch, fixed before it is used (P2)
	entities  []string
	checked   time.Time // when preflight last looked
	linkName  string
	unsettled bool // what a run before this one left behind still stands
	pending   bool // an optional discovery entry was out of reach
	facts     facts
	written   activities.ReportResult
}

// PlannedFailover runs one. A completed, rolled back, aborted or rejected run completes with its Result; a failed one
// fails with an error of type Failed.
func PlannedFailover(ctx workflow.Context, in PlannedInput) (Result, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &plannedFailover{in: in, engine: newEngine(ctx, Status{
		Run: run, Workflow: "PlannedFailover", Runbook: in.Runbook, From: in.From, To: in.To, Reason: in.Reason, By: in.By,
		Phase: string(Preflight), Started: workflow.Now(ctx),
	})}
	f.guard.Run = run
	if err := f.listen(); err != nil {
		return Result{}, err
	}
	if err := workflow.SetQueryHandler(ctx, QueryReport, func() (json.RawMessage, error) { return f.written.Report, nil }); err != nil {
		return Result{}, err
	}
	f.announce()
	_ = f.inOrder(f.page()...) // how it ended is in the status
	f.insist(step{name: stepRelease, do: f.release, budget: fixed(releaseBudget), skip: true})
	f.ended()
	out := f.result()
	if out.Outcome == FailedRun {
		return out, temporal.NewNonRetryableApplicationError(out.Sentence, "Failed", nil, out)
	}
	return out, nil
}

// page is the runbook's page: plan, status and report list the same steps.
func (f *plannedFailover) page() []step {
	return []step{
		{name: Preflight, do: f.preflight, budget: fixed(preflightBudget)},
		{name: Approve, do: f.awaitApproval, budget: f.expiry},
		{name: SuspendSyncs, do: f.suspendSyncs, budget: fixed(suspendBudget), undo: undo{name: undoSyncs, do: f.restoreSyncs}},
		{name: StopProducers, do: f.stopProducers, budget: f.stopClients,
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

func (f *plannedFailover) expiry() time.Duration {
	if d := f.book.Gates.Planned.Expiry.D(); d > 0 {
		return d
	}
	return approvalExpiry
}
func (f *plannedFailover) stopClients() time.Duration { return f.book.Budgets.StopClients.D() }
func (f *plannedFailover) drainTime() time.Duration   { return f.book.Budgets.Drain.D() }
func (f *plannedFailover) catchUpAndStop() time.Duration {
	return f.book.Budgets.CatchUp.D() + f.book.Budgets.StopClients.D()
}
func (f *plannedFailover) promoteTime() time.Duration { return f.book.Budgets.Promote.D() }
func (f *plannedFailover) startTime() time.Duration   { return f.book.Budgets.StartClients.D() }
func (f *plannedFailover) verifyTime() time.Duration  { return f.book.Budgets.Verify.D() }

// awaitApproval waits for so many different people. It expires: an approval of yesterday approves nothing.
func (f *plannedFailover) awaitApproval(ctx workflow.Context, until time.Time) (string, error) {
	need := f.book.Gates.Planned.Approvals
	if need > 0 {
		f.gate = &gate{need: need, approvers: f.book.Gates.Approvers, requester: f.in.By}
		defer func() { f.gate = nil }()
		f.phase(string(Approve))
		f.say(string(Approve), fmt.Sprintf("%d approvals until %s, by Update `approve`", need, until.Format(time.RFC3339)))
		there := func() bool { return f.gate.rejected != nil || len(f.status.Approvals) >= need }
		ok, err := workflow.AwaitWithTimeout(ctx, until.Sub(workflow.Now(ctx)), there)
		switch {
		case err != nil:
			return "", err
		case !ok:
			return "", &stop{Rejected, fmt.Sprintf("%d of %d approvals came within %s: ask the approvers, then start a new run", len(f.status.Approvals), need, f.expiry())}
		case f.gate.rejected != nil:
			return "", &stop{Rejected, fmt.Sprintf("rejected by %s (%s)", f.gate.rejected.By, f.gate.rejected.Reason)}
		}
	}
	if workflow.Now(ctx).Sub(f.checked) > preflightKeeps {
		if err := f.check(ctx, workflow.Now(ctx).Add(preflightBudget)); err != nil {
			return "", err
		}
	}
	if need == 0 {
		return "the runbook asks for no approval", nil
	}
	return fmt.Sprintf("%d of %d approvals", len(f.status.Approvals), need), nil
}

// suspendSyncs holds back what the link does by itself, then lets the cycles pass that had begun before (P34).
func (f *plannedFailover) suspendSyncs(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.SyncsInput{Guard: f.guard, Route: f.route}
	out, err := perform[activities.SyncsResult](f.engine, atomicWrite(ctx, until, "suspend the syncs of the link"), syncs.Suspend, in)
	if err != nil {
		return "", err
	}
	if out.QuietAt.After(until) {
		return "", fmt.Errorf("a sync cycle of the link may write until %s, which is beyond the budget: shorten the link's sync intervals", out.QuietAt.Format(time.RFC3339))
	}
	if wait := out.QuietAt.Sub(workflow.Now(ctx)); wait > 0 {
		f.say(string(SuspendSyncs), "sync cycles under way, until "+out.QuietAt.Format(time.RFC3339))
		if err := workflow.Sleep(ctx, wait); err != nil {
			return "", err
		}
	}
	return out.Text, nil
}

// verify looks at the target as clients see it.
func (f *plannedFailover) verify(ctx workflow.Context, until time.Time) (string, error) {
	f.due = time.Time{} // also when starting the clients was skipped
	f.phase(string(VerifyTarget))
	in := activities.VerifyInput{Guard: f.guard, Route: f.route, Groups: f.book.Groups, Deadline: inside(ctx, until)}
	out, err := perform[activities.VerifyResult](f.engine, longWait(ctx, until, "canary through "+f.route.To.Name), verifier.Target, in)
	if err != nil {
		return "", err
	}
	f.facts.Verify = &out
	for _, p := range out.Problems {
		f.deviate("verify: " + p)
	}
	return out.Text, nil
}

func (f *plannedFailover) result() Result {
	s := f.status
	return Result{
		Run: s.Run.ID(), Runbook: s.Runbook, Outcome: s.Outcome, Sentence: s.Sentence, From: s.From, To: s.To, Epoch: s.Epoch,
		Deviations: s.Deviations, Report: f.written.JSONPath, Markdown: f.written.MarkdownPath,
	}
}
