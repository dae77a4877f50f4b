package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
)

// RecoverInput starts a recovery; plain JSON such as {"runbook":"orders","reason":"east is back","by":"carol"}. From is the
// cluster that was left; of two clusters it is the one where the workload is not. Default and Topics, where they are given,
// stand in for the runbook's recovery.
type RecoverInput struct {
	Runbook string            `json:"runbook"`
	From    string            `json:"from,omitempty"`
	Reason  string            `json:"reason"`
	By      string            `json:"by,omitempty"`
	Default string            `json:"default,omitempty"`
	Topics  map[string]string `json:"topics,omitempty"`
	Rate    float64           `json:"rate,omitempty"` // records a second that all copies together may write; 0 is no limit
	// ReadFor is how long groups may read on the old cluster what was rewound there; 0 is what the runbook says.
	ReadFor runbooks.Duration `json:"readFor,omitempty"`
}

// The steps of a recovery that a failover has not.
const (
	PlanTails    Step = "plan"
	CopyTails    Step = "copy"
	RewindGroups Step = "rewind"
	ReadRewound  Step = "read"
	CloseReading Step = "close-reading"
	SettleTails  Step = "settle"
)

// recovery brings back what a failover stranded on the cluster that it left.
type recovery struct {
	*failover
	wants   RecoverInput
	treat   runbooks.Recovery // as this run treats topics
	plan    activities.RecoveryPlan
	copying bool // a copy was begun: nothing is taken back from here on, and the account is written whatever happens
	account *activities.AccountResult
	reading bool                   // groups may have been let in on the old cluster
	readers []activities.GroupRead // how far they got there
}

// RecoverLaggedData runs one. See conclude for how it ends.
func RecoverLaggedData(ctx workflow.Context, in RecoverInput) (Result, error) {
	base, err := newFailover(ctx, report.KindRecovery, "RecoverLaggedData", in.common(), PlanTails)
	if err != nil {
		return Result{}, err
	}
	r := newRecovery(base, in)
	_ = r.inOrder(r.page()...) // how it ended is in the status
	return r.concludeBy(r.giveBack)
}

// common is what it shares with failovers. It goes nowhere: it holds the runbook, and no cluster is its target (P13).
func (in RecoverInput) common() PlannedInput {
	return PlannedInput{Runbook: in.Runbook, From: in.From, Reason: in.Reason, By: in.By}
}

func newRecovery(f *failover, in RecoverInput) *recovery {
	r := &recovery{failover: f, wants: in}
	f.stays = "what was recovered stays recovered, so there is nothing to roll back: `abort` stops the run, and a later one goes on where it ended"
	f.tell = r.told
	return r
}

// page is the runbook's page: plan, status and report list the same steps.
func (r *recovery) page() []step {
	return []step{
		{name: PlanTails, do: r.lookAtTails, budget: fixed(tailsBudget), skip: true},
		{name: Approve, do: r.awaitApproval, budget: r.expiry},
		{name: CopyTails, do: r.copyTails, budget: fixed(copyBudget), skip: true},
		{name: RewindGroups, do: r.rewind, budget: fixed(rewindBudget), skip: true},
		{name: ReadRewound, do: r.letRead, budget: r.readingBudget, skip: true},
		{name: CloseReading, do: r.closeReading, budget: r.closingBudget, skip: true, always: true},
		{name: SettleTails, do: r.settleTails, budget: fixed(settleBudget), skip: true},
		{name: WriteReport, do: r.write, budget: fixed(reportBudget), skip: true, always: true},
	}
}

func (r *recovery) expiry() time.Duration { return expiryOf(r.book.Gates.Recovery) }

// input is that of every activity of the recovery.
func (r *recovery) input() activities.RecoveryInput {
	return activities.RecoveryInput{Guard: r.guard, Route: r.route, Tail: r.plan.Tail}
}

// lookAtTails takes the runbook and plans. Where marks do not match the records around them it parks: skipping leaves those
// partitions alone, by name.
func (r *recovery) lookAtTails(ctx workflow.Context, until time.Time) (string, error) {
	if len(r.entities) == 0 {
		if err := r.enterRecovery(ctx, until); err != nil {
			return "", err
		}
	}
	if err := r.replan(ctx, until, false); err != nil {
		return "", err
	}
	if n := len(r.plan.Mismatched); n > 0 {
		return "", &standstill{fmt.Sprintf("the marks of %d partitions are not what the records around them say: %s; to skip leaves these partitions as they are, by name, and recovers the others",
			n, outcomes(r.plan.Mismatched[:min(n, 5)]))}
	}
	return r.plan.Text, nil
}

// enterRecovery takes the snapshot, finds where the workload is and which cluster it left, and takes the runbook's lock.
func (r *recovery) enterRecovery(ctx workflow.Context, until time.Time) error {
	if err := refuseLimits(workflow.GetInfo(ctx)); err != nil {
		return err
	}
	seen, err := r.orient(ctx, until)
	if err != nil {
		return err
	}
	got, err := r.acquire(ctx, until, "runbook/"+r.in.Runbook, seen)
	if err != nil {
		return err
	}
	r.nested = got.Nested
	if left := got.Abandoned; left != nil {
		r.unsettled = left.Kind != report.KindRecovery && left.Kind != kindGrants
		if r.unsettled {
			return fmt.Errorf("run %s (%s) was closed without releasing the runbook, and what it left has to be settled first: the next failover does that", left.Run.ID(), left.Kind)
		}
		r.reading = true                                        // it may have let groups in on the old cluster
		r.note(workflow.Now(ctx).Add(activities.WriteDeadline)) // its copies are fenced by those of this run (P30)
		r.outlive(ctx)
	}
	return r.fencedAlready(ctx, until)
}

// orient finds the way without taking a lock: from the cluster that was left to where the workload is.
func (r *recovery) orient(ctx workflow.Context, until time.Time) (seen activities.ReadDiscoveryResult, err error) {
	if seen, err = r.read(ctx, until); err != nil {
		return seen, err
	}
	if r.treat, err = treatments(r.book, r.wants); err != nil {
		return seen, err
	}
	if r.route, err = wayBack(r.book, seen.Required(), r.wants.From); err != nil {
		return seen, err
	}
	r.status.From, r.status.To, r.status.Epoch = r.route.From.Name, r.route.To.Name, seen.Required().Epoch
	r.guard.Epoch, r.facts.Before, r.status.NextEpoch = r.status.Epoch, r.status.Epoch, r.status.Epoch
	return seen, nil
}

// wayBack is the route of a recovery: the link that was stopped when the workload left.
func wayBack(book runbooks.Runbook, entry activities.DiscoveryEntry, from string) (activities.Route, error) {
	if from == "" {
		from = book.Other(entry.Cluster)
	}
	switch {
	case from == "" && entry.Error == "":
		return activities.Route{}, fmt.Errorf("name the cluster that the workload left (`from`): %s has links with more than one", entry.Cluster)
	case from == entry.Cluster && entry.Error == "":
		return activities.Route{}, fmt.Errorf("the workload of runbook %s is on %s: nothing can be stranded there for it. Name the cluster that it left", book.Metadata.Name, from)
	}
	return way(book, activities.DiscoveryEntry{Cluster: from, TopicPrefix: "", Epoch: entry.Epoch, Error: entry.Error, Address: entry.Address, Prefix: entry.Prefix}, "", entry.Cluster)
}

// treatments are what the run was asked for, or the runbook's.
func treatments(book runbooks.Runbook, in RecoverInput) (runbooks.Recovery, error) {
	out := runbooks.Recovery{Default: in.Default, Topics: in.Topics, ReadFor: in.ReadFor}
	if book.Recovery != nil {
		out.Default = or(in.Default, book.Recovery.Default)
		if in.Topics == nil && in.Default == "" {
			out.Topics = book.Recovery.Topics
		}
		if in.ReadFor == 0 {
			out.ReadFor = book.Recovery.ReadFor
		}
	}
	known := []string{string(replication.TreatAppend), string(replication.TreatDivert), string(replication.TreatRewind), string(replication.TreatReport)}
	if out.Default == "" {
		return out, errors.New("the runbook says nothing about recovery, and the run names no way: start it with one of " + strings.Join(known, ", ") + " as default")
	}
	words := []string{out.Default}
	for _, topic := range workflow.DeterministicKeys(out.Topics) {
		words = append(words, out.Topics[topic])
	}
	for _, word := range words {
		if !slices.Contains(known, word) {
			return out, fmt.Errorf("%q is no way to treat stranded records: use %s", word, strings.Join(known, ", "))
		}
	}
	if in.Rate < 0 {
		return out, errors.New("a rate below zero copies nothing: leave it out for no limit")
	}
	return out, nil
}

// fencedAlready refuses while the old cluster still waits for its fence: the number there is open (P38).
func (r *recovery) fencedAlready(ctx workflow.Context, until time.Time) error {
	entity, err := perform[activities.EntityStatus](r.engine, quickRead(ctx, until, "is "+r.route.From.Name+" fenced?"), locks.Entity, "runbook/"+r.in.Runbook)
	if err != nil {
		return err
	}
	for _, f := range entity.Fencing {
		if f.Cluster == r.route.From.Name && f.Fenced == nil {
			return fmt.Errorf("%s is not fenced yet, so somebody may still write there and what is stranded is not known: %s waits for %s. Start the recovery when it has ended",
				f.Cluster, f.Workflow, or(f.Waiting, f.Cluster+" to answer"))
		}
	}
	return nil
}

// replan looks at what is stranded now; a problem forbids the run.
func (r *recovery) replan(ctx workflow.Context, until time.Time, dry bool) error {
	in := activities.PlanRecoveryInput{RecoveryInput: activities.RecoveryInput{Guard: r.guard, Route: r.route}, Topics: r.book.Topics, Groups: r.book.Groups, Recovery: r.treat, DryRun: dry}
	out, err := perform[activities.RecoveryPlan](r.engine, longWait(ctx, until, "what is stranded on "+r.route.From.Name), salvage.PlanRecovery, in)
	if err != nil {
		return err
	}
	out.Findings = append(out.Findings, r.mixed(out.Topics)...)
	r.plan, r.checked = out, workflow.Now(ctx)
	if dry {
		return nil
	}
	r.status.Lagged = &Lagged{Tail: out.Tail, Topics: out.Topics, Stranded: out.Total.Offsets, Read: out.Read}
	if err := r.heed("the plan found", out.Findings); err != nil {
		return err
	}
	if out.Finished {
		return &stop{Completed, "nothing is left to recover: " + out.Text}
	}
	return nil
}

// awaitApproval shows approvers what would be done, and who would read twice.
func (r *recovery) awaitApproval(ctx workflow.Context, until time.Time) (string, error) {
	gate := r.book.Gates.Recovery
	switch {
	case r.plan.Partitions == 0:
		return "nothing is stranded, so there is nothing to approve", nil
	case r.nested:
		return "approved with the run that it is part of", nil
	case gate.Approvals == 0:
		return r.approved(0), nil
	}
	if err := r.awaitApprovals(ctx, until, gate, r.in.By, 0, nil); err != nil {
		return "", err
	}
	return r.approved(gate.Approvals), nil
}

// rewind sets the groups of what is not copied. From the copy on a failure parks: what was done is in the account.
func (r *recovery) rewind(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.RewindInput{RecoveryInput: r.input(), Groups: r.book.Groups}
	out, err := perform[activities.RewindResult](r.engine, longWait(ctx, until, "set groups to the marks"), salvage.RewindGroups, in)
	if err != nil {
		return "", r.parks(err)
	}
	for _, o := range out.Left {
		r.deviate(fmt.Sprintf("group %s was not rewound: %s", o.Name, o.Reason))
	}
	return out.Text, nil
}

// settleTails takes the account, and ends the keeping of the tail where nothing of it is left.
func (r *recovery) settleTails(ctx workflow.Context, until time.Time) (string, error) {
	out, err := r.accountFor(ctx, until, true)
	if err != nil {
		return "", r.parks(err)
	}
	return out.Text, nil
}

func (r *recovery) accountFor(ctx workflow.Context, until time.Time, last bool) (activities.AccountResult, error) {
	in := activities.AccountInput{RecoveryInput: r.input(), Final: last}
	out, err := perform[activities.AccountResult](r.engine, longWait(ctx, until, "account for every offset"), salvage.Account, in)
	if err == nil {
		r.account = &out
	}
	return out, err
}

// giveBack releases the runbook. The workload stays where it is, and nothing was switched.
func (r *recovery) giveBack(ctx workflow.Context, until time.Time) (string, error) {
	r.outlive(ctx)
	for _, entity := range r.entities {
		in := activities.Release{Entity: entity, Run: r.guard.Run, Outcome: r.status.Outcome, Report: r.written.JSONPath, Unsettled: r.unsettled}
		if err := workflow.ExecuteActivity(atomicWrite(ctx, until, "release "+entity), locks.Release, in).Get(ctx, nil); err != nil {
			return "", err
		}
	}
	return strings.Join(r.entities, ", "), nil
}
