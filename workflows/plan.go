package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
)

// Plan is a dry run: what each step would do, and what preflight finds. Nothing was changed and no lock taken.
type Plan struct {
	Runbook    string                     `json:"runbook"`
	SHA256     string                     `json:"sha256"`
	From       string                     `json:"from"`
	To         string                     `json:"to"`
	Epoch      int64                      `json:"epoch"`     // now
	NextEpoch  int64                      `json:"nextEpoch"` // of the switch, if it were the next
	Free       bool                       `json:"free"`
	HeldBy     *activities.Holder         `json:"heldBy,omitempty"`
	Unsettled  *activities.Holder         `json:"unsettled,omitempty"` // left behind; the next run settles it first
	Problems   int                        `json:"problems"`
	Preflight  activities.PreflightResult `json:"preflight"`
	Steps      []PlannedStep              `json:"steps"`
	GoesIfNow  bool                       `json:"goesIfNow"`
	Objectives string                     `json:"objectives"`
}

// PlannedStep is what one step would do.
type PlannedStep struct {
	Step          Step    `json:"step"`
	BudgetSeconds float64 `json:"budgetSeconds"`
	Would         string  `json:"would"`
}

// PlanFailover says what a planned failover with the same input would do.
func PlanFailover(ctx workflow.Context, in PlannedInput) (Plan, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &plannedFailover{&failover{kind: report.KindPlanned, in: in,
		engine: newEngine(ctx, Status{Run: run, Workflow: "PlanFailover", Runbook: in.Runbook, To: in.To})}}
	f.guard.Run = run
	f.announce()
	until := workflow.Now(ctx).Add(preflightBudget)
	now, err := f.survey(ctx, until)
	if err != nil {
		return Plan{}, err
	}
	out, err := perform[activities.PreflightResult](f.engine, longWait(ctx, until, "could it go?"), checks.Check, activities.PreflightInput{
		Run: run, Runbook: f.book, Route: f.route, Epoch: now.epoch, DryRun: true,
	})
	if err != nil {
		return Plan{}, err
	}
	out.Findings = append(out.Findings, now.flapping...)
	plan := Plan{
		Runbook: in.Runbook, SHA256: f.sha256, From: f.route.From.Name, To: f.route.To.Name, Epoch: now.epoch, NextEpoch: f.next,
		Free: now.holder.Holder == nil, HeldBy: now.holder.Holder, Unsettled: now.holder.Abandoned, Problems: out.Problems(), Preflight: out,
		Objectives: fmt.Sprintf("RTO %s, RPO 0 records: a planned run loses nothing", f.book.Objectives.RTO.D()),
		Steps:      would(f.page(), f.would(out)),
	}
	plan.GoesIfNow = plan.Problems == 0 && plan.Free
	return plan, nil
}

// would says what each step of the page would do.
func (f *plannedFailover) would(p activities.PreflightResult) map[Step]string {
	from, to := f.route.From.Name, f.route.To.Name
	producers := names(f.book.ClientsByRole("producer", "both"))
	consumers := names(f.book.ClientsByRole("consumer"))
	return map[Step]string{
		Preflight:       fmt.Sprintf("check both clusters, the link, %d topics, %d groups and every client's credentials", p.Topics, p.Groups),
		Approve:         fmt.Sprintf("wait for %d approvals", f.book.Gates.Planned.Approvals),
		SuspendSyncs:    fmt.Sprintf("suspend ACL sync, offset sync and auto-create on link %s, then wait %.1f s for cycles under way", p.LinkName, p.QuietSeconds),
		StopProducers:   fmt.Sprintf("stop %v", producers),
		FenceSource:     fmt.Sprintf("deny WRITE on %d topics of %s", p.Topics, from),
		ProveQuiescence: fmt.Sprintf("prove that nobody writes to %d partitions of %s", p.Partitions, from),
		Drain:           drainText(p, to),
		StopConsumers:   fmt.Sprintf("stop %v beside the three steps before", consumers),
		HandOverOffsets: fmt.Sprintf("close %d groups on %s and write their offsets on %s", p.Groups, from, to),
		Promote:         fmt.Sprintf("stop the mirrors of %d topics%s", p.Topics, finalText(p.StopIsFinal)),
		KeepMarks:       fmt.Sprintf("keep marks of %d partitions on both clusters, beside the switch", p.Partitions),
		SwitchTraffic:   fmt.Sprintf("write %s and epoch %d to %d discovery entries%s", to, f.next, len(f.book.Discovery), finalText(!p.StopIsFinal)),
		StartClients:    fmt.Sprintf("start %v, then %v", producers, consumers),
		VerifyTarget:    "send a canary through " + to + " and watch the groups move",
		WriteReport:     "write the report, release the runbook and say since when it is unprotected",
	}
}

func drainText(p activities.PreflightResult, to string) string {
	if p.DrainSeconds < 0 {
		return "wait until " + to + " has everything; how long that takes is not known"
	}
	return fmt.Sprintf("wait until %s has everything: %d records, about %s", to, p.Lag, time.Duration(p.DrainSeconds*float64(time.Second)).Round(time.Millisecond))
}

func finalText(final bool) string {
	if final {
		return "; the point of no return"
	}
	return ""
}
