// Package workflows is the order of things: one file per workflow, which reads as the runbook's printed page, and the
// engine that runs its steps. No I/O, no clock and no randomness of its own; what touches the world is in activities.
//
// Start reading at planned.go (the run method is the page). step.go runs steps in order and keeps all the books,
// rollback.go undoes and parks, control.go is what operators may say, policy.go how long things may take, progress.go
// what they see meanwhile. entity.go is the long-lived workflow that holds a runbook's lock and epoch.
package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// Step names one step of a run, the same in status, report and operator's page.
type Step string

// The steps of a planned failover, in their order.
const (
	Preflight       Step = "preflight"
	Approve         Step = "approve"
	SuspendSyncs    Step = "suspend-syncs"
	StopProducers   Step = "stop-producers"
	FenceSource     Step = "fence-source"
	ProveQuiescence Step = "prove-quiescence"
	Drain           Step = "drain"
	StopConsumers   Step = "stop-consumers"
	HandOverOffsets Step = "hand-over-offsets"
	Promote         Step = "promote"
	KeepMarks       Step = "keep-marks"
	SwitchTraffic   Step = "switch"
	StartClients    Step = "start-clients"
	VerifyTarget    Step = "verify"
	WriteReport     Step = "report"
)

// The steps of an unplanned failover that a planned one has not.
const (
	Assess             Step = "assess"
	StopClients        Step = "stop-clients"
	FailOver           Step = "fail-over"
	SettleTransactions Step = "settle-transactions"
)

// step is one line of the page. do is called again when an operator says retry, so it looks before it acts; it is done
// or fails by until. Its undo is registered before it begins.
type step struct {
	name   Step
	do     func(ctx workflow.Context, until time.Time) (string, error)
	budget func() time.Duration // read when the step opens: before preflight nobody knows the runbook's
	undo   undo
	with   Step // begins beside that earlier step, and is awaited at its own place
	until  Step // begins at its own place, and is awaited before that later step
	skip   bool // an operator may skip it
	quiet  bool // no hold before it: the producers are stopped
	always bool // runs however the steps before it ended
}

// beside is a step that runs beside others.
type beside struct {
	step step
	done workflow.Future // of string
}

// stop is why a run does not go on to its end.
type stop struct {
	outcome  string
	sentence string
}

func (s *stop) Error() string { return s.sentence }

// standstill is a failure that asks for an operator's word also where the run could still go back.
type standstill struct{ sentence string }

func (s *standstill) Error() string { return s.sentence }

func isStandstill(err error) bool {
	var wants *standstill
	return errors.As(err, &wants)
}

// engine is the state of one run. It alone keeps start, duration, status, budget, hold, parking, query state and the
// decision to roll back. Handlers set fields, workflow.Await reads them, queries return copies.
type engine struct {
	status      Status
	ctx         workflow.Context // of the steps; cancelled by the engine alone
	cancel      workflow.CancelFunc
	safe        workflow.Context // of undo, parking and what must happen; nobody can cancel it
	steps       []step
	beside      []beside
	undos       []undo
	first       []undo // come before all others, whenever they were registered, the last one first: the epoch is raised
	stop        *stop  // asked for by an operator
	final       bool   // past the point of no return
	undoing     bool
	begun       bool // the gate is behind the run, so that there may be something to roll back
	gate        *gate
	answer      *answer // to what is parked
	parked      parked
	held        *Order
	paged       []string // clients whose team is asked to acknowledge in the present step
	acked       []string // of those, who did
	late        time.Time
	stopIsFinal bool      // promote, not the switch, is the point of no return (P15)
	mayTurn     bool      // a planned run, which may be escalated into an unplanned one
	turned      *Order    // who escalated it
	stays       string    // why nothing is rolled back, where a run takes nothing back: a recovery
	due         time.Time // by when the objective wants the clients to run again; zero outside the switch window
}

// newEngine detaches the steps from the root context: a cancelled root would make every wait fail at once, parking
// included. The root's cancellation is translated to abort and means nothing else.
func newEngine(root workflow.Context, status Status) *engine {
	safe, _ := workflow.NewDisconnectedContext(root)
	e := &engine{status: status, safe: safe}
	e.ctx, e.cancel = workflow.WithCancel(safe)
	workflow.Go(safe, func(ctx workflow.Context) {
		root.Done().Receive(ctx, nil)
		order := Order{By: "Temporal", Reason: "the workflow was cancelled"}
		if err := e.mayAbort(order); err != nil {
			e.deviate("the workflow was cancelled, which was not followed: " + err.Error())
			return
		}
		e.abort(order)
	})
	return e
}

// inOrder runs the steps. Before the point of no return a step that fails rolls back what was done; after it the step
// parks. Steps marked always run at the end whatever happened; only an escalated run goes on with another page instead.
// The error says why the run did not complete.
func (e *engine) inOrder(steps ...step) (err error) {
	e.steps = steps
	for _, s := range steps {
		e.status.Steps = append(e.status.Steps, StepStatus{Step: s.name, State: Waiting, BudgetSeconds: s.budget().Seconds()})
	}
	for i, s := range steps {
		if err != nil && !s.always {
			e.row(s.name).State = NotRun
			continue
		}
		if !s.always {
			if err = e.advance(s, steps[i:]); err == nil {
				continue
			}
			e.endBeside()
			if isEscalated(err) {
				e.turn()
				return err
			}
			e.rollback(err)
			continue
		}
		e.insist(s)
	}
	return err
}

// advance takes one step: what begins with it is begun, what must be finished before it is awaited.
func (e *engine) advance(s step, rest []step) error {
	if err := e.between(s); err != nil {
		return err
	}
	for _, later := range rest {
		if later.with == s.name {
			e.begin(later)
		}
	}
	for _, b := range e.beside {
		if b.step.until == s.name || b.step.name == s.name {
			if err := e.join(b); err != nil {
				return err
			}
		}
	}
	switch {
	case s.with != "":
		return nil // it was begun earlier and is joined now
	case s.until != "":
		e.begin(s)
		return nil
	}
	return e.through(s, nil)
}

// between is the pause before a step: operators hold a run there, never inside the switch window.
func (e *engine) between(s step) error {
	if !s.quiet && e.held != nil {
		e.say(phaseHeld, fmt.Sprintf("held before %s by %s (%s): resume it, or abort it", s.name, e.held.By, e.held.Reason))
		e.phase(phaseHeld)
		_ = workflow.Await(e.safe, func() bool { return e.held == nil || e.stop != nil })
	}
	if e.stopped() {
		return e.stop
	}
	return nil
}

// stopped says that an operator stops the run, and that it can still go back.
func (e *engine) stopped() bool { return e.stop != nil && !e.final }

// begin starts a step beside the others.
func (e *engine) begin(s step) {
	done, settle := workflow.NewFuture(e.ctx)
	e.beside = append(e.beside, beside{step: s, done: done})
	e.register(s)
	row := e.open(s)
	workflow.Go(e.ctx, func(ctx workflow.Context) {
		text, err := s.do(ctx, *row.Until)
		e.close(s, text, err)
		settle.Set(text, err)
	})
}

// join waits for a step that ran beside others; what it failed with counts as its first try.
func (e *engine) join(b beside) error {
	e.status.WaitsFor = string(b.step.name)
	var text string
	err := b.done.Get(e.safe, &text)
	e.drop(b.step.name)
	if err == nil {
		return nil
	}
	return e.through(b.step, err)
}

// endBeside cancels the steps that run beside others and waits for their end: nothing acts while the run undoes.
func (e *engine) endBeside() {
	e.cancel()
	for _, b := range e.beside {
		_ = b.done.Get(e.safe, nil) // its error is in its row
	}
	e.beside = nil
}

func (e *engine) drop(name Step) {
	var left []beside
	for _, b := range e.beside {
		if b.step.name != name {
			left = append(left, b)
		}
	}
	e.beside = left
}

// through takes a step until it is done, skipped, or failed with the right to roll back. failed is the error of a try
// that was made already.
func (e *engine) through(s step, failed error) error {
	for {
		if e.stopped() { // it came while the step waited for others, or was parked
			return e.stop
		}
		err := failed
		if failed = nil; err == nil {
			err = e.try(e.ctx, s)
		}
		switch {
		case err == nil:
			return nil
		case e.stopped():
			return e.stop
		case !e.final && !isStandstill(err) || isStale(err):
			return err
		}
		if e.park(s.name, s.skip, sentence(s.name, err)) == skip {
			e.skipped(s.name, err)
			return nil
		}
	}
}

// insist takes a step that has to happen: no cancellation reaches it, and past its budget it parks.
func (e *engine) insist(s step) {
	for {
		err := e.try(e.safe, s)
		if err == nil {
			return
		}
		if e.park(s.name, s.skip, sentence(s.name, err)) == skip {
			e.skipped(s.name, err)
			return
		}
	}
}

// try takes a step once.
func (e *engine) try(ctx workflow.Context, s step) error {
	e.register(s)
	row := e.open(s)
	text, err := s.do(ctx, *row.Until)
	e.close(s, text, err)
	return err
}

// budget is what a step may take: its own, cut by what the objective leaves while the clients stand still and the run
// can go back. Beyond the point of no return giving up early helps nobody.
func (e *engine) budget(s step) time.Duration {
	budget := s.budget()
	if !e.due.IsZero() && !e.final {
		budget = min(budget, e.due.Sub(workflow.Now(e.safe)))
	}
	return max(budget, leastBudget)
}

// rebudget shows budgets as they are known now.
func (e *engine) rebudget() {
	for _, s := range e.steps {
		e.row(s.name).BudgetSeconds = s.budget().Seconds()
	}
}

// fixed is a budget that no runbook sets.
func fixed(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// isStale says that somebody else has gone on: discovery holds another epoch than the run's.
func isStale(err error) bool { return isType(err, activities.TypeStale) }

func isType(err error, name string) bool {
	var typed *temporal.ApplicationError
	return errors.As(err, &typed) && typed.Type() == name
}
