package workflows

import (
	"errors"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// State of a step.
type State string

// The states of a step.
const (
	Waiting State = "waiting"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
	Skipped State = "skipped"
	Undone  State = "undone"
	NotRun  State = "not run"
)

// The outcomes of a run. Only a failed run fails its workflow: the others did what they should.
const (
	Completed  = "completed"
	RolledBack = "rolled back"
	Aborted    = "aborted"
	Rejected   = "rejected"
	FailedRun  = "failed"
)

// Phases beside the names of the steps.
const (
	phaseHeld        = "held"
	phaseParked      = "parked"
	phaseRollingBack = "rolling back"
)

// Status is what the query `status` answers: a copy of all that a run knows of itself.
type Status struct {
	Run        activities.Run       `json:"run"`
	Workflow   string               `json:"workflow"`
	Runbook    string               `json:"runbook"`
	From       string               `json:"from"`
	To         string               `json:"to"`
	Reason     string               `json:"reason"`
	By         string               `json:"by"`
	Phase      string               `json:"phase"` // a step's name, held, parked, rolling back, or the outcome
	Outcome    string               `json:"outcome,omitempty"`
	Sentence   string               `json:"sentence,omitempty"` // how the run ended, and why
	Epoch      int64                `json:"epoch"`              // that discovery holds, as far as the run knows
	NextEpoch  int64                `json:"nextEpoch"`          // of the switch
	Final      bool                 `json:"final"`              // past the point of no return
	Started    time.Time            `json:"started"`
	Ended      time.Time            `json:"ended,omitzero"`
	Steps      []StepStatus         `json:"steps"`
	Earlier    []StepStatus         `json:"earlier,omitempty"` // of the planned run that was escalated into this one
	Closing    []StepStatus         `json:"closing,omitempty"` // what was taken back, and the release
	WaitsFor   string               `json:"waitsFor,omitempty"`
	Parked     string               `json:"parked,omitempty"` // who must do what
	Held       string               `json:"held,omitempty"`
	Findings   []activities.Finding `json:"findings,omitempty"` // warnings and problems of preflight
	Approvals  []Decision           `json:"approvals,omitempty"`
	Decisions  []Decision           `json:"decisions,omitempty"`
	Deviations []string             `json:"deviations,omitempty"`
	// Loss is what an unplanned run loses, as it is known by now; nil before it was assessed.
	Loss   *activities.Loss       `json:"loss,omitempty"`
	Losses []activities.TopicLoss `json:"losses,omitempty"`
	LossAt time.Time              `json:"lossAt,omitzero"` // when it was last looked at
	// Lagged is what a recovery brings back, and how far it is; nil before it was planned, and in other runs.
	Lagged *Lagged `json:"lagged,omitempty"`
	// Turn is how a failback turns the flow round, and what that takes; nil before it was examined, and in other runs.
	Turn *activities.TurnPlan `json:"turn,omitempty"`
}

// StepStatus is one step. Times are zero while unknown.
type StepStatus struct {
	Step          Step       `json:"step"`
	State         State      `json:"state"`
	Started       *time.Time `json:"started,omitempty"`
	Ended         *time.Time `json:"ended,omitempty"`
	Until         *time.Time `json:"until,omitempty"` // end of its budget
	BudgetSeconds float64    `json:"budgetSeconds"`
	Tries         int        `json:"tries"`
	Text          string     `json:"text,omitempty"` // its result, or why it failed
}

// Decision is what an operator said.
type Decision struct {
	At     time.Time `json:"at"`
	What   string    `json:"what"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Step   Step      `json:"step,omitempty"`
	Client string    `json:"client,omitempty"`
}

// copy is safe to hand out: the query's encoder reads it while the run goes on.
func (s Status) copy() Status {
	s.Steps, s.Closing, s.Findings = slices.Clone(s.Steps), slices.Clone(s.Closing), slices.Clone(s.Findings)
	s.Approvals, s.Decisions = slices.Clone(s.Approvals), slices.Clone(s.Decisions)
	s.Deviations, s.Earlier, s.Losses = slices.Clone(s.Deviations), slices.Clone(s.Earlier), slices.Clone(s.Losses)
	if s.Lagged != nil {
		lagged := *s.Lagged
		s.Lagged = &lagged
	}
	return s
}

// row finds a step's line, among the steps first, then among what closes the run and what an
// escalated run did before.
func (e *engine) row(name Step) *StepStatus {
	for _, rows := range [][]StepStatus{e.status.Steps, e.status.Closing, e.status.Earlier} {
		for i := range rows {
			if rows[i].Step == name {
				return &rows[i]
			}
		}
	}
	e.status.Closing = append(e.status.Closing, StepStatus{Step: name, State: Waiting})
	return &e.status.Closing[len(e.status.Closing)-1]
}

// open starts the books of a try. The row it returns is a copy.
func (e *engine) open(s step) StepStatus {
	now, row := workflow.Now(e.safe), e.row(s.name)
	if row.Started == nil {
		row.Started = &now
	}
	budget := e.budget(s)
	until := now.Add(budget)
	row.State, row.Until, row.BudgetSeconds, row.Ended, row.Text = Running, &until, budget.Seconds(), nil, ""
	row.Tries++
	if s.with == "" && s.until == "" {
		e.status.Phase, e.status.WaitsFor = string(s.name), string(s.name)
	}
	e.show()
	return *row
}

func (e *engine) close(s step, text string, err error) {
	now, row := workflow.Now(e.safe), e.row(s.name)
	row.Ended, row.Text, row.State = &now, text, Done
	if err != nil {
		row.State, row.Text = Failed, plain(err)
	}
	e.show()
}

func (e *engine) skipped(name Step, err error) {
	e.row(name).State = Skipped
	e.deviate(string(name) + " was skipped by an operator after it failed: " + plain(err))
}

// say sets what the run does now, in a phase and a sentence.
func (e *engine) say(phase, waitsFor string) {
	e.status.Phase, e.status.WaitsFor = phase, waitsFor
	if phase == phaseHeld {
		e.status.Held = waitsFor
	}
	e.show()
}

// deviate notes what went otherwise than planned; the report lists it.
func (e *engine) deviate(text string) {
	if !slices.Contains(e.status.Deviations, text) {
		e.status.Deviations = append(e.status.Deviations, text)
	}
}

func (e *engine) decide(what string, o Order, name Step) {
	e.status.Decisions = append(e.status.Decisions, Decision{
		At: workflow.Now(e.safe), What: what, By: o.By, Reason: o.Reason, Step: name, Client: o.Client,
	})
	e.show()
}

// plain is an error as a sentence for people: Temporal's wrapping of activity errors says nothing to them.
func plain(err error) string {
	var typed *temporal.ApplicationError
	var late *temporal.TimeoutError
	var stopped *stop
	switch {
	case errors.As(err, &stopped):
		return stopped.sentence
	case errors.As(err, &typed):
		return strings.TrimSpace(typed.Message())
	case temporal.IsCanceledError(err):
		return "it was cancelled"
	case errors.As(err, &late):
		return "no answer within its budget: is a worker running, and what it talks to?"
	}
	return err.Error()
}

// sentence says what failed and leads to what an operator must do.
func sentence(name Step, err error) string { return string(name) + " failed: " + plain(err) }
