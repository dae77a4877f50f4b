package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
	"switchback/runbooks"
)

// FailbackInput takes a workload home; plain JSON such as {"runbook":"orders","reason":"east is well again","by":"carol"}.
// To is the runbook's home when it is empty. With failForward the workload stays where it is, and To (of two clusters the
// other one) protects it from then on.
type FailbackInput struct {
	Runbook     string `json:"runbook"`
	To          string `json:"to,omitempty"`
	Reason      string `json:"reason"`
	By          string `json:"by,omitempty"`
	Override    string `json:"override,omitempty"` // why a second switch soon after the last one is right
	FailForward bool   `json:"failForward,omitempty"`
	// NoRecovery goes without RecoverLaggedData: what is stranded stays, or goes where its loss is accepted.
	NoRecovery bool `json:"noRecovery,omitempty"`
	// AcceptLoss names topics whose stranded records may go although they exist nowhere else, or are lost already (I9, I4).
	AcceptLoss []string `json:"acceptLoss,omitempty"`
}

// The steps of a failback that a failover has not.
const (
	Examine     Step = "examine"
	RecoverTail Step = "recover"
	TurnRound   Step = "turn-round"
	InStep      Step = "in-step"
	GoHome      Step = "go-home"
	ProtectHome Step = "protect-home"
)

// failback takes a workload home, or protects it anew where it is.
type failback struct {
	*failover
	wants     FailbackInput
	plan      activities.TurnPlan
	atHome    bool // the workload was home when the run began: only protection is missing
	opposite  runbooks.Link
	recovered *Result // of the child
	moved     *Result
	turned    bool // the other cluster mirrors where the workload is
	protected bool
}

// Failback runs one. See conclude for how it ends.
func Failback(ctx workflow.Context, in FailbackInput) (Result, error) {
	base, err := newFailover(ctx, report.KindFailback, "Failback", in.common(), Examine)
	if err != nil {
		return Result{}, err
	}
	b := newFailback(base, in)
	_ = b.inOrder(b.page()...) // how it ended is in the status
	return b.concludeBy(b.giveBack)
}

func (in FailbackInput) common() PlannedInput {
	return PlannedInput{Runbook: in.Runbook, To: in.To, Reason: in.Reason, By: in.By, Override: in.Override}
}

func newFailback(f *failover, in FailbackInput) *failback {
	b := &failback{failover: f, wants: in}
	f.stays = "each part of a failback stands for itself, so there is nothing to roll back: `abort` stops the run between two of them, and a later one goes on from there"
	f.tell = b.told
	return b
}

// page is the runbook's page: plan, status and report list the same steps.
func (b *failback) page() []step {
	page := []step{
		{name: Examine, do: b.examine, budget: fixed(examineBudget)},
		{name: Approve, do: b.awaitApproval, budget: b.expiry},
		{name: RecoverTail, do: b.recoverTail, budget: fixed(copyBudget), skip: true},
		{name: TurnRound, do: b.turnRound, budget: fixed(turnBudget)},
		{name: InStep, do: b.inStep, budget: fixed(copyBudget), skip: true},
	}
	if !b.wants.FailForward {
		page = append(page, step{name: GoHome, do: b.goHome, budget: fixed(homeBudget)})
	}
	return append(page,
		step{name: ProtectHome, do: b.protectHome, budget: fixed(turnBudget), skip: true},
		step{name: WriteReport, do: b.write, budget: fixed(reportBudget), skip: true, always: true},
	)
}

func (b *failback) expiry() time.Duration { return expiryOf(b.book.Gates.Planned) }

// examine takes the runbook, finds in which state the failover left things, and how the flow can be turned round.
func (b *failback) examine(ctx workflow.Context, until time.Time) (string, error) {
	if len(b.entities) == 0 {
		if err := b.enterHome(ctx, until); err != nil {
			return "", err
		}
	}
	if b.atHome {
		return "the workload is on " + b.route.To.Name + " already; what is left is to protect it", nil
	}
	if err := b.look(ctx, until, false); err != nil {
		return "", err
	}
	return b.plan.Text, b.heedAll()
}

// enterHome takes the snapshot and the runbook's lock. A run before this one that stopped between two parts left nothing to
// take back; one that was in the middle of a switch is for the next failover to settle.
func (b *failback) enterHome(ctx workflow.Context, until time.Time) error {
	if err := refuseLimits(workflow.GetInfo(ctx)); err != nil {
		return err
	}
	seen, err := b.orient(ctx, until)
	if err != nil {
		return err
	}
	got, err := b.acquire(ctx, until, "runbook/"+b.in.Runbook, seen)
	if err != nil {
		return err
	}
	if left := got.Abandoned; left != nil {
		if b.unsettled = !slices.Contains([]string{report.KindFailback, report.KindRecovery, kindGrants}, left.Kind); b.unsettled {
			return fmt.Errorf("run %s (%s) was closed without releasing the runbook, and what it left has to be settled first: the next failover does that", left.Run.ID(), left.Kind)
		}
		b.note(workflow.Now(ctx).Add(activities.WriteDeadline))
		b.outlive(ctx)
	}
	if got.Fencing {
		return fmt.Errorf("%s is not fenced yet, so what is stranded there is not known: %s waits for it to answer. Start the failback when that has ended",
			b.route.To.Name, fencingID(b.in.Runbook, b.route.To.Name))
	}
	if b.atHome || b.wants.FailForward {
		return nil // nobody is switched
	}
	return b.calm(workflow.Now(ctx), got.LastSwitch)
}

// orient finds the way without taking a lock: from where the workload is to the cluster that is to mirror it, or was.
func (b *failback) orient(ctx workflow.Context, until time.Time) (seen activities.ReadDiscoveryResult, err error) {
	if seen, err = b.read(ctx, until); err != nil {
		return seen, err
	}
	entry := seen.Required()
	to := b.wants.To
	if to == "" && b.wants.FailForward {
		to = b.book.Other(entry.Cluster)
	} else if to == "" {
		to = b.book.Home
	}
	from := entry
	if entry.Error == "" && to == entry.Cluster && !b.wants.FailForward { // a run before this one came as far as that
		b.atHome, from.Cluster = true, b.book.Other(to)
	}
	if b.route, err = way(b.book, from, "", to); err != nil {
		return seen, err
	}
	var ok bool
	if b.opposite, ok = b.book.Link(to, b.route.From.Name); !ok {
		return seen, fmt.Errorf("the runbook has no link from %s to %s, so it could not be protected there again", to, b.route.From.Name)
	}
	if b.in.To = to; b.atHome {
		b.in.To = "" // it goes nowhere
	}
	b.status.From, b.status.To, b.status.Epoch, b.status.NextEpoch = b.route.From.Name, to, entry.Epoch, entry.Epoch
	b.guard.Epoch, b.facts.Before = entry.Epoch, entry.Epoch
	return seen, nil
}

// turn is the input of what lets To mirror From; the other way round when the workload is home.
func (b *failback) turn(ctx workflow.Context, until time.Time, dry bool) activities.TurnInput {
	in := activities.TurnInput{Guard: b.guard, Route: b.route, Opposite: b.opposite, Topics: b.book.Topics, Accept: b.wants.AcceptLoss, DryRun: dry, Deadline: inside(ctx, until)}
	if b.moved != nil || b.atHome {
		in.Route = activities.Route{From: b.route.To, To: b.route.From, Link: b.opposite}
		in.Opposite, in.Accept = b.route.Link, nil
	}
	return in
}

// look asks what turning round would take.
func (b *failback) look(ctx workflow.Context, until time.Time, dry bool) error {
	in := b.turn(ctx, until, dry)
	out, err := perform[activities.TurnPlan](b.engine, longWait(ctx, until, "how can "+in.Route.To.Name+" mirror "+in.Route.From.Name+"?"), turns.Examine, in)
	if err != nil {
		return err
	}
	b.plan, b.checked = out, workflow.Now(ctx)
	b.status.Turn = &out
	return nil
}

// wayHas is how a sentence about problems begins.
const wayHas = "the way back has"

// heedAll shows findings. What a recovery brings back is no problem while one is still to come.
func (b *failback) heedAll() error {
	findings := slices.Clone(b.plan.Findings)
	if !b.wants.NoRecovery {
		for i, f := range findings {
			if f.Check == "unsaved" && f.Level == activities.LevelProblem {
				findings[i].Level, findings[i].Do = activities.LevelWarning, "recovery comes first; what it leaves has to be accepted by name"
			}
		}
	}
	return b.heed(wayHas, findings)
}

func (b *failback) awaitApproval(ctx workflow.Context, until time.Time) (string, error) {
	gate := b.book.Gates.Planned
	if gate.Approvals > 0 && !b.atHome {
		if err := b.awaitApprovals(ctx, until, gate, b.in.By, 0, nil); err != nil {
			return "", err
		}
		return b.approved(gate.Approvals), nil
	}
	return b.approved(0), nil
}

// recoverTail brings back what is stranded on the cluster that was left, in a run of its own.
func (b *failback) recoverTail(ctx workflow.Context, until time.Time) (string, error) {
	switch {
	case b.atHome:
		return "nothing: the workload is home", nil
	case b.wants.NoRecovery:
		return "left out, as the run was asked to", nil
	case (b.plan.Lost > 0 || b.plan.Open) && (b.plan.Way == activities.WayAnew || b.plan.Marks == ""):
		return fmt.Sprintf("recovery impossible: %s came back without what was stranded there, which is lost for ever and was given up by name", b.route.To.Name), nil
	case b.plan.Marks == "" || b.plan.Way == activities.WayAnew:
		return fmt.Sprintf("nothing can be recovered: %s has no topic that was marked", b.route.To.Name), nil
	case b.plan.Done:
		return fmt.Sprintf("nothing: %s mirrors %s already", b.route.To.Name, b.route.From.Name), nil
	case b.plan.Stranded == 0:
		return "nothing is stranded on " + b.route.To.Name, nil
	}
	out, err := b.child(ctx, "recover", "Bring back what is stranded on "+b.route.To.Name, RecoverLaggedData,
		RecoverInput{Runbook: b.in.Runbook, From: b.route.To.Name, Reason: b.in.Reason, By: b.in.By})
	if err != nil {
		return "", b.parks(err)
	}
	b.recovered = &out
	return out.Sentence, nil
}

// turnRound looks once more at what it takes, then does exactly that: mirrors are put in place behind the fence, the fence
// gives way, the mirrors flow. It parks where anything is not as it was approved (P28).
func (b *failback) turnRound(ctx workflow.Context, until time.Time) (string, error) {
	if b.atHome {
		return "nothing: the workload is home", nil
	}
	goes, unsaved := b.plan.Goes, b.plan.Unsaved
	if err := b.look(ctx, until, false); err != nil {
		return "", b.parks(err)
	}
	if b.plan.Goes > goes || b.plan.Unsaved > unsaved {
		return "", &standstill{fmt.Sprintf("what would go is more than was approved: %d offsets of which %d exist nowhere else, approved were %d and %d. Find out who wrote to %s, abort, and start a new run",
			b.plan.Goes, b.plan.Unsaved, goes, unsaved, b.route.To.Name)}
	}
	if err := b.heed(wayHas, b.plan.Findings); err != nil {
		return "", &standstill{plain(err)}
	}
	text, err := b.mirrorAgain(ctx, until)
	if err != nil {
		return "", b.parks(err)
	}
	b.turned = true
	for _, f := range b.plan.Findings {
		if f.Check == "lost" {
			b.deviate(f.Means)
		}
	}
	return text, nil
}

// mirrorAgain is the order that no direction may change (P14, P27).
func (b *failback) mirrorAgain(ctx workflow.Context, until time.Time) (string, error) {
	in := b.turn(ctx, until, false)
	to := in.Route.To.Name
	b.begun = true
	if err := b.holdLinkOf(ctx, until); err != nil {
		return "", err
	}
	var said []string
	placed, err := perform[activities.TurnedResult](b.engine, longWait(ctx, until, "mirrors of "+to+" in place"), turns.Position, in)
	if err != nil {
		return "", err
	}
	said = append(said, placed.Text)
	gave, err := perform[activities.GivenWay](b.engine, atomicWrite(ctx, until, "the fence of "+to+" gives way"), turns.GiveWay, in)
	if err != nil {
		return "", err
	}
	said = append(said, gave.Text)
	b.outlive(ctx)
	flows, err := perform[activities.TurnedResult](b.engine, longWait(ctx, until, to+" mirrors"), turns.Flow, in)
	if err != nil {
		return "", err
	}
	return strings.Join(append(said, flows.Text), "; "), nil
}

// holdLinkOf takes the lock of the link, which other workloads may share (P3).
func (b *failback) holdLinkOf(ctx workflow.Context, until time.Time) error {
	entity := "link/" + b.plan.LinkName
	if slices.Contains(b.entities, entity) {
		return nil
	}
	_, err := b.acquire(ctx, until, entity, activities.ReadDiscoveryResult{})
	return err
}

// inStep waits until a planned failover would drain in time.
func (b *failback) inStep(ctx workflow.Context, until time.Time) (string, error) {
	if b.atHome {
		return "nothing: the workload is home", nil
	}
	in := activities.InStepInput{TurnInput: b.turn(ctx, until, false), Runbook: b.book, Within: b.book.Budgets.Drain.D() / 2}
	if rto := b.book.Objectives.RTO.D(); rto > 0 {
		in.Within = min(in.Within, rto/4)
	}
	out, err := perform[activities.InStepResult](b.engine, longWait(ctx, until, b.route.To.Name+" catches up"), turns.InStep, in)
	if err != nil {
		return "", b.parks(err)
	}
	return out.Text, nil
}

// goHome is a planned failover: nothing is lost, nothing is read twice. Its own report tells how it went.
func (b *failback) goHome(ctx workflow.Context, _ time.Time) (string, error) {
	if b.atHome {
		return "nothing: the workload is home", nil
	}
	out, err := b.child(ctx, "home", "Take "+b.in.Runbook+" home to "+b.route.To.Name, PlannedFailover,
		PlannedInput{Runbook: b.in.Runbook, From: b.route.From.Name, To: b.route.To.Name, Reason: b.in.Reason, By: b.in.By, Override: or(b.in.Override, "part of failback "+b.guard.Run.ID())})
	if out.Epoch > b.guard.Epoch { // it may have raised the epoch as it rolled back
		b.guard.Epoch, b.status.Epoch = out.Epoch, out.Epoch
	}
	if err != nil {
		return "", b.parks(err)
	}
	b.moved = &out
	return out.Sentence, nil
}

// protectHome lets the cluster that was left mirror home again, as it did before all this, and sees to it that protection stands.
// What that cluster has beyond the marks is nothing: both were proven equal. A workload that stays has its mirror already.
func (b *failback) protectHome(ctx workflow.Context, until time.Time) (string, error) {
	if b.wants.FailForward {
		return b.standing(ctx, until)
	}
	first := b.plan.Marks
	if err := b.look(ctx, until, false); err != nil {
		return "", b.parks(err)
	}
	if err := b.heed(wayHas, b.plan.Findings); err != nil {
		return "", &standstill{plain(err)}
	}
	text, err := b.mirrorAgain(ctx, until)
	if err != nil {
		return "", b.parks(err)
	}
	syncs, err := b.syncsAgain(ctx, until, first)
	if err != nil {
		return "", err
	}
	stands, err := b.standing(ctx, until)
	return text + "; " + syncs + stands, err
}

// standing mends what else protection needs than mirrors, such as the syncs of a direction that was never used before, and parks
// where it does not stand then.
func (b *failback) standing(ctx workflow.Context, until time.Time) (string, error) {
	in := b.turn(ctx, until, false)
	p := &protecting{in: ProtectRequest{Runbook: b.in.Runbook}, book: b.book, route: in.Route, guard: b.guard}
	p.out.From, p.out.To = in.Route.From.Name, in.Route.To.Name
	err := p.show(ctx, until)
	if err == nil {
		err = p.mend(ctx)
	}
	// What the link says of a cluster that was away a moment ago is over with its next cycle.
	for by := workflow.Now(ctx).Add(mendedBudget); err == nil && !p.out.Stands && workflow.Now(ctx).Before(by); {
		if err = workflow.Sleep(ctx, mendedEvery); err == nil {
			err = p.look(ctx, until)
		}
	}
	b.note(p.late)
	switch {
	case err != nil:
		return "", b.parks(err)
	case !p.out.Stands:
		return "", &standstill{p.sentence() + ": " + wrongWith(p.out.Left)}
	}
	for _, d := range p.out.Left {
		b.deviate("protection: " + d.String())
	}
	b.protected = true
	return p.sentence(), nil
}

// syncsAgain puts back what the run that left home had suspended of the link's own work (P3). No fence stands any more.
func (b *failback) syncsAgain(ctx workflow.Context, until time.Time, owner string) (string, error) {
	if owner == "" || b.atHome {
		return "", nil
	}
	in := activities.SyncsInput{Guard: b.guard, Route: activities.Route{From: b.route.To, To: b.route.From, Link: b.opposite}, Owner: owner}
	out, err := perform[activities.SyncsResult](b.engine, atomicWrite(ctx, until, "restore the syncs of the link"), syncs.Restore, in)
	if err != nil {
		return "", b.parks(err)
	}
	return out.Text + "; ", nil
}

// child runs another workflow within this one's hold of the runbook. It is awaited also when this run is told to stop: it
// hears of that, and ends as it can.
func (b *failback) child(ctx workflow.Context, id, summary string, flow, in any) (out Result, err error) {
	id = b.guard.Run.WorkflowID + "/" + id
	b.say(b.status.Phase, "run "+id+", which has a status and a report of its own")
	opts := workflow.ChildWorkflowOptions{
		WorkflowID: id, WorkflowTaskTimeout: activities.TaskTimeout, WaitForCancellation: true, StaticSummary: summary,
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
	}
	err = workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, opts), flow, in).Get(b.safe, &out)
	var failed *temporal.ApplicationError
	switch {
	case errors.As(err, &failed) && failed.HasDetails():
		_ = failed.Details(&out) // what it says is in the error as well
		err = fmt.Errorf("run %s failed: %s", id, failed.Message())
	case err == nil && out.Outcome != Completed:
		err = fmt.Errorf("run %s ended %s: %s", id, out.Outcome, out.Sentence)
	}
	return out, err
}

// write says how it ended, and reports.
func (b *failback) write(ctx workflow.Context, until time.Time) (string, error) {
	if b.status.Outcome == "" {
		b.status.Outcome, b.status.Sentence = Completed, b.sentence()
	} else if stands := b.stands(); stands != "" {
		b.status.Sentence += "; what stands: " + stands
	}
	return b.report(ctx, until)
}

func (b *failback) sentence() string {
	from, to := b.route.From.Name, b.route.To.Name
	switch {
	case b.wants.FailForward && b.protected:
		return fmt.Sprintf("%s stays on %s, and %s mirrors it; set `home: %s` in the runbook", b.in.Runbook, from, to, from)
	case b.wants.FailForward:
		return fmt.Sprintf("%s stays on %s, and %s mirrors it, but protection does not stand; mend it with `switchback protect`, and set `home: %s` in the runbook", b.in.Runbook, from, to, from)
	case b.protected:
		return fmt.Sprintf("%s is home on %s at epoch %d, and %s mirrors it again", b.in.Runbook, to, b.guard.Epoch, from)
	}
	return fmt.Sprintf("%s is home on %s at epoch %d, and unprotected: %s does not stand by", b.in.Runbook, to, b.guard.Epoch, from)
}

// stands is what a run that did not come to its end has done.
func (b *failback) stands() string {
	var done []string
	if b.recovered != nil {
		done = append(done, "what was recovered")
	}
	if b.turned && b.moved == nil {
		done = append(done, b.route.To.Name+" mirrors "+b.route.From.Name)
	}
	if b.moved != nil {
		done = append(done, "the workload is on "+b.route.To.Name)
	}
	return strings.Join(done, ", ")
}

// told is what the report of a failback says besides.
func (b *failback) told(r *report.Report) {
	r.RPO = report.RPO{}
	switch {
	case b.turned && b.moved == nil:
		r.Protection = report.Protection{ProtectedBy: b.route.To.Name, Text: "it mirrors " + b.route.From.Name}
	case b.protected:
		r.Protection = report.Protection{ProtectedBy: b.route.From.Name, Text: "it mirrors " + b.route.To.Name + " again"}
	}
	r.Standing = nil
	for _, part := range []*Result{b.recovered, b.moved} {
		if part != nil {
			r.Parts = append(r.Parts, report.Part{Run: part.Run, Outcome: part.Outcome, Sentence: part.Sentence, Report: part.Report})
		}
	}
}

// giveBack releases the locks. Where the workload is, the part that moved it has said.
func (b *failback) giveBack(ctx workflow.Context, until time.Time) (string, error) {
	b.outlive(ctx)
	for _, entity := range slices.Backward(b.entities) {
		in := activities.Release{Entity: entity, Run: b.guard.Run, Outcome: b.status.Outcome, Report: b.written.JSONPath, Unsettled: b.unsettled,
			Protected: b.protected}
		if err := workflow.ExecuteActivity(atomicWrite(ctx, until, "release "+entity), locks.Release, in).Get(ctx, nil); err != nil {
			return "", err
		}
	}
	return strings.Join(b.entities, ", "), nil
}
