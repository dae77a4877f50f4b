package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// The steps of a planned failover between stopping the producers and starting them: six activities in a row, no search
// attribute, no report. This is what the producers' users feel.

// The names under which activities are registered are their methods'.
var (
	books     *activities.Runbooks
	locks     *activities.Locks
	discovery *activities.Discovery
	checks    *activities.Preflight
	syncs     *activities.Syncs
	clients   *activities.Clients
	fences    *activities.Fences
	logs      *activities.Logs
	groups    *activities.Groups
	mirrors   *activities.Mirrors
	verifier  *activities.Verify
	reports   *activities.Reports
	assessor  *activities.Assess
	salvage   *activities.Recovery
)

// stopProducers opens the switch window. From here on a rollback raises the epoch first: a client that was cut off
// carries the old one (P35b).
func (f *plannedFailover) stopProducers(ctx workflow.Context, until time.Time) (string, error) {
	f.phase(string(StopProducers))
	f.due = workflow.Now(ctx).Add(approvalExpiry)
	if rto := f.book.Objectives.RTO.D(); rto > 0 {
		f.due = workflow.Now(ctx).Add(rto)
	}
	f.undoFirst(undo{name: undoEpoch, do: f.raiseEpoch})
	return f.stopRoles(ctx, until, runbooks.RoleProducer, runbooks.RoleBoth)
}

// stopConsumers runs beside fence, proof and drain. Where the runbook asks for it, groups first read to the end.
func (f *plannedFailover) stopConsumers(ctx workflow.Context, until time.Time) (string, error) {
	if catchUp := f.book.Budgets.CatchUp.D(); catchUp > 0 {
		by := workflow.Now(ctx).Add(catchUp)
		in := activities.WaitInput{Guard: f.guard, Route: f.route, Deadline: inside(ctx, by)}
		out, err := perform[activities.CatchUpResult](f.engine, shortWait(ctx, by, "groups read to the end"), logs.CatchUp, in)
		if err != nil && (isStale(err) || f.stop != nil) {
			return "", err
		}
		if err != nil {
			f.deviate("whether the groups caught up is not known: " + plain(err))
		}
		for _, o := range out.Behind {
			f.deviate(fmt.Sprintf("group %s did not catch up before it was stopped: %s", o.Name, o.Reason))
		}
	}
	return f.stopRoles(ctx, until, runbooks.RoleConsumer)
}

// stopRoles stops clients and obeys the runbook about those that had to be killed (P36).
func (f *failover) stopRoles(ctx workflow.Context, until time.Time, roles ...string) (string, error) {
	asked := &f.facts.AskedProducers
	if roles[0] == runbooks.RoleConsumer {
		asked = &f.facts.AskedConsumers
	}
	if asked.IsZero() {
		*asked = workflow.Now(ctx)
	}
	all := f.book.ClientsByRole(roles...)
	in := activities.ClientsInput{Guard: f.guard, Clients: automatic(all), Deadline: inside(ctx, until)}
	pending := workflow.ExecuteActivity(shortWait(ctx, until, "stop "+roles[0]+"s"), clients.Stop, in)
	teams := f.awaitTeams(ctx, all, "stop", until)
	out, err := result[activities.ClientsResult](f.engine, ctx, pending)
	if err != nil {
		return "", err
	}
	f.facts.Stopped = append(f.facts.Stopped, out.Clients...)
	if teams != nil {
		return "", teams
	}
	for _, killed := range out.Killed {
		f.deviate(killed + " had to be killed: a request that was in flight may be repeated on " + f.route.To.Name)
		name, _, _ := strings.Cut(killed, "/")
		if whenKilled(all, name) == rollBackWhenKilled {
			return "", fmt.Errorf("%s had to be killed and the runbook says roll-back for that: find out why it does not stop, then start a new run", killed)
		}
	}
	return said(out.Clients, "stopped"), nil
}

func (f *plannedFailover) fenceSource(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.FenceInput{Guard: f.guard, Route: f.route, Topics: f.book.Topics}
	out, err := perform[activities.FenceResult](f.engine, windowWrite(ctx, until, "deny WRITE on "+f.route.From.Name), fences.Raise, in)
	if len(out.Born) > 0 {
		f.deviate("topics that appeared during the run: " + strings.Join(out.Born, ", "))
	}
	if len(out.Down) > 0 {
		f.deviate(fmt.Sprintf("brokers %v of %s are down, so they are not known to be fenced", out.Down, f.route.From.Name))
	}
	return out.Text, err
}

func (f *plannedFailover) proveQuiescence(ctx workflow.Context, until time.Time) (string, error) {
	out, err := perform[activities.QuiesceResult](f.engine, shortWait(ctx, until, "nobody writes to "+f.route.From.Name), logs.Quiesce, f.wait(ctx, until))
	for _, id := range out.EndedTransactions {
		f.deviate("an open transaction of a stopped client was ended: " + id)
	}
	return out.Text, err
}

func (f *plannedFailover) drain(ctx workflow.Context, until time.Time) (string, error) {
	out, err := perform[activities.DrainResult](f.engine, shortWait(ctx, until, f.route.To.Name+" has everything"), logs.Drain, f.wait(ctx, until))
	return out.Text, err
}

func (f *plannedFailover) handOverOffsets(ctx workflow.Context, until time.Time) (string, error) {
	out, err := perform[activities.HandOverResult](f.engine, shortWait(ctx, until, "groups go on where they stood"), groups.HandOver, f.handOverInput(ctx, until))
	if err != nil {
		return "", err
	}
	f.handed(out)
	return out.Text, nil
}

func (f *failover) handOverInput(ctx workflow.Context, until time.Time) activities.HandOverInput {
	return activities.HandOverInput{
		Guard: f.guard, Route: f.route, Groups: f.book.Groups, Deadline: inside(ctx, until),
		Clients: automatic(f.book.ClientsByRole(runbooks.RoleConsumer, runbooks.RoleBoth)),
	}
}

// handed notes what a hand-over had to say.
func (f *failover) handed(out activities.HandOverResult) {
	for _, d := range out.Deviations {
		f.deviate(d)
	}
	for _, m := range out.Removed {
		f.deviate("a member whose process was proven stopped was removed from its group: " + m)
	}
}

// promote stops the mirrors. Where a stop is final, the first request that is sent is the point of no return, so it is
// one from before the activity is scheduled; only when the very first try says that nothing was sent is it taken back.
func (f *plannedFailover) promote(ctx workflow.Context, until time.Time) (string, error) {
	first := !f.final
	f.passed(f.stopIsFinal)
	if !f.stopIsFinal {
		f.register(step{name: Promote, undo: undo{name: undoSeal, do: f.unseal}})
	}
	in := f.wait(ctx, until)
	in.SealProven = f.sealProven
	out, err := perform[activities.PromoteResult](f.engine, shortWait(ctx, until, "stop the mirrors"), mirrors.Promote, in)
	if isType(err, activities.TypePromoteRefused) && first {
		f.final, f.status.Final = false, false
	}
	if err != nil {
		return "", err
	}
	if f.facts.Promoted = workflow.Now(ctx); len(out.FailedOver) > 0 {
		f.deviate("promote did not end, so these topics were failed over, without loss because both sides were proven equal: " + strings.Join(out.FailedOver, ", "))
	}
	f.facts.Stranded = out.Stranded
	for _, s := range out.Stranded {
		f.deviate("written behind the fence and behind the stop of the mirrors, and stranded on " + f.route.From.Name + ": " + s)
	}
	return out.Text, nil
}

// passed marks the point of no return: nothing is undone from here on.
func (f *failover) passed(final bool) {
	if final {
		f.final, f.status.Final = true, true
	}
}

// keepMarks runs beside the switch: a mark is a fact about this run, whatever the epoch.
func (f *plannedFailover) keepMarks(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.MarksInput{Guard: f.guard, Route: f.route, Epoch: f.next}
	out, err := perform[activities.MarksResult](f.engine, windowWrite(ctx, until, "keep the marks"), mirrors.KeepMarks, in)
	return out.Text, err
}

// switchTraffic gives every discovery entry the absolute number that was fixed before (P2).
func (f *failover) switchTraffic(ctx workflow.Context, until time.Time) (string, error) {
	f.passed(true)
	out, err := f.setDiscovery(ctx, until, f.route.To, "switch to "+f.route.To.Name)
	if err != nil {
		return "", err
	}
	f.facts.Switched = out.At
	return fmt.Sprintf("clients find %s at epoch %d", f.route.To.Name, f.next), nil
}

// startClients closes the switch window. Nothing that was lost sight of may act any more (P35c). Consumers are asked as
// soon as producers were: both waits overlap.
func (f *failover) startClients(ctx workflow.Context, until time.Time) (string, error) {
	f.outlive(ctx)
	producers := f.start(ctx, until, runbooks.RoleProducer, runbooks.RoleBoth)
	consumers := f.start(ctx, until, runbooks.RoleConsumer)
	teams := f.awaitTeams(ctx, f.book.Clients, "start", until)
	out, err := result[activities.ClientsResult](f.engine, ctx, producers)
	more, err2 := result[activities.ClientsResult](f.engine, ctx, consumers)
	if err = errors.Join(err, err2, teams); err != nil {
		return "", err
	}
	f.facts.Running = append(out.Clients, more.Clients...)
	if away := outcomes(append(out.Absent, more.Absent...)); away != "" {
		f.deviate("not started, because nobody could reach them; they follow to " + f.route.To.Name + " by themselves as soon as they reach discovery: " + away)
	}
	f.due = time.Time{}
	return said(f.facts.Running, "running"), nil
}

func (f *failover) start(ctx workflow.Context, until time.Time, roles ...string) workflow.Future {
	in := activities.ClientsInput{Guard: f.guard, Clients: automatic(f.book.ClientsByRole(roles...)), Deadline: inside(ctx, until), Absent: f.absent}
	return workflow.ExecuteActivity(shortWait(ctx, until, "start "+roles[0]+"s"), clients.Start, in)
}

func (f *failover) wait(ctx workflow.Context, until time.Time) activities.WaitInput {
	return activities.WaitInput{Guard: f.guard, Route: f.route, Deadline: inside(ctx, until)}
}
