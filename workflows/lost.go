package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/runbooks"
)

// The steps of an unplanned failover between its approval and the first start.

const (
	undoClients Step = "restore-clients"
	undoFencing Step = "end-fencing"
)

var everyRole = []string{runbooks.RoleProducer, runbooks.RoleConsumer, runbooks.RoleBoth}

// halted says that a step must not go on: somebody else has gone on, or an operator stops the run.
func (e *engine) halted(err error) bool { return isStale(err) || e.stopped() }

// holdBackSyncs suspends what the link does by itself, if it can be reached. It waits for no cycle: the hand-over reads its
// offsets back, and FenceWhenReachable suspends before it fences (P34).
func (u *unplannedFailover) holdBackSyncs(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.SyncsInput{Guard: u.guard, Route: u.route}
	out, err := perform[activities.SyncsResult](u.engine, windowWrite(ctx, until, "suspend the syncs of the link"), syncs.Suspend, in)
	switch {
	case err != nil && u.halted(err):
		return "", err
	case err != nil:
		u.deviate("the syncs of the link could not be suspended, so nothing that they copy is excluded: " + plain(err))
		return "not suspended: " + plain(err), nil
	case out.QuietAt.After(workflow.Now(ctx)) && u.assessed.From.Answers:
		u.deviate("a sync cycle that had begun may write until " + out.QuietAt.UTC().Format(time.RFC3339) + "; an unplanned run does not wait for it")
	}
	return out.Text, nil
}

// openWindow: from here on a rollback raises the epoch first, as a client that was cut off carries the old one (P35b).
func (u *unplannedFailover) openWindow(ctx workflow.Context) {
	u.due = workflow.Now(ctx).Add(approvalExpiry) // no objective cuts a step short: going back leads to a dead cluster
	u.undoFirst(undo{name: undoEpoch, do: u.raiseEpoch})
}

// stopReachable stops whom it can reach. Whoever cannot be reached is unknown, not stopped, and named (P22, P23).
func (u *unplannedFailover) stopReachable(ctx workflow.Context, until time.Time) (string, error) {
	now := workflow.Now(ctx)
	for _, asked := range []*time.Time{&u.facts.AskedProducers, &u.facts.AskedConsumers} {
		if asked.IsZero() {
			*asked = now
		}
	}
	in := activities.ClientsInput{Guard: u.guard, Clients: automatic(u.book.Clients), Deadline: inside(ctx, until), GoOn: u.disaster.Clients != ClientsWait}
	pending := workflow.ExecuteActivity(shortWait(ctx, until, "stop the clients that can be reached"), clients.StopReachable, in)
	teams := u.awaitTeams(ctx, u.book.Clients, "stop", until)
	out, err := result[activities.StopReachableResult](u.engine, ctx, pending)
	if err != nil {
		return "", err
	}
	u.facts.Stopped, u.absent = out.Clients, absent(out.Unknown)
	for _, killed := range out.Killed {
		u.deviate(killed + " had to be killed: a request that was in flight may be repeated on " + u.route.To.Name)
	}
	unknown := outcomes(out.Unknown)
	if teams != nil {
		unknown = strings.TrimPrefix(unknown+"; "+plain(teams), "; ")
	}
	switch {
	case unknown == "":
		return said(out.Clients, "stopped"), nil
	case u.disaster.Clients == ClientsWait:
		return "", &standstill{"not known to be stopped: " + unknown + ". Stop them by hand, or skip this to go on without"}
	}
	u.deviate("not known to be stopped, and may write to " + u.route.From.Name + " until it is fenced: " + unknown)
	return strings.TrimPrefix(said(out.Clients, "stopped")+"; unknown: "+unknown, "; "), nil
}

// absent are the instances that discovery does not know: whether they will ever start again nobody can say.
func absent(unknown []replication.Outcome) (names []string) {
	for _, o := range unknown {
		if o.Status == replication.Unclear {
			names = append(names, o.Name)
		}
	}
	return names
}

// fenceReachable fences what answers. What does not is left to FenceWhenReachable: the run does not wait for a cluster
// that is gone. Where offsets differ that also finds out by comparing records what is lost, once the mirror has stopped
// (P18).
func (u *unplannedFailover) fenceReachable(ctx workflow.Context, until time.Time) (string, error) {
	u.openWindow(ctx)
	from, text, id := u.route.From.Name, answers(u.assessed.From), fencingID(u.in.Runbook, u.route.From.Name)
	fenced := false
	if u.assessed.From.Answers {
		var out activities.FenceReachResult
		in := activities.FenceInput{Guard: u.guard, Route: u.route, Topics: u.book.Topics}
		err := workflow.ExecuteActivity(windowWrite(ctx, until, "deny WRITE on what answers of "+from), fences.RaiseReachable, in).Get(ctx, &out)
		// Only an undo has to outlive it: it can do no harm on the cluster that clients start on.
		u.lateFence = later(u.lateFence, out.LateUntil())
		if err != nil {
			u.lateFence = workflow.Now(ctx).Add(activities.WriteDeadline)
		}
		switch {
		case err != nil && u.halted(err):
			return "", err
		case err != nil:
			text = "the fence did not succeed: " + plain(err)
		case out.Fenced && u.assessed.StopIsFinal: // mirrors that keep offsets: the marks alone close the number
			return out.Text, nil
		case out.Fenced:
			fenced, text = true, out.Text
		default:
			text = out.Text
		}
	}
	u.undoFirst(undo{name: undoFencing, do: u.endOwnFencing})
	if err := u.startFencing(); err != nil {
		return "", err
	}
	u.waits, u.unfenced = true, !fenced
	if fenced {
		return fmt.Sprintf("%s; %s compares both clusters and closes the loss", text, id), nil
	}
	return fmt.Sprintf("%s; %s fences it as soon as it answers", text, id), nil
}

// endOwnFencing comes first in a rollback: nothing may fence the cluster again that its clients go back to (P13).
func (u *unplannedFailover) endOwnFencing(ctx workflow.Context, until time.Time) (string, error) {
	if _, err := u.endFencing(ctx, until, u.route.From.Name); err != nil {
		return "", err
	}
	u.waits, u.unfenced = false, false
	return fencingID(u.in.Runbook, u.route.From.Name) + " has ended", nil
}

// liftReached lifts what the records say was made, also by what the run had left to fence.
func (u *unplannedFailover) liftReached(ctx workflow.Context, until time.Time) (string, error) {
	u.note(u.lateFence)
	u.outlive(ctx)
	return u.liftFences(ctx, until)
}

// failOver stops the mirrors whatever they lack. It is the point of no return on every backend: behind it the clusters
// part, and going back to the old one would lose what the new one is given.
func (u *unplannedFailover) failOver(ctx workflow.Context, until time.Time) (string, error) {
	first := !u.final
	u.passed(true)
	in := u.wait(ctx, until)
	in.SealProven = u.sealProven
	out, err := perform[activities.FailOverResult](u.engine, shortWait(ctx, until, "fail the mirrors over"), mirrors.FailOver, in)
	if isType(err, activities.TypePromoteRefused) && first {
		u.final, u.status.Final = false, false
	}
	if err != nil {
		return "", err
	}
	u.facts.Promoted = workflow.Now(ctx)
	u.stopping = out.Waits
	for _, topic := range out.Hanging {
		u.deviate("its mirror did not say that it stopped: " + topic)
	}
	return out.Text, nil
}

// keepLastMarks runs beside the hand-over and ends before transactions are settled and anybody writes to the target: after
// that its ends would say that less was lost.
func (u *unplannedFailover) keepLastMarks(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.LastMarksInput{MarksInput: activities.MarksInput{Guard: u.guard, Route: u.route, Epoch: u.next}, Outage: u.outage}
	out, err := perform[activities.LastMarksResult](u.engine, windowWrite(ctx, until, "keep the marks"), mirrors.KeepLastMarks, in)
	if err != nil {
		return "", err
	}
	u.marked = &out
	u.knownLoss(out.Loss, out.Losses)
	return or(out.Text, lossText(out.Loss)), nil
}

func (u *unplannedFailover) handOverLastKnown(ctx workflow.Context, until time.Time) (string, error) {
	in := u.handOverInput(ctx, until)
	out, err := perform[activities.HandOverResult](u.engine, shortWait(ctx, until, "groups go on by what is known of them"), groups.HandOverLastKnown, in)
	if err != nil {
		return "", err
	}
	u.handed(out)
	return out.Text, nil
}

// settleTransactions ends what the mirror brought along unfinished, which would hold up every read_committed consumer (P19).
func (u *unplannedFailover) settleTransactions(ctx workflow.Context, until time.Time) (string, error) {
	out, err := perform[activities.QuiesceResult](u.engine, shortWait(ctx, until, "no transaction is open on "+u.route.To.Name), logs.Settle, u.wait(ctx, until))
	for _, id := range out.EndedTransactions {
		u.deviate("an open transaction that the mirror had brought was aborted: " + id)
	}
	return out.Text, err
}

// switchOver tells whoever waits for the old cluster that the workload has left it.
func (u *unplannedFailover) switchOver(ctx workflow.Context, until time.Time) (string, error) {
	text, err := u.switchTraffic(ctx, until)
	if err == nil {
		u.unsettled = false // what a dead run had begun is finished
		if u.waits {
			workflow.SignalExternalWorkflow(u.safe, fencingID(u.in.Runbook, u.route.From.Name), "", SignalSwitched, u.facts.Switched)
		}
	}
	return text, err
}

// confirm looks at the target as clients see it. A mirror that was only sealed is confirmed to have stopped meanwhile: with
// a dead source that takes a minute, which no client waits for.
func (u *unplannedFailover) confirm(ctx workflow.Context, until time.Time) (string, error) {
	var stopped workflow.Future
	if u.stopping {
		by := workflow.Now(ctx).Add(u.promoteTime())
		stopped = workflow.ExecuteActivity(longWait(ctx, by, "the mirror has stopped behind its seal"), mirrors.AwaitStopped, u.wait(ctx, by))
	}
	text, err := u.verify(ctx, until)
	if stopped == nil {
		return text, err
	}
	out, err2 := result[activities.FailOverResult](u.engine, ctx, stopped)
	if err2 != nil {
		u.deviate("the mirror was not seen to stop, only its seal holds it: " + plain(err2))
	} else {
		u.stopping, text = false, text+"; "+out.Text
	}
	return text, err
}

// sentence is what a completed run says of its loss.
func (u *unplannedFailover) sentence() string { return lossText(*u.status.Loss) + ", " }

// open says that the number of lost records may still grow: whoever is cut off may write until the old cluster is fenced
// (P38).
func (u *unplannedFailover) lossOpen() bool {
	return u.unfenced || u.status.Loss == nil || u.status.Loss.AtMost == replication.Unknown
}
