package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/report"
)

// Lagged is what a recovery brings back, and how far it is. Offsets are the old cluster's.
type Lagged struct {
	Tail        string                     `json:"tail"` // the mark set: <id of the old cluster>/<run that kept it>
	Stranded    int64                      `json:"stranded"`
	Topics      []activities.StrandedTopic `json:"topics,omitempty"`
	Read        []replication.ReadAlready  `json:"read,omitempty"` // who would read twice what is appended
	Handled     int64                      `json:"handled"`        // offsets, of Total that are copied or left out with a reason
	Total       int64                      `json:"total"`
	Bytes       int64                      `json:"bytes"`
	Tally       replication.Tally          `json:"tally"`
	Rate        float64                    `json:"rate,omitempty"`        // offsets a second
	LeftSeconds *float64                   `json:"leftSeconds,omitempty"` // by that rate; absent while nobody can say
	At          time.Time                  `json:"at,omitzero"`           // when the progress was read
}

// String is the progress in one line.
func (l *Lagged) String() string {
	s := fmt.Sprintf("%d of %d offsets, %d records recovered", l.Handled, l.Total, l.Tally.Recovered)
	if l.LeftSeconds != nil {
		s += fmt.Sprintf("; %.0f a second, about %s left", l.Rate, short(time.Duration(*l.LeftSeconds*float64(time.Second))))
	}
	return s
}

// topicsOnPage is how many topics an operator sees before the report.
const topicsOnPage = 10

// page is what approvers decide by, and what operators watch.
func (l *Lagged) page() (b []byte) {
	if l == nil {
		return nil
	}
	b = fmt.Appendf(b, "**Stranded**: %d offsets", l.Stranded)
	if l.Total > 0 {
		b = fmt.Appendf(b, "; %s", l)
	}
	b = append(b, "\n\n"...)
	if len(l.Topics) == 0 {
		return b
	}
	b = append(b, "| topic | way | offsets | to copy | superseded | expired | left | bytes |\n|---|---|---|---|---|---|---|---|\n"...)
	for i, t := range l.Topics {
		if i == topicsOnPage {
			b = fmt.Appendf(b, "| and %d more | | | | | | | |\n", len(l.Topics)-i)
			break
		}
		b = fmt.Appendf(b, "| %s | %s | %d | %d | %d | %d | %d | %d |\n", oneLine(t.Topic), t.Treatment, t.Offsets, t.Recovered, t.Superseded, t.Expired, t.Left, t.Bytes)
	}
	return append(b, '\n')
}

// write takes the account where the run was stopped before it had, and reports. What was recovered is in it, whatever
// happened then.
func (r *recovery) write(ctx workflow.Context, until time.Time) (string, error) {
	if r.copying && (r.account == nil || r.status.Outcome != "") {
		if _, err := r.accountFor(ctx, until, false); err != nil {
			r.deviate("the account of what was recovered is missing: " + plain(err))
		}
	}
	if r.status.Outcome == "" {
		r.status.Outcome, r.status.Sentence = Completed, r.sentence()
	} else if a := r.account; a != nil && r.copying && !strings.HasSuffix(r.status.Sentence, a.Text) {
		r.status.Sentence += "; what was recovered stays: " + a.Text
	}
	return r.report(ctx, until)
}

func (r *recovery) sentence() string {
	from, to := r.route.From.Name, r.route.To.Name
	a := r.account
	if a == nil {
		return fmt.Sprintf("what is stranded on %s was looked at, and there is no account of it", from)
	}
	s := fmt.Sprintf("%d records of %s are on %s; %s", a.Total.Recovered, from, to, a.Text)
	if !a.Finished {
		s += "; what is left is kept on " + from
	}
	return s
}

// told is what the report of a recovery says besides, and what it must not say: nothing was switched.
func (r *recovery) told(rep *report.Report) {
	rep.Protection, rep.RPO = report.Protection{Text: "a recovery changes no protection"}, report.RPO{}
	rep.Standing = []string{"WRITE is denied on the topics of " + r.route.From.Name + ", and READ on its groups, as before"}
	for _, g := range r.readers {
		rep.Standing = append(rep.Standing, fmt.Sprintf("of what was rewound on %s, group %s", r.route.From.Name, g))
	}
	if r.plan.Tail == "" {
		return
	}
	d := &report.LaggedData{Tail: r.plan.Tail, Epoch: r.plan.Epoch, Marked: known(r.plan.Marked)}
	var topics []activities.StrandedTopic
	total := r.plan.Total
	if a := r.account; a != nil {
		topics, total = a.Topics, a.Total
		rep.Standing = append(rep.Standing, a.Standing...)
		d.Settled, d.Finished = true, a.Finished
	} else { // nothing was touched: all of it is still there
		total = activities.StrandedTopic{Topic: "all", Offsets: total.Offsets, Tally: replication.Tally{Left: total.Offsets}}
	}
	d.Total = laggedTopic(total)
	for _, t := range topics {
		d.Topics = append(d.Topics, laggedTopic(t))
	}
	for _, g := range r.plan.Read {
		d.ReadAlready = append(d.ReadAlready, report.ReadAlready{Group: g.Group, Topic: g.Topic, Records: g.Records})
	}
	rep.LaggedData = d
}

func laggedTopic(t activities.StrandedTopic) report.LaggedTopic {
	return report.LaggedTopic{Topic: t.Topic, Treatment: string(t.Treatment), Into: t.Into, Partitions: t.Partitions, Stranded: t.Offsets, Became: report.Became(t.Tally), Bytes: t.Bytes, Why: t.Gone}
}
