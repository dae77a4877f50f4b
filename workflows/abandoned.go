package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// settle undoes what a run left behind that was closed without releasing: terminated, reset, or timed out by somebody.
// It outlives the writes that may still be under way, then looks where the workload is (P35c).
func (f *plannedFailover) settle(ctx workflow.Context, left activities.Holder) error {
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
	if entry.SwitchedBy == left.Run.ID() {
		return fmt.Errorf("run %s switched to %s at epoch %d and was then closed before its end (terminated, or timed out): "+
			"its fence stands, its clients may be stopped and its report is missing. Look at it, start what it left stopped, then start a new run",
			left.Run.ID(), entry.Cluster, entry.Epoch)
	}
	route := f.route
	if left.To != "" && left.To != route.To.Name {
		if route, err = way(f.book, entry, "", left.To); err != nil {
			return fmt.Errorf("settle what run %s left behind: %w", left.Run.ID(), err)
		}
	}
	return f.undoFor(ctx, until, left, route, entry)
}

// undoFor takes back what another run did, in the order of a rollback. The epoch is raised only when clients were asked
// to stop: it would restart those that run.
func (f *plannedFailover) undoFor(ctx workflow.Context, until time.Time, left activities.Holder, route activities.Route, entry activities.DiscoveryEntry) error {
	stopped := false
	for _, c := range f.book.Clients {
		stopped = stopped || entry.Desired[c.Name] == "stop"
	}
	if stopped {
		if _, err := f.setDiscovery(ctx, until, route.From, "raise the epoch"); err != nil {
			return err
		}
		f.next++ // the holder of the lock counts on; nobody else can meanwhile
		f.status.NextEpoch = f.next
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
	f.begun = false
	return nil
}
