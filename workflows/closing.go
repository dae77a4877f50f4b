package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// What is done to close a run, in the order in which a rollback does it: the epoch first, so that late actors are
// refused; the fences before the clients that they would deny; the link's own work last.
const (
	undoEpoch     Step = "raise-epoch"
	undoSeal      Step = "lift-seal"
	undoFences    Step = "lift-fences"
	undoConsumers Step = "restore-consumers"
	undoProducers Step = "restore-producers"
	undoSyncs     Step = "restore-syncs"
	stepRelease   Step = "release"
)

const rollBackWhenKilled = "roll-back"

// setDiscovery writes the run's own number, and acts for it from then on.
func (f *failover) setDiscovery(ctx workflow.Context, until time.Time, to activities.Site, summary string) (activities.SwitchResult, error) {
	in := activities.SwitchInput{
		Guard: f.guard, Entries: f.book.Discovery, To: to, Epoch: f.next, Credentials: f.book.Credentials, Clients: names(f.book.Clients),
	}
	out, err := perform[activities.SwitchResult](f.engine, windowWrite(ctx, until, summary), discovery.Switch, in)
	if err != nil {
		return out, err
	}
	f.guard.Epoch, f.status.Epoch = f.next, f.next
	f.pending = anyPending(out.Entries)
	return out, nil
}

// raiseEpoch keeps the clients where they are at a higher number: whoever still acts for the old one is refused.
func (f *failover) raiseEpoch(ctx workflow.Context, until time.Time) (string, error) {
	_, err := f.setDiscovery(ctx, until, f.route.From, "raise the epoch")
	return fmt.Sprintf("%s keeps its clients at epoch %d", f.route.From.Name, f.next), err
}

func (f *failover) liftFences(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.FenceInput{Guard: f.guard, Route: f.route, Topics: f.book.Topics}
	out, err := perform[activities.FenceResult](f.engine, atomicWrite(ctx, until, "lift the fences"), fences.Lift, in)
	return out.Text, err
}

// unseal lets the mirror go on, exactly after what the target has (P27).
func (f *failover) unseal(ctx workflow.Context, until time.Time) (string, error) {
	out, err := perform[activities.UnsealResult](f.engine, longWait(ctx, until, "let the mirror go on"), mirrors.Unseal,
		activities.UnsealInput{WaitInput: f.wait(ctx, until)})
	return out.Text, err
}

// startAgain starts clients where they were.
func (f *failover) startAgain(roles ...string) func(workflow.Context, time.Time) (string, error) {
	return func(ctx workflow.Context, until time.Time) (string, error) {
		by := workflow.Now(ctx).Add(min(until.Sub(workflow.Now(ctx)), max(f.startTime(), leastBudget)))
		pending := f.start(ctx, by, roles...)
		teams := f.awaitTeams(ctx, f.book.ClientsByRole(roles...), "start", by)
		out, err := result[activities.ClientsResult](f.engine, ctx, pending)
		if err == nil {
			err = teams
		}
		return said(out.Clients, "running"), err
	}
}

// restoreSyncs puts back what was there. ACL sync would copy a fence that somebody chose to leave standing (P5).
func (f *failover) restoreSyncs(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.SyncsInput{Guard: f.guard, Route: f.route, KeepACLsOff: f.shared}
	for _, row := range f.status.Closing {
		in.KeepACLsOff = in.KeepACLsOff || row.Step == undoFences && row.State == Skipped
	}
	out, err := perform[activities.SyncsResult](f.engine, atomicWrite(ctx, until, "restore the syncs of the link"), syncs.Restore, in)
	return out.Text, err
}

// report writes the run down before the runbook is released: its history will not outlive Temporal's retention. After a
// completed run the fence stands on the cluster that was left, and what was suspended stays suspended for this runbook:
// offset sync would overwrite the groups, ACL sync would copy the fence (P5).
func (f *failover) report(ctx workflow.Context, until time.Time) (string, error) {
	if f.status.Outcome == "" {
		f.status.Outcome = Completed
		f.status.Sentence = fmt.Sprintf("%s runs on %s at epoch %d, %sunprotected since %s until it is protected the other way",
			f.in.Runbook, f.route.To.Name, f.next, f.ending(), f.unprotected().Format(time.RFC3339))
	}
	if f.route.From.Name == "" {
		return "no report: the run ended before it knew its way", nil
	}
	f.align(ctx)
	var err error
	f.written, err = perform[activities.ReportResult](f.engine, longWait(ctx, until, "write the report"), reports.Write,
		reportInput{Run: f.guard.Run, Route: f.route, Report: f.record(workflow.Now(ctx))})
	if err != nil && !f.begun {
		f.deviate("the report was not written: " + plain(err)) // nothing was changed, so nobody has to stay up for it
		return "not written: " + plain(err), nil
	}
	return f.written.JSONPath, err
}

// align brings optional discovery entries that were out of reach to what counts now, for a while; what is left then goes on
// in a workflow of its own until it is done (P2).
func (f *failover) align(ctx workflow.Context) {
	if !f.pending {
		return
	}
	left := "they could not be written at the switch"
	if !f.route.SourceLost { // a lost region's Consul is not back within seconds
		until := workflow.Now(ctx).Add(alignBudget)
		out, err := perform[activities.SwitchResult](f.engine, longWait(ctx, until, "align the other discovery entries"), discovery.Align,
			activities.AlignInput{Entries: f.book.Discovery, Deadline: inside(ctx, until)})
		switch {
		case err != nil:
			left = plain(err)
		case anyPending(out.Entries):
			left = outcomes(out.Entries)
		default:
			f.pending = false
			return
		}
	}
	goesOn := alignID(f.in.Runbook) + " goes on until they do"
	if err := f.startAlignment(); err != nil {
		goesOn = "align them by hand, because " + alignID(f.in.Runbook) + " could not be started: " + plain(err)
	}
	f.deviate("some discovery entries still say the old cluster and epoch: " + left + "; " + goesOn)
}

// unprotected is since when nothing mirrors the workload: its mirrors were stopped.
func (f *failover) unprotected() time.Time {
	if f.facts.Promoted.IsZero() {
		return f.facts.Switched
	}
	return f.facts.Promoted
}

// release gives the locks back, the runbook's last, and tells its entity where the workload is now.
func (f *failover) release(ctx workflow.Context, until time.Time) (string, error) {
	f.outlive(ctx)
	for i := len(f.entities) - 1; i >= 0; i-- {
		in := activities.Release{Entity: f.entities[i], Run: f.guard.Run, Outcome: f.status.Outcome, Report: f.written.JSONPath, Unsettled: f.unsettled}
		in.Epoch, in.Active = f.guard.Epoch, f.route.From.Name // as this run knows it; the entity counts upwards only
		if since := f.unprotected(); !since.IsZero() {
			in.UnprotectedSince = &since
		}
		if !f.facts.Switched.IsZero() {
			in.Active = f.route.To.Name
		}
		if !strings.HasPrefix(in.Entity, "runbook/") {
			in.Epoch, in.Active, in.UnprotectedSince = 0, "", nil
		}
		if err := workflow.ExecuteActivity(atomicWrite(ctx, until, "release "+in.Entity), locks.Release, in).Get(ctx, nil); err != nil {
			return "", err
		}
	}
	return strings.Join(f.entities, ", "), nil
}

func names(list []runbooks.Client) (out []string) {
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

// automatic are the clients that need no person.
func automatic(list []runbooks.Client) (out []runbooks.Client) {
	for _, c := range list {
		if c.Paged == nil {
			out = append(out, c)
		}
	}
	return out
}

func whenKilled(list []runbooks.Client, name string) string {
	for _, c := range list {
		if c.Name == name {
			return c.WhenKilled
		}
	}
	return ""
}

func said(list []activities.ClientState, what string) string {
	var parts []string
	for _, c := range list {
		parts = append(parts, fmt.Sprintf("%s: %d %s", c.Client, c.Instances, what))
	}
	return strings.Join(parts, ", ")
}
