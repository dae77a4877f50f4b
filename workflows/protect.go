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
	"switchback/runbooks"
)

// ProtectRequest is what Protect is started with; plain JSON such as {"runbook":"orders"} is enough, also on a schedule.
type ProtectRequest struct {
	Runbook string `json:"runbook"`
	From    string `json:"from,omitempty"` // the cluster that the workload must be on; empty: what discovery says
	To      string `json:"to,omitempty"`   // its standby; empty: the only cluster that a link of the runbook leads to from there
	By      string `json:"by,omitempty"`
	Reason  string `json:"reason,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"` // show the differences and change nothing
	// Apply are the ids of the differences that may be mended, as a dry run has shown them. Empty: all that can be.
	Apply []string `json:"apply,omitempty"`
}

// QueryProtection is the query that answers a Protected as far as it is known.
const QueryProtection = "protection"

// Protected is what Protect found, what became of it, and what is left for people.
type Protected struct {
	Runbook string                   `json:"runbook"`
	From    string                   `json:"from"`
	To      string                   `json:"to"`
	Found   []replication.Difference `json:"found"`          // before anything was changed
	IDs     []string                 `json:"ids"`            // of Found, in its order
	More    int                      `json:"more,omitempty"` // that were not shown: another run finds them
	Mended  []replication.Outcome    `json:"mended,omitempty"`
	Left    []replication.Difference `json:"left"`    // afterwards
	Stands  bool                     `json:"stands"`  // protection stands, whatever is left
	Yielded bool                     `json:"yielded"` // another run holds the runbook: nothing was changed
	Text    string                   `json:"text"`
}

var keeper *activities.Protection

// kindProtect is how an entity knows a holder that only protects.
const kindProtect = "protect"

const (
	protectBudget = 10 * time.Minute // thousands of mirrors are made one by one
	mendedBudget  = 30 * time.Second // what was mended takes its time: mirrors fill, tasks start
	mendedEvery   = time.Second
)

// protecting is one run of Protect.
type protecting struct {
	in     ProtectRequest
	status Status
	out    Protected
	book   runbooks.Runbook
	route  activities.Route
	guard  activities.Guard
	seen   activities.ReadDiscoveryResult
	entity activities.EntityStatus
	link   string
	late   time.Time // until when a write that was lost sight of may still arrive
}

// Protect makes or repairs the standing protection of a runbook. It shows what is not as it should be, mends exactly that, looks
// again and ends with what it could not mend. It takes the runbook only to change something: with nothing to do it writes nothing,
// and it yields to whoever holds the runbook. Safe on a schedule.
func Protect(ctx workflow.Context, in ProtectRequest) (Protected, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	p := &protecting{in: in, out: Protected{Runbook: in.Runbook}, guard: activities.Guard{Run: run}, status: Status{Run: run, Workflow: "Protect", Runbook: in.Runbook,
		From: in.From, To: in.To, By: in.By, Reason: in.Reason, Phase: kindProtect, WaitsFor: "what stands", Started: workflow.Now(ctx)}}
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (Status, error) { return p.status.copy(), nil }); err != nil {
		return p.out, err
	}
	if err := workflow.SetQueryHandler(ctx, QueryProtection, func() (Protected, error) { return p.out, nil }); err != nil {
		return p.out, err
	}
	err := workflow.UpsertTypedSearchAttributes(ctx, AttributeRunbook.ValueSet(in.Runbook), AttributeWorkflow.ValueSet("Protect"), AttributePhase.ValueSet(p.status.Phase))
	if err != nil {
		return p.out, err
	}
	err = p.run(ctx)
	p.status.Ended, p.status.Outcome, p.status.WaitsFor = workflow.Now(ctx), Completed, ""
	if err != nil {
		p.status.Outcome, p.out.Text = FailedRun, plain(err)
	} else {
		p.out.Text = p.sentence()
	}
	p.status.Sentence, p.status.Phase = p.out.Text, p.status.Outcome
	workflow.SetCurrentDetails(ctx, protectPage(p.status, p.out))
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributePhase.ValueSet(p.status.Phase), AttributeOutcome.ValueSet(p.status.Outcome)) // fails only on a value of the wrong type
	return p.out, err
}

func (p *protecting) run(ctx workflow.Context) error {
	until := workflow.Now(ctx).Add(protectBudget)
	if err := p.orient(ctx, until); err != nil {
		return err
	}
	if h := p.entity.Holder; h != nil && !p.in.DryRun {
		p.out.Yielded = true
		return nil
	}
	if p.waitsForFence() {
		return nil
	}
	if err := p.show(ctx, until); err != nil {
		return err
	}
	workflow.SetCurrentDetails(ctx, protectPage(p.status, p.out))
	if p.in.DryRun || len(p.chosen()) == 0 && !p.unprotected() {
		return nil
	}
	return p.held(ctx)
}

// orient finds where the workload is, its standby, and who holds the runbook.
func (p *protecting) orient(ctx workflow.Context, until time.Time) error {
	var snap activities.Snapshot
	if err := workflow.ExecuteActivity(quickRead(ctx, until, "snapshot of the runbook"), books.Snapshot, activities.SnapshotInput{Runbook: p.in.Runbook}).Get(ctx, &snap); err != nil {
		return err
	}
	p.book = snap.Runbook
	if err := workflow.ExecuteActivity(quickRead(ctx, until, "where clients go now"), discovery.Read, activities.ReadDiscoveryInput{Entries: p.book.Discovery}).Get(ctx, &p.seen); err != nil {
		return err
	}
	to, err := standbyOf(p.book, p.seen.Required().Cluster, p.in.To)
	if err != nil {
		return err
	}
	if p.route, err = way(p.book, p.seen.Required(), p.in.From, to); err != nil {
		return err
	}
	p.guard.Discovery, p.guard.Epoch = p.book.RequiredDiscovery(), p.seen.Required().Epoch
	p.status.From, p.status.To, p.status.Epoch = p.route.From.Name, to, p.guard.Epoch
	p.out.From, p.out.To = p.route.From.Name, to
	return workflow.ExecuteActivity(quickRead(ctx, until, "who holds the runbook"), locks.Entity, "runbook/"+p.in.Runbook).Get(ctx, &p.entity)
}

// waitsForFence says whether the standby is a cluster that was lost and is not fenced yet: nothing is made there before (P13).
func (p *protecting) waitsForFence() bool {
	i := slices.IndexFunc(p.entity.Fencing, func(f activities.Fencing) bool { return f.Cluster == p.out.To && f.Fenced == nil })
	if i < 0 {
		return false
	}
	f := p.entity.Fencing[i]
	d := replication.Difference{Kind: replication.KindFence, Name: p.out.To, Level: replication.LevelProblem, Is: "waiting for its fence since " + f.Since.Format(time.RFC3339) + ": " + f.Waiting,
		Should: "fenced, and the workload home again", Do: f.Workflow + " fences it as soon as it can be reached; then run failback"}
	p.out.Found, p.out.IDs, p.out.Left = []replication.Difference{d}, []string{d.ID()}, []replication.Difference{d}
	return true
}

// standbyOf is where the workload would go: the cluster that was asked for, or the only one that a link leads to.
func standbyOf(book runbooks.Runbook, active, to string) (string, error) {
	if to != "" {
		return to, nil
	}
	var all []string
	for _, l := range book.Links {
		if l.From == active {
			all = append(all, l.To)
		}
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return "", fmt.Errorf("the workload of runbook %s is on %q, and no link of the runbook leads from there to a standby: add one to links, or run failback", book.Metadata.Name, active)
	}
	return "", fmt.Errorf("the workload of runbook %s is on %s, and links lead from there to %s: say which one is to be protected", book.Metadata.Name, active, strings.Join(all, " and "))
}

func (p *protecting) input(ids []string) activities.ProtectInput {
	return activities.ProtectInput{Guard: p.guard, Runbook: p.book, Route: p.route, IDs: ids}
}

// look fills what is left.
func (p *protecting) look(ctx workflow.Context, until time.Time) error {
	p.status.WaitsFor = "what stands on " + p.route.From.Name + " and " + p.route.To.Name
	var seen activities.LookResult
	if err := workflow.ExecuteActivity(longWait(ctx, until, "what is not as it should be?"), keeper.Differences, p.input(nil)).Get(ctx, &seen); err != nil {
		return err
	}
	p.out.Left, p.out.More, p.out.Stands, p.link = seen.Differences, seen.More, seen.Stands, seen.LinkName
	return nil
}

// show fills what is found, which is what may be mended.
func (p *protecting) show(ctx workflow.Context, until time.Time) error {
	if err := p.look(ctx, until); err != nil {
		return err
	}
	p.out.Found, p.out.Left = p.out.Left, slices.Clone(p.out.Left)
	for _, d := range p.out.Found {
		p.out.IDs = append(p.out.IDs, d.ID())
	}
	return nil
}

// chosen are the ids of what was shown, can be mended, and may be.
func (p *protecting) chosen() (ids []string) {
	for i, d := range p.out.Found {
		if d.Mendable() && (len(p.in.Apply) == 0 || slices.Contains(p.in.Apply, p.out.IDs[i])) {
			ids = append(ids, p.out.IDs[i])
		}
	}
	return ids
}

// unprotected says whether the runbook's entity has still to be told that protection stands.
func (p *protecting) unprotected() bool { return p.out.Stands && p.entity.UnprotectedSince != nil }

// held mends while the runbook and its link are held, and lets them go when no write of a lost attempt can arrive any more (P35c).
// A run that came first is yielded to; what another one left behind is not for this one to settle.
func (p *protecting) held(ctx workflow.Context) error {
	acquire := activities.Acquire{Entity: "runbook/" + p.in.Runbook, Run: p.guard.Run, Kind: kindProtect, From: p.route.From.Name, To: p.route.To.Name,
		SeenEpoch: p.seen.HighestEpoch(), SeenActive: p.seen.Required().Cluster}
	var got activities.Acquired
	err := p.acquire(ctx, acquire, &got)
	var link activities.Acquired
	switch {
	case err == nil && got.Abandoned != nil:
		err = fmt.Errorf("run %s was closed before it had released the runbook: start the run that settles it first, then come back", got.Abandoned.Run.ID())
	case err == nil:
		err = p.acquire(ctx, activities.Acquire{Entity: "link/" + p.link, Run: p.guard.Run, Kind: kindProtect, To: p.route.To.Name}, &link)
		if err == nil {
			err = p.mend(ctx)
		}
	}
	if isType(err, activities.TypeHeld) {
		p.out.Yielded, err = true, nil
	}
	safe, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if wait := p.late.Sub(workflow.Now(safe)); wait > 0 {
		_ = workflow.Sleep(safe, wait)
	}
	// A lost answer may have been a yes, and releasing what is not held changes nothing. No outcome: this was no run of the
	// runbook, and the last one stays the last.
	until := workflow.Now(safe).Add(releaseBudget)
	free := activities.Release{Entity: "link/" + p.link, Run: p.guard.Run, Unsettled: link.Abandoned != nil}
	err = errors.Join(err, workflow.ExecuteActivity(atomicWrite(safe, until, "release "+free.Entity), locks.Release, free).Get(safe, nil))
	free = activities.Release{Entity: acquire.Entity, Run: p.guard.Run, Unsettled: got.Abandoned != nil, Protected: err == nil && !p.out.Yielded && p.out.Stands}
	return errors.Join(err, workflow.ExecuteActivity(atomicWrite(safe, until, "release "+free.Entity), locks.Release, free).Get(safe, nil))
}

func (p *protecting) acquire(ctx workflow.Context, in activities.Acquire, got *activities.Acquired) error {
	return workflow.ExecuteActivity(atomicWrite(ctx, workflow.Now(ctx).Add(lockBudget), "take "+in.Entity), locks.Acquire, in).Get(ctx, got)
}

// mend changes what was shown, and looks again.
func (p *protecting) mend(ctx workflow.Context) error {
	until := workflow.Now(ctx).Add(protectBudget)
	ids := p.chosen()
	if len(ids) > 0 {
		p.status.WaitsFor = fmt.Sprintf("%d differences to be mended", len(ids))
		var done activities.MendResult
		err := workflow.ExecuteActivity(atomicWrite(ctx, until, "mend what was shown"), keeper.Mend, p.input(ids)).Get(ctx, &done)
		p.late = done.LateUntil()
		if err != nil {
			p.late = workflow.Now(ctx).Add(activities.WriteDeadline)
			return err
		}
		p.out.Mended = done.Outcomes
	}
	// What was asked for takes its time: a mirror fills, tasks start. It is looked at until nothing moves any more, for a while.
	for by := workflow.Now(ctx).Add(mendedBudget); ; {
		if err := p.look(ctx, until); err != nil {
			return err
		}
		if p.settled(ids) || !workflow.Now(ctx).Before(by) {
			break
		}
		if err := workflow.Sleep(ctx, mendedEvery); err != nil {
			return err
		}
	}
	p.changedMeanwhile(ids)
	return nil
}

// settled says whether nothing that was mended is still on its way.
func (p *protecting) settled(ids []string) bool {
	if len(ids) == 0 {
		return true
	}
	return !slices.ContainsFunc(p.out.Left, func(d replication.Difference) bool {
		ours := slices.ContainsFunc(p.out.Found, func(f replication.Difference) bool {
			return f.Kind == d.Kind && f.Name == d.Name && slices.Contains(ids, f.ID()) && p.accepted(f.ID())
		})
		return ours
	})
}

// accepted says whether what was asked for was done, or is under way.
func (p *protecting) accepted(id string) bool {
	i := slices.IndexFunc(p.out.Mended, func(o replication.Outcome) bool { return o.Name == id })
	return i >= 0 && p.out.Mended[i].Status == replication.OK
}

// changedMeanwhile completes what became of the differences that were to be mended and of which the last attempt did not tell: one that is
// gone was mended by an attempt before it; one that read differently in the last moment was not touched.
func (p *protecting) changedMeanwhile(ids []string) {
	for i, f := range p.out.Found {
		id := p.out.IDs[i]
		if !slices.Contains(ids, id) || slices.ContainsFunc(p.out.Mended, func(o replication.Outcome) bool { return o.Name == id }) {
			continue
		}
		o := replication.Outcome{Name: id, Status: replication.OK}
		if n := slices.IndexFunc(p.out.Left, func(d replication.Difference) bool { return d.Kind == f.Kind && d.Name == f.Name }); n >= 0 {
			o.Status = replication.Unclear
			o.Reason = fmt.Sprintf("left alone: shown was that it is %s, and now it is %s; look at it and protect again", f.Is, p.out.Left[n].Is)
		}
		p.out.Mended = append(p.out.Mended, o)
	}
}
