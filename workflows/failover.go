package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/report"
	"switchback/runbooks"
)

// Result is how a run ended. Exit codes follow Outcome: only completed is a success.
type Result struct {
	Run        string   `json:"run"`
	Runbook    string   `json:"runbook"`
	Outcome    string   `json:"outcome"`
	Sentence   string   `json:"sentence"`
	From       string   `json:"from"`
	To         string   `json:"to"`
	Epoch      int64    `json:"epoch"`
	Deviations []string `json:"deviations,omitempty"`
	Report     string   `json:"report,omitempty"`   // path of the JSON on the worker
	Markdown   string   `json:"markdown,omitempty"` // path of the same for people
}

// failover is what planned and unplanned ones have in common: what they know of the workload, and the steps that both
// take (opening.go, approval.go, window.go, closing.go, record.go). Their own are in planned.go and unplanned.go.
type failover struct {
	*engine
	kind       string // as locks and reports call it
	in         PlannedInput
	book       runbooks.Runbook
	sha256     string
	route      activities.Route
	guard      activities.Guard
	next       int64 // the epoch of the switch, fixed before it is used (P2)
	entities   []string
	checked    time.Time // when preflight, or the assessment, last looked
	linkName   string
	sealProven bool            // the mirror's principals obey ACLs, so that a seal needs no stop to be trusted
	unsettled  bool            // what a run before this one left behind still stands
	nested     bool            // part of a run that holds the runbook, and was approved there
	shared     bool            // another run holds the link, and this one goes on beside it
	absent     []string        // instances that could not be reached to stop them; a start does not wait for them
	pending    bool            // an optional discovery entry was out of reach
	waited     json.RawMessage // FencingInput of what waited to fence the cluster that the run goes to, and was ended for it
	facts      facts
	written    activities.ReportResult
	tell       func(*report.Report) // what the report of this kind says besides
	ending     func() string        // what a completed run has to say
}

// newFailover is a run that listens to operators from now on.
func newFailover(ctx workflow.Context, kind, name string, in PlannedInput, first Step) (*failover, error) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	f := &failover{kind: kind, in: in, engine: newEngine(ctx, Status{
		Run: run, Workflow: name, Runbook: in.Runbook, From: in.From, To: in.To, Reason: in.Reason, By: in.By,
		Phase: string(first), Started: workflow.Now(ctx),
	})}
	f.guard.Run = run
	if err := f.listen(); err != nil {
		return nil, err
	}
	if err := workflow.SetQueryHandler(ctx, QueryReport, func() (json.RawMessage, error) { return f.written.Report, nil }); err != nil {
		return nil, err
	}
	f.announce()
	return f, nil
}

// conclude gives the runbook back and says how the run ended. A completed, rolled back, aborted or rejected run completes
// with its Result; a failed one fails with an error of type Failed.
func (f *failover) conclude() (Result, error) { return f.concludeBy(f.release) }

// concludeBy is conclude for a run that gives back what it held in its own way.
func (f *failover) concludeBy(release func(workflow.Context, time.Time) (string, error)) (Result, error) {
	f.insist(step{name: stepRelease, do: release, budget: fixed(releaseBudget), skip: true})
	f.fenceAfterAll()
	f.ended()
	out := f.result()
	if out.Outcome == FailedRun {
		return out, temporal.NewNonRetryableApplicationError(out.Sentence, "Failed", nil, out)
	}
	return out, nil
}

// parks lets a part that failed wait for an operator's word, unless somebody else has gone on, or an operator stops the run.
func (f *failover) parks(err error) error {
	if f.halted(err) {
		return err
	}
	return &standstill{plain(err)}
}

func (f *failover) result() Result {
	s := f.status
	return Result{
		Run: s.Run.ID(), Runbook: s.Runbook, Outcome: s.Outcome, Sentence: s.Sentence, From: s.From, To: s.To, Epoch: s.Epoch,
		Deviations: s.Deviations, Report: f.written.JSONPath, Markdown: f.written.MarkdownPath,
	}
}

func (f *failover) stopTime() time.Duration    { return f.book.Budgets.StopClients.D() }
func (f *failover) promoteTime() time.Duration { return f.book.Budgets.Promote.D() }
func (f *failover) startTime() time.Duration   { return f.book.Budgets.StartClients.D() }
func (f *failover) verifyTime() time.Duration  { return f.book.Budgets.Verify.D() }

// verify looks at the target as clients see it.
func (f *failover) verify(ctx workflow.Context, until time.Time) (string, error) {
	f.due = time.Time{} // also when starting the clients was skipped
	f.phase(string(VerifyTarget))
	in := activities.VerifyInput{Guard: f.guard, Route: f.route, Groups: f.book.Groups, Deadline: inside(ctx, until)}
	out, err := perform[activities.VerifyResult](f.engine, longWait(ctx, until, "canary through "+f.route.To.Name), verifier.Target, in)
	if err != nil {
		return "", err
	}
	f.facts.Verify = &out
	for _, p := range out.Problems {
		f.deviate("verify: " + p)
	}
	return out.Text, nil
}

// suspendSyncs holds back what the link does by itself, then lets the cycles pass that had begun before (P34).
func (f *failover) suspendSyncs(ctx workflow.Context, until time.Time) (string, error) {
	in := activities.SyncsInput{Guard: f.guard, Route: f.route}
	out, err := perform[activities.SyncsResult](f.engine, atomicWrite(ctx, until, "suspend the syncs of the link"), syncs.Suspend, in)
	if err != nil {
		return "", err
	}
	if out.QuietAt.After(until) {
		return "", fmt.Errorf("a sync cycle of the link may write until %s, which is beyond the budget: shorten the link's sync intervals", out.QuietAt.Format(time.RFC3339))
	}
	if wait := out.QuietAt.Sub(workflow.Now(ctx)); wait > 0 {
		f.say(string(SuspendSyncs), "sync cycles under way, until "+out.QuietAt.Format(time.RFC3339))
		if err := workflow.Sleep(ctx, wait); err != nil {
			return "", err
		}
	}
	return out.Text, nil
}
