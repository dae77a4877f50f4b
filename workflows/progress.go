package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// page is the run in Markdown. The UI shows some twenty lines of it before one has to scroll: what an operator must do comes
// first, then how far the run is, then what else there is to know.
func page(s Status) string {
	b := fmt.Appendf(nil, "## %s of `%s`: %s → %s\n\n%s\n\n", s.Workflow, s.Runbook, s.From, s.To, headline(s))
	if s.Loss != nil { // what an unplanned run is decided by
		b = fmt.Appendf(b, "**Loss** as of %s: %s\n\n", clock(s.LossAt), strings.TrimPrefix(lossText(*s.Loss), "loss: "))
	}
	b = append(b, s.Lagged.page()...)
	b = append(b, turnPage(s.Turn)...)
	b = append(b, howToAnswer(s)...)
	if s.Final && s.Ended.IsZero() && s.Parked == "" { // who is parked is told so
		b = append(b, "Past the point of no return: the run only goes forward.\n\n"...)
	}
	b = fmt.Appendf(b, "Asked for by %s: %s. %s\n\n", or(s.By, "nobody named"), or(s.Reason, "no reason given"), epochs(s))
	var findings, decisions []string
	for _, f := range s.Findings {
		text := fmt.Sprintf("%s: **%s** %s", f.Level, f.Check, f.Means)
		if f.Do != "" {
			text += "; to do: " + f.Do
		}
		findings = append(findings, text)
	}
	for _, d := range s.Decisions {
		decisions = append(decisions, fmt.Sprintf("%s **%s** by %s: %s", clock(d.At), d.What, d.By, or(d.Reason, "no reason given")))
	}
	if s.Phase == string(Approve) { // what approvers decide by
		b = list(list(b, "Preflight", findings), "Decisions", decisions)
		findings, decisions = nil, nil
	}
	b = table(b, "step", s.Steps, len(s.Closing) > 0)
	b = table(b, "closing", s.Closing, false)
	b = table(b, "before it was escalated", s.Earlier, false)
	b = list(b, "Deviations", s.Deviations)
	b = list(b, "Decisions", decisions)
	return string(list(b, "Preflight", findings))
}

// headline says what is so now, and who must do what.
func headline(s Status) string {
	switch {
	case s.Parked != "":
		return "**Parked.** " + s.Parked
	case s.Held != "":
		return "**Held** " + strings.TrimPrefix(s.Held, "held ")
	case s.Outcome != "" && !s.Ended.IsZero():
		return fmt.Sprintf("**%s.** %s", s.Outcome, s.Sentence)
	}
	var running []string
	named := false // what it waits for is more than the name of a step
	for _, r := range slices.Concat(s.Steps, s.Closing) {
		named = named || string(r.Step) == s.WaitsFor
		if r.State == Running && r.Until != nil {
			running = append(running, fmt.Sprintf("**%s** until %s at the latest", r.Step, clock(*r.Until)))
		}
	}
	switch {
	case s.WaitsFor != "" && !named:
		return fmt.Sprintf("Now: **%s**, waits for %s", s.Phase, s.WaitsFor)
	case len(running) == 0:
		return fmt.Sprintf("Now: **%s**", s.Phase)
	}
	return "Now: " + strings.Join(running, ", beside it ")
}

// howToAnswer is for who sees this page for the first time, when the run waits for a word of theirs.
func howToAnswer(s Status) string {
	verb, input, which := "", `{"by": "you", "reason": "why"}`, ""
	switch {
	case s.Parked != "":
		verb = UpdateRetry
	case s.Held != "":
		verb = UpdateResume
	case s.Phase == string(Approve):
		verb = UpdateApprove
	case strings.Contains(s.WaitsFor, "`"+UpdateAcknowledge+"`"):
		verb, input, which = UpdateAcknowledge, `{"by": "you", "reason": "why", "client": "which"}`, " --client which"
	default:
		return ""
	}
	return fmt.Sprintf("Answer with *More Actions, Send an Update*, such as `%s` with the input `%s`; or `switchback %s %s%s --reason why` in a shell.\n\n",
		verb, input, verb, s.Runbook, which)
}

// epochs are those of discovery; a switch that was made, or taken back, has its number already.
func epochs(s Status) string {
	if s.NextEpoch <= s.Epoch {
		return fmt.Sprintf("Epoch %d.", s.Epoch)
	}
	return fmt.Sprintf("Epoch %d, the switch gets %d.", s.Epoch, s.NextEpoch)
}

// table lists steps. Where the run is closing, what still waits will never run.
func table(b []byte, head string, rows []StepStatus, closing bool) []byte {
	if len(rows) == 0 {
		return b
	}
	b = fmt.Appendf(b, "| %s | state | took, of budget | |\n|---|---|---|---|\n", head)
	for _, r := range rows {
		name, state := string(r.Step), string(r.State)
		switch {
		case r.State == Waiting && closing:
			state = string(NotRun)
		case r.State == Running, r.State == Failed:
			name, state = "**"+name+"**", "**"+state+"**"
		}
		b = fmt.Appendf(b, "| %s | %s | %s | %s |\n", name, state, took(r), oneLine(r.Text))
	}
	return append(b, '\n')
}

// took is one word to a browser, so that a row stays one line.
func took(r StepStatus) string {
	budget := "of\u00a0" + short(time.Duration(r.BudgetSeconds*float64(time.Second)))
	if r.Started == nil || r.Ended == nil {
		return budget
	}
	return short(r.Ended.Sub(*r.Started)) + "\u00a0" + budget
}

// short is a duration without the precision that nobody reads: 0.11s, 3m40s, 1h.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return strings.TrimSuffix(fmt.Sprintf("%.2f", d.Seconds()), ".00") + "s"
	}
	s := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func list(b []byte, head string, lines []string) []byte {
	if len(lines) == 0 {
		return b
	}
	b = fmt.Appendf(b, "**%s**\n\n", head)
	for _, l := range lines {
		b = fmt.Appendf(b, "- %s\n", oneLine(l))
	}
	return append(b, '\n')
}

// oneLine keeps a text inside of its cell or its bullet.
func oneLine(text string) string { return strings.NewReplacer("\n", " ", "|", "/").Replace(text) }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
