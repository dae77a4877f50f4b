package workflows

import (
	"fmt"
	"slices"
	"time"

	"switchback/activities"
	"switchback/report"
	"switchback/runbooks"
)

// stated is what the report of an unplanned run says besides: its loss, never less than is known, and what its recovery
// time is made of.
func (u *unplannedFailover) stated(r *report.Report) {
	for _, row := range u.status.Earlier {
		r.Earlier = append(r.Earlier, line(row, r.Ended))
	}
	if u.status.Loss == nil {
		return
	}
	r.Loss = u.loss()
	if r.Outcome != Completed {
		r.Loss.Why = "would have been lost; " + r.Loss.Why
		return
	}
	r.RPO = r.Loss.RPO(r.Objectives)
	r.Recovery = u.recovery()
	if c := r.Recovery; c.Outage != nil && c.RunSeconds != nil {
		r.RTO.Seconds = report.Seconds(u.recovered().Sub(u.outage))
		r.RTO.Met = kept(r.RTO.Seconds, r.Objectives.RTOSeconds)
	}
	r.Standing = u.left()
}

func (u *unplannedFailover) loss() *report.Loss {
	out := activities.ReportedLoss(*u.status.Loss, u.status.Losses)
	if out.Open = u.lossOpen(); out.Open {
		out.AtMost = nil // whoever is cut off may write until the old cluster is fenced (P38)
		for i := range out.Topics {
			out.Topics[i].AtMost = nil
		}
	}
	if u.marked == nil {
		out.Why = "as it was assessed at " + u.status.LossAt.UTC().Format(time.RFC3339) + ", because no marks were kept; " + out.Why
	}
	return &out
}

// recovery splits the time from the outage to the first write on the new cluster.
func (u *unplannedFailover) recovery() *report.Recovery {
	out := &report.Recovery{Outage: known(u.outage)}
	switch {
	case u.outage.IsZero():
		out.Text = "nobody said when the outage began, and nobody watched: the recovery time counts from an unknown moment"
	case len(u.status.Earlier) > 0:
		out.Text = "from when the planned run, which was escalated, asked the producers to stop"
	case u.disaster.Outage.IsZero():
		out.Text = "from the last answer of " + u.route.From.Name + " that was seen"
	default:
		out.Text = "as " + or(u.in.By, "the operator") + " said"
	}
	if !u.outage.IsZero() {
		out.DetectionSeconds = report.Seconds(max(0, u.asked.Sub(u.outage)))
	}
	if u.agreed.IsZero() {
		return out
	}
	out.DecisionSeconds = report.Seconds(u.agreed.Sub(u.asked))
	if back := u.recovered(); !back.IsZero() {
		out.RunSeconds = report.Seconds(back.Sub(u.agreed))
	}
	return out
}

// recovered is when every producer that runs again was seen to work; where none is known, when a record of Switchback's own
// had gone through. Zero is unknown.
func (u *unplannedFailover) recovered() (at time.Time) {
	for _, c := range u.book.Clients {
		i := slices.IndexFunc(u.facts.Running, func(s activities.ClientState) bool { return s.Client == c.Name })
		if i >= 0 && c.Role != runbooks.RoleConsumer {
			at = later(at, u.worked(c.Name, u.facts.Running[i].Last))
		}
	}
	if at.IsZero() && u.facts.Verify != nil {
		at = u.facts.Verify.CanaryAt
	}
	return at
}

// left is what an unplanned run leaves behind on purpose, or could not do.
func (u *unplannedFailover) left() []string {
	from := u.route.From.Name
	list := []string{report.Fenced(from)}
	switch id := fencingID(u.in.Runbook, from); {
	case u.waits && !u.unfenced:
		list = append(list, "what is lost is not counted yet: "+id+" compares both clusters, and closes the number")
	case u.unfenced:
		list[0] = fmt.Sprintf("%s is not fenced: whoever is cut off may write there, and that is lost. %s fences it as soon as it answers, and closes the number", from, id)
	}
	list = append(list, "the syncs of link "+u.linkName+" stay suspended for this runbook's names")
	if u.stopping {
		list = append(list, "the mirror's tasks were not seen to stop; a seal on the topics of "+u.route.To.Name+" holds them")
	}
	return append(list, "what is stranded on "+from+" beyond the marks is kept there for recovery; do not delete its topics")
}
