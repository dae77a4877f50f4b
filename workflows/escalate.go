package workflows

import (
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"switchback/report"
)

// outcomeEscalated ends a page, not a run: the same run goes on with the unplanned one.
const outcomeEscalated = "escalated"

func isEscalated(err error) bool {
	var asked *stop
	return errors.As(err, &asked) && asked.outcome == outcomeEscalated
}

// mayEscalate: between stopping the producers and the point of no return. Before that nothing is stopped, and a new run is
// as fast; after it there is nothing to turn, the run parks and only goes forward.
func (e *engine) mayEscalate(o Order) error {
	switch {
	case !e.mayTurn:
		return errors.New("only a planned run can be turned into an unplanned one, and this one is unplanned already")
	case e.final || e.row(Promote).State != Waiting:
		return fmt.Errorf("the run is at %s, where its target is proven to have everything: let it go on, or mend what it says and retry", e.status.Phase)
	case !e.window() && !e.undoing && e.stop == nil:
		return fmt.Errorf("the run is at %s, where no client was stopped yet: abort it, then `switchback start unplanned`", e.status.Phase)
	}
	return e.mayAbort(o)
}

func (e *engine) escalate(o Order) string {
	e.stop = &stop{outcome: outcomeEscalated, sentence: fmt.Sprintf("escalated by %s (%s)", o.By, o.Reason)}
	e.turned = &o
	e.decide(UpdateEscalate, o, "")
	e.cancel()
	return "the planned steps stop, nothing is taken back; the run assesses the loss and then waits for the approvals of an unplanned failover"
}

// turn ends the planned page and leaves all as it is: stopped clients, fence and suspended syncs are what the unplanned
// page wants as well, and their undo stays on the pile.
func (e *engine) turn() {
	for i := range e.status.Steps {
		if row := &e.status.Steps[i]; row.State == Waiting || row.State == Running {
			row.State = NotRun
		}
	}
	e.status.Earlier, e.status.Steps = e.status.Steps, nil
	e.status.Approvals = nil // they approved of another run
	e.stop, e.held, e.status.Held = nil, nil, ""
	e.mayTurn = false
	e.ctx, e.cancel = workflow.WithCancel(e.safe)
}

// escalated is the unplanned run that a planned one becomes: same workflow, same locks, same number of the switch. Who
// escalated has asked for it, and so cannot approve it too.
func escalated(f *plannedFailover) *unplannedFailover {
	now := workflow.Now(f.safe)
	f.kind, f.status.Workflow = report.KindUnplanned, "UnplannedFailover"
	f.due = now.Add(approvalExpiry) // clients are stopped already, so nobody holds it
	f.deviate(fmt.Sprintf("began as a planned failover and was escalated by %s: %s", f.turned.By, f.turned.Reason))
	f.announce()
	u := newUnplanned(f.failover, UnplannedInput{Outage: f.facts.AskedProducers})
	u.entered, u.asked, u.requester = true, now, f.turned.By
	f.undos = u.inherited(f.undos)
	return u
}

// inherited is what the planned page left to be taken back, in the order of this page: clients are started where they were
// behind the lifted fence, whatever roles were stopped.
func (u *unplannedFailover) inherited(pile []undo) (out []undo) {
	mine := map[Step]undo{
		undoSyncs: {name: undoSyncs, of: SuspendSyncs, do: u.restoreSyncs}, undoFences: {name: undoFences, of: FenceSource, do: u.liftReached},
		undoProducers: {name: undoClients, of: StopClients, do: u.startAgain(everyRole...)},
	}
	for _, name := range []Step{undoSyncs, undoProducers, undoFences} {
		if slices.ContainsFunc(pile, func(p undo) bool { return p.name == name }) {
			out = append(out, mine[name])
		}
	}
	return out
}
