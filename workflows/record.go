package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
	"switchback/runbooks"
)

// facts are what the steps learned that the report tells.
type facts struct {
	Preflight string
	Findings  []activities.Finding
	Stopped   []activities.ClientState
	Running   []activities.ClientState
	Before    int64 // epoch when the run began
	Promoted  time.Time
	Switched  time.Time
	Verify    *activities.VerifyResult
	// When the clients of a role were first asked to stop.
	AskedProducers, AskedConsumers time.Time
	Stranded                       []string // what the source took behind the stop (P23)
}

// reportInput has the JSON of activities.ReportInput, which carries the report as it is.
type reportInput struct {
	Run    activities.Run   `json:"run"`
	Route  activities.Route `json:"route"`
	Report report.Report    `json:"report"`
}

// record is the report without what only the activity knows: positions, marks and offsets of every partition.
func (f *failover) record(now time.Time) report.Report {
	s, o := f.status, f.book.Objectives
	r := report.Report{
		Schema: report.SchemaName, Kind: f.kind, Runbook: s.Runbook, From: s.From, To: s.To, Reason: s.Reason, RequestedBy: s.By,
		Run:            report.Run{WorkflowID: s.Run.WorkflowID, RunID: s.Run.FirstRunID},
		SnapshotSHA256: f.sha256, Outcome: s.Outcome, OutcomeReason: s.Sentence, Started: s.Started.UTC(), Ended: now.UTC(),
		Epoch:      report.Epoch{Before: &f.facts.Before},
		Objectives: report.Objectives{RTOSeconds: o.RTO.D().Seconds(), RPOSeconds: o.RPO.Time.D().Seconds(), RPORecords: o.RPO.Records},
		Deviations: s.Deviations, Standing: f.standing(), SwitchWindow: f.switchWindow(),
	}
	if f.guard.Epoch != f.facts.Before {
		r.Epoch.After = &f.guard.Epoch
	}
	for _, list := range [][]StepStatus{s.Steps, s.Closing} {
		for _, row := range list {
			r.Steps = append(r.Steps, line(row, now))
		}
	}
	for _, d := range s.Decisions {
		r.Decisions = append(r.Decisions, report.Decision{Kind: d.What, By: d.By, Reason: d.Reason, At: d.At.UTC()})
	}
	for _, finding := range f.facts.Findings {
		r.Findings = append(r.Findings, report.Finding(finding))
	}
	if s.Outcome == Completed {
		f.measured(&r)
	}
	f.tell(&r)
	return r
}

// line is a step as the report tells it. The report's own step is done by the time anybody reads it.
func line(row StepStatus, now time.Time) report.Step {
	out := report.Step{Name: string(row.Step), Result: row.Text, Attempts: row.Tries, Started: row.Started}
	switch row.State {
	case Done, Running:
		out.Status = report.StepDone
	case Failed:
		out.Status = report.StepFailed
	case Skipped:
		out.Status = report.StepSkipped
	case Undone:
		out.Status = report.StepRolledBack
	default:
		out.Status = report.StepNotReached
	}
	if row.Started != nil {
		ended := now
		if row.Ended != nil {
			ended = *row.Ended
		}
		out.DurationSeconds = report.Seconds(ended.Sub(*row.Started))
	}
	if row.BudgetSeconds > 0 {
		out.BudgetSeconds = &row.BudgetSeconds
	}
	return out
}

// measured is what every completed run has.
func (f *failover) measured(r *report.Report) {
	since := f.unprotected().UTC()
	r.Protection = report.Protection{UnprotectedSince: &since, Text: "no link mirrors " + f.route.To.Name + " yet: protect it the other way"}
	r.SwitchWindow.CanarySeconds = f.canaryWindow()
}

// nothingLost is what a planned run may say: both sides were proven equal behind a fence.
func (f *plannedFailover) nothingLost(r *report.Report) {
	if r.Outcome != Completed {
		return
	}
	zero, yes := int64(0), true
	r.RPO = report.RPO{Records: &zero, Known: true, Met: &yes, Text: "both clusters were proven equal behind the fence before the mirrors were stopped"}
	if len(f.facts.Stranded) > 0 { // somebody wrote all the same, and may go on: a number would say too little (P38)
		r.RPO = report.RPO{Text: "at least " + strings.Join(f.facts.Stranded, ", ") + " are stranded on " + f.route.From.Name + ", which took them behind the fence; more may follow"}
	}
	r.RTO.Seconds = r.SwitchWindow.ProducersSeconds
	r.RTO.Met = kept(r.RTO.Seconds, r.Objectives.RTOSeconds)
}

// kept is nil where there is nothing to compare.
func kept(took *float64, objective float64) *bool {
	if took == nil || objective <= 0 {
		return nil
	}
	met := *took <= objective
	return &met
}

// canaryWindow is from when the producers were asked to stop until a record of Switchback's own had gone through the target.
func (f *failover) canaryWindow() *float64 {
	if f.facts.Verify == nil || f.facts.Verify.CanaryAt.IsZero() || f.facts.AskedProducers.IsZero() {
		return nil
	}
	return report.Seconds(f.facts.Verify.CanaryAt.Sub(f.facts.AskedProducers))
}

// switchWindow is how long each client stood still, and the worst of each role: from when it was asked to stop until its
// last instance ran again and the target showed that it works. An upper bound, never less than what its users felt.
func (f *failover) switchWindow() report.SwitchWindow {
	var w report.SwitchWindow
	for _, stopped := range f.facts.Stopped {
		one := report.ClientWindow{Client: stopped.Client, Role: stopped.Role, StoppedAt: known(stopped.First)}
		i := slices.IndexFunc(f.facts.Running, func(c activities.ClientState) bool { return c.Client == stopped.Client })
		if i >= 0 {
			one.StartedAt = known(f.worked(stopped.Client, f.facts.Running[i].Last))
		}
		if one.StoppedAt != nil && one.StartedAt != nil {
			one.Seconds = report.Seconds(one.StartedAt.Sub(f.askedAt(stopped.Role)))
			worst := &w.ProducersSeconds
			if stopped.Role == "consumer" {
				worst = &w.ConsumersSeconds
			}
			if *worst == nil || **worst < *one.Seconds {
				*worst = one.Seconds
			}
		}
		w.Clients = append(w.Clients, one)
	}
	return w
}

// askedAt is when the clients of a role were asked to stop.
func (f *failover) askedAt(role string) time.Time {
	if role == runbooks.RoleConsumer {
		return f.facts.AskedConsumers
	}
	return f.facts.AskedProducers
}

// worked is when a client that ran again was seen to work: its groups moved, or the target was written to.
func (f *failover) worked(client string, running time.Time) time.Time {
	v := f.facts.Verify
	i := slices.IndexFunc(f.book.Clients, func(c runbooks.Client) bool { return c.Name == client })
	if v == nil || i < 0 {
		return running
	}
	if c := f.book.Clients[i]; c.Producing() {
		running = later(running, v.WrittenAt)
	}
	for _, group := range f.book.Clients[i].Groups {
		running = later(running, v.MovedAt[group])
	}
	return running
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// standing is what the run leaves behind on purpose.
func (f *failover) standing() []string {
	if f.status.Outcome != Completed {
		return nil
	}
	return []string{
		"WRITE is denied on the topics of " + f.route.From.Name + ", and READ on their groups, until the workload goes home",
		"ACL sync of link " + f.linkName + " is off while that fence stands, because it would copy it; offset sync and auto-create hold back this runbook's names",
	}
}

func anyPending(list []replication.Outcome) bool {
	return slices.ContainsFunc(list, func(o replication.Outcome) bool { return o.Status != replication.OK })
}

func outcomes(list []replication.Outcome) string {
	var parts []string
	for _, o := range list {
		if o.Status != replication.OK {
			parts = append(parts, fmt.Sprintf("%s: %s (%s)", o.Name, o.Status, o.Reason))
		}
	}
	return strings.Join(parts, "; ")
}
