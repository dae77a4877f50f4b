package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
)

// UnplannedPlan is a dry run: what would happen, and be lost, if an unplanned failover went now. Nothing was changed and
// no lock taken.
type UnplannedPlan struct {
	Runbook    string                  `json:"runbook"`
	SHA256     string                  `json:"sha256"`
	From       string                  `json:"from"`
	To         string                  `json:"to"`
	Epoch      int64                   `json:"epoch"`     // now
	NextEpoch  int64                   `json:"nextEpoch"` // of the switch, if it were the next
	Free       bool                    `json:"free"`
	HeldBy     *activities.Holder      `json:"heldBy,omitempty"`
	Unsettled  *activities.Holder      `json:"unsettled,omitempty"` // left behind; the next run takes it over
	Problems   int                     `json:"problems"`
	Assessment activities.AssessResult `json:"assessment"`
	At         time.Time               `json:"at"` // when that was so
	Steps      []PlannedStep           `json:"steps"`
	GoesIfNow  bool                    `json:"goesIfNow"`
	Objectives string                  `json:"objectives"`
}

// PlanUnplannedFailover says what an unplanned failover with the same input would do and lose.
func PlanUnplannedFailover(ctx workflow.Context, in UnplannedInput) (UnplannedPlan, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &failover{kind: report.KindUnplanned, in: in.common(), engine: newEngine(ctx, Status{Run: run, Workflow: "PlanUnplannedFailover", Runbook: in.Runbook, To: in.To})}
	u := newUnplanned(f, in)
	u.guard.Run = run
	u.announce()
	until := workflow.Now(ctx).Add(preflightBudget)
	now, err := f.survey(ctx, until)
	if err != nil {
		return UnplannedPlan{}, err
	}
	out, err := perform[activities.AssessResult](u.engine, longWait(ctx, until, "who answers, and what would be lost?"), assessor.Assess, activities.AssessInput{
		Run: run, Runbook: u.book, Route: u.route, Epoch: now.epoch, Outage: in.Outage, DryRun: true,
	})
	if err != nil {
		return UnplannedPlan{}, err
	}
	out.Findings = append(out.Findings, now.flapping...)
	o := u.book.Objectives
	plan := UnplannedPlan{
		Runbook: in.Runbook, SHA256: u.sha256, From: u.route.From.Name, To: u.route.To.Name, Epoch: now.epoch, NextEpoch: u.next,
		Free: now.holder.Holder == nil, HeldBy: now.holder.Holder, Unsettled: now.holder.Abandoned, Problems: problems(out.Findings),
		Assessment: out, At: workflow.Now(ctx), Objectives: fmt.Sprintf("RTO %s, RPO %s and %d records", o.RTO.D(), o.RPO.Time.D(), o.RPO.Records),
	}
	plan.Steps = would(u.page(), u.would(out))
	plan.GoesIfNow = plan.Problems == 0 && plan.Free
	return plan, nil
}

func (u *unplannedFailover) would(a activities.AssessResult) map[Step]string {
	from, to := u.route.From.Name, u.route.To.Name
	fence := fmt.Sprintf("leave it to %s, because %s does not answer", fencingID(u.in.Runbook, from), from)
	if a.From.Answers {
		fence = fmt.Sprintf("deny WRITE on %d topics of what answers of %s, and leave the rest to %s", a.Topics, from, fencingID(u.in.Runbook, from))
	}
	stop := fmt.Sprintf("fail over the mirrors of %d topics, whatever they lack; the point of no return", a.Topics)
	if !a.StopIsFinal {
		stop = fmt.Sprintf("seal the mirror of %d topics on %s and ask it to stop; the point of no return", a.Topics, to)
		if !a.SealProven {
			stop += "; nobody has proven that it obeys ACLs, so its stop is waited for, a minute with a dead source"
		}
	}
	return map[Step]string{
		Assess:             fmt.Sprintf("%s; %s", answers(a.From), lossText(a.Loss)),
		Approve:            fmt.Sprintf("wait for %d approvals, which expire after %s", u.book.Gates.Unplanned.Approvals, u.expiry()),
		SuspendSyncs:       fmt.Sprintf("suspend ACL sync, offset sync and auto-create on link %s, and wait for no cycle", a.LinkName),
		StopClients:        fmt.Sprintf("stop %v as far as they can be reached, beside the step before", names(u.book.Clients)),
		FenceSource:        fence,
		FailOver:           stop,
		KeepMarks:          fmt.Sprintf("keep marks of %d partitions on %s, beside the next step", a.Partitions, to),
		HandOverOffsets:    fmt.Sprintf("write the offsets of %d groups on %s, by what is known of them", a.Groups, to),
		SettleTransactions: "abort transactions that the mirror brought along unfinished",
		SwitchTraffic:      fmt.Sprintf("write %s and epoch %d to %d discovery entries", to, u.next, len(u.book.Discovery)),
		StartClients:       fmt.Sprintf("start %v", names(u.book.Clients)),
		VerifyTarget:       "send a canary through " + to + " and watch the groups move",
		WriteReport:        "write the report with the loss, release the runbook and say since when it is unprotected",
	}
}

// present is what a plan finds before it asks either cluster.
type present struct {
	epoch    int64
	holder   activities.EntityStatus
	flapping []activities.Finding
}

// survey takes the snapshot and looks where the workload is and who holds it, without taking a lock.
func (f *failover) survey(ctx workflow.Context, until time.Time) (p present, err error) {
	snap, err := perform[activities.Snapshot](f.engine, quickRead(ctx, until, "snapshot of the runbook"), books.Snapshot,
		activities.SnapshotInput{Runbook: f.in.Runbook})
	if err != nil {
		return p, err
	}
	f.book, f.sha256 = snap.Runbook, snap.SHA256
	seen, err := f.readDiscovery(ctx, until)
	if err != nil {
		return p, err
	}
	lost := f.route.SourceLost
	if f.route, err = way(f.book, seen.Required(), f.in.From, f.in.To); err != nil {
		return p, err
	}
	f.route.SourceLost, p.epoch = lost, seen.Required().Epoch
	p.holder, err = perform[activities.EntityStatus](f.engine, quickRead(ctx, until, "is the runbook free?"), locks.Entity, "runbook/"+f.in.Runbook)
	if err != nil {
		return p, err
	}
	f.next = max(seen.HighestEpoch(), p.holder.Epoch) + 1
	if last, quiet := p.holder.LastSwitch, f.book.Gates.AntiFlap.D(); last != nil && quiet > 0 && workflow.Now(ctx).Before(last.Add(quiet)) {
		level := activities.LevelProblem
		if f.in.Override != "" {
			level = activities.LevelWarning
		}
		p.flapping = []activities.Finding{{Check: "anti-flap", Level: level, Means: flaps(f.in.Runbook, *last, quiet) + "."}}
	}
	return p, nil
}

// would lists the steps of a page with what each would do.
func would(page []step, says map[Step]string) []PlannedStep {
	out := make([]PlannedStep, 0, len(page))
	for _, s := range page {
		out = append(out, PlannedStep{Step: s.name, BudgetSeconds: s.budget().Seconds(), Would: strings.TrimSpace(says[s.name])})
	}
	return out
}

func problems(findings []activities.Finding) (n int) {
	for _, f := range findings {
		if f.Level == activities.LevelProblem {
			n++
		}
	}
	return n
}
