package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
)

var turns *activities.Turns

// FailbackPlan is a dry run: how the workload would go home, and what would be truncated, deleted and copied for that.
// Nothing was changed and no lock taken.
type FailbackPlan struct {
	Runbook   string              `json:"runbook"`
	SHA256    string              `json:"sha256"`
	From      string              `json:"from"` // where the workload is
	To        string              `json:"to"`
	AtHome    bool                `json:"atHome,omitempty"` // only protection is missing
	Epoch     int64               `json:"epoch"`
	Free      bool                `json:"free"`
	HeldBy    *activities.Holder  `json:"heldBy,omitempty"`
	Problems  int                 `json:"problems"`
	Turn      activities.TurnPlan `json:"turn"`
	At        time.Time           `json:"at"`
	Steps     []PlannedStep       `json:"steps"`
	GoesIfNow bool                `json:"goesIfNow"`
}

// PlanFailback says what a failback with the same input would do.
func PlanFailback(ctx workflow.Context, in FailbackInput) (FailbackPlan, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &failover{kind: report.KindFailback, in: in.common(), engine: newEngine(ctx, Status{Run: run, Workflow: "PlanFailback", Runbook: in.Runbook})}
	b := newFailback(f, in)
	b.guard.Run = run
	b.announce()
	until := workflow.Now(ctx).Add(examineBudget)
	if _, err := b.orient(ctx, until); err != nil {
		return FailbackPlan{}, err
	}
	entity, err := perform[activities.EntityStatus](b.engine, quickRead(ctx, until, "is the runbook free?"), locks.Entity, "runbook/"+in.Runbook)
	if err != nil {
		return FailbackPlan{}, err
	}
	if err := b.look(ctx, until, true); err != nil {
		return FailbackPlan{}, err
	}
	_ = b.heedAll() // problems are counted below
	b.plan.Findings = b.facts.Findings
	for _, w := range entity.Fencing {
		if w.Cluster == b.route.To.Name && w.Fenced == nil {
			b.plan.Findings = append(b.plan.Findings, activities.Finding{Check: "fence", Level: activities.LevelProblem,
				Means: fmt.Sprintf("%s is not fenced yet, so what is stranded there is not known: %s waits for %s", w.Cluster, w.Workflow, or(w.Waiting, w.Cluster+" to answer")),
				Do:    "wait until that has ended"})
		}
	}
	plan := FailbackPlan{
		Runbook: in.Runbook, SHA256: b.sha256, From: b.route.From.Name, To: b.route.To.Name, AtHome: b.atHome, Epoch: b.status.Epoch, Free: entity.Holder == nil,
		HeldBy: entity.Holder, Problems: problems(b.plan.Findings), Turn: b.plan, At: workflow.Now(ctx), Steps: would(b.page(), b.would()),
	}
	plan.GoesIfNow = plan.Problems == 0 && plan.Free
	return plan, nil
}

// would says what each step would do.
func (b *failback) would() map[Step]string {
	from, to := b.route.From.Name, b.route.To.Name
	approvals := b.book.Gates.Planned.Approvals
	w := map[Step]string{
		Examine:     "see how the failover left both clusters, and how the flow can be turned round",
		Approve:     fmt.Sprintf("wait for %d approvals of what goes and of what is copied", approvals),
		RecoverTail: "bring back what is stranded on " + to + ", as the runbook says for each topic, in a run of its own",
		TurnRound:   b.plan.Text,
		InStep:      to + " catches up, so far that a planned failover drains in time",
		GoHome:      fmt.Sprintf("planned failover from %s to %s, in a run of its own", from, to),
		ProtectHome: fmt.Sprintf("%s mirrors %s again", from, to),
		WriteReport: "write the report",
	}
	switch {
	case b.wants.NoRecovery:
		w[RecoverTail] = "nothing: it was asked to leave recovery out"
	case b.plan.Marks == "" || b.plan.Way == activities.WayAnew || b.plan.Done || b.plan.Stranded == 0:
		w[RecoverTail] = "nothing: nothing is stranded on " + to
	}
	if b.plan.Way == activities.WayRebuild {
		w[ProtectHome] = fmt.Sprintf("the topics of %s are deleted, once both clusters were proven equal, and mirrored from %s", from, to)
	}
	if b.atHome {
		for _, s := range []Step{Approve, RecoverTail, TurnRound, InStep, GoHome} {
			w[s] = "nothing: the workload is home"
		}
		w[ProtectHome] = b.plan.Text
	}
	return w
}

// turnPage is what approvers of a failback decide by.
func turnPage(p *activities.TurnPlan) (b []byte) {
	if p == nil {
		return nil
	}
	b = fmt.Appendf(b, "**The way back**: %s\n\n", oneLine(p.Text))
	if len(p.Worst) == 0 {
		return b
	}
	b = append(b, "| topic | now | goes | exists nowhere else | lost for ever | copied |\n|---|---|---|---|---|---|\n"...)
	for i, t := range p.Worst {
		if i == topicsOnPage {
			b = fmt.Appendf(b, "| and %d more | | | | | |\n", len(p.Worst)-i)
			break
		}
		b = fmt.Appendf(b, "| %s | %s | %d | %d | %s | %d |\n", oneLine(t.Topic), t.State, max(t.Goes, t.Deleted), t.Unsaved, t.Gone(), t.Copy)
	}
	return append(b, '\n')
}
