package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
)

// RecoveryPlan is a dry run: what is stranded, what would become of it, and who would read twice. Nothing was changed and
// no lock taken.
type RecoveryPlan struct {
	Runbook   string                  `json:"runbook"`
	SHA256    string                  `json:"sha256"`
	From      string                  `json:"from"` // the cluster that was left
	To        string                  `json:"to"`   // where the workload is
	Epoch     int64                   `json:"epoch"`
	Free      bool                    `json:"free"`
	HeldBy    *activities.Holder      `json:"heldBy,omitempty"`
	Problems  int                     `json:"problems"`
	Stranded  activities.RecoveryPlan `json:"stranded"`
	At        time.Time               `json:"at"` // when that was so
	Steps     []PlannedStep           `json:"steps"`
	GoesIfNow bool                    `json:"goesIfNow"`
}

// PlanRecoverLaggedData says what a recovery with the same input would do.
func PlanRecoverLaggedData(ctx workflow.Context, in RecoverInput) (RecoveryPlan, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &failover{kind: report.KindRecovery, in: in.common(), engine: newEngine(ctx, Status{Run: run, Workflow: "PlanRecoverLaggedData", Runbook: in.Runbook})}
	r := newRecovery(f, in)
	r.guard.Run = run
	r.announce()
	until := workflow.Now(ctx).Add(tailsBudget)
	if _, err := r.orient(ctx, until); err != nil {
		return RecoveryPlan{}, err
	}
	if err := r.fencedAlready(ctx, until); err != nil {
		return RecoveryPlan{}, err
	}
	holder, err := perform[activities.EntityStatus](r.engine, quickRead(ctx, until, "is the runbook free?"), locks.Entity, "runbook/"+in.Runbook)
	if err != nil {
		return RecoveryPlan{}, err
	}
	if err := r.replan(ctx, until, true); err != nil {
		return RecoveryPlan{}, err
	}
	plan := RecoveryPlan{
		Runbook: in.Runbook, SHA256: r.sha256, From: r.route.From.Name, To: r.route.To.Name, Epoch: r.status.Epoch, Free: holder.Holder == nil, HeldBy: holder.Holder,
		Problems: problems(r.plan.Findings) + len(r.plan.Mismatched), Stranded: r.plan, At: workflow.Now(ctx), Steps: would(r.page(), r.would()),
	}
	plan.GoesIfNow = plan.Problems == 0 && plan.Free
	return plan, nil
}

func (r *recovery) would() map[Step]string {
	from, to, p := r.route.From.Name, r.route.To.Name, r.plan
	rewound := 0
	for _, t := range p.Topics {
		if t.Treatment == replication.TreatRewind {
			rewound += t.Partitions
		}
	}
	says := map[Step]string{
		PlanTails:    fmt.Sprintf("look again, prove that %s is fenced and quiet, and compare records around the marks", from),
		Approve:      fmt.Sprintf("wait for %d approvals, which expire after %s", r.book.Gates.Recovery.Approvals, r.expiry()),
		CopyTails:    fmt.Sprintf("copy %d records of %s to %s, exactly once, in %d shards side by side", p.Total.Recovered, from, to, p.Shards),
		RewindGroups: "nothing: no topic is rewound",
		ReadRewound:  "nothing: no group reads there",
		CloseReading: "nothing: nobody is let in",
		SettleTails:  "account for every stranded offset, and let the old topics expire again where nothing is left",
		WriteReport:  "write the report, and release the runbook",
	}
	if rewound > 0 {
		says[RewindGroups] = fmt.Sprintf("set the groups on %s to the marks of %d partitions", from, rewound)
	}
	if rewound > 0 && r.treat.ReadFor > 0 {
		says[ReadRewound] = fmt.Sprintf("let the groups read on %s, which their clients find at %s, until they have read it all, for %s at the most", from, activities.ReadingPrefix+"/"+from, r.treat.ReadFor)
		says[CloseReading] = fmt.Sprintf("stop those clients, close the groups on %s again", from)
	}
	if p.Total.Recovered == 0 {
		says[CopyTails] = "copy nothing"
	}
	return says
}
