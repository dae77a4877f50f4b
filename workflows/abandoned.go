package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
	"switchback/runbooks"
)

// settle undoes what a run left behind that was closed without releasing: terminated, reset, or timed out by somebody.
// It outlives the writes that may still be under way, then looks where the workload is (P35c).
func (f *failover) settle(ctx workflow.Context, left activities.Holder) error {
	if left.Kind == kindGrants || left.Kind == report.KindRecovery {
		f.unsettled = false // what it granted or recovered stays, and it stopped nobody
		return nil
	}
	f.say(string(Preflight), "what run "+left.Run.ID()+" left behind")
	f.begun = true
	f.note(workflow.Now(ctx).Add(activities.WriteDeadline))
	f.outlive(ctx)
	until := workflow.Now(ctx).Add(undoBudget)
	seen, err := f.readDiscovery(ctx, until)
	if err != nil {
		return err
	}
	entry := seen.Required()
	if entry.SwitchedBy == left.Run.ID() && entry.Cluster == left.To {
		return f.startFor(ctx, until, left, entry)
	}
	route := f.route
	if left.To != "" && left.To != route.To.Name {
		if route, err = way(f.book, entry, "", left.To); err != nil {
			return fmt.Errorf("settle what run %s left behind: %w", left.Run.ID(), err)
		}
	}
	if err := f.undoFor(ctx, until, left, route, entry); err != nil || left.Unfenced == "" || left.Unfenced == f.in.To {
		return err
	}
	ended, err := f.endFencing(ctx, until, left.Unfenced)
	if err == nil {
		f.waitsAgain(left.Unfenced, ended.Left)
	}
	return err
}

// finish is for a workload that is where it was asked to go: there is nothing to do, unless the run that brought it
// there was closed before it started the clients.
func (f *failover) finish(ctx workflow.Context, until time.Time, seen activities.ReadDiscoveryResult) error {
	entry := seen.Required()
	f.status.From, f.status.Epoch, f.guard.Epoch, f.facts.Before = entry.Cluster, entry.Epoch, entry.Epoch, entry.Epoch
	got, err := f.acquire(ctx, until, "runbook/"+f.in.Runbook, seen)
	if err != nil {
		return err
	}
	f.next = got.NextEpoch
	if got.Abandoned == nil {
		return fmt.Errorf("the workload of runbook %s is on %s already, at epoch %d", f.in.Runbook, entry.Cluster, entry.Epoch)
	}
	f.unsettled = true
	if err := f.settle(ctx, *got.Abandoned); err != nil {
		return err
	}
	return &stop{Completed, fmt.Sprintf("the workload was on %s already, at epoch %d; what run %s had left was finished", entry.Cluster, entry.Epoch, got.Abandoned.Run.ID())}
}

// startFor finishes a run that switched and was closed before its end: past the switch there is only forward.
func (f *failover) startFor(ctx workflow.Context, until time.Time, left activities.Holder, entry activities.DiscoveryEntry) error {
	if f.asked(entry, "stop") {
		if _, err := f.startAgain(runbooks.RoleProducer, runbooks.RoleConsumer, runbooks.RoleBoth)(ctx, until); err != nil {
			return err
		}
	}
	f.deviate(fmt.Sprintf("run %s had switched to %s at epoch %d and was closed before its end: its clients were started; its fence stands, "+
		"it has no report, and nobody has verified it", left.Run.ID(), entry.Cluster, entry.Epoch))
	f.begun, f.unsettled = false, false
	return nil
}

// asked says whether any client was asked to stop, or to run.
func (f *failover) asked(entry activities.DiscoveryEntry, what string) bool {
	for _, c := range f.book.Clients {
		if entry.Desired[c.Name] == what {
			return true
		}
	}
	return false
}

// undoFor takes back what another run did, in the order of a rollback. The epoch is raised only when clients were asked
// to stop: it would restart those that run.
func (f *failover) undoFor(ctx workflow.Context, until time.Time, left activities.Holder, route activities.Route, entry activities.DiscoveryEntry) error {
	stopped := f.asked(entry, "stop")
	if stopped {
		if _, err := f.setDiscovery(ctx, until, route.From, "raise the epoch"); err != nil {
			return err
		}
		f.next++ // the holder of the lock counts on; nobody else can meanwhile
		f.status.NextEpoch = f.next
	}
	if route.Link.MirrorMaker != nil { // before its seal is lifted with the fences, the mirror is told where to go on (P27)
		in := activities.UnsealInput{WaitInput: activities.WaitInput{Guard: f.guard, Route: route, Deadline: inside(ctx, until)}, Owner: left.Run.ID()}
		if _, err := perform[activities.UnsealResult](f.engine, longWait(ctx, until, "let the mirror go on"), mirrors.Unseal, in); err != nil {
			return err
		}
	}
	fence := activities.FenceInput{Guard: f.guard, Route: route, Owner: left.Run.ID(), Topics: f.book.Topics}
	if _, err := perform[activities.FenceResult](f.engine, atomicWrite(ctx, until, "lift what "+left.Run.ID()+" fenced"), fences.Lift, fence); err != nil {
		return err
	}
	if stopped {
		if _, err := f.startAgain(runbooks.RoleProducer, runbooks.RoleConsumer, runbooks.RoleBoth)(ctx, until); err != nil {
			return err
		}
	}
	back := activities.SyncsInput{Guard: f.guard, Route: route, Owner: left.Run.ID()}
	if _, err := perform[activities.SyncsResult](f.engine, atomicWrite(ctx, until, "restore what "+left.Run.ID()+" suspended"), syncs.Restore, back); err != nil {
		return err
	}
	f.deviate("run " + left.Run.ID() + " had been closed before its end; what it had begun was taken back first")
	f.begun, f.unsettled = false, false
	return nil
}
