package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// The search attributes of every run, all keywords. They must exist on the namespace before the first run.
var (
	AttributeRunbook  = temporal.NewSearchAttributeKeyKeyword("SwitchbackRunbook")
	AttributeWorkflow = temporal.NewSearchAttributeKeyKeyword("SwitchbackWorkflow")
	AttributePhase    = temporal.NewSearchAttributeKeyKeyword("SwitchbackPhase")
	AttributeOutcome  = temporal.NewSearchAttributeKeyKeyword("SwitchbackOutcome")
)

// announce sets the attributes that name a run.
func (e *engine) announce() {
	_ = workflow.UpsertTypedSearchAttributes(e.safe, // fails only on a value of the wrong type
		AttributeRunbook.ValueSet(e.status.Runbook), AttributeWorkflow.ValueSet(e.status.Workflow),
		AttributePhase.ValueSet(e.status.Phase))
}

// phase is a change that people search for. Each costs an event and a task, so there are few, and none between the
// last stop and the first start.
func (e *engine) phase(name string) {
	e.status.Phase = name
	_ = workflow.UpsertTypedSearchAttributes(e.safe, AttributePhase.ValueSet(name))
	e.show()
}

// ended sets phase and outcome, once.
func (e *engine) ended() {
	now := workflow.Now(e.safe)
	e.status.Ended, e.status.Phase, e.status.WaitsFor = now, e.status.Outcome, ""
	_ = workflow.UpsertTypedSearchAttributes(e.safe,
		AttributePhase.ValueSet(e.status.Phase), AttributeOutcome.ValueSet(e.status.Outcome))
	e.show()
}

// show renders the live page of the run. It costs no event.
func (e *engine) show() { workflow.SetCurrentDetails(e.safe, page(e.status)) }

// page is the run in Markdown: first what an operator must do, then how far it is.
func page(s Status) string {
	var b []byte
	b = fmt.Appendf(b, "## %s of `%s`: %s → %s\n\n", s.Workflow, s.Runbook, s.From, s.To)
	switch {
	case s.Parked != "":
		b = fmt.Appendf(b, "**Parked.** %s\n\n", s.Parked)
	case s.Held != "":
		b = fmt.Appendf(b, "**Held** %s\n\n", s.Held)
	case s.Outcome != "" && !s.Ended.IsZero():
		b = fmt.Appendf(b, "**%s.** %s\n\n", s.Outcome, s.Sentence)
	default:
		b = fmt.Appendf(b, "Now: **%s**, waits for %s\n\n", s.Phase, s.WaitsFor)
	}
	if s.Final && s.Ended.IsZero() {
		b = append(b, "Past the point of no return: the run only goes forward.\n\n"...)
	}
	b = fmt.Appendf(b, "Asked for by %s: %s. Epoch %d, the switch gets %d.\n\n", or(s.By, "nobody named"), or(s.Reason, "no reason given"), s.Epoch, s.NextEpoch)
	b = table(b, "step", s.Steps)
	if len(s.Closing) > 0 {
		b = append(b, "\n"...)
		b = table(b, "closing", s.Closing)
	}
	for _, f := range s.Findings {
		b = fmt.Appendf(b, "\n- %s: **%s** %s %s", f.Level, f.Check, f.Means, f.Do)
	}
	for _, d := range s.Deviations {
		b = fmt.Appendf(b, "\n- deviation: %s", d)
	}
	return string(b)
}

func table(b []byte, head string, rows []StepStatus) []byte {
	b = fmt.Appendf(b, "| %s | state | budget | took | |\n|---|---|---|---|---|\n", head)
	for _, r := range rows {
		took := ""
		if r.Started != nil && r.Ended != nil {
			took = fmt.Sprintf("%.2fs", r.Ended.Sub(*r.Started).Seconds())
		}
		text := strings.NewReplacer("\n", " ", "|", "/").Replace(r.Text)
		b = fmt.Appendf(b, "| %s | %s | %.0fs | %s | %s |\n", r.Step, r.State, r.BudgetSeconds, took, text)
	}
	return b
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
