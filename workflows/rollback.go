package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"
)

// undo takes back one step. It is registered before the step acts.
type undo struct {
	name Step
	of   Step // the step that it takes back; empty for what prepares the others
	do   func(ctx workflow.Context, until time.Time) (string, error)
}

// register puts a step's undo on the pile, once, before the step acts.
func (e *engine) register(s step) {
	known := func(u undo) bool { return u.name == s.undo.name }
	if s.undo.do == nil || slices.ContainsFunc(e.undos, known) {
		return
	}
	e.begun = true
	s.undo.of = s.name
	e.undos = append(e.undos, s.undo)
}

// undoFirst puts an undo before all others, once, whenever they are registered.
func (e *engine) undoFirst(u undo) {
	known := func(v undo) bool { return v.name == u.name }
	if !slices.ContainsFunc(e.first, known) {
		e.first = append(e.first, u)
	}
}

// rollback undoes what was done, last first, and sets the outcome. Nothing is undone past the point of no return, nor
// when somebody else has gone on: what stands then belongs to them.
func (e *engine) rollback(why error) {
	asked := (*stop)(nil)
	outcome := RolledBack
	if errors.As(why, &asked) {
		outcome = asked.outcome
	}
	text := plain(why)
	undos := append(slices.Clone(e.undos), e.first...)
	switch {
	case isStale(why):
		outcome, undos = FailedRun, nil
		text = "somebody else has switched this runbook meanwhile, so the run stopped acting and left all as it is: " + text
	case len(undos) == 0 && asked == nil:
		outcome = FailedRun
	}
	e.status.Outcome, e.status.Sentence = outcome, text
	if len(undos) == 0 {
		return
	}
	e.undoing, e.due = true, time.Time{}
	e.phase(phaseRollingBack)
	for i := len(undos) - 1; i >= 0; i-- {
		if err := e.takeBack(undos[i]); isStale(err) {
			e.status.Outcome = FailedRun
			e.status.Sentence = "somebody else has switched this runbook while the run rolled back, so it stopped acting: " + plain(err)
			return
		}
	}
	e.status.Sentence = "everything was taken back: " + text
	e.undoing = false
}

// takeBack undoes one step, and parks when that fails past its budget. Only a stale epoch ends it with an error.
func (e *engine) takeBack(u undo) error {
	s := step{name: u.name, do: u.do, budget: fixed(undoBudget), skip: true}
	for {
		e.outlive(e.safe)
		err := e.try(e.safe, s)
		if err == nil && u.of != "" {
			e.row(u.of).State = Undone
		}
		if err == nil || isStale(err) {
			return err
		}
		if e.park(u.name, true, sentence(u.name, err)) == skip {
			e.skipped(u.name, err)
			return nil
		}
	}
}

// answers to what is parked.
type answer string

const (
	retry answer = "retry"
	skip  answer = "skip"
)

// parked is what waits for an operator's word.
type parked struct {
	step Step // empty: nothing is parked
	skip bool
}

// park waits for retry or skip, for as long as it takes; no cancellation reaches it, but while the run can still go back
// it may be told to. The sentence says who must do what.
func (e *engine) park(name Step, maySkip bool, text string) answer {
	e.answer, e.parked = nil, parked{step: name, skip: maySkip}
	can := "mend that and `retry`"
	if maySkip {
		can += ", or `skip` it and do it by hand"
	}
	going := "the run only goes forward from here, abort and rollback are refused"
	switch {
	case e.undoing:
		going = "the rollback goes on after that"
	case e.stays != "":
		going = "`abort` ends the run, and what it did stays"
	case !e.final:
		going = "the run can still go back: `rollback` or `abort`"
	}
	e.status.Parked = fmt.Sprintf("%s. An operator must %s; %s.", text, can, going)
	before := e.status.Phase
	e.phase(phaseParked)
	_ = workflow.Await(e.safe, func() bool { return e.answer != nil || e.stopped() && !e.undoing })
	e.status.Parked, e.parked = "", parked{}
	e.phase(before)
	if e.answer == nil {
		return retry // the step is entered once more, finds that it was stopped, and ends
	}
	return *e.answer
}

// note remembers until when writes of lost attempts may still arrive (P35c).
func (e *engine) note(until time.Time) {
	if until.After(e.late) {
		e.late = until
	}
}

// outlive waits until no attempt that was lost sight of can act any more. Where nothing was lost it does not wait.
func (e *engine) outlive(ctx workflow.Context) {
	left := e.late.Sub(workflow.Now(ctx))
	if e.late.IsZero() || left <= 0 {
		return
	}
	e.status.WaitsFor = fmt.Sprintf("%s until no lost attempt can write any more", left.Round(time.Millisecond))
	e.show()
	_ = workflow.Sleep(ctx, left)
}
