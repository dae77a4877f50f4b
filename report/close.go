package report

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Close is the report of a run away from a lost cluster once that cluster was fenced and read: the loss as it was counted
// there, at the time given, held against the objectives (P38). What names fencing, the workflow that has done so, stands no
// more. A report of a run that did not go over stays as it is, because nothing was lost by it. Closing again changes nothing.
func (r Report) Close(l Loss, at time.Time, fencing string) Report {
	if r.Kind != KindUnplanned || r.Outcome != Completed {
		return r
	}
	at = at.UTC()
	l.Open, l.ClosedAt = false, &at
	r.Loss, r.RPO = &l, l.RPO(r.Objectives)
	left := []string{Fenced(r.From)}
	for _, s := range r.Standing {
		if !strings.Contains(s, fencing) && !slices.Contains(left, s) {
			left = append(left, s)
		}
	}
	r.Standing = left
	return r
}

// Fenced is what stands on a cluster that a run has left.
func Fenced(cluster string) string {
	return "WRITE is denied on the topics of " + cluster + " until the workload goes home"
}

// RPO holds the loss against its objective. What is certain is said, also while the number is open: more than allowed stays
// more than allowed.
func (l Loss) RPO(o Objectives) RPO {
	out := RPO{Known: l.AtMost != nil && *l.AtMost == l.AtLeast, Text: l.Why}
	if out.Known {
		out.Records = &l.AtLeast
	} else {
		out.Text = fmt.Sprintf("at least %d records%s; %s", l.AtLeast, l.upTo(), l.Why)
	}
	missed := l.AtLeast > o.RPORecords || l.AtLeast > 0 && l.Seconds != nil && *l.Seconds > o.RPOSeconds
	kept := l.AtMost != nil && *l.AtMost <= o.RPORecords && (*l.AtMost == 0 || l.Seconds != nil && *l.Seconds <= o.RPOSeconds)
	if missed || kept {
		out.Met = &kept
	}
	return out
}

func (l Loss) upTo() string {
	open := ", and open"
	if l.ClosedAt != nil {
		open = ", and no upper bound is known"
	}
	switch {
	case l.AtMost != nil:
		return fmt.Sprintf(", at most %d", *l.AtMost)
	case l.Estimate != nil && *l.Estimate > l.AtLeast:
		return fmt.Sprintf(", about %d by estimate%s", *l.Estimate, open)
	}
	return open
}

// closed comes before everything else, because the run's own sentences know less.
func (r Report) closed(w *writer) {
	if r.Loss == nil || r.Loss.ClosedAt == nil {
		return
	}
	w.line("The loss was counted at %s, behind the fence of %s: %s. What the run says itself is what was known before.", clock(r.Loss.ClosedAt), esc(r.From), esc(r.Loss.number()))
	w.line("")
}
