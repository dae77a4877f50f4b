package report

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// manyPartitions is where a table of partitions becomes a table of topics.
const manyPartitions = 50

// Markdown is the report for people: how it ended, what was lost and how long it took come first, then what stands and
// what to do, then the evidence. Text that people or systems wrote is escaped.
func (r Report) Markdown() string {
	w := &writer{}
	w.line("# %s of %s: %s", title(r.Kind), esc(r.Runbook), esc(r.Outcome))
	w.line("")
	if r.OutcomeReason != "" {
		w.line("%s", esc(r.OutcomeReason))
		w.line("")
	}
	r.closed(w)
	r.summary(w)
	r.next(w)
	r.lost(w)
	r.LaggedData.accounts(w)
	r.runs(w)
	w.steps("Steps", r.Steps)
	if len(r.Earlier) > 0 {
		w.steps("Steps of the planned run before it was escalated", r.Earlier)
	}
	r.clients(w)
	r.positions(w)
	r.groups(w)
	r.findings(w)
	r.decisions(w)
	w.list("Deviations", r.Deviations)
	w.line("")
	w.line("## The run")
	w.line("")
	w.line("- Asked for by %s: %s", word(r.RequestedBy), word(r.Reason))
	w.line("- From %s to %s, %s", clock(&r.Started), clock(&r.Ended), took(r.length()))
	w.line("- Workflow %s, run %s", word(r.Run.WorkflowID), word(r.Run.RunID))
	w.line("- Runbook as it was used: SHA-256 %s", word(r.SnapshotSHA256))
	if r.Details != "" {
		w.line("- The whole report: %s", esc(r.Details))
	}
	return w.String()
}

// summary is what everybody asks first: what was lost, how long it took, where the workload is.
func (r Report) summary(w *writer) {
	switch {
	case r.LaggedData != nil:
		r.LaggedData.summary(w, r)
		return
	case r.Kind == KindRecovery:
		w.line("- **Route:** %s to %s", esc(r.From), esc(r.To))
		return
	case r.Kind == KindFailback:
		w.line("- **Route:** %s to %s, epoch %s to %s", esc(r.From), esc(r.To), offset(r.Epoch.Before), epochAfter(r.Epoch.After))
		w.line("- **Protection:** %s", r.protection())
		return
	}
	w.line("- **Loss:** %s", r.loss())
	w.line("- **Switch window:** %s", r.window())
	w.line("- **Route:** %s to %s, epoch %s to %s", esc(r.From), esc(r.To), offset(r.Epoch.Before), epochAfter(r.Epoch.After))
	w.line("- **Recovery time:** %s", r.recovery())
	r.parts(w)
	w.line("- **Protection:** %s", r.protection())
}

// length is unknown while one of its ends is.
func (r Report) length() *float64 {
	if r.Started.IsZero() || r.Ended.IsZero() {
		return nil
	}
	return Seconds(r.Ended.Sub(r.Started))
}

func (r Report) loss() string {
	if l := r.Loss; l != nil && r.Outcome != Completed {
		return "nothing by this run, which did not go over; going then: " + esc(l.number())
	} else if l != nil {
		return "**" + esc(l.number()) + "**" + l.size() + judged(r.RPO.Met, r.objective()) + more(l.Why)
	}
	if !r.RPO.Known || r.RPO.Records == nil {
		return "unknown" + more(r.RPO.Text)
	}
	s := fmt.Sprintf("%d records", *r.RPO.Records)
	if *r.RPO.Records == 0 {
		s = "none, 0 records"
	}
	return s + met(r.RPO.Met, fmt.Sprintf("objective: at most %d records", r.Objectives.RPORecords)) + more(r.RPO.Text)
}

// objective is the RPO in records and in time.
func (r Report) objective() string {
	return fmt.Sprintf("objective: at most %d records, of at most %s", r.Objectives.RPORecords, took(&r.Objectives.RPOSeconds))
}

// judged says nothing of what nobody can know yet.
func judged(ok *bool, objective string) string {
	if ok == nil {
		return " (not known yet whether that meets the " + objective + ")"
	}
	return met(ok, objective)
}

// number is the loss as people read it: never less than it may be.
func (l Loss) number() string {
	switch {
	case l.AtMost != nil && *l.AtMost == l.AtLeast && l.AtLeast == 0:
		return "none, 0 records"
	case l.AtMost != nil && *l.AtMost == l.AtLeast:
		return fmt.Sprintf("%d records", l.AtLeast)
	case l.AtMost != nil:
		return fmt.Sprintf("%d to %d records", l.AtLeast, *l.AtMost)
	case l.Open && l.Estimate != nil && *l.Estimate > l.AtLeast:
		return fmt.Sprintf("at least %d records, about %d by estimate; open until the old cluster is fenced", l.AtLeast, *l.Estimate)
	case l.Open:
		return fmt.Sprintf("at least %d records, open until the old cluster is fenced", l.AtLeast)
	case l.Estimate != nil && *l.Estimate > l.AtLeast:
		return fmt.Sprintf("at least %d records, about %d by estimate; no upper bound is known", l.AtLeast, *l.Estimate)
	}
	return fmt.Sprintf("at least %d records; no upper bound is known", l.AtLeast)
}

func (l Loss) size() string {
	s := ""
	if l.Bytes != nil && *l.Bytes > 0 {
		s += fmt.Sprintf(", about %d bytes", *l.Bytes)
	}
	if l.Seconds != nil && *l.Seconds > 0 {
		s += ", written in " + took(l.Seconds)
	}
	return s
}

// parts of the recovery time.
func (r Report) parts(w *writer) {
	c := r.Recovery
	if c == nil {
		return
	}
	w.line("  - outage %s%s", clock(c.Outage), more(c.Text))
	w.line("  - detection %s, decision %s, run %s", took(c.DetectionSeconds), took(c.DecisionSeconds), took(c.RunSeconds))
}

// lost shows what was lost, topic by topic, the worst first.
func (r Report) lost(w *writer) {
	if r.Loss == nil || len(r.Loss.Topics) == 0 {
		return
	}
	w.table("Lost", "Topic|Records|Bytes|Time|How it is known")
	for _, t := range r.Loss.Topics {
		one := Loss{AtLeast: t.AtLeast, AtMost: t.AtMost, Estimate: t.Estimate, Open: r.Loss.Open}
		w.row(esc(t.Topic), esc(one.number()), offset(t.Bytes), took(t.Seconds), esc(t.Why))
	}
}

func (r Report) window() string {
	s := r.SwitchWindow
	return fmt.Sprintf("producers %s, consumers %s, canary %s", took(s.ProducersSeconds), took(s.ConsumersSeconds), took(s.CanarySeconds))
}

func (r Report) recovery() string {
	return took(r.RTO.Seconds) + met(r.RTO.Met, "objective: "+took(&r.Objectives.RTOSeconds))
}

func (r Report) protection() string {
	p := r.Protection
	switch {
	case p.UnprotectedSince != nil:
		return "**none since " + clock(p.UnprotectedSince) + "**" + more(p.Text)
	case p.ProtectedBy != "":
		return "by " + esc(p.ProtectedBy) + more(p.Text)
	}
	return "unknown" + more(p.Text)
}

// next is what somebody does who has just been woken up.
func (r Report) next(w *writer) {
	w.list("What stands", r.Standing)
	w.line("")
	w.line("## What to do next")
	w.line("")
	switch {
	case r.Kind == KindRecovery:
		w.line("- Clients use %s, as before the run.", esc(r.To))
		if d := r.LaggedData; d != nil && !d.Finished {
			w.line("- Keep %s and its topics: what is left is there. `switchback plan recover %s` says what a later run would bring back.", esc(r.From), esc(r.Runbook))
		}
	case r.Kind == KindFailback:
		w.line("- Where clients are, and what mirrors what, is in the sentence above. A run that was stopped is gone on with by `switchback start failback %s`.", esc(r.Runbook))
	case r.Outcome == Completed:
		w.line("- Clients use %s. Nothing is left to do for them.", esc(r.To))
		if r.Loss != nil && r.Loss.Open {
			w.line("- The loss is open: `switchback status %s` says when %s was fenced, who wrote there meanwhile, and the closed number.", esc(r.Runbook), esc(r.From))
		}
		if r.Loss != nil && (r.Loss.Open || r.Loss.AtLeast > 0) {
			w.line("- Keep %s and its topics: the lost records are there, beyond the marks.", esc(r.From))
		}
	case r.Outcome == RolledBack || r.Outcome == Aborted:
		w.line("- Clients use %s, as before the run. Mend the cause, then look at `switchback plan` before the next try.", esc(r.From))
	case r.Outcome == Rejected:
		w.line("- Nothing was changed. Clients use %s.", esc(r.From))
	default:
		w.line("- Look first where clients write: `cluster` and `epoch` in discovery. Change nothing by hand before that is known.")
	}
	for _, s := range r.Steps {
		if s.Status == StepFailed {
			w.line("- Step %s failed: %s", esc(s.Name), word(s.Result))
		}
	}
	for _, f := range r.Findings {
		if f.Level == Problem {
			w.line("- %s: %s", esc(f.Means), word(f.Do))
		}
	}
	if r.Protection.UnprotectedSince != nil {
		w.line("- Protect the workload again: a disaster now would find no copy.")
	}
}

func (w *writer) steps(heading string, list []Step) {
	w.table(heading, "#|Step|Status|Started|Took|Budget|Tries|Result")
	for i, s := range list {
		w.row(strconv.Itoa(i+1), esc(s.Name), esc(s.Status), hour(s.Started), took(s.DurationSeconds), budget(s.BudgetSeconds), strconv.Itoa(s.Attempts), esc(s.Result))
	}
}

func (r Report) clients(w *writer) {
	if len(r.SwitchWindow.Clients) == 0 {
		return
	}
	w.table("Clients", "Client|Role|Stopped|Started|Window")
	for _, c := range r.SwitchWindow.Clients {
		w.row(esc(c.Client), esc(c.Role), hour(c.StoppedAt), hour(c.StartedAt), took(c.Seconds))
	}
}

func (r Report) positions(w *writer) {
	if n := len(r.Positions); n > 0 && n <= manyPartitions {
		columns := "Topic|Partition|End on " + esc(r.From) + "|End on " + esc(r.To) + "|Mark"
		if r.Loss != nil {
			columns += "|Lost" + r.asOf()
		}
		w.table("Positions", columns)
		for _, p := range r.Positions {
			cells := []string{esc(p.Topic), strconv.Itoa(int(p.Partition)), offset(p.SourceEnd), offset(p.TargetEnd), offset(p.Mark)}
			if r.Loss != nil {
				cells = append(cells, p.lost(r.Loss.Open || r.Loss.ClosedAt != nil))
			}
			w.row(cells...)
		}
		return
	}
	topics := r.TopicSummary()
	if len(topics) == 0 {
		return
	}
	w.table("Positions", "Topic|Partitions|In step|Behind|Ahead|Unknown|Records missing")
	for _, t := range topics {
		w.row(esc(t.Topic), strconv.Itoa(t.Partitions), strconv.Itoa(t.InStep), strconv.Itoa(t.Behind), strconv.Itoa(t.Ahead), strconv.Itoa(t.Unknown), offset(t.Missing))
	}
}

// asOf: the number was closed after the run; its partitions are as the run knew them.
func (r Report) asOf() string {
	if r.Loss.ClosedAt == nil {
		return ""
	}
	return ", as the run knew it"
}

// lost is the range of a partition that only the old cluster has, in its own offsets.
func (p PartitionPosition) lost(open bool) string {
	more := ""
	if open {
		more = ", or more"
	}
	switch {
	case p.Mark == nil:
		return "unknown: no mark"
	case p.SourceEnd == nil:
		return fmt.Sprintf("unknown, from %d on: nobody has read the end", *p.Mark)
	case *p.SourceEnd <= *p.Mark:
		return "none" + more
	}
	return fmt.Sprintf("%d to %d, %d records%s", *p.Mark, *p.SourceEnd-1, *p.SourceEnd-*p.Mark, more)
}

func (r Report) groups(w *writer) {
	groups := r.GroupSummary()
	if len(groups) == 0 {
		return
	}
	w.table("Consumer groups", "Group|Partitions|Exact|Read back|Unknown")
	for _, g := range groups {
		w.row(esc(g.Group), strconv.Itoa(g.Partitions), strconv.Itoa(g.Exact), strconv.Itoa(g.ReadBack), strconv.Itoa(g.Unknown))
	}
	var odd []string
	for _, o := range r.Offsets {
		if o.Target == nil || !o.ReadBack || o.Proof != "exact" {
			odd = append(odd, fmt.Sprintf("%s, %s partition %d: %s to %s, %s, read back: %s", o.Group, o.Topic, o.Partition, offset(o.Source), offset(o.Target), o.Proof, yes(o.ReadBack)))
		}
	}
	if left := len(odd) - manyPartitions; left > 0 {
		odd = append(odd[:manyPartitions], fmt.Sprintf("and %d more, in the JSON", left))
	}
	w.list("Offsets to look at", odd)
}

func (r Report) findings(w *writer) {
	ok := 0
	for _, f := range r.Findings {
		if f.Level == OK {
			ok++
		}
	}
	if len(r.Findings) == 0 {
		return
	}
	w.table("Preflight", "Level|Check|What it means|What to do")
	for _, level := range []string{Problem, Warning} {
		for _, f := range r.Findings {
			if f.Level == level {
				w.row(level, esc(f.Check), esc(f.Means), esc(f.Do))
			}
		}
	}
	if ok > 0 {
		w.row(OK, fmt.Sprintf("all others: %d", ok), "", "")
	}
}

func (r Report) decisions(w *writer) {
	if len(r.Decisions) == 0 {
		return
	}
	w.table("Decisions", "When|Who|What|Why")
	for _, d := range r.Decisions {
		w.row(clock(&d.At), esc(d.By), esc(d.Kind), esc(d.Reason))
	}
}

type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) list(heading string, items []string) {
	if len(items) == 0 {
		return
	}
	w.line("\n## %s\n", heading)
	for _, s := range items {
		w.line("- %s", esc(s))
	}
}

func (w *writer) table(heading, columns string) {
	names := strings.Split(columns, "|")
	w.line("\n## %s\n", heading)
	w.row(names...)
	w.line("|%s", strings.Repeat("---|", len(names)))
}

func (w *writer) row(cells ...string) { w.line("| %s |", strings.Join(cells, " | ")) }

var (
	special = regexp.MustCompile("[\\\\`*_\\[\\]<>|~&]")
	leading = regexp.MustCompile(`^([#+\-=]|[0-9]+[.)])`)
)

// esc makes one line of plain text of whatever somebody wrote: no markup, no table cell, no line of its own.
func esc(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		if unicode.Is(unicode.Bidi_Control, c) {
			return -1 // would let a text show in another order than it is stored
		}
		return c
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	s = special.ReplaceAllString(s, `\$0`)
	return leading.ReplaceAllStringFunc(s, func(m string) string { return m[:len(m)-1] + `\` + m[len(m)-1:] })
}

func word(s string) string {
	if strings.TrimSpace(s) == "" {
		return "not said"
	}
	return esc(s)
}

func title(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return esc(string(unicode.ToUpper(first)) + s[size:])
}

func more(s string) string {
	if s == "" {
		return ""
	}
	return "; " + esc(s)
}

func offset(v *int64) string {
	if v == nil {
		return "unknown"
	}
	return strconv.FormatInt(*v, 10)
}

func epochAfter(v *int64) string {
	if v == nil {
		return "not switched"
	}
	return offset(v)
}

func met(ok *bool, objective string) string {
	switch {
	case ok == nil:
		return " (" + objective + ")"
	case *ok:
		return " (met; " + objective + ")"
	}
	return " (**missed**; " + objective + ")"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// took prints seconds as people say them: 0.84 s, 12.3 s, 4m10s.
func took(s *float64) string {
	switch {
	case s == nil:
		return "unknown"
	case *s < 10:
		return strconv.FormatFloat(*s, 'f', 2, 64) + " s"
	case *s < 60:
		return strconv.FormatFloat(*s, 'f', 1, 64) + " s"
	}
	return time.Duration(*s * float64(time.Second)).Round(time.Second).String()
}

func budget(s *float64) string {
	if s == nil {
		return "none"
	}
	return took(s)
}

func clock(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func hour(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("15:04:05.000")
}
