package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/runbooks"
)

// The Updates that a run takes, and its query. Each Update answers with a sentence that says what follows.
const (
	UpdateApprove     = "approve"
	UpdateReject      = "reject"
	UpdateHold        = "hold"
	UpdateResume      = "resume"
	UpdateRetry       = "retry"
	UpdateSkip        = "skip"
	UpdateRollback    = "rollback"
	UpdateEscalate    = "escalate"
	UpdateAbort       = "abort"
	UpdateAcknowledge = "acknowledge"
	QueryStatus       = "status"
	QueryReport       = "report" // of a run that has ended, as JSON of report.Report; null before
)

// Order is the input of every Update. By is a claim, not a proof: write access to Temporal is the right to give it.
type Order struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	Step   string `json:"step,omitempty"`   // retry, skip: which step is meant, to refuse a word that comes too late
	Client string `json:"client,omitempty"` // acknowledge: which paged client
}

// gate is what the run waits for while it waits for approval.
type gate struct {
	need      int
	approvers []string
	requester string
	rejected  *Order
}

// control is one Update: what refuses it at the door, and what it does.
type control struct {
	name   string
	refuse func(Order) error
	do     func(Order) string
}

// listen sets the handlers. They set fields and return; the steps wait for the fields.
func (e *engine) listen() error {
	controls := []control{
		{UpdateApprove, e.mayApprove, e.approve},
		{UpdateReject, e.mayReject, e.reject},
		{UpdateHold, e.mayHold, e.hold},
		{UpdateResume, e.mayResume, e.resume},
		{UpdateRetry, e.mayRetry, e.retry},
		{UpdateSkip, e.maySkip, e.skipParked},
		{UpdateRollback, e.mayRollBack, e.rollBack},
		{UpdateEscalate, e.mayEscalate, e.escalate},
		{UpdateAbort, e.mayAbort, e.abort},
		{UpdateAcknowledge, e.mayAcknowledge, e.acknowledge},
	}
	for _, c := range controls {
		err := workflow.SetUpdateHandlerWithOptions(e.safe, c.name,
			func(_ workflow.Context, o Order) (string, error) { return c.do(o), nil },
			workflow.UpdateHandlerOptions{
				Validator:   func(_ workflow.Context, o Order) error { return e.admit(o, c.refuse) },
				Description: "input: by, reason, and for some step or client",
			})
		if err != nil {
			return err
		}
	}
	return workflow.SetQueryHandler(e.safe, QueryStatus, func() (Status, error) { return e.status.copy(), nil })
}

func (e *engine) admit(o Order, refuse func(Order) error) error {
	if strings.TrimSpace(o.By) == "" {
		return errors.New("say who you are: `by` is empty")
	}
	if !e.status.Ended.IsZero() {
		return fmt.Errorf("the run has ended: %s", e.status.Outcome)
	}
	return refuse(o)
}

func (e *engine) mayApprove(o Order) error {
	g := e.gate
	switch {
	case g == nil:
		return fmt.Errorf("the run does not wait for approval, it is at %s", e.status.Phase)
	case g.rejected != nil:
		return fmt.Errorf("the run was rejected by %s", g.rejected.By)
	case len(g.approvers) > 0 && !slices.ContainsFunc(g.approvers, same(o.By)):
		return fmt.Errorf("%s is not among the approvers of this runbook: %s", o.By, strings.Join(g.approvers, ", "))
	case same(o.By)(g.requester):
		return fmt.Errorf("%s asked for this run and cannot approve it too: ask somebody else to", o.By)
	case slices.ContainsFunc(e.status.Approvals, func(d Decision) bool { return same(o.By)(d.By) }):
		return fmt.Errorf("%s has approved already: %d of %d approvals are there, ask somebody else for the next", o.By, len(e.status.Approvals), g.need)
	}
	return nil
}

// same compares people's names as people do: Alice and alice are one approver, not two.
func same(a string) func(string) bool {
	return func(b string) bool { return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b)) }
}

func (e *engine) approve(o Order) string {
	e.status.Approvals = append(e.status.Approvals, Decision{At: workflow.Now(e.safe), What: UpdateApprove, By: o.By, Reason: o.Reason})
	e.decide(UpdateApprove, o, Approve)
	text := fmt.Sprintf("approved by %s: %d of %d", o.By, len(e.status.Approvals), e.gate.need)
	if e.status.Loss != nil { // what it is that was approved
		text += "; going now, " + e.status.Loss.String()
	}
	return text
}

func (e *engine) mayReject(Order) error {
	if e.gate == nil {
		return fmt.Errorf("the run does not wait for approval, it is at %s: abort it instead", e.status.Phase)
	}
	return nil
}

func (e *engine) reject(o Order) string {
	e.gate.rejected = &o
	e.decide(UpdateReject, o, Approve)
	return "rejected: nothing was changed"
}

func (e *engine) mayHold(Order) error {
	switch {
	case e.held != nil:
		return fmt.Errorf("the run is held already, by %s", e.held.By)
	case e.undoing:
		return errors.New("the run rolls back: it cannot be held, because clients wait for it")
	case e.window():
		return errors.New("the producers are stopped: a hold now would only prolong that. Wait until the clients run again, or abort, which rolls back while that is still possible")
	case e.parked.step != "":
		return fmt.Errorf("the run is parked at %s and does not go on by itself: retry or skip", e.parked.step)
	}
	return nil
}

// window is true from before the producers are stopped until the clients were started.
func (e *engine) window() bool { return !e.due.IsZero() }

func (e *engine) hold(o Order) string {
	e.held = &o
	e.status.Held = fmt.Sprintf("by %s (%s), before the next step", o.By, o.Reason)
	e.decide(UpdateHold, o, "")
	if e.stays != "" {
		return "the run stops before its next step, and copies stop between two transactions; resume or abort it"
	}
	return "the run stops before its next step; resume or abort it"
}

func (e *engine) mayResume(Order) error {
	if e.held == nil {
		return errors.New("the run is not held")
	}
	return nil
}

func (e *engine) resume(o Order) string {
	e.held, e.status.Held = nil, ""
	e.decide(UpdateResume, o, "")
	return "the run goes on"
}

func (e *engine) mayRetry(o Order) error {
	switch {
	case e.parked.step == "" || e.answer != nil:
		return fmt.Errorf("the run is not parked, it is at %s: there is nothing to retry", e.status.Phase)
	case o.Step != "" && o.Step != string(e.parked.step):
		return fmt.Errorf("the run is parked at %s, not at %s", e.parked.step, o.Step)
	}
	return nil
}

func (e *engine) retry(o Order) string { return e.reply(retry, o) }

func (e *engine) maySkip(o Order) error {
	if err := e.mayRetry(o); err != nil {
		return errors.New(strings.Replace(err.Error(), "to retry", "to skip", 1))
	}
	if !e.parked.skip {
		return fmt.Errorf("%s may not be skipped: clients would be left between two clusters. Mend what it says and retry", e.parked.step)
	}
	return nil
}

func (e *engine) skipParked(o Order) string { return e.reply(skip, o) }

func (e *engine) reply(a answer, o Order) string {
	e.answer = &a
	e.decide(string(a), o, e.parked.step)
	return fmt.Sprintf("%s %s", a, e.parked.step)
}

func (e *engine) mayRollBack(o Order) error {
	if err := e.mayAbort(o); err != nil {
		return err
	}
	if e.stays != "" {
		return errors.New(e.stays)
	}
	if !e.begun {
		return errors.New("nothing was changed yet, so there is nothing to roll back: abort or reject the run")
	}
	return nil
}

func (e *engine) rollBack(o Order) string {
	return e.end(UpdateRollback, RolledBack, o)
}

func (e *engine) mayAbort(Order) error {
	switch {
	case e.final:
		return fmt.Errorf("the run is past its point of no return (%s was sent): it can only go forward", e.pointOfNoReturn())
	case e.undoing:
		return errors.New("the run rolls back already")
	case e.stop != nil:
		return fmt.Errorf("the run is ending already: %s", e.stop.sentence)
	case e.status.Outcome != "":
		return fmt.Errorf("the run is ending already: %s", e.status.Outcome)
	}
	return nil
}

func (e *engine) pointOfNoReturn() Step {
	switch {
	case !e.stopIsFinal:
		return SwitchTraffic
	case slices.ContainsFunc(e.steps, func(s step) bool { return s.name == FailOver }):
		return FailOver
	}
	return Promote
}

func (e *engine) abort(o Order) string { return e.end(UpdateAbort, Aborted, o) }

// end stops the steps; the engine then takes back what they did.
func (e *engine) end(what, outcome string, o Order) string {
	e.stop = &stop{outcome: outcome, sentence: fmt.Sprintf("%s asked for by %s (%s)", what, o.By, o.Reason)}
	e.decide(what, o, "")
	e.cancel()
	if e.stays != "" {
		return "the run stops; what it did stays, and its report says what that is"
	}
	return "the run stops and takes back what it did"
}

func (e *engine) mayAcknowledge(o Order) error {
	switch {
	case len(e.paged) == 0:
		return errors.New("the run waits for no acknowledgement")
	case !slices.Contains(e.paged, o.Client):
		return fmt.Errorf("the run does not wait for client %q but for %s: name one of them as `client`", o.Client, strings.Join(e.paged, ", "))
	case slices.Contains(e.acked, o.Client):
		return fmt.Errorf("client %s was acknowledged already", o.Client)
	}
	return nil
}

func (e *engine) acknowledge(o Order) string {
	e.acked = append(e.acked, o.Client)
	e.decide(UpdateAcknowledge, o, "")
	return "acknowledged: " + o.Client
}

// awaitTeams waits until the teams of paged clients have said that they did what they were asked.
func (e *engine) awaitTeams(ctx workflow.Context, clients []runbooks.Client, what string, until time.Time) error {
	var mine []string
	for _, c := range clients {
		if c.Paged != nil {
			mine = append(mine, c.Name)
			e.status.WaitsFor = fmt.Sprintf("team %s: %s client %s, then `acknowledge` it", c.Paged.Team, what, c.Name)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	e.paged = append(e.paged, mine...)
	e.acked = slices.DeleteFunc(e.acked, func(c string) bool { return slices.Contains(mine, c) })
	e.show()
	there := func() bool {
		return !slices.ContainsFunc(mine, func(c string) bool { return !slices.Contains(e.acked, c) })
	}
	ok, err := workflow.AwaitWithTimeout(ctx, max(until.Sub(workflow.Now(ctx)), leastBudget), there)
	e.paged = slices.DeleteFunc(e.paged, func(c string) bool { return slices.Contains(mine, c) })
	if err == nil && !ok {
		return fmt.Errorf("%s was not acknowledged for %s: call the team, then retry", what, strings.Join(mine, ", "))
	}
	return err
}
